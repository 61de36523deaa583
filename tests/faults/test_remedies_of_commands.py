"""Each remedy for a wrong command is obeyed word for word, and the command then works.

What is put into the command is taken out of the message: the option, setting or value that it
names. Where it leaves something open (FILE, another folder), the table says what stands for it
(obeying.py); @ is a path where there is nothing yet.
"""

import importlib
import io
import itertools
import re
import shlex
import shutil
import socket
import sys

import pytest

from langue.cli import run
from tests.contract.task_rows import CASES
from tests.faults.obeying import Case, named, obey
from tests.tiny import PLAIN, reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder
from tests.tiny_kinds import tiny_model

TRAIN = "finetune --model bert --data a.jsonl train.max_steps=2 train.batch_examples=16"
LOOK = "data preview --model bert --data a.jsonl"
PREDICT = "predict run --text film"
WRITE = "generate dec --prompt film --max-tokens 2"
SERVE = "serve run --port 0"
PLAN = "plan --size 10M --tokens 1B"
NEAR = r"did you mean (\S+?)(?:\?| or )"
LEAST = r"(?:greater than or equal to|at least) ([\d.]+)"
MOST = r"(?:less than or equal to|at most) ([\d.]+)"
TUNE = "tune --model bert --data a.jsonl --trials 1 --out @ train.max_steps=1"
ONCE = "finetune --model bert --data a.jsonl --out @ train.max_steps=1 train.batch_examples=16"
JUDGE = "--judge dec --judge-prompt j.txt --out @.jsonl"
TOKENIZE = "data tokenize t.txt --tokenizer dec"
TOKENIZER = "tokenizer train t.txt tokenizer.vocab_size=300"
PRETRAIN = "pretrain --objective causal --data t.txt --out @ train.max_steps=1"
LOOK_AT = "data preview --model bert --data"

SETTINGS = [
    (f"{LOOK} «train.lrr»=0.1", NEAR),
    (f"{LOOK} «data.max_lenght»=8", NEAR),
    (f"{LOOK} «lr»=0.1", NEAR),
    (f"{LOOK} data.max_length=«2»", LEAST),
    (f"{LOOK} train.batch_tokens=«16»", r"set train\.batch_tokens to at least (\d+)"),
    (
        f"{LOOK} train.batch_tokens=16 «»",
        r"or (data\.max_length) to at most 16",
        "data.max_length=16",
    ),
    (f"{LOOK} train.optimizer=«adamm»", r"should be '(\w+)'"),
    (f"{LOOK} train.optimizer=«adamm»", r"or '(\w+)'"),
    (f"{LOOK} task.pooling=«clss»", r"should be '(\w+)'"),
    (f"{LOOK} data.truncation=«middle»", r"should be '([\w-]+)'"),
    (f"{LOOK} train.precision=«fp64»", r"or '(\w+)'"),
    (f"{LOOK} data.encoding=«utf9»", r"some are (\w+)"),
    (f"{LOOK} task.positive=«good»", r"known: (\w+)"),
    (f"{LOOK} «model.dim=32»", "leave it out"),
    (f"{LOOK} «tokenizer.vocab_size=300»", "leave it out"),
    (f"{LOOK} «task.margin=1»", "leave it out"),
    (f"{LOOK} «data.fold=1»", r"give both, as (\S+ \S+),"),
    (f"{LOOK} model.adapter=«lorra»", r"should be '(\w+)'"),
    (f"{LOOK} model.adapter=lora model.lora_rank=«99»", r"to (\d+)"),
    (f"{LOOK} model.adapter=lora model.lora_targets=«foo»", r"it has: ([\w.]+)"),
    (f"{LOOK} model.adapter=lora model.lora_targets=«foo»", r"or (\S+)"),
    (f"{LOOK} model.adapter=lora «model.freeze=all»", r"leave model\.freeze out"),
    ("tokenizer train t.txt --out fresh tokenizer.vocab_size=«3»", r"above (\d+)", "300"),
]
OPTIONS = [
    (f"{LOOK} --task «classifi»", r"known: (\w+)"),
    (f"{LOOK} «--columns text=txt»", r"(--columns \S+)"),
    (f"{LOOK} --columns «tex»=text", NEAR),
    (f"{LOOK} «--train a.jsonl»", "leave one of them out"),
    (f"{LOOK} «--dev a.jsonl»", "leave one of them out"),
    ("data preview --model bert --dev a.jsonl «»", "give (--train)", "--train b.jsonl"),
    ("data preview --model bert --data «aa.jsonl»", NEAR),
    ("data preview --model «./bret» --data a.jsonl", NEAR),
    ("data preview --model «brt» --data a.jsonl", NEAR),
    ("predict «./rum» --text film", NEAR),
    ("predict run «»", r'give (--text "\.\.\.")', "--text film"),
    ("predict run «»", "(--data FILE)", "--data a.jsonl"),
    (f"{PREDICT} «--data a.jsonl»", "leave one of them out"),
    (f"{PREDICT} --top «0»", LEAST),
    (f"{PREDICT} --batch-tokens «0»", LEAST),
    (f"{PREDICT} --device «gpu»", r"give (\w+)"),
    (f"{PREDICT} «--keep label»", "leave it out"),
    (f"{PREDICT} «--resume»", "leave it out"),
    ("predict run --data a.jsonl --keep «foo»", "columns are text, (label)"),
    ("predict run --data a.jsonl «--keep foo»", "leave it out"),
    ("predict run --data a.jsonl --out «a.jsonl» --force", "another --out", "new.jsonl"),
    ("predict run --data a.jsonl --out c.jsonl «»", "with (--force)"),
    ("«predict run --text»", r"see langue (.*)"),
    ("evaluate run --split «tset»", r"there are: (\w+)"),
    ("evaluate run «--limit 3»", "leave it out"),
    ("evaluate dec «»", "(--data)", "--data t.txt"),
    (f"{WRITE} «--data a.jsonl»", "give one of them"),
    (f"{WRITE} «--out o.jsonl»", "leave out --out"),
    (f"{WRITE} --top-p «2»", MOST),
    (f"{WRITE} --temperature «-1»", LEAST),
    (f"{WRITE} «--stream» --n 2 --temperature 1", "leave it out"),
    (f"{WRITE} --weights «int3»", "or (int4)"),
    (f"{WRITE} --min-tokens «9»", "lower min_tokens", "1"),
    ("rank dec --choice a --choice b «»", r'give (--prompt "\.\.\.")', "--prompt a"),
    ("rank dec --prompt a «»", r'give (--choice "\.\.\.")', "--choice a --choice b"),
    (f"{SERVE} --memory «big»", "write (8GB)"),
    (f"{SERVE} --memory «1KB»", r"--memory (\d+) or more"),
    (f"{SERVE} «--host 0.0.0.0»", "leave out --host"),
    ("serve run --port «99999»", MOST, "0"),
    ("serve run «run» --port 0", "name it once"),
    ("plan «»", "give (--size)", "--size 10M"),
    ("plan «--size 10M» --model bert --tokens 1B", "leave --size and --preset out"),
    (f"{PLAN} --hardware «h10»", NEAR),
    (f"{PLAN} --length «1»", LEAST),
    ("plan --preset «bert-tny» --tokens 1B", NEAR),
    ("plan --size «big» --tokens 1B", r"like (\w+)"),
    ("convert bert out «--merge»", "leave it out"),
    ("convert bert other «--widen»", "leave --widen out"),
    ("data inspect t.txt --document «foo»", r"choose (\w+)"),
    ("data tokenize t.txt --tokenizer bert --out «full»", "another with --out", "corpus"),
    (
        "pretrain --objective «masked» --model dec --data t.txt --out pre2 train.max_steps=1",
        "another model.preset, model or objective",
        "causal",
    ),
]
FOLDERS = [
    (f"{TRAIN} --out run «»", r"go on with (--resume)"),
    (f"{TRAIN} --out run1 «»", r"with (--force)"),
    (f"{TRAIN} --out gone «--resume»", "without --resume"),
    (f"{TRAIN} --out «full»", "another --out", "one"),
    (f"{TRAIN} --out «full --resume»", "without --resume, in another --out", "three"),
    (
        "finetune «--model bert --data a.jsonl train.max_steps=4 --out run --resume»",
        "train its model further with --model in a new --out",
        "--model run --data a.jsonl train.max_steps=1 --out five",
    ),
]

PLANS = [
    (f"{PLAN} --vocabulary «1»", LEAST),
    (f"{PLAN} --devices «0»", r"give (\d) to"),
    (f"{PLAN} --mfu «2»", r"mfu <= (\d)"),
    (f"{PLAN} --pue «0.5»", r"pue >= (\d)"),
    (f"{PLAN} «--budget 1e21»", "leave one out"),
    ("plan --budget '8 h100 for 3 days' «--hardware a100»", "leave --hardware and --devices out"),
    ("plan --budget '«8 h100 for 0 days»'", "write it like '(.*)'"),
    ("plan --hardware h100 --devices 64 --budget «much»", r"write (\S+),"),
    ("plan --model bert --tokens 1B --length 64 «--vocabulary 300»", "leave it out"),
    ("plan --model bert --tokens 1B --length «9999»", r"give --length (\d+)"),
    (f"{PLAN} --batch-tokens «10»", "give more", "4096"),
    (f"{PLAN} --hardware h100 --batch-tokens «4096» --devices 4096", "give a larger", "10M"),
    (f"{PLAN} --hardware h100 --batch-tokens 4096 --devices «4096»", "or fewer --devices", "4"),
    ("plan --size 70B --tokens 1B --hardware rtx4090 --devices «1»", r"give --devices (\d+)"),
    ("plan --model t5 --tokens 1B --length 32 «--measure»", "leave --measure out"),
    ("plan --size 10M --tokens 1B --length «9000000000»", "make them shorter", "512"),
]
SEARCHES = [
    (f"{TUNE} train.optimizer=«1..2»", "list values: .*=A,B,C", "adamw,muon"),
    (f"{TUNE} train.lr=«1e-3..1e-5»", r"write train\.lr=LOW\.\.HIGH", "1e-5..1e-3"),
    (f"{TUNE} train.accumulate=«1.5..3»", "give whole numbers as both ends", "1..3"),
    (f"{TUNE} train.lr=1e-5..1e-3«:natural»", r"write (:\w+) or"),
    (f"{TUNE} train.lr=«0»..1e-3:log", "begin the range above 0", "1e-5"),
    (f"{TUNE} train.weight_decay=0..0.1«:log»", "or write (:linear)"),
    (f"{TUNE} train.lr=«1e-4,1e-4»", "write .*=A,B,C, each value once", "1e-4,1e-3"),
    (f"{TUNE} train.lr=1e-4,1e-3 train.seed=«1,2»", "give it one value", "1"),
    (f"{TUNE} «»", r"a range, as (\S+),"),
    (f"{TUNE} train.lr=1e-4,1e-3 --trials «0»", "give more", "1"),
    (f"{TUNE} train.lr=1e-4,1e-3 «--resume»", "start it without --resume"),
    (f"{TUNE.replace('@', '«full»')} train.lr=1e-4,1e-3", "choose another --out", "@"),
]
SEVERAL = [
    (f"{ONCE} --folds «1»", r"give (\d)"),
    (f"{ONCE} --seeds «0»", r"give (\d)"),
    (f"{ONCE} --shares «2»", r"give (\S+)"),
    (f"{ONCE} --shares «half»", r"write --shares (\S+)"),
    (f"{ONCE} --seeds 1 «--force»", "leave it out, and choose another --out"),
    (f"{ONCE.replace('@', '«full»')} --seeds 1", "choose another --out", "@"),
    (f"{ONCE} --folds 2 «data.fold=1»", "leave it out"),
    (f"{ONCE} model.freeze=«heads»", r"give (\w+),"),
    (f"{ONCE} model.freeze=«heads»", r"layers of (\d)-"),
]
RATES = [
    ("rate --report v.jsonl «x.jsonl y.jsonl»", "leave them out"),
    (f"rate «x.jsonl x.jsonl» {JUDGE}", "two or more different files", "x.jsonl y.jsonl"),
    ("rate x.jsonl y.jsonl --judge dec --judge-prompt j.txt «»", "give (--out) ", "--out @.jsonl"),
    (f"rate x.jsonl y.jsonl {JUDGE} «--rater me»", "leave --rater out"),
    (f"rate x.jsonl y.jsonl {JUDGE} --repeat «2»", r"give ([\d.]+)"),
    (
        "rate x.jsonl y.jsonl --out @.jsonl --judge-prompt j.txt «»",
        "(--judge) MODEL",
        "--judge dec",
    ),
    (f"rate x.jsonl dec {JUDGE} --max-tokens 2 «»", "give (--data) FILE", "--data prompts.jsonl"),
    (f"rate x.jsonl «long.jsonl» {JUDGE}", "of the same items, in one order", "y.jsonl"),
    (f"rate x.jsonl «other.jsonl» {JUDGE}", "of the same items, in one order", "y.jsonl"),
]
MODELS = [
    ("compress quantize dec --out @ --weights «int3»", r"(\w+) or int4"),
    ("compress quantize dec --out @ --weights «int3»", r"int8 or (\w+)"),
    ("compress quantize bert --out @ --weights «int4»", r"use (\w+)"),
    ("compress quantize bert --out @ «--data t.txt»", "leave --data out"),
    ("compress quantize «int8» --out @", "take the model that it was made from", "dec"),
    ("compress quantize dec --out «full»", "choose another", "@"),
    ("convert dec «full»", "choose another", "@"),
    ("convert dec @ --dtype «fp8»", r"a folder is (\w+)"),
    ("convert dec @.gguf --dtype «fp8»", r"a \.gguf (\w+)"),
    ("convert «t5» @.gguf", r"those can: .*(llama)", "dec"),
    ("convert dec «g.gguf»", "choose another", "@.gguf"),
    ("zero-shot dec --label a --label b «»", r'give (--text) "\.\.\."', "--text film"),
    ("extract dec --question a «»", "give (--context) TEXT", "--context film"),
    ("extract dec --question a «»", "or (--data) FILE", "--context film"),
    ("extract dec --data asked.jsonl «--context film»", "leave one of them out"),
    ("data mine --model bert --data nli.jsonl --out @.jsonl --number «0»", r"number of (\d) or"),
    ("predict pairs --text film «»", "give what it was trained on", "--pair plot"),
    ("predict pairs --text film --pair a «--pair b»", "give one --pair for each --text"),
    ("predict run --data a.jsonl --out p«.xlsx»", r"name it (\.\w+)"),
    ("predict run --data kept.jsonl --keep «prediction,»id", "leave it out of --keep"),
    ("predict run --data a.jsonl --out @.jsonl «--resume»", "leave it out|leave out --resume"),
    ("predict «bert» --text film", "fine-tune it first", "run"),
    ("evaluate «bert» --data a.jsonl", "give a run of finetune or pretrain", "run"),
    ("evaluate run «pairs»", "runs of one task with the same labels", "run1"),
    ("evaluate run «pre»", "evaluate each alone on the same text", "run1"),
    (f"{SERVE} --api-keys keys.txt --host «::zz»", "give one", "127.0.0.1"),
    (f"{SERVE} --api-keys keys.txt «--host ::zz»", "or leave it out"),
    ("serve run --port 0 --api-keys «gone.txt»", "make it, with one key a line", "keys.txt"),
    ("generate dec --prompt a --max-tokens 2 --logit-bias «5»", r"write --logit-bias (\S+)"),
    ("predict run «a.jsonl»", "write (--data) FILE", "--data a.jsonl"),
    ("predict run «-» --data a.jsonl", "give one of them"),
]
WORDS = [
    (f"{LOOK} «train.lr»", r"write it as section\.key=value", "train.lr=0.1"),
    (f"{LOOK_AT} named.jsonl --columns «review»", r"write --columns (\S+)"),
    (f"{LOOK} --columns text=text,label=label«,text=text»", "name each of ours once"),
    (
        "data preview --model bert --train nli.jsonl --dev «a.jsonl»",
        "give all of them",
        "nli.jsonl",
    ),
    (f"{LOOK} train.best=«accurracy»", NEAR),
    (f"{LOOK} train.best=«speed»", r"known: (\w+)"),
    ("data preview --model dec --data a.jsonl task.pooling=«first»", r"use task\.pooling=(\w+)"),
    (f"{LOOK_AT} three.jsonl «task.positive=pos»", "leave it out"),
    (
        "data preview --task tag --model bert --data words.jsonl «task.scheme=iob2»",
        "leave task.scheme out",
    ),
    ("data preview --task seq2seq --model «bert» --data s.jsonl", "take an encoder-decoder", "t5"),
    ("data preview --task chat --model «t5» --data chat.jsonl", "take a decoder", "dec"),
    ("data preview --task chat --model dec --data chat.jsonl task.template=«no.j2»", r"or (\w+)$"),
    ("data preview --task preference --model dec --data pref.jsonl task.loss=«kto»", r"loss=(\w+)"),
    (
        "data preview --task preference --model dec --data pref.jsonl task.loss=ipo"
        " «task.label_smoothing=0.1»",
        "leave one of them out",
    ),
    ("data preview --task embed --model bert --data pairs.jsonl task.loss=«triplet»", r"use (\w+)"),
    (
        "data preview --task embed --model bert --data pairs.jsonl task.matryoshka=«99»",
        r"sizes from \d to (\d+)",
    ),
    (
        "data preview --task embed --model bert --data «alike.jsonl»",
        "give scores that differ",
        "scored.jsonl",
    ),
    (
        "data preview --task regress --model bert --data «alike.jsonl»",
        "whose scores differ",
        "scored.jsonl",
    ),
    (f"{LOOK_AT} «alone.jsonl»", "at least two labels", "a.jsonl"),
    (f"{LOOK_AT} «two.jsonl»", "give more rows", "a.jsonl"),
    (f"{LOOK} data.folds=«30» data.fold=1", "or fewer folds", "2"),
    (f"{LOOK} «--columns txt=text»", NEAR, "--columns text=text"),
]
TEXT = [
    ("data inspect «»", "name files, folders", "t.txt"),
    ("data inspect t.txt «t.txt»", "name it once"),
    ("data inspect «t.txt t.txt»", r"as (\S+@2), to see it twice"),
    ("data inspect t.txt@«0»", r"such as @([\d.]+)"),
    ("data inspect «full/none.bin»", "it must end in .*(.txt)", "t.txt"),
    ("data inspect «empty.txt»", "give files with text", "t.txt"),
    ("data inspect «dec»", r"its files must end in (\S+)", "t.txt"),
    ("data tokenize «made» --tokenizer dec --out @", "name the texts that it was made of", "t.txt"),
    (f"{TOKENIZE} --out «t.txt»", "name a folder with --out", "@"),
    (f"{TOKENIZE} --out made «»", "or replace it: (--force)"),
    (f"{TOKENIZE} --out «made»", "name another", "@"),
    (f"{TOKENIZER} --out «full»", "name another folder", "@"),
    (f"{TOKENIZER} --out @ tokenizer.special=«a,,b»", r"by commas: (\S+)", "'<|user|>,<|model|>'"),
    (
        f"{TOKENIZER} --out @ tokenizer.kind=unigram tokenizer.vocab_size=«20»",
        r"set it above (\d+)",
        "300",
    ),
    (
        "tokenizer train han.txt --out @ «tokenizer.kind=unigram» tokenizer.vocab_size=300",
        r"(tokenizer\.kind=bpe)",
    ),
    (f"{PRETRAIN} --objective masked --model bert data.seq_len=«999»", MOST),
    (f"{PRETRAIN} --model dec data.seq_len=32 train.batch_tokens=«16»", LEAST),
    (f"{PRETRAIN} --model dec «--size 10M»", "leave one of them out"),
    (f"{PRETRAIN} --model dec data.seq_len=32 «model.base_weights=int8»", "leave it out"),
    (f"{PRETRAIN} data.seq_len=32 model.adapter=lora «»", "name it with (--model)", "--model dec"),
    (
        f"{PRETRAIN} --size 300K «model.size=200K» tokenizer.vocab_size=300 data.seq_len=32",
        "leave one of them out",
    ),
    (
        f"{PRETRAIN.replace('t.txt', 'made')} --model dec data.seq_len=32 «--columns text=a»",
        "leave it out",
    ),
    (f"{PRETRAIN} --model dec data.seq_len=32 «--tokenizer bert»", "leave out --tokenizer"),
    (
        f"{PRETRAIN.replace('causal', 'masked').replace('t.txt', 'one.txt')} --model bert"
        " data.seq_len=32 task.pairs=«next»",
        r"set task\.pairs=(\w+)",
    ),
]


AGAIN = [
    (f"{ONCE.replace('@', 'seeds')} --seeds 1 «»", r"go on with (--resume)"),
    (f"{ONCE.replace('@', '«full»')} --seeds 1 --resume", "in another --out", "seeds"),
    (f"{ONCE} --seeds 1 «--resume»", "start without --resume"),
    (f"{TRAIN} --out run1 --resume «train.lr=0.5»", "repeat the first command"),
    (f"{TRAIN.replace('bert', 'run')} --out «run» --force", "choose another --out", "@"),
    (f"{TRAIN} --out «full» --force", "choose another --out", "@"),
    (f"{TUNE.replace('@', 'study')} train.lr=1e-4,1e-3 «»", r"go on with (--resume)"),
    (
        f"{TUNE.replace('@', 'study')} train.lr=1e-4,«1e-2» --resume",
        "repeat the first command",
        "1e-3",
    ),
    (f"{LOOK_AT} «only»", "name a file", "a.jsonl"),
    (f"{LOOK_AT} «doubled»", "leave one of them there", "doubled/train.jsonl"),
    (
        "data preview --task seq2seq --data s.jsonl model.adapter=lora «»",
        "with (--model)",
        "--model t5",
    ),
    ("data preview --task chat --model dec --data chat.jsonl model.adapter=lora «»", r"set (\S+),"),
    (
        "data preview --task chat --model dec --data chat.jsonl «model.adapter=lora»",
        "leave model.adapter out",
    ),
    ("data preview --data a.jsonl «»", "(--model)", "--model bert"),
    ("data preview --model bert «»", "(--data)", "--data a.jsonl"),
    ("data preview --model bert «--dta» a.jsonl", NEAR),
    (f"{LOOK} --columns «score=text,»text=text", "leave score out"),
    ("data preview --task chat --model talker --data chat.jsonl «»", r"(task\.template=\S+)"),
    ("chat dec «»", "(--plain) has it go on"),
    (
        "«chat t5 --plain»",
        r"langue generate MODEL --prompt TEXT",
        "generate t5 --prompt film --max-tokens 2",
    ),
    ("chat talker «--plain» --system a", "leave out --plain"),
    (
        "zero-shot dec --label a --label b --data named.jsonl «»",
        "(--columns text=)NAME",
        "--columns text=review",
    ),
    (f"{PRETRAIN} --objective masked --model bert data.seq_len=«2»", r"set it above (\d+)", "32"),
    (
        "rank dec --choice a --choice b --data only «»",
        "(--columns prompt=)NAME",
        "--columns prompt=text",
    ),
    ("rank dec --choice a --choice b --data «full»", "name one of its files", "prompts.jsonl"),
    ("plan --size «1M» --vocabulary 500000 --tokens 1B", r"\(--size (\d+)\)"),
    ("evaluate apart «»", "name text to judge on with (--data)", "--data t.txt"),
    ("data tokenize «empty.txt» --tokenizer dec --out @", "give text", "t.txt"),
]
VOTE = '{"item": 1, "rater": "1", "left": "x", "right": "y", "vote": "left"}'
# (the file that is wrong, the command, what is wrong in the file)
IN_FILES = [
    (
        "r.toml",
        "data preview --model bert --recipe r.toml",
        ('[data]\nname = "a.jsonl"\n«train = "a.jsonl"»', "name data, or train, dev and test"),
    ),
    ("v2.jsonl", "rate --report v2.jsonl", (f"«a vote»\n{VOTE}", "take the line out")),
    ("v2.jsonl", "rate --report v2.jsonl", (f'«{{"item": 1}}»\n{VOTE}', "take the line out")),
    (
        "v2.jsonl",
        "rate --report v2.jsonl",
        (f"{VOTE}\n{VOTE}".replace('"left"}', '"«best»"}', 1), r"votes are (\w+)"),
    ),
    (
        "j2.txt",
        "rate x.jsonl y.jsonl --judge dec --judge-prompt j2.txt --out @.jsonl",
        ("which «?»", r"write (\{question\}, \{left\} and \{right\}) into it"),
    ),
    (
        "x2.jsonl",
        f"rate x2.jsonl y.jsonl {JUDGE}",
        ('{«"x": 1»}\n{"text": "b"}', r'write \{("text": "\.\.\.")\}'),
    ),
    (
        "ask.jsonl",
        f"rate x.jsonl y.jsonl --data ask.jsonl {JUDGE}",
        ('{"prompt": "a", "id": "«b»"}\n{"prompt": "b", "id": "b"}', "an id of its own", "a"),
    ),
    (
        "few.jsonl",
        "zero-shot dec --label a --label b --text film --examples few.jsonl",
        ('{"text": "a"«»}', "fill both in", ', "label": "b"'),
    ),
    (
        "few.jsonl",
        "extract dec --question a --context film --examples few.jsonl",
        ('{"question": "a", "context": "film"«»}', "fill them in", ', "answers": ["film"]'),
    ),
    (
        "rank.jsonl",
        "rank dec --data rank.jsonl",
        ('{"prompt": "a"«»}', "write a list", ', "choices": ["b"]'),
    ),
    (
        "p.jsonl",
        "generate dec --data p.jsonl --max-tokens 2",
        ("«5»", r'write (\{"prompt": "\.\.\."\}) on each line'),
    ),
    (
        "p.jsonl",
        "generate dec --data p.jsonl --max-tokens 2",
        ('{"prompt": "a"«, "tokens": [5]»}', "give one of them"),
    ),
    (
        "own.txt",
        "serve run --port 0 --api-keys own.txt",
        ("«»", "write one a line", "a-key-that-is-long-enough-to-be-one"),
    ),
]
# what is typed into a conversation
TYPED = [
    ("hello\n«/undo all»", r"write (/\w+)"),
    ("«/redo»", r"(/\w+) lists them"),
    ("«»/redo", "a blank before it makes it text", " "),
    ("hello\n«/save»", r"write (/save \S+)"),
    ("hello\n/save «x.jsonl»", "choose another", "other talk.jsonl"),
    ("«»/save the talk.jsonl", "say something", "hello\n"),
    ("«»/retry", "say something", "hello\n"),
    ("«»/undo", "say something", "hello\n"),
]


def _write(folder, **files: list[dict]) -> None:
    for name, rows in files.items():
        write_jsonl(folder / f"{name}.jsonl", rows)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with data, models and runs."""
    folder = tmp_path_factory.mktemp("there")
    tiny_bert(folder / "bert")
    tiny_decoder(folder / "dec", "llama")
    tiny_model(folder / "t5", "t5")
    rows = reviews(40)
    kinds = ["entailment", "neutral"]
    few = [{"text": row["text"], "label": row["label"], "score": n} for n, row in enumerate(rows)]
    _write(
        folder,
        **dict.fromkeys(("a", "b", "c"), rows),
        kept=[row | {"id": n, "prediction": "pos"} for n, row in enumerate(rows)],
        named=[{"review": row["text"], "sentiment": row["label"]} for row in rows],
        three=[row | {"label": "abc"[n % 3]} for n, row in enumerate(rows)],
        nli=[
            {"text": word, "pair": other, "label": kinds[len(other) % 2]}
            for word, other in itertools.pairwise(PLAIN)
        ],
        words=CASES["tag words"].rows(20),
        s=CASES["seq2seq"].rows(20),
        chat=CASES["chat"].rows(20),
        pref=CASES["preference"].rows(20),
        pairs=CASES["embed scored pairs"].rows(20),
        **{"only/test": rows[:9], "doubled/train": rows[:9], "doubled/training": rows[:9]},
        scored=[row | {"pair": row["text"][::-1], "score": row["score"] / 40} for row in few],
        alike=[row | {"pair": row["text"][::-1], "score": 1} for row in few],
        alone=[row | {"label": "pos"} for row in rows],
        two=rows[:2],
        asked=[{"question": "who", "context": "a film"}],
        prompts=[{"prompt": "a"}, {"prompt": "b"}],
        x=[{"prompt": "a", "text": "one"}, {"prompt": "b", "text": "two"}],
        y=[{"prompt": "a", "text": "film"}, {"prompt": "b", "text": "plot"}],
        other=[{"prompt": "c", "text": "film"}, {"prompt": "b", "text": "plot"}],
        long=[{"text": "film"}] * 3,
    )
    for name, content in {
        "t.txt": "".join(f"{row['text']}\n" for row in reviews(80)),
        "one.txt": " ".join(row["text"] for row in rows),
        "empty.txt": "\n",
        "han.txt": "".join(map(chr, range(0x4E00, 0x4F80))),
        "j.txt": "{left}{right}",
        "keys.txt": "a-key-that-is-long-enough-to-be-one",
        "v.jsonl": f"{VOTE}\n",
        "g.gguf": "",
        "full/notes.txt": "mine",
        "full/none.bin": "mine",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("run", "run1"):
            assert run([*TRAIN.split(), "--out", name]) == 0
        for command in (
            f"{ONCE.replace('@', 'seeds')} --seeds 1",
            f"{TUNE.replace('@', 'study')} train.lr=1e-4,1e-3",
            "finetune --model bert --data nli.jsonl --out pairs train.max_steps=1",
            "pretrain --model dec --data t.txt --out pre train.max_steps=1 data.seq_len=32",
            f"{TOKENIZE} --out made",
            "compress quantize dec --out int8",
        ):
            assert run(command.split()) == 0
    shutil.copytree(folder / "pre", folder / "apart")
    shutil.rmtree(folder / "apart" / "corpus")
    talker = shutil.copytree(folder / "dec", folder / "talker")
    (talker / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.content }}{% endfor %}"
    )
    return folder


@pytest.fixture
def attempt(there, tmp_path, monkeypatch, capsys):
    """Runs a command, and says its error."""
    monkeypatch.chdir(there)
    # else it serves for ever; `langue.serve` is a function
    server = importlib.import_module("langue.serve.server")
    monkeypatch.setattr(server, "_run", lambda *given: None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    fresh = itertools.count()

    def do(command: str) -> str:
        path = tmp_path / f"new{next(fresh)}"
        code = run(shlex.split(re.sub(r"(?<= )@", str(path), command)))
        said = capsys.readouterr().err.strip()
        assert code in (0, 2), said
        message = said.splitlines()[-1] if code else ""
        assert not code or message.startswith("langue: error: "), said
        return message

    return do


@pytest.mark.parametrize("case", SETTINGS + OPTIONS + FOLDERS, ids=named)
def test_remedies_of_commands(case: Case, attempt):
    obey(case, attempt)


@pytest.mark.parametrize(
    "case", PLANS + SEARCHES + SEVERAL + RATES + MODELS + WORDS + TEXT + AGAIN, ids=named
)
def test_remedies_of_more_commands(case: Case, attempt):
    obey(case, attempt)


@pytest.mark.parametrize(("file", "command", "case"), IN_FILES, ids=lambda part: str(part)[:40])
def test_remedies_in_files(file, command, case: Case, there, attempt):
    def follow(content: str) -> str:
        (there / file).write_text(content)
        return attempt(command)

    obey(case, follow)


@pytest.mark.parametrize("case", TYPED, ids=named)
def test_remedies_in_a_conversation(case: Case, attempt, monkeypatch):
    def follow(said: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said.encode())))
        return attempt("chat talker --max-tokens 2")

    obey(case, follow)


def test_a_reference_is_made_as_it_says(attempt):
    message = attempt("verify dec --reference kept.safetensors")
    words = message.partition("make one: langue ")[2].replace("MODEL", "dec")
    assert not attempt(words.replace("FILE", "kept.safetensors"))
    assert not attempt("verify dec --reference kept.safetensors")


def test_a_port_that_is_taken(attempt):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        obey((f"serve run --port «{taken.getsockname()[1]}»", "give another --port", "0"), attempt)


def test_a_key_is_made_as_it_says(there, attempt, capsys):
    (there / "made.txt").write_text("short")
    message = attempt("serve run --port 0 --api-keys made.txt")
    program, option, code = shlex.split(message.partition("make one: ")[2])
    assert (program, option) == ("python", "-c")
    exec(code, {})
    (there / "made.txt").write_text(capsys.readouterr().out)
    assert not attempt("serve run --port 0 --api-keys made.txt")


def test_data_that_is_not_what_it_was(there, monkeypatch, capsys):
    monkeypatch.chdir(there)
    kept = (there / "a.jsonl").read_bytes()
    write_jsonl(there / "a.jsonl", reviews(50, seed=5))
    assert run(["evaluate", "run"]) == 2
    option = re.search(
        r"put the data back, or name texts .* with (--data)", capsys.readouterr().err
    )
    assert run(["evaluate", "run", option[1], "b.jsonl"]) == 0
    (there / "a.jsonl").write_bytes(kept)
    assert run(["evaluate", "run"]) == 0

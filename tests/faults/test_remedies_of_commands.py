"""Each remedy for a wrong command is obeyed word for word, and the command then works.

What is put into the command is taken out of the message: the option, setting or value that it
names. Where it leaves something open (FILE, another folder), the table says what stands for it.
"""

import importlib
import re
import shlex

import pytest

from langue.cli import run
from tests.tiny import reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

TRAIN = "finetune --model bert --data a.jsonl train.max_steps=2 train.batch_examples=16"
LOOK = "data preview --model bert --data a.jsonl"
PREDICT = "predict run --text film"
WRITE = "generate dec --prompt film --max-tokens 2"
SERVE = "serve run --port 0"
PLAN = "plan --size 10M --tokens 1B"
NEAR = r"did you mean (\S+?)(?:\?| or )"
LEAST = r"(?:greater than or equal to|at least) ([\d.]+)"
MOST = r"(?:less than or equal to|at most) ([\d.]+)"

# (the command, where the wrong part stands in brackets; what is read of the message: its group
# stands in their place, and without one nothing does; what stands for a group that is left open)
SETTINGS = [
    (f"{LOOK} [train.lrr]=0.1", NEAR),
    (f"{LOOK} [data.max_lenght]=8", NEAR),
    (f"{LOOK} [lr]=0.1", NEAR),
    (f"{LOOK} data.max_length=[2]", LEAST),
    (f"{LOOK} train.batch_tokens=[16]", r"set train\.batch_tokens to at least (\d+)"),
    (
        f"{LOOK} train.batch_tokens=16 []",
        r"or (data\.max_length) to at most 16",
        "data.max_length=16",
    ),
    (f"{LOOK} train.optimizer=[adamm]", r"should be '(\w+)'"),
    (f"{LOOK} train.optimizer=[adamm]", r"or '(\w+)'"),
    (f"{LOOK} task.pooling=[clss]", r"should be '(\w+)'"),
    (f"{LOOK} data.truncation=[middle]", r"should be '([\w-]+)'"),
    (f"{LOOK} train.precision=[fp64]", r"or '(\w+)'"),
    (f"{LOOK} data.encoding=[utf9]", r"some are (\w+)"),
    (f"{LOOK} task.positive=[good]", r"known: (\w+)"),
    (f"{LOOK} [model.dim=32]", "leave it out"),
    (f"{LOOK} [tokenizer.vocab_size=300]", "leave it out"),
    (f"{LOOK} [task.margin=1]", "leave it out"),
    (f"{LOOK} [data.fold=1]", r"give both, as (\S+ \S+),"),
    (f"{LOOK} model.adapter=[lorra]", r"should be '(\w+)'"),
    (f"{LOOK} model.adapter=lora model.lora_rank=[99]", r"to (\d+)"),
    (f"{LOOK} model.adapter=lora model.lora_targets=[foo]", r"it has: ([\w.]+)"),
    (f"{LOOK} model.adapter=lora model.lora_targets=[foo]", r"or (\S+)"),
    (f"{LOOK} model.adapter=lora [model.freeze=all]", r"leave model\.freeze out"),
    ("tokenizer train t.txt --out fresh tokenizer.vocab_size=[3]", r"above (\d+)", "300"),
]
OPTIONS = [
    (f"{LOOK} --task [classifi]", r"known: (\w+)"),
    (f"{LOOK} [--columns text=txt]", r"(--columns \S+)"),
    (f"{LOOK} --columns [tex]=text", NEAR),
    (f"{LOOK} [--train a.jsonl]", "leave one of them out"),
    (f"{LOOK} [--dev a.jsonl]", "leave one of them out"),
    ("data preview --model bert --dev a.jsonl []", "give (--train)", "--train b.jsonl"),
    ("data preview --model bert --data [aa.jsonl]", NEAR),
    ("data preview --model [./bret] --data a.jsonl", NEAR),
    ("data preview --model [brt] --data a.jsonl", NEAR),
    ("predict [./rum] --text film", NEAR),
    ("predict run []", r'give (--text "\.\.\.")', "--text film"),
    ("predict run []", "(--data FILE)", "--data a.jsonl"),
    (f"{PREDICT} [--data a.jsonl]", "leave one of them out"),
    (f"{PREDICT} --top [0]", LEAST),
    (f"{PREDICT} --batch-tokens [0]", LEAST),
    (f"{PREDICT} --device [gpu]", r"give (\w+)"),
    (f"{PREDICT} [--keep label]", "leave it out"),
    (f"{PREDICT} [--resume]", "leave it out"),
    ("predict run --data a.jsonl --keep [foo]", "columns are text, (label)"),
    ("predict run --data a.jsonl [--keep foo]", "leave it out"),
    ("predict run --data a.jsonl --out [a.jsonl] --force", "another --out", "new.jsonl"),
    ("predict run --data a.jsonl --out c.jsonl []", "with (--force)"),
    ("[predict run --text]", r"see langue (.*)"),
    ("evaluate run --split [tset]", r"there are: (\w+)"),
    ("evaluate run [--limit 3]", "leave it out"),
    ("evaluate dec []", "(--data)", "--data t.txt"),
    (f"{WRITE} [--data a.jsonl]", "give one of them"),
    (f"{WRITE} [--out o.jsonl]", "leave out --out"),
    (f"{WRITE} --top-p [2]", MOST),
    (f"{WRITE} --temperature [-1]", LEAST),
    (f"{WRITE} [--stream] --n 2 --temperature 1", "leave it out"),
    (f"{WRITE} --weights [int3]", "or (int4)"),
    (f"{WRITE} --min-tokens [9]", "lower min_tokens", "1"),
    ("rank dec --choice a --choice b []", r'give (--prompt "\.\.\.")', "--prompt a"),
    ("rank dec --prompt a []", r'give (--choice "\.\.\.")', "--choice a --choice b"),
    (f"{SERVE} --memory [big]", "write (8GB)"),
    (f"{SERVE} --memory [1KB]", r"--memory (\d+) or more"),
    (f"{SERVE} [--host 0.0.0.0]", "leave out --host"),
    ("serve run --port [99999]", MOST, "0"),
    ("serve run [run] --port 0", "name it once"),
    ("plan []", "give (--size)", "--size 10M"),
    ("plan [--size 10M] --model bert --tokens 1B", "leave --size and --preset out"),
    (f"{PLAN} --hardware [h10]", NEAR),
    (f"{PLAN} --length [1]", LEAST),
    ("plan --preset [bert-tny] --tokens 1B", NEAR),
    ("plan --size [big] --tokens 1B", r"like (\w+)"),
    ("convert bert out [--merge]", "leave it out"),
    ("convert bert other [--widen]", "leave --widen out"),
    ("data inspect t.txt --document [foo]", r"choose (\w+)"),
    ("data tokenize t.txt --tokenizer bert --out [full]", "another with --out", "corpus"),
    (
        "pretrain --objective [masked] --model dec --data t.txt --out pre2 train.max_steps=1",
        "another model.preset, model or objective",
        "causal",
    ),
]
FOLDERS = [
    (f"{TRAIN} --out run []", r"go on with (--resume)"),
    (f"{TRAIN} --out run1 []", r"with (--force)"),
    (f"{TRAIN} --out gone [--resume]", "without --resume"),
    (f"{TRAIN} --out [full]", "another --out", "one"),
    (f"{TRAIN} --out [full --resume]", "without --resume, in another --out", "three"),
    (
        "finetune [--model bert --data a.jsonl train.max_steps=4 --out run --resume]",
        "train its model further with --model in a new --out",
        "--model run --data a.jsonl train.max_steps=1 --out five",
    ),
]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with data, models and runs."""
    folder = tmp_path_factory.mktemp("there")
    tiny_bert(folder / "bert")
    tiny_decoder(folder / "dec", "llama")
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        write_jsonl(folder / name, reviews(40))
    (folder / "t.txt").write_text("".join(f"{row['text']}\n" for row in reviews(80)))
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("run", "run1"):
            assert run([*TRAIN.split(), "--out", name]) == 0
    return folder


def obeyed(marked: str, pattern: str, open_: str | None, capsys) -> None:
    before, wrong, after = re.fullmatch(r"(.*?)\[(.*)\](.*)", marked).groups()
    assert run(shlex.split(f"{before}{wrong}{after}")) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("langue: error: ")
    advised = re.search(pattern, message)
    assert advised, message
    right = open_ if open_ is not None else "".join(advised.groups())
    code = run(shlex.split(f"{before}{right}{after}"))
    assert code == 0, (message, right, capsys.readouterr().err)


@pytest.mark.parametrize(
    "fault", SETTINGS + OPTIONS + FOLDERS, ids=lambda fault: f"{fault[0]} {fault[1]}"
)
def test_remedies_of_commands(fault, there, monkeypatch, capsys):
    monkeypatch.chdir(there)
    # else it serves for ever; `langue.serve` is a function
    server = importlib.import_module("langue.serve.server")
    monkeypatch.setattr(server, "_run", lambda *given: None)
    obeyed(*fault, *[None] * (3 - len(fault)), capsys)


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

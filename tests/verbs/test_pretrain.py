"""`langue pretrain`, whole: text in, a model that langue and `transformers` load; resume, going on,
what goes wrong."""

import json
import math
import random
import re
import shutil
import signal
import time

import numpy as np
import pytest
import tokenizers
from safetensors.torch import save_file
from tokenizers import decoders, models, pre_tokenizers

import langue
from langue.cli import run
from langue.data.corpus.reader import Corpus
from langue.errors import DataError, LangueError, ModelError, RunError, SettingsError
from langue.evaluation.judge import better_than_baseline
from langue.hub.weights import read_safetensors
from langue.runs.arguments import MANY, PRETRAIN, resolve_call
from langue.runs.judge_language import _whole
from langue.train.throughput import MFUMeter, body_flops, head_flops
from tests import forked
from tests.memory import Memory
from tests.tiny import tiny_bert

TINY = {
    "model.dim": 32,
    "model.n_layers": 2,
    "model.n_heads": 2,
    "train.max_steps": 12,
    "train.batch_tokens": 256,
    "train.evaluate_every": 6,
}
TINY |= {"data.seq_len": 32, "train.lr": 3e-3}
WORDS = [
    *("the", "a", "dog", "cat", "bird", "sees", "hears", "runs", "sleeps"),
    *("red", "blue", "small", "and", "then", "near", "house", "tree"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    draw = random.Random(0)
    folder = tmp_path_factory.mktemp("text")
    rows = [" ".join(draw.choice(WORDS) for _ in range(draw.randrange(5, 60))) for _ in range(150)]
    (folder / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": row}) for row in rows), "utf-8"
    )
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Bytes, with every special token that an objective may want."""
    folder = tmp_path_factory.mktemp("tokenizer")
    names = [
        "<|endoftext|>",
        "<pad>",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(f"<extra_id_{i}>" for i in range(20)),
    ]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(models.BPE({w: i for i, w in enumerate(names + alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(names)
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("objective", ["causal", "masked", "denoise"])
def test_a_run_learns_and_says_what_it_learned(tmp_path, text, tokenizer, objective):
    run = langue.pretrain(objective, data=text, tokenizer=tokenizer, out=tmp_path / "run", **TINY)
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    train = [line["loss"] for line in log if line["split"] == "train"]
    assert train[-1] < train[0] - 0.1
    assert run.metrics["split"] == "dev" and run.metrics["metrics"]["perplexity"] > 1
    # what is measured wavers
    assert all(0 < line["mfu"] < 2 for line in log if line["split"] == "train")
    ((given, made),) = next(line["samples"] for line in log if line["split"] == "dev")
    assert {"causal": made, "masked": "[MASK]", "denoise": "<extra_id_0>"}[
        objective
    ] in given + made
    assert objective == "causal" or made.startswith(" → ")
    for name, (low, high) in run.metrics["intervals"].items():
        assert low <= run.metrics["metrics"][name] <= high
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "recipe.toml",
        "report.html",
        "curves.png",
    ):
        assert (run.folder / name).is_file()
    if objective == "causal":
        assert isinstance(run.load().generate(["the dog"], max_tokens=5)[0], str)
        compared = run.metrics["baseline"]["comparison"]
        theirs = run.metrics["baseline"]["metrics"]
        # documents, of which each is predicted by both
        assert compared["examples"] == run.metrics["examples"]
        assert compared["difference"] == pytest.approx(
            run.metrics["metrics"]["loss"] - theirs["loss"]
        )


def test_a_published_model_is_trained_further(tmp_path, text, tokenizer):
    first = langue.pretrain(
        "causal",
        data=text,
        tokenizer=tokenizer,
        out=tmp_path / "a",
        **TINY | {"model.preset": "gpt2"},
    )
    words = {k: v for k, v in TINY.items() if not k.startswith("model.")}
    more = langue.pretrain(
        "causal", data=first.folder / "corpus", model=first.folder, out=tmp_path / "b", **words
    )
    assert more.facts["family"] == "gpt2"
    assert more.metrics["metrics"]["loss"] < first.metrics["metrics"]["loss"]


@pytest.mark.parametrize(
    ("interval", "p_value", "says"),
    [
        ([-0.5, -0.1], 0.01, "The model's perplexity 12.00 is less than the n-gram model's 15.00."),
        ([0.1, 0.5], 0.01, "The model's perplexity 12.00 is MORE than the n-gram model's 15.00."),
        (
            [-0.5, 0.2],
            0.2,
            (
                "not distinguishable from the n-gram model's 15.00: on 1 document equal models"
                " differ as"
            ),
        ),
    ],
)
def test_a_language_model_is_better_only_where_documents_show_it(interval, p_value, says):
    compared = {
        "metric": "loss",
        "difference": sum(interval) / 2,
        "interval": interval,
        "p_value": p_value,
    }
    baseline = {"metrics": {"perplexity": 15.0}, "comparison": compared | {"examples": 1}}
    assert says in better_than_baseline({"metrics": {"perplexity": 12.0}, "baseline": baseline})
    assert better_than_baseline({"metrics": {"perplexity": 12.0}, "baseline": None}) == ""


@pytest.mark.parametrize("kind", ["an encoder's body", "a decoder's body", "a whole decoder"])
def test_what_a_model_lacks_that_is_trained_further_is_told(
    tmp_path, text, tokenizer, capsys, kind
):
    """Which weights are new, and the loss with them before the first step: near that of a guess."""
    words = {key: value for key, value in TINY.items() if not key.startswith("model.")} | {
        "train.max_steps": 2
    }
    given = {"data": text, "out": tmp_path / "run"} | words
    if kind == "an encoder's body":
        new = ["head.bias", "head.dense.weight"]
        objective = "masked"
        given["model"] = tiny_bert(tmp_path / "model")
    else:
        new = ["head.out.weight"] * (kind == "a decoder's body")
        objective = "causal"
        made = {
            "tokenizer": tokenizer,
            "out": tmp_path / "model",
            "model.preset": "llama",
            "model.tied": False,
        }
        given["model"] = langue.pretrain(data=text, **TINY | {"train.max_steps": 1} | made).folder
        file = given["model"] / "model.safetensors"
        weights = read_safetensors(file)
        save_file(
            {
                name: tensor
                for name, tensor in weights.items()
                if not (new and name == "lm_head.weight")
            },
            file,
        )
    words = [f"{key}={value}" for key, value in words.items()]
    options = ["--objective", objective, "--data", str(text), "--model", str(given["model"])]
    assert run(["pretrain", *options, "--out", str(given["out"]), *words]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    content = json.loads((given["out"] / "metrics.json").read_text())
    dev = [json.loads(line) for line in (given["out"] / "log.jsonl").read_text().splitlines()]
    dev = [line for line in dev if line["split"] == "dev"]
    page = (given["out"] / "report.html").read_text()
    if not new:
        assert (
            "before" not in content and dev[0]["step"] > 0 and "began at random" not in shown + page
        )
        return
    before = content["before"]
    assert set(new) <= set(before["new_weights"]) and all(
        name.startswith("head.") for name in before["new_weights"]
    )
    assert before["uniform_loss"] == pytest.approx(
        np.log(langue.load(given["out"]).config.vocab_size)
    )
    assert before["loss"] == dev[0]["loss"] and dev[0]["step"] == 0
    assert before["loss"] == pytest.approx(before["uniform_loss"], rel=0.2)
    sentence = f"so that these began at random: before training its loss was {before['loss']:.4f}"
    assert sentence in shown and sentence in page and "which the model lacks" in shown
    assert content["metrics"]["loss"] < before["loss"]


def test_a_corpus_is_read_as_it_is_and_the_recipe_runs_again(tmp_path, text, tokenizer):
    first = langue.pretrain(data=text, tokenizer=tokenizer, out=tmp_path / "a", **TINY)
    again = langue.pretrain(recipe=first.folder / "recipe.toml", out=tmp_path / "b")
    a, b = (read_safetensors(run.folder / "model.safetensors") for run in (first, again))
    assert all((a[name] == b[name]).all() for name in a)


def test_a_killed_run_resumes_bit_for_bit(tmp_path, text, tokenizer):
    settings = [
        f"{key}={value}"
        for key, value in (TINY | {"train.max_steps": 20, "train.checkpoint_every": 3}).items()
    ]
    settings += [
        "train.optimizer=muon",
        "train.ema=0.9",
        "train.schedule=wsd",
        "train.ramp_steps=5",
    ]
    given = ["pretrain", "--data", str(text), "--tokenizer", str(tokenizer), *settings]
    assert run([*given, "--out", str(tmp_path / "whole")]) == 0
    cut = ["--out", str(tmp_path / "cut")]
    child = forked.start(run, [*given, *cut])
    deadline = time.monotonic() + 90
    checkpoints = tmp_path / "cut" / "checkpoints"
    while not list(checkpoints.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    assert forked.wait(child) == -signal.SIGKILL
    assert not (tmp_path / "cut" / "metrics.json").exists()
    assert run([*given, *cut, "--resume"]) == 0
    a, b = (read_safetensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all((a[name] == b[name]).all() for name in a)
    losses = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]


def test_a_run_goes_on_with_what_no_step_depends_on_changed(tmp_path, text, tokenizer):
    """As after a loss that was no number: the same command, which now skips such steps."""
    given = {"data": text, "tokenizer": tokenizer, "out": tmp_path} | TINY
    first = langue.pretrain(**given)
    with pytest.raises(
        RunError, match=r"cannot resume with other settings: train.lr is 0.01 and was 0.003"
    ):
        langue.pretrain(**given | {"train.lr": 0.01}, resume=True)
    again = langue.pretrain(
        **given | {"train.on_nonfinite": "skip", "train.checkpoint_every": 5}, resume=True
    )
    assert again.metrics["metrics"] == first.metrics["metrics"]
    recipe = (tmp_path / "recipe.toml").read_text()
    assert 'on_nonfinite = "skip"' in recipe and "checkpoint_every = 5" in recipe


def test_numbers_must_mean_the_same_tokens_to_text_and_model(tmp_path, text, tokenizer):
    first = langue.pretrain(
        data=text, tokenizer=tokenizer, out=tmp_path / "a", **TINY | {"train.max_steps": 1}
    )
    tree = json.loads((tokenizer / "tokenizer.json").read_text())
    words = tree["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(tree))
    settings = {"train.max_steps": 1, "data.seq_len": 32, "train.batch_tokens": 256}
    with pytest.raises(
        DataError,
        match="other: the tokenizer .* has as many tokens as the model, but '[ab]' is another",
    ):
        langue.pretrain(
            data=text,
            model=first.folder,
            tokenizer=tmp_path / "other",
            out=tmp_path / "b",
            **settings,
        )
    langue.tokenize(text, tokenizer=tmp_path / "other", out=tmp_path / "corpus")
    with pytest.raises(DataError, match="corpus: the tokenizer of the text has as many"):
        langue.pretrain(
            data=tmp_path / "corpus", model=first.folder, out=tmp_path / "c", **settings
        )
    langue.train_tokenizer(text, out=tmp_path / "small", tokenizer__vocab_size=260)
    with pytest.raises(
        DataError, match="small: the tokenizer of the text has 260 tokens and the model 281"
    ):
        langue.pretrain(
            data=text,
            model=first.folder,
            tokenizer=tmp_path / "small",
            out=tmp_path / "d",
            **settings,
        )


def test_n_grams_are_counted_on_no_more_than_is_said(tmp_path, text, tokenizer, monkeypatch):
    """Not even where one document is longer than that."""
    from langue.runs import judge_language

    (tmp_path / "long.txt").write_text(
        "the dog sees a small red house and sleeps near a tree. " * 40
    )
    monkeypatch.setattr(judge_language, "MOST", 300)
    for data, read in ((text, range(1, 301)), (tmp_path / "long.txt", range(300, 301))):
        run = langue.pretrain(
            data=data,
            tokenizer=tokenizer,
            out=tmp_path / data.stem,
            **TINY | {"train.max_steps": 1},
        )
        note = run.metrics["baseline"]["note"]
        found = re.match(r"counted on ([\d,]+) of [\d,]+ tokens", note)
        assert found and int(found[1]) in read
        assert note in (run.folder / "report.html").read_text()


def test_what_goes_wrong_is_said(tmp_path, text, tokenizer):
    def attempt(error, match, objective="causal", **words):
        given = (
            {"data": text, "tokenizer": tokenizer, "out": tmp_path / "x", "force": True}
            | TINY
            | words
        )
        with pytest.raises(error, match=match):
            langue.pretrain(objective, **given)

    attempt(SettingsError, "the objective 'clm' is not known", objective="clm")
    attempt(SettingsError, "no data was named", data=None)
    attempt(LangueError, "no-such-file", data=tmp_path / "no-such-file")
    attempt(SettingsError, "data.seq_len", **{"data.seq_len": 512})
    attempt(SettingsError, "train.batch_examples is of fine-tuning.*here it is train.batch_tokens",
            **{"train.batch_examples": 8})  # fmt: skip
    attempt(
        SettingsError, "unknown setting 'batch_size'; here it is train.batch_tokens", batch_size=8
    )
    attempt(SettingsError, "model.dim is of a new model", model="other")
    attempt(
        ModelError,
        "trains the architecture encoder",
        objective="masked",
        **{"model.preset": "gpt2"},
    )
    (tmp_path / "empty.txt").write_text("")
    attempt(LangueError, "empty.txt", data=tmp_path / "empty.txt", out=tmp_path / "y")
    assert not (tmp_path / "y").exists()
    attempt(RunError, "nan|inf", **{"train.lr": 1e30, "model.preset": "gpt2", "train.clip": 0.0})
    assert list((tmp_path / "x").glob("suspect-*.safetensors"))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("objective", "words", "match"),
    [
        ("causal", {"model.size": "9k"}, "no model of this kind has about 9,000 parameters"),
        ("causal", {"model.size": "huge"}, "'huge' is not a number"),
        ("causal", {"model.preset": "gtp2"}, "did you mean gpt2"),
        ("causal", {"train.batch_tokens": 16}, "train.batch_tokens = 16 is less"),
        (
            "denoise",
            {"task.noise_span": 1, "data.seq_len": 700, "train.batch_tokens": 700},
            "a chunk of 700 tokens has 105",
        ),
        ("masked", {"task.pairs": "next", "model.preset": "modernbert"}, "tells two parts apart"),
        ("masked", {"task.pairs": "next", "data.seq_len": 3}, "data.seq_len = 3 leaves no room"),
        ("causal", {"model.preset": "bert"}, "causal trains the architecture decoder"),
        ("masked", {"model.preset": "gpt2"}, "masked trains the architecture encoder"),
        ("denoise", {"model.preset": "gpt2"}, "denoise trains the architecture encoder-decoder"),
    ],
)
def test_what_cannot_be_is_told_before_the_work(
    tmp_path, text, tokenizer, monkeypatch, objective, words, match, known
):
    from langue.runs import corpora

    def work(*arguments, **settings):
        raise AssertionError("what is refused was worked on")

    monkeypatch.setattr(corpora, "build", work)
    monkeypatch.setattr(corpora, "train_tokenizer", work)
    given = {"data.seq_len": 32} | words | ({"tokenizer": tokenizer} if known else {})
    with pytest.raises(LangueError, match=match):
        langue.pretrain(objective, data=text, out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("objective", "there", "words", "match"),
    [
        (
            "causal",
            "tokenizer",
            {"task.mask_ratio": 0.3},
            "task.mask_ratio is of the objective masked",
        ),
        (
            "masked",
            "tokenizer",
            {"task.noise_span": 5},
            "task.noise_span is of the objective denoise",
        ),
        (
            "causal",
            "tokenizer",
            {"tokenizer.vocab_size": 99},
            "tokenizer.vocab_size is of a tokenizer that is trained",
        ),
        (
            "causal",
            "data",
            {"tokenizer.kind": "bytes"},
            "tokenizer.kind is of a tokenizer that is trained",
        ),
        ("causal", "data", {"data.seed": 1}, "data.seed is of text that becomes a corpus"),
        (
            "causal",
            "data",
            {"columns": {"text": "story"}},
            "--columns is of text, and a corpus is tokens already",
        ),
        (
            "causal",
            "data",
            {"tokenizer": "other"},
            "--tokenizer is of text, and a corpus is tokens already",
        ),
        ("causal", "tokenizer", {"data.duplicates": False}, "data.duplicates is of fine-tuning"),
    ],
)
def test_what_would_do_nothing_is_refused(
    tmp_path, text, tokenizer, objective, there, words, match
):
    langue.tokenize(text, tokenizer=tokenizer, out=tmp_path / "corpus")
    given = (
        {"data": text, "tokenizer": tokenizer}
        if there == "tokenizer"
        else {"data": tmp_path / "corpus"}
    )
    with pytest.raises(SettingsError, match=match):
        langue.pretrain(objective, out=tmp_path / "run", **{**TINY, **given, **words})
    assert not (tmp_path / "run").exists()


def test_shards_are_as_large_as_is_asked_for_and_rows_of_python_are_text(tmp_path, text, tokenizer):
    rows = [json.loads(line) for line in text.read_text().splitlines()]
    words = TINY | {"train.max_steps": 1, "data.shard_tokens": 2000}
    run = langue.pretrain(data=rows, tokenizer=tokenizer, out=tmp_path / "run", **words)
    facts = json.loads((run.folder / "corpus" / "corpus.json").read_text())
    assert len(facts["splits"]["train"]["shards"]) > 3
    assert sum(len(split["sources"]) for split in facts["splits"].values()) == 2
    again = langue.pretrain(out=run.folder, resume=True)  # of rows that are a corpus by now
    assert again.metrics["metrics"] == run.metrics["metrics"]


def test_what_a_tokenizer_does_not_know_is_told_beside_the_bits_of_a_byte(tmp_path, text):
    known = {"[UNK]": 0, "<|endoftext|>": 1, "the": 2, "a": 3, "dog": 4, "cat": 5}
    backend = tokenizers.Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<|endoftext|>"])
    (tmp_path / "few").mkdir()
    backend.save(str(tmp_path / "few" / "tokenizer.json"))
    words = TINY | {"train.max_steps": 1}
    run = langue.pretrain(data=text, tokenizer=tmp_path / "few", out=tmp_path / "run", **words)
    told = r"7\d\.\d% of the held-out tokens are the unknown one"
    assert re.search(told, (run.folder / "report.html").read_text())
    again = langue.evaluate(run.folder)
    for notes in (run.metrics["notes"], again["notes"]):
        assert any(re.match(told, note) for note in notes)
    assert any("of the training tokens are the unknown one" in note for note in run.facts["notes"])
    # Each byte that is lost costs eight bits: of all texts by hand, and in both scores of the part
    # held out.
    lost = [
        word for line in text.read_text().splitlines() for word in json.loads(line)["text"].split()
    ]
    said = json.loads((run.folder / "corpus" / "corpus.json").read_text())["unknown"]
    assert sum(split["bytes"] for split in said.values()) == sum(
        len(word) for word in lost if word not in known
    )
    dev = Corpus.open(run.folder / "corpus", "dev")
    predictions = dev.n_tokens + dev.n_documents
    for scores in (run.metrics["metrics"], run.metrics["baseline"]["metrics"], again["metrics"]):
        bits = (
            scores["loss"] / math.log(2) * predictions / dev.n_bytes
            + 8 * said["dev"]["bytes"] / dev.n_bytes
        )
        assert scores["bits_per_byte"] == pytest.approx(bits, rel=1e-9)


def test_few_held_out_documents_are_told_before_and_after(tmp_path, text, tokenizer, capsys):
    """With the width that they leave, and what would hold out more, which does."""
    words = TINY | {"train.max_steps": 1}
    run = langue.pretrain(data=text, tokenizer=tokenizer, out=tmp_path / "run", **words)
    (before,) = run.facts["notes"]
    (after,) = (note for note in run.metrics["notes"] if note.startswith("only"))
    held = run.metrics["examples"]
    assert 1 < held < 20
    assert (
        before.startswith(
            f"only {held} of 150 documents are held out to judge on: the 95% interval"
        )
        and after in before
    )
    low, high = run.metrics["intervals"]["perplexity"]
    assert low < run.metrics["metrics"]["perplexity"] < high
    share = float(re.search(r"setting data.dev_fraction=([\d.]+) holds out about 20", before)[1])
    mended = langue.pretrain(
        data=text,
        tokenizer=tokenizer,
        out=tmp_path / "mended",
        **words,
        **{"data.dev_fraction": share},
    )
    assert mended.metrics["examples"] > 15  # which documents, their hashes say
    assert bool(mended.facts["notes"]) == (mended.metrics["examples"] < 20)


@pytest.mark.parametrize("preset", ["langue", "llama"])
def test_dropout_is_of_training_whatever_the_published_form_knows(
    tmp_path, text, tokenizer, preset
):
    first = {}
    for share in (0.0, 0.5):
        words = TINY | {"model.preset": preset, "model.dropout": share, "train.max_steps": 1}
        run = langue.pretrain(data=text, tokenizer=tokenizer, out=tmp_path / f"{share}", **words)
        lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
        first[share] = next(line["loss"] for line in lines if line["split"] == "train")
    # Where projections begin at zero, only what enters the first block is dropped, and the loss is
    # near.
    assert first[0.5] != first[0.0]


def test_a_size_is_not_refused_that_the_text_may_make_possible(text, tmp_path):
    """The 8,192 tokens asked for would be too many; so small a text has far fewer."""
    words = {"model.size": "60k", "data.seq_len": 32, "train.max_steps": 1}
    with pytest.raises(SettingsError, match="about 30,000 parameters with"):
        langue.pretrain(data=text, out=tmp_path / "run", **words | {"model.size": "30k"})
    run = langue.pretrain(data=text, out=tmp_path / "run", **words)
    assert 45_000 < run.facts["parameters"] < 75_000


@pytest.mark.parametrize("words", [{"data.seq_len": 3}, {"data.seq_len": 4, "task.pairs": "next"}])
def test_samples_fit_the_smallest_blocks(tmp_path, text, tokenizer, words):
    words = TINY | {"train.max_steps": 1, "data.dev_tokens": 500, "model.preset": "bert"} | words
    run = langue.pretrain("masked", data=text, tokenizer=tokenizer, out=tmp_path / "run", **words)
    assert "[MASK]" in (run.folder / "report.html").read_text()


def test_what_ends_a_text_in_training_ends_it_in_use(tmp_path, text):
    """Of BERT's kind of tokenizer that is [SEP], which no prompt has at its end either."""
    words = TINY | {
        "tokenizer.kind": "wordpiece",
        "tokenizer.vocab_size": 120,
        "train.max_steps": 1,
    }
    model = langue.pretrain(data=text, out=tmp_path / "run", **words).load()
    cls, sep = (model.tokenizer.backend.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    assert model.checkpoint.ends == {sep} and model.checkpoint.published["bos_token_id"] == cls
    read = model._examples(["the dog sees"], prompt=True).tokens.tolist()
    assert read[0] == cls and sep not in read


def test_the_facts_before_a_run_count_the_ramp(tmp_path, text, tokenizer):
    words = {
        "train.max_steps": 0,
        "train.epochs": 2,
        "train.ramp_steps": 60,
        "train.batch_tokens": 1024,
    }
    run = langue.pretrain(data=text, tokenizer=tokenizer, out=tmp_path / "run", **TINY | words)
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert run.facts["steps"] == pytest.approx(len(train), abs=2) and len(train) > 60
    assert run.facts["passes"] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("objective", ["causal", "masked", "denoise"])
def test_the_operations_told_before_a_run_are_those_of_its_batches(
    tmp_path, text, tokenizer, objective, monkeypatch
):
    done = []
    add = MFUMeter.add

    def count(pace, batch, predicted):
        add(pace, batch, predicted)
        done.append(3 * (body_flops(pace.config, batch) + head_flops(pace.config) * predicted))

    monkeypatch.setattr(MFUMeter, "add", count)
    run = langue.pretrain(objective, data=text, tokenizer=tokenizer, out=tmp_path / "run", **TINY)
    assert run.facts["flops"] == pytest.approx(sum(done), rel=0.1)


@pytest.mark.parametrize("objective", ["causal", "masked", "denoise"])
def test_a_run_is_judged_again_as_at_its_end_and_on_other_text(
    tmp_path, text, tokenizer, objective
):
    words = TINY | {"train.max_steps": 2, "data.dev_fraction": 0.2}
    if objective == "masked":
        words |= {"task.pairs": "order"}
    run = langue.pretrain(objective, data=text, tokenizer=tokenizer, out=tmp_path / "run", **words)
    again = langue.evaluate(run.folder)
    for name, value in run.metrics["metrics"].items():
        assert again["metrics"][name] == pytest.approx(value, rel=1e-6)
    assert (again["split"], again["examples"]) == ("dev", run.metrics["examples"])
    other = langue.evaluate(run.folder, data=text, out=tmp_path / "scores.json")
    assert other["examples"] == 150 and (tmp_path / "scores.json").is_file()
    (tmp_path / "one.txt").write_text("the dog sees a small red house")
    one = langue.evaluate(run.folder, data=tmp_path / "one.txt")
    assert one["examples"] == 1 and one["metrics"]["perplexity"] > 1
    corpus = (run.folder / "corpus").rename(tmp_path / "corpus")
    assert langue.evaluate(run.folder, data=corpus)["metrics"] == again["metrics"]
    with pytest.raises(
        RunError,
        match=f"its corpus is not there any more, neither at {run.folder}.corpus nor at {text}",
    ):
        langue.evaluate(run.folder)


def test_corpora_that_were_made_are_not_mixed(tmp_path, text, tokenizer):
    corpora = [str(tmp_path / name) for name in ("one", "two")]
    for corpus in corpora:
        langue.tokenize(text, tokenizer=tokenizer, out=corpus)
    for data in (f"{corpora[0]}@2", corpora):
        with pytest.raises(
            DataError, match=r"one: a corpus that was made cannot be mixed.*langue data tokenize"
        ):
            langue.pretrain(data=data, out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_judged_on_what_its_corpus_became(tmp_path, text, tokenizer):
    corpus = tmp_path / "corpus"
    given = {"tokenizer": tokenizer, "out": tmp_path / "corpus"}
    langue.tokenize(text, **given)
    run = langue.pretrain(data=corpus, out=tmp_path / "run", **TINY | {"train.max_steps": 1})
    shard = corpus / "dev-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    for data in (None, corpus):
        with pytest.raises(DataError, match="the checksum is wrong"):
            langue.evaluate(run.folder, data=data)
    shutil.rmtree(corpus)
    langue.tokenize(text, **given, **{"data.seed": 1, "data.dev_fraction": 0.2})
    with pytest.raises(RunError, match="its corpus is not what it was"):
        langue.evaluate(run.folder)
    assert langue.evaluate(run.folder, data=corpus)["metrics"]


def test_of_divided_text_the_split_asked_for_is_judged(tmp_path, text, tokenizer):
    run = langue.pretrain(
        data=text, tokenizer=tokenizer, out=tmp_path / "run", **TINY | {"train.max_steps": 1}
    )
    (tmp_path / "texts").mkdir()
    for split, rows in (("train", 3), ("dev", 2)):
        (tmp_path / "texts" / f"{split}.jsonl").write_text(
            '{"text": "the dog sees a cat"}\n' * rows
        )
    for split, rows in (("train", 3), ("dev", 2), ("test", 2)):
        assert langue.evaluate(run.folder, data=tmp_path / "texts", split=split)["examples"] == rows
    (tmp_path / "texts" / "test.jsonl").write_text('{"text": "the dog sees a cat"}\n')
    assert langue.evaluate(run.folder, data=tmp_path / "texts")["examples"] == 1
    (tmp_path / "texts" / "dev.jsonl").unlink()
    for data, there in (
        (tmp_path / "texts", "test, train"),
        (text, "train"),
        ([{"text": "the dog"}], "train"),
    ):
        with pytest.raises(DataError, match=f"there is no split 'dev'; there are: {there}"):
            langue.evaluate(run.folder, data=data, split="dev")


def test_an_encoder_made_here_is_fine_tuned_as_any_other(tmp_path, text, tokenizer):
    from tests.tiny import reviews

    first = langue.pretrain(
        "masked",
        data=text,
        tokenizer=tokenizer,
        out=tmp_path / "a",
        **TINY | {"train.max_steps": 2},
    )
    words = {"train.epochs": 1, "data.max_length": 32}
    run = langue.finetune(
        "classify", model=first.folder, data=reviews(40), out=tmp_path / "b", **words
    )
    assert set(run.load().predict(["good film"])[0]) == {"label", "score"}


def test_so_many_steps_are_so_many_and_none_is_as_many_as_the_passes():
    asked = {"train.max_steps": 100, "data.name": "t.txt"}

    def resolved(recipe, words):
        return resolve_call(PRETRAIN, recipe, {}, words).settings.train

    assert resolved(asked, {}).epochs == MANY
    recipe = asked | {"train.epochs": MANY}  # as a run of so many steps writes it
    for words in ({"train.steps": "0"}, {"train.max_steps": 0}):
        for layer in (asked, recipe):
            train = resolved(layer, words)
            assert (train.epochs, train.max_steps) == (1.0, 0)
    assert resolved(recipe, {"train.epochs": 2, "train.max_steps": 0}).epochs == 2


CUT = [
    ([10, 1000], 100, 100),
    ([1000, 10], 100, 100),
    ([10, 20, 30], 30, 30),
    ([10, 20], 0, 30),
    ([5, 5], 99, 10),
]


@pytest.mark.parametrize(("lengths", "most", "counted"), CUT)
def test_the_document_that_crosses_the_limit_of_the_ngrams_is_cut(lengths, most, counted):
    tokens, starts = _whole(Memory([np.arange(length) for length in lengths]), most)
    assert len(tokens) == counted == starts[-1]


def test_the_documents_of_the_ngrams_are_of_all_sources():
    tokens, starts = _whole(Memory([[number] * 10 for number in range(100)]), 200)
    assert len(starts) == 21 and 5 < sum(number >= 50 for number in set(tokens.tolist())) < 15


def test_a_run_of_a_corpus_in_a_list_is_judged_and_says_what_it_has_seen(tmp_path, text, tokenizer):
    langue.tokenize(text, tokenizer=tokenizer, out=tmp_path / "corpus")
    words = TINY | {"train.batch_tokens": 65536, "train.max_steps": 3}
    run = langue.pretrain(data=[str(tmp_path / "corpus")], out=tmp_path / "run", **words)
    last = json.loads((run.folder / "log.jsonl").read_text().splitlines()[-1])
    # A pass is one batch, which the text does not fill.
    assert (
        run.facts["passes"] == pytest.approx(3)
        and run.facts["tokens_per_epoch"] * 3 == last["tokens"]
    )
    assert run.facts["tokens_per_parameter"] == pytest.approx(
        last["tokens"] / run.facts["parameters"]
    )
    found = langue.evaluate(run.folder)
    assert found["metrics"] == pytest.approx(run.metrics["metrics"])
    assert (
        "bits_per_byte" in run.metrics["metrics"]
        and "bits_per_byte" not in run.metrics["intervals"]
    )


def test_a_model_with_fewer_tokens_than_its_tokenizer_is_trained_further(tmp_path, text):
    """Gemma 3's has one beyond the embedding, which no text has; words drawn at random are of those
    that are there."""
    import torch

    folder = tiny_bert(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    weights = read_safetensors(folder / "model.safetensors")
    key = next(name for name in weights if name.endswith("word_embeddings.weight"))
    unused = len(langue.load(folder).tokenizer) - 1
    save_file(weights | {key: weights[key][:unused].clone()}, str(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": unused}))
    words = {
        "train.max_steps": 3,
        "train.batch_tokens": 256,
        "data.seq_len": 32,
        "task.mask_ratio": 0.5,
    }
    run = langue.pretrain("masked", data=text, model=folder, out=tmp_path / "run", **words)
    assert run.metrics["metrics"]["loss"] > 0 and torch.isfinite(
        torch.tensor(run.metrics["metrics"]["loss"])
    )


def test_another_recipe_is_no_way_to_go_on(tmp_path, text, tokenizer):
    run = langue.pretrain(data=text, tokenizer=tokenizer, out=tmp_path / "run", **TINY)
    (tmp_path / "other.toml").write_text("[train]\nlr = 0.5\n")
    with pytest.raises(RunError, match=r"other settings: train.lr is 0.5 and was 0.003"):
        langue.pretrain(recipe=tmp_path / "other.toml", out=run.folder, resume=True)

"""A decoder fine-tuned for classification and regression, end to end: text in, labels out, and the
published class."""

import json

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

import langue.text.tokenizers.tokenizer
from langue.errors import DataError, SettingsError
from langue.runs.model import load
from langue.verbs.finetune import finetune
from langue.verbs.preview import preview
from tests.tiny import BAD, GOOD, PLAIN, reviews
from tests.tiny_decoder import tiny_decoder

FAST = {
    "train.epochs": 4,
    "train.lr": 3e-3,
    "train.batch_examples": 16,
    "train.warmup": 0.05,
    "model.dropout": 0.0,
}
TEXTS = ["a good scene with a lovely and bright film", "the plot it was dull and long"]


def rows(count, seed=0, column="label"):
    """Reviews that end in a plain word, so that the last token's state has to have read what is
    before it."""
    made = []
    for row in reviews(count, seed):
        score = 2.0 if row["label"] == "pos" else -1.0
        made.append(
            {"text": row["text"] + " film", column: row["label"] if column == "label" else score}
        )
    return made


def words():
    backend = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[UNK]", *GOOD, *BAD, *PLAIN])}, "[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return langue.text.tokenizers.tokenizer.Tokenizer(backend)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_decoder(tmp_path_factory.mktemp("models") / "gpt2", "gpt2", words())


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    data = rows(320)
    return finetune(
        "classify", model=model, data=data, out=tmp_path_factory.mktemp("runs") / "run", **FAST
    )


def test_a_decoder_learns_and_is_used_again(run, tmp_path):
    assert run.metrics["metrics"]["accuracy"] >= 0.9
    used = load(run.folder)
    assert [each["label"] for each in used.predict(TEXTS)] == ["pos", "neg"]
    used.save(tmp_path / "again")
    np.testing.assert_array_equal(load(tmp_path / "again").logits(TEXTS), used.logits(TEXTS))
    filled, empty = used.predict(["good", ""])
    assert filled["label"] == "pos" and empty is None


def test_the_run_says_which_pooling_it_is(run):
    assert json.loads((run.folder / "langue.json").read_text())["settings"]["pooling"] == "last"
    assert (
        'pooling = "last"' in (run.folder / "recipe.toml").read_text()
        and run.facts["pooling"] == "last"
    )


def test_transformers_gives_the_runs_logits(run):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder).eval()
    assert type(theirs).__name__ == "GPT2ForSequenceClassification" and theirs.config.id2label == {
        0: "neg",
        1: "pos",
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    ours = run.load().logits(TEXTS)
    with torch.no_grad():
        output = [
            theirs(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in TEXTS
        ]
    assert np.linalg.norm(ours - output) <= 1e-5 * np.linalg.norm(ours)


def test_training_goes_on_with_the_head_or_with_another(model, run, tmp_path):
    data = rows(120, 3)
    still = {**FAST, "train.max_steps": 1, "train.lr": 1e-9}
    assert (
        finetune(model=run.folder, data=data, out=tmp_path / "on", **still).metrics["metrics"][
            "accuracy"
        ]
        >= 0.9
    )
    mean = finetune(
        model=run.folder, data=data, out=tmp_path / "mean", **still, **{"task.pooling": "mean"}
    )
    assert mean.load().config == run.load().config and mean.load().network.head.out.bias is not None
    # a run keeps its pooling where none is asked for; asked for, the head of another kind gives way
    # to a new one
    kept = preview(model=mean.folder, data=data, **FAST)
    assert kept.facts["pooling"] == "mean"
    back = finetune(
        model=mean.folder, data=data, out=tmp_path / "back", **still, **{"task.pooling": "last"}
    )
    assert back.load().network.head.out.bias is None


def test_resume_takes_the_pooling_that_auto_was(model, run):
    data = rows(320)
    again = finetune(
        model=model, data=data, out=run.folder, resume=True, **FAST, **{"task.pooling": "auto"}
    )
    assert again.metrics["metrics"] == run.metrics["metrics"]


def test_a_row_without_tokens_is_named(model, tmp_path):
    data = [*rows(60), {"text": "\u200b\ufeff", "label": "pos"}]
    nothing = words()
    nothing.backend.normalizer = normalizers.Replace(Regex("[^a-z ]"), "")
    folder = tiny_decoder(tmp_path / "strict", "gpt2", nothing)
    with pytest.raises(DataError, match="the text has no tokens"):
        finetune(model=folder, data=data, out=tmp_path / "run", **FAST)


def test_the_first_token_is_refused(model, tmp_path):
    data = rows(60)
    with pytest.raises(SettingsError, match="sees nothing but itself.*task.pooling=last"):
        finetune(model=model, data=data, out=tmp_path / "run", **{"task.pooling": "first"})
    assert not (tmp_path / "run").exists()


def test_regression_without_a_bias(model, tmp_path):
    data = rows(320, 5, "score")
    run = finetune("regress", model=model, data=data, out=tmp_path / "run", **FAST)
    assert run.metrics["metrics"]["pearson"] > 0.8
    high, low = run.load().predict(TEXTS)
    assert high["score"] > low["score"]

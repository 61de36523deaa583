"""Text to text, beside `transformers`."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import langue
from langue.data.batch import gather_pairs
from langue.errors import DataError, ModelError
from langue.model.language_model import LanguageModel, init_weights
from langue.tasks.language import decoder_side, language_states
from langue.tasks.seq2seq import Seq2Seq, Seq2SeqOptions
from langue.text.read.source import read
from tests.contract.task_rows import NEW, translated
from tests.tiny import tiny_bert, write_jsonl
from tests.tiny_kinds import tiny_model

SHORT = {
    "train.max_steps": 6,
    "train.batch_examples": 4,
    "train.precision": "fp32",
    "data.duplicates": False,
}
AWKWARD = [
    "a",
    "the film the film the film",
    "  blanks  ",
    "café ☕ …",
    "ONE two 3",
    "good",
    "bad " * 12,
    "\u4e2d\u6587",
    "tab\there",
    "end.",
    "a\nb",
    "?!",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new model that was trained a little, which writes something of every length."""
    folder = tmp_path_factory.mktemp("seq2seq") / "run"
    settings = {**NEW, **SHORT, "train.max_steps": 60, "task.beams": 4, "task.prefix": "say: "}
    langue.finetune("seq2seq", data=translated(40), out=folder, **settings)
    return folder


def test_transformers_writes_the_same_texts(trained: Path) -> None:
    model = langue.load(trained)
    reference = transformers.AutoModelForSeq2SeqLM.from_pretrained(trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained)
    found = model.predict(AWKWARD, top=None)
    for source, own in zip(AWKWARD, found, strict=True):
        ids = tokenizer(f"say: {source}", return_tensors="pt").input_ids
        with torch.no_grad():  # beams and lengths are those of generation_config.json
            out = reference.generate(ids, num_return_sequences=4, output_scores=True,
                                     return_dict_in_generate=True)  # fmt: skip
        texts = tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
        assert [each["generated_text"] for each in own] == [text.strip() for text in texts]
        scores = [each["score"] for each in own]
        assert scores == pytest.approx(out.sequences_scores.tolist(), abs=1e-4)
    assert model.predict(["good"]) == [{"generated_text": found[5][0]["generated_text"]}]


def test_the_engine_writes_what_the_task_predicts(trained: Path) -> None:
    model = langue.load(trained)
    predicted = [each["generated_text"] for each in model.predict(AWKWARD)]
    prompts = [f"say: {text}" for text in AWKWARD]
    assert [text.strip() for text in model.generate(prompts)] == predicted


@pytest.mark.parametrize("name", ["t5", "gpt2", "llama"])
def test_published_models_are_trained_further(name: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", name)
    rows = [{"document": row["source"], "summary": row["target"]} for row in translated(24)]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    run = langue.finetune(
        "seq2seq", model=model, data=data, out=tmp_path / "run", **SHORT,
        **{"task.output": "summary", "task.max_new_tokens": 5},
    )  # fmt: skip
    assert set(run.metrics["metrics"]) == {"rouge1", "rouge2", "rougeL"}
    assert run.metrics["main_metric"] == "rougeL" and run.metrics["baseline"] is not None
    assert set(run.metrics["written"]) == {"length_ratio", "repeated", "copied", "empty"}
    (answer,) = run.load().predict(["the film"])
    assert list(answer) == ["summary_text"]


def test_smoothing_is_that_of_transformers() -> None:
    from langue.model.config import ModelConfig

    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=31, dim=8, n_layers=1, n_heads=2, ffn_dim=16, max_length=16, causal=True,
        tied=False,
    )  # fmt: skip
    model = LanguageModel(config)
    init_weights(model, 1)
    states = torch.randn(9, 8, requires_grad=True)
    labels = torch.randint(0, 31, (9,))
    smoother = transformers.trainer_pt_utils.LabelSmoother(epsilon=0.1)
    outputs = {"logits": model.logits(states)[None]}
    expected = smoother(outputs, labels[None])
    loss, _ = model.loss(states, labels)
    found = (loss + 0.1 * model.excess(states, labels)) / 9
    torch.testing.assert_close(found, expected)
    for each, other in zip(
        torch.autograd.grad(found, [states, *model.head.parameters()], retain_graph=True),
        torch.autograd.grad(expected, [states, *model.head.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(each, other)


def test_a_new_model_learns_at_a_higher_rate() -> None:
    from langue.runs.arguments import FINETUNE, resolve_call

    given = {"task": "seq2seq", "data": [{"source": "a", "target": "b"}]}
    rates = [
        resolve_call(FINETUNE, {}, given | model, words).settings.train.lr
        for model, words in (({}, {}), ({"model": "m"}, {}), ({}, {"train.lr": 5e-4}))
    ]
    assert rates == [1e-3, 1e-4, 5e-4]


def test_a_decoder_learns_the_target_alone(tmp_path: Path) -> None:
    from langue.runs.arguments import FINETUNE, resolve_call
    from langue.runs.prepare import prepare

    model = tiny_model(tmp_path / "model", "gpt2")
    rows = [{"source": "the film", "target": "good"}, {"source": "a", "target": "bad bad"}]
    data = {"train": rows, "dev": rows}
    call = resolve_call(FINETUNE, {}, {"task": "seq2seq", "model": model, "data": data}, {})
    prepared = prepare(call)
    tokenizer = prepared.tokenizer
    examples = prepared.train.examples
    for row, given in enumerate(rows):
        part = slice(*examples.starts[row : row + 2])
        labels = examples.labels[part]
        assert tokenizer.decode(labels[labels >= 0].tolist()) == given["target"]
        assert tokenizer.decode(examples.tokens[part][: (labels < 0).sum() + 1].tolist()) == (
            f"{given['source']}\n"
        )
        # what is read after a label is that label
        assert (
            labels[:-1][labels[:-1] >= 0].tolist()
            == examples.tokens[part][1:][labels[:-1] >= 0].tolist()
        )
        assert int(labels[-1]) in prepared.task.ends


def test_an_encoder_decoder_reads_the_target_shifted(trained: Path, tmp_path: Path) -> None:
    model = langue.load(trained)
    task = model.task
    assert isinstance(task, Seq2Seq)
    table = read(translated(6), need=("source", "target"), split=False).test
    golds = task.golds(table)
    _, encoded = task.encode(model.tokenizer, table, golds, model.data, model.config)
    batch = gather_pairs(encoded.examples, encoded.decoder, np.arange(6))
    with torch.no_grad():
        states = language_states(model.language, batch)
        loss, _ = model.language.loss(states, decoder_side(batch).labels)
    reference = transformers.AutoModelForSeq2SeqLM.from_pretrained(trained)
    total = 0.0
    for row in range(6):
        part = slice(*encoded.examples.starts[row : row + 2])
        labels = slice(*encoded.decoder.starts[row : row + 2])
        ids = torch.tensor(encoded.examples.tokens[part][None].astype(int))
        target = torch.tensor(encoded.decoder.labels[labels][None].astype(int))
        with torch.no_grad():
            total += float(reference(input_ids=ids, labels=target).loss) * target.numel()
    assert float(loss) == pytest.approx(total, rel=1e-5)


def test_several_references_and_texts_in_several_languages_are_read(tmp_path: Path) -> None:
    rows = [{"text": "a b", "summaries": ["x", "y"]}, {"text": "c", "summaries": ["z"]}]
    table = read(rows, need=("source", "target"), split=False).test
    task = Seq2Seq(Seq2SeqOptions(output="summary"))
    assert task.golds(table) == [("x", "y"), ("z",)]
    both = [{"translation": {"en": "cat", "de": "Katze"}}] * 3
    data = write_jsonl(tmp_path / "both.jsonl", both)
    for columns, expected in (
        (None, ("cat", "Katze")),
        ({"source": "de", "target": "en"}, ("Katze", "cat")),
        ({"source": "de"}, ("Katze", "cat")),
    ):
        found = read(data, need=("source", "target"), columns=columns, split=False)
        assert (found.test.column("source")[0], found.test.column("target")[0]) == expected
        assert bool(found.notes) == (columns is None)
    with pytest.raises(DataError, match="in en, de, none of which is the target"):
        read(data, need=("source", "target"), columns={"target": "fr"}, split=False)


def test_what_is_cut_is_told_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", "t5")
    rows = [{"source": "a b", "target": "good " * 30}] * 8
    run = langue.finetune(
        "seq2seq", model=model, data=rows, out=tmp_path / "run", **SHORT,
        **{"data.max_length": 12, "task.dev_examples": 1},
    )  # fmt: skip
    assert any("targets are longer than 12 tokens" in note for note in run.facts["notes"])
    encoder = tiny_bert(tmp_path / "bert")
    with pytest.raises(ModelError, match="writes texts, and an encoder does not"):
        langue.finetune("seq2seq", model=encoder, data=rows, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    kept = json.loads((run.folder / "generation_config.json").read_text())
    assert kept["num_beams"] == 1 and kept["max_new_tokens"] >= 12

"""Preferences: losses and gradients by the formulas written out, and from rows to a run."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langue.errors import DataError, ModelError, SettingsError
from langue.runs.model import load
from langue.runs.prepare import Finetuning, build
from langue.tasks.preference import Preference, PreferenceOptions
from langue.tasks.preference_rows import shared_size
from langue.text.read.source import read
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.preview import preview
from tests.tiny import tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

PAIRS = [
    {"prompt": "the", "chosen": " film it", "rejected": " bad"},
    {"prompt": "a plot", "chosen": " was", "rejected": " was it"},
    {"prompt": "", "chosen": "with a", "rejected": "dull a night"},
    {"prompt": "it was the", "chosen": " day", "rejected": " grim cold day"},
]
RATED = [
    {"prompt": each["prompt"] or "x", "completion": each[name], "label": name == "chosen"}
    for each in PAIRS
    for name in ("chosen", "rejected")
]
SETTINGS: dict[str, Any] = {"train__precision": "fp32", "data__duplicates": False}
BETA = 0.3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preference") / "llama"
    return tiny_decoder(folder, "llama, tied", max_position_embeddings=256, vocab_size=258)


def prepared(model: Path, rows: list[dict], **settings: Any) -> Finetuning:
    data = {"train": rows, "dev": rows}
    return preview("preference", model=model, data=data, **(SETTINGS | settings))


def by_hand(logits: Any, encoded: Any, row: int) -> list[tuple[torch.Tensor, int]]:
    """(summed log-probability, tokens) of both answers of a row, token by token."""
    examples = encoded.examples
    found = []
    for sequence in (2 * row, 2 * row + 1):
        part = slice(examples.starts[sequence], examples.starts[sequence + 1])
        labels = examples.labels[part]
        logs = torch.log_softmax(logits(examples.tokens[part]), -1)  # (t, V)
        places = np.flatnonzero(labels >= 0)
        total = sum(logs[place, int(labels[place])] for place in places)
        found.append((total, len(places)))
    return found


def log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return -torch.log(1 + torch.exp(-x))


def expected(loss: str, rows: list, reference: list, smoothing: float, good: list) -> torch.Tensor:
    """The formulas of the papers, row by row."""
    total = torch.zeros((), dtype=torch.float64)
    gains = [
        [p[0] - r[0] for p, r in zip(row, ref, strict=True)]
        for row, ref in zip(rows, reference, strict=True)
    ]
    for (chosen, rejected), (c_gain, r_gain), is_good in zip(rows, gains, good, strict=True):
        h = BETA * (c_gain - r_gain)
        c_mean, r_mean = chosen[0] / chosen[1], rejected[0] / rejected[1]
        if loss == "sigmoid":
            total = total - (1 - smoothing) * log_sigmoid(h) - smoothing * log_sigmoid(-h)
        elif loss == "robust":
            both = -(1 - smoothing) * log_sigmoid(h) + smoothing * log_sigmoid(-h)
            total = total + both / (1 - 2 * smoothing)
        elif loss == "hinge":
            total = total + torch.clamp(1 - h, min=0)
        elif loss == "ipo":
            each = c_gain / chosen[1] - r_gain / rejected[1]
            total = total + (each - 1 / (2 * BETA)) ** 2
        elif loss == "simpo":
            total = total - log_sigmoid(BETA * (c_mean - r_mean) - 0.5)
        elif loss == "orpo":
            odds = [torch.exp(m) / (1 - torch.exp(m)) for m in (c_mean, r_mean)]
            total = total - c_mean - BETA * log_sigmoid(torch.log(odds[0] / odds[1]))
        elif loss == "kto":
            other = [gain[1] for gain in gains]
            z = max(0.0, float(sum(other)) / len(other))
            inside = BETA * (c_gain - z)
            total = total + 1 - torch.sigmoid(inside if is_good else -inside)
    return total


LOSSES = [
    ("sigmoid", 0.0),
    ("sigmoid", 0.1),
    ("robust", 0.1),
    ("hinge", 0.0),
    ("ipo", 0.0),
    ("simpo", 0.0),
    ("orpo", 0.0),
    ("kto", 0.0),
]


@pytest.mark.parametrize(("loss", "smoothing"), LOSSES)
def test_losses_and_gradients_are_those_of_the_papers(
    loss: str, smoothing: float, model: Path
) -> None:
    rows = RATED if loss == "kto" else PAIRS
    chosen = {"task__loss": loss, "task__beta": BETA, "task__label_smoothing": smoothing}
    made = prepared(model, rows, **chosen)
    network = build(made).double().eval()
    encoded = made.encoded["train"]
    before = load(model)

    def reference(tokens: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(before.logits([tokens.tolist()])[0]).double()

    with torch.no_grad():  # a model that is not the reference any more
        generator = torch.Generator().manual_seed(1)
        for weight in network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)

    def policy(tokens: np.ndarray) -> torch.Tensor:
        batch = made.task.batches(encoded_of(tokens), made.settings)
        one = batch.batch(np.asarray([0]), 0, torch.device("cpu"))
        return network.logits(network.body(*one.inputs))

    source = made.task.batches(made.train, made.settings)
    batch = source.batch(np.arange(len(rows)), 0, torch.device("cpu"))
    outcome = made.task.forward(network, batch)
    outcome.loss.backward()
    found = {n: w.grad.clone() for n, w in network.named_parameters()}
    network.zero_grad()
    by_policy = [by_hand(policy, encoded, row) for row in range(len(rows))]
    with torch.no_grad():
        by_reference = [by_hand(reference, encoded, row) for row in range(len(rows))]
    good = [row.get("label", True) for row in rows]
    wanted = expected(loss, by_policy, by_reference, smoothing, good)
    wanted.backward()
    assert outcome.count == len(rows)
    assert float(outcome.loss) == pytest.approx(float(wanted), abs=1e-5, rel=1e-5)
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in found.values())
    for name, weight in network.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-5, rtol=1e-4)


def encoded_of(tokens: np.ndarray) -> Any:
    from langue.data.batch import examples_of
    from langue.data.encoded import Encoded

    return Encoded(examples_of([tokens.tolist()]), 1)


def test_the_first_loss_is_ln_2_and_the_reference_is_not_trained(model: Path) -> None:
    made = prepared(model, PAIRS)
    network = build(made)
    task = made.task
    cpu = {"device": torch.device("cpu"), "dtype": torch.float32}
    found, loss = task.evaluate(network, made.dev, **cpu)
    assert loss == pytest.approx(math.log(2), abs=1e-6)
    assert found["margin"] == pytest.approx(0.0, abs=1e-5)
    kept = made.dev.examples.targets.copy()
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1
    task.evaluate(network, made.dev, **cpu)
    np.testing.assert_array_equal(made.dev.examples.targets, kept)
    again = prepared(model, PAIRS)  # as a run that goes on
    build(again)
    np.testing.assert_array_equal(again.dev.examples.targets, kept)


def test_tokens_and_labels(model: Path) -> None:
    made = prepared(model, PAIRS[:3])
    encoded = made.encoded["train"]
    tokenizer = made.tokenizer
    shown = []
    for sequence in range(6):
        part = slice(encoded.examples.starts[sequence], encoded.examples.starts[sequence + 1])
        tokens = encoded.examples.tokens[part].tolist()
        labels = encoded.examples.labels[part]
        read = tokenizer.decode(tokens, False)
        shown.append((read, tokenizer.decode(labels[labels >= 0].tolist(), False)))
    start, end = "<|endoftext|>", "<|endoftext|>"
    assert shown == [
        ("the film it", f" film it{end}"),
        ("the bad", f" bad{end}"),
        ("a plot was", f" was{end}"),
        ("a plot was it", f" was it{end}"),
        (f"{start}with a", f"with a{end}"),
        (f"{start}dull a night", f"dull a night{end}"),
    ]


@pytest.mark.parametrize(
    ("chosen", "rejected", "shared"),
    [
        ("the cat sits", "the cat sit", "the cat"),  # a word is never divided
        ("the cat sits", "a cat sits", ""),
        ("the cat", "the cat sits", "the"),
        ("it", "it is", ""),
    ],
)
def test_an_implicit_prompt_is_what_both_begin_with(chosen, rejected, shared) -> None:
    assert chosen[: shared_size(chosen, rejected)] == shared
    assert chosen[shared_size(chosen, rejected) :] and rejected[shared_size(chosen, rejected) :]


ASKED = {"role": "user", "content": "a"}
GOOD_ONE = {"role": "assistant", "content": "it"}
BAD_ONE = {"role": "assistant", "content": "the"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASKED], "chosen": [GOOD_ONE], "rejected": [BAD_ONE]},
        {"chosen": [ASKED, GOOD_ONE], "rejected": [ASKED, BAD_ONE]},
        {"prompt": "a", "chosen": [ASKED, GOOD_ONE], "rejected": [ASKED, BAD_ONE]},
    ],
)
def test_messages_are_read_with_and_without_a_prompt(row: dict, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "rows.jsonl", [row])
    columns = Preference.columns
    table = read(file, need=columns.required, optional=columns.optional, split=False).test
    (gold,) = Preference.read_targets(table, PreferenceOptions())
    assert gold.prompt == [ASKED]
    assert (gold.chosen, gold.rejected) == ([GOOD_ONE], [BAD_ONE])


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    rows = [
        {"prompt": [ASKED], "chosen": [GOOD_ONE], "rejected": [BAD_ONE]},
        {"prompt": [{**ASKED, "content": "it"}], "chosen": [BAD_ONE], "rejected": [GOOD_ONE]},
    ]
    data = {"train": rows, "dev": rows, "test": rows}
    out = tmp_path_factory.mktemp("preference") / "run"
    more = {"train__epochs": 15, "train__lr": 2e-3}
    return finetune("preference", model=model, data=data, out=out, **(SETTINGS | more))


def test_a_run_is_logged_judged_and_used(run: Any, tmp_path: Path) -> None:
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    first, last = log[0], log[-2]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["step"] == 0
    assert {"margin", "accuracy", "reward_chosen", "reward_rejected"} <= set(last)
    assert last["reward_chosen"] > last["reward_rejected"]
    assert run.metrics["metrics"]["accuracy"] == 1.0
    assert 0 <= run.metrics["reference_accuracy"] <= 1
    row = {"prompt": [ASKED], "chosen": [BAD_ONE], "rejected": [GOOD_ONE]}
    (found,) = run.load().predict([row])
    assert found["label"] == "rejected" and found["score"] > 0.5
    data = write_jsonl(tmp_path / "test.jsonl", [row])
    assert evaluate(run.folder, data=data)["metrics"]["accuracy"] == 0.0


def test_a_reference_that_is_gone_is_named(run: Any, tmp_path: Path) -> None:
    kept = run.folder / "langue.json"
    said = json.loads(kept.read_text())
    try:
        kept.write_text(json.dumps(said | {"reference": str(tmp_path / "gone")}))
        with pytest.raises(ModelError, match=r"gone: the reference, .* put it back"):
            load(run.folder).predict([{"prompt": "a", "chosen": [GOOD_ONE], "rejected": [BAD_ONE]}])
    finally:
        kept.write_text(json.dumps(said))


def test_what_cannot_be_is_one_line(model: Path, tmp_path: Path) -> None:
    given = partial(prepared, model)
    with pytest.raises(SettingsError, match=r"kto does not learn from two answers a row"):
        given(PAIRS, task__loss="kto")
    with pytest.raises(SettingsError, match=r"one answer a row, .* set task.loss=kto"):
        given(RATED)
    with pytest.raises(SettingsError, match="does nothing with task.loss = ipo"):
        given(PAIRS, task__loss="ipo", task__label_smoothing=0.1)
    with pytest.raises(ModelError, match="trains decoders"):
        prepared(tiny_bert(tmp_path / "bert"), PAIRS)
    mixed = [*PAIRS, {"prompt": "", "chosen": [ASKED, GOOD_ONE], "rejected": [ASKED, BAD_ONE]}]
    data = write_jsonl(tmp_path / "mixed.jsonl", mixed)
    with pytest.raises(DataError, match="some rows are texts and others messages"):
        preview("preference", model=model, data={"train": mixed, "dev": PAIRS})
    long = {"prompt": "a " * 40, "chosen": "b", "rejected": "c"}
    notes = given([*PAIRS, long], data__max_length=40).facts["notes"]
    assert any("1 row dropped" in note and "begins beyond" in note for note in notes), notes
    assert data.is_file()

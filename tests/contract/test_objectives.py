"""Properties of every registered pretraining objective; registering an objective is enough to test
it."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import langue
from langue.data.batch import Batch, Pairs
from langue.data.corpus.stream import Chunks
from langue.errors import DataError
from langue.hub.checkpoint import describe, load_into, read_checkpoint, without_extra
from langue.hub.weights import read_safetensors
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.runs.arguments import Call
from langue.runs.corpora import Pretraining
from langue.runs.execute import Run
from langue.runs.prepare import build
from langue.settings.sections import PRETRAINING, resolve
from langue.statistics.metrics import LOWER_IS_BETTER
from langue.tasks import OBJECTIVES, OPTIONS
from langue.tasks.language import HeldOutSet, LanguageObjective
from langue.train.trainer import Trainer
from langue.verbs.pretrain import pretrain
from tests.contract.objective_cases import CASES, MALFORMED, SHAPE, documents, word_tokenizer
from tests.contract.test_tasks import interrupted
from tests.tiny import write_jsonl

CPU = torch.device("cpu")
every_case = pytest.mark.parametrize("name", CASES)
OVERFITTING = {"train.lr": 1e-2, "train.warmup": 0.1, "train.evaluate_every": 1000}
# the value of a metric for perfect predictions, if it is not 1
PERFECT = {"bits_per_byte": 0.0, "perplexity": 1.0}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_tokenizer(tmp_path_factory.mktemp("objective") / "tokenizer")


def data_folder(folder: Path, n: int) -> Path:
    """Write that many documents as training data, and the same ones as dev data."""
    rows = [{"text": text} for text in documents(n)]
    for split in ("train", "dev"):
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def overfitted(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return a function that trains on eight documents, once for each case."""
    made: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in made:
            case = CASES[name]
            folder = tmp_path_factory.mktemp("objective")
            settings = SHAPE | OVERFITTING | case.settings | {"train.max_steps": case.steps}
            made[name] = pretrain(
                case.objective,
                data=data_folder(folder / "data", 8),
                tokenizer=tokenizer,
                out=folder / "run",
                **settings,
            )
        return made[name]

    return run


def prepared_case(name: str, tokenizer: Path, folder: Path, **settings: Any) -> Pretraining:
    """Return nine documents, prepared for training."""
    case = CASES[name]
    options = OBJECTIVES[case.objective].Options
    chosen = resolve(
        PRETRAINING, SHAPE | case.settings | settings, options=options, elsewhere=OPTIONS
    )
    arguments = {
        "objective": case.objective,
        "data": data_folder(folder / "data", 9),
        "model": None,
        "tokenizer": tokenizer,
        "columns": None,
    }
    call = Call(OBJECTIVES[case.objective], arguments, chosen, chosen)
    return Pretraining.make(call, folder)


def whole_documents(prepared: Pretraining, rows: np.ndarray) -> Batch | Pairs:
    """Return a batch of these documents, each as one chunk."""
    overhead = prepared.task.overhead.document
    lengths = prepared.train.lengths[rows] + overhead
    chunks = Chunks(rows, np.zeros_like(rows), lengths, 0)
    return prepared.task.make(prepared.train, chunks, CPU)


def test_every_objective_has_a_case() -> None:
    assert {case.objective for case in CASES.values()} == set(OBJECTIVES)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.by_heart])
def test_it_overfits_eight_documents(name: str, overfitted) -> None:
    run = overfitted(name)
    # including the end tokens, or fewer
    predicted = run.facts["dev_tokens"] + run.facts["dev_documents"]
    least = CASES[name].unavoidable * 8 / predicted
    assert run.metrics["metrics"]["loss"] < least + 0.1
    accuracy = run.metrics["metrics"].get("accuracy", 1.0)  # causal models do not report it
    assert accuracy > 0.95


@every_case
def test_one_batch_of_eight_gives_the_gradient_of_four_of_two(
    name: str, tokenizer: Path, tmp_path: Path
) -> None:
    prepared = prepared_case(name, tokenizer, tmp_path, **{"train.z_loss": 0.1})
    model = build(prepared).double().eval()

    def gradient(size: int) -> tuple[list[float], dict[str, torch.Tensor]]:
        model.zero_grad()
        sums = np.zeros(3)
        for rows in np.split(np.arange(8), 8 // size):
            outcome = prepared.task.forward(model, whole_documents(prepared, rows))
            outcome.loss.backward()
            sums += [float(outcome.loss.detach()), outcome.count, float(outcome.aux_loss)]
        grads = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
        return sums.tolist(), grads

    whole, parts = gradient(8), gradient(2)
    assert whole[0] == pytest.approx(parts[0], rel=1e-6) and whole[0][2] > 0
    for weight, expected in whole[1].items():
        torch.testing.assert_close(parts[1][weight], expected, rtol=1e-5, atol=1e-8)


@every_case
@torch.no_grad()
def test_packed_documents_are_judged_as_each_is_alone(
    name: str, tokenizer: Path, tmp_path: Path
) -> None:
    # blocks are shorter than the documents, so that a document has several chunks
    prepared = prepared_case(name, tokenizer, tmp_path, **{"data.seq_len": 9})
    objective = prepared.task
    model = build(prepared).eval()
    held = HeldOutSet(prepared.task.batches(prepared.dev, prepared.settings))
    judged = objective.judge(model, held, device=CPU, dtype=torch.float32)
    assert len(held.chunks) > 9
    for document in range(9):
        loss = 0.0
        count = 0.0
        for _, begin, length, _ in held.chunks[held.chunks[:, 0] == document]:
            chunk = Chunks(*(np.asarray([value]) for value in (document, begin, length)), 0)
            outcome = objective.forward(model, objective.make(prepared.dev, chunk, CPU))
            loss += float(outcome.loss - outcome.aux_loss)
            count += outcome.count
        assert judged.losses[document] == pytest.approx(loss, rel=1e-5)
        assert judged.counts[document] == count
    right, told = judged.shares["accuracy"]
    assert told.tolist() == judged.counts.tolist() and 0 <= right.sum() < told.sum()


@every_case
def test_what_is_saved_is_what_was_trained(name: str, overfitted, tmp_path: Path) -> None:
    run = overfitted(name)
    run.load().save(tmp_path / "saved")
    kept, again = (
        read_safetensors(folder / "model.safetensors")
        for folder in (run.folder, tmp_path / "saved")
    )
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[weight], again[weight]) for weight in kept)
    judged = langue.evaluate(run.folder)
    for metric, value in run.metrics["metrics"].items():
        assert judged["metrics"][metric] == pytest.approx(value, rel=1e-6)


@every_case
def test_transformers_agrees(name: str, overfitted, tokenizer: Path, tmp_path: Path) -> None:
    """It agrees on the logits of a training batch, each sequence alone, and therefore on its
    loss."""
    transformers = pytest.importorskip("transformers")
    case = CASES[name]
    prepared = prepared_case(name, tokenizer, tmp_path)
    theirs = getattr(transformers, case.loader).from_pretrained(overfitted(name).folder).eval()
    model = LanguageModel(prepared.config).eval()
    load_run(model, overfitted(name).folder, prepared)
    batch = whole_documents(prepared, np.arange(8))
    side = prepared.task.predicted(batch)
    with torch.no_grad():
        ours = model.logits(prepared.task.states(model, batch))
        outputs = [theirs(**given) for given in sequences(batch)]
        expected = torch.cat([getattr(output, case.logits)[0] for output in outputs])
        outcome = prepared.task.forward(model, batch)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    places = slice(None) if side.places is None else side.places
    loss = F.cross_entropy(expected[places], side.labels, reduction="sum")
    assert float(outcome.loss - outcome.aux_loss) == pytest.approx(float(loss), rel=1e-4)


def load_run(model: LanguageModel, folder: Path, prepared: Pretraining) -> None:
    pairs = prepared.task.learns_pairs(prepared.settings.task)
    checkpoint = read_checkpoint(describe(folder), head="lm", pairs=pairs)
    assert not load_into(model, without_extra(checkpoint.weights), where=str(folder))


def sequences(batch: Batch | Pairs) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the arguments of `transformers` for each predicted sequence."""
    if isinstance(batch, Pairs):
        target = batch.target
        source_of = {int(row): index for index, row in enumerate(batch.source.rows)}
        for index, row in enumerate(target.rows):
            yield {
                "input_ids": part(batch.source, source_of[int(row)], batch.source.tokens),
                "decoder_input_ids": part(target, index, target.tokens),
            }
        return
    for index in range(len(batch)):
        given = {"input_ids": part(batch, index, batch.tokens)}
        if batch.segments is not None:
            given["token_type_ids"] = part(batch, index, batch.segments)
        yield given


def part(batch: Batch, index: int, column: torch.Tensor) -> torch.Tensor:
    """Return (1, t) of a column (T,)."""
    begin, end = batch.starts[index : index + 2].tolist()
    return column[None, begin:end]


@every_case
def test_a_run_that_was_stopped_goes_on_to_the_bit(
    name: str, tokenizer: Path, tmp_path: Path
) -> None:
    """With dropout, a ramp, and a text that is read more than once in an epoch."""
    settings = {"model.dropout": 0.1, "train.epochs": 2, "train.ramp_steps": 6, "data.seq_len": 9}
    settings |= {"train.batch_tokens": 32, "train.checkpoint_every": 100}

    def trainer(folder: str) -> Trainer:
        (tmp_path / folder).mkdir(exist_ok=True)
        prepared = prepared_case(name, tokenizer, tmp_path, **settings)
        source, _, first, last = prepared.train.sources[0]
        prepared.train.sources[0] = (source, 2.5, first, last)
        batches = prepared.task.batches(prepared.train, prepared.settings)
        held = HeldOutSet(prepared.task.batches(prepared.dev, prepared.settings))
        chosen = prepared.settings.train
        model = build(prepared)
        return Trainer(model, prepared.task, batches, held, chosen, tmp_path / folder)

    whole = trainer("whole")
    whole.run()
    stopped = trainer("stopped")
    stopped.objective.forward = partial(interrupted, stopped.objective.forward, [7])
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = trainer("stopped")
    assert resumed.run(resume=True).step == whole.progress.step > 12
    for expected, found in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(expected, found)


@every_case
def test_perfect_predictions_are_judged_perfect(
    name: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_case(name, tokenizer, tmp_path)
    objective = prepared.task
    model = Oracle(prepared.config)
    monkeypatch.setattr(objective, "states", lambda model, batch: right_answers(objective, batch))
    held = HeldOutSet(prepared.task.batches(prepared.dev, prepared.settings))
    found, loss = objective.evaluate(model, held, device=CPU, dtype=torch.float32)
    judged = objective.judge(model, held, device=CPU, dtype=torch.float32)
    right, told = judged.shares["accuracy"]
    assert loss == 0.0 and right.tolist() == told.tolist() and told.min() > 0
    for metric, value in found.items():
        assert value == pytest.approx(PERFECT.get(metric, 1.0)), metric
        assert (metric in LOWER_IS_BETTER) == (metric in PERFECT)


class Oracle(LanguageModel):
    """A model whose hidden states are its logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.head.next_sentence_logits = lambda first: first[:, :2]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def right_answers(objective: LanguageObjective, batch: Batch | Pairs) -> torch.Tensor:
    """Return states (T, V) that are the logits of the right predictions; for a first token, those
    of the relation between its parts, if that is predicted."""
    side = objective.predicted(batch)
    states = torch.zeros(side.n_tokens, objective.vocabulary)
    if side.targets is not None:
        states[side.starts[:-1], side.targets.clamp(min=0)] = 1e3
    places = torch.arange(side.n_tokens) if side.places is None else side.places
    states[places, side.labels] = 1e3
    return states


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("line", "says"), MALFORMED)
def test_a_malformed_row_is_named_by_file_and_line(
    objective: str,
    line: str,
    says: str,
    tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [json.dumps({"text": text}) for text in documents(12)]
    data = tmp_path / "texts.jsonl"
    data.write_text("\n".join([*rows[:2], line, *rows[2:]]) + "\n", "utf-8")
    given = partial(
        *(pretrain, objective), data=data, tokenizer=tokenizer, out=tmp_path / "run", **SHAPE
    )
    with pytest.raises(DataError) as caught:
        given()
    message = str(caught.value)
    assert says in message and f"{data}, line 3" in message and "\n" not in message
    run = given(**{"data.invalid": "drop", "train.max_steps": 1})
    assert run.facts["documents"] + run.facts["dev_documents"] == 12
    told = capsys.readouterr()
    assert "1 unusable lines or rows dropped" in told.err + told.out

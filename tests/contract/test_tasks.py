"""Properties of every registered task; registering a task is enough to test it."""

import json
import re
from copy import copy
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from langue.data.batch import gather
from langue.data.encoded import in_order
from langue.data.pack import sorted_batches
from langue.errors import DataError, LangueWarning
from langue.runs.arguments import Call
from langue.runs.execute import Run
from langue.runs.model import load
from langue.runs.prepare import Finetuning, build
from langue.settings.sections import Settings, resolve
from langue.statistics.metrics import LOWER_IS_BETTER, OF_HUNDRED
from langue.tasks import OPTIONS, TASKS
from langue.text.tokenizers.training import END
from langue.train.trainer import Trainer
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.preview import preview
from tests.contract.task_rows import CASES, Case
from tests.tiny import tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

every_case = pytest.mark.parametrize("name", CASES)
SETTINGS = {
    "train.epochs": 40,
    "train.lr": 4e-3,
    "train.warmup": 0.1,
    "train.precision": "fp32",
    "train.evaluate_every": 20,
    "train.checkpoint_every": 1000,
    "task.dropout": 0.0,
    "model.dropout": 0.0,
    "model.attention_dropout": 0.0,
    "data.duplicates": False,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("task") / "bert")


def model_of(case: Case, tiny: Path) -> Path | None:
    """Return the initial model of a case; tiny: the encoder, beside which the decoder is made
    once."""
    if case.model != "decoder":
        return None if case.model == "new" else tiny
    folder = tiny.parent / "decoder"
    if folder.exists():
        return folder
    return tiny_decoder(folder, "llama, tied", max_position_embeddings=256)


@pytest.fixture(scope="module")
def overfitted(tiny: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return a function that trains on eight examples, once for each case."""
    made: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in made:
            case = CASES[name]
            rows = case.rows(8)
            made[name] = finetune(
                case.task,
                model=model_of(case, tiny),
                data={"train": rows, "dev": rows, "test": rows},
                out=tmp_path_factory.mktemp("task") / "run",
                **settings_of(case),
            )
        return made[name]

    return run


def settings_of(case: Case) -> dict[str, object]:
    """Return the common settings that the task has, and those of the case."""
    known = {f"task.{name}" for name in TASKS[case.task].Options.model_fields}
    common = {k: v for k, v in SETTINGS.items() if k in known or not k.startswith("task.")}
    return common | case.settings


def prepared_case(name: str, tiny: Path, **settings: object) -> Finetuning:
    """Rows of a case, read and encoded; once, so that nobody may change it."""
    return _prepared_case(name, tiny, tuple(settings.items()))


@cache
def _prepared_case(name: str, tiny: Path, more: tuple[tuple[str, object], ...]) -> Finetuning:
    case = CASES[name]
    rows = case.rows(24)
    chosen = resolve(
        settings_of(case) | dict(more), options=TASKS[case.task].Options, elsewhere=OPTIONS
    )
    data = {"train": rows[:16], "dev": rows[16:]}
    return prepared_from(case.task, model_of(case, tiny), data, chosen)


def prepared_from(task: str, model: Path | None, data: object, settings: Settings) -> Finetuning:
    arguments = {"task": task, "model": model, "data": data, "columns": None}
    return Finetuning.make(Call(TASKS[task], arguments, settings, settings))


def test_every_task_has_a_case() -> None:
    assert {case.task for case in CASES.values()} == set(TASKS)


def best_of(metric: str) -> float:
    """Return the best possible value of a metric."""
    if metric in LOWER_IS_BETTER:
        return 1.0 if metric == "perplexity" else 0.0
    return 100.0 if metric in OF_HUNDRED else 1.0


@every_case
def test_it_overfits_eight_examples(name: str, overfitted) -> None:
    run = overfitted(name)
    main = run.metrics["main_metric"]
    value = run.metrics["metrics"][main]
    if main == "perplexity":
        assert value < 1.1
    else:
        assert main not in LOWER_IS_BETTER
        assert value > 0.99 * best_of(main)
    assert set(run.metrics["metrics"]) == set(run.load().task.metric_names())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.of_rows])
def test_one_batch_of_eight_gives_the_gradient_of_four_of_two(name: str, tiny: Path) -> None:
    prepared = prepared_case(name, tiny)
    network = build(prepared).double().eval()
    task = prepared.task
    source = task.batches(prepared.train, prepared.settings)

    def gradient(size: int) -> tuple[float, float, dict[str, torch.Tensor]]:
        network.zero_grad()
        total = count = 0.0
        for rows in np.split(np.arange(8), 8 // size):
            found = task.forward(network, source.batch(rows, 0, torch.device("cpu")))
            found.loss.backward()
            total += float(found.loss.detach())
            count += found.count
        grads = {n: w.grad.clone() for n, w in network.named_parameters() if w.grad is not None}
        return total, count, grads

    whole, parts = gradient(8), gradient(2)
    assert whole[:2] == pytest.approx(parts[:2], rel=1e-6)
    for weight, expected in whole[2].items():
        torch.testing.assert_close(parts[2][weight], expected, rtol=1e-5, atol=1e-8)


@every_case
def test_predictions_do_not_depend_on_their_company(name: str, overfitted) -> None:
    model = overfitted(name).load()
    items = model.items(model.read_inputs(CASES[name].rows(8)).test)
    together = model.predict(items)
    alone = [model.predict([item])[0] for item in items]
    backwards = model.predict(items[::-1])[::-1]
    assert flat(together) == pytest.approx(flat(alone), abs=1e-4)
    assert flat(together) == pytest.approx(flat(backwards), abs=1e-4)
    assert json.loads(json.dumps(together)) == together


def flat(answers):
    """Return the numbers and words of answers in one list."""
    if isinstance(answers, dict):
        return flat(list(answers.values()))
    if isinstance(answers, list):
        return [each for part in answers for each in flat(part)]
    # words are compared as the codes of their characters, since approx takes numbers
    return [answers] if isinstance(answers, int | float) else [float(ord(c)) for c in str(answers)]


@every_case
def test_what_is_saved_is_what_was_trained(name: str, overfitted, tmp_path: Path) -> None:
    run = overfitted(name)
    model = run.load()
    items = model.items(model.read_inputs(CASES[name].rows(8)).test)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.predict(items) == model.predict(items)
    assert again.task.to_dict() == model.task.to_dict()
    data = write_jsonl(tmp_path / "test.jsonl", CASES[name].rows(8))
    judged = evaluate(run.folder, data=data)
    assert judged["metrics"] == pytest.approx(run.metrics["metrics"], abs=1e-5)


@every_case
def test_a_run_can_be_compared_with_another(name: str, overfitted) -> None:
    run = overfitted(name)
    rows = CASES[name].rows(8)
    found = evaluate(run.folder, run.folder, data={"test": rows})
    beside = found["baseline"]
    assert beside["metrics"] == found["metrics"] and found["examples"] == 8
    assert beside["comparison"]["difference"] == 0 and beside["comparison"]["p_value"] == 1


@every_case
def test_a_run_that_was_stopped_goes_on_to_the_bit(name: str, tiny: Path, tmp_path: Path) -> None:
    def trainer(folder: str) -> Trainer:
        prepared = prepared_case(name, tiny, **{"train.epochs": 3, "train.batch_examples": 4})
        (tmp_path / folder).mkdir(exist_ok=True)
        network = build(prepared)
        batches = prepared.task.batches(prepared.train, prepared.settings)
        settings = prepared.settings.train
        folder_ = tmp_path / folder
        # of its own, as one is made to stop
        return Trainer(network, copy(prepared.task), batches, prepared.dev, settings, folder_)

    whole = trainer("whole")
    whole.run()
    stopped = trainer("stopped")
    stopped.objective.forward = partial(interrupted, stopped.objective.forward, [7])
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = trainer("stopped")
    resumed.run(resume=True)
    for expected, found in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(expected, found)


def interrupted(forward, left, model, batch):
    """Run the forward pass, and interrupt it after that many calls."""
    left[0] -= 1
    if left[0] < 0:
        raise KeyboardInterrupt
    return forward(model, batch)


@every_case
def test_perfect_predictions_are_judged_perfect(name: str, tiny: Path) -> None:
    prepared = prepared_case(name, tiny)
    task = prepared.task
    golds = prepared.encoded["train"].golds
    perfect = CASES[name].perfect(task, golds)
    found = task.judge(golds, perfect)
    for metric, value in found.metrics.items():
        assert value == pytest.approx(best_of(metric)), metric
    table = prepared.source.train
    worst = task.mistakes(table, golds, perfect)
    assert worst is None or not worst.rows
    assert len(task.show_target(golds[0])) and task.balance(golds)


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [(name, row, says) for name, case in CASES.items() for row, says in case.malformed],
)
def test_a_malformed_row_is_named_by_file_and_line(
    name: str, row: dict, says: str, tiny: Path, tmp_path: Path
) -> None:
    case = CASES[name]
    rows = case.rows(12)
    data = write_jsonl(tmp_path / "train.jsonl", [*rows[:2], row, *rows[2:]])
    chosen = resolve(settings_of(case), options=TASKS[case.task].Options, elsewhere=OPTIONS)
    given = partial(prepared_from, case.task, model_of(case, tiny), data)
    with pytest.raises(DataError) as caught:
        given(chosen)
    message = str(caught.value)
    assert says in message and f"{data}, line 3" in message and "\n" not in message
    dropping = chosen.model_copy(
        update={"data": chosen.data.model_copy(update={"invalid": "drop"})}
    )
    prepared = given(dropping)
    assert sum(len(each) for each in prepared.encoded.values()) == 12
    assert any("dropped" in note for note in prepared.source.notes)


@pytest.mark.parametrize(
    "name", [n for n, c in CASES.items() if not TASKS[c.task].has_language_head]
)
def test_packed_sequences_are_those_read_one_at_a_time(name: str, tiny: Path) -> None:
    prepared = prepared_case(name, tiny)
    network = build(prepared).eval()
    examples = prepared.encoded["train"].examples

    def decoded(batches):
        with torch.no_grad():
            made = [(each.rows, prepared.task.decode(network(each), each)) for each in batches]
        return in_order(len(examples), made)

    every = [gather(examples, rows) for rows in sorted_batches(examples.lengths, 4096)]
    single = [gather(examples, np.asarray([row])) for row in range(len(examples))]
    expected = decoded(single)
    for value, other in zip(decoded(every), expected, strict=True):
        for part, same in zip(parts_of(value), parts_of(other), strict=True):
            np.testing.assert_allclose(part, same, atol=1e-5)


def parts_of(value):
    """Return the arrays that are decoded from a sequence."""
    return [part for part in value if part is not None] if isinstance(value, tuple) else [value]


def _with_name(value, name, key=None):
    """Return a row with the name of a special token in its texts."""
    if key == "answers":
        return value
    if isinstance(value, dict):
        return {of: _with_name(each, name, of) for of, each in value.items()}
    if key == "tokens":
        return [name, *value[1:]]
    if isinstance(value, list):
        return [_with_name(each, name, key) for each in value]
    return f"{value} {name}" if key in TEXTS_OF_ROWS and isinstance(value, str) else value


TEXTS_OF_ROWS = (
    *("text", "pair", "source", "question", "context", "content"),
    *("prompt", "chosen", "rejected", "completion"),
)


@every_case
def test_names_of_special_tokens_are_told(name, tiny):
    """They are read as these tokens although people may have meant text, so a note says so, before
    training and about what is predicted."""
    case = CASES[name]
    token = "[MASK]" if case.model == "encoder" else END
    given = case.rows(16)
    rows = [_with_name(row, token) for row in given]
    settings = {key: value for key, value in settings_of(case).items() if "epochs" not in key}

    def notes(train):
        data = {"train": train, "dev": given, "test": given}
        model = model_of(case, tiny)
        facts = preview(case.task, model=model, data=data, **settings).facts
        return [each for each in facts["notes"] if "the name of a special token" in each]

    assert not notes(given)
    (said,) = notes(rows)
    assert f"such as {token}, which is read as that token" in said


def test_names_of_special_tokens_in_targets_and_in_what_is_asked(overfitted, tiny):
    run = overfitted("seq2seq")
    rows = CASES["seq2seq"].rows(8)
    other = [row | {"target": f"{row['target']} {END}"} for row in rows]
    told = evaluate(run.folder, data=other)["notes"]
    assert any(each.startswith("targets: 8 texts hold the name") for each in told)
    chat = load(overfitted("chat").folder)
    asked = [[{"role": "user", "content": f"a {END} b"}]]
    for use in (chat.predict, partial(chat.generate, max_tokens=2)):
        with pytest.warns(LangueWarning, match=f"such as {re.escape(END)}, which is read as that"):
            use(asked)

"""ARCHITECTURE.md and CONTRIBUTING.md: what they name is there, and their example works."""

import re
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

import langue
from langue.tasks import TASKS
from tests.contract import task_rows
from tests.contract import test_tasks as task_battery
from tests.test_floors import FLOORS
from tests.tiny import tiny_bert, write_jsonl

transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).parent.parent
ARCHITECTURE, CONTRIBUTING = (
    (ROOT / name).read_text("utf-8") for name in ("ARCHITECTURE.md", "CONTRIBUTING.md")
)
FAMILY, REFERENCE, TASK, ROWS = re.findall(r"^ *```python\n(.*?)^ *```$", CONTRIBUTING, re.M | re.S)
NAME = "starcoder2"


def test_paths_and_links_lead_somewhere() -> None:
    text = ARCHITECTURE + CONTRIBUTING
    paths = re.findall(r"\]\(([^)#]+)\)|`((?:langue|tests|docs)/[\w./]*|\.ci/\w+)`", text)
    for path in filter(None, (linked or named for linked, named in paths)):
        assert (ROOT / path).exists(), path


def test_every_room_is_described() -> None:
    described = ARCHITECTURE.split("## Rooms")[1].split("\n## ")[0]
    for room in set().union(*FLOORS):
        there = (ROOT / "langue" / room).is_dir() or (ROOT / "langue" / f"{room}.py").is_file()
        if there and not room.startswith("__"):
            assert f"`{room}`" in described, f"{room} is not in ARCHITECTURE.md"
    for row in re.findall(r"^\| (`.*?) \|", described, re.M):
        for room in re.findall(r"`(\w+)`", row):
            assert any((ROOT / "langue").glob(f"{room}*")), f"{room} is described and not there"


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core = {re.split(r"[<>=]", each)[0] for each in project["dependencies"]}
    table = ARCHITECTURE.split("## Dependencies")[1].split("\n\n")[2]
    assert set(re.findall(r"^\| `([\w-]+)` ", table, re.M)) == core


def test_every_target_of_make_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)[0].split())
    described = set(re.findall(r"`make ([\w-]+)`", CONTRIBUTING))
    assert described == named - {"quickstart", "clean"}


def test_lint_before_a_commit_is_make_lint() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    lint = re.findall(r"\t\$\(BIN\)/(.*)", makefile.split("\nlint:")[1].split("\n\n")[0])
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0][
        "hooks"
    ]
    assert [hook["entry"] for hook in hooks] == [f".venv/bin/{command}" for command in lint]


def test_the_workflow_calls_what_a_fresh_machine_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    steps = workflow["jobs"]["run"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]


def test_the_family_of_the_guide_is_the_one_in_the_tree() -> None:
    """Which the battery tests: its file, its line in the registry, and its reference."""
    assert FAMILY.count("\n") <= 60
    assert (ROOT / "langue" / "hub" / "families" / f"{NAME}.py").read_text("utf-8") == FAMILY
    (line,) = re.findall(r"`(\"\w+\": \"hub\.families\..*?\")`", CONTRIBUTING)
    registry = (ROOT / "langue" / "hub" / "families" / "registry.py").read_text("utf-8")
    assert line.startswith(f'"{NAME}"') and f"        {line},\n" in registry
    entry = textwrap.indent(textwrap.dedent(REFERENCE), " " * 4)
    assert entry in (ROOT / "tests" / "contract" / "references.py").read_text("utf-8")


@pytest.fixture
def ordinal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task and its rows, registered as the guide says."""
    assert TASK.count("\n") < 60
    names: dict[str, object] = {}
    exec(compile(TASK, "CONTRIBUTING.md", "exec"), names)
    monkeypatch.setitem(TASKS, "ordinal", names["Ordinal"])
    case = eval(f"{{{ROWS.strip()}}}", vars(task_rows))["ordinal"]
    monkeypatch.setitem(task_rows.CASES, "ordinal", case)


def test_the_task_trains_predicts_and_is_published(ordinal: None, tmp_path: Path) -> None:
    rows = task_rows.scored(48)
    for index, row in enumerate(rows):  # bad texts have two stars, good ones four or five
        row["score"] = [4 + index // 2 % 2, 2][index % 2]
    data = write_jsonl(tmp_path / "stars.jsonl", rows)
    model = tiny_bert(tmp_path / "bert")
    settings = task_battery.SETTINGS | {"task.pooling": "first", "train.epochs": 15}
    run = langue.finetune("ordinal", model=model, data=data, out=tmp_path / "run", **settings)
    assert run.metrics["baseline"]["metrics"].keys() == run.metrics["metrics"].keys()
    again = {"model": model, "data": data, "out": tmp_path / "run", "resume": True}
    assert langue.finetune("ordinal", **again, **settings).metrics == run.metrics
    loaded = langue.load(tmp_path / "run")
    low, high = (
        answer["score"] for answer in loaded.predict(["dull awful poor", "great warm fine"])
    )
    assert 2 <= low < 3 < high <= 5
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run"
    ).eval()
    assert theirs.config.id2label == {0: "at least 4", 1: "at least 5"}
    (encoding,) = loaded.tokenizer.encode_batch(["great warm fine"])
    with torch.no_grad():
        reached = theirs(torch.tensor([encoding.ids])).logits[0].sigmoid().tolist()
    assert high == pytest.approx(2 + 2 * reached[0] + reached[1], abs=1e-4)


@pytest.mark.parametrize(
    "check",
    [
        task_battery.test_one_batch_of_eight_gives_the_gradient_of_four_of_two,
        task_battery.test_perfect_predictions_are_judged_perfect,
        task_battery.test_packed_sequences_are_those_read_one_at_a_time,
    ],
)
def test_the_task_passes_the_battery(ordinal: None, tmp_path: Path, check) -> None:
    check("ordinal", tiny_bert(tmp_path / "bert"))


def test_a_malformed_row_of_the_task_is_named(ordinal: None, tmp_path: Path) -> None:
    ((row, says),) = task_rows.CASES["ordinal"].malformed
    check = task_battery.test_a_malformed_row_is_named_by_file_and_line
    check("ordinal", row, says, tiny_bert(tmp_path / "bert"), tmp_path)


def test_the_task_is_resumed_to_the_bit(ordinal: None, tmp_path: Path) -> None:
    check = task_battery.test_a_run_that_was_stopped_goes_on_to_the_bit
    check("ordinal", tiny_bert(tmp_path / "bert"), tmp_path)

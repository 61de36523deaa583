"""ARCHITECTURE.md and CONTRIBUTING.md: what they name is there, and their example works."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from langue.hub.families.registry import FAMILIES
from tests.test_floors import FLOORS

pytest.importorskip("transformers")

from tests.contract import references  # noqa: E402
from tests.contract import test_families as battery  # noqa: E402

ROOT = Path(__file__).parent.parent
ARCHITECTURE, CONTRIBUTING = (
    (ROOT / name).read_text("utf-8") for name in ("ARCHITECTURE.md", "CONTRIBUTING.md")
)
EXAMPLE, REFERENCE = re.findall(r"^ *```python\n(.*?)^ *```$", CONTRIBUTING, re.M | re.S)
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


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family and its reference, registered as the guide says."""
    assert EXAMPLE.count("\n") < 60
    names: dict[str, object] = {}
    exec(compile(EXAMPLE, "CONTRIBUTING.md", "exec"), names)
    monkeypatch.setitem(FAMILIES, NAME, names["STARCODER2"])
    entry = eval(f"{{{REFERENCE.strip()}}}", vars(references))
    monkeypatch.setitem(references.REFERENCES, NAME, entry[NAME])


@pytest.mark.parametrize("seed", range(3))
def test_the_family_has_the_logits_of_transformers(
    example: None, tmp_path: Path, seed: int
) -> None:
    battery.test_logits_and_saving(tmp_path, NAME, seed)


@pytest.mark.parametrize(
    "check",
    [
        battery.test_gradients_of_every_weight,
        battery.test_configs_that_change_the_mathematics_are_refused,
        battery.test_a_weight_too_few_or_too_many_is_an_error,
        battery.test_bf16_stays_near,
    ],
)
def test_the_family_passes_the_battery(example: None, tmp_path: Path, check) -> None:
    check(tmp_path, NAME)

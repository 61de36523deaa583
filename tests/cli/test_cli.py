"""The command line parses, dispatches, prints and explains; the verbs themselves are stand-ins
here."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from langue import __version__
from langue.cli import main, run
from langue.errors import DataError, Interrupted
from langue.runs.notebook import Result
from langue.runs.show import print_run
from langue.settings.sections import known
from langue.tasks import OPTIONS
from langue.tasks.judgement import Table

CONTENT = {
    "split": "test",
    "examples": 200,
    "metrics": {"accuracy": 0.93, "f1_macro": 0.92, "recall": 0.5},
    "positive": "[red]spam[/]",
    "intervals": {"accuracy": [0.91, 0.95], "f1_macro": None},
    "baseline": {
        "name": "bigram tf-idf + logistic regression",
        "metrics": {"accuracy": 0.9},
        "seconds": 1.0,
        "comparison": {
            "metric": "accuracy",
            "difference": 0.03,
            "interval": [0.004, 0.056],
            "p_value": 0.03,
            "examples": 200,
        },
    },
    "seconds": 12.5,
}


class Calls:
    """Stands in for a verb and keeps what it was called with."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.args = ()
        self.settings = {}

    def __call__(self, *args: Any, **settings: Any) -> Any:
        self.args = args
        self.settings = settings
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture(autouse=True)
def nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these stand-ins are given is not there; test_early.py looks for it."""
    for name in ("inputs", "training"):
        monkeypatch.setattr(f"langue.cli.early.check_{name}", lambda *_, **__: None)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(name: str, result: Any = None) -> Calls:
        calls = Calls(result)
        module = SimpleNamespace(
            **{name: calls, "show": lambda prepared, console: console.print(prepared)}
        )
        monkeypatch.setitem(sys.modules, f"langue.verbs.{name}", module)
        return calls

    facts = {"steps": 3}
    put("preview", SimpleNamespace(facts=facts, print=lambda console: console.print(facts)))
    return put


FACTS = {"transformers": "yes", "verb": "predict", "reads_texts": True}


def finished() -> SimpleNamespace:
    loaded = SimpleNamespace(predict=labelled)
    return SimpleNamespace(folder=Path("runs/x"), metrics=CONTENT, facts=FACTS, load=lambda: loaded)


def labelled(texts: list[str]) -> list[dict[str, Any]]:
    return [{"label": "pos", "score": 0.9}] * len(texts)


def test_finetune_gets_what_was_written(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls = verb("finetune", finished())
    words = (
        "finetune --task classify --model m --data d.csv --columns text=a,label=b --out o"
        " train.lr=3e-5 --force"
    )
    assert run(words.split()) == 0
    calls.settings.pop("show")
    assert calls.args == ("classify",)
    assert calls.settings == {
        "model": "m",
        "data": "d.csv",
        "out": "o",
        "columns": {"text": "a", "label": "b"},
        "recipe": None,
        "force": True,
        "resume": False,
        "keep_checkpoints": False,
        "folds": None,
        "seeds": None,
        "shares": None,
        "train.lr": "3e-5",
    }
    printed = capsys.readouterr().out
    assert "93.00%" in printed and "recall of [red]spam[/]" in printed
    assert (
        "bigram" in printed and "Better than its baseline" in printed and "report.html" in printed
    )


@pytest.mark.parametrize(("two", "ends"), [(True, '--text "..." --pair "..."'), (False, '"..."')])
def test_what_to_type_next_has_as_many_texts_as_the_task_reads(
    verb: Any, capsys: pytest.CaptureFixture[str], two: bool, ends: str
) -> None:
    run_of = finished()
    run_of.facts = FACTS | {"reads_two_texts": two}
    verb("finetune", run_of)
    assert run(["finetune", "--out", "o"]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("Use it")]
    assert line.endswith(ends) and ("--pair" in line) == two


@pytest.mark.parametrize("words", ["train.lr=1", "--train.lr=1", "--train.lr 1"])
def test_settings_are_taken_as_other_tools_write_them(verb: Any, words: str) -> None:
    calls = verb("finetune", finished())
    assert run(["finetune", *words.split(), "--out", "o", "--json"]) == 0
    assert calls.settings["train.lr"] == "1"


def test_json_alone_stands_on_stdout(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls = verb("finetune", finished())
    assert run(["finetune", "--out", "o", "--json"]) == 0
    said = SimpleNamespace(print=lambda console: console.print("what will be trained"))
    calls.settings["show"](said)
    streams = capsys.readouterr()
    assert json.loads(streams.out) == CONTENT
    assert "what will be trained" in streams.err


def test_evaluate_gets_what_was_written(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls = verb("evaluate", CONTENT)
    words = "evaluate r --data d --split dev --columns text=a --columns label=b --out o.json --json"
    assert run(words.split()) == 0
    assert calls.args == ("r", None)
    assert callable(calls.settings.pop("show"))
    assert calls.settings == {
        "data": "d",
        "split": "dev",
        "columns": {"text": "a", "label": "b"},
        "out": "o.json",
        "force": False,
        **dict.fromkeys(("task_file", "few_shot", "limit", "samples", "batch_tokens", "device")),
    }
    assert json.loads(capsys.readouterr().out) == CONTENT


@pytest.mark.parametrize("as_json", [False, True])
def test_evaluate_prints_what_a_report_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def evaluate(run: str, other: None, *, show: Any, **_: Any) -> dict[str, Any]:
        show([Table("By label", ("label", "F1"), [("[red]spam[/]", 0.5)], shares=(1,))])
        return Result(CONTENT, print_run)

    module = SimpleNamespace(evaluate=evaluate)
    monkeypatch.setitem(sys.modules, "langue.verbs.evaluate", module)
    assert run(["evaluate", "r", *(["--json"] if as_json else [])]) == 0
    shown = capsys.readouterr().out
    if as_json:
        assert json.loads(shown) == CONTENT
    else:
        assert "By label" in shown and "50.00%" in shown and "[red]spam[/]" in shown


def test_predict_prints_one_line_a_text(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls = verb("predict", labelled(["", ""]))
    assert run(["predict", "r", "--text", "a [b]\nc", "--text", "مرحبا 😀"]) == 0
    assert calls.settings["texts"] == ["a [b]\nc", "مرحبا 😀"]
    assert calls.settings["top"] == "auto"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "a [b] c" in lines[0] and "😀" in lines[1]


def test_predict_takes_pairs_all_labels_and_files(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = verb("predict", [[{"label": "pos", "score": 0.9}, {"label": "neg", "score": 0.1}]])
    assert run(["predict", "r", "--text", "a", "--pair", "b", "--all"]) == 0
    assert calls.settings["texts"] == [("a", "b")] and calls.settings["top"] is None
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["pos", "neg"]
    assert run(["predict", "r", "--data", "d", "--out", "o.jsonl"]) == 0
    assert calls.settings["texts"] is None and calls.settings["data"] == "d"
    assert capsys.readouterr().out == "Predictions: o.jsonl\n"
    assert run(["predict", "r", "--text", "a", "--pair", "b", "--pair", "c"]) == 2


def test_preview_prints_facts(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["data", "preview", "--model", "m", "--data", "d", "data.truncation=head", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out) == {"steps": 3}
    assert run(["data", "preview"]) == 0
    assert "steps" in capsys.readouterr().out


def test_quickstart_says_what_to_type_next(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls = verb("quickstart", finished())
    assert run(["quickstart"]) == 0
    assert calls.args == ("runs/quickstart",)
    assert "--data stanfordnlp/imdb" in capsys.readouterr().out


def test_settings_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows) == list(known(*OPTIONS.values()))
    assert rows["train.lr"]["default"] == known()["train.lr"].default
    assert run(["settings"]) == 0
    assert "train.lr" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("finetun", "No such command 'finetun'. Did you mean 'finetune'?"),
        ("finetune --data d", "Missing option '--out'"),
        ("finetune --out o --modle m", "no such option: --modle; did you mean --model?"),
        ("finetune --out o --zzzz", "no such option: --zzzz; see langue finetune --help"),
        ("finetune --out o --columns text", "'text' is not ours=theirs"),
        ("finetune --out o --columns text=a,text=b", "names 'text' twice"),
        ("finetune --out o word", "'word' is not a setting; write it as section.key=value"),
        ("pretrain --out o --data d --size 1M model.size=2M", "--size 1M and model.size=2M differ"),
        (
            "pretrain --out o --data d --max-steps 3",
            "unknown setting 'max-steps'; here it is train.max_steps",
        ),
        ("predict r --top 0", "--top"),
        ("evaluate", "Missing argument"),
    ],
)
def test_a_mistake_is_one_line(
    verb: Any, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    verb("finetune", finished())
    assert run(words.split()) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1
    assert streams.err.startswith("langue: error: ") and said in streams.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            DataError("no column 'text'", where="a.csv", do="--columns"),
            2,
            "error: a.csv: no column 'text'; --columns",
        ),
        (Interrupted("stopped", do="--resume goes on"), 130, "error: stopped; --resume goes on"),
        (ZeroDivisionError("by\nzero"), 1, "internal error: ZeroDivisionError: by zero; "),
    ],
)
def test_what_stops_a_verb_is_one_line(
    verb: Any, capsys: pytest.CaptureFixture[str], error: Exception, code: int, line: str
) -> None:
    verb("evaluate", error)
    assert run(["evaluate", "r"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"langue: {line}") and printed.count("\n") == 1
    with pytest.raises(type(error)):
        run(["evaluate", "r", "--debug"])


def test_ctrl_c_before_training_is_no_traceback(
    verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    verb("evaluate", KeyboardInterrupt())
    assert run(["evaluate", "r"]) == 130
    assert capsys.readouterr().err == "langue: interrupted\n"


def test_main_exits_with_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"langue {__version__}\n"

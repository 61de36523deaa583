"""A real notebook shows what the terminal shows, and texts that are no markup in it."""

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

import langue
from langue.runs.model import load
from tests.tiny import reviews, tiny_bert, write_jsonl

HOSTILE = '<img src=x onerror="alert(1)">'
LABELS = {"pos": HOSTILE, "neg": "[bold]<b>bad</b>[/]"}
CELLS = """
import langue
run = langue.finetune(model=MODEL, data=DATA, out=OUT, train__max_steps=6, train__log_every=1)
run
---
langue.preview(model=MODEL, data=DATA)
---
run.load()
---
langue.evaluate(OUT)
---
langue.inspect(MODEL)
---
langue.plan(size="1M", tokens="20M")
---
langue.inspect_data(DATA)
---
langue.predict(OUT, data=DATA, out=OUT + ".jsonl")
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each cell has put out."""
    folder = tmp_path_factory.mktemp("notebook")
    rows = [row | {"label": LABELS[row["label"]]} for row in reviews(60)]
    rows[0] |= {"text": f"{HOSTILE} {rows[0]['text']}"}
    names = {
        "MODEL": str(tiny_bert(folder / "model")),
        "DATA": str(write_jsonl(folder / "rows.jsonl", rows)),
        "OUT": str(folder / "run"),
    }
    sources = CELLS.split("---\n")
    sources[0] = "".join(f"{name} = {value!r}\n" for name, value in names.items()) + sources[0]
    made = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=made)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def html_of(outputs: list[Any]) -> str:
    return "".join(each.get("data", {}).get("text/html", "") for each in outputs)


def words_of(outputs: list[Any]) -> str:
    """What is printed, and what stands for a result where there is no HTML."""
    printed = "".join(each.get("text", "") for each in outputs)
    return printed + "".join(each.get("data", {}).get("text/plain", "") for each in outputs)


def test_a_notebook_shows_what_the_terminal_shows(cells: list[Any]) -> None:
    run, preview, model, scores, inspected, planned, text, _ = map(html_of, cells)
    assert "accuracy" in run and "tf-idf" in run and "data:image/png;base64," in run
    assert "what will be trained" in preview and "color: #" in preview
    assert "bert" in model and "parameters" in model
    assert "accuracy" in scores and "tf-idf" in scores
    assert "built of" in inspected
    assert "memory of a device" in planned
    assert "documents" in text


def test_what_stands_for_a_result_is_short(cells: list[Any]) -> None:
    for outputs in cells[:3]:
        (result,) = (each for each in outputs if each.output_type == "execute_result")
        assert len(result.data["text/plain"]) < 400
        assert " at 0x" not in result.data["text/plain"]
    for outputs in cells[3:6]:
        (result,) = (each for each in outputs if each.output_type == "execute_result")
        lines = result.data["text/plain"].splitlines()
        assert 3 < len(lines) < 60 and max(map(len, lines)) <= 100


def test_texts_and_labels_are_no_markup(cells: list[Any]) -> None:
    shown = "".join(map(html_of, cells))
    assert "&lt;img src=x" in shown and "&lt;b&gt;bad" in shown
    assert "<img src=x" not in shown and "<b>bad" not in shown


def test_progress_is_one_bar_and_no_warning(cells: list[Any]) -> None:
    for outputs in (cells[0], cells[-1]):
        assert "ipywidgets" not in words_of(outputs) and "Warning" not in words_of(outputs)
        assert "█" not in words_of(outputs) and "━" not in words_of(outputs)
    bars = [each for each in cells[0] if "<progress" in html_of([each])]
    assert len(bars) == 1 and "training" in html_of(bars) and "6/6" in html_of(bars)


def test_a_conversation_and_a_model_are_short_words(tmp_path: Path) -> None:
    model = load(tiny_bert(tmp_path / "model"))
    assert repr(model).startswith("Model(") and "parameters" in repr(model)
    assert len(repr(model)) < 300


def test_dir_lists_the_verbs_alone() -> None:
    names = {name for name in dir(langue) if not name.startswith("__")}
    assert names == set(langue.__all__)

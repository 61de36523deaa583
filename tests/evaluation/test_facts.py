"""Facts as sections: every number of what was prepared is in a table, and none twice."""

from langue.evaluation.facts import MOST, sections_of_facts
from langue.evaluation.text_report import examples, sizes, tables
from langue.text.quality.survey import CorpusStats

SPLITS = {
    "train": {"examples": 300, "longest": 20, "balance": {"rare": 10, "frequent": 290}},
    "dev": {"examples": 30, "longest": 19, "balance": {"frequent": 28, "rare": 1, "new": 1}},
}


def test_of_labelled_rows():
    facts = {
        "origin": "a.csv",
        "splits": SPLITS,
        "duplicates": {"dev": {"exact": 2, "near": 3, "of": 30}},
        "steps": 12,
        "mean_tokens": 9.5,
        "pooling": "mean",
        "of_a_task": "its own",
        "verb": "predict",
        "command": "langue finetune",
        "notes": ["a note"],
    }
    data, targets, run = sections_of_facts(facts)
    assert list(data.columns) == ["", "train", "dev"]
    assert [list(row) for row in data.rows] == [
        ["examples", 300, 30],
        ["longest, in tokens", 20, 19],
        ["also in train, exactly", "", 2],
        ["also in train, nearly", "", 3],
    ]
    assert [list(row) for row in targets.rows] == [
        ["frequent", 290, 28],
        ["rare", 10, 1],
        ["new", None, 1],
    ]
    assert targets.bar == 1
    shown = [("pooling", "mean"), ("steps", 12), ("tokens an example, mean", 9.5)]
    assert list(run.rows) == [*shown, ("of a task", "its own")]


def test_of_scores_and_of_many_labels():
    spread = {"smallest": 0.5, "median": 1.0, "largest": 5.0}
    data, targets, _ = sections_of_facts({"splits": {"train": {"examples": 2, "balance": spread}}})
    assert [list(row) for row in data.rows] == [["examples", 2], *map(list, spread.items())]
    assert not targets.rows  # measurements are no counts, and get no bars
    many = {str(i): i for i in range(MOST + 7)}
    _, targets, _ = sections_of_facts({"splits": {"train": {"balance": many}}})
    assert len(targets.rows) == MOST and "7 more are not listed" in targets.note


def test_of_running_text():
    held_out = {"dev_documents": 1, "dev_tokens": 9, "dev_bytes": 30}
    facts = {"documents": 5, "tokens": 60, "bytes": 200, "layers": 2, **held_out}
    data, run = sections_of_facts(facts)
    assert [list(row) for row in data.rows] == [
        ["documents", 5, 1],
        ["tokens", 60, 9],
        ["bytes", 200, 30],
    ]
    assert list(run.rows) == [("layers", 2)]


def test_of_a_survey():
    survey = CorpusStats()
    for text in ("a text", "a text", "北京"):
        survey.add(text)
    facts = {"name": "n", "tokens": None, "notes": [], **survey.facts()}
    lengths, scripts, languages, copies = tables(facts)
    assert [tuple(row) for row in lengths.rows] == [("2 to 3", 1), ("4 to 7", 2)]
    assert "shortest 2, median 6" in lengths.note
    assert sum(row[2] for row in scripts.rows) == 1.0 and len(languages.rows) == 2
    assert copies.rows[0][1] == 1
    assert sizes(facts)[:2] == ["3 documents", "14 characters"]
    assert sizes(facts | {"documents": 1})[0] == "1 document"
    drawn, longest, shortest = examples(facts)
    assert len(drawn.rows) == 3 and drawn.columns == ()
    assert longest.rows[0].cells == [6] and shortest.rows[0].passages[0].text == "北京"

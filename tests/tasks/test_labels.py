"""Labels that look alike, and texts with several: told in one sentence, and mended by a setting."""

import pytest

from langue.errors import DataError
from langue.settings.sections import resolve
from langue.tasks.classify import Classify
from langue.tasks.labels import alike, look, spellings
from langue.verbs.preview import preview
from tests.tiny import reviews, tiny_bert


@pytest.mark.parametrize(
    "other",
    [
        "Café",
        " café",
        "café\u200b",
        "cafe\u0301",
        "CAFÉ\u00a0",
        "ｃａｆé",
        "\ufeffcafé",
        "café\ufe0f",
    ],
)
def test_what_looks_the_same_is_one(other):
    assert look(other) == look("café") != look("cafe")
    assert spellings(["café", other, "café"]) == {look("café"): "café"}
    said = alike([other, "café", "tea"])
    assert said.count("(1)") == 2 and "task.merge_labels=true" in said and "tea" not in said
    assert alike(["café", "cafe", "tea"]) is None


def test_labels_that_look_alike_are_told_and_merged(tmp_path):
    model = tiny_bert(tmp_path / "model")
    rows = reviews(60)
    rows[3]["label"] = "Pos "
    made = preview(model=model, data=rows, **{"data.test_fraction": 0.2})
    told = [note for note in made.facts["notes"] if "look alike" in note]
    assert len(told) == 1 and "'Pos ' (1)" in told[0]
    merged = preview(model=model, data=rows, **{"task.merge_labels": True})
    assert merged.task.labels == ["neg", "pos"]
    assert not any("look alike" in note for note in merged.facts["notes"])
    again = Classify.from_dict(merged.task.to_dict())
    assert again.known_target("POS", str) == again.known_target("pos", str)


def test_a_label_that_is_only_spelt_otherwise_is_told_where_it_was_not_seen():
    task = Classify(["neg", "pos"], Classify.Options())
    with pytest.raises(DataError, match="as 'pos' with task.merge_labels=true, or correct it"):
        task.known_target("Pos", str)


def test_one_text_with_several_labels_is_told_and_left_out(tmp_path):
    model = tiny_bert(tmp_path / "model")
    rows = reviews(60)
    rows += [rows[0] | {"label": "pos"}] * 2
    data = {"train": rows[:50] + rows[60:], "test": rows[50:60]}
    made = preview(model=model, data=data)
    told = [note for note in made.facts["notes"] if "different labels" in note]
    assert len(told) == 1 and "1 text has different labels, 3 rows in all" in told[0]
    assert "row 1 and" in told[0] and "more than 98.4% of the rows" in told[0]  # 61 of 62
    left = preview(model=model, data=data, **{"data.conflicts": "drop"})
    within = made.source.train.column("text").count(rows[0]["text"])
    assert len(made.source.train) - len(left.source.train) == within >= 2
    assert any("rows dropped for texts of several labels" in note for note in left.facts["notes"])


def test_several_labels_a_text_are_no_conflict():
    options = resolve({"task.multi_label": True}, options=Classify.Options).task
    assert Classify.conflicts([], options) == {}

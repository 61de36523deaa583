"""A run's folder: what of its data has changed, and what is left of a run that never began."""

import pytest

import langue
from langue.errors import RunError
from langue.files import write_json
from langue.runs.folder import CORPUS, DIGESTS, RECIPE, changed_data, leave_nothing


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"train": "a", "dev": "b"}, {"train": "a", "dev": "b"}, ""),
        ({"train": "a", "dev": "b"}, {"train": "x", "dev": "y"}, "train data"),
        ({"train": "a", "dev": "b"}, {"train": "a", "dev": "y"}, "dev data"),
        ({"train": "a", "dev": "b"}, {"train": "a"}, "dev data"),
        ({"train": "a"}, {"train": "a", "test": "c"}, "test data"),
        ({CORPUS: "a"}, {CORPUS: "b"}, "corpus"),
        ({}, {"train": "a"}, ""),  # nothing says it
    ],
)
def test_the_first_part_of_the_data_that_changed_is_named(tmp_path, before, now, said):
    if before:
        write_json(tmp_path / DIGESTS, before)
    assert changed_data(tmp_path, now) == said


def test_digests_that_are_none_are_an_error(tmp_path):
    write_json(tmp_path / DIGESTS, [1])
    with pytest.raises(RunError, match="does not say what the data of the run was"):
        changed_data(tmp_path, {"train": "a"})


@pytest.mark.parametrize(
    ("there", "everything", "left"),
    [
        ([RECIPE], False, False),
        ([RECIPE, "corpus"], False, True),  # with which the run can go on
        ([RECIPE, "corpus"], True, False),
        ([RECIPE, "checkpoints"], True, True),
        ([], True, True),  # it goes with its lock
    ],
)
def test_only_a_run_that_never_began_is_taken_away(tmp_path, there, everything, left):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in there:
        (folder / name).touch()
    leave_nothing(folder, everything)
    assert folder.exists() == left
    assert not left or {path.name for path in folder.iterdir()} == set(there)


def test_to_resume_with_other_settings_takes_nothing_away(tmp_path):
    """Of a run that was ended before its tokenizer was made, all that is there is its recipe."""
    text = tmp_path / "text.txt"
    text.write_text("It was a long day.\n" * 40, "utf-8")
    folder = tmp_path / "run"
    folder.mkdir()
    recipe = f'[data]\nname = "{text}"\n\n[train]\nlr = 0.5\nmax_steps = 3\n'
    (folder / RECIPE).write_text(recipe, "utf-8")
    with pytest.raises(RunError, match="cannot resume with other settings"):
        langue.pretrain(out=folder, resume=True, train__lr=0.1)
    assert (folder / RECIPE).read_text("utf-8") == recipe

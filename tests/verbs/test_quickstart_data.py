"""The quickstart's data: well filled, honest, and the same every time."""

from collections import Counter
from pathlib import Path

import pytest

from langue.errors import DataError
from langue.verbs.quickstart_data import FEW_MODULES, PACKAGES, build


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, str]]]:
    return build()


def test_every_label_is_well_filled_in_every_split(splits: dict[str, list[dict[str, str]]]) -> None:
    counts = {name: Counter(row["label"] for row in rows) for name, rows in splits.items()}
    assert all(set(count) == set(PACKAGES) for count in counts.values())
    assert min(counts["train"].values()) >= 50
    assert min(counts["test"].values()) >= 15
    assert 2000 < sum(len(rows) for rows in splits.values()) < 4000


def test_no_text_stands_twice_and_no_module_of_a_large_package_is_divided(
    splits: dict[str, list[dict[str, str]]],
) -> None:
    texts = Counter(row["text"] for rows in splits.values() for row in rows)
    assert texts.most_common(1)[0][1] == 1
    modules = {name: {row["module"] for row in rows} for name, rows in splits.items()}
    of_package = Counter(module.split(".")[0] for module in set.union(*modules.values()))
    large = {package for package, count in of_package.items() if count >= FEW_MODULES}
    assert "asyncio" in large
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert {m for m in modules[one] & modules[other] if m.split(".")[0] in large} == set()


def test_no_answer_stands_in_its_question(splits: dict[str, list[dict[str, str]]]) -> None:
    rows = [row for rows in splits.values() for row in rows]
    assert [row for row in rows if row["label"] in row["text"].replace("_", " ").split()] == []


def test_the_split_is_a_function_of_the_seed(splits: dict[str, list[dict[str, str]]]) -> None:
    assert build() == splits
    assert build(seed=1)["test"] != splits["test"]


def test_a_library_without_sources_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sources of the standard library's asyncio"):
        build(library=tmp_path)

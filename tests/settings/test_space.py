"""Ranges and lists among settings, as a search reads them."""

import pytest

from langue.errors import SettingsError
from langue.settings.sections import known
from langue.settings.space import Choice, Range, parse_space
from langue.tasks import OPTIONS

FIELDS = known(*OPTIONS.values())


@pytest.mark.parametrize(
    ("key", "written", "found"),
    [
        ("train.lr", "1e-5..1e-3", Range(1e-5, 1e-3, log=True, whole=False)),
        ("train.lr", "1e-4..5e-4", Range(1e-4, 5e-4, log=False, whole=False)),
        ("train.lr", "1e-4..5e-4:log", Range(1e-4, 5e-4, log=True, whole=False)),
        ("train.lr", "1e-5 .. 1e-3 : linear", Range(1e-5, 1e-3, log=False, whole=False)),
        ("train.weight_decay", "0..0.1", Range(0, 0.1, log=False, whole=False)),
        ("train.batch_examples", "8..64", Range(8, 64, log=False, whole=True)),
        ("train.steps", "10..1e3", Range(10, 1000, log=True, whole=True)),
        ("train.batch_tokens", "2048, 4096", Choice(("2048", "4096"))),
        ("train.batch_tokens", [2048, 4096], Choice(("2048", "4096"))),
        ("train.schedule", "linear,cosine", Choice(("linear", "cosine"))),
        ("train.betas", "[0.9,0.95],[0.9,0.999]", Choice(("[0.9,0.95]", "[0.9,0.999]"))),
        ("train.betas", [(0.9, 0.95), (0.9, 0.999)], Choice(("[0.9,0.95]", "[0.9,0.999]"))),
        ("data.duplicates", [True, False], Choice(("true", "false"))),
    ],
)
def test_what_is_searched(key, written, found):
    space, fixed = parse_space({key: written}, FIELDS)
    (read,) = space.values()
    assert read == found and not fixed
    again, _ = parse_space({key: str(read)}, FIELDS)  # as a study keeps it
    assert list(again.values()) == [read]


@pytest.mark.parametrize(
    ("key", "value"),
    [("train.lr", "3e-5"), ("train.betas", "0.9,0.95"), ("train.betas", (0.9, 0.95)),
     ("model.revision", "v1..v2"), ("no.such", "1..2")],
)  # fmt: skip
def test_what_is_one_value(key, value):
    assert parse_space({key: value}, FIELDS) == ({}, {key: value})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.lr", "1e-3..1e-5", "up to a larger one"),
        ("train.lr", "1e-3..1e-3", "up to a larger one"),
        ("train.lr", "0..1:log", "no logarithm"),
        ("train.lr", "1e-5..1:exp", "'exp' is no scale"),
        ("train.batch_examples", "1.5..4", "whole number"),
        ("train.schedule", "1..2", "a range is of numbers"),
        ("train.batch_tokens", "2048,,4096", "nothing between"),
        ("train.batch_tokens", "2048,2048", "twice"),
        ("train.seed", "1,2,3", "--seeds N"),
        ("train.best", "loss,accuracy", "one metric"),
        ("data.seed", "1..3", "the same dev rows"),
    ],
)
def test_what_cannot_be_searched(key, value, said):
    with pytest.raises(SettingsError, match=said):
        parse_space({key: value}, FIELDS)

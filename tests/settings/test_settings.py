"""Settings: later layers win, every key is known, every value is of its type, and a mistake names
its remedy."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langue.errors import SettingsError
from langue.settings.aliases import SETTING_ALIASES
from langue.settings.recipe import read_recipe, split_recipe, to_toml
from langue.settings.sections import (
    FINETUNING,
    Settings,
    known,
    parse_words,
    resolve,
)
from langue.tasks import OBJECTIVES, OPTIONS, TASKS
from langue.tasks.classify import Classify


def test_later_layers_win_and_strings_are_read_as_their_type() -> None:
    settings = resolve(
        {"train.lr": 1e-3, "train.epochs": 1},
        {"train.lr": "3e-5", "task.multi_label": "true", "train.betas": "0.8, 0.9"},
        options=Classify.Options,
    )
    assert settings.train.lr == 3e-5
    assert settings.train.epochs == 1
    assert settings.task.multi_label is True
    assert settings.train.betas == (0.8, 0.9)
    assert settings.data == Settings().data


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[USER],[BOT]", ("[USER]", "[BOT]")),
        ("[USER]", ("[USER]",)),
        ("[<a>, <b>]", ("<a>", "<b>")),
        ("(a),b", ("(a)", "b")),
        ("[]", ()),
        ("", ()),
    ],
)
def test_brackets_of_a_word_are_its_own(written: str, read: tuple[str, ...]) -> None:
    assert resolve({"tokenizer.special": written}).tokenizer.special == read
    assert (
        resolve({"train.betas": "(0.8, 0.9)"}).train.betas
        == resolve({"train.betas": "[0.8,0.9]"}).train.betas
    )


def test_none_is_a_value() -> None:
    assert resolve({"model.dropout": 0.5}, {"model.dropout": "none"}).model.dropout is None


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("train.epoch", "did you mean train.epochs?"),
        ("epochs", "did you mean train.epochs?"),
        ("trian.lr", "did you mean train.lr?"),
        ("num_train_epochs", "here it is train.epochs"),
        ("train.learning_rate", "here it is train.lr"),
        ("block_size", "here it is data.seq_len"),
        ("block-size", "here it is data.seq_len"),
        ("model.hidden_size", "here it is model.dim"),
        ("mlm_probability", "here it is task.mask_ratio"),
        ("seed", "here it is train.seed"),
        (
            "task.objective",
            (
                "it is an argument, not a setting: --objective, in Python objective=, in a recipe"
                " task.objective"
            ),
        ),
        (
            "tokenizer",
            (
                "it is an argument, not a setting: --tokenizer, in Python tokenizer=, in a recipe"
                " tokenizer.name"
            ),
        ),
        ("zzzz", "`langue settings` lists them"),
    ],
)
def test_an_unknown_key_names_ours(key: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve({key: 1})
    assert str(caught.value) == f"unknown setting {key!r}; {remedy}"


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("batch_size", "here it is train.batch_tokens"),
        ("max_seq_length", "here it is data.seq_len"),
        ("max_length", "here it is data.seq_len"),
        ("max-length", "here it is data.seq_len"),
        ("dropout", "here it is model.dropout"),
        ("classifier_dropout", "here it is model.dropout"),
        ("label_smoothing_factor", "it does nothing here: leave it out"),
        ("seed", "here it is train.seed"),
        ("block_size", "here it is data.seq_len"),
    ],
)
def test_what_the_verb_at_hand_takes_is_named(key: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve({key: 1}, others=FINETUNING, elsewhere=OPTIONS)
    assert str(caught.value) == f"unknown setting {key!r}; {remedy}"
    assert not set(FINETUNING.values()) & set(FINETUNING)


def test_the_keys_of_others_lead_to_known_ones() -> None:
    assert set(SETTING_ALIASES.values()) <= set(known(*OPTIONS.values()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.lr", "fast"),
        ("train.lr", -1),
        ("train.precision", "fp8"),
        ("data.max_length", 1),
        ("data.max_length", "12.5"),
        ("train.betas", "0.9"),
        ("task.multi_label", "perhaps"),
        ("train.epochs", None),
    ],
)
def test_a_wrong_value_names_its_key(key: str, value: object) -> None:
    with pytest.raises(SettingsError, match=key) as caught:
        resolve({key: value})
    assert "\n" not in str(caught.value)


def test_every_setting_says_what_it_does() -> None:
    assert [key for key, field in known(*OPTIONS.values()).items() if not field.description] == []


def test_words_are_pairs() -> None:
    assert parse_words(["train.lr=3e-5", "--data.truncation=head", "model.revision=a=b"]) == {
        "train.lr": "3e-5",
        "data.truncation": "head",
        "model.revision": "a=b",
    }
    with pytest.raises(SettingsError, match="section.key=value"):
        parse_words(["train.lr"])


def test_a_recipe_holds_the_keys_of_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "m"\ntrain.lr = 3e-5\n[data]\ncut = "head"\n', "utf-8")
    assert read_recipe(recipe) == {"model": "m", "train.lr": 3e-5, "data.truncation": "head"}


@pytest.mark.parametrize(
    ("text", "said"), [(b"a = ", "not TOML"), (b"\xff\xfe", "not TOML"), (None, "no such recipe")]
)
def test_a_bad_recipe_is_named(tmp_path: Path, text: bytes | None, said: str) -> None:
    recipe = tmp_path / "recipe.toml"
    if text is not None:
        recipe.write_bytes(text)
    with pytest.raises(SettingsError, match=said) as caught:
        read_recipe(recipe)
    assert str(recipe) in str(caught.value)


@given(
    st.text(max_size=40),
    st.floats(min_value=1e-9, max_value=10),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_what_is_written_as_toml_reads_back(tmp_path_factory, text, rate, flag, count) -> None:  # type: ignore[no-untyped-def]
    recipe = tmp_path_factory.getbasetemp() / "recipe.toml"
    content = {
        "data": text,
        "train": {"lr": rate, "seed": count},
        "task": {"multi_label": flag, "dropout": None},
    }
    recipe.write_text(to_toml(content), "utf-8")
    assert read_recipe(recipe) == {
        "data": text,
        "train.lr": rate,
        "train.seed": count,
        "task.multi_label": flag,
    }


def test_a_name_that_is_not_utf8_is_not_written() -> None:
    with pytest.raises(
        SettingsError, match="is not UTF-8, as a recipe is; rename the file or folder"
    ):
        to_toml({"data": {"name": "caf\udce9.csv"}})


def test_resolved_settings_survive_their_recipe(tmp_path: Path) -> None:
    settings = resolve(
        {
            "train.betas": "0.8,0.95",
            "train.lr": 3e-5,
            "model.dropout": 0.2,
            "data.truncation": "tail",
        }
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(settings.model_dump()), "utf-8")
    assert resolve(read_recipe(recipe)) == settings


@pytest.mark.parametrize(
    "recipe",
    sorted(Path(__file__).parents[2].glob("benchmarks/*.toml")),
    ids=lambda path: path.name,
)
def test_the_recipes_of_the_benchmarks_resolve(recipe: Path) -> None:
    named, _, settings = split_recipe(read_recipe(recipe))
    kind = (
        OBJECTIVES[named["objective"]]
        if "objective" in named
        else TASKS[named.get("task", "classify")]
    )
    assert settings and resolve(settings, options=kind.Options) != Settings()


@pytest.mark.parametrize(
    "kind", [*TASKS.values(), *OBJECTIVES.values()], ids=lambda each: each.name
)
def test_a_setting_of_another_task_is_passed_over_or_refused(kind: Any) -> None:
    """At its default, as recipes of earlier versions have those of all tasks, it is passed over."""
    settle = partial(resolve, options=kind.Options, elsewhere=OPTIONS)
    every = {key: field.default for key, field in known(*OPTIONS.values()).items()}
    own = {key: field.default for key, field in known(kind.Options).items()}
    assert settle(every | own) == settle({})
    if kind is not Classify:
        settle({"task.multi_label": False})  # as before labels with bars were asked about
        for multi_label in (True, "true"):
            with pytest.raises(SettingsError) as caught:
                settle({"task.multi_label": multi_label})
            what = "task.multi_label is of the task classify, and does nothing here"
            assert str(caught.value) == f"{what}; leave it out"


def test_a_label_may_be_named_none_and_a_number_is_its_name() -> None:
    assert resolve({"task.positive": "none"}, options=Classify.Options).task.positive == "none"
    assert (
        resolve({"task.positive": 1}, options=Classify.Options).task.positive == "1"
        and resolve({"task.positive": None}, options=Classify.Options).task.positive is None
    )


@pytest.mark.parametrize("kind", [str, float])
def test_whole_numbers_may_be_written_with_a_point(kind):
    chosen = resolve({"data.max_length": kind(17.0), "data.folds": kind(3.0)})
    assert (chosen.data.max_length, chosen.data.folds) == (17, 3)
    with pytest.raises(SettingsError, match=r"data\.folds = '?3\.5'?: .*integer"):
        resolve({"data.folds": kind(3.5)})

"""What a run was trained on, and that nothing is lost or taken for unseen by those who do not
know."""

import json
import shutil

import numpy as np
import pytest

from langue.errors import DataError, LangueError, ModelError, RunError, SettingsError
from langue.runs.model import load
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.predict import predict
from tests.tiny import SHORT, reviews, write_jsonl


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A run on one file, which is divided by itself."""
    folder = tmp_path_factory.mktemp("runs")
    write_jsonl(folder / "all.jsonl", reviews(120, 0))
    return finetune(model=model, data=folder / "all.jsonl", out=folder / "run", **SHORT).folder


def copied(run, to):
    shutil.copytree(run.parent, to)
    recipe = to / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(run.parent), str(to)))
    return to / "run"


@pytest.mark.parametrize(
    "wrong", [{"data": "typo.csv"}, {"model": "no/where"}, {"task": "clasify"}]
)
def test_force_replaces_nothing_until_the_new_run_is_prepared(
    run, model, tmp_path, monkeypatch, wrong
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    copy = copied(run, tmp_path / "c")
    before = sorted(path.name for path in copy.iterdir())
    with pytest.raises(LangueError):
        finetune(
            **{"model": model, "data": run.parent / "all.jsonl"} | wrong,
            out=copy,
            force=True,
            **SHORT,
        )
    assert sorted(path.name for path in copy.iterdir()) == before
    assert [path.name for path in copy.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("read", ["model", "data"])
def test_force_does_not_replace_what_is_read(run, model, tmp_path, read):
    copy = copied(run, tmp_path / "c")
    write_jsonl(copy / "inside.jsonl", reviews(60, 1))
    given = {"model": model, "data": run.parent / "all.jsonl"} | {
        read: copy if read == "model" else copy / "inside.jsonl"
    }
    with pytest.raises(SettingsError, match="is read, and --force would replace it"):
        finetune(**given, out=copy, force=True, **SHORT)
    assert (copy / "model.safetensors").is_file() and (copy / "inside.jsonl").is_file()


def test_data_that_has_grown_is_not_divided_anew(run, tmp_path):
    """Its test would hold rows that the run was trained on."""
    copy = copied(run, tmp_path / "c")
    assert evaluate(copy)["examples"] == 12
    write_jsonl(copy.parent / "all.jsonl", [*reviews(120, 0), *reviews(10, 5)])
    with pytest.raises(RunError, match="train data is not what it was"):
        evaluate(copy)


def test_texts_of_the_training_data_are_told(run, tmp_path):
    assert evaluate(run, data=run.parent / "all.jsonl")["seen"]["exact"] >= 96
    write_jsonl(
        tmp_path / "new.jsonl", [{"text": f"word{i} of mine", "label": "pos"} for i in range(4)]
    )
    assert evaluate(run, data=tmp_path / "new.jsonl")["seen"] == {"exact": 0, "near": 0, "of": 4}


def test_where_the_training_data_is_wrong_today_the_baseline_is_left_out(run, tmp_path):
    copy = copied(run, tmp_path / "c")
    write_jsonl(
        copy.parent / "all.jsonl",
        [*reviews(120, 0), *({"text": f"t {i}", "label": "new"} for i in range(40))],
    )
    write_jsonl(tmp_path / "other.jsonl", reviews(20, 7))
    assert evaluate(copy, data=tmp_path / "other.jsonl")["baseline"] is None


def test_training_data_that_has_changed_is_neither_baseline_nor_looked_through(
    run, tmp_path, capsys
):
    copy = copied(run, tmp_path / "c")
    write_jsonl(tmp_path / "other.jsonl", reviews(120, 0)[:20])
    assert evaluate(copy, data=tmp_path / "other.jsonl")["seen"]["exact"]
    write_jsonl(copy.parent / "all.jsonl", reviews(120, 5))
    found = evaluate(copy, data=tmp_path / "other.jsonl")
    assert found["baseline"] is None and "seen" not in found
    assert "its train data is not what it was" in " ".join(capsys.readouterr().err.split())


def test_a_recipe_that_is_not_understood_any_more_leaves_the_baseline_out(run, tmp_path):
    copy = copied(run, tmp_path / "c")
    with (copy / "recipe.toml").open("a") as recipe:
        recipe.write("\n[future]\nkey = 1\n")
    write_jsonl(tmp_path / "other.jsonl", reviews(20, 7))
    assert evaluate(copy, data=tmp_path / "other.jsonl")["baseline"] is None


@pytest.mark.parametrize("split", ["notes", "Test"])
def test_what_is_no_split(run, split):
    with pytest.raises(
        DataError, match=f"there is no split '{split}'; there are: train, dev, test"
    ):
        evaluate(run, split=split)


def test_evaluate_overwrites_nothing_unasked(run, tmp_path):
    mine = tmp_path / "mine.jsonl"
    write_jsonl(mine, reviews(20, 3))
    before = mine.read_text()
    with pytest.raises(RunError, match="the file exists"):
        evaluate(run, data=mine, out=mine)
    assert mine.read_text() == before
    (tmp_path / "scores.json").write_text("old")
    content = evaluate(run, data=mine, out=tmp_path / "scores.json", force=True)
    assert json.loads((tmp_path / "scores.json").read_text()) == content


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.seed", 1),
        ("data.seed", 1),
        ("model.dropout", 0.3),
        ("task.class_weights", "balanced"),
    ],
)
def test_a_run_goes_on_with_the_very_settings_it_had(run, model, tmp_path, key, value):
    copy = copied(run, tmp_path / "c")
    given = {"model": model, "data": copy.parent / "all.jsonl", "out": copy, "resume": True}
    with pytest.raises(RunError, match=f"other settings: {key} is"):
        finetune(**given, **SHORT | {key: value})


def test_a_run_does_not_go_on_with_another_recipe(run, model, tmp_path):
    copy = copied(run, tmp_path / "c")
    recipe = tmp_path / "r.toml"
    given = {
        "model": model,
        "data": copy.parent / "all.jsonl",
        "out": copy,
        "resume": True,
        "recipe": recipe,
    }
    # the run has settled the first
    recipe.write_text('[task]\npooling = "auto"\n[train]\nlr = 0.1\n')
    with pytest.raises(RunError, match=r"other settings: train.lr is 0.1 and was 0.001"):
        finetune(**given)
    recipe.write_text('[task]\npooling = "auto"\n[train]\nlr = 0.001\n')
    (copy / "checkpoints" / "data.json").write_text("3")
    with pytest.raises(RunError, match="data.json: does not say what the data of the run was"):
        finetune(**given)


def test_a_run_goes_on_with_the_very_dev_data_it_had(model, tmp_path):
    for split, count in (("train", 64), ("dev", 20), ("test", 20)):
        write_jsonl(tmp_path / f"{split}.jsonl", reviews(count, count))
    given = {"model": model, "data": tmp_path, "out": tmp_path / "run"}
    finetune(**given, **SHORT)
    write_jsonl(tmp_path / "dev.jsonl", reviews(10, 9))
    with pytest.raises(RunError, match="the dev data is not what it was"):
        finetune(**given, resume=True, **SHORT)


def test_a_run_of_single_texts_and_one_of_pairs(run, model, tmp_path):
    rows = [row | {"pair": "and more"} for row in reviews(60, 2)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    pairs = finetune(
        model=model, data=tmp_path / "pairs.jsonl", out=tmp_path / "pairs", **SHORT
    ).folder
    single = predict(run, data=run.parent / "all.jsonl")
    with_column = [row | {"pair": "a column of another meaning"} for row in reviews(120, 0)]
    write_jsonl(tmp_path / "stray.jsonl", with_column)
    assert predict(run, data=tmp_path / "stray.jsonl") == single
    scores = [
        evaluate(run, data=file)["metrics"]
        for file in (tmp_path / "stray.jsonl", run.parent / "all.jsonl")
    ]
    assert scores[0] == scores[1]
    with pytest.raises(DataError, match="no column 'pair'"):
        predict(pairs, data=run.parent / "all.jsonl")
    with pytest.raises(ModelError, match="trained on pairs of texts, and these are single texts"):
        load(pairs).predict(["one"])
    with pytest.raises(ModelError, match="trained on single texts, and these are pairs"):
        load(run).predict([("one", "two")])
    with pytest.raises(ModelError, match="trained on single texts, and these are pairs"):
        load(run).predict([["one", "two"]])
    with pytest.raises(
        ModelError, match=r"all.jsonl: .*trained on pairs of texts, and these are single"
    ):
        evaluate(pairs, data=run.parent / "all.jsonl")
    write_jsonl(tmp_path / "both" / "train.jsonl", rows)
    write_jsonl(tmp_path / "both" / "test.jsonl", reviews(20, 3))
    with pytest.raises(DataError, match="train has pairs of texts and test single ones"):
        finetune(model=model, data=tmp_path / "both", out=tmp_path / "no", **SHORT)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ([None], "neither strings nor pairs"),
        ([3], "is one list of token ids"),
        ({"text": "a"}, "is a mapping; give a list"),
        ([{"text": "a"}], "neither strings nor pairs"),
        ([("a",)], "not a pair of strings"),
        ([("a", "b", "c")], "not a pair of strings"),
        ([("a", 3)], "not a pair of strings"),
        (["a", ("a", "b")], "mixes"),
        (["a", [3, 4]], "mixes"),
        ([[0.5, 1.5]], "neither strings nor pairs"),
    ],
)
def test_texts_that_are_none(run, texts, match):
    with pytest.raises(ModelError, match=match):
        load(run).encode(texts)


def test_texts_as_they_come(run):
    loaded = load(run)
    (one,) = loaded.predict(["a good film"])
    assert loaded.predict([np.str_("a good film"), "a good film"]) == [one, one]
    assert loaded.predict(["a good film \udce9"]) == loaded.predict(["a good film \ufffd"])
    with pytest.raises(SettingsError, match="one string"):
        predict(run, texts="a good film")
    with pytest.raises(SettingsError, match="precision 'fp16'"):
        load(run, dtype="fp16")


def test_a_tokenizer_of_another_model(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "m")
    written = json.loads((other / "tokenizer.json").read_text())
    written["model"]["vocab"]["word299"] = 299
    (other / "tokenizer.json").write_text(json.dumps(written))
    with pytest.raises(
        ModelError, match="the tokenizer gives 'word299' the number 299; the model has 200 tokens"
    ):
        load(other).encode(["a word299"])
    with pytest.raises(ModelError, match="the tokenizer gives"):
        finetune(
            model=other,
            data=[r | {"text": "word299"} for r in reviews(40, 0)],
            out=tmp_path / "run",
            **SHORT,
        )
    assert not (tmp_path / "run").exists()


def test_files_of_a_folder_that_are_not_used_are_named(model, tmp_path):
    from langue.verbs.preview import preview

    for name in ("train", "test", "train2", "eval"):
        write_jsonl(tmp_path / f"{name}.jsonl", reviews(40, 0))
    assert (
        f"{tmp_path}: eval.jsonl, train2.jsonl not used"
        in preview(model=model, data=tmp_path).facts["notes"]
    )

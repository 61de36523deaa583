"""The main job end to end, in Python: text in, a judged run out, used again. A real model of real
files, only tiny."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import langue.runs.judge
from langue.errors import DataError, RunError, SettingsError
from langue.runs.model import load
from langue.verbs import quickstart
from langue.verbs.evaluate import evaluate
from langue.verbs.finetune import finetune
from langue.verbs.predict import predict
from langue.verbs.preview import preview
from tests.cheap import rendering
from tests.tiny import reviews, write_jsonl

FAST = {"train.epochs": 4, "train.lr": 3e-3, "train.batch_examples": 16, "train.warmup": 0.05}
TEXTS = ["a good and lovely film", "an awful dull plot"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count, seed in (("train", 320, 0), ("dev", 40, 1), ("test", 60, 2)):
        write_jsonl(folder / f"{split}.jsonl", reviews(count, seed))
    return folder


@pytest.fixture(scope="module")
def run(model, data, tmp_path_factory):
    with rendering():
        return finetune(model=model, data=data, out=tmp_path_factory.mktemp("runs") / "run", **FAST)


def test_the_run_directory_is_whole(run):
    names = {path.name for path in run.folder.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "langue.json",
        "recipe.toml", "log.jsonl", "metrics.json", "curves.png", "report.html", "checkpoints",
    }  # fmt: skip
    assert run.metrics == json.loads((run.folder / "metrics.json").read_text())
    keys = {
        "split",
        "examples",
        "metrics",
        "positive",
        "intervals",
        "baseline",
        "seconds",
        "main_metric",
    }
    assert set(run.metrics) == keys
    assert run.metrics["split"] == "test" and run.metrics["examples"] == 60
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    keys = {"split", "step", "examples", "tokens", "seconds", "loss"}
    assert all(keys <= set(line) for line in log) and {line["split"] for line in log} == {
        "train",
        "dev",
    }
    assert [line["step"] for line in log if line["split"] == "train"] == list(
        range(1, run.facts["steps"] + 1)
    )


def test_it_learns_and_says_so(run):
    assert run.metrics["metrics"]["accuracy"] >= 0.95
    low, high = run.metrics["intervals"]["accuracy"]
    assert low <= run.metrics["metrics"]["accuracy"] <= high
    assert 0.5 < run.metrics["baseline"]["metrics"]["accuracy"] <= 1
    assert [each["label"] for each in run.load().predict(TEXTS)] == ["pos", "neg"]


def test_saved_and_loaded_equals_kept_in_memory(run, tmp_path):
    model = load(run.folder)
    before = model.logits(TEXTS)
    model.save(tmp_path / "again")
    np.testing.assert_array_equal(load(tmp_path / "again").logits(TEXTS), before)
    test = [row["text"] for row in reviews(60, 2)]
    accuracy = np.mean(
        [p["label"] == r["label"] for p, r in zip(model.predict(test), reviews(60, 2), strict=True)]
    )
    assert accuracy == pytest.approx(run.metrics["metrics"]["accuracy"])


def test_evaluate_finds_the_same_numbers(run):
    again = evaluate(run.folder)
    assert again["metrics"] == pytest.approx(run.metrics["metrics"])
    assert again["baseline"]["metrics"] == pytest.approx(run.metrics["baseline"]["metrics"])
    assert evaluate(run.folder, split="dev")["examples"] == 40


@pytest.mark.parametrize(("said", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_evaluate_multiplies_as_training_did(run, tmp_path, monkeypatch, said, dtype):
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    recipe = (copy / "recipe.toml").read_text()
    assert 'precision = "auto"' in recipe
    (copy / "recipe.toml").write_text(recipe.replace('precision = "auto"', f'precision = "{said}"'))
    models = []
    monkeypatch.setattr(
        langue.runs.judge, "load", lambda folder: models.append(load(folder)) or models[0]
    )
    evaluate(copy)
    assert models[0].dtype == dtype
    assert {weight.dtype for weight in models[0].network.parameters()} == {torch.float32}


def test_evaluate_on_other_data(run, tmp_path):
    file = write_jsonl(tmp_path / "more.jsonl", reviews(30, 5))
    assert evaluate(run.folder, data=file)["examples"] == 30
    file = write_jsonl(tmp_path / "odd.jsonl", [{"text": "a film", "label": "meh"}])
    with pytest.raises(
        DataError, match=r"odd.jsonl, line 1: the label 'meh' was not seen in training"
    ):
        evaluate(run.folder, data=file)


def test_the_split_that_is_predicted_is_told(run, tmp_path, capsys):
    for seed, name in enumerate(("train", "test")):
        write_jsonl(tmp_path / f"{name}.jsonl", reviews(10 + seed, seed))
    assert len(predict(run.folder, data=tmp_path)) == 11
    assert (
        f"predicting the 11 rows of {tmp_path / 'test.jsonl'}, not those of train"
        in capsys.readouterr().err
    )


def test_predictions_in_bulk_keep_the_order(run, tmp_path):
    file = write_jsonl(tmp_path / "in.jsonl", reviews(50, 7))
    assert predict(run.folder, data=file, out=tmp_path / "out.jsonl") == []
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [row["text"] for row in reviews(50, 7)]
    assert [row["prediction"] for row in rows] == predict(run.folder, data=file)
    with pytest.raises(RunError, match="the file exists"):
        predict(run.folder, data=file, out=tmp_path / "out.jsonl")
    everything = predict(run.folder, texts=TEXTS, top=None)
    assert all({each["label"] for each in row} == {"pos", "neg"} for row in everything)
    assert all(
        sum(each["score"] for each in row) == pytest.approx(1, abs=1e-5) for row in everything
    )


def test_training_again_gives_the_same_bits(run, model, data, tmp_path):
    again = finetune(recipe=run.folder / "recipe.toml", out=tmp_path / "again")
    first, second = (load_file(f / "model.safetensors") for f in (run.folder, again.folder))
    assert all((first[name] == second[name]).all() for name in first)
    assert (again.folder / "recipe.toml").read_text() == (run.folder / "recipe.toml").read_text()


def test_a_run_is_never_overwritten_without_force(run, model, data, tmp_path):
    before = (run.folder / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="exists and is not empty.*--resume.*--force"):
        finetune(model=model, data=data, out=run.folder, **FAST)
    assert (run.folder / "model.safetensors").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="not a run of langue"):
        finetune(model=model, data=data, out=tmp_path / "mine", force=True, **FAST)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_folder_that_is_locked_is_one_line(tmp_path, monkeypatch):
    def locked(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.is_file", locked)
        with pytest.raises(RunError, match="run: cannot be written: Permission denied"):
            finetune(model="m", data="d", out=tmp_path / "run")


def test_resume_refuses_another_run(run, model, data, tmp_path):
    with pytest.raises(RunError, match="cannot resume with other settings: train.lr is"):
        finetune(model=model, data=data, out=run.folder, resume=True, **{"train.lr": 1e-5})
    with pytest.raises(RunError, match="there is no run to resume"):
        finetune(model=model, data=data, out=tmp_path / "none", resume=True)


def test_training_goes_on_from_a_run_with_its_head(run, data, tmp_path):
    further = finetune(
        model=run.folder, data=data, out=tmp_path / "more", **{**FAST, "train.max_steps": 1}
    )
    assert further.metrics["metrics"]["accuracy"] >= 0.95


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_transformers_reads_the_run(model, data, tmp_path, pooling):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    settings = {**FAST, "train.max_steps": 4, "task.pooling": pooling}
    run = finetune(model=model, data=data, out=tmp_path / "run", **settings)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    kind = (
        transformers.AutoModelForSequenceClassification
        if pooling == "first"
        else transformers.AutoModel
    )
    theirs = kind.from_pretrained(run.folder).eval()
    for text, ours in zip(TEXTS, run.load().logits(TEXTS), strict=True):
        with torch.no_grad():
            output = theirs(**tokenizer(text, return_tensors="pt"))
        if pooling == "first":
            np.testing.assert_allclose(ours, output.logits[0].numpy(), atol=1e-5)
            assert theirs.config.id2label == {0: "neg", 1: "pos"}
        else:
            np.testing.assert_allclose(
                run.load().hidden([text])[0], output.last_hidden_state[0].numpy(), atol=1e-4
            )


def test_regression_of_pairs(model, tmp_path):
    rows = []
    for row in reviews(300, 4):
        score = 5.0 if row["label"] == "pos" else 1.0
        rows.append({"text": row["text"], "pair": "the film", "score": score})
    run = finetune(
        "regress", model=model, data=rows, out=tmp_path / "run", **{**FAST, "train.epochs": 8}
    )
    assert set(run.metrics["metrics"]) >= {"pearson", "spearman", "mse"}
    assert run.metrics["metrics"]["pearson"] > 0.8
    high, low = run.load().predict([("good lovely", "the film"), ("awful dull", "the film")])
    assert high["score"] > low["score"] and high["label"] == "score"


def test_preview_tells_before_anything_is_paid(model, data):
    facts = preview(model=model, data=data, **{**FAST, "data.max_length": 20}).facts
    assert facts["splits"]["train"]["examples"] == 320
    assert (
        facts["splits"]["train"]["cut_examples"] > 0 and facts["splits"]["train"]["longest"] == 20
    )
    assert facts["splits"]["train"]["balance"] == {"neg": 160, "pos": 160}
    assert facts["steps"] == 80 and facts["duplicates"]["test"]["of"] == 60


@pytest.mark.parametrize(
    "rows, match",
    [
        ([{"text": "a film", "label": "pos"}] * 20, "every training row has the label 'pos'"),
        ([{"text": f"film {i}", "label": str(i)} for i in range(1200)], "different labels in"),
    ],
)
def test_labels_from_which_nothing_can_be_learnt(model, tmp_path, rows, match):
    with pytest.raises(DataError, match=match):
        finetune(model=model, data=rows, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scores_that_are_not_numbers(model, tmp_path):
    rows = [{"text": f"film {i}", "score": "high" if i == 12 else i} for i in range(40)]
    file = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=r"the score 'high' is not a number"):
        finetune("regress", model=model, data=file, out=tmp_path / "run")
    dropped = preview("regress", model=model, data=file, **{"data.invalid": "drop"})
    assert sum(split["examples"] for split in dropped.facts["splits"].values()) == 39


def test_quickstart_keeps_its_data_in_a_folder_of_its_own(model, tmp_path, monkeypatch):
    split = {"text": "a", "label": "b", "module": "c"}
    monkeypatch.setattr(quickstart, "build", lambda: {"train": [split], "dev": [], "test": []})
    monkeypatch.setattr(quickstart, "embedded_model", lambda: model)
    monkeypatch.setattr(quickstart, "finetune", lambda *_, data, **__: data)
    (tmp_path / "x").mkdir()
    mine = write_jsonl(tmp_path / "x-data" / "train.jsonl", [{"text": "years of work"}])
    before = mine.read_bytes()
    with pytest.raises(RunError, match="exists, and is not what quickstart"):
        quickstart.quickstart(tmp_path / "x")
    assert mine.read_bytes() == before
    mine.unlink()
    mine.parent.rmdir()
    monkeypatch.chdir(tmp_path / "x")
    for _ in range(2):  # what it made itself is there already
        assert quickstart.quickstart(".") == tmp_path / "x-data"
    assert (tmp_path / "x-data" / "train.jsonl").is_file()
    for name in ("train", "dev"):  # as another Python has them
        (tmp_path / "x-data" / f"{name}.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="replace it with --force"):
        quickstart.quickstart(".")
    assert quickstart.quickstart(".", force=True) == tmp_path / "x-data"
    assert json.loads((tmp_path / "x-data" / "train.jsonl").read_text()) == split
    write_jsonl(tmp_path / "y" / "thesis.jsonl", [])
    with pytest.raises(RunError, match="exists and is not empty"):
        quickstart.quickstart(tmp_path / "y")
    assert not (tmp_path / "y-data").exists()


def test_unknown_settings_and_tasks(model, data, tmp_path):
    with pytest.raises(SettingsError, match="here it is train.epochs"):
        finetune(model=model, data=data, out=tmp_path / "run", num_train_epochs=3)
    with pytest.raises(SettingsError, match="did you mean train.lr"):
        finetune(model=model, data=data, out=tmp_path / "run", **{"train.lrate": 3})
    with pytest.raises(SettingsError, match="the task 'clasify' is not known"):
        finetune("clasify", model=model, data=data, out=tmp_path / "run")
    with pytest.raises(SettingsError, match="no data was named"):
        finetune(model=model, out=tmp_path / "run")

"""inspect, verify and convert: what a model is, whether it means what was published, and the Hub's
layout of it."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import langue
from langue.cli import run
from langue.errors import ModelError, RunError
from langue.hub.families.registry import FAMILIES
from langue.runs.show import print_model
from tests.tiny import CONFIG, tiny_bert
from tests.tiny_decoder import tiny_decoder


def test_inspect_counts_what_is_there(tmp_path, capsys):
    folder = tiny_bert(tmp_path / "m")
    facts = langue.inspect(folder, length=64)
    body = sum(w.numel() for w in load_file(folder / "model.safetensors").values())
    assert (facts["family"], facts["architecture"], facts["context"]) == (
        "bert",
        "encoder",
        CONFIG.max_length,
    )
    assert facts["parameters"] == body  # a body alone: no head is drawn that the file does not have
    assert not [part for part in facts["tree"]["parts"] if part["name"] == "head"]
    blocks = next(part for part in facts["tree"]["parts"] if part["name"] == "blocks")
    assert blocks["parts"][0]["times"] == CONFIG.n_layers
    assert facts["memory"]["training"] > 4 * facts["memory"]["inference"] > 0
    assert facts["uses"] == ["hidden", "encode", "finetune"]
    assert run(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == facts["parameters"]
    assert run(["inspect", str(folder)]) == 0 and "blocks" in capsys.readouterr().out


def test_labels_that_look_like_markup_are_shown(tmp_path, capsys):
    facts = langue.inspect(tiny_bert(tmp_path / "m")) | {
        "task": {"name": "classify", "labels": ["[/x]", "[green]"]}
    }
    print_model(facts)
    assert "classify: [/x], [green]" in capsys.readouterr().out


def test_verify_says_what_is_wrong(tmp_path, capsys):
    pytest.importorskip("transformers")
    folder = tiny_bert(tmp_path / "m")
    outcome = langue.verify(folder)
    assert outcome["ok"], outcome
    names = {check["check"] for check in outcome["checks"]}
    assert {"weights", "finite", "tying", "tokenizer", "logits beside transformers"} <= names
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"stray": torch.ones(2)}, folder / "model.safetensors", {"format": "pt"})
    (check,) = langue.verify(folder)["checks"]
    assert check["ok"] is False and "stray" in check["detail"]
    name = next(iter(weights))
    save_file(
        weights | {name: weights[name] * float("nan")},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    assert run(["verify", str(folder)]) == 1
    assert "failed" in capsys.readouterr().out


def test_a_stored_reference_tells_a_copy_that_is_off(tmp_path, capsys):
    good = tiny_bert(tmp_path / "good")
    file = tmp_path / "reference.safetensors"
    assert run(["verify", str(good), "--store", str(file)]) == 0 and file.is_file()
    names = {check["check"]: check for check in langue.verify(good, reference=file)["checks"]}
    assert (
        names["tokens beside the reference"]["ok"] and names["numbers beside the reference"]["ok"]
    )
    off = tiny_bert(tmp_path / "off")
    weights = load_file(off / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.output.dense.weight"))
    save_file(weights | {name: weights[name] * 1.01}, off / "model.safetensors", {"format": "pt"})
    (check,) = [
        c
        for c in langue.verify(off, reference=file)["checks"]
        if c["check"] == "numbers beside the reference"
    ]
    assert check["ok"] is False and "relative difference of hidden" in check["detail"]
    words = json.loads((off / "tokenizer.json").read_text("utf-8"))
    words["normalizer"] = {"type": "Lowercase"} if words["normalizer"] is None else None
    (off / "tokenizer.json").write_text(json.dumps(words), "utf-8")
    assert run(["verify", str(off), "--reference", str(file)]) == 1
    assert "differs" in capsys.readouterr().out


def test_a_reference_replaces_nothing_unasked(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RunError, match="the file exists"):
        langue.verify("no/where", store=tmp_path / "mine")  # said before anything is loaded
    assert (tmp_path / "mine").read_text() == "mine"
    assert langue.verify(tiny_bert(tmp_path / "m"), store=tmp_path / "mine", force=True)["ok"]
    assert (tmp_path / "mine").read_bytes() != b"mine"


@pytest.mark.parametrize("content", [b"", b"\x10" * 40, None])
def test_what_is_no_reference_is_said(tmp_path, content):
    folder = tiny_bert(tmp_path / "m")
    file = tmp_path / "reference.safetensors"
    if content is None:
        save_file({"tokens.0": torch.ones(2, 2)}, file)
    else:
        file.write_bytes(content)
    outcome = langue.verify(folder, reference=file)
    assert not outcome["ok"] and str(file) in str(outcome["checks"])


def test_a_reference_that_is_not_there_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(ModelError, match="no such reference; make one: .* --store FILE"):
        langue.verify("no/where", reference=tmp_path / "none", store=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_convert_writes_what_loads(tmp_path, capsys):
    folder = tiny_bert(tmp_path / "m")
    assert run(["convert", str(folder), str(tmp_path / "out")]) == 0
    assert langue.verify(tmp_path / "out")["ok"]
    assert (
        run(["convert", str(folder), str(tmp_path / "out")]) == 2
        and "not empty" in capsys.readouterr().err
    )
    assert run(["convert", str(folder), str(tmp_path / "half"), "--dtype", "bf16"]) == 0
    kinds = {
        w.dtype for w in load_file(tmp_path / "half" / "model.safetensors").values() if w.ndim > 1
    }
    assert kinds == {torch.bfloat16} and langue.verify(tmp_path / "half")["ok"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert run(["convert", str(folder), str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink() and (
        tmp_path / "elsewhere" / "model.safetensors"
    ).is_file()


def test_how_a_model_writes_is_saved_with_it(tmp_path):
    folder = tiny_decoder(tmp_path / "m", "llama")
    writes = {
        "do_sample": True,
        "temperature": 0.6,
        "eos_token_id": [1, 2],
        "transformers_version": "4.42.3",
    }
    (folder / "generation_config.json").write_text(json.dumps(writes))
    langue.convert(folder, tmp_path / "out")
    assert (
        json.loads((tmp_path / "out" / "generation_config.json").read_text()).items()
        >= writes.items()
    )
    ends = langue.load(tmp_path / "out").checkpoint.ends
    assert ends == langue.load(folder).checkpoint.ends == {0, 1, 2}  # 0 is the tokenizer's own end


@pytest.mark.parametrize("name", FAMILIES)
def test_a_loaded_model_goes_to_other_processes(name):
    assert pickle.loads(pickle.dumps(FAMILIES[name])) == FAMILIES[name]


def test_a_classifier_is_drawn_up_without_being_filled(tmp_path, monkeypatch):
    """Weights that the file replaces cost neither time nor memory."""
    transformers = pytest.importorskip("transformers")
    folder = tiny_bert(tmp_path / "m")
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
    )
    said = json.loads((folder / "config.json").read_text())
    config = transformers.BertConfig(**{name: said[name] for name in names})
    transformers.BertForSequenceClassification(config).save_pretrained(folder)

    def filled(*_, **__):
        raise AssertionError("a weight is filled")

    for fill in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, fill, filled)
    assert len(langue.load(folder).predict(["the film"])) == 1

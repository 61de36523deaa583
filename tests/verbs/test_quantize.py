"""`langue compress quantize`: a folder with fewer bits, what it costs, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

import langue
from langue.cli import run
from langue.compress.matrix_errors import matrix_errors, table_of_errors
from langue.errors import ModelError, SettingsError
from langue.model.weight_linear import held_weights
from langue.runs.model import load_for_folder, load_plain
from tests.tiny import tiny_bert
from tests.tiny_decoder import tiny_decoder
from tests.tiny_kinds import tiny_model

STORY = ["The ball is in the web, and the bear is there.", "The night was long."] * 3


def text(folder: Path) -> Path:
    rows = "".join(json.dumps({"text": line}) + "\n" for line in STORY)
    file = folder / "story.jsonl"
    file.write_text(rows, "utf-8")
    return file


def test_the_errors_are_those_of_the_matrices(tmp_path):
    folder = tiny_decoder(tmp_path / "m", "llama")
    plain = load_plain(folder).language
    held = load_for_folder(folder, None, "int4").language
    errors = matrix_errors(plain, held)
    assert [error.name for error in errors] == [*held_weights(held)]
    for error in errors:
        exact = plain.get_submodule(error.name).weight.detach().double()
        off = held_weights(held)[error.name].dequantize().double() - exact
        relative = (off.square().sum() / exact.square().sum()).sqrt()
        assert error.relative == pytest.approx(float(relative), rel=1e-4)
        assert error.largest == pytest.approx(float(off.abs().max()), rel=1e-5)
    shares = [row[2] for row in table_of_errors(errors).rows]
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_decoder_with_its_perplexity(tmp_path, capsys, kind):
    folder = tiny_decoder(tmp_path / "m", "llama")
    out = tmp_path / "q"
    words = ["compress", "quantize", str(folder), "--weights", kind, "--out", str(out)]
    assert run([*words, "--data", str(text(tmp_path)), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {each["kind"] for each in told["matrices"]} == {kind, "bf16"}
    assert told["bytes_after"] < told["bytes_before"]
    found = told["perplexity"]
    assert found["documents"] == len(STORY) and found["tokens"] > 0
    assert found["before"] != found["after"]
    assert abs(found["after"] / found["before"] - 1) < (0.02 if kind == "int8" else 0.6)
    config = json.loads((out / "config.json").read_text())
    group = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert group["num_bits"] == (8 if kind == "int8" else 4) and group["group_size"] == 32
    # the figure is that of what was saved
    again = langue.load(out)
    assert again.weights == "stored"
    again.save(tmp_path / "r")
    assert (tmp_path / "r" / "model.safetensors").read_bytes() == (
        out / "model.safetensors"
    ).read_bytes()


def test_it_is_printed(tmp_path, capsys):
    folder = tiny_decoder(tmp_path / "m", "qwen3")
    words = ["compress", "quantize", str(folder), "--out", str(tmp_path / "q")]
    assert run([*words, "--data", str(text(tmp_path))]) == 0
    shown = capsys.readouterr().out
    assert "relative error" in shown and "feedforward.down" in shown
    assert "perplexity: " in shown and " before, " in shown and "6 documents" in shown
    assert "in fp32, " in shown


def test_an_encoder_and_an_encoder_decoder(tmp_path):
    found = langue.quantize(tiny_model(tmp_path / "t5", "t5"), tmp_path / "q", weights="int4")
    assert found["perplexity"] is None and len(found["matrices"]) > 10
    found = langue.quantize(tiny_bert(tmp_path / "bert"), tmp_path / "b")
    assert found["bytes_after"] < 0.5 * found["bytes_before"]
    assert torch.isfinite(torch.from_numpy(langue.load(tmp_path / "b").encode(STORY))).all()


def test_what_is_refused(tmp_path, capsys):
    folder = tiny_decoder(tmp_path / "m", "llama")
    out = tmp_path / "q"
    with pytest.raises(SettingsError, match="'bf16' is none of what a folder is quantised to"):
        langue.quantize(folder, out, weights="bf16")
    with pytest.raises(ModelError, match="an encoder is not held in int4.*use int8"):
        langue.quantize(tiny_model(tmp_path / "bert", "bert"), out, weights="int4")
    with pytest.raises(ModelError, match="an encoder-decoder has no perplexity.*leave --data out"):
        langue.quantize(tiny_model(tmp_path / "t5", "t5"), out, data=text(tmp_path))
    langue.quantize(folder, out)
    with pytest.raises(ModelError, match="exists and is not empty"):
        langue.quantize(folder, out)
    with pytest.raises(ModelError, match="q: the model is quantised already"):
        langue.quantize(out, tmp_path / "twice", weights="int4")
    with pytest.raises(ModelError, match="q: the model is quantised already"):
        langue.quantize(out, tmp_path / "twice", weights="int8")
    assert not (tmp_path / "twice").exists()
    assert run(["compress", "quantize", str(folder), "--weights", "int3", "--out", "x"]) == 2
    assert capsys.readouterr().err.startswith("langue: error: weights = 'int3'")

"""Model folders that miss or have something: what changes nothing is no reason to refuse them, and
where they are refused, the cause is named and the remedy works, word for word."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from langue.errors import LangueError, ModelError
from langue.formats.gguf import Given, write
from langue.runs.model import load
from langue.verbs.verify import verify
from tests.tiny import tiny_bert
from tests.tiny_decoder import tiny_decoder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 134217728\n"


@pytest.fixture
def model(tmp_path):
    return tiny_bert(tmp_path / "model")


@pytest.fixture
def decoder(tmp_path):
    return tiny_decoder(tmp_path / "decoder", "llama")


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def refusal(folder):
    with pytest.raises(LangueError) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "mrope_section": [1, 1, 2]},
        {"rope_type": "mrope", "mrope_section": [1, 1, 2]},
        {"rope_type": "default", "rope_theta": 10_000.0},
    ],
)
def test_keys_that_change_nothing_in_a_text(decoder, rope):
    before = load(decoder).logits([[5, 6, 7]])[0]
    edit(decoder, pretraining_tp=4, rope_parameters=None, rope_scaling=rope)
    np.testing.assert_array_equal(load(decoder).logits([[5, 6, 7]])[0], before)


def test_whether_training_followed_a_stretch_changes_nothing(decoder):
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}
    edit(decoder, rope_parameters=None, rope_scaling=yarn)
    before = load(decoder).logits([[5, 6, 7]])[0]
    edit(decoder, rope_scaling=yarn | {"finetuned": True})
    np.testing.assert_array_equal(load(decoder).logits([[5, 6, 7]])[0], before)


def test_a_byte_order_mark_before_any_json(model):
    before = load(model).hidden(["the film"])[0]
    files = [*model.glob("*.json")]
    assert {"config.json", "tokenizer.json"} <= {file.name for file in files}
    for file in files:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    np.testing.assert_array_equal(load(model).hidden(["the film"])[0], before)


def shards(folder, more=None, listed=None):
    """The folder's weights in two files and an index. more: tensors that it does not list; listed:
    names that no file has."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: f"model-{1 + index % 2}.safetensors" for index, name in enumerate(names)}
    for place in {*places.values()}:
        own = {name: weights[name] for name in names if places[name] == place}
        save_file(own | (more or {}), folder / place)
    index = {"weight_map": places | dict.fromkeys(listed or [], "model-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_what_an_index_and_its_files_may_differ_in(model, decoder):
    before = load(model).hidden(["the film"])[0]
    shards(model, more={"embeddings.position_ids": torch.arange(4.0)})  # as old files hold
    np.testing.assert_array_equal(load(model).hidden(["the film"])[0], before)
    ids = [[5, 6, 7]]
    before = load(decoder).logits(ids)[0]
    weights = load_file(decoder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    edit(decoder, tie_word_embeddings=True)
    save_file(weights, decoder / "model.safetensors")
    tied = load(decoder).logits(ids)[0]
    shards(decoder, listed=["lm_head.weight"])
    np.testing.assert_array_equal(load(decoder).logits(ids)[0], tied)


def test_what_no_model_has_is_still_refused(model):
    shards(model, more={"stray.weight": torch.ones(2)})
    assert "left over: stray.weight" in refusal(model).what


def test_a_lost_shard_is_named_and_put_back(model):
    before = load(model).hidden(["the film"])[0]
    shards(model)
    lost = (model / "model-2.safetensors").read_bytes()
    (model / "model-2.safetensors").unlink()
    said = refusal(model)
    assert "1 of the 2 files that the index names are not there: model-2.safetensors" in said.what
    assert said.do.startswith("put model-2.safetensors beside it")
    (model / "model-2.safetensors").write_bytes(lost)
    np.testing.assert_array_equal(load(model).hidden(["the film"])[0], before)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin"]
)
def test_a_pointer_of_git_lfs_is_named_in_any_file(model, name):
    before = load(model).hidden(["the film"])[0]
    if name == "pytorch_model.bin":
        torch.save(load_file(model / "model.safetensors"), model / name)
        (model / "model.safetensors").unlink()
    whole = (model / name).read_bytes()
    (model / name).write_text(POINTER)
    said = refusal(model)
    assert said.what.startswith(f"{name} is a pointer of Git LFS")
    assert said.where == str(model / name) and "torch.load" not in str(said)
    assert said.do == f"run `git lfs pull` in {model}, or put the file itself there"
    (model / name).write_bytes(whole)
    np.testing.assert_array_equal(load(model).hidden(["the film"])[0], before)


def test_a_pointer_that_nothing_needs_is_no_cause(model):
    (model / "tf_model.h5").write_text(POINTER)
    load(model)
    edit(model, hidden_act="softsign")
    assert "softsign" in refusal(model).what
    alone = model / "model.gguf"
    alone.write_text(POINTER)
    assert "pointer of Git LFS" in refusal(alone).what


@pytest.mark.parametrize("kind", ["F4", "F6_E2M3", "F8_E8M0", "C64"])
def test_a_type_of_number_that_is_not_read_is_named(model, kind):
    """By the header alone: what the file library makes of it depends on its release."""
    file = model / "model.safetensors"
    whole = file.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    name = next(key for key in header if key.endswith("query.weight"))
    header[name]["dtype"] = kind
    said = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(said)) + said + whole[8 + length :])
    assert refusal(model).what == f"{name!r} is of {kind}, which is not read"


def test_fp8_is_named(model):
    weights = load_file(model / "model.safetensors")
    name = next(key for key in weights if key.endswith("query.weight"))
    save_file(weights | {name: weights[name].to(torch.float8_e4m3fn)}, model / "model.safetensors")
    said = refusal(model)
    assert said.what == f"{name} is of float8_e4m3fn, which no weight is read from"
    assert "bf16 or fp32" in said.do
    save_file(weights, model / "model.safetensors")
    load(model)


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"load_in_8bit": True}, "bitsandbytes"),
    ],
)
def test_a_quantised_model_is_named_by_its_method(decoder, said, method):
    error = refusal(edit(decoder, quantization_config=said))
    assert f"of the method {method!r}" in error.what
    assert error.do.startswith("take the model that it was made from")


def test_an_unknown_family_is_said_before_its_tokenizer(model):
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").unlink()
    assert "model_type 'mamba' is not known" in refusal(edit(model, model_type="mamba")).what


def test_code_of_a_model_may_compute_something_else(model):
    before = load(model).hidden(["the film"])[0]
    edit(model, auto_map={"AutoModel": "modeling.Model"})
    said = refusal(model)
    assert "take auto_map out of the file" in said.do and "results differ" in said.do
    config = json.loads((model / "config.json").read_text())
    del config["auto_map"]
    (model / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(load(model).hidden(["the film"])[0], before)


def test_a_tokenizer_that_the_library_does_not_know(model):
    file = model / "tokenizer.json"
    whole = file.read_text()
    content = json.loads(whole)
    content["model"]["type"] = "Newer"
    file.write_text(json.dumps(content))
    said = refusal(model)
    assert "cannot read it, and it is not cut short" in said.what
    assert said.where == str(file) and "it may be of a newer release" in said.do
    file.write_text(whole[: len(whole) // 2])
    assert "the tokenizer cannot be read" in refusal(model).what


@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_gguf_in_parts_is_named(tmp_path, whole_folder):
    folder = tmp_path / "m"
    folder.mkdir()
    for part in range(2):
        metadata = {"general.architecture": "llama", "split.no": part, "split.count": 2}
        tensors = [Given(f"t{part}", "F32", (4,), lambda: torch.zeros(4))]
        write(folder / f"big-0000{part + 1}-of-00002.gguf", metadata, tensors)
    said = refusal(folder if whole_folder else folder / "big-00002-of-00002.gguf")
    assert said.what == "one of 2 parts of a GGUF"
    assert said.do.endswith("llama-gguf-split --merge FIRST_PART big.gguf")


def test_a_lost_head_is_only_missed_by_what_needs_it(decoder):
    hidden = load(decoder).hidden([[5, 6, 7]])[0]
    weights = load_file(decoder / "model.safetensors")
    assert (
        "lm_head.weight" in weights
        or json.loads((decoder / "config.json").read_text())["tie_word_embeddings"]
    )
    edit(decoder, tie_word_embeddings=False)
    weights.pop("lm_head.weight", None)
    save_file(weights, decoder / "model.safetensors")
    model = load(decoder)
    np.testing.assert_array_equal(model.hidden([[5, 6, 7]])[0], hidden)
    with pytest.raises(ModelError, match="head missing, which .*ForCausalLM has"):
        model.logits([[5, 6, 7]])
    assert False in [check["ok"] for check in verify(decoder)["checks"]]

"""Folders of quantised weights: ours and others', GGUF's kinds kept as they are, and what is
refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import langue
from langue.errors import ModelError
from langue.formats import gguf
from langue.hub.quantized import StoredRows, packed, unpacked
from langue.model.weight_kinds import Weight, quantize
from langue.model.weight_linear import held_weights
from langue.runs.model import load_for_folder, load_plain
from tests.tiny import SHORT, reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder
from tests.tiny_kinds import KINDS_OF_MODELS, tiny_model

IDS = [[5, 9, 200, 31, 7], [3, 4]]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_packed_and_unpacked(kind):
    weight = quantize(torch.randn(6, 96), kind)
    given = packed("a.b", weight)
    assert given["a.b.weight_packed"].shape == (6, 96 * (8 if kind == "int8" else 4) // 32)
    again = unpacked(given)["a.b.weight"]
    assert isinstance(again, Weight) and again.kind == kind
    assert torch.equal(again.data, weight.data) and torch.equal(again.scales, weight.scales)
    # the first number is in the lowest bits, made positive
    first = int(given["a.b.weight_packed"][0, 0]) & (255 if kind == "int8" else 15)
    shift = 128 if kind == "int8" else 8
    value = (first - shift) * float(weight.scales[0, 0])
    assert np.isclose(value, float(weight.dequantize()[0, 0]))


def test_larger_groups_and_rows_change_no_number():
    numbers = torch.randint(-127, 128, (4, 128), dtype=torch.int8)
    for scales in (torch.rand(4, 1), torch.rand(4, 2), torch.rand(4, 4), torch.rand(1)):
        found = unpacked({"a.weight": numbers, "a.weight_scale": scales.bfloat16()})["a.weight"]
        wide = scales.bfloat16().float().reshape(-1, scales.shape[-1]).expand(4, -1)
        exact = numbers.float() * wide.repeat_interleave(128 // wide.shape[1], dim=1)
        assert torch.equal(found.dequantize(), exact)


def test_rows_are_found_again():
    rows = StoredRows()
    first, second = quantize(torch.randn(6, 32), "int8"), quantize(torch.randn(4, 32), "int4")
    numbers = torch.cat([rows.numbered(second), rows.numbered(first)])
    mixed = torch.cat([numbers[8:], numbers[:2], numbers[4:6].flip(0)])
    exact = torch.cat([second.dequantize(), first.dequantize()])
    found = rows.taken(mixed)
    assert torch.equal(found.dequantize(), torch.cat([exact[8:], exact[:2], exact[4:6].flip(0)]))
    assert torch.equal(found[1:4].dequantize(), found.dequantize()[1:4])


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("name", KINDS_OF_MODELS)
def test_a_folder_is_read_back(tmp_path, name, kind):
    folder = tiny_model(tmp_path / "m", name)
    if (name, kind) == ("bert", "int4"):
        with pytest.raises(ModelError, match="m: an encoder is not held in int4.*use int8"):
            load_for_folder(folder, None, kind)
        return
    model = load_for_folder(folder, None, kind)
    model.save(tmp_path / "q")
    again = langue.load(tmp_path / "q")
    before, after = held_weights(model.language), held_weights(again.language)
    assert before.keys() == after.keys()
    for key in before:
        assert before[key].kind == after[key].kind
        assert torch.equal(before[key].dequantize(), after[key].dequantize()), key
    given = (IDS, IDS[::-1]) if name.startswith("t5") else (IDS,)
    plain = load_plain(tmp_path / "q").logits(*given)
    for mine, theirs, wide in zip(model.logits(*given), again.logits(*given), plain, strict=True):
        assert np.array_equal(mine, theirs)
        assert np.allclose(mine, wide, atol=0.1 * np.abs(wide).max())
    again.save(tmp_path / "r")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "q" / file).read_bytes() == (tmp_path / "r" / file).read_bytes()


def test_a_folder_takes_less_room_and_trains_further(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    data = write_jsonl(tmp_path / "reviews.jsonl", reviews(60))
    load_for_folder(folder, None, "int8").save(tmp_path / "q")
    run = langue.finetune(model=tmp_path / "q", data=data, out=tmp_path / "run", **SHORT)
    assert run.load().predict(["good"])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "quantization_config" not in config
    load_for_folder(tmp_path / "run", None, "int8").save(tmp_path / "small")
    small = langue.load(tmp_path / "small")
    assert held_weights(small.body) and small.task is not None
    texts = [row["text"] for row in reviews(6, seed=1)]
    plain = langue.load(tmp_path / "run").logits(texts)
    assert np.allclose(small.logits(texts), plain, atol=0.05 * np.abs(plain).max())


def test_a_quantised_folder_is_not_quantised_again(tmp_path):
    folder = tiny_model(tmp_path / "m", "llama")
    load_for_folder(folder, None, "int8").save(tmp_path / "q")
    with pytest.raises(ModelError, match=r"q: the model is quantised already \(int8\)"):
        langue.load(tmp_path / "q", weights="int4")
    # its own kind is what it has, and the tables and the output matrix beside
    same = held_weights(langue.load(tmp_path / "q", weights="int8").language)
    assert same["head.out"].kind == "int8"
    wide = held_weights(langue.load(tmp_path / "q", weights="fp32").language)
    assert {weight.kind for weight in wide.values()} == {"fp32"}


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"quant_method": "gptq", "bits": 4}, "'gptq', which is not read here; take the model"),
        ({"quant_method": "awq", "bits": 4}, "'awq'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes'"),
        ({"quant_method": "fp8"}, "'fp8'"),
        ("int8", "is not an object"),
        ({"quant_method": "compressed-tensors"}, "no config_groups"),
        (
            {
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
                "format": "float-quantized",
            },
            "float-quantized",
        ),
    ],
)
def test_other_methods_are_named(tmp_path, said, word):
    folder = tiny_decoder(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": said}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=word):
        langue.load(folder)
    with pytest.raises(ModelError, match=word):
        langue.load(folder, weights="int8")


@pytest.mark.parametrize(("name", "word"), [(".qweight", "GPTQ or AWQ"), (".SCB", "bitsandbytes")])
def test_other_methods_are_known_by_their_tensors(tmp_path, name, word):
    folder = tiny_decoder(tmp_path / "m", "llama")
    weights = load_file(folder / "model.safetensors")
    more = {f"model.layers.0.mlp.up_proj{name}": torch.zeros(2, 2, dtype=torch.int32)}
    save_file(weights | more, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=word):
        langue.load(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"weight_packed": torch.zeros(64, 3, dtype=torch.int32)}, "not of 4 or 8 bits"),
        ({"weight_packed": torch.zeros(64, 16)}, "not as the format has it"),
        ({"weight_shape": torch.tensor([2**40, 2**40])}, "not of 4 or 8 bits"),
        ({"weight_shape": torch.tensor([64, 64, 64])}, "not as the format has it"),
        ({"weight_scale": torch.full((64, 2), torch.inf)}, "not finite"),
        ({"weight_scale": torch.ones(64, 3)}, "no multiple of 32"),
        ({"weight_scale": None}, "weight_scale is missing"),
        ({"weight_zero_point": torch.ones(64, 2)}, "zero points"),
    ],
)
def test_damaged_folders_are_one_line(tmp_path, change, word):
    folder = tiny_decoder(tmp_path / "m", "llama")
    load_for_folder(folder, None, "int8").save(tmp_path / "q")
    file = tmp_path / "q" / "model.safetensors"
    stem = "model.layers.1.self_attn.q_proj."
    weights = load_file(file) | {stem + key: tensor for key, tensor in change.items()}
    save_file({k: v for k, v in weights.items() if v is not None}, file, {"format": "pt"})
    for load in (langue.load, load_plain):
        with pytest.raises(ModelError, match=word):
            load(tmp_path / "q")


def gguf_of_blocks(path, kinds, monkeypatch, name="llama, tied"):
    """A GGUF file whose matrices are of the kinds that `kinds` says by the end of their names, and
    what they stand for."""
    wide = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    wide = {"n_embd": 256, "n_inner": 256} if name == "gpt2" else wide
    folder = tiny_decoder(path.with_suffix(""), name, **wide)
    langue.convert(folder, path.with_name("f32.gguf"), dtype="f32")
    found = gguf.read(path.with_name("f32.gguf"))
    draw = np.random.default_rng(0)
    raw, given = {}, []
    for key, stored in found.tensors.items():
        kind = next((kinds[end] for end in kinds if end in key and len(stored.shape) == 2), "F32")
        given.append(gguf.Given(key, kind, stored.shape, lambda key=key: found.tensor(key)))
        numbers, size = gguf._STORED[kind]
        if kind in gguf.BLOCK_KINDS:
            blocks = draw.integers(0, 256, (gguf.count(stored.shape) // numbers, size), np.uint8)
            scale = np.array([0.001], "<f2").view(np.uint8)
            place = slice(208, 210) if kind == "Q6_K" else slice(0, 2)
            blocks[:, place] = scale
            if kind == "Q4_K":
                blocks[:, 2:4] = scale
            raw[key] = blocks.tobytes()
    encoded = gguf._encoded
    monkeypatch.setattr(gguf, "CODES", {kind: code for code, kind in gguf._TYPES.items()})
    monkeypatch.setattr(
        gguf, "_encoded", lambda each: raw[each.name] if each.name in raw else encoded(each)
    )
    gguf.write(path, found.metadata, given)
    return path


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama, tied", {"attn_v": "Q6_K", "blk": "Q4_K", "token_embd": "Q6_K"}),
        ("llama, tied", {"blk": "Q4_0", "token_embd": "Q8_0"}),
        ("qwen3", {"attn_k": "Q8_0", "blk": "Q4_K", "output.weight": "Q6_K"}),
        ("gpt2", {"blk": "Q8_0", "token_embd": "Q8_0", "position": "Q8_0"}),
    ],
)
def test_gguf_kinds_are_kept_as_they_are(tmp_path, monkeypatch, name, kinds):
    file = gguf_of_blocks(tmp_path / "m.gguf", kinds, monkeypatch, name)
    plain = langue.load(file)
    assert not held_weights(plain.language)
    model = langue.load(file, weights="stored")
    held = held_weights(model.language)
    assert {"int8", "int4"} & {
        weight.stack[0].kind if hasattr(weight, "stack") else weight.kind
        for weight in held.values()
    }
    parameters = dict(plain.language.named_parameters())
    for key, weight in held.items():
        assert torch.equal(weight.dequantize(), parameters[f"{key}.weight"]), key
    for mine, wide in zip(model.logits(IDS), plain.logits(IDS), strict=True):
        assert np.allclose(mine, wide, atol=0.05 * np.abs(wide).max())
    taken = sum(weight.nbytes for weight in held.values())
    assert taken < 0.5 * sum(parameters[f"{key}.weight"].nbytes for key in held)
    if "attn_v" in kinds:
        assert held["body.blocks.0.attention.qkv"].kind == "int4 and int8"
        with pytest.raises(ModelError, match="form that a folder of ours cannot hold"):
            model.save(tmp_path / "q")

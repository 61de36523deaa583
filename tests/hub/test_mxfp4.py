"""gpt-oss as it is published, its experts in MXFP4, beside what `transformers` makes of those."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from langue.errors import ModelError
from langue.runs.model import load
from tests.contract.references import draw_config
from tests.contract.test_families import close, save, sequences, theirs

transformers = pytest.importorskip("transformers")
from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: E402

EXPERTS = ("gate_up_proj", "down_proj")


@pytest.fixture
def published(tmp_path):
    """(a folder in MXFP4, the model in fp32 that it stands for)."""
    torch.manual_seed(0)
    config = draw_config("gpt_oss", 0)
    config.hidden_size = config.intermediate_size = 64
    reference = transformers.GptOssForCausalLM(config).eval()
    for weight in reference.parameters():
        weight.data.copy_(0.2 * torch.randn(weight.shape))
    packed = {}
    for i, layer in enumerate(reference.model.layers):
        for part in EXPERTS:
            weight = getattr(layer.mlp.experts, part)
            blocks = torch.randint(256, (len(weight), weight.shape[2], 2, 16), dtype=torch.uint8)
            scales = torch.randint(119, 125, blocks.shape[:-1], dtype=torch.uint8)
            weight.data.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
            name = f"model.layers.{i}.mlp.experts.{part}"
            packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    folder = save(tmp_path / "m", reference)
    plain = load_file(folder / "model.safetensors")
    kept = {key: tensor for key, tensor in plain.items() if not key.endswith(EXPERTS)}
    save_file(kept | packed, folder / "model.safetensors", {"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    said["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(said))
    return folder, reference


def test_experts_are_widened_exactly(tmp_path, published):
    folder, reference = published
    ids = sequences(0)
    model = load(folder)
    with torch.no_grad():
        logits = [each.numpy() for each in theirs(reference, ids)]
    assert all(map(close, model.logits(ids), logits))
    # what is saved is what transformers takes for it, to the bit
    model.save(tmp_path / "wide")
    assert "quantization_config" not in json.loads((tmp_path / "wide" / "config.json").read_text())
    saved = load_file(tmp_path / "wide" / "model.safetensors")
    expected = reference.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in saved.items())
    load(folder, dtype="bf16").save(tmp_path / "narrow")
    saved = load_file(tmp_path / "narrow" / "model.safetensors")
    experts = [key for key in saved if key.endswith(EXPERTS)]
    assert len(experts) == 2 * model.config.n_layers
    for key in experts:
        assert saved[key].dtype == torch.bfloat16
        assert torch.equal(saved[key].float(), expected[key])


def test_every_byte_and_exponent():
    from langue.hub.mxfp4 import widened

    blocks = torch.arange(256, dtype=torch.uint8).view(1, 16, 1, 16).repeat(251, 1, 1, 1)
    scales = torch.arange(1, 252, dtype=torch.uint8)[:, None, None].repeat(1, 16, 1)
    (wide,) = widened({"x_blocks": blocks, "x_scales": scales}).values()
    assert torch.equal(wide, convert_moe_packed_tensors(blocks, scales))
    zero = torch.zeros(1, 16, 1, dtype=torch.uint8)  # 2^-127, which is no normal number
    (least,) = widened({"x_blocks": blocks[:1], "x_scales": zero}).values()
    assert torch.equal(least.double() * 2, wide[:1].double())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tensors, name: tensors.pop(f"{name}_scales"), "with no scales"),
        (lambda tensors, name: tensors.pop(f"{name}_blocks"), "weights missing"),
        (lambda tensors, name: tensors[f"{name}_scales"].fill_(255), "a number is not finite"),
        (
            lambda tensors, name: tensors.update(
                {f"{name}_scales": tensors[f"{name}_scales"][..., :1].contiguous()}
            ),
            "are not those of MXFP4",
        ),
    ],
)
def test_what_is_no_mxfp4_is_refused(published, spoil, said):
    folder, _ = published
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors, "model.layers.0.mlp.experts.down_proj")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=re.escape(said)):
        load(folder)


def test_experts_in_one_tensor_are_not_saved_as_whole_numbers(tmp_path, published):
    folder, _ = published
    ids = sequences(0)
    few = load(folder, weights="int8")
    wide = load(folder).logits(ids)
    assert len(few.logits(ids)) == len(wide)
    with pytest.raises(ModelError, match="all experts of a layer"):
        few.save(tmp_path / "q")
    load(folder, weights="bf16").save(tmp_path / "q")
    assert load(tmp_path / "q").logits(ids)[0].shape == wide[0].shape

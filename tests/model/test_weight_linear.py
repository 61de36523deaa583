"""Products with weights in few bits, and models that hold them: against PyTorch on the numbers that
the weights stand for."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from langue.errors import LangueWarning, ModelError, SettingsError
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.model.transformer import initialise
from langue.model.weight_kinds import KINDS, quantize
from langue.model.weight_linear import (
    WeightEmbedding,
    WeightLinear,
    held_weights,
    is_quantized,
    planned_kinds,
    product,
    widened_product,
    with_weights,
)

SIZES = {"vocab_size": 90, "dim": 64, "n_layers": 2, "n_heads": 4, "ffn_dim": 96, "max_length": 32}
CONFIGS = {
    "encoder": ModelConfig(**SIZES, head_transform=True, head_bias=True, pair_head=True),
    "decoder": ModelConfig(**SIZES, causal=True, norm_place="pre", kv_heads=2, position="rotary"),
    "untied": ModelConfig(**SIZES, causal=True, tied=False, gated=True, norm="rms", bias=False),
    "mixture": ModelConfig(**SIZES, causal=True, n_experts=4, experts_per_token=2),
    "encoder-decoder": ModelConfig(**SIZES, decoder_layers=2),
}


def make(name: str) -> LanguageModel:
    model = LanguageModel(CONFIGS[name])
    initialise(model, 0.1, 0)
    return model.eval()


@torch.no_grad()
def logits(model: LanguageModel) -> torch.Tensor:
    """Of two texts of 5 and one of 7 tokens."""
    tokens = torch.arange(17) * 5 % 90
    positions = torch.cat([torch.arange(5), torch.arange(5), torch.arange(7)])
    groups = [(0, 2, 5), (10, 1, 7)]
    hidden = model.body(tokens, positions, groups)
    if model.body.decoder is not None:
        pairs = [(0, 0, 2, 5, 5), (10, 10, 1, 7, 7)]
        hidden = model.body.decode(tokens, positions, groups, hidden, pairs)
    return model.logits(hidden)


@torch.no_grad()
def widened(model: LanguageModel) -> LanguageModel:
    """A plain model with the numbers that a quantised one's weights stand for."""
    plain = LanguageModel(model.body.config).eval()
    values = dict(model.named_parameters())
    for name, weight in held_weights(model).items():
        values[f"{name}.weight"] = weight.dequantize()  # type: ignore[assignment]
    plain.load_state_dict(values)
    return plain


@pytest.mark.parametrize("rows", [0, 1, 2, 70])
@pytest.mark.parametrize("kind", KINDS)
def test_a_product_is_that_of_the_numbers(kind: str, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = quantize(torch.randn(300, 128, generator=generator), kind)
    bias = torch.randn(300, generator=generator)
    x = torch.randn(rows, 128, generator=generator)
    exact = F.linear(x.double(), weight.dequantize().double(), bias.double())
    for given in (bias, None):
        wanted = exact if given is not None else exact - bias.double()
        assert torch.allclose(widened_product(x, weight, given).double(), wanted, atol=3e-5)
        assert product(x, weight, given).shape == (rows, 300)
    assert product(x.view(rows, 1, 128), weight, None).shape == (rows, 1, 300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_in_any_company(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    # more numbers than are widened at a time
    weight = quantize(torch.randn(1100, 1024, generator=generator), kind)
    x = torch.randn(70, 1024, generator=generator)
    whole = widened_product(x, weight, None)
    for count in (1, 2, 3, 7, 8, 16, 33):
        for begin in (0, 5, 37):
            part = widened_product(x[begin : begin + count].contiguous(), weight, None)
            assert torch.equal(part, whole[begin : begin + count]), (count, begin)


def test_there_are_no_gradients_in_silence() -> None:
    x = torch.randn(2, 32, requires_grad=True)
    with pytest.raises(ModelError, match="int8 weights are for use and give no gradients"):
        product(x, quantize(torch.randn(4, 32), "int8"), None)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_computes_with_the_numbers_that_it_holds(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langue.model.weight_linear.native", lambda: None)
    model = make(name)
    held = with_weights(model, kind)
    assert {part.kind for part in held_weights(held).values()} >= {kind}
    assert torch.allclose(logits(held), logits(widened(held)), atol=2e-5)
    if name == "mixture":  # where a token may go to another expert
        return
    off = (logits(held) - logits(model)).norm() / logits(model).norm()
    assert float(off) < {"fp32": 1e-6, "bf16": 0.01, "int8": 0.02, "int4": 0.25}[kind]


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_that_is_not_changed_is_copied(name: str) -> None:
    model = make(name)
    before = logits(model)
    for kind in ("fp32", "int8"):
        held = with_weights(model, kind)
        own = dict(model.named_parameters())
        for key, tensor in held.named_parameters():
            assert tensor.data_ptr() == own[key].data_ptr()
        swapped = {f"{key}.weight" for key in held_weights(held)}
        assert {key for key, _ in held.named_parameters()} | swapped == {*own}
        if kind == "fp32":
            for key, weight in held_weights(held).items():
                assert weight.data.data_ptr() == own[f"{key}.weight"].data_ptr()
    assert torch.equal(logits(model), before)
    assert not held_weights(model)


def test_which_matrices_and_which_kind() -> None:
    kinds = planned_kinds(make("mixture"), "int4")
    assert kinds["body.token"] == "int8"
    assert kinds["body.blocks.1.feedforward.experts.3.down"] == "int4"
    assert not any("router" in name or "position" in name for name in kinds)
    assert planned_kinds(make("untied"), "int4", table="bf16")["head.out"] == "bf16"
    of_encoder = planned_kinds(make("encoder"), "int8")
    assert "head.dense" in of_encoder and "head.pairs" not in of_encoder


def test_a_tied_table_is_held_once() -> None:
    held = with_weights(make("decoder"), "int8")
    assert isinstance(held.body.token, WeightEmbedding)
    assert held.body.output_table is held.body.token.weight
    tokens = torch.tensor([3, 3, 89])
    assert torch.equal(held.body.token(tokens), held.body.token.weight.dequantize()[tokens])


def test_what_cannot_be_grouped_is_told() -> None:
    config = replace(CONFIGS["decoder"], ffn_dim=90)
    model = LanguageModel(config).eval()
    initialise(model, 0.1, 0)
    with pytest.warns(LangueWarning, match="2 of 13 matrices have rows .* held in bf16: body"):
        held = with_weights(model, "int4")
    assert held_weights(held)["body.blocks.0.feedforward.down"].kind == "bf16"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_weights(model, "bf16")


def test_bad_wishes() -> None:
    model = make("decoder")
    with pytest.raises(SettingsError, match="'q4' is not known; give fp32, bf16, int8 or int4"):
        with_weights(model, "q4")
    held = with_weights(model, "int8")
    assert is_quantized(held) and not is_quantized(with_weights(model, "bf16"))
    with pytest.raises(ModelError, match="quantised already.*load the model"):
        with_weights(held, "int4")
    with torch.no_grad():
        model.body.blocks[1].attention.out.weight[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"blocks\.1\.attention\.out: a weight of nan"):
        with_weights(model, "int8")


def test_moving_changes_no_numbers() -> None:
    held = with_weights(make("untied"), "int8")
    before = {name: weight.dequantize() for name, weight in held_weights(held).items()}
    held.to("cpu").half()
    for name, weight in held_weights(held).items():
        assert torch.equal(weight.dequantize(), before[name])
        assert isinstance(held.get_submodule(name), WeightLinear | WeightEmbedding)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_logits(kind: str) -> None:
    held = with_weights(make("untied"), kind)
    hidden = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 90
    with torch.no_grad():
        loss, z_term = held.loss(hidden, labels)
        wanted = F.cross_entropy(held.logits(hidden), labels, reduction="sum")
    assert float(z_term) == 0
    assert torch.allclose(loss, wanted, rtol=1e-5)

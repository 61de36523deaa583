"""Adapters of linear maps against their formulas, and gradients through frozen matrices."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from langue.errors import ModelError
from langue.model.adapters import (
    Patch,
    freeze,
    merge_into,
    new_values,
    with_adapters,
    with_gradients,
    with_parameters,
)
from langue.model.kernels import Linear, rows_of
from langue.model.weight_kinds import quantize
from langue.model.weight_linear import FrozenWeightLinear, WeightLinear

INPUTS = 64
ROWS = 96


class Small(nn.Module):
    """One map, and something behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.map = Linear(INPUTS, ROWS)
        self.out = Linear(ROWS, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.map(x)))


def patches(method, dropout=0.0):
    """Of the first and the last third of the rows, as queries and values are of three in one."""
    third = ROWS // 3
    low = {"rank": 4, "scale": 1.5, "dropout": dropout} if method in ("lora", "dora") else {}
    bounds = [(0, third, "q"), (2 * third, ROWS, "v")]
    if method == "ia3_input":
        bounds = [(0, ROWS, "whole")]
    return [Patch("map", begin, end, name, method, **low) for begin, end, name in bounds]


def scattered(method, model):
    """Values that change what the map gives."""
    made = new_values(patches(method), {"map": model.map.weight}, 0)
    torch.manual_seed(1)
    return [{n: v.detach() + 0.3 * torch.randn(v.shape) for n, v in own.items()} for own in made]


def formula(method, model, values, x):
    """The map's output, written out (float64)."""
    weight = model.map.weight.detach().double().clone()
    bias = model.map.bias.detach().double().clone()
    for patch, own in zip(patches(method), values, strict=True):
        rows = slice(patch.begin, patch.end)
        own = {name: value.double() for name, value in own.items()}
        if method in ("lora", "dora"):
            weight[rows] += 1.5 * own["b"] @ own["a"]
        if method == "dora":
            weight[rows] *= (own["magnitude"] / weight[rows].norm(dim=1))[:, None]
        if method == "ia3":
            weight[rows] *= own["scales"][:, None]
            bias[rows] *= own["scales"]
        if method == "ia3_input":
            weight *= own["scales"]
    return x.double() @ weight.T + bias


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "ia3_input"])
def test_an_adapter_is_its_formula(method):
    torch.manual_seed(0)
    model = Small()
    x = torch.randn(7, INPUTS)
    values = scattered(method, model)
    adapted = with_adapters(model, patches(method), values)
    expected = formula(method, model, values, x)
    torch.testing.assert_close(adapted.map(x).double(), expected, rtol=0, atol=1e-5)
    # parts of the rows, which cut through adapters
    for begin, end in [(0, 40), (40, ROWS), (10, 20), (70, 80)]:
        part = rows_of(adapted.map, x, begin, end).double()
        torch.testing.assert_close(part, expected[:, begin:end], rtol=0, atol=1e-5)
    weights = {name: w.detach() for name, w in model.named_parameters()}
    merge_into(weights, patches(method), values)
    merged = F.linear(x, weights["map.weight"], weights["map.bias"])
    torch.testing.assert_close(merged.double(), expected, rtol=0, atol=1e-5)
    assert (model.map.weight == adapted.map.weight).all()  # the base is as it was


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "ia3_input"])
def test_new_adapters_change_nothing_and_alone_have_gradients(method):
    torch.manual_seed(0)
    model = Small()
    x = torch.randn(7, INPUTS)
    expected = model(x).detach()
    freeze(model)
    values = new_values(patches(method), {"map": model.map.weight}, 0)
    adapted = with_adapters(model, patches(method), values)
    torch.testing.assert_close(adapted(x), expected, rtol=0, atol=1e-6)
    adapted(x).square().sum().backward()
    trained = {name for name, w in adapted.named_parameters() if w.grad is not None}
    assert trained == {name for name, _ in adapted.named_parameters() if ".parts." in name}
    assert adapted.map.base is model.map and model.map.weight.grad is None


def test_dora_has_no_gradient_through_the_norm():
    """Section 4.3: the norms are constants of the backward pass."""
    torch.manual_seed(0)
    model = Small()
    x = torch.randn(7, INPUTS)
    values = scattered("dora", model)
    adapted = with_adapters(model, patches("dora"), values)
    adapted.map(x).square().sum().backward()
    part = adapted.map.parts[0]
    rows = slice(part.begin, part.end)
    a, b, m = (values[0][n].clone().requires_grad_() for n in ("a", "b", "magnitude"))
    whole = model.map.weight.detach()[rows] + 1.5 * b @ a
    ratio = m / whole.detach().norm(dim=1)
    out = x @ (whole * ratio[:, None]).T + model.map.bias.detach()[rows]
    out.square().sum().backward()
    for ours, expected in zip((part.a, part.b, part.magnitude), (a, b, m), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_dropout_is_of_what_the_product_reads():
    torch.manual_seed(0)
    model = Small()
    values = scattered("lora", model)
    adapted = with_adapters(model, patches("lora", dropout=0.5), values)
    x = torch.randn(2000, INPUTS)
    whole = adapted.eval().map(x)
    dropped = adapted.train().map(x)
    assert not torch.equal(whole, dropped)
    untouched = slice(ROWS // 3, 2 * ROWS // 3)  # rows without an adapter
    assert torch.equal(whole[:, untouched], dropped[:, untouched])
    torch.testing.assert_close(whole.mean(0), dropped.mean(0), rtol=0, atol=0.3)


@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_gradients_reach_through_a_frozen_matrix(kind):
    """As through the numbers that its weight stands for."""
    torch.manual_seed(0)
    weight = quantize(torch.randn(ROWS, INPUTS), kind)
    bias = nn.Parameter(torch.randn(ROWS), requires_grad=False)
    x = torch.randn(5, INPUTS, requires_grad=True)
    expected = x.detach().clone().requires_grad_()
    layer = FrozenWeightLinear(weight, bias)
    out = layer(x)
    wide = F.linear(expected, weight.dequantize(), bias)
    torch.testing.assert_close(out, wide, rtol=1e-4, atol=1e-3)
    slope = torch.randn(5, ROWS)
    out.backward(slope)
    wide.backward(slope)
    torch.testing.assert_close(x.grad, expected.grad, rtol=1e-4, atol=1e-4)
    part = layer.rows(x, 32, 64)
    torch.testing.assert_close(part, wide[:, 32:64], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "ia3_input"])
def test_adapters_on_a_frozen_matrix_learn_as_on_its_numbers(method):
    torch.manual_seed(0)
    model = Small()
    weight = quantize(model.map.weight, "int8")
    held = Small()
    held.load_state_dict(model.state_dict())
    held.map = WeightLinear(weight, held.map.bias)  # type: ignore[assignment]
    freeze(held)
    model.map.weight.data = weight.dequantize()
    freeze(model)
    values = scattered(method, model)
    x = torch.randn(5, INPUTS)
    grads = []
    for base in (model, with_gradients(held)):
        adapted = with_adapters(base, patches(method), [dict(own) for own in values])
        adapted(x).square().sum().backward()
        grads.append([w.grad for w in adapted.parameters() if w.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 0
    for plain, frozen in zip(*grads, strict=True):
        torch.testing.assert_close(frozen, plain, rtol=1e-3, atol=1e-3)


def test_matrices_in_few_bits_still_refuse_gradients_elsewhere():
    layer = WeightLinear(quantize(torch.randn(ROWS, INPUTS), "int8"))
    with pytest.raises(ModelError, match="give no gradients"):
        layer(torch.randn(2, INPUTS, requires_grad=True))


def test_sizes_are_checked_when_an_adapter_is_put_on():
    model = Small()
    patch = Patch("map", 0, ROWS, "there.q", "lora", rank=2)
    values = {"a": torch.zeros(2, INPUTS + 1), "b": torch.zeros(ROWS, 2)}
    with pytest.raises(ModelError, match="a of there.q does not fit its map, which is 96 x 64"):
        with_adapters(model, [patch], [values])
    with pytest.raises(ModelError, match="no nowhere"):
        with_adapters(model, [Patch("nowhere", 0, 1, "x", "lora", rank=2)], [values])


def test_weights_in_the_place_of_the_bases_leave_it_alone():
    model = Small()
    bias = torch.full((3,), 7.0)
    made = with_parameters(model, {"out.bias": bias})
    assert (made.out.bias == 7).all() and not (model.out.bias == 7).any()
    assert made.map is model.map or made.map.weight is model.map.weight
    with pytest.raises(ModelError, match="is no weight of the model"):
        with_parameters(model, {"out.bias": torch.ones(4)})

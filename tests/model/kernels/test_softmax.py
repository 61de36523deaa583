"""The softmax of short and odd rows is the one of the formula, whatever way it is computed."""

import pytest
import torch

from langue.model.kernels import softmax, softmax_gradient


@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("t", [1, 7, 8, 15, 16, 17, 31, 32, 33, 47, 64, 70, 130])
def test_both_ways_equal_the_formula(t, dtype, within):
    scores = 8 * torch.randn(6, t, t).to(dtype)
    if t > 1:
        scores[:, 0, 1:] = float("-inf")  # a causal first row
    gradient = torch.randn(6, t, t).to(dtype)
    exponents = torch.exp(scores.double() - scores.double().amax(-1, keepdim=True))
    expected = exponents / exponents.sum(-1, keepdim=True)
    weights = softmax(scores)
    assert weights.dtype == dtype and weights.is_contiguous()
    assert (weights.double() - expected).norm() <= within * expected.norm()
    w = weights.double()
    g = gradient.double()
    slow = w * (g - (w * g).sum(-1, keepdim=True))
    fast = softmax_gradient(gradient, weights)
    assert fast.dtype == dtype and fast.is_contiguous()
    assert (fast.double() - slow).norm() <= within * g.norm()

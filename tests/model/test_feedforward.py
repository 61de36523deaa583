"""Activations are their formulas, in both directions."""

import pytest
import torch

from langue.model.layers import ACTIVATIONS


@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float64, 0.0), (torch.float32, 1e-7), (torch.bfloat16, 1e-2)]
)
def test_the_square_of_a_relu(dtype, within):
    x = torch.randn(64, 48).to(dtype)
    x[0, :4] = torch.tensor([0.0, -0.0, float("inf"), float("-inf")])
    x.requires_grad_()
    gradient = torch.randn(64, 48).to(dtype)
    y = ACTIVATIONS["relu_squared"](x)
    y.backward(gradient)
    exact = x.detach().double().clamp(min=0)
    torch.testing.assert_close(y.detach().double(), exact**2, rtol=within, atol=0)
    torch.testing.assert_close(x.grad.double(), 2 * exact * gradient.double(), rtol=within, atol=0)
    assert y.dtype == x.grad.dtype == dtype

"""The chunked cross-entropy against the plain one: value and all gradients, in every option."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from langue.model import kernels as module
from langue.model.kernels import cross_entropy


@pytest.mark.parametrize("cap", [0.0, 3.0])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_plain_cross_entropy(cap, z_loss, with_bias, monkeypatch):
    monkeypatch.setattr(module, "FEWEST", 7)  # several chunks, the last one short
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 12, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = (
        torch.randn(50, generator=generator, dtype=torch.float64, requires_grad=True)
        if with_bias
        else None
    )
    labels = torch.randint(0, 50, (40,), generator=generator)
    wanted = [w for w in (hidden, weight, bias) if w is not None]

    logits = F.linear(hidden, weight, bias)
    logits = cap * torch.tanh(logits / cap) if cap else logits
    of_z = z_loss * torch.logsumexp(logits, -1).square().sum()
    plain = F.cross_entropy(logits, labels, reduction="sum") + of_z
    expected = torch.autograd.grad(3 * plain, wanted)

    ours, z_term = cross_entropy(hidden, weight, labels, bias=bias, cap=cap, z_loss=z_loss)
    found = torch.autograd.grad(3 * ours, wanted)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-12)
    assert z_term.item() == pytest.approx(of_z.item(), rel=1e-12) and not z_term.requires_grad
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_logits_are_never_held_whole(monkeypatch):
    """Nor anything else of their size: every tensor that the two passes make is smaller, the
    gradients included."""
    monkeypatch.setattr(module, "FEWEST", 16)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    hidden = torch.randn(512, 8, requires_grad=True)
    weight = torch.randn(3000, 8, requires_grad=True)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                each.untyped_storage().nbytes() // 4
                for each in tree_leaves(out)
                if torch.is_tensor(each)
            )
            return out

    with Watch():
        cross_entropy(hidden, weight, torch.arange(512))[0].backward()
    assert 16 * 3000 <= max(sizes) <= 2 * 16 * 3000 < 512 * 3000 / 10


def test_without_gradients_it_gives_the_same_loss():
    hidden = torch.randn(30, 8)
    weight = torch.randn(20, 8)
    labels = torch.randint(0, 20, (30,))
    with torch.no_grad():
        found, _ = cross_entropy(hidden, weight, labels)
    torch.testing.assert_close(found, F.cross_entropy(hidden @ weight.t(), labels, reduction="sum"))


def test_under_autocast_the_products_are_in_its_dtype():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator, requires_grad=True) for n in (64, 50))
    labels = torch.randint(0, 50, (64,), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = cross_entropy(hidden, weight, labels)
    gradients = torch.autograd.grad(found, (hidden, weight))
    plain = F.cross_entropy(hidden @ weight.t(), labels, reduction="sum")
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(plain.item(), rel=2e-2) and found.item() != plain.item()
    for ours, theirs in zip(gradients, torch.autograd.grad(plain, (hidden, weight)), strict=True):
        assert ours.dtype == torch.float32 and float((ours - theirs).norm() / theirs.norm()) < 1e-2

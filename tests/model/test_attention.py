"""The fast ragged attention against the slow obvious one, forward and backward."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from langue.data.batch import Examples, gather
from langue.model.attention import attention_reference, self_attention
from langue.model.kernels import Dropout, random_keep, scale, threshold


def batch_of(lengths: list[int]):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    examples = Examples(
        np.zeros(starts[-1], np.int32), starts, None, np.zeros(len(lengths), np.int32)
    )
    return gather(examples, np.arange(len(lengths)))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 17), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(0, 2**31),
)
def test_equals_the_float64_reference(lengths, heads, width, seed):
    batch = batch_of(lengths)
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch.n_tokens, 3, heads, width, generator=generator)
    out = self_attention(qkv, batch.groups)
    expected = attention_reference(qkv, batch.starts)
    assert (out.double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("lengths", [[1], [3, 3, 3], [2, 5, 5, 9, 1]])
def test_gradients_equal_autograd_through_the_reference(lengths):
    batch = batch_of(lengths)
    qkv = torch.randn(batch.n_tokens, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(batch.n_tokens, 8, dtype=torch.float64)
    (fast,) = torch.autograd.grad((self_attention(qkv, batch.groups) * weight).sum(), qkv)
    rows = []
    for begin, end in zip(batch.starts[:-1].tolist(), batch.starts[1:].tolist(), strict=True):
        q, k, v = (qkv[begin:end, part].transpose(0, 1) for part in range(3))
        weights = torch.softmax(q @ k.transpose(1, 2) / 2.0, -1)
        rows.append((weights @ v).transpose(0, 1).reshape(end - begin, 8))
    (slow,) = torch.autograd.grad((torch.cat(rows) * weight).sum(), qkv)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)


def test_gradients_with_dropout_are_those_of_the_masked_function():
    batch = batch_of([4, 4, 7])
    qkv = torch.randn(batch.n_tokens, 3, 2, 4, dtype=torch.float64, requires_grad=True)

    def function(x):
        torch.manual_seed(7)  # the same mask at every evaluation
        return self_attention(x, batch.groups, 0.25)

    assert torch.autograd.gradcheck(function, (qkv,), nondet_tol=0.0)


def test_one_sequence_does_not_see_another():
    batch = batch_of([3, 3, 5])
    qkv = torch.randn(batch.n_tokens, 3, 2, 4)
    before = self_attention(qkv, batch.groups)
    changed = qkv.clone()
    changed[3:6] = torch.randn(3, 3, 2, 4)
    after = self_attention(changed, batch.groups)
    assert torch.equal(before[:3], after[:3]) and torch.equal(before[6:], after[6:])
    assert not torch.equal(before[3:6], after[3:6])


def test_bf16_stays_near_the_reference():
    batch = batch_of([9, 14])
    qkv = torch.randn(batch.n_tokens, 3, 2, 16)
    expected = attention_reference(qkv.bfloat16(), batch.starts)
    out = self_attention(qkv.bfloat16(), batch.groups).double()
    assert (out - expected).norm() <= 2e-2 * expected.norm()


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_keeps_the_expectation_and_the_share(probability):
    dropped = threshold(probability)
    assert abs(dropped / 256 - probability) <= 1 / 512
    torch.manual_seed(0)
    keep = random_keep((1000, 1000), dropped, torch.device("cpu"))
    share = 1 - float(keep.float().mean())
    assert abs(share - dropped / 256) < 4 * (0.25 / 1e6) ** 0.5
    x = torch.ones(1000, 1000, requires_grad=True)
    layer = Dropout(probability)
    y = layer(x)
    assert y.unique().tolist() == pytest.approx([0.0, scale(dropped)])
    assert abs(float(y.mean()) - 1) < 5e-3
    y.sum().backward()
    assert torch.equal(x.grad, y)  # the same elements, the same scale
    assert layer.eval()(x) is x


def test_neighbouring_mask_bytes_are_independent():
    torch.manual_seed(1)
    keep = random_keep((1 << 20,), 128, torch.device("cpu")).double() - 0.5
    for lag in (1, 2, 7, 8, 64):
        assert abs(float((keep[:-lag] * keep[lag:]).mean())) < 0.25 * 5 / (1 << 10)


def test_dropout_on_a_gpu_is_one_kernel():
    """As if there were one: what is not computed needs none."""
    with FakeTensorMode():
        x = torch.empty(8, 8, device="cuda")
        with _Called() as called:
            Dropout(0.1)(x)
    assert called.names == [("native_dropout", 26 / 256)]


class _Called(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aten":
            self.names.append((func.overloadpacket.__name__, *args[1:2]))
        return func(*args, **(kwargs or {}))

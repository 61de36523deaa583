"""What every pair of loss options has its minimum at, found over free logits, is what both options
say."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from langue.model.kernels import cross_entropy
from langue.tasks.classify import Classify
from langue.tasks.masked import Masked
from langue.tasks.regress import Regress
from langue.text.read.source import Table
from langue.text.read.table import as_dataset

CLOSE = 2e-3  # of a probability at the minimum


def table_of(column, values):
    rows = {"text": [f"text {row}" for row in range(len(values))], column: values}
    return Table(as_dataset(pa.table(rows)), "here")


def minimiser(loss, *shape):
    """The logits of this shape at which the loss, which is convex, is least."""
    logits = torch.zeros(*shape, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach()


def smoothed(targets, smoothing, several):
    """What the label with its smoothing asks of each text, (N, C)."""
    spread = smoothing / 2 if several else smoothing / targets.shape[1]
    return targets * (1 - smoothing) + spread


# 990 common rows, 10 rare ones; with three labels 900, 90 and 10. With several, half of the rare
# ones have both.
ROWS = {
    ("one", 2): ["common"] * 990 + ["rare"] * 10,
    ("one", 3): ["common"] * 900 + ["rare"] * 10 + ["some"] * 90,
    ("several", 2): [["common"]] * 900 + [["rare"]] * 5 + [["common", "rare"]] * 5 + [[]] * 90,
}


@pytest.mark.parametrize(
    ("kind", "smoothing", "weights"),
    list(product(ROWS, (0.0, 0.1, 0.3), ("none", "balanced"))),
    ids=str,
)
def test_weights_and_smoothing_of_labels(kind, smoothing, weights):
    several = kind[0] == "several"
    table = table_of("label", ROWS[kind])
    settings = Classify.Options(
        label_smoothing=smoothing, class_weights=weights, multi_label=several
    )
    task = Classify.fit(table, settings)
    targets = torch.from_numpy(task.golds(table))
    hot = targets if several else F.one_hot(targets).float()

    def mean_loss(logits):
        total, count = task.loss(logits, SimpleNamespace(targets=targets))
        return total / count

    # Each text has logits of its own: what it is trained towards is its smoothed label, whatever
    # its weight.
    kinds, row_of = np.unique(hot.numpy(), axis=0, return_inverse=True)
    own = torch.from_numpy(
        task.predict(minimiser(lambda free: mean_loss(free[row_of]), *kinds.shape))
    )
    asked = smoothed(torch.from_numpy(kinds), smoothing, several)
    assert torch.allclose(own, asked, atol=CLOSE if smoothing else 0.02)

    # All texts have the same logits: the answer is the share of each label, or with weights that of
    # each alike.
    shared = minimiser(lambda free: mean_loss(free.expand(len(hot), -1)), 1, task.n_outputs)
    if weights == "none":
        share = smoothed(hot, smoothing, several).mean(0)
    else:
        share = torch.full((task.n_outputs,), 0.5 if several else 1 / task.n_outputs)
    assert torch.allclose(torch.from_numpy(task.predict(shared))[0], share, atol=CLOSE)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("scale", [1.0, 4096.0])
def test_scores_with_every_pooling(pooling, scale):
    scores = (scale * np.array([1.0, 2.0, 2.0, 7.0], np.float32)).tolist()
    task = Regress.fit(table_of("score", scores), Regress.Options(pooling=pooling))
    batch = SimpleNamespace(targets=torch.tensor(scores))
    own = task.predict(minimiser(lambda free: task.loss(free, batch)[0], 4, 1))
    np.testing.assert_allclose(own[:, 0], scores, rtol=1e-3)
    shared = task.predict(minimiser(lambda free: task.loss(free.expand(4, 1), batch)[0], 1, 1))
    np.testing.assert_allclose(shared[0, 0], 3.0 * scale, rtol=1e-3)


@pytest.mark.parametrize(("z_loss", "cap"), list(product((0.0, 1e-2, 1.0), (0.0, 8.0))))
def test_z_loss_and_the_cap_of_logits_move_no_probability(z_loss, cap):
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    identity = torch.eye(3)  # so that hidden states are the logits themselves

    def mean_loss(logits):
        total, _ = cross_entropy(logits.expand(10, 3), identity, labels, cap=cap, z_loss=z_loss)
        return total / 10

    logits = minimiser(mean_loss, 1, 3)
    logits = cap * torch.tanh(logits / cap) if cap else logits
    assert torch.allclose(logits.softmax(-1), torch.tensor([[0.6, 0.3, 0.1]]), atol=CLOSE)
    if z_loss:
        assert abs(float(logits.logsumexp(-1))) < 0.02


@pytest.mark.parametrize("mask_ratio", [0.15, 0.6])
def test_pairs_are_told_by_their_share_whatever_is_masked(mask_ratio):
    """The pair loss counts a piece by its length; how much is masked weighs it against the tokens'
    loss alone."""
    # pieces of 10, 10, 20 and 0 tokens, with three special ones each
    starts = torch.tensor([0, 13, 26, 49, 52])
    batch = SimpleNamespace(targets=torch.tensor([0, 1, 1, -1]), starts=starts)
    objective = SimpleNamespace(
        pairs=True,
        settings=Masked.Options(mask_ratio=mask_ratio),
        overhead=SimpleNamespace(chunk=3),
    )
    objective._follows = lambda *given: Masked._follows(objective, *given)
    model = SimpleNamespace(head=SimpleNamespace(next_sentence_logits=lambda states: states))
    shared = minimiser(lambda free: Masked.extra(objective, model, free.expand(52, 2), batch), 1, 2)
    assert torch.allclose(shared.softmax(-1), torch.tensor([[0.25, 0.75]]), atol=CLOSE)

"""Heads on single tokens and the conditional random field, against all sequences of labels."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from langue.errors import ModelError
from langue.model.config import ModelConfig
from langue.model.token_heads import CRF, SpanHead, TokenHead, sequence_log_softmax, viterbi

CONFIG = ModelConfig(vocab_size=11, dim=6, n_layers=1, n_heads=1, ffn_dim=8, max_length=8)
# no tokens in some, equal lengths in others, in no order
LENGTHS = [(3, 1, 0, 4, 3, 2), (1,), (0, 0), (2, 2), (0, 5)]
# of outside, begin and inside: no inside after an outside or at the beginning, nor an end inside
ALLOWED = torch.tensor(
    [
        [True, True, False, True],
        [True, True, True, True],
        [True, True, True, False],
        [True, True, False, False],
    ]  # fmt: skip
)


def draw(lengths, labels=3, seed=0):
    """A CRF, emissions (M, C), labels (M,) and offsets (N + 1,), in fp64."""
    generator = torch.Generator().manual_seed(seed)
    crf = CRF(labels).double()
    for weight in crf.parameters():
        weight.data.normal_(generator=generator)
    emissions = torch.randn(sum(lengths), labels, generator=generator, dtype=torch.float64)
    gold = torch.randint(0, labels, (sum(lengths),), generator=generator)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return crf, emissions, gold, offsets


def path_score(crf, emissions, path):
    """The score of one sequence's labels, term by term."""
    score = sum(emissions[t, label] for t, label in enumerate(path))
    score = score + sum(crf.transitions[a, b] for a, b in zip(path, path[1:], strict=False))
    return score + crf.start[path[0]] + crf.end[path[-1]] if path else emissions.sum()


def all_paths(crf, emissions):
    """Every sequence of labels and its score."""
    paths = list(product(range(emissions.shape[1]), repeat=len(emissions)))
    return paths, torch.stack([path_score(crf, emissions, path) for path in paths])


def is_allowed(path):
    edges = zip((3, *path), (*path, 3), strict=True)
    return not path or all(bool(ALLOWED[a, b]) for a, b in edges)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_crf_is_the_sum_over_all_label_sequences(lengths):
    """Likelihood, gradients, marginals, and the best sequence with constraints and without."""
    crf, emissions, gold, offsets = draw(lengths)
    emissions.requires_grad_()
    inputs = [emissions, *crf.parameters()]
    ours = crf(emissions, gold, offsets)
    marginals = crf.marginals(emissions, offsets)
    best = crf.decode(emissions, offsets)
    constrained = crf.decode(emissions, offsets, ALLOWED)
    plain = []
    for n, (a, b) in enumerate(zip(offsets, offsets[1:], strict=False)):
        paths, scores = all_paths(crf, emissions[a:b])
        right = path_score(crf, emissions[a:b], tuple(gold[a:b].tolist()))
        plain.append(scores.logsumexp(0) - right)
        torch.testing.assert_close(ours[n], plain[-1], rtol=1e-10, atol=1e-10)
        probabilities = scores.softmax(0)
        for t in range(b - a):
            for label in range(3):
                here = torch.tensor([path[t] == label for path in paths])
                torch.testing.assert_close(marginals[a + t, label], probabilities[here].sum())
        assert tuple(best[a:b].tolist()) == paths[int(scores.argmax())]
        kept = [i for i, path in enumerate(paths) if is_allowed(path)]
        assert tuple(constrained[a:b].tolist()) == paths[kept[int(scores[kept].argmax())]]
    found = torch.autograd.grad(ours.sum(), inputs, allow_unused=True)
    expected = torch.autograd.grad(sum(plain), inputs, allow_unused=True)
    for mine, other, weight in zip(found, expected, inputs, strict=True):
        mine = torch.zeros_like(weight) if mine is None else mine
        other = torch.zeros_like(weight) if other is None else other
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


def test_gradients_by_finite_differences():
    crf, emissions, gold, offsets = draw((3, 0, 1, 4))
    parts = [emissions, *(weight.detach() for weight in crf.parameters())]

    def likelihood(emissions, transitions, start, end):
        given = {"transitions": transitions, "start": start, "end": end}
        return torch.func.functional_call(crf, given, (emissions, gold, offsets))

    assert torch.autograd.gradcheck(likelihood, [part.requires_grad_() for part in parts])


def test_a_sequence_does_not_see_its_company():
    """The likelihood and labels of a long sequence are those that it has alone, in fp32, and stay
    finite where the probabilities do not."""
    lengths = (20, 60, 7, 20)
    crf, emissions, gold, offsets = draw(lengths, labels=5, seed=2)
    crf = crf.float()
    emissions = 100 * emissions.float()
    together = crf(emissions, gold, offsets)
    labels = crf.decode(emissions, offsets)
    assert bool(together.isfinite().all()) and bool((together >= 0).all())
    for n, (a, b) in enumerate(zip(offsets, offsets[1:], strict=False)):
        alone = torch.tensor([0, b - a])
        torch.testing.assert_close(crf(emissions[a:b], gold[a:b], alone)[0], together[n])
        assert torch.equal(crf.decode(emissions[a:b], alone), labels[a:b])


def test_a_new_crf_is_a_softmax_of_each_token():
    _, emissions, gold, offsets = draw((3, 4))
    expected = F.cross_entropy(emissions, gold, reduction="sum")
    torch.testing.assert_close(CRF(3).double()(emissions, gold, offsets).sum(), expected)
    assert torch.equal(viterbi(emissions, offsets), emissions.argmax(1))


def test_labels_that_cannot_be_are_an_error():
    _, emissions, _, offsets = draw((1, 3))
    shut = torch.ones(4, 4, dtype=torch.bool)
    shut[3] = False  # none may begin
    with pytest.raises(ModelError, match="no sequence of labels is allowed"):
        viterbi(emissions, offsets, allowed=shut)
    with pytest.raises(ModelError, match="NaN"):
        viterbi(emissions * torch.nan, offsets)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_log_softmax_of_each_sequence(lengths):
    _, scores, _, offsets = draw(lengths)
    scores.requires_grad_()
    ours = sequence_log_softmax(200 * scores, offsets)
    pairs = zip(offsets, offsets[1:], strict=False)
    plain = torch.cat([(200 * scores[a:b]).log_softmax(0) for a, b in pairs])
    torch.testing.assert_close(ours, plain)
    weights = torch.randn(ours.shape, dtype=torch.float64)
    (found,) = torch.autograd.grad((ours * weights).sum(), scores)
    (expected,) = torch.autograd.grad((plain * weights).sum(), scores)
    torch.testing.assert_close(found, expected)


def test_heads_score_the_selected_tokens():
    torch.manual_seed(0)
    hidden = torch.randn(7, 6)
    places = torch.tensor([5, 0, 3])
    head = TokenHead(CONFIG, 4, dropout=0.5).eval()
    every = head(hidden)
    torch.testing.assert_close(every, hidden @ head.out.weight.T + head.out.bias)
    torch.testing.assert_close(head(hidden, places=places), every[places])
    assert SpanHead(CONFIG)(hidden).shape == (7, 2) and head.crf is None
    head.train()
    assert not torch.equal(head(hidden), every)
    with torch.autocast("cpu", torch.bfloat16):  # the scores are not rounded
        torch.testing.assert_close(head.eval()(hidden), every)
    assert head.bfloat16()(hidden.bfloat16()).dtype == torch.float32
    assert head.double()(hidden.double()).dtype == torch.float64

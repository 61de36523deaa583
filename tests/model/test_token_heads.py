"""Heads on single tokens and the conditional random field, against all sequences of labels."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from langue.errors import ModelError
from langue.model.config import ModelConfig
from langue.model.token_heads import (
    CRF,
    ChainScores,
    SpanHead,
    TokenHead,
    chain_loss,
    constrained,
    marginals,
    sequence_log_softmax,
    viterbi,
)

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


def path_score(crf, emissions, path, whole=(True, True)):
    """The score of one sequence's labels, term by term."""
    score = sum(emissions[t, label] for t, label in enumerate(path))
    score = score + sum(crf.transitions[a, b] for a, b in zip(path, path[1:], strict=False))
    if not path:
        return emissions.sum()
    begin = crf.start[path[0]] if whole[0] else 0.0
    end = crf.end[path[-1]] if whole[1] else 0.0
    return score + begin + end


def all_paths(crf, emissions, whole=(True, True)):
    """Every sequence of labels and its score."""
    paths = list(product(range(emissions.shape[1]), repeat=len(emissions)))
    return paths, torch.stack([path_score(crf, emissions, path, whole) for path in paths])


def is_allowed(path):
    edges = zip((3, *path), (*path, 3), strict=True)
    return not path or all(bool(ALLOWED[a, b]) for a, b in edges)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_crf_is_the_sum_over_all_label_sequences(lengths):
    """Likelihood, gradients, marginals, and the best sequence with constraints and without."""
    crf, emissions, gold, offsets = draw(lengths)
    emissions.requires_grad_()
    inputs = [emissions, *crf.parameters()]
    chain = ChainScores(emissions, crf.edges())
    valid = ChainScores(emissions, constrained(crf.edges(), ALLOWED))
    ours = chain_loss(chain, gold, offsets)
    chances = [marginals(each, offsets) for each in (chain, valid)]
    best = viterbi(chain, offsets)
    best_valid = viterbi(valid, offsets)
    plain = []
    for n, (a, b) in enumerate(zip(offsets, offsets[1:], strict=False)):
        paths, scores = all_paths(crf, emissions[a:b])
        right = path_score(crf, emissions[a:b], tuple(gold[a:b].tolist()))
        plain.append(scores.logsumexp(0) - right)
        torch.testing.assert_close(ours[n], plain[-1], rtol=1e-10, atol=1e-10)
        kept = torch.tensor([is_allowed(path) for path in paths])
        among = [scores.softmax(0), scores.masked_fill(~kept, -torch.inf).softmax(0)]
        for t, label, kind in product(range(b - a), range(3), range(2)):
            here = torch.tensor([path[t] == label for path in paths])
            torch.testing.assert_close(chances[kind][a + t, label], among[kind][here].sum())
        assert tuple(best[a:b].tolist()) == paths[int(scores.argmax())]
        assert tuple(best_valid[a:b].tolist()) == paths[int(among[1].argmax())]
    found = torch.autograd.grad(ours.sum(), inputs, allow_unused=True)
    expected = torch.autograd.grad(sum(plain), inputs, allow_unused=True)
    assert_same_gradients(inputs, found, expected)


def assert_same_gradients(inputs, found, expected):
    for mine, other, weight in zip(found, expected, inputs, strict=True):
        mine = torch.zeros_like(weight) if mine is None else mine
        other = torch.zeros_like(weight) if other is None else other
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-10)


def test_the_part_of_a_text_has_no_edge_where_it_is_cut():
    """Likelihood and gradients, of parts that begin or end as their text does, or neither."""
    lengths = (3, 1, 0, 4, 3)
    crf, emissions, gold, offsets = draw(lengths)
    inputs = [emissions.requires_grad_(), *crf.parameters()]
    whole = torch.tensor(
        [[True, False], [False, False], [False, True], [False, True], [True, True]]
    )
    ours = chain_loss(ChainScores(emissions, crf.edges()), gold, offsets, whole)
    plain = []
    for n, (a, b) in enumerate(zip(offsets, offsets[1:], strict=False)):
        _, scores = all_paths(crf, emissions[a:b], whole[n])
        right = path_score(crf, emissions[a:b], tuple(gold[a:b].tolist()), whole[n])
        plain.append(scores.logsumexp(0) - right)
    torch.testing.assert_close(ours, torch.stack(plain), rtol=1e-10, atol=1e-10)
    expected = torch.autograd.grad(sum(plain), inputs)
    assert_same_gradients(inputs, torch.autograd.grad(ours.sum(), inputs), expected)


def test_gradients_by_finite_differences():
    crf, emissions, gold, offsets = draw((3, 0, 1, 4))
    parts = [emissions.requires_grad_(), crf.edges().detach().requires_grad_()]

    def likelihood(emissions, edges):
        return chain_loss(ChainScores(emissions, edges), gold, offsets)

    assert torch.autograd.gradcheck(likelihood, parts)


def test_a_sequence_does_not_see_its_company():
    """The likelihood and labels of a long sequence are those that it has alone, in fp32, and stay
    finite where the probabilities do not."""
    lengths = (20, 60, 7, 20)
    crf, emissions, gold, offsets = draw(lengths, labels=5, seed=2)
    edges = crf.float().edges()
    emissions = 100 * emissions.float()
    together = chain_loss(ChainScores(emissions, edges), gold, offsets)
    labels = viterbi(ChainScores(emissions, edges), offsets)
    assert bool(together.isfinite().all()) and bool((together >= 0).all())
    for n, (a, b) in enumerate(zip(offsets, offsets[1:], strict=False)):
        alone = torch.tensor([0, b - a])
        part = ChainScores(emissions[a:b], edges)
        torch.testing.assert_close(chain_loss(part, gold[a:b], alone)[0], together[n])
        assert torch.equal(viterbi(part, alone), labels[a:b])


def test_a_new_crf_is_a_softmax_of_each_token():
    _, emissions, gold, offsets = draw((3, 4))
    expected = F.cross_entropy(emissions, gold, reduction="sum")
    chain = ChainScores(emissions, CRF(3).double().edges())
    torch.testing.assert_close(chain_loss(chain, gold, offsets).sum(), expected)
    assert torch.equal(viterbi(chain, offsets), emissions.argmax(1))


def test_a_shift_of_all_scores_of_a_token_changes_nothing():
    """So that log-probabilities of single tokens may stand for their scores."""
    crf, emissions, gold, offsets = draw((3, 0, 4))
    chain = ChainScores(emissions, crf.edges())
    shifted = ChainScores(emissions.log_softmax(1), crf.edges())
    for function in (marginals, viterbi):
        torch.testing.assert_close(function(shifted, offsets), function(chain, offsets))
    expected = chain_loss(chain, gold, offsets)
    torch.testing.assert_close(chain_loss(shifted, gold, offsets), expected)


def test_labels_that_cannot_be_are_an_error():
    _, emissions, _, offsets = draw((1, 3))
    edges = torch.zeros(4, 4, dtype=torch.float64)
    shut = torch.ones(4, 4, dtype=torch.bool)
    shut[3] = False  # none may begin
    with pytest.raises(ModelError, match="no sequence of labels is allowed"):
        viterbi(ChainScores(emissions, constrained(edges, shut)), offsets)
    with pytest.raises(ModelError, match="NaN"):
        viterbi(ChainScores(emissions * torch.nan, edges), offsets)


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
    chained = TokenHead(CONFIG, 4, crf=True).eval()
    scores, edges = chained(hidden, places=places)
    assert scores.shape == (3, 4) and edges.shape == (5, 5)
    head.train()
    assert not torch.equal(head(hidden), every)
    with torch.autocast("cpu", torch.bfloat16):  # the scores are not rounded
        torch.testing.assert_close(head.eval()(hidden), every)
    assert head.bfloat16()(hidden.bfloat16()).dtype == torch.float32
    assert head.double()(hidden.double()).dtype == torch.float64

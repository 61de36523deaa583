"""Each processor and filter gives what the one of the same name in `transformers` gives, on random
logits and contexts."""

import random

import numpy as np
import pytest
import torch

from langue.generation import filters
from langue.generation.processors import Context, CountPenalty, NoRepeatNgram, RepetitionPenalty
from langue.generation.sample import Chooser, Sampling, sampling_of
from langue.hub.generation_config import read_generation

transformers = pytest.importorskip("transformers")

V = 23
END = [2, 20]


class Reference:
    """What `transformers` would apply to one sequence, from its own GenerationConfig."""

    def __init__(self, rules, given, limit):
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=V, n_embd=4, n_layer=1, n_head=1)
        )
        config = transformers.GenerationConfig(eos_token_id=END, max_length=given + limit, **rules)
        model._prepare_special_tokens(config, True)
        self.processors = model._get_logits_processor(config, input_ids_seq_length=given)

    def __call__(self, tokens, logits):
        return self.processors(torch.tensor([tokens]), logits[None].clone())[0]


RULES = {
    "repetition_penalty": lambda draw: draw.choice([0.5, 1.2, 3.0]),
    "no_repeat_ngram_size": lambda draw: draw.choice([1, 2, 3, 5]),
    "min_length": lambda draw: draw.randint(1, 9),
    "min_new_tokens": lambda draw: draw.randint(1, 5),
    "suppress_tokens": lambda draw: draw.sample(range(V), 3),
    "begin_suppress_tokens": lambda draw: draw.sample(range(V), 3),
    "forced_bos_token_id": lambda draw: draw.randrange(V),
    "forced_eos_token_id": lambda draw: draw.choice([2, [5, 6]]),
    "bad_words_ids": lambda draw: _words(draw) + [END[:1]],
    "sequence_bias": lambda draw: [
        [word, draw.choice([-2.5, 0.75, 10.0])] for word in _words(draw)
    ],
}


def _words(draw):
    """Tokens are few, so that those before the last one have often been written."""
    words = [[draw.randrange(6) for _ in range(draw.choice([1, 1, 2, 3]))] for _ in range(8)]
    return [list(word) for word in dict.fromkeys(map(tuple, words))]


def _compare(rules, draw, steps=6):
    """How many steps the rules change; each is equal to the reference within 1e-6."""
    given = draw.choice([1, 1, 2, 5, 9])
    context = [draw.randrange(6) for _ in range(given)]
    reference = Reference(rules, given, steps)
    config = read_generation({"eos_token_id": END, **rules}, {}, V, "file")
    assert config.not_followed == ()
    one = Chooser(sampling_of(config, steps), config, context, steps, V)
    changed = 0
    for _ in range(steps):
        logits = torch.from_numpy(np.random.default_rng(draw.getrandbits(32)).normal(0, 3, V))
        logits = logits.float()
        before = logits.clone()
        expected = reference(context, logits)
        assert torch.allclose(one.process(logits), expected, rtol=1e-6, atol=1e-6), (rules, context)
        assert torch.equal(logits, before)
        changed += not torch.equal(expected, logits)
        token = draw.randrange(6)
        context.append(token)
        one.accept(token)
    return changed


@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_that_of_transformers(name):
    draw = random.Random(name)
    changed = sum(_compare({name: RULES[name](draw)}, draw) for _ in range(20))
    assert changed >= 5


def test_rules_together_come_in_the_order_of_transformers():
    """What is forced comes last here; there, what is suppressed beats it and nothing is left."""
    draw = random.Random(0)
    names = [name for name in RULES if "suppress" not in name]
    for _ in range(60):
        _compare({name: RULES[name](draw) for name in draw.sample(names, 4)}, draw)
    names = [name for name in RULES if "forced" not in name and name != "no_repeat_ngram_size"]
    for _ in range(60):
        _compare({name: RULES[name](draw) for name in draw.sample(names, 4)}, draw)


def test_presence_and_frequency_are_openais_formula():
    """logit - count * frequency - (count > 0) * presence, of what was written."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        presence, frequency = rng.uniform(-2, 2, 2)
        given = rng.integers(V, size=rng.integers(1, 9)).tolist()
        written = rng.integers(6, size=rng.integers(0, 30)).tolist()
        context = Context(given)
        for token in written:
            context.add(token)
        logits = torch.from_numpy(rng.normal(0, 3, V)).float()
        counts = np.asarray([written.count(token) for token in range(V)])
        expected = logits.numpy() - counts * frequency - (counts > 0) * presence
        found = CountPenalty(presence, frequency)(logits, context)
        assert np.allclose(found, expected, rtol=1e-6, atol=1e-5)


def test_no_two_options_of_the_caller_are_mixed_up():
    """logit_bias replaces the model's bias of the same token; the rest of the model's stays."""
    config = read_generation({"sequence_bias": [[[3], 5.0], [[4], 7.0]]}, {}, V, "file")
    one = Chooser(Sampling(logit_bias={3: -1.0}), config, [1], 5, V)
    found = one.process(torch.zeros(V))
    assert [float(found[3]), float(found[4]), float(found.abs().sum())] == [-1.0, 7.0, 8.0]


def test_long_contexts_give_what_the_slow_way_gives():
    rng = np.random.default_rng(1)
    tokens = rng.integers(6, size=700).tolist()
    context = Context(tokens[:5])
    for token in tokens[5:]:
        context.add(token)
    logits = torch.from_numpy(rng.normal(0, 3, V)).float()
    for size in (1, 2, 3, 4):
        last = tokens[len(tokens) - size + 1 :]
        banned = {
            tokens[place + size - 1]
            for place in range(len(tokens) - size + 1)
            if tokens[place : place + size - 1] == last
        }
        found = NoRepeatNgram(size)(logits, context)
        assert set(torch.isinf(found).nonzero()[:, 0].tolist()) == banned
        assert banned
    weaker = RepetitionPenalty(2.0)(logits, context)
    expected = torch.where(logits < 0, logits * 2, logits / 2)
    expected[6:] = logits[6:]
    assert torch.equal(weaker, expected)


FILTERS = {
    "top_k": (filters.top_k, "TopKLogitsWarper", [1, 5, 22, 23, 500]),
    "top_p": (filters.top_p, "TopPLogitsWarper", [0.01, 0.3, 0.9, 0.999]),
    "min_p": (filters.min_p, "MinPLogitsWarper", [0.001, 0.05, 0.5, 1.0]),
    "typical_p": (filters.typical_p, "TypicalLogitsWarper", [0.05, 0.3, 0.9, 0.99]),
    "epsilon_cutoff": (filters.epsilon_cutoff, "EpsilonLogitsWarper", [3e-4, 0.02, 0.5]),
    "eta_cutoff": (filters.eta_cutoff, "EtaLogitsWarper", [3e-4, 0.02, 0.5]),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [V, 3_000])
def test_each_filter_is_that_of_transformers(name, size):
    keep, warper, values = FILTERS[name]
    rng = np.random.default_rng(2)
    removed = 0
    for spread in (0.1, 1.0, 3.0, 20.0):
        for value in values:
            for forbidden in (0, size // 2):
                logits = rng.normal(0, spread, size).astype(np.float32)
                logits[rng.permutation(size)[:forbidden]] = -np.inf
                scores = torch.from_numpy(logits)[None]
                expected = getattr(transformers, warper)(value)(torch.tensor([[0]]), scores)[0]
                found = np.where(keep(logits, value), logits, -np.inf)
                assert np.array_equal(found, expected.numpy()), (spread, value, forbidden)
                removed += int(np.isinf(found).sum()) - forbidden
    assert removed > 0


def test_ties_at_the_border():
    """top_k keeps all that are as likely as the last one; top_p keeps no more than it needs."""
    logits = np.asarray([1.0, 2.0, 1.0, 1.0, 0.0], np.float32)
    assert filters.top_k(logits, 2).tolist() == [True, True, True, True, False]
    assert filters.top_p(np.zeros(8, np.float32), 0.5).tolist() == [True] * 4 + [False] * 4
    assert filters.top_p(logits, 0.6).tolist() == [True, True, False, False, False]
    assert filters.typical_p(np.zeros(8, np.float32), 0.5).all()


def test_the_smallest_set_is_what_sorting_all_gives():
    """The fast way of top_p, which sorts only what can be in the set, against the formula."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        size = int(rng.integers(2, 400))
        logits = rng.normal(0, rng.choice([0.0, 0.3, 2.0, 9.0]), size).astype(np.float32)
        p = float(rng.uniform(0.01, 0.999))
        probabilities = filters.softmax(logits).astype(np.float64)
        order = np.argsort(-probabilities, kind="stable")
        before = np.cumsum(probabilities[order]) - probabilities[order]
        expected = np.zeros(size, bool)
        expected[order[before < p]] = True
        assert np.array_equal(filters.top_p(logits, p), expected)

"""How one request's tokens are chosen: settings, draws, log-probabilities; and that no row of a
batch changes another."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from langue.errors import ModelError
from langue.generation.sample import Choice, Chooser, Sampling, choose, draw, sampling_of
from langue.hub.generation_config import GenerationConfig

PLAIN = GenerationConfig()
V = 61


def chooser(sampling=None, config=PLAIN, context=(5, 9), limit=20, vocabulary=V, sample=0, **words):
    sampling = sampling or Sampling(**words)
    return Chooser(sampling, config, context, limit, vocabulary, sample)


def logits_of(seed, *shape, spread=3.0):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("max_tokens", 0, "a whole number from 1 on"),
        ("max_tokens", 2.0, "a whole number from 1 on"),
        ("max_tokens", True, "a whole number from 1 on"),
        ("temperature", math.inf, "0, or a number from 1e-06 on"),
        ("temperature", math.nan, "0, or a number from 1e-06 on"),
        ("temperature", -1.0, "0, or a number from 1e-06 on"),
        ("temperature", 1e-9, "0, or a number from 1e-06 on"),
        ("temperature", "hot", "0, or a number from 1e-06 on"),
        ("temperature", None, "0, or a number from 1e-06 on"),
        ("top_k", -1, r"a whole number from 0 \(all\) on"),
        ("top_k", 2.5, r"a whole number from 0 \(all\) on"),
        ("top_p", 0.0, "a number above 0, at most 1"),
        ("top_p", 1.01, "a number above 0, at most 1"),
        ("top_p", math.nan, "a number above 0, at most 1"),
        ("min_p", -0.1, "a number from 0 to 1"),
        ("min_p", 1.1, "a number from 0 to 1"),
        ("typical_p", 0.0, "a number above 0, at most 1"),
        ("seed", -1, r"a whole number from 0 to 2\^63 - 1"),
        ("seed", 2**63, r"a whole number from 0 to 2\^63 - 1"),
        ("repetition_penalty", 0.0, "a number from 1e-06 to 1e.06; 1 is none"),
        ("repetition_penalty", math.inf, "a number from 1e-06 to 1e.06; 1 is none"),
        ("presence_penalty", math.nan, "a number from -1e.06 to 1e.06; 0 is none"),
        ("frequency_penalty", math.inf, "a number from -1e.06 to 1e.06; 0 is none"),
        ("no_repeat_ngram", -2, r"a whole number from 0 \(none\) on"),
        ("min_tokens", -1, "a whole number from 0 on"),
        ("logprobs", -1, "None, or how many of the likeliest, from 0 on"),
        ("logprobs", 1.5, "None, or how many of the likeliest, from 0 on"),
    ],
)
def test_a_value_out_of_range_is_one_clear_line(name, value, wanted):
    with pytest.raises(ModelError, match=f"^{name} = .* cannot be followed; give {wanted}$"):
        Sampling(**{name: value})


def test_contradictions_and_tokens_that_are_none():
    with pytest.raises(ModelError, match="min_tokens = 9 is more than max_tokens = 8; lower"):
        Sampling(max_tokens=8, min_tokens=9)
    for bias in ({"5": 1.0}, {5: "1"}, {5: math.nan}, {5: math.inf}, {True: 1.0}, {5: 1e30}):
        with pytest.raises(ModelError, match="logit_bias has .*; give token ids, each with"):
            Sampling(logit_bias=bias)
    with pytest.raises(ModelError, match="logit_bias is of the kind list; give a mapping"):
        Sampling(logit_bias=[1])
    for token in (V, -1):
        with pytest.raises(ModelError, match=f"logit_bias: the token {token} is not of the model"):
            chooser(logit_bias={token: 1.0})
        with pytest.raises(ModelError, match=f"the prompt: the token {token} is not of the model"):
            chooser(context=[3, token])
    chooser(logit_bias={np.int64(V - 1): -math.inf, 0: -100})


def test_what_is_not_given_is_as_the_model_says():
    config = GenerationConfig(
        min_p=0.1,
        typical_p=0.5,
        repetition_penalty=1.3,
        no_repeat_ngram_size=3,
        min_new_tokens=12,
    )
    made = sampling_of(config)
    assert (made.min_p, made.typical_p, made.repetition_penalty) == (0.1, 0.5, 1.3)
    assert (made.no_repeat_ngram, made.min_tokens, made.temperature) == (3, 12, 0.0)
    assert sampling_of(config, 5).min_tokens == 5
    given = {"min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0, "no_repeat_ngram": 0}
    given |= {"min_tokens": 0, "logprobs": 3, "logit_bias": {1: 2.0}}
    given |= {"presence_penalty": 0.5, "frequency_penalty": -0.5}
    assert sampling_of(config, 5, **given) == Sampling(max_tokens=5, **given)


def test_only_a_row_that_asks_for_nothing_is_plainly_greedy():
    assert chooser().is_plain_greedy
    asked = [
        {"temperature": 1.0},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": 0.1},
        {"no_repeat_ngram": 2},
        {"logit_bias": {1: 1.0}},
        {"logprobs": 0},
    ]
    assert not any(chooser(**words).is_plain_greedy for words in asked)
    assert chooser(top_k=5, top_p=0.5, min_p=0.5, typical_p=0.5).is_plain_greedy
    # What has no end cannot end too early.
    assert chooser(min_tokens=2).is_plain_greedy
    assert not chooser(min_tokens=2, config=GenerationConfig(end=frozenset([1]))).is_plain_greedy
    assert not chooser(config=GenerationConfig(forced_eos=(1,))).is_plain_greedy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_greedy_rows_take_the_likeliest_and_the_first_of_equals(dtype):
    logits = logits_of(0, 7, V).to(dtype)
    logits[3, [8, 20]] = 50
    found = choose(logits, [chooser()] * 7, [None] * 7)
    assert [each.token for each in found] == [row.tolist().index(row.max()) for row in logits]
    assert found[3] == Choice(8, None, ())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_fail_their_own_row_alone(bad, temperature):
    logits = logits_of(1, 4, V)
    rows = [chooser(temperature=temperature, seed=row) for row in range(4)]
    whole = choose(logits, rows, [None] * 4)
    if bad == -math.inf:
        logits[2] = bad
    else:
        logits[2, 17] = bad
    found = choose(logits, rows, [None] * 4)
    assert isinstance(found[2], ModelError) and "the logits are NaN or Inf" in str(found[2])
    assert [found[0], found[1], found[3]] == [whole[0], whole[1], whole[3]]
    with pytest.raises(ModelError, match="the logits are NaN or Inf"):
        rows[2].choose(logits[2])


def test_a_draw_is_the_same_in_any_company():
    """1,500 random batches; each token is what its request draws alone."""
    rng = np.random.default_rng(0)
    table = logits_of(2, 50, V)
    settings = [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 9},
        {"temperature": 1.3, "top_p": 0.8, "repetition_penalty": 1.2},
        {"temperature": 1.0, "min_p": 0.05, "logprobs": 2},
        {},
        {"temperature": 2.0, "typical_p": 0.7, "frequency_penalty": 0.5},
    ]
    alone = {}
    for _ in range(1_500):
        picked = rng.integers(50, size=rng.integers(1, 5))
        rows = [chooser(seed=int(n) // 7, **settings[n % len(settings)]) for n in picked]
        found = choose(table[torch.from_numpy(picked)], rows, [None] * len(rows))
        for n, choice, row in zip(picked.tolist(), found, rows, strict=True):
            if n not in alone:
                alone[n] = row.choose(table[n])
            assert choice == alone[n]


def test_a_draw_is_a_function_of_seed_sample_and_place():
    def uniforms(seed, sample, new):
        one = chooser(seed=seed, sample=sample, temperature=1.0, context=range(3))
        for _ in range(new):
            one.accept(1)
        assert one.uniform() == one.uniform()
        return [one.uniform(which) for which in range(4)]

    found = [
        number
        for seed in (0, 1, 2**63 - 1)
        for sample in (0, 1, 2)
        for new in range(5)
        for number in uniforms(seed, sample, new)
    ]
    assert len(set(found)) == len(found) and min(found) >= 0 and max(found) < 1
    assert uniforms(7, 1, 3) == uniforms(7, 1, 3)
    for seed, sample, new in ((1, 0, 0), (2**63 - 1, 2, 4)):
        # NumPy adds one to the counter before it draws.
        words = philox([new + 1, 0, 0, 0], [seed, sample])
        assert uniforms(seed, sample, new) == [(word >> 11) / 2**53 for word in words]


def philox(counter, key):
    """Philox4x64-10 of Salmon et al. 2011, in plain integers: a text with a seed is to stay the
    same in later versions."""
    most = 2**64 - 1
    for _ in range(10):
        products = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        low = [product & most for product in products]
        high = [product >> 64 for product in products]
        counter = [
            high[1] ^ counter[1] ^ key[0],
            low[1],
            high[0] ^ counter[3] ^ key[1],
            low[0],
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & most, (key[1] + 0xBB67AE8584CAA73B) & most]
    return counter


def test_the_uniform_numbers_are_uniform():
    one = chooser(seed=3, temperature=1.0)
    found = []
    for _ in range(4_000):
        found += [one.uniform(), one.uniform(1)]
        one.accept(0)
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(found[::2], found[1::2])[0, 1]) < 0.06  # 4 standard errors: 0.063


def test_a_draw_ends_within_what_weighs_something():
    weights = np.asarray([0, 0.5, 0, 0.5, 0, 0], np.float32)
    assert [draw(weights, uniform) for uniform in (0.0, 0.49, 0.5, 1 - 2**-53)] == [1, 1, 3, 3]
    # That is what a sum in float32 gets wrong: 2^25 tokens that weigh as little as 2^-25 each.
    many = np.full(2**20, 2.0**-26, np.float32)
    many[0] = 1.0
    assert draw(many, 1 - 2**-40) == 2**20 - 1


SAMPLERS = {
    "temperature": {"temperature": 0.8},
    "hot": {"temperature": 3.0},
    "top_k": {"temperature": 1.0, "top_k": 3},
    "top_p": {"temperature": 1.2, "top_p": 0.7},
    "min_p": {"temperature": 1.0, "min_p": 0.2},
    "typical_p": {"temperature": 1.0, "typical_p": 0.6},
    "all": {"temperature": 1.5, "top_k": 6, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.95},
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_tokens_come_as_often_as_transformers_says(name):
    """Chi-square on a vocabulary of 8 against the reference's warpers, over 5,000 draws of 50
    seeds."""
    transformers = pytest.importorskip("transformers")
    words = SAMPLERS[name]
    logits = torch.tensor([1.2, -0.3, 0.9, 2.1, 0.0, -1.7, 1.0, 0.4])
    scores = logits[None].clone()
    make = {
        "temperature": transformers.TemperatureLogitsWarper,
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
        "typical_p": transformers.TypicalLogitsWarper,
    }
    for key, value in words.items():
        scores = make[key](value)(torch.tensor([[0]]), scores)
    expected = scores[0].double().softmax(-1).numpy()
    counts = np.zeros(8)
    for seed in range(50):
        one = chooser(seed=seed, context=[0], vocabulary=8, **words)
        assert np.allclose(one.probabilities(logits), expected, atol=1e-6)
        for _ in range(100):
            token = one.choose(logits).token
            counts[token] += 1
            one.accept(token)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], 5_000 * expected[possible]).pvalue > 1e-3


def test_log_probabilities_are_the_models_own():
    logits = logits_of(4, V)
    raw = logits.double().log_softmax(-1)
    order = raw.argsort(descending=True).tolist()
    words = {"temperature": 0.3, "top_k": 4, "logit_bias": {order[0]: -math.inf, order[7]: 40.0}}
    found = chooser(logprobs=5, **words).choose(logits)
    assert found.token == order[7]
    assert found.logprob == pytest.approx(float(raw[order[7]]), abs=1e-5)
    assert [token for token, _ in found.top] == order[:5]
    assert [value for _, value in found.top] == pytest.approx(raw[order[:5]].tolist(), abs=1e-5)
    alone = chooser(logprobs=0).choose(logits)
    assert alone.token == order[0] and alone.top == () and alone.logprob == found.top[0][1]
    assert chooser().choose(logits) == Choice(order[0])
    assert len(chooser(logprobs=1000).choose(logits).top) == V


def test_a_constraint_lets_nothing_else_come():
    logits = logits_of(5, V)
    allowed = torch.zeros(V, dtype=torch.bool)
    allowed[[4, 31, 50]] = True
    best = max([4, 31, 50], key=lambda token: logits[token])
    assert chooser().choose(logits, allowed).token == best
    one = chooser(temperature=1.0, top_p=0.9)
    exact = one.probabilities(logits, allowed)
    assert float(exact.sum()) == pytest.approx(1, abs=1e-12)
    assert set(exact.nonzero()[:, 0].tolist()) <= {4, 31, 50}
    both = choose(logits.repeat(2, 1), [chooser(), chooser()], [None, allowed])
    assert [each.token for each in both] == [int(logits.argmax()), best]
    forbidding = chooser(logit_bias={4: -math.inf, 31: -math.inf, 50: -math.inf})
    with pytest.raises(ModelError, match="logit_bias .*, the form that is asked for forbid every"):
        forbidding.choose(logits, allowed)


def test_what_is_forced_and_a_constraint():
    logits = logits_of(6, V)
    allowed = torch.zeros(V, dtype=torch.bool)
    allowed[[4, 31]] = True
    language = chooser(config=GenerationConfig(forced_bos=7), context=[2])
    assert language.begins_forced and language.choose(logits, allowed).token == 7
    language.accept(7)
    assert not language.begins_forced and language.choose(logits, allowed).token in (4, 31)
    end = chooser(config=GenerationConfig(forced_eos=(1,)), limit=1)
    assert end.choose(logits).token == 1
    assert end.choose(logits, allowed).token in (4, 31)  # the form is not whole yet
    allowed[1] = True
    assert end.choose(logits, allowed).token == 1


def test_greedy_and_plain_probabilities():
    logits = logits_of(7, V)
    half = logits.bfloat16()
    again = chooser(temperature=0.5).probabilities(half.float())
    assert torch.equal(chooser(temperature=0.5).probabilities(half), again)
    huge = torch.tensor([3e38, 1.0, -3e38])
    cold = chooser(temperature=1e-6, context=[0], vocabulary=3)
    assert cold.probabilities(huge).tolist() == [1, 0, 0]
    assert torch.equal(
        chooser().probabilities(logits),
        torch.nn.functional.one_hot(logits.argmax(), V).double(),
    )
    drawn = chooser(temperature=0.5).probabilities(logits)
    assert torch.allclose(drawn, (logits.double() / 0.5).softmax(-1), atol=1e-7)


def test_tokens_are_taken_back_and_answers_part():
    """A draft's tokens, or another answer: the choices are those of a sequence that never had
    them."""
    words = {"temperature": 1.0, "repetition_penalty": 1.5, "frequency_penalty": 0.7}
    table = logits_of(8, 12, V)
    config = GenerationConfig(no_repeat_ngram_size=2, end=frozenset([3]), min_new_tokens=4)
    plain = chooser(sampling_of(config, 12, seed=4, **words), config)
    drafted = plain.fork(0)
    other = plain.fork(1)
    parted = 0
    for row in table:
        token = plain.choose(row).token
        for wrong in (8, 9, token):
            drafted.accept(wrong)
        drafted.undo(3)
        assert drafted.choose(row).token == token
        parted += other.choose(row).token != token
        for each in (plain, drafted, other):
            each.accept(token)
    assert parted > 3
    with pytest.raises(ValueError, match="13 tokens of 12"):
        drafted.undo(13)

"""The engine writes what a model does when every token is computed anew, whoever else is there."""

import random

import numpy as np
import pytest
import torch

from langue.data.batch import examples_of, gather, gather_pairs
from langue.errors import ModelError
from langue.generation.engine import Engine
from langue.generation.generate import generate
from langue.generation.pages import CHUNK
from langue.generation.request import Request
from langue.generation.sample import Sampling
from langue.generation.speculate import Drafter, DraftModel, PromptLookup, look_up
from langue.hub.generation_config import GenerationConfig
from langue.model.cache import pages_for
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel, init_weights
from langue.model.weight_linear import with_weights

V = 60
KINDS = {
    "learned": {"max_length": 300},
    "rotary": {"position": "rotary", "kv_heads": 2, "qk_norm": True, "norm": "rms"},
    "dynamic": {"position": "rotary", "rotary_scaling": "dynamic", "rotary_factor": 4.0},
    "windows": {"position": "rotary", "windows": (20, 20)},
    "some windows": {"position": "rotary", "windows": (0, 20)},
    "alibi": {"position": "alibi", "parallel": True},
    "experts": {"position": "rotary", "n_experts": 4, "experts_per_token": 2},
    "encoder-decoder": {"causal": False, "decoder_layers": 2, "position": "relative"},
}


def make(kind="rotary", seed=0, **axes):
    """A model of which tokens far back decide the next."""
    common = {"norm_place": "pre", "causal": True, "max_length": 120, "init_std": 0.5}
    config = ModelConfig(V, 32, 2, 4, 64, **common | KINDS[kind] | axes)
    model = LanguageModel(config).eval()
    init_weights(model, seed)
    return model


def slow(model, prompt, count, config=None):
    """Greedy, the whole sequence anew for each token."""
    config = config or GenerationConfig()
    context = list(prompt) if model.body.decoder is None else [config.start]
    written = []
    with torch.no_grad():
        while len(written) < count:
            if model.body.decoder is None:
                hidden = model.body(*gather(examples_of([context]), np.arange(1)).inputs)
            else:
                pair = gather_pairs(examples_of([prompt]), examples_of([context]), np.arange(1))
                states = model.body(*pair.source.inputs)[pair.order]
                hidden = model.body.decode(*pair.target.inputs[:3], states, pair.groups)
            token = int(model.logits(hidden[-1:]).argmax())
            if token in config.end:
                break
            written.append(token)
            context.append(token)
    return written


def prompts_of(*lengths, seed=0):
    draw = random.Random(seed)
    return [[draw.randrange(V) for _ in range(n)] for n in lengths]


def is_idle(engine):
    pool = engine.pool
    return len(pool.free) + pool.n_kept == pool.count and not pool.reserved


@pytest.mark.parametrize("kind", KINDS)
def test_as_when_every_token_is_computed_anew(kind):
    model = make(kind)
    config = GenerationConfig(end=frozenset([3]), start=1)
    # around the places where prompts are cut, and beyond
    prompts = prompts_of(1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5, 40)
    # where rotations depend on the length, those of the keys that are kept are of a shorter one
    count = 1 if kind == "dynamic" else 25
    found = generate(model, prompts, Sampling(max_tokens=count), config)
    assert found == [slow(model, prompt, count, config) for prompt in prompts]
    assert len({tuple(each) for each in found}) > len(prompts) / 2, "the prompts do not matter"


def test_a_beginning_is_read_once():
    model = make()
    first, second = prompts_of(3 * CHUNK, 10)
    engine = Engine(model)
    alone = [slow(model, prompt, 8) for prompt in (first + second, first + second[:4], first)]
    for prompt, expected, known in [
        (first + second, alone[0], 0),
        (first + second[:4], alone[1], 3 * CHUNK),
        (first, alone[2], 2 * CHUNK),  # the last token is always computed
    ]:
        id = engine.submit(Request(prompt, Sampling(max_tokens=8)))
        engine.run()
        answer = engine.collect(id)
        assert answer.tokens == expected
        assert answer.cached_tokens == known
    other = engine.submit(Request(first, Sampling(max_tokens=8), owner="another"))
    engine.run()
    assert engine.collect(other).cached_tokens == 0, "owners see nothing of each other"
    assert is_idle(engine)


def test_who_waits_for_the_same_beginning_reads_it_once_too():
    model = make()
    (first,) = prompts_of(4 * CHUNK + 3)
    engine = Engine(model, step_tokens=CHUNK + 3)
    ids = [engine.submit(Request([*first, n], Sampling(max_tokens=4))) for n in range(3)]
    other = engine.submit(Request([9, 8, 7], Sampling(max_tokens=2)))
    engine.step()
    engine.step()
    assert engine.collect(other).finish_reason == "length", "it waits for nobody's beginning"
    engine.run()
    answers = [engine.collect(id) for id in ids]
    assert [answer.cached_tokens for answer in answers] == [0, 4 * CHUNK, 4 * CHUNK]
    assert [answer.tokens for answer in answers] == [slow(model, [*first, n], 4) for n in range(3)]


def test_the_budget_is_never_passed_and_all_are_answered():
    model = make()
    page = Engine(model).page_bytes
    engine = Engine(model, memory=11 * page + page // 2)
    assert engine.pool.count == 11
    requests = [Request(p, Sampling(max_tokens=30)) for p in prompts_of(5, 60, 90, 9, 100, 3)]
    ids = [engine.submit(request) for request in requests]
    most = 0
    while engine.has_work:
        engine.step()
        most = max(most, len(engine.running))
        assert engine.pool.available >= 0
    assert 1 < most < len(ids)
    expected = [slow(model, request.prompt, 30) for request in requests]
    assert [engine.collect(id).tokens for id in ids] == expected
    with pytest.raises(ModelError, match="give more memory"):
        engine.submit(Request(prompts_of(100)[0], Sampling(max_tokens=100)))
    assert is_idle(engine)


def test_windows_give_back_what_they_leave():
    model = make("windows")
    (prompt,) = prompts_of(2 * CHUNK + 9)
    page = Engine(model).page_bytes
    needed = pages_for(20 + CHUNK) + 1
    engine = Engine(model, memory=needed * page, step_tokens=CHUNK)
    id = engine.submit(Request(prompt, Sampling(max_tokens=60)))
    engine.run()
    assert pages_for(len(prompt) + 60) > engine.pool.count
    assert engine.collect(id).tokens == slow(model, prompt, 60)
    assert is_idle(engine)


@pytest.mark.parametrize("state", ["queued", "reading", "writing"])
def test_what_is_cancelled_gives_back_its_pages(state):
    model = make()
    engine = Engine(model, rows=2 if state == "queued" else 3, step_tokens=CHUNK)
    keep = [engine.submit(Request(p, Sampling(max_tokens=12))) for p in prompts_of(6, 9)]
    (prompt,) = prompts_of(2 if state == "writing" else 3 * CHUNK, seed=1)
    id = engine.submit(Request(prompt, Sampling(max_tokens=12)))
    for _ in range(2):
        engine.step()
    assert (id in [job.id for job in engine.waiting]) == (state == "queued")
    engine.cancel(id)
    assert [d.finish_reason for d in engine.step() if d.id == id] == ["cancelled"]
    engine.cancel(id)
    engine.run()
    assert engine.collect(id).finish_reason == "cancelled"
    assert [engine.collect(each).tokens for each in keep] == [
        slow(model, prompt, 12) for prompt in prompts_of(6, 9)
    ]
    assert is_idle(engine)


def test_a_deadline_ends_a_request_with_what_it_has():
    model = make()
    engine = Engine(model)
    short, long = prompts_of(4, 5)
    late = engine.submit(Request(short, Sampling(max_tokens=50), deadline=3.0))
    other = engine.submit(Request(long, Sampling(max_tokens=6)))
    for now in range(8):
        engine.step(float(now))
    answer = engine.collect(late)
    assert answer.finish_reason == "deadline"
    assert answer.tokens == slow(model, short, 3)
    assert engine.collect(other).tokens == slow(model, long, 6)
    assert is_idle(engine)


def test_priorities_and_turns():
    engine = Engine(make(), rows=1)
    given = [("a", 0), ("a", 0), ("b", 0), ("a", 5)]
    prompts = prompts_of(*[4] * len(given))
    ids = [
        engine.submit(Request(p, Sampling(max_tokens=3), owner=owner, priority=priority))
        for p, (owner, priority) in zip(prompts, given, strict=True)
    ]
    ended = []
    while engine.has_work:
        ended += [ids.index(d.id) for d in engine.step() if d.finish_reason]
    # the highest first; then b, who has had nothing
    assert ended == [3, 2, 0, 1]


def test_who_comes_late_does_not_hold_up_the_rest():
    engine = Engine(make(), rows=1)
    prompts = prompts_of(*[4] * 8)
    owners = {}

    def submit(owner, count):
        for _ in range(count):
            request = Request(prompts.pop(), Sampling(max_tokens=3), owner=owner)
            owners[engine.submit(request)] = owner

    submit("early", 5)
    ended = []
    while engine.has_work:
        ended += [owners[d.id] for d in engine.step() if d.finish_reason]
        if len(ended) == 2 and prompts:
            submit("late", 3)
    # before the three that wait, as long as it has had no more; not for as much as early had
    after = ended[2:]
    assert after[:4].count("early") == after[:4].count("late") == 2, ended


def test_one_that_fails_fails_alone():
    model = make(tied=False)
    prompts = prompts_of(9, 30, 70)
    before = [slow(model, prompt, 6) for prompt in prompts]
    unused = set(range(V)) - {token for each in prompts + before for token in each}
    broken = unused.pop()
    with torch.no_grad():
        model.body.token.weight[broken] = torch.nan
    engine = Engine(model)
    ids = [engine.submit(Request(prompt, Sampling(max_tokens=6))) for prompt in prompts]
    bad = engine.submit(Request([4, broken, 9], Sampling(max_tokens=6)))
    engine.run()
    answer = engine.collect(bad)
    assert answer.finish_reason == "error" and "NaN" in str(answer.error)
    assert [engine.collect(id).tokens for id in ids] == before
    again = engine.submit(Request(prompts[0], Sampling(max_tokens=6)))  # in the pages it left
    engine.run()
    assert engine.collect(again).tokens == before[0]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [([], "empty"), ([1, V], "not in the vocabulary"), ([1, -1], "not in the"), ([1] * 121, "120")],
)
def test_a_prompt_that_cannot_be_read_is_told_and_disturbs_nobody(prompt, says):
    model = make("learned", max_length=120)
    engine = Engine(model)
    id = engine.submit(Request([5, 6], Sampling(max_tokens=4)))
    engine.step()
    with pytest.raises(ModelError, match=says):
        engine.submit(Request(prompt))
    engine.run()
    assert engine.collect(id).tokens == slow(model, [5, 6], 4)


def test_the_last_position_ends_a_text_and_is_told():
    model = make("learned", max_length=40)
    engine = Engine(model)
    full, near = prompts_of(40, 30)
    ids = [engine.submit(Request(p, Sampling(max_tokens=20))) for p in (full, near)]
    engine.run()
    answers = [engine.collect(id) for id in ids]
    assert [len(a.tokens) for a in answers] == [1, 11]
    assert all(a.finish_reason == "length" and a.at_last_position for a in answers)


def test_log_probabilities_are_the_models():
    model = make()
    (prompt,) = prompts_of(2 * CHUNK + 9)
    engine = Engine(model)
    request = Request(prompt, Sampling(max_tokens=5, logprobs=3), prompt_logprobs=True)
    id = engine.submit(request)
    engine.run()
    answer = engine.collect(id)
    whole = prompt + answer.tokens
    with torch.no_grad():
        hidden = model.body(*gather(examples_of([whole]), np.arange(1)).inputs)
        expected = model.logits(hidden).log_softmax(-1)
    choices = [*answer.prompt_choices, *answer.choices]
    assert choices[0] is None and len(choices) == len(whole)
    for place, choice in enumerate(choices[1:], 1):
        row = expected[place - 1]
        assert choice.token == whole[place]
        assert choice.logprob == pytest.approx(float(row[whole[place]]), abs=2e-5)
        best = row.topk(3)
        assert [token for token, _ in choice.top] == best.indices.tolist()
        assert [p for _, p in choice.top] == pytest.approx(best.values.tolist(), abs=2e-5)


def test_a_prompt_given_twice_is_gone_on_from_in_two_ways():
    model = make()
    sampling = Sampling(max_tokens=12, temperature=2.0, seed=5)
    once = generate(model, [[4, 5], [6]], sampling)
    again = generate(model, [[6], [4, 5], [4, 5]], sampling)
    assert again[:2] == once[::-1]
    assert again[2] != again[1]


def answers_of(model, requests, arrivals, **engine):
    """What each request is answered, those of `arrivals[step]` submitted before that step."""
    running = Engine(model, **engine)
    ids = {}
    step = 0
    while len(ids) < len(requests) or running.has_work:
        for row in arrivals.get(step, ()):
            ids[row] = running.submit(requests[row])
        running.step()
        step += 1
    found = [running.collect(ids[row]) for row in range(len(requests))]
    assert is_idle(running)
    return [(answer.tokens, answer.choices, answer.prompt_choices) for answer in found]


def random_requests(count, seed):
    draw = random.Random(seed)
    beginnings = prompts_of(CHUNK, 2 * CHUNK, seed=seed)
    requests = []
    for _ in range(count):
        prompt = [draw.randrange(V) for _ in range(draw.choice((1, 3, 17, CHUNK, CHUNK + 9)))]
        if draw.random() < 0.3:
            prompt = beginnings[draw.randrange(2)] + prompt
        sampling = Sampling(
            max_tokens=draw.randrange(1, 14),
            temperature=draw.choice((0.0, 0.7, 3.0)),
            seed=draw.randrange(1000),
            logprobs=draw.choice((0, 2)),
            repetition_penalty=draw.choice((1.0, 1.3)),
        )
        requests.append(Request(prompt, sampling, prompt_logprobs=draw.random() < 0.2))
    return requests


IN_COMPANY = [(kind, "fp32") for kind in KINDS]
IN_COMPANY += [("rotary", "bf16"), ("learned", "int8"), ("experts", "int8"), ("alibi", "int4")]


@pytest.mark.parametrize(("kind", "weights"), IN_COMPANY)
def test_an_answer_is_the_same_to_the_bit_in_any_company(weights, kind):
    """Alone, and with others that come and go; what was read of a prompt is used again by some.
    `python -m tests.generation.arrivals` does this with 10,000 arrivals of each kind."""
    model = with_weights(make(kind), weights)
    requests = random_requests(24, seed=3)
    alone = [answers_of(model, [request], {0: [0]})[0] for request in requests]
    draw = random.Random(7)
    for _ in range(2):
        order = list(range(len(requests)))
        draw.shuffle(order)
        arrivals = {}
        for row in order:
            arrivals.setdefault(draw.randrange(30), []).append(row)
        size = {"rows": draw.choice((3, 8)), "step_tokens": draw.choice((CHUNK, 200))}
        assert answers_of(model, requests, arrivals, **size) == alone


def test_guesses_change_no_text():
    """A model that guesses for itself is always right; another one seldom is; looking up in the
    prompt is right where the text repeats itself."""
    model = make()
    requests = [
        Request(prompt, Sampling(max_tokens=30, temperature=t, seed=row, repetition_penalty=1.1))
        for row, (prompt, t) in enumerate(
            zip(prompts_of(4, 70, 9, 5, 30), (0.0, 0.0, 1.5, 0.5, 0.0), strict=True)
        )
    ]
    arrivals = {0: [0, 1], 2: [2], 3: [3, 4]}
    expected = answers_of(model, requests, arrivals)
    shares = []
    for drafter in (DraftModel(model, model), DraftModel(make(seed=1), model), PromptLookup()):
        counted = Counted(drafter)
        assert answers_of(model, requests, arrivals, drafter=counted) == expected
        assert counted.checked > 10
        shares.append(counted.right / counted.checked)
    assert shares[0] == 1.0
    assert shares[1] < 0.5


class Counted(Drafter):
    """Counts the guesses of another drafter, and how many of them were right."""

    def __init__(self, drafter):
        self.drafter = drafter
        self.checked = self.right = 0
        self.last = {}

    def page_bytes(self):
        return self.drafter.page_bytes()

    def make_pages(self, count, device):
        self.drafter.make_pages(count, device)

    def propose(self, jobs, counts):
        for job in jobs:
            before, guesses = self.last.get(id(job), ([], []))
            written = job.rows[0].tokens[len(before) :]
            for guess, token in zip(guesses, written, strict=False):
                self.checked += 1
                self.right += guess == token
                if guess != token:
                    break
        found = self.drafter.propose(jobs, counts)
        for job, guesses in zip(jobs, found, strict=True):
            self.last[id(job)] = (list(job.rows[0].tokens), guesses)
        return found


def test_a_draft_of_another_vocabulary_is_refused():
    with pytest.raises(ModelError, match="60"):
        other = make()
        other.body.config = ModelConfig(61, 32, 2, 4, 40, 16, causal=True)
        DraftModel(other, make())


def test_what_is_looked_up_is_what_followed_last():
    assert look_up([1, 2, 3, 9, 1, 2, 3, 7, 8, 1, 2, 3], 3) == [7, 8, 1]
    assert look_up([5, 1, 2, 6, 1, 2], 4) == [6, 1, 2]
    assert look_up([1, 2, 3], 4) == []
    assert look_up([1], 4) == []

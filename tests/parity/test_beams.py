"""Beam search finds what that of `transformers` finds, all of the n best and their scores."""

import pytest
import torch

from langue.errors import ModelError
from langue.generation.engine import Engine
from langue.runs.model import load

transformers = pytest.importorskip("transformers")

from tests.contract.references import draw_model  # noqa: E402
from tests.parity.test_generation import END, PROMPTS, folder_of  # noqa: E402

SEARCHES = {
    "two": {"num_beams": 2},
    "first complete ones": {"num_beams": 4, "early_stopping": True},
    "no length penalty": {"num_beams": 4, "length_penalty": 0.0},
    "never early": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": "never"},
    "short ones": {"num_beams": 5, "length_penalty": -1.0},
    "with rules": {"num_beams": 4, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    "a least length": {"num_beams": 3, "min_new_tokens": 6},
}


def theirs(model, prompt, width):
    found = model.generate(
        torch.tensor([prompt]),
        max_new_tokens=12,
        num_return_sequences=width,
        return_dict_in_generate=True,
        output_scores=True,
    )
    given = 1 if model.config.is_encoder_decoder else len(prompt)
    made = []
    for row in found.sequences[:, given:].tolist():
        ends = [place for place, token in enumerate(row) if token in END]
        made.append(row[: ends[0]] if ends else row)
    return made, found.sequences_scores.tolist()


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("name", ["gpt2", "llama", "bart", "t5"])
def test_the_n_best_and_their_scores(tmp_path, name, search):
    """As a model's generation config asks for it; all prompts at once, in pages that they share."""
    reference = draw_model(name, 2, std=0.5)
    reference.config.decoder_start_token_id = 1
    model = load(folder_of(tmp_path, reference, search))
    width = search["num_beams"]
    ours = model.generate(PROMPTS, max_tokens=12, n=width, details=True)
    for prompt, answers in zip(PROMPTS, ours, strict=True):
        tokens, scores = theirs(reference, prompt, width)
        assert [answer["tokens"] for answer in answers] == tokens
        assert [answer["score"] for answer in answers] == pytest.approx(scores, rel=2e-6)
    assert model.generate(PROMPTS, 12) == [answers[0]["tokens"] for answers in ours]


def test_arguments_win_and_who_draws_searches_not(tmp_path):
    model = load(folder_of(tmp_path, draw_model("gpt2", 2, std=0.5), {"num_beams": 4}))
    greedy = model.generate(PROMPTS, 8, beams=1)
    assert model.generate(PROMPTS, 8, beams=2) != greedy
    assert model.generate(PROMPTS, 8, temperature=1e-6) == greedy
    assert len(model.generate([[8]], 8, beams=3, n=3)[0]) == 3
    for words, says in [
        ({"beams": 2, "n": 3}, "n <= beams"),
        ({"beams": 2, "temperature": 1.0}, "draws"),
        ({"beams": 2, "logprobs": 1}, "score"),
        ({"beams": 2, "early_stopping": "soon"}, "never"),
        ({"beams": 0}, "1 beam"),
    ]:
        with pytest.raises(ModelError, match=says):
            model.generate([[8]], 8, **words)


def test_beams_share_pages_and_give_them_back(tmp_path):
    """Long prompts are held once: four beams of 200 tokens and 20 more fit where four prompts would
    not."""
    model = load(folder_of(tmp_path, draw_model("gpt2", 2, std=0.5), {}))
    language = model.language
    assert Engine(language).window == 0
    prompt = [5 + place % 7 for place in range(model.config.max_length - 8)]
    engine = model.engine()
    id = engine.submit(prompt, beams=4, max_tokens=8)
    pool = engine._engine.pool
    most = 0
    while engine.has_work:
        engine.step()
        held = int((pool.holders > 0).sum())
        most = max(most, held)
    assert engine.collect(id).score is not None
    own = -(-len(prompt) // 16)
    assert most <= own + 8 < 4 * own or own < 3
    assert len(pool.free) + pool.n_kept == pool.count and not pool.reserved

"""2,000 IMDb reviews in blocks of 256: batches are full of tokens that count, and no review knows
of another."""

import gzip
import json

import numpy as np
import pytest
import torch

from langue.data.corpus.stream import Chunks
from langue.hub.presets import preset
from langue.model.language_model import LanguageModel
from langue.model.transformer import initialise
from langue.tasks.causal import Causal
from tests.memory import Memory
from tests.tiny_tokenizer import byte_tokenizer

pytestmark = pytest.mark.slow
BUDGET = 16_384
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reviews(shared_data):
    tokenizer = byte_tokenizer()
    with gzip.open(shared_data("imdb") / "test.jsonl.gz", "rt", encoding="utf-8") as handle:
        texts = [json.loads(line)["text"] for _, line in zip(range(2000), handle, strict=False)]
    return tokenizer, [each.ids for each in tokenizer.encode_batch(texts)]


def test_all_but_the_last_batch_hold_their_budget_in_tokens_that_carry_loss(reviews):
    tokenizer, documents = reviews
    objective = Causal(tokenizer, Causal.Options())
    corpus = Memory(documents)
    plan = objective.stream(corpus, block=256, budget=BUDGET, seed=0).plan(0)
    carry = sum(len(objective.make(corpus, Chunks(*rows.T[:3], 0), CPU).labels) for rows in plan)
    assert carry == sum(map(len, documents)) + len(documents)  # every token, and every end
    assert carry > 0.98 * BUDGET * len(plan)


@pytest.mark.parametrize("name", ["langue", "gpt2"])
def test_another_review_of_equal_length_changes_no_bit_of_the_others(reviews, name):
    tokenizer, documents = reviews
    objective = Causal(tokenizer, Causal.Options())
    axes = {"dim": 64, "n_layers": 2, "n_heads": 2}
    model = LanguageModel(preset(name, len(tokenizer), 256, axes=axes)[1]).eval()
    initialise(model, 0.1, 0)
    changed = 700
    other = (documents[changed + 1] * 9)[: len(documents[changed])]
    before = Memory(documents)
    after = Memory([*documents[:changed], other, *documents[changed + 1 :]])
    plan = objective.stream(before, block=256, budget=BUDGET, seed=0).plan(0)
    met = [rows for rows in plan if changed in rows[:, 0]]
    assert met
    for rows in met[:2]:
        a, b = (objective.make(each, Chunks(*rows.T[:3], 0), CPU) for each in (before, after))
        with torch.no_grad():
            ours, theirs = (model.body(*batch.inputs) for batch in (a, b))
        of = np.repeat(rows[a.rows, 0], np.diff(a.starts))
        same = (ours == theirs).all(1).numpy()
        assert same[of != changed].all() and not same[of == changed].all()

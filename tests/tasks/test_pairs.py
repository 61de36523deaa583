"""Next-sentence and order prediction beside masked LM: what is drawn, what it costs, and where the head is saved."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import langue
from langue.data.stream import Slices
from langue.errors import SettingsError
from langue.model.config import ModelConfig
from langue.model.language import LanguageModel
from langue.model.transformer import initialise
from langue.settings import TaskSettings
from langue.tasks.language import Held
from langue.tasks.masked import Masked
from langue.tasks.pairs import DOES_NOT, NOT_ASKED
from tests.memory import Memory
from tests.tasks.test_language import CPU, tokenizer

LENGTHS = [12, 30, 1, 30, 7, 2, 19] * 12


def made(kind, lengths=LENGTHS, **settings):
    """Every token of the text is another number, so that where it came from can be told."""
    objective = Masked(tokenizer("masked"), TaskSettings(pairs=kind, mask_ratio=0.2, **settings), seed=3)
    objective.vocabulary = 0  # tokens drawn at random are then all 0
    ends = np.cumsum(lengths)
    return objective, Memory([np.arange(end - n, end) + 1000 for end, n in zip(ends, lengths, strict=True)])


def read(objective, data, rows=None):
    """(tokens as they stood before masking, segments, label, document) of each piece, and the batch."""
    rows = np.arange(len(data.lengths)) if rows is None else np.asarray(rows)
    batch = objective.make(data, Slices(rows, np.zeros(len(rows), int), data.lengths[rows], 0), CPU)
    tokens = batch.tokens.clone()
    tokens[batch.places] = batch.labels
    pieces = []
    for n, row in enumerate(batch.rows):
        a, b = batch.starts[n : n + 2].tolist()
        pieces.append((tokens[a:b].tolist(), batch.segments[a:b].tolist(), int(batch.targets[n]), int(rows[row])))
    return pieces, batch


@pytest.mark.parametrize("kind", ["next", "order"])
def test_half_of_the_second_parts_do_not_follow(kind):
    objective, data = made(kind)
    pieces, _ = read(objective, data)
    told = []
    for tokens, segments, label, document in pieces:
        text = data.documents[document].tolist()
        first = tokens.index(objective.sep)
        assert tokens[0] == objective.cls and tokens[-1] == objective.sep and tokens.count(objective.sep) == 2
        assert segments == [0] * (first + 1) + [1] * (len(tokens) - first - 1) and len(tokens) == len(text) + 3
        one, two = tokens[1:first], tokens[first + 1 : -1]
        if label == NOT_ASKED:
            assert len(text) == 1 and one == text
            continue
        told.append(label)
        if label != DOES_NOT:
            assert one + two == text and one and two
        elif kind == "order":
            assert two + one == text and one and two
        else:
            assert one == text[: len(one)]
            (home,) = {n for n, d in enumerate(data.documents) if set(two) <= set(d.tolist())}
            assert home != document and np.all(np.diff(two) == 1)
    assert 0.35 < np.mean(told) < 0.65


def test_a_lone_document_has_nothing_else_to_go_on_with():
    objective, data = made("next", [40, 3])
    assert {label for *_, label, document in read(objective, data)[0] if document == 0} == {0}


def test_whole_words_do_not_go_over_a_cut():
    objective, data = made("order", whole_words=True)
    objective.continues = np.ones(5000, bool)  # each part is one word
    pieces, batch = read(objective, data)
    hidden = torch.zeros(batch.n_tokens, dtype=torch.bool)
    hidden[batch.places] = True
    for (_, segments, *_), part in zip(pieces, hidden.split(batch.starts.diff().tolist()), strict=True):
        first = segments.index(1)
        for word in (part[1 : first - 1], part[first:-1]):
            assert word.all() or not word.any()
    assert 0.05 < hidden.float().mean() < 0.5


def model_of(tok, **axes):
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "ffn_dim": 48, "max_length": 128, "dropout": 0.0}
    config = ModelConfig(vocab_size=len(tok), n_segments=2, pair_head=True, head_transform=True, **sizes, **axes)
    model = LanguageModel(config)
    initialise(model, 0.2, 0)
    return model.eval()


def small(kind):
    tok = tokenizer("masked")
    random = np.random.default_rng(0)
    data = Memory([random.integers(5, len(tok), n) for n in LENGTHS])
    return Masked(tok, TaskSettings(pairs=kind, mask_ratio=0.2), seed=3), data, model_of(tok)


def test_the_loss_is_a_sum_over_pieces_and_judged_as_one_at_a_time():
    objective, data, model = small("order")
    rows = np.arange(len(LENGTHS))
    whole = objective.make(data, Slices(rows, 0 * rows, data.lengths, 0), CPU)
    outcome = objective.forward(model, whole)
    total, count, right, asked = 0.0, 0, 0, 0
    for row in rows:
        batch = objective.make(data, Slices(*(np.asarray([x]) for x in (row, 0, data.lengths[row])), 0), CPU)
        states = model.body(*batch.inputs)
        if len(batch.labels):
            total += float(F.cross_entropy(model.logits(states[batch.places]), batch.labels, reduction="sum"))
            count += len(batch.labels)
        if int(batch.targets[0]) != NOT_ASKED:
            logits = model.head.follows(states[:1])
            total += float(F.cross_entropy(logits, batch.targets)) * 0.2 * batch.n_tokens
            right, asked = right + int(logits.argmax() == batch.targets[0]), asked + 1
    assert outcome.count == count and float(outcome.loss) == pytest.approx(total, rel=1e-5)
    held = Held(objective.stream(data, block=64, budget=200, seed=0))
    metrics, loss = objective.evaluate(model, held, device=CPU, dtype=torch.float32)
    assert metrics["pair_accuracy"] == pytest.approx(right / asked) and loss < float(outcome.loss) / count


def test_it_is_learned_saved_and_read_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = [chr(97 + n) for n in range(26)]
    random = np.random.default_rng(0)
    rows = []
    for _ in range(400):  # sentences that go up the alphabet: their order can be seen
        begin = int(random.integers(0, 10))
        rows.append(" ".join(words[begin : begin + int(random.integers(8, 16))]))
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows), "utf-8")
    common = {"data": tmp_path / "text.jsonl", "model.preset": "bert-tiny", "model.n_layers": 1, "model.dim": 32}
    common |= {"model.n_heads": 2, "model.ffn_dim": 64, "model.dropout": 0.0, "model.attention_dropout": 0.0}
    common |= {"data.block": 32, "train.batch_tokens": 1024, "train.max_steps": 200, "train.lr": 3e-3}
    common |= {"data.dev_fraction": 0.2, "train.evaluate_every": 100}
    run = langue.pretrain(
        "masked", out=tmp_path / "run", **common, **{"task.pairs": "order", "tokenizer.vocab_size": 40}
    )
    low, high = run.metrics["intervals"]["pair_accuracy"]
    assert 0.5 < low <= run.metrics["metrics"]["pair_accuracy"] <= high  # beyond chance
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path / "run").eval()
    model = langue.load(tmp_path / "run")
    ids = [2, *range(10, 20), 3]
    with torch.no_grad():
        out = theirs(torch.tensor([ids]))
        first = torch.from_numpy(model.hidden([ids])[0][:1])
        weights = theirs.state_dict()
        pooled = torch.tanh(F.linear(first, weights["bert.pooler.dense.weight"], weights["bert.pooler.dense.bias"]))
        follows = F.linear(pooled, weights["cls.seq_relationship.weight"], weights["cls.seq_relationship.bias"])
    np.testing.assert_allclose(model.logits([ids])[0], out.prediction_logits[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(follows, out.seq_relationship_logits, rtol=1e-4, atol=1e-5)
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    assert all(line["loss"] > np.log(line["perplexity"]) for line in train)  # which is of the tokens alone
    other = {"data": common["data"], "model.preset": "modernbert", "model.size": "1M", "task.pairs": "next"}
    with pytest.raises(SettingsError, match="tells two parts apart"):
        langue.pretrain("masked", out=tmp_path / "no", **other)
    with pytest.raises(SettingsError, match="is of masked LM"):
        langue.pretrain("causal", out=tmp_path / "nor", **{"data": common["data"], "task.pairs": "next"})

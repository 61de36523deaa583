"""Causal, masked and denoising batches: what is seen, what is predicted, and nothing leaking
between documents."""

import math

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from torch.nn import functional as F

from langue.data.corpus.stream import Chunks
from langue.errors import ModelError
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.model.transformer import initialise
from langue.tasks.causal import Causal
from langue.tasks.denoise import Denoise, noise_mask
from langue.tasks.language import HeldOutSet
from langue.tasks.masked import Masked
from langue.text.tokenizers.tokenizer import Tokenizer
from tests.memory import Memory

CPU = torch.device("cpu")
WORDS = [chr(c) for c in range(97, 123)] + [f"##{chr(c)}" for c in range(97, 123)]
NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer(kind):
    names = {"causal": ["<|endoftext|>"], "masked": NAMES, "denoise": ["<pad>", "</s>"]}[kind]
    if kind == "denoise":
        names = names + [f"<extra_id_{i}>" for i in range(40)]
    kind = models.WordPiece if kind == "masked" else models.WordLevel
    backend = tokenizers.Tokenizer(
        kind({w: i for i, w in enumerate(names + WORDS)}, unk_token=names[0])
    )
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.add_special_tokens(names)
    return Tokenizer(backend)


def corpus(tok, lengths, seed=0):
    random = np.random.default_rng(seed)
    low = len(tok) - len(WORDS)
    return Memory([random.integers(low, len(tok), n) for n in lengths])


def model_for(kind, tok, seed=0, **more):
    axes = {
        "causal": {"causal": True, "norm_place": "pre"},
        "masked": {},
        "denoise": {"decoder_layers": 2},
    }[kind]
    sizes = {
        "vocab_size": len(tok),
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "ffn_dim": 48,
        "max_length": 128,
    }
    config = ModelConfig(**sizes | {"dropout": 0.0} | axes | more)
    model = LanguageModel(config)
    initialise(model, 0.2, seed)
    return model.eval()


OBJECTIVES = {"causal": Causal, "masked": Masked, "denoise": Denoise}


def made(kind, lengths, **settings):
    tok = tokenizer(kind)
    return (
        OBJECTIVES[kind](tok, OBJECTIVES[kind].Options(**settings), seed=3),
        corpus(tok, lengths),
        tok,
    )


def whole(data, document):
    return Chunks(np.asarray([document]), np.asarray([0]), data.lengths[[document]], 0)


def test_causal_predicts_each_token_and_the_end_from_those_before():
    objective, data, _ = made("causal", [5, 9])
    begin = end = objective.begin
    slices = Chunks(np.asarray([0, 1, 1]), np.asarray([0, 0, 4]), np.asarray([6, 4, 6]), 0)
    batch = objective.make(data, slices, CPU)
    t, u = data.documents
    expected = {  # in order of length, equal ones in the order given
        0: ([begin, *u[:3]], list(u[:4])),
        1: ([begin, *t], [*t, end]),
        2: (list(u[3:9]), [*u[4:9], end]),
    }
    assert batch.places is None
    for n, (tokens, labels) in expected.items():
        a = batch.starts[n]
        b = batch.starts[n + 1]
        assert batch.tokens[a:b].tolist() == [int(x) for x in tokens]
        assert batch.labels[a:b].tolist() == [int(x) for x in labels]


def test_a_causal_loss_is_the_sum_over_one_sequence_at_a_time():
    objective, data, tok = made("causal", [5, 9, 20])
    model = model_for("causal", tok)
    stream = objective.stream(data, block=64, budget=64, seed=0)
    outcome = objective.forward(
        model,
        objective.make(data, Chunks(np.arange(3), np.zeros(3, int), data.lengths + 1, 0), CPU),
    )
    total = 0.0
    for document in data.documents:
        ids = torch.tensor([objective.begin, *document, objective.end])
        batch = objective.make(
            Memory([document]),
            Chunks(*(np.asarray([x]) for x in (0, 0, len(document) + 1)), 0),
            CPU,
        )
        total += float(
            F.cross_entropy(model.logits(model.body(*batch.inputs)), ids[1:], reduction="sum")
        )
    assert outcome.count == 37
    assert float(outcome.loss) == pytest.approx(total, rel=1e-5)
    metrics, loss = objective.evaluate(model, HeldOutSet(stream), device=CPU, dtype=torch.float32)
    assert loss == pytest.approx(total / 37, rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(total / math.log(2) / data.n_bytes, rel=1e-5)


@pytest.mark.parametrize("kind", ["causal", "masked", "denoise"])
def test_the_z_term_is_learned_and_not_taken_for_perplexity(kind):
    objective, data, tok = made(kind, [12, 30, 7])
    heavy = OBJECTIVES[kind](tok, OBJECTIVES[kind].Options(), z_loss=0.1, seed=3)
    model = model_for(kind, tok)
    stream = objective.stream(data, block=40, budget=120, seed=0)
    batch = stream.batch(stream.plan(0)[0], 0, CPU)
    plain = objective.forward(model, batch)
    both = heavy.forward(model, batch)
    assert float(both.loss) > float(plain.loss) + 1 and float(plain.aux_loss) == 0
    assert float(both.loss - both.aux_loss) == pytest.approx(float(plain.loss), rel=1e-5)


ROTARY = {"position": "rotary", "qk_norm": True, "norm": "rms_plain", "bias": False}


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        ("causal", {}),
        ("masked", {}),
        ("denoise", {}),
        ("causal", ROTARY),
        ("denoise", {"position": "relative"}),
    ],
)
def test_another_document_of_equal_length_changes_no_bit_of_the_rest(kind, axes):
    """Neither of its hidden states nor of its loss."""
    objective, data, tok = made(kind, [12, 30, 30, 7, 19])
    model = model_for(kind, tok, **axes)

    def states(documents):
        rows = Chunks(
            np.arange(5), np.zeros(5, int), documents.lengths + objective.overhead.document, 0
        )
        batch = objective.make(documents, rows, CPU)
        hidden = objective.hidden(model, batch).detach()
        side = objective.predicted(batch)
        places = torch.arange(side.n_tokens) if side.places is None else side.places
        of = torch.bucketize(places, side.starts[1:], right=True)
        held = HeldOutSet(objective.stream(documents, block=40, budget=120, seed=0))
        losses = objective.judge(model, held, device=CPU, dtype=torch.float32).losses
        return {
            int(r): (hidden[of == n], side.labels[of == n], losses[r])
            for n, r in enumerate(side.rows)
        }

    before = states(data)
    data.documents[2] = corpus(tok, [30], seed=9).documents[0]
    after = states(data)
    for row in range(5):
        same = torch.equal(before[row][0], after[row][0]) and torch.equal(
            before[row][1], after[row][1]
        )
        assert same == (before[row][2] == after[row][2]) == (row != 2)


def test_masked_hides_the_share_asked_for_and_predicts_what_was_there():
    objective, data, tok = made("masked", [400] * 30)
    labels = []
    seen = []
    replaced = []
    for document in range(30):
        batch = objective.make(data, whole(data, document), CPU)
        tokens = batch.tokens[1:-1].numpy()
        assert batch.tokens[0] == objective.cls and batch.tokens[-1] == objective.sep
        places = batch.places.numpy() - 1
        assert np.array_equal(data.documents[document][places], batch.labels.numpy())
        others = np.setdiff1d(np.arange(400), places)
        assert np.array_equal(tokens[others], data.documents[document][others])
        labels += batch.labels.tolist()
        seen += tokens[places].tolist()
    share = len(labels) / 12_000
    masked = np.mean(np.asarray(seen) == objective.mask)
    same = np.mean(np.asarray(seen) == np.asarray(labels))
    assert abs(share - 0.15) < 0.012 and abs(masked - 0.8) < 0.03 and abs(same - 0.1) < 0.03
    replaced = objective.make(data, Chunks(*(np.asarray([x]) for x in (0, 0, 400)), 1), CPU)
    first = objective.make(data, whole(data, 0), CPU)
    assert not torch.equal(replaced.tokens, first.tokens)  # another pass, another mask


def test_whole_words_are_masked_or_seen_as_one():
    objective, data, tok = made("masked", [300], whole_words=True, mask_ratio=0.3)
    batch = objective.make(data, whole(data, 0), CPU)
    drawn = np.zeros(302, bool)
    drawn[batch.places.numpy()] = True
    text = data.documents[0]
    for i in range(1, 300):
        if tok.token(text[i]).startswith("##"):
            assert drawn[i + 1] == drawn[i]
    assert 0.15 < drawn.mean() < 0.45


@pytest.mark.parametrize("words", [False, True])
def test_of_every_piece_something_is_predicted_and_of_long_ones_no_more_than_was_drawn(words):
    objective, data, tok = made("masked", [1, 2, 3, 50] * 25, whole_words=words, mask_ratio=0.02)
    rows = np.arange(len(data.lengths))
    batch = objective.make(data, Chunks(rows, 0 * rows, data.lengths, 0), CPU)
    of = np.searchsorted(batch.starts.numpy(), batch.places.numpy(), side="right") - 1
    predicted = np.bincount(batch.rows[of], minlength=len(rows))
    assert predicted.min() == 1 and (predicted[::4] == 1).all()
    if not words:
        # 50 tokens have none in a third of cases, one in another
        assert (predicted == 1).mean() > 0.8


def test_denoising_can_be_put_together_again():
    objective, data, tok = made("denoise", [40, 1, 77])
    names = objective.special.sentinels
    batch = objective.make(data, Chunks(np.arange(3), np.zeros(3, int), data.lengths, 0), CPU)
    for n, row in enumerate(batch.target.rows):
        a, b = batch.target.starts[n : n + 2].tolist()
        inputs = batch.target.tokens[a:b].tolist()
        target = batch.target.labels[a:b].tolist()
        assert inputs == [objective.start, *target[:-1]]
        m = list(batch.source.rows).index(row)
        source = batch.source.tokens[batch.source.starts[m] : batch.source.starts[m + 1]].tolist()
        assert source[-1] == target[-1] == objective.end
        spans = {}
        now = None
        for token in target[:-1]:
            if token in names:
                now = token
                spans[now] = []
            else:
                spans[now].append(token)
        assert list(spans) == [t for t in source if t in names] == list(names[: len(spans)])
        again = [t for s in source[:-1] for t in (spans[s] if s in names else [s])]
        assert again == data.documents[row].tolist()


@pytest.mark.parametrize("length", [1, 2, 3, 10, 100, 513])
def test_noise_takes_the_ratio_in_spans_of_the_mean(length):
    masks = [noise_mask(length, 0.15, 3.0, np.random.default_rng(i)) for i in range(50)]
    taken = {int(mask.sum()) for mask in masks}
    assert taken == {max(1, min(round(0.15 * length), max(1, length - 1)))}
    assert length == 1 or not any(mask[0] for mask in masks)
    runs = {int((np.diff(np.concatenate([[0], mask.astype(int)])) == 1).sum()) for mask in masks}
    assert runs == {max(1, round(next(iter(taken)) / 3))} or length < 4


def test_what_does_not_fit_is_said():
    tok = tokenizer("masked")
    with pytest.raises(ModelError, match="no sentinels"):
        Denoise(tok, Denoise.Options())
    with pytest.raises(ModelError, match="no mask token"):
        Masked(tokenizer("causal"), Masked.Options())
    with pytest.raises(
        ModelError, match="trains the architecture encoder, and the model is of decoder"
    ):
        Masked.suits(model_for("causal", tok).body.config)


@pytest.mark.parametrize(
    ("kind", "words"), [("masked", {}), ("masked", {"pairs": "order"}), ("denoise", {})]
)
def test_a_document_drawn_again_in_a_pass_is_hidden_otherwise(kind, words):
    objective, data, _ = made(kind, [120], **words)
    rows = np.zeros(3, int)
    zero = np.zeros(3, int)
    batch = objective.make(data, Chunks(rows, zero, np.full(3, 120), 0, np.asarray([0, 0, 1])), CPU)
    side = batch.source if kind == "denoise" else batch
    one, same, other = (
        side.tokens[a:b].tolist() for a, b in zip(side.starts[:-1], side.starts[1:], strict=True)
    )
    assert one == same != other


def test_a_perplexity_beyond_all_numbers_is_none():
    objective, data, tok = made("causal", [9, 30])
    model = model_for("causal", tok)
    model.body.token.weight.data *= 1e4
    dev = HeldOutSet(objective.stream(data, block=16, budget=64, seed=0))
    metrics, loss = objective.evaluate(model, dev, device=CPU, dtype=torch.float32)
    assert loss > 700 and metrics["perplexity"] is None and metrics["bits_per_byte"] > 700

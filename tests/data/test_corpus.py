"""A corpus folder: its tokens are those of its texts, whatever the shards; what is damaged is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from langue.data.corpus import Corpus
from langue.data.divide import Division
from langue.data.shards import Building, build
from langue.text.documents import Reading, open_texts
from langue.text.tokenizer import Tokenizer


def byte_tokenizer() -> Tokenizer:
    """Each byte a token, as pairs of letters are: enough to see what is joined."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<|endoftext|>", *alphabet, "th"])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(backend)


def make(out: Path, sources, reading=None, division=None, shard_tokens=200, **options):
    reading = reading or Reading()
    notes = options.setdefault("notes", [])
    texts = open_texts(sources, reading, notes)
    return build(Building(texts, byte_tokenizer(), reading, division or Division(), shard_tokens), out, **options)


def every_text(out: Path, split: str) -> list[str]:
    corpus = Corpus.open(out, split)
    return [corpus.text(document) for document in range(corpus.n_documents)]


WORDS = ["the", "other", "thing,", "a", "naïve", "北京", "day\n\n", "", "and", "<|endoftext|>", "then"]


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [f"{index}: " + " ".join(random.choice(WORDS, random.integers(1, 30))) for index in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus") / "out"
    make(out, [texts(80)], division=Division(fraction=0.1))
    return out


def test_every_text_comes_back_once_in_order(made):
    train, dev = every_text(made, "train"), every_text(made, "dev")
    assert len(dev) >= 1 and sorted(train + dev) == sorted(texts(80))
    assert train == [text for text in texts(80) if text in set(train)]
    corpus = Corpus.open(made)
    assert len(corpus.shards) > 3
    assert corpus.n_tokens == corpus.lengths.sum() == sum(shard.tokens for shard in corpus.shards)
    assert corpus.n_bytes == sum(len(text.encode()) for text in train)
    assert corpus.n_characters == sum(map(len, train))
    assert corpus.sources == [("rows 1", 1.0, 0, len(train))]


def test_the_name_of_a_special_token_in_a_text_is_characters(made):
    corpus = Corpus.open(made)
    everything = corpus.tokens(np.arange(corpus.n_documents), np.zeros(corpus.n_documents, int), corpus.lengths)
    assert any("<|endoftext|>" in text for text in every_text(made, "train"))
    assert corpus.tokenizer.backend.token_to_id("<|endoftext|>") not in everything


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=20))
def test_slices_are_what_the_documents_hold(made, asked):
    corpus = Corpus.open(made)
    document = np.array([d % corpus.n_documents for d, _, _ in asked], np.int64)
    begin = np.array([b % (n + 1) for (_, b, _), n in zip(asked, corpus.lengths[document], strict=True)], np.int64)
    left = corpus.lengths[document] - begin
    length = np.array([c % (n + 1) for (_, _, c), n in zip(asked, left, strict=True)], np.int64)
    files_in_order = [np.fromfile(made / f"{shard.file}.bin", "<u2") for shard in corpus.shards]
    flat = np.concatenate(files_in_order)
    starts = np.concatenate([[0], np.cumsum(corpus.lengths)])
    expected = [flat[starts[d] + b : starts[d] + b + n] for d, b, n in zip(document, begin, length, strict=True)]
    out = corpus.tokens(document, begin, length)
    assert out.dtype == np.int32
    assert out.tolist() == np.concatenate([np.zeros(0, np.int32), *expected]).tolist()


@pytest.mark.parametrize(("document", "begin", "length"), [(-1, 0, 1), (10**6, 0, 1), (0, -1, 1), (0, 0, 10**6)])
def test_what_is_beyond_is_refused(made, document, begin, length):
    with pytest.raises(IndexError):
        Corpus.open(made).tokens(np.array([document]), np.array([begin]), np.array([length]))

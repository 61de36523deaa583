"""What may be large: a vocabulary beyond two bytes a token, a document beyond memory."""

import tracemalloc

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from langue.data.corpus import builder, split
from langue.data.corpus.builder import Building, build
from langue.data.corpus.reader import Corpus
from langue.data.corpus.split import SplitAssignment
from langue.text.read import documents, lines
from langue.text.read.documents import Reading, open_texts
from langue.text.tokenizers.tokenizer import Tokenizer
from tests.tiny_tokenizer import byte_tokenizer


@pytest.mark.parametrize(("size", "bytes_"), [(65_536, 2), (65_537, 4)])
def test_two_bytes_a_token_as_long_as_they_are_enough(tmp_path, size, bytes_):
    backend = tokenizers.Tokenizer(
        models.WordLevel({f"w{n}": n for n in range(size)}, unk_token="w0")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rows = [f"w1 w{size - 1} w{n}" for n in range(50)]
    building = Building(
        open_texts([rows], Reading(), []),
        Tokenizer(backend),
        Reading(),
        SplitAssignment(fraction=0.5),
    )
    facts = build(building, tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert facts["dtype"] == f"uint{8 * bytes_}" and facts["vocab_size"] == size
    assert (tmp_path / "out" / "train-00000.bin").stat().st_size == bytes_ * corpus.n_tokens
    every = np.arange(corpus.n_documents)
    found = corpus.tokens(every, 0 * every, corpus.lengths).reshape(-1, 3)
    assert (
        set(found[:, 0]) == {1}
        and set(found[:, 1]) == {size - 1}
        and len(set(found[:, 2])) == len(found)
    )


def test_memory_does_not_grow_with_a_document(tmp_path, monkeypatch):
    """Of four megabytes and of sixteen, in pieces of 16 kB: what building takes is the same, and a
    fraction of them."""
    monkeypatch.setattr(documents, "PIECE_CHARACTERS", 1 << 14)
    monkeypatch.setattr(lines, "BLOCK", 1 << 14)
    monkeypatch.setattr(split, "PEEK_BYTES", 1 << 14)
    monkeypatch.setattr(builder, "BATCH_BYTES", 1 << 14)
    peaks = []
    for size in (4 << 20, 16 << 20):
        text = tmp_path / f"{size}.txt"
        out = tmp_path / f"{size}"
        text.write_text("the other day it went on and on without end " * (size // 44))
        building = Building(
            open_texts([text], Reading(), []),
            byte_tokenizer(),
            Reading(),
            SplitAssignment(),
            1 << 26,
        )
        tracemalloc.start()
        try:
            build(building, out)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert Corpus.open(out).n_documents == 1
    assert peaks[1] < 1.2 * peaks[0]
    assert Corpus.open(out).n_bytes > 0.8 * size > 4 * peaks[1]

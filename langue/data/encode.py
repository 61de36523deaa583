"""Encoding of texts: takes texts, and their pairs; returns `Examples`, truncated where necessary,
with counts of what was truncated.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers
from numpy.typing import NDArray

from langue.data.batch import Examples
from langue.errors import ModelError
from langue.model.config import ModelConfig
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import unknown_in

# texts tokenized at a time: keeps all cores busy, and bounds the memory for encodings
CHUNK = 2048


def encode(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    max_length: int,
    cut: str = "head-tail",
    segments: bool = False,
    special: bool = True,
) -> Examples:
    """Return token ids with special tokens, at most `max_length` each, and what the tokenizer does
    not know of the texts.

    segments: also return which of the two texts each token belongs to. special: add special tokens.
    """
    ids: list[NDArray[np.int32]] = []
    types: list[NDArray[np.uint8]] = []
    removed: list[int] = []
    for encoding in _encodings(tokenizer, texts, pairs, special):
        tokens = np.asarray(encoding.ids, np.int32)
        kept: NDArray[np.int64] | slice = slice(None)
        if len(tokens) > max_length:
            kept = _kept(encoding, max_length, cut)
        ids.append(tokens[kept])
        removed.append(len(tokens) - len(ids[-1]))
        if pairs is not None and segments:
            types.append(np.asarray(encoding.type_ids, np.uint8)[kept])
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(tokens) for tokens in ids], out=starts[1:])
    flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return Examples(
        tokens=flat,
        starts=starts,
        segments=np.concatenate(types) if types else None,
        cut=np.asarray(removed, np.int32),
        lost=unknown_in(tokenizer, flat, starts, sum(removed), texts, pairs),
    )


def _encodings(
    tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str] | None, special: bool
) -> Iterable[tokenizers.Encoding]:
    for begin in range(0, len(texts), CHUNK):
        some = list(texts[begin : begin + CHUNK])
        yield from tokenizer.encode_batch(
            some,
            None if pairs is None else list(pairs[begin : begin + CHUNK]),
            special=special,
        )


def _kept(encoding: tokenizers.Encoding, max_length: int, cut: str) -> NDArray[np.int64]:
    """Return the positions of the tokens to keep: all special tokens, and as much of each text as
    fits, cutting the longer text first.
    """
    of = np.asarray([-1 if s is None else s for s in encoding.sequence_ids], np.int64)
    # Some tokenizers assign special tokens to a sequence, so the mask is more reliable.
    of[np.asarray(encoding.special_tokens_mask, bool)] = -1
    room = max(0, max_length - int((of < 0).sum()))
    sizes = [int((of == 0).sum()), int((of == 1).sum())]
    first = min(sizes[0], max(room - sizes[1], room - room // 2))
    allowed = [first, min(sizes[1], room - first)]
    keep = of < 0
    for index in (0, 1):
        places = np.flatnonzero(of == index)
        keep[_cut(places, allowed[index], cut)] = True
    return np.flatnonzero(keep)


def _cut(places: NDArray[np.int64], size: int, cut: str) -> NDArray[np.int64]:
    if len(places) <= size:
        return places
    head = {"head": size, "tail": 0, "head-tail": size // 4}[cut]
    return np.concatenate([places[:head], places[len(places) - (size - head) :]])


def encode_texts(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    *,
    max_length: int,
    cut: str,
    config: ModelConfig,
) -> Examples:
    """Encode like `encode`, within the model's positions; raise ModelError if the model has no
    embedding for a token.
    """
    examples = encode(
        tokenizer,
        texts,
        pairs,
        max_length=min(max_length, config.max_length),
        cut=cut,
        segments=config.n_segments > 1,
    )
    check_vocabulary(tokenizer, examples, config)
    return examples


def check_vocabulary(tokenizer: Tokenizer, examples: Examples, config: ModelConfig) -> None:
    """Raise ModelError if the tokenizer's ids exceed the model's vocabulary."""
    largest = int(examples.tokens.max(initial=0))
    known = max(config.vocab_size, config.decoder_vocab_size)
    if largest >= known:
        raise ModelError(
            f"the tokenizer gives {tokenizer.token(largest)!r} the number {largest:,}; the model"
            f" has {known:,} tokens",
            do="the tokenizer is of another model: put its own back",
        )

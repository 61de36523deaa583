"""Add new tokens to a model: one row each in the embedding and in the output matrix.

A new row is the mean of all others (Hewitt 2021, "Initializing new word embeddings for pretrained
language models"), so that the model's predictions hardly change: the new token takes only a small
share of the probability. A zero or random row could be more probable than all words.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from tokenizers import AddedToken
from torch import Tensor

from langue.errors import ModelError
from langue.hub.checkpoint import Checkpoint

OF_TOKENS = ("body.token.weight", "head.out.weight", "head.bias")  # one row, or element, per token


def with_tokens(checkpoint: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """Return the model with these special tokens added; its tokenizer must have a single
    vocabulary.
    """
    tokenizer = checkpoint.tokenizer
    known = tokenizer.backend.get_vocab(with_added_tokens=True)
    new = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.backend.add_special_tokens(new)
    ids = tokenizer.backend.get_vocab(with_added_tokens=True)
    return _with_rows(checkpoint, [ids[name] for name in names if name not in known])


def widened(checkpoint: Checkpoint) -> Checkpoint:
    """Return the model with a row for every token of its tokenizer, to which tokens may have been
    added.
    """
    highest = max(checkpoint.tokenizer.backend.get_vocab(with_added_tokens=True).values())
    rows = list(range(checkpoint.config.vocab_size, highest + 1))
    if not rows or checkpoint.tokenizer.has_two_vocabularies:
        raise ModelError(
            "every token of the tokenizer has its row of the embedding",
            where=str(checkpoint.folder),
            do="leave --widen out",
        )
    return _with_rows(checkpoint, rows)


def _with_rows(checkpoint: Checkpoint, rows: Sequence[int]) -> Checkpoint:
    """Return the model with new rows for the tokens with these ids."""
    if not rows:
        return checkpoint
    size = max(checkpoint.config.vocab_size, *(row + 1 for row in rows))
    weights = dict(checkpoint.weights)
    for name in OF_TOKENS:
        if name in weights:
            weights[name] = _grown(weights[name], size, rows)
    if checkpoint.stored:
        raise ModelError(
            "the model's matrices are whole numbers, which do not grow",
            where=str(checkpoint.folder),
            do="take the model that it was made from",
        )
    return replace(checkpoint, config=replace(checkpoint.config, vocab_size=size), weights=weights)


def _grown(table: Tensor, size: int, rows: Sequence[int]) -> Tensor:
    """Enlarge table (V, ...) to (size, ...); the new rows are the mean of the V existing rows,
    without those in `rows`, which are untrained.
    """
    trained = torch.ones(len(table), dtype=torch.bool)
    trained[[row for row in rows if row < len(table)]] = False
    mean = table[trained].double().mean(0).to(table.dtype)
    grown = table.new_empty((size, *table.shape[1:]))
    grown[: len(table)] = table
    grown[len(table) :] = mean
    grown[list(rows)] = mean
    return grown

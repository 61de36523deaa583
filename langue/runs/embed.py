"""Embedding of texts: takes texts and a model's body; returns one vector for each text.

For a sentence-transformers folder, the vectors are those of that library.
"""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from langue.data.batch import Batch
from langue.data.pooling import MODES, pool, reads
from langue.errors import DataError, ModelError
from langue.hub.checkpoint import Checkpoint
from langue.hub.sentence_transformers import (
    POOLING,
    Normalize,
    SentenceInput,
    SentencePooling,
    lower_cased,
    read_sentence_input,
    read_sentence_pooling,
)
from langue.model.transformer import Transformer
from langue.model.weight_linear import device_of
from langue.runs.inputs import Inputs, Room, is_pair, listed
from langue.tasks.task import infer
from langue.text.tokenizers.tokenizer import Tokenizer


class SentenceEncoder:
    """Computes one vector for each text by pooling the hidden states of its tokens."""

    def __init__(self, checkpoint: Checkpoint, body: Transformer, inputs: Inputs) -> None:
        self.checkpoint = checkpoint
        self.body = body
        self.inputs = inputs
        self.device = device_of(body)
        # a run does not copy the modules.json of the model that it started from, so this one is its
        # own
        self.folder = checkpoint.folder

    @cached_property
    def _sentence_input(self) -> SentenceInput | None:
        return read_sentence_input(self.folder)

    @cached_property
    def _sentence_pooling(self) -> SentencePooling | None:
        found = read_sentence_pooling(self.folder, self.checkpoint.config.out_dim)
        if found is not None:
            found.steps.to(self.device)
        return found

    @cached_property
    def _sentence_tokenizer(self) -> Tokenizer:
        said = self._sentence_input
        plain = self.checkpoint.tokenizer
        return lower_cased(plain) if said is not None and said.lower_case else plain

    def encode(
        self,
        texts: Any,
        mode: str | None,
        prompt: str | None,
        prompt_name: str | None,
        dtype: torch.dtype,
        dim: int | None = None,
    ) -> NDArray[np.float32]:
        """Return vectors (N, D), as `Model.encode` does; mode: its `pool`."""
        if mode is not None and POOLING.get(mode, mode) not in MODES:
            raise ModelError(f"pool = {mode!r} is not known", do=f"use one of: {', '.join(MODES)}")
        followed = self._sentence_pooling if mode is None else None
        size = self.checkpoint.config.out_dim if followed is None else followed.size
        if dim is not None and not 0 < dim <= size:
            raise ModelError(
                f"dim = {dim}: the vectors have {size} elements",
                do=f"give a number from 1 to {size}",
            )
        items = listed(texts)
        before = self._prompt(prompt, prompt_name)
        if before:
            items = [_after_prompt(before, item, required=prompt is not None) for item in items]
        modes = (
            (POOLING.get(mode or "mean", mode or "mean"),) if followed is None else followed.modes
        )
        room = self._encode_room()
        tokenizer = self._sentence_tokenizer
        skip = 0
        if followed is not None and not followed.include_prompt and before:
            skip = _prompt_tokens(tokenizer, before, room)
        with self.inputs.counting_truncation():
            examples = self.inputs.examples(items, room=room, tokenizer=tokenizer)
        if len(examples) and not examples.lengths.min():
            what = f"text {int(examples.lengths.argmin()) + 1} of {len(examples):,} has no tokens"
            raise DataError(what, do="leave empty texts out: there is nothing in them to encode")

        def vectors(batch: Batch) -> NDArray[np.float32]:
            hidden = self.body(*batch.inputs, query_positions=reads(modes, batch, skip)).float()
            with torch.autocast(self.device.type, enabled=False):
                pooled = pool(hidden, batch, modes, skip)
                found: NDArray[np.float32] = (
                    (pooled if followed is None else followed.steps(pooled)).cpu().numpy()
                )
            return found

        out = np.zeros((len(examples), size), np.float32)
        for batch, found in infer(vectors, examples, self.device, dtype):
            out[batch.rows] = found
        return out if dim is None else shortened(out, dim, followed)

    def _encode_room(self) -> Room:
        """Return the length at which `encode` truncates texts."""
        said = self._sentence_input
        if said is None or said.max_length is None:
            return replace(self.inputs.room, cut=self.inputs.cut_side)
        most = min(said.max_length, self.checkpoint.config.max_length)
        source = (
            "max_seq_length of the folder" if most == said.max_length else self.inputs.room.source
        )
        return Room(most, source, self.inputs.cut_side)

    def has_prompt(self, name: str) -> bool:
        """Return whether the folder has a prompt of this name, which may be empty."""
        said = self._sentence_input
        return said is not None and name in said.prompts

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        """Return the prompt for each text: the given one, or the folder's prompt of this name, or
        its default.
        """
        if prompt is not None and name is not None:
            raise ModelError("both prompt and prompt_name are given", do="give one of them")
        said = self._sentence_input
        if prompt is not None:
            return prompt
        if said is not None and name is None:
            name = said.default_prompt
        if name is None:
            return ""
        known = {} if said is None else said.prompts
        if name not in known:
            do = f"it has {', '.join(known)}" if known else "give the text itself: prompt=..."
            raise ModelError(
                f"the model has no prompt {name!r}", where=str(self.checkpoint.folder), do=do
            )
        return known[name]


def shortened(
    vectors: NDArray[np.float32], dim: int, followed: SentencePooling | None
) -> NDArray[np.float32]:
    """Truncate vectors (N, D) to (N, dim); normalize them again if the last module does."""
    cut: NDArray[np.float32] = vectors[:, :dim]
    is_unit = followed is not None and any(isinstance(each, Normalize) for each in followed.steps)
    return F.normalize(torch.from_numpy(cut), dim=-1).numpy() if is_unit else cut


def _after_prompt(prompt: str, item: Any, required: bool) -> Any:
    """Put the prompt before a string or a pair; leave token ids as they are, unless the prompt is
    required.
    """
    if isinstance(item, str):
        return prompt + item
    if is_pair(item):
        return (prompt + item[0], *item[1:])
    if required:
        raise ModelError(
            "a prompt cannot be put before token ids", do="give strings, or leave prompt out"
        )
    return item


def _prompt_tokens(tokenizer: Tokenizer, prompt: str, room: Room) -> int:
    """Return the number of tokens of a prompt, including the special tokens before it."""
    ids = tokenizer.backend.encode(prompt).ids
    marks = tokenizer.backend.get_added_tokens_decoder()
    ends = bool(ids) and ids[-1] in marks and marks[ids[-1]].special
    count = len(ids) - ends
    if count >= room.tokens:
        raise ModelError(
            f"the prompt alone has {count:,} tokens, of {room.tokens:,}", do="give a shorter prompt"
        )
    return count

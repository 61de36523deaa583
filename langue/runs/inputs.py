"""Input of a model in use: takes strings, pairs of strings, token ids or conversations; returns a
list of one kind, encoded within the model's maximum length, or raises one clear error.
"""

from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.data.batch import Examples
from langue.data.encode import encode_texts
from langue.errors import ModelError, PromptTooLong
from langue.hub.checkpoint import Checkpoint
from langue.model.config import ANY_LENGTH, ModelConfig
from langue.progress import warn
from langue.text.read.parse import is_missing, replace_lone_surrogates
from langue.text.tokenizers.flags import frame_of
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import Lost

Texts = Sequence[str] | Sequence[tuple[str, str]] | Sequence[Sequence[int]]
PARTS = {"head": "the beginning", "tail": "the end", "head-tail": "the beginning and the end"}


@dataclass(frozen=True)
class Room:
    """The maximum number of tokens of a text, including special tokens, and the treatment of longer
    ones.
    """

    tokens: int
    source: str  # where the limit comes from
    # the part that is kept, as in data.truncation; None: a longer text is an error
    cut: str | None = None


@dataclass
class Truncation:
    """Counts of truncated texts."""

    room: Room | None = None
    texts: int = 0
    texts_cut: int = 0
    tokens: int = 0  # of all texts, before truncation
    tokens_cut: int = 0

    def add(self, examples: Examples, room: Room) -> None:
        self.room = room
        self.texts += len(examples)
        self.texts_cut += int((examples.cut > 0).sum())
        self.tokens += int(examples.lengths.sum() + examples.cut.sum())
        self.tokens_cut += int(examples.cut.sum())

    def message(self) -> str | None:
        """Return a warning, or None if nothing was truncated."""
        if self.room is None or not self.texts_cut:
            return None
        are = ("text" if self.texts == 1 else "texts") + (" is" if self.texts_cut == 1 else " are")
        return (
            f"{self.texts_cut:,} of {self.texts:,} {are} longer than {self.room.tokens:,} tokens"
            f" ({self.room.source}): {PARTS[self.room.cut or 'head']} is kept, and"
            f" {self.tokens_cut:,} of {self.tokens:,} tokens are left out"
        )


class Inputs:
    """Encodes a user's texts, and counts what is truncated."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
        self.checkpoint = checkpoint
        # A langue run has its own limit for its task's texts; and its tokenizer's limit may be that
        # of another model.
        self.room = room_of(self.config, self.tokenizer, follow_tokenizer=checkpoint.task is None)
        self._truncation: Truncation | None = None
        self._refuses_long = False
        self._lost: Lost | None = None  # what the tokenizer does not know, while counting

    @property
    def cut_side(self) -> Any:
        """The part of a longer text that `transformers` keeps."""
        return "tail" if self.tokenizer.options.get("truncation_side") == "left" else "head"

    def examples(
        self,
        texts: Any,
        *,
        prompt: bool = False,
        target: bool = False,
        tokenizer: Tokenizer | None = None,
        room: Room | None = None,
    ) -> Examples:
        """Encode strings or pairs; lists of token ids are used as they are.

        prompt: without the tokens that end a text. target: as inputs of an encoder-decoder's
        decoder. tokenizer: replaces the model's own. room: by default the model's, for which a
        longer string is an error.
        """
        room = room or self.room
        if self._refuses_long:
            room = replace(room, cut=None)
        chosen = tokenizer or self.tokenizer
        chosen = chosen.target if target else chosen
        vocabulary = self.config.vocab_size
        if target:
            vocabulary = self.config.decoder_vocab_size or vocabulary
        found = encode_items(listed(texts), chosen, self.config, room, vocabulary)
        if self._truncation is not None:
            self._truncation.add(found, room)
        if found.lost is not None:
            # special tokens may be intended in a prompt, and in the input of a bare model
            meant = prompt or room is self.room
            self.count_unknown(replace(found.lost, named=0) if meant else found.lost)
        return without_end(found, self.tokenizer, self.checkpoint.ends) if prompt else found

    def count_unknown(self, lost: Lost) -> None:
        """Add to the count of unknown tokens, or warn at once if nothing is being counted."""
        if self._lost is not None:
            self._lost.add(lost)
            return
        for note in lost.note():
            warn(note)

    @contextmanager
    def refusing_long(self) -> Iterator[None]:
        """Raise PromptTooLong inside, instead of truncating texts."""
        self._refuses_long = True
        try:
            yield
        finally:
            self._refuses_long = False

    @contextmanager
    def counting_truncation(self) -> Iterator[Truncation]:
        """Warn once about all texts that are truncated inside, and once about what the tokenizer
        does not know, whatever the number of calls.
        """
        if self._truncation is not None:
            yield self._truncation
            return
        self._truncation = Truncation()
        self._lost = Lost(self.tokenizer)
        try:
            yield self._truncation
            message = self._truncation.message()
            notes = self._lost.note()
        finally:
            self._truncation = self._lost = None
        for each in [message, *notes] if message is not None else notes:
            warn(each)


def room_of(config: ModelConfig, tokenizer: Tokenizer, follow_tokenizer: bool = True) -> Room:
    """Return the smaller of the config's positions and the tokenizer's model_max_length."""
    said: Any = tokenizer.options.get("model_max_length")
    # `transformers` writes 1e30 for "no limit"
    is_length = type(said) in (int, float) and 0 < said < ANY_LENGTH
    if follow_tokenizer and is_length and said < config.max_length:
        return Room(int(said), "model_max_length of its tokenizer_config.json")
    return Room(config.max_length, "the positions of its config")


def listed(
    texts: Any, name: str = "texts", *, ids: bool = True, conversations: bool = False
) -> list[Any]:
    """Return the items as a list; raise ModelError if a single item is given instead of a list.

    ids, conversations: whether an item may be a list of token ids, or of messages.
    """
    only_texts = "give a list of texts"
    if isinstance(texts, str | bytes):
        raise ModelError(f"{name} is one string", do="give a list: [text]")
    if isinstance(texts, Mapping):
        if "role" in texts:
            do = "give a list of conversations: [[message]]" if conversations else only_texts
            raise ModelError(f"{name} is one message", do=do)
        raise ModelError(
            f"{name} is a mapping", do="give a list, as of its values: list(texts.values())"
        )
    items = list(texts)
    if items and all(isinstance(item, Mapping) and "role" in item for item in items):
        do = "give a list of conversations: [messages]" if conversations else only_texts
        raise ModelError(f"{name} is one conversation", do=do)
    if items and all(isinstance(item, int | np.integer) for item in items):
        if not ids:
            raise ModelError(f"{name} is a list of numbers", do=only_texts)
        raise ModelError(f"{name} is one list of token ids", do="give a list of lists: [ids]")
    return items


def is_conversation(item: Any) -> bool:
    """Return whether an item is a list of messages, `{"role", "content"}`."""
    return isinstance(item, list | tuple) and len(item) > 0 and isinstance(item[0], Mapping)


def is_pair(item: Any) -> bool:
    """Return whether an item is a pair of strings; one that only starts like a pair raises a
    ModelError later.
    """
    return isinstance(item, list | tuple) and len(item) > 0 and isinstance(item[0], str)


def is_empty(item: Any, words: bool = False) -> bool:
    """Return whether a text, one side of a pair, or a list of token ids is empty.

    words: a list contains words, and is empty if all of them are.
    """
    if words and isinstance(item, (tuple, list)):
        return all(each is None or isinstance(each, str) and is_missing(each) for each in item)
    if isinstance(item, (tuple, list)) and 0 < len(item) <= 2:
        return any(
            each is None or isinstance(each, (str, float)) and is_missing(each) for each in item
        )
    if item is None or isinstance(item, (str, float)):
        return is_missing(item)
    return isinstance(item, Sized) and not len(item)


def check_kind(items: list[Any]) -> None:
    """Raise ModelError if strings, pairs, token ids and conversations are mixed."""
    kinds = {(isinstance(item, str), is_pair(item), is_conversation(item)) for item in items}
    if len(kinds) > 1:
        raise ModelError(
            "texts mixes strings, pairs, token ids and conversations", do="give one kind at a time"
        )


def encode_items(
    items: list[Any], tokenizer: Tokenizer, config: ModelConfig, room: Room, vocabulary: int
) -> Examples:
    """Return strings or pairs as token ids, and token ids as they are.

    vocabulary: size of the vocabulary.
    """
    check_kind(items)
    if items and not isinstance(items[0], str) and not is_pair(items[0]):
        return _from_ids(items, config.longest, vocabulary)
    pairs = None
    if items and is_pair(items[0]):
        for index, item in enumerate(items):
            if len(item) != 2 or not isinstance(item[1], str):
                raise ModelError(
                    f"texts: item {index} is not a pair of strings",
                    do="give (text, pair), two strings",
                )
        pairs = [replace_lone_surrogates(item[1]) for item in items]
        items = [item[0] for item in items]
    texts = [replace_lone_surrogates(item) for item in items]
    most = min(room.tokens, config.max_length)
    examples = encode_texts(
        tokenizer, texts, pairs, max_length=most, cut=room.cut or "head", config=config
    )
    if room.cut is None and examples.cut.any():
        raise too_long(examples.lengths + examples.cut, room, config.longest)
    return examples


def too_long(lengths: NDArray[np.int64], room: Room, longest: int) -> ModelError:
    """Return the error for the longest of several texts, given their lengths in tokens."""
    index = int(lengths.argmax())
    which = "the text" if len(lengths) == 1 else f"text {index + 1} of {len(lengths):,}"
    remedy = "shorten it, or split it"
    if longest > room.tokens:
        remedy += f"; token ids are taken up to {longest:,}"
    return PromptTooLong(
        f"{which} has {int(lengths[index]):,} tokens, and the model has room for {room.tokens:,}"
        f" ({room.source})",
        tokens=int(lengths[index]),
        room=room.tokens,
        do=remedy,
    )


def _from_ids(items: list[Any], longest: int, vocabulary: int) -> Examples:
    try:
        parts = [np.asarray(item) for item in items]
    except ValueError:
        parts = []
    whole = all(part.ndim == 1 and (part.dtype.kind in "iu" or not part.size) for part in parts)
    if not parts or not whole:
        raise ModelError(
            "texts are neither strings nor pairs of them nor lists of token ids",
            do="give one of these",
        )
    lengths = [len(part) for part in parts]
    if min(lengths) < 1 or max(lengths) > longest:
        what = f"a sequence must have 1 to {longest} tokens"
        if min(lengths) < 1:
            raise ModelError(what)
        raise PromptTooLong(what, tokens=max(lengths), room=longest)
    tokens = np.concatenate(parts).astype(np.int64)
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise ModelError(f"token ids must lie in 0 to {vocabulary - 1}")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Examples(tokens.astype(np.int32), starts, None, np.zeros(len(items), np.int32))


def without_end(examples: Examples, tokenizer: Tokenizer, ends: frozenset[int]) -> Examples:
    """Return prompts without the end-of-text tokens that the tokenizer appended."""
    added = 0
    for token in reversed(frame_of(tokenizer.backend)[1]):
        if token not in ends:
            break
        added += 1
    if not added:
        return examples
    left_off = np.minimum(added, np.maximum(examples.lengths - 1, 0))
    places = np.arange(len(examples.tokens)) - np.repeat(examples.starts[:-1], examples.lengths)
    kept = places < np.repeat(examples.lengths - left_off, examples.lengths)
    starts = np.concatenate([[0], np.cumsum(examples.lengths - left_off)]).astype(np.int64)
    return replace(examples, tokens=examples.tokens[kept], starts=starts, segments=None)

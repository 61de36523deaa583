"""What arrives: a tokenizer. What leaves: how its decoder puts tokens together, as far as one must
know it to decode a text piece by piece.

The library decodes whole texts. Its steps work on one token each, but for three things: bytes
that are one character, runs of tokens such as `<0xE5>`, which are one text or none, and the edges
of a text, where spaces and marks of words are taken away.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import tokenizers
from tokenizers import models

from langue.text.tokenizers.tokenizer import HALF, Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # what SentencePiece writes where it knows no token
_JOINING = {"Fuse", "ByteLevel"}  # after one of these the text is one piece
_AT_EDGES = {"Fuse", "Strip"}  # which then leave its inside as it is


@dataclass(frozen=True)
class Decoding:
    """How a decoder sees tokens.

    steps: the decoder's, as the library's JSON has them. special: ids of special tokens, which are
    left out. run_bytes: the bytes of the tokens that are decoded in runs. anchor: the tokens (one
    or none) after which any other token is decoded as within a text. is_local: no step looks at a
    joined text's inside, so that a text may be decoded piece by piece.
    """

    reader: tokenizers.Tokenizer
    steps: tuple[dict[str, Any], ...]
    special: frozenset[int]
    run_bytes: dict[int, int]
    anchor: tuple[int, ...]
    is_local: bool

    def skips(self, token: int) -> bool:
        """Whether decoding leaves the token out, being special or in no vocabulary."""
        return token in self.special or self.reader.id_to_token(token) is None


def decoding_of(tokenizer: Tokenizer) -> Decoding:
    """How the tokenizer decodes; found once for each tokenizer."""
    if tokenizer not in _FOUND:
        _FOUND[tokenizer] = _read(tokenizer)
    return _FOUND[tokenizer]


_FOUND: "WeakKeyDictionary[Tokenizer, Decoding]" = WeakKeyDictionary()


def _read(tokenizer: Tokenizer) -> Decoding:
    reader = tokenizer.reader
    steps = _steps(reader.decoder)
    kinds = [step["type"] for step in steps]
    added = reader.get_added_tokens_decoder().items()
    special = frozenset(index for index, token in added if token.special)
    vocabulary = reader.get_vocab()
    run_bytes = dict[int, int]()
    if "ByteFallback" in kinds:
        for token, index in vocabulary.items():
            found = _BYTE.fullmatch(token)
            if found:
                run_bytes[index] = int(found[1], 16)
    joined = next((at for at, kind in enumerate(kinds) if kind in _JOINING), len(kinds))
    is_local = _AT_EDGES.issuperset(kinds[joined + 1 :])
    anchor = next(
        (
            (index,)
            for index in sorted(vocabulary.values())
            if index not in special and index not in run_bytes and _is_whole(tokenizer, index)
        ),
        (),
    )
    return Decoding(reader, tuple(steps), special, run_bytes, anchor, is_local)


def _is_whole(tokenizer: Tokenizer, index: int) -> bool:
    text = tokenizer.decode([index])
    return text.strip() == text != "" and HALF not in text


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """The decoder's steps as the library's JSON has them; none where there is no decoder."""
    if decoder is None:
        return []
    shell = tokenizers.Tokenizer(models.BPE())  # a whole tokenizer's JSON has its vocabulary too
    shell.decoder = decoder
    return _flat(json.loads(shell.to_str())["decoder"])


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    if step["type"] != "Sequence":
        return [step]
    return [inner for each in step["decoders"] for inner in _flat(each)]

"""What arrives: a tokenizer. What leaves: how its decoder puts tokens together, as far as one must
know it to decode a text piece by piece.

The library decodes whole texts. Its steps work on one token each, but for three things: bytes
that are one character, runs of tokens such as `<0xE5>`, which are one text or none, and the edges
of a text, where spaces and marks of words are taken away.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import tokenizers
from tokenizers import models

from langue.errors import ModelError
from langue.text.tokenizers.tokenizer import HALF, Tokenizer
from langue.text.tokenizers.unknown import ALPHABET

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # what SentencePiece writes where it knows no token
_BYTE_OF = {letter: byte for byte, letter in ALPHABET.items()}
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
    anchor = next(_anchors(tokenizer, special, run_bytes), None)
    tokens = () if anchor is None else (anchor,)
    return Decoding(reader, tuple(steps), special, run_bytes, tokens, is_local)


def _anchors(
    tokenizer: Tokenizer, special: Collection[int], run_bytes: Collection[int]
) -> Iterator[int]:
    """Tokens that are text by themselves, whole characters without spaces around them."""
    for index in sorted(tokenizer.reader.get_vocab().values()):
        if index not in special and index not in run_bytes:
            text = tokenizer.decode([index])
            if text.strip() == text != "" and HALF not in text:
                yield index


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


@dataclass(frozen=True)
class TokenBytes:
    """The bytes (UTF-8) that each token (V,) adds to a text; none of special and unknown tokens.

    first: of a text's first token, which often loses a space. later: behind another token.
    after_word: behind one of `ends_word`, tokens whose space is written only where another
    follows; None where there are no such tokens.
    """

    first: list[bytes]
    later: list[bytes]
    after_word: list[bytes] | None
    ends_word: frozenset[int]


def token_bytes(tokenizer: Tokenizer, size: int) -> TokenBytes:
    """What the tokens below `size` add to a text, as the library's decoder has it.

    ModelError where the decoder is of a kind that changes what other tokens have written.
    """
    decoding = decoding_of(tokenizer)
    kinds = {step["type"] for step in decoding.steps}
    if not decoding.is_local or "CTC" in kinds:
        raise ModelError(
            "what its tokenizer writes cannot be told token by token"
            f" (decoder: {', '.join(step['type'] for step in decoding.steps)})",
            where=str(tokenizer.folder or ""),
        )
    suffixes = [step["suffix"] for step in decoding.steps if step["type"] == "BPEDecoder"]
    ends_word = frozenset(
        index
        for token, index in decoding.reader.get_vocab().items()
        if index not in decoding.special and any(suffix in token for suffix in suffixes)
    )
    anchors = list(_anchors(tokenizer, decoding.special, decoding.run_bytes)) if ends_word else []
    inner = next((index for index in anchors if index not in ends_word), None)
    outer = next((index for index in anchors if index in ends_word), None)
    if not ends_word and decoding.anchor:
        inner = decoding.anchor[0]
    first = _behind(tokenizer, None, size)
    later = first if inner is None else _behind(tokenizer, inner, size)
    after_word = None if outer is None else _behind(tokenizer, outer, size)
    return TokenBytes(first, later, after_word, ends_word)


def _behind(tokenizer: Tokenizer, before: int | None, size: int) -> list[bytes]:
    """The bytes of each token behind another one, or of a text's first token."""
    decoding = decoding_of(tokenizer)
    reader = decoding.reader
    given = [] if before is None else [before]
    skip = len(tokenizer.decode(given))
    known = [index for index in range(size) if not decoding.skips(index)]
    texts = reader.decode_batch([[*given, index] for index in known])
    of_bytes = any(step["type"] == "ByteLevel" for step in decoding.steps)
    found = [b""] * size
    for index, text in zip(known, texts, strict=True):
        new = text[skip:]
        if index in decoding.run_bytes:
            found[index] = bytes([decoding.run_bytes[index]]) if new else b""
        elif of_bytes and HALF in new:
            found[index] = _of_letters(tokenizer.token(index))
        else:
            found[index] = new.encode("utf-8", "surrogatepass")
    return found


def _of_letters(token: str) -> bytes:
    """The bytes of a token in GPT-2's alphabet; one that has other letters stands for itself."""
    if any(letter not in _BYTE_OF for letter in token):
        return token.encode()
    return bytes(_BYTE_OF[letter] for letter in token)

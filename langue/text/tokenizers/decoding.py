"""How the decoder of a tokenizer joins tokens, as far as needed to decode a text incrementally.

The library decodes whole texts. Its steps work on single tokens, with three exceptions: bytes that
form one character, runs of byte tokens such as `<0xE5>`, which are decoded or rejected as a whole,
and the ends of a text, where spaces and word marks are stripped.
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

# the byte tokens of SentencePiece for characters without a token
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BYTE_OF = {letter: byte for byte, letter in ALPHABET.items()}
_JOINING = {"Fuse", "ByteLevel"}  # after one of these steps, the text is a single string
_AT_EDGES = {"Fuse", "Strip"}  # these change only the ends of a single string


@dataclass(frozen=True)
class Decoding:
    """The properties of a tokenizer's decoder.

    steps: those of the decoder, as in the library's JSON. special: ids of special tokens, which are
    skipped. run_bytes: the bytes of the tokens that are decoded in runs. anchor: at most one token,
    after which any other token is decoded as inside a text. is_local: no step changes the inside of
    a joined text, so that a text can be decoded incrementally.
    """

    reader: tokenizers.Tokenizer
    steps: tuple[dict[str, Any], ...]
    special: frozenset[int]
    run_bytes: dict[int, int]
    anchor: tuple[int, ...]
    is_local: bool

    def skips(self, token: int) -> bool:
        """Return whether decoding skips the token, because it is special or in no vocabulary."""
        return token in self.special or self.reader.id_to_token(token) is None


def decoding_of(tokenizer: Tokenizer) -> Decoding:
    """Return the properties of the tokenizer's decoder, which are cached for each tokenizer."""
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
    """Yield tokens whose text is made of complete characters, without spaces around them."""
    for index in sorted(tokenizer.reader.get_vocab().values()):
        if index not in special and index not in run_bytes:
            text = tokenizer.decode([index])
            if text.strip() == text != "" and HALF not in text:
                yield index


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """Return the decoder's steps as in the library's JSON; empty if there is no decoder."""
    if decoder is None:
        return []
    # the JSON of the whole tokenizer would include its vocabulary
    shell = tokenizers.Tokenizer(models.BPE())
    shell.decoder = decoder
    return _flat(json.loads(shell.to_str())["decoder"])


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    if step["type"] != "Sequence":
        return [step]
    return [inner for each in step["decoders"] for inner in _flat(each)]


@dataclass(frozen=True)
class TokenBytes:
    """The UTF-8 bytes that each token (V,) appends to a text; empty for special and unknown tokens.

    first: as the first token of a text, where it often loses a space. later: after another token.
    after_word: after a token of `ends_word`, whose space is only written if another token follows;
    None if there are no such tokens.
    """

    first: list[bytes]
    later: list[bytes]
    after_word: list[bytes] | None
    ends_word: frozenset[int]


def token_bytes(tokenizer: Tokenizer, size: int) -> TokenBytes:
    """Return what the tokens below `size` append to a text, according to the library's decoder.

    Raises ModelError for a decoder that changes what other tokens have written.
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
    """Return the bytes of each token after another one, or as the first token of a text."""
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
    """Return the bytes of a token in GPT-2's alphabet; a token with other characters stands for
    itself.
    """
    if any(letter not in _BYTE_OF for letter in token):
        return token.encode()
    return bytes(_BYTE_OF[letter] for letter in token)

"""Finds which tokens of a text begin a word.

In scripts without spaces, a character is a word, as in BERT's tokenizer for Chinese, whatever the
vocabulary: in a vocabulary that marks spaces, a word would be a whole clause. A token of several
such characters is not split further.
"""

import re
import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.text.quality import script
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import ALPHABET

_VALUES = {letter: byte for byte, letter in ALPHABET.items()}
# the byte tokens of SentencePiece for characters without a token
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_LATER = bytes(range(0x80, 0xC0))  # continuation bytes of UTF-8
# lead bytes that do not determine the kind of script: Thai and Khmer, but also Hindi and Georgian,
# which have spaces
_UNTOLD = (b"\xe0", b"\xe1")


class Words:
    def __init__(self, tokenizer: Tokenizer) -> None:
        """Classify the tokens of the vocabulary.

        A token continues a word if it has the mark of its kind of vocabulary, ##; without such
        marks, if it begins with a letter, a combining mark or a digit, and has no mark of a space.
        """
        tokens = [tokenizer.token(index) for index in range(len(tokenizer))]
        mark = getattr(tokenizer.backend.model, "continuing_subword_prefix", None) or ""
        bytewise = set(_VALUES) <= set(tokens)
        raw = [_raw(token.removeprefix(mark), bytewise) for token in tokens]
        texts = [_text(each.lstrip(_LATER)) for each in raw]
        goes_on = [
            token.startswith(mark) if mark else _of_word(text[:1])
            for token, text in zip(tokens, texts, strict=True)
        ]
        self.first = ~np.asarray(goes_on, bool) | np.asarray(
            [script.is_unspaced(text) for text in texts], bool
        )
        self.last = np.asarray([script.is_unspaced(text[-1:]) for text in texts], bool)
        self.head = np.asarray([each[0] if each else 0 for each in raw], np.uint8)
        self.open = np.asarray([each[-1] if each[-1:] in _UNTOLD else 0 for each in raw], np.uint8)
        self.within = np.isin(self.head, list(_LATER))  # begins inside a character
        self.single = np.asarray([len(each) == 1 for each in raw], bool)

    def begin(self, text: NDArray[np.int32], starts: Any = 0) -> NDArray[np.bool_]:
        """Return a mask (T,) of the tokens (T,) that begin a word.

        starts: positions that are independent of what is before, where a word begins in any case.
        """
        within = self.within[text]
        head = self.head[text]
        within[starts] = False
        head[starts] = 0
        # the next byte, which determines the script of a character
        byte = np.append(head[1:], 0).astype(np.int64)
        told = np.isin(byte | self.open[text].astype(np.int64) << 8, _ALONE)
        # position where the current character began
        begun = np.maximum.accumulate(np.where(within, 0, np.arange(len(text))))
        after = np.concatenate([[False], (self.last[text] | told)[begun[:-1]]])
        begins: NDArray[np.bool_] = ~within & (self.first[text] | self.single[text] & told | after)
        begins[starts] = True
        return begins


def _raw(token: str, bytewise: bool) -> bytes:
    """Return the bytes of the text that a token stands for."""
    if bytewise and all(letter in _VALUES for letter in token):
        return bytes(_VALUES[letter] for letter in token)
    byte = _BYTE.fullmatch(token)
    return (
        bytes([int(byte[1], 16)])
        if byte
        else re.sub("^[Ġ▁]", " ", token).encode("utf-8", "replace")
    )


def _text(raw: bytes) -> str:
    """Decode the bytes, and replace a truncated last character by one of the same kind, Han or a
    letter.
    """
    text = raw.decode("utf-8", "replace")
    if not text.endswith("\ufffd"):
        return text
    there = raw[len(raw.rstrip(_LATER)) - 1 :]
    return text[:-1] + (
        "中"
        if b"\xe3" <= there[:1] <= b"\xe9" or there[:1] >= b"\xf0" or _alone(there[:2])
        else "a"
    )


def _alone(there: bytes) -> bool:
    """Return whether a three-byte character that begins with these two bytes is a word."""
    return (
        len(there) == 2
        and there[:1] in _UNTOLD
        and script.is_unspaced((there + b"\x80").decode("utf-8", "replace"))
    )


def _of_word(letter: str) -> bool:
    """Return whether the character continues a word: a letter, a combining mark, or a digit."""
    return letter != "" and unicodedata.category(letter)[0] in "LMN"


_ALONE = [
    (lead << 8) + byte for lead in (0xE0, 0xE1) for byte in _LATER if _alone(bytes([lead, byte]))
]

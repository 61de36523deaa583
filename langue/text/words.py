"""What arrives: the tokens of a vocabulary, and a text of them. What leaves: which of the text's tokens begin a word.

In scripts that write no spaces a character is a word, as BERT's tokenizer has it of Chinese, whatever the vocabulary:
to one that marks spaces a clause would be a word. A token of several such characters is cut no further.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langue.text import script

_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # what stands for itself in GPT-2's alphabet
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
ALPHABET = {byte: chr(byte) for byte in _PLAIN} | {byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}
_VALUES = {letter: byte for byte, letter in ALPHABET.items()}
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # what SentencePiece writes where it knows no token
_LATER = bytes(range(0x80, 0xC0))  # bytes of a character after its first one


class Words:
    def __init__(self, tokens: Sequence[str]) -> None:
        """tokens: the vocabulary. What goes on with a word is ##ed; or letters without the mark of a space."""
        pieces = any(token.startswith("##") for token in tokens)
        bytewise = set(_VALUES) <= set(tokens)
        raw = [_raw(token.removeprefix("##") if pieces else token, bytewise) for token in tokens]
        texts = [_text(each.lstrip(_LATER)) for each in raw]
        goes_on = [token.startswith("##") for token in tokens] if pieces else [text[:1].isalpha() for text in texts]
        self.first = ~np.asarray(goes_on, bool) | np.asarray([script.alone(text) for text in texts], bool)
        self.last = np.asarray([script.alone(text[-1:]) for text in texts], bool)
        self.within = np.asarray([each[:1] != b"" and each[0] in _LATER for each in raw], bool)  # a character

    def begin(self, text: NDArray[np.int32]) -> NDArray[np.bool_]:
        """(T,) tokens -> (T,)."""
        within = self.within[text]
        begun = np.maximum.accumulate(np.where(within, 0, np.arange(len(text))))  # where its last character began
        after = np.concatenate([[False], self.last[text[begun[:-1]]]])
        begins: NDArray[np.bool_] = ~within & (self.first[text] | after)
        return begins


def _raw(token: str, bytewise: bool) -> bytes:
    """The bytes of the text that a token is."""
    if bytewise and all(letter in _VALUES for letter in token):
        return bytes(_VALUES[letter] for letter in token)
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else re.sub("^[Ġ▁]", " ", token).encode("utf-8", "replace")


def _text(raw: bytes) -> str:
    """With another character of its kind, Han or a letter, in the place of a last one that is cut."""
    text = raw.decode("utf-8", "replace")
    if not text.endswith("\ufffd"):
        return text
    lead = raw.rstrip(_LATER)[-1:]
    return text[:-1] + ("中" if b"\xe3" <= lead <= b"\xe9" or lead >= b"\xf0" else "a")

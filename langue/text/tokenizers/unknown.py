"""Measures how much of the texts a tokenizer does not know.

What a vocabulary lacks becomes its unknown token or, with some tokenizers, nothing at all; either
way it is lost to the model. Unknown tokens are counted exactly. They say little about the amount of
lost text, since a word of ninety characters is one token just like a letter, so the characters and
bytes behind them are measured on a sample.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from langue.text.tokenizers.tokenizer import Tokenizer

SHARE = 0.01  # minimum share of lost characters or unknown tokens that is reported
SAMPLE = 1 << 18  # maximum number of characters measured
COUNTS = (
    *("tokens", "characters", "unknown", "sampled_unknown", "sampled", "sampled_bytes"),
    *("lost", "lost_bytes", "overlong", "named"),
)
NOWHERE = "\U0010fffe"  # a noncharacter, and therefore in no vocabulary

# The character that GPT-2 (Radford et al. 2019) uses for each byte: the byte itself if it is
# printable.
_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
ALPHABET = {byte: chr(byte) for byte in _PLAIN} | {
    byte: chr(256 + n) for n, byte in enumerate(_OTHERS)
}


@dataclass(frozen=True)
class Gap:
    """How a tokenizer treats a character that its vocabulary lacks."""

    token: int | None  # its unknown token; None: it never needs one
    drops: bool = False  # the character is dropped without a token


@dataclass
class Lost:
    """How much of some text is unknown; the caller counts tokens, and characters are measured."""

    tokenizer: Tokenizer
    tokens: int = 0  # number of tokens of the text
    characters: int = 0  # number of characters of the text
    unknown: int = 0  # number of unknown tokens
    sampled_unknown: int = 0  # number of unknown tokens in the sample
    sampled: int = 0  # number of characters of the sample
    sampled_bytes: int = 0
    lost: int = 0  # characters of the sample without a known token, except white space
    lost_bytes: int = 0
    overlong: int = 0  # lost characters in words beyond WordPiece's limit
    # number of texts that contain the name of a special token, which is read as that token
    named: int = 0
    name: str = ""  # the first such name

    @property
    def gap(self) -> Gap:
        return gap_of(self.tokenizer)

    def measure(self, texts: Iterable[str]) -> None:
        """Measure what is behind the unknown tokens of texts, as far as there is room in the
        sample.
        """
        for text in texts:
            if self.sampled >= SAMPLE:
                return
            self._measure(self.gap, text[: SAMPLE - self.sampled])

    def _measure(self, gap: Gap, text: str) -> None:
        encoding = self.tokenizer.backend.encode(text, add_special_tokens=False)
        gone = np.full(len(text), gap.drops)
        unknown = 0
        limit = self._longest_word()
        for token, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if gap.drops:
                gone[begin:end] = False
            elif token == gap.token:
                gone[begin:end] = True
                unknown += 1
                self.overlong += end - begin if limit is not None and end - begin > limit else 0
        lost = [text[place] for place in np.flatnonzero(gone) if not text[place].isspace()]
        self.sampled += len(text)
        self.sampled_bytes += _bytes(text)
        self.sampled_unknown += unknown
        self.lost += len(lost)
        self.lost_bytes += _bytes("".join(lost))

    def _longest_word(self) -> int | None:
        """Return the number of characters beyond which WordPiece treats a word as unknown."""
        longest: int | None = getattr(
            self.tokenizer.backend.model, "max_input_chars_per_word", None
        )
        return longest

    def add(self, other: "Lost") -> None:
        """Add the counts of more text of the same tokenizer."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.name = self.name or other.name

    def look_for_names(self, texts: Iterable[str]) -> None:
        """Count the texts that contain names of special tokens."""
        pattern = _names_of(self.tokenizer)
        if pattern is None:
            return
        for text in texts:
            if (found := pattern.search(text)) is not None:
                self.named += 1
                self.name = self.name or found[0]

    def bytes_lost(self, of: int) -> float:
        """Estimate from the sample how many of so many bytes of text are lost."""
        if self.sampled_unknown:
            return min(float(of), self.unknown * self.lost_bytes / self.sampled_unknown)
        return of * self.lost_bytes / max(1, self.sampled_bytes)

    def share(self) -> float:
        """Estimate from the sample the share of the text's characters that is lost."""
        if self.sampled_unknown:
            return min(
                1.0, self.unknown * self.lost / self.sampled_unknown / max(1, self.characters)
            )
        return self.lost / max(1, self.sampled)

    def note(self, what: str = "") -> list[str]:
        """Return a line if more than SHARE of the tokens or characters is lost, e.g. for Chinese
        with an English vocabulary, and one if names of special tokens are read as these.

        what: a prefix that says what the lines are about, such as `train: `.
        """
        return [*self._note_of_names(what), *self._note_of_unknown(what)]

    def _note_of_names(self, what: str) -> list[str]:
        if not self.named:
            return []
        holds = "text holds" if self.named == 1 else "texts hold"
        return [
            f"{what}{self.named:,} {holds} the name of a special token, such as {self.name}, which"
            " is read as that token, and not as letters; where letters are meant, write a blank"
            f" into it: {self.name[0]} {self.name[1:]}"
        ]

    def _note_of_unknown(self, what: str) -> list[str]:
        of_tokens = self.unknown / max(1, self.tokens)
        of_characters = self.share()
        if max(of_tokens, of_characters) < SHARE:
            return []
        became = "the tokenizer's vocabulary lacks and leaves out"
        if (token := self.gap.token) is not None:
            became = (
                f"the tokenizer does not know ({self.tokenizer.token(token)}, {_percent(of_tokens)}"
                " of the tokens)"
            )
        why = ""
        do = "choose a tokenizer, or a model, of the text's script"
        if 2 * self.overlong > self.lost:
            why = f", mostly for being words of more than {self._longest_word()} characters"
            do = "write spaces between the words, or choose a tokenizer without that limit"
        return [
            f"{what}about {_percent(of_characters)} of the characters {became}{why}: "
            f"what is written there is lost; {do}"
        ]


def gap_of(tokenizer: Tokenizer) -> Gap:
    """Return how the library's model treats unknown characters, whatever the files call
    its tokens.
    """
    if tokenizer not in _GAPS:
        _GAPS[tokenizer] = _gap(tokenizer)
    return _GAPS[tokenizer]


def unknown_in(
    tokenizer: Tokenizer,
    ids: NDArray[Any],
    starts: NDArray[np.int64],
    cut: int,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    said: Iterable[str] | None = None,
) -> Lost:
    """Return what is lost of texts (n,), or of pairs, whose tokens are `ids[starts[i]:starts[i +
    1]]`, after truncating `cut` tokens.

    said: the parts written by people, if a template has written special tokens into the texts.
    """
    lost = Lost(tokenizer, tokens=len(ids))
    for side in (texts, pairs or ()) if said is None else (said,):
        lost.look_for_names(side)
    gap = lost.gap
    if gap.token is not None:
        places = np.flatnonzero(ids == gap.token)
        lost.unknown = len(places)
        rows = np.unique(np.searchsorted(starts, places, side="right") - 1)
    elif gap.drops:
        rows = np.arange(len(texts))
    else:
        return lost
    sides = [texts] if pairs is None else [texts, pairs]
    whole = sum(len(text) for side in sides for text in side)
    lost.characters = round(whole * len(ids) / max(1, len(ids) + cut))
    lost.measure(side[row] for row in rows for side in sides)
    return lost


def _names_of(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Return a pattern for the names of special tokens that do not occur in ordinary text: those in
    brackets.
    """
    if tokenizer not in _NAMES:
        added = tokenizer.backend.get_added_tokens_decoder().values()
        names = sorted({token.content for token in added if token.special}, key=len, reverse=True)
        marked = [re.escape(name) for name in names if len(name) > 2 and not name[0].isalnum()]
        _NAMES[tokenizer] = re.compile("|".join(marked)) if marked else None
    return _NAMES[tokenizer]


_NAMES: "WeakKeyDictionary[Tokenizer, re.Pattern[str] | None]" = WeakKeyDictionary()
_GAPS: "WeakKeyDictionary[Tokenizer, Gap]" = WeakKeyDictionary()


def _gap(tokenizer: Tokenizer) -> Gap:
    backend = tokenizer.backend
    if all(backend.token_to_id(letter) is not None for letter in ALPHABET.values()):
        return Gap(None)  # it has a token for every byte
    try:
        found = backend.model.tokenize(NOWHERE)
    except (
        Exception
        # a bare Exception, which the library raises for a model without an unknown token; encoding
        # such a text would fail too
    ):
        return Gap(None)
    if not found:
        return Gap(None, drops=True)
    # several tokens are the bytes of the character
    return Gap(int(found[0].id)) if len(found) == 1 else Gap(None)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 else f"{100 * share:.2g}%"


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))

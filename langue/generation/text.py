"""Streaming detokenization: takes tokens one at a time; returns the part of their text that no
later token can change.

Text is held back for three reasons: incomplete characters and runs of byte tokens, which the
decoder drops as a whole if they are not UTF-8; the last grapheme cluster, which a combining mark or
a joiner may still extend (Unicode Standard Annex 29); and anything that may be the start of a stop
string.

Not the whole text is decoded at each token, but only the last few tokens; the text that they have
in addition to the previous time is new.
"""

import os
import unicodedata
from collections.abc import Sequence

from langue.errors import ModelError
from langue.text.tokenizers.decoding import Decoding, decoding_of
from langue.text.tokenizers.tokenizer import HALF, Tokenizer

WINDOW = 8  # tokens decoded before a new one; a character has at most four bytes
MOST_RUN = 64  # byte tokens that are held back; longer runs are returned by whole characters
MOST_CLUSTER = 32  # code points of a grapheme cluster that are held back
UNKNOWN_DECODER = 16  # characters held back for decoders that may change earlier text
_JOINER = "\u200d"


class TextStream:
    """The text of a stream of tokens, up to the first stop string.

    The joined results of `add` and `finish` equal the second text of
    `Tokenizer.continuation(context, tokens)`, or `Tokenizer.decode(tokens)` if context is None, up
    to a stop string. Of several stop strings the one whose last character comes first ends the
    text, and of those the longest: the tokenization of the text makes no difference.

    One exception: the whole characters in a run of more than MOST_RUN byte tokens are returned and
    stay, even if `decode` would drop them because of a later byte that is not UTF-8.
    """

    def __init__(
        self, tokenizer: Tokenizer, context: Sequence[int] | None = None, stop: Sequence[str] = ()
    ) -> None:
        """context: a decoder's prompt; None: the tokens are decoded on their own.

        Raises ModelError if a stop string is empty.
        """
        self._tokenizer = tokenizer
        self._decoding = decoding_of(tokenizer)
        self._stops = [_Stop(each) for each in dict.fromkeys(stop)]
        self._given = list[str]()
        # final, except for what follows in the same grapheme cluster or stop string
        self._held = ""
        self.stopped = False
        self._is_broken = False  # within a run of byte tokens that is not UTF-8
        known = [token for token in context or () if not self._decoding.skips(token)]
        self._window = self._cut(known)
        self._before = len(self._window)  # number of context tokens in the window
        self._run = _trailing_bytes(self._window, self._decoding)
        self._base = "" if context is None else self._tokenizer.decode(self._window)
        # number of characters of the window's text that were returned; None: it depends on later
        # tokens
        self._taken: int | None = None if self._base else 0

    @property
    def text(self) -> str:
        """All text that was returned so far."""
        joined = "".join(self._given)
        self._given = [joined] if joined else []
        return joined

    def add(self, token: int) -> str:
        """Add a token, and return the new text that is final, which is often empty."""
        if self.stopped or self._decoding.skips(token):
            return ""
        return self._give(self._next(token), is_last=False)

    def finish(self) -> str:
        """Return the text that was held back; no token may follow."""
        if self.stopped:
            return ""
        if self._taken is None:
            context = self._window[: self._before]
            new = self._window[self._before :]
            rest = self._tokenizer.continuation(context, new)[1]
        else:
            rest = self._tokenizer.decode(self._window)[self._taken :]
        self._window = []
        self._taken = 0
        return self._give(rest, is_last=True)

    def _next(self, token: int) -> str:
        """Return the text that this token makes final."""
        if not self._decoding.is_local:
            return self._next_of_whole(token)
        byte = self._decoding.run_bytes.get(token)
        if byte is not None and self._is_broken:
            return HALF
        self._is_broken = False
        self._window.append(token)
        if byte is not None:
            self._run.append(byte)
            return self._next_of_run()
        self._run.clear()
        text = self._tokenizer.decode(self._window)
        final = self._settle(text, len(text) - text.endswith(HALF))
        if len(self._window) >= 2 * WINDOW and self._taken is not None:
            rest = len(text) - self._taken
            self._window = self._cut(self._window)
            self._taken = len(self._tokenizer.decode(self._window)) - rest
        return final

    def _next_of_run(self) -> str:
        """Return the final text after a byte token."""
        whole = _is_utf8(self._run)
        if whole is None:
            return ""
        # How a run that starts in the context is decoded depends on what ends it.
        is_open = self._taken is None
        length = len(self._window) - self._before if is_open else len(self._run)
        if length < MOST_RUN and (is_open or whole):
            return ""
        text = self._tokenizer.decode(self._window)
        final = self._settle(text, len(text))
        self._run.clear()
        self._is_broken = not whole
        # What follows is decoded as a new run.
        self._window = list(self._decoding.anchor)
        self._taken = len(self._tokenizer.decode(self._window))
        return final

    def _next_of_whole(self, token: int) -> str:
        """Return the final text for an unknown decoder, by decoding the whole text again."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        return self._settle(text, max(self._taken or 0, len(text) - UNKNOWN_DECODER))

    def _settle(self, text: str, end: int) -> str:
        """Return what is new in the window's text, of which `end` characters are final."""
        if self._taken is None:
            if text[:end].startswith(self._base):
                self._taken = len(self._base)
            else:
                common = len(os.path.commonprefix([self._base, text[:end]]))
                if common == end:
                    return ""
                self._taken = common
        final = text[self._taken : end]
        self._taken = max(self._taken, end)
        return final

    def _cut(self, tokens: Sequence[int]) -> list[int]:
        """Return the last tokens, as many as affect how a following token is decoded."""
        if not self._decoding.is_local:
            return list(tokens)
        start = len(tokens) - len(_trailing_bytes(tokens, self._decoding))
        while start > 0:
            end = start
            start = max(0, start - WINDOW)
            if self._tokenizer.decode(tokens[start:end]):
                break
        return list(tokens[start:])

    def _give(self, new: str, is_last: bool) -> str:
        """Return the part of the held and the new text that can no longer change."""
        self._held += new
        cut = self._find_stop(new)
        if cut is not None:
            out = self._held[:cut]
            self._held = ""
            self.stopped = True
        else:
            end = len(self._held)
            if not is_last:
                possible = max((stop.matched for stop in self._stops), default=0)
                end = min(end - possible, _final_length(self._held))
            out = self._held[:end]
            self._held = self._held[end:]
        if out:
            self._given.append(out)
        return out

    def _find_stop(self, new: str) -> int | None:
        """Return the start, in the held text, of the stop string that ends first within the new
        characters.
        """
        if not self._stops:
            return None
        behind = len(self._held) - len(new)
        for index, character in enumerate(new):
            ended = [stop.size for stop in self._stops if stop.ends_with(character)]
            if ended:
                return behind + index + 1 - max(ended)
        return None


class _Stop:
    """The length of the longest prefix of a stop string that a text ends with, updated character by
    character (Knuth, Morris and Pratt 1977).
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise ModelError(f"stop: {text!r} is no text to stop at", do="leave it out")
        self.text = text
        self.size = len(text)
        self.matched = 0
        # for each matched length, the one to fall back to after a mismatch
        self._shorter = [0] * (self.size + 1)
        length = 0
        for index in range(1, self.size):
            while length and text[index] != text[length]:
                length = self._shorter[length]
            length += text[index] == text[length]
            self._shorter[index + 1] = length

    def ends_with(self, character: str) -> bool:
        """Read a character, and return whether the whole string was read."""
        if self.matched == self.size:
            self.matched = self._shorter[self.size]
        while self.matched and self.text[self.matched] != character:
            self.matched = self._shorter[self.matched]
        self.matched += self.text[self.matched] == character
        return self.matched == self.size


def _trailing_bytes(tokens: Sequence[int], decoding: Decoding) -> bytearray:
    """Return the bytes of the run of byte tokens at the end."""
    found = bytearray()
    for token in reversed(tokens):
        byte = decoding.run_bytes.get(token)
        if byte is None:
            break
        found.append(byte)
    found.reverse()
    return found


def _is_utf8(run: bytearray) -> bool | None:
    """Return whether the bytes are complete characters; None if only the last one is incomplete."""
    try:
        run.decode()
    except UnicodeDecodeError as error:
        # Python's reason for exactly this case
        return None if error.reason == "unexpected end of data" else False
    return True


def _final_length(text: str) -> int:
    """Return the number of code points whose appearance no later code point can change."""
    if not text or (text[-1].isspace() and text[-1] != "\r"):
        return len(text)
    start = len(text) - 1
    least = max(0, len(text) - MOST_CLUSTER)
    while start > least and _continues_cluster(text, start):
        start -= 1
    return len(text) if start == least > 0 else start


def _continues_cluster(text: str, at: int) -> bool:
    """Return whether a code point belongs to the same grapheme cluster as the one before.

    Errs on the side of yes, which only delays the text a little.
    """
    before = text[at - 1]
    here = text[at]
    if before.isspace() or here.isspace():
        return before == "\r" and here == "\n"
    if _is_flag(here) and _is_flag(before):
        return (at - len(text[:at].rstrip(_FLAGS))) % 2 == 1
    virama = unicodedata.combining(before) == 9
    korean = _is_first_of_syllable(before) and _is_syllable_or_first(here)
    return before == _JOINER or virama or _extends(here) or korean


# regional indicators, which form flags in pairs
_FLAGS = "".join(chr(code) for code in range(0x1F1E6, 0x1F200))


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_first_of_syllable(character: str) -> bool:
    """Return whether a Korean letter can start a syllable."""
    return "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97f"


def _is_syllable_or_first(character: str) -> bool:
    return "\uac00" <= character <= "\ud7a3" or _is_first_of_syllable(character)


def _extends(character: str) -> bool:
    """Return whether a character extends a cluster: combining marks, joiners, emoji variants and
    skin tones, tags, Japanese voicing marks, and Korean letters within a syllable.
    """
    return (
        unicodedata.category(character)[0] == "M"
        or character in "\u200c\u200d\uff9e\uff9f"
        or "\u1160" <= character <= "\u11ff"
        or "\ud7b0" <= character <= "\ud7ff"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )

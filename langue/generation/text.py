"""What arrives: tokens, one at a time. What leaves: their text, as far as nothing that follows can
change it.

Three things hold text back. A character whose bytes are not all there, and a run of byte tokens,
which the decoder drops whole where it is not UTF-8. The last character as a reader sees it, which
a combining mark or a joiner may still change (grapheme clusters, Unicode Standard Annex 29). And
whatever may be the beginning of a stop string.

A text is not decoded anew at each token, but the last few tokens are, and what these have more
than before is new.
"""

import os
import unicodedata
from collections.abc import Sequence

from langue.errors import ModelError
from langue.text.tokenizers.decoding import Decoding, decoding_of
from langue.text.tokenizers.tokenizer import HALF, Tokenizer

WINDOW = 8  # tokens that are decoded before a new one: a character has at most four bytes
MOST_RUN = 64  # byte tokens that are held back; characters of a longer run are given out
MOST_CLUSTER = 32  # code points of one character as a reader sees it that are held back
UNKNOWN_DECODER = 16  # characters held back where a decoder may change what it has written
_JOINER = "\u200d"


class TextStream:
    """The text of tokens as they come, up to the first stop string.

    What `add` gives out, joined, is the second text of `Tokenizer.continuation(context, tokens)`,
    or `Tokenizer.decode(tokens)` where context is None; it ends before a stop string. Of several
    stop strings that one ends the text whose last character comes first, and of those the longest:
    how the text is cut into tokens makes no difference.

    One exception: of a run of more than MOST_RUN byte tokens the whole characters are given out,
    and stay, where `decode` would drop them for a byte that comes later and is no UTF-8.
    """

    def __init__(
        self, tokenizer: Tokenizer, context: Sequence[int] | None = None, stop: Sequence[str] = ()
    ) -> None:
        """context: a decoder's prompt; None: the tokens are decoded alone. ModelError where a stop
        string is empty.
        """
        self._tokenizer = tokenizer
        self._decoding = decoding_of(tokenizer)
        self._stops = [_Stop(each) for each in dict.fromkeys(stop)]
        self._given = list[str]()
        self._held = ""  # final, but for what follows in the same character or stop string
        self.stopped = False
        self._is_broken = False  # within a run of byte tokens that is no UTF-8
        known = [token for token in context or () if not self._decoding.skips(token)]
        self._window = self._cut(known)
        self._before = len(self._window)  # tokens of the context in the window
        self._run = _trailing(self._window, self._decoding)
        self._base = "" if context is None else self._tokenizer.decode(self._window)
        # characters of the window's text that are given; None: it depends on what follows
        self._taken: int | None = None if self._base else 0

    @property
    def text(self) -> str:
        """What was given out so far."""
        joined = "".join(self._given)
        self._given = [joined] if joined else []
        return joined

    def add(self, token: int) -> str:
        """Take the next token; give the new text that nothing can take back, often empty."""
        if self.stopped or self._decoding.skips(token):
            return ""
        return self._give(self._next(token), is_last=False)

    def finish(self) -> str:
        """The text that was held back; no token may follow."""
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
        """The text that is final with this token."""
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
        """The text that is final where the last token is a byte of a run."""
        whole = _is_utf8(self._run)
        if whole is None:
            return ""
        # What becomes of a run that the context began is told by what ends it.
        is_open = self._taken is None
        length = len(self._window) - self._before if is_open else len(self._run)
        if length < MOST_RUN and (is_open or whole):
            return ""
        text = self._tokenizer.decode(self._window)
        final = self._settle(text, len(text))
        self._run.clear()
        self._is_broken = not whole
        # What follows is decoded as a run of its own.
        self._window = list(self._decoding.anchor)
        self._taken = len(self._tokenizer.decode(self._window))
        return final

    def _next_of_whole(self, token: int) -> str:
        """For decoders that are not known: the whole text anew."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        return self._settle(text, max(self._taken or 0, len(text) - UNKNOWN_DECODER))

    def _settle(self, text: str, end: int) -> str:
        """What is new in the window's text, of which `end` characters are final."""
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
        """The last of the tokens, as many as decide how one that follows is decoded."""
        if not self._decoding.is_local:
            return list(tokens)
        start = len(tokens) - len(_trailing(tokens, self._decoding))
        while start > 0:
            end = start
            start = max(0, start - WINDOW)
            if self._tokenizer.decode(tokens[start:end]):
                break
        return list(tokens[start:])

    def _give(self, new: str, is_last: bool) -> str:
        """Of what is held and what is new, that which cannot be taken back any more."""
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
                end = min(end - possible, _closed(self._held))
            out = self._held[:end]
            self._held = self._held[end:]
        if out:
            self._given.append(out)
        return out

    def _find_stop(self, new: str) -> int | None:
        """Where in the held text the stop string begins that the new characters end first."""
        if not self._stops:
            return None
        behind = len(self._held) - len(new)
        for index, character in enumerate(new):
            ended = [stop.size for stop in self._stops if stop.ends_with(character)]
            if ended:
                return behind + index + 1 - max(ended)
        return None


class _Stop:
    """How much of a stop string a text ends with, read character by character (Knuth, Morris and
    Pratt 1977).
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise ModelError(f"stop: {text!r} is no text to stop at", do="leave it out")
        self.text = text
        self.size = len(text)
        self.matched = 0
        self._shorter = [0] * (self.size + 1)  # where so many match: how many if the next does not
        length = 0
        for index in range(1, self.size):
            while length and text[index] != text[length]:
                length = self._shorter[length]
            length += text[index] == text[length]
            self._shorter[index + 1] = length

    def ends_with(self, character: str) -> bool:
        """Read a character; whether the whole string was read."""
        if self.matched == self.size:
            self.matched = self._shorter[self.size]
        while self.matched and self.text[self.matched] != character:
            self.matched = self._shorter[self.matched]
        self.matched += self.text[self.matched] == character
        return self.matched == self.size


def _trailing(tokens: Sequence[int], decoding: Decoding) -> bytearray:
    """The bytes of the run that the tokens end with."""
    found = bytearray()
    for token in reversed(tokens):
        byte = decoding.run_bytes.get(token)
        if byte is None:
            break
        found.append(byte)
    found.reverse()
    return found


def _is_utf8(run: bytearray) -> bool | None:
    """Whether the bytes are whole characters; None where the last one is not yet."""
    try:
        run.decode()
    except UnicodeDecodeError as error:
        # so says Python of a character that ends with the bytes, and of nothing else
        return None if error.reason == "unexpected end of data" else False
    return True


def _closed(text: str) -> int:
    """How many code points of a text no code point that follows can change the look of."""
    if not text or (text[-1].isspace() and text[-1] != "\r"):
        return len(text)
    start = len(text) - 1
    least = max(0, len(text) - MOST_CLUSTER)
    while start > least and _goes_on(text, start):
        start -= 1
    return len(text) if start == least > 0 else start


def _goes_on(text: str, at: int) -> bool:
    """Whether the code point at a place is of the same character, as a reader sees it, as the one
    before. Said too often rather than too seldom: the text then comes a little later.
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


_FLAGS = "".join(chr(code) for code in range(0x1F1E6, 0x1F200))  # letters that make flags in pairs


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_first_of_syllable(character: str) -> bool:
    """A Korean letter that begins a syllable."""
    return "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97f"


def _is_syllable_or_first(character: str) -> bool:
    return "\uac00" <= character <= "\ud7a3" or _is_first_of_syllable(character)


def _extends(character: str) -> bool:
    """Combining marks, joiners, emoji's variants and skin tones, tags, Japanese voicing marks, and
    Korean letters within a syllable.
    """
    return (
        unicodedata.category(character)[0] == "M"
        or character in "\u200c\u200d\uff9e\uff9f"
        or "\u1160" <= character <= "\u11ff"
        or "\ud7b0" <= character <= "\ud7ff"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )

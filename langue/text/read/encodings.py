"""Guesses the encoding of bytes that are not UTF-8, and converts text in a specified encoding to
UTF-8.

Bytes do not tell their encoding, so guesses are offered as such, each with the line that it would
give, for people to decide.
"""

import codecs
import io
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import IO

from langue.errors import DataError

# The encodings of the web (https://encoding.spec.whatwg.org) and of DOS terminals, under names that
# Python and iconv know; if several give the same text, the first one is offered.
NAMES = (
    *("windows-1252", "windows-1250", "windows-1251", "windows-1253", "windows-1254"),
    *("windows-1255", "windows-1256", "windows-1257", "cp874", "iso-8859-2", "iso-8859-5"),
    *("iso-8859-7", "koi8-r", "koi8-u", "cp866", "cp850", "macintosh", "gb18030", "big5"),
    *("shift_jis", "euc-jp", "cp949", "utf-16le", "utf-16be"),
)
MARKS = {  # byte order marks and their encodings; those of UTF-32 begin with those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_READ_AS = ("windows-1252", "iso-8859-1", "windows-1251", "gb18030")
OFFERED = 4  # on 34 pairs of language and encoding, the right one was among this many
SAMPLE = 1 << 16  # number of bytes examined
SHOWN = 32  # maximum length of a shown line
LINES = 200  # number of lines searched for a part to show


def candidates(sample: bytes) -> list[tuple[str, str]]:
    """Return (name, part of a line decoded with it) for the likeliest encodings of these bytes,
    likeliest first.
    """
    from charset_normalizer import from_bytes

    # of the encodings above, only UTF-16 has NUL bytes, in Latin text
    has_noughts = b"\x00" in sample
    lines = sample.split(b"\n")
    beyond_ascii = b"\n".join(line for line in lines if not line.isascii())
    looked_at = (sample if has_noughts else beyond_ascii)[:SAMPLE]
    names = [name for name in NAMES if name.startswith("utf-16") == has_noughts]
    found: dict[str, str] = {}  # decoded text -> name
    # the sample may end within a two-byte character
    ends = (len(looked_at), len(looked_at) - 1)
    matches = [m for end in ends for m in from_bytes(looked_at[:end], cp_isolation=names)]
    for match in sorted(matches):
        alike = {_plain(match.encoding), *map(_plain, match.could_be_from_charset)}
        name = next((each for each in names if _plain(each) in alike), None)
        if name is not None:
            found.setdefault(looked_at.decode(name, "replace"), name)
    likeliest = list(found)[:OFFERED]
    shown = _told_apart([text.split("\n") for text in likeliest])
    return [(found[text], part) for text, part in zip(likeliest, shown, strict=True)]


def _plain(name: str) -> str:
    return codecs.lookup(name).name


def _told_apart(readings: list[list[str]]) -> list[str]:
    """Return the same part of a line in each decoding: the first part in which most decodings
    differ.
    """
    best: list[str] = []
    for line in zip(*(lines[:LINES] for lines in readings), strict=False):
        aligned = len(set(map(len, line))) == 1
        starts = range(0, max(1, len(line[0]) - SHOWN // 2), SHOWN // 2) if aligned else (0,)
        for start in starts:
            parts = [text[start : start + SHOWN] for text in line]
            if len(set(parts)) > len(set(best)) and not all(map(str.isascii, parts)):
                best = parts
        if len(set(best)) == len(readings):
            break
    return [
        "".join(letter if letter.isprintable() else "\ufffd" for letter in part.strip())
        for part in best or [""] * len(readings)
    ]


def misread_note(texts: Iterable[str | None], where: str) -> list[str]:
    """Return notes on texts that look like UTF-8 which was decoded in a wrong encoding and saved
    again.

    Such mojibake causes no error anywhere. texts: a sample of those of a file.
    """
    found: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for text in texts:
        if text is None or text.isascii():
            continue
        for name in _READ_AS:
            try:
                meant = text.encode(name).decode("utf-8")
            except UnicodeError:
                continue
            found[name] += 1
            at = next(i for i, (a, b) in enumerate(zip(text, meant, strict=False)) if a != b)
            begin = max(0, at - 8)
            shown.setdefault(
                name, f"{text[begin : begin + 16]!r} for {meant[begin : begin + 12]!r}"
            )
            break
    return [
        f"{where}: {count:,} texts read like UTF-8 that was once read as {name}: {shown[name]};"
        f" recode them: iconv -f utf-8 -t {name} on the file gives UTF-8"
        for name, count in found.items()
    ]


def reading_note(sample: bytes, encoding: str, where: str) -> str:
    """Return a note on a file that is read in an encoding which the user specified."""
    lines = sample.decode(encoding, "replace").split("\n")
    shown = next((line for line in lines if not line.isascii()), "").strip()[:SHOWN]
    others = candidates(sample)
    first = f"{where}: read as {encoding}: {shown}"
    if any(_plain(name) == _plain(encoding) or part == shown for name, part in others):
        return first
    likelier = " or ".join(f"{name} ({part})" for name, part in others)
    return first + (f"; if that reads wrong, it may be {likelier}" if likelier else "")


def remedy(sample: bytes, where: str) -> str:
    """Return what to do about a file that contains these bytes; where: its path, or a stream's
    name.
    """
    found = candidates(sample)
    if not found:
        return "write the file as UTF-8; its bytes are of no encoding that is known here"
    name = found[0][0] if len(found) == 1 else "ENCODING"
    path = PurePath(where)
    new = shlex.quote(str(path.with_name(f"{path.stem}.utf-8{path.suffix}")))
    convert = f"iconv -f {name} -t utf-8 {shlex.quote(where)} > {new}"
    if path.suffix.lower() in (".gz", ".xz", ".zst") or not path.suffix:
        convert = f"iconv -f {name} -t utf-8 on what is in it"
    offered = " or ".join(f"{each} ({line})" for each, line in found)
    which = "it may be" if len(found) == 1 else "take the ENCODING that reads right:"
    return f"{which} {offered}; in training write data.encoding={name}, else {convert}"


def is_utf16(block: bytes) -> bool:
    """Return whether the first bytes of a file without a mark are UTF-16 with letters below U+2000:
    the same one of each two bytes is a control character.
    """
    part = block[: 1 << 12]
    controls = [sum(byte < 0x20 for byte in part[start::2]) for start in (0, 1)]
    return len(part) > 7 and max(controls) > 0.8 * (len(part) // 2) and b"\x00" in part


def is_utf8(stream: IO[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while block := stream.read(1 << 20):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


class Recoded(io.RawIOBase):
    """Converts a byte stream in another encoding to UTF-8; raises DataError at invalid bytes."""

    def __init__(self, stream: IO[bytes], encoding: str, where: str) -> None:
        self.stream = stream
        self.encoding = encoding
        self.where = where
        self.decoder = codecs.getincrementaldecoder(encoding)()
        self.ready = b""
        self.line = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self.ready:
            block = self.stream.read(1 << 16)
            try:
                text = self.decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                # includes the bytes that the decoder kept from the previous block
                before = error.object[: error.start].decode(self.encoding, "replace")
                raise DataError(
                    f"a byte of the line is not {self.encoding}",
                    where=f"{self.where}, line {self.line + before.count(chr(10))}",
                    do=remedy(error.object[max(0, error.start - 4096) :], self.where),
                ) from None
            if not block and not text:
                return 0
            self.line += text.count("\n")
            self.ready = text.encode("utf-8", "surrogatepass")
        size = min(len(buffer), len(self.ready))
        buffer[:size] = self.ready[:size]
        self.ready = self.ready[size:]
        return size

"""Counts the characters of a text by script, and tells which language the scripts suggest.

Scripts are determined by Unicode blocks. A language is only guessed if its script is nearly its
own: Latin, Cyrillic, Arabic and Devanagari letters are shared by many, and suggest none.
"""

import re
from collections.abc import Mapping

import numpy as np

COMMON = "common"  # digits, punctuation, white space, symbols
# First character of each run -> its script, up to the beginning of the next run.
_RUNS = (
    (0x00, COMMON), (0x41, "Latin"), (0x5B, COMMON), (0x61, "Latin"), (0x7B, COMMON), (0xAA,
    "Latin"), (0xAB, COMMON),
    (0xBA, "Latin"), (0xBB, COMMON), (0xC0, "Latin"), (0xD7, COMMON), (0xD8, "Latin"), (0xF7,
    COMMON), (0xF8, "Latin"),
    (0x2B0, COMMON), (0x370, "Greek"), (0x400, "Cyrillic"), (0x530, "Armenian"), (0x590, "Hebrew"),
    (0x600, "Arabic"),
    (0x700, "other"), (0x750, "Arabic"), (0x780, "other"), (0x8A0, "Arabic"), (0x900, "Devanagari"),
    (0x980, "Bengali"),
    (0xA00, "Gurmukhi"), (0xA80, "Gujarati"), (0xB00, "Oriya"), (0xB80, "Tamil"), (0xC00, "Telugu"),
    (0xC80, "Kannada"),
    (0xD00, "Malayalam"), (0xD80, "Sinhala"), (0xE00, "Thai"), (0xE80, "Lao"), (0xF00, "Tibetan"),
    (0x1000, "Myanmar"),
    (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x13A0, "other"), (0x1780,
    "Khmer"),
    (0x1800, "Mongolian"), (0x18B0, "other"), (0x1C80, "Cyrillic"), (0x1C90, "Georgian"), (0x1CC0,
    "other"),
    (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, COMMON), (0x2C60, "Latin"), (0x2C80, "other"),
    (0x2D00, "Georgian"),
    (0x2D30, "other"), (0x2D80, "Ethiopic"), (0x2DE0, "Cyrillic"), (0x2E00, COMMON), (0x2E80,
    "Han"), (0x2FE0, COMMON),
    (0x3005, "Han"), (0x3008, COMMON), (0x3041, "Hiragana"), (0x30A0, "Katakana"), (0x3100,
    "Bopomofo"),
    (0x3130, "Hangul"), (0x3190, COMMON), (0x31F0, "Katakana"), (0x3200, COMMON), (0x3400, "Han"),
    (0x4DC0, COMMON),
    (0x4E00, "Han"), (0xA000, "other"), (0xA640, "Cyrillic"), (0xA6A0, "other"), (0xA720, "Latin"),
    (0xA800, "other"),
    (0xAC00, "Hangul"), (0xD7FC, "other"), (0xE000, COMMON), (0xF900, "Han"), (0xFB00, "Latin"),
    (0xFB13, "Armenian"),
    (0xFB1D, "Hebrew"), (0xFB50, "Arabic"), (0xFE00, COMMON), (0xFE70, "Arabic"), (0xFEFF, COMMON),
    (0xFF21, "Latin"),
    (0xFF3B, COMMON), (0xFF41, "Latin"), (0xFF5B, COMMON), (0xFF66, "Katakana"), (0xFFA0, "Hangul"),
    (0xFFE0, COMMON),
    (0x10000, "other"), (0x1F000, COMMON), (0x20000, "Han"), (0x32000, COMMON),
)  # fmt: skip
NAMES = sorted({name for _, name in _RUNS})
_BEGINS = np.array([begin for begin, _ in _RUNS], np.uint32)
_OF = np.array([NAMES.index(name) for _, name in _RUNS])
_LANGUAGES = {
    "Hangul": "Korean", "Greek": "Greek", "Armenian": "Armenian", "Hebrew": "Hebrew",
    "Georgian": "Georgian",
    "Thai": "Thai", "Lao": "Lao", "Tibetan": "Tibetan", "Myanmar": "Burmese", "Khmer": "Khmer",
    "Tamil": "Tamil",
    "Telugu": "Telugu", "Kannada": "Kannada", "Malayalam": "Malayalam", "Sinhala": "Sinhala",
    "Gujarati": "Gujarati",
    "Gurmukhi": "Punjabi", "Oriya": "Odia", "Bengali": "Bengali or Assamese",
    "Ethiopic": "Amharic or Tigrinya",
}  # fmt: skip
# Thai, Lao, Burmese, Khmer, Kana and Chinese characters, which are written without spaces between
# words.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
# a word, or a single character of the scripts without spaces
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")


def count(text: str) -> dict[str, int]:
    """Return the number of characters of each script in the text."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    found = np.bincount(
        _OF[np.searchsorted(_BEGINS, points, side="right") - 1], minlength=len(NAMES)
    )
    return {NAMES[index]: int(found[index]) for index in np.flatnonzero(found)}


def main(counts: Mapping[str, int]) -> str:
    """Return the script of most letters, or COMMON if there are none."""
    letters = {name: number for name, number in counts.items() if name != COMMON}
    return max(sorted(letters), key=letters.__getitem__) if letters else COMMON


def language(counts: Mapping[str, int]) -> str:
    """Return what the scripts alone suggest."""
    letters = sum(number for name, number in counts.items() if name != COMMON)
    if not letters:
        return "none: no letters"
    if counts.get("Hiragana", 0) + counts.get("Katakana", 0) > 0.05 * letters:
        return "Japanese"
    script = main(counts)
    if counts[script] < 0.8 * letters:
        return "several"
    if script == "Han":
        return "Chinese"
    return _LANGUAGES.get(
        script, f"written in {script} letters" if script != "other" else "unknown"
    )


def is_unspaced(text: str) -> bool:
    """Return whether the text begins with a character that counts as a word."""
    return bool(_UNSPACED.match(text))


def mostly_unspaced(text: str) -> bool:
    """Return whether the text is mostly in scripts without spaces between words, such
    as Chinese.
    """
    letters = sum(each.isalnum() for each in text)
    return 2 * len(_UNSPACED.findall(text)) > letters


def words(text: str) -> int:
    """Return the number of words; in scripts without spaces, each character counts as one."""
    return len(WORD.findall(text))

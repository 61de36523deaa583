"""The fertility of a tokenizer on texts, by script and by language.

Fertility is the number of tokens per word (Acs 2019; Rust et al. 2021): about 1.1 for a matching
vocabulary, and much larger for others. In scripts without spaces, a character counts as a word.
Text is counted line by line, each under the script of most of its letters, and under the language
that these or its words suggest.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from langue.text.quality import script
from langue.text.quality.language import guess
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import Lost, gap_of

LINES = 4096  # number of lines encoded at a time
COUNTS = ("lines", "words", "characters", "bytes", "tokens", "unknown")


def fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Return the counts and rates of tokens of the texts, by script and language.

    The result is `{"vocab_size", "used", "all": {...}, "scripts": {"Latin": {...}, ...},
    "languages": {"English": {...}, ...}, "notes": [...]}`, with scripts and languages sorted by
    their share of the text; the notes tell what the tokenizer does not know.
    """
    gap = gap_of(tokenizer)
    lost = Lost(tokenizer)
    unknown = -1 if gap.token is None else gap.token
    counts: dict[tuple[str, str], dict[str, int]] = {}  # keyed by script and language
    used = np.zeros(1 + max(tokenizer.backend.get_vocab(with_added_tokens=True).values()), bool)
    batch: list[str] = []
    for text in texts:
        batch += [line for line in text.splitlines(keepends=True) if not line.isspace()]
        if len(batch) >= LINES:
            _add(tokenizer, batch, unknown, counts, used, lost)
            batch = []
    _add(tokenizer, batch, unknown, counts, used, lost)
    whole = _sum(counts.values())
    lost.tokens = whole["tokens"]
    lost.unknown = whole["unknown"]
    lost.characters = whole["characters"]
    return {
        "vocab_size": len(tokenizer),
        "used": int(used.sum()),
        "all": _rates(whole),
        "scripts": _by(0, counts),
        "languages": _by(1, counts),
        "notes": lost.note(),
    }


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    several = list(counts)
    return {name: sum(each[name] for each in several) for name in COUNTS}


def _by(part: int, counts: Mapping[tuple[str, str], Mapping[str, int]]) -> dict[str, Any]:
    """Return the rates grouped by one part of the keys."""
    sums = {
        name: _sum(each for key, each in counts.items() if key[part] == name)
        for name in {k[part] for k in counts}
    }
    ordered = sorted(sums.items(), key=lambda pair: (-pair[1]["characters"], pair[0]))
    return {name: _rates(each) for name, each in ordered}


def _add(
    tokenizer: Tokenizer,
    lines: list[str],
    unknown: int,
    counts: dict[tuple[str, str], dict[str, int]],
    used: np.ndarray[Any, Any],
    lost: Lost,
) -> None:
    for line, encoding in zip(
        lines, tokenizer.backend.encode_batch_fast(lines, add_special_tokens=False), strict=True
    ):
        ids = encoding.ids
        used[ids] = True
        scripts = script.count(line)
        into = counts.setdefault(
            (script.main(scripts), guess(line, scripts)), dict.fromkeys(COUNTS, 0)
        )
        into["lines"] += 1
        into["words"] += script.words(line)
        into["characters"] += len(line)
        into["bytes"] += len(line.encode("utf-8"))
        into["tokens"] += len(ids)
        unknown_here = ids.count(unknown)
        into["unknown"] += unknown_here
        if unknown_here or lost.gap.drops:
            lost.measure([line])


def _rates(counts: Mapping[str, int]) -> dict[str, Any]:
    tokens = counts["tokens"]
    return {
        **counts,
        "tokens_per_word": round(tokens / max(1, counts["words"]), 4),
        "tokens_per_character": round(tokens / max(1, counts["characters"]), 4),
        "tokens_per_byte": round(tokens / max(1, counts["bytes"]), 4),
        "unknown_share": round(counts["unknown"] / max(1, tokens), 6),
    }

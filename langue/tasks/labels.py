"""Labels that look alike and texts with conflicting labels: finding them, and notes about them."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

SHOWN = 4  # groups of labels that a note lists
INVISIBLE = ("Cf", "Cc")  # Unicode categories: format and control characters
VARIATION_SELECTOR = "\N{VARIATION SELECTOR-16}"


def look(label: str) -> str:
    """Return the visible form of a label, equal for labels that differ only in whitespace, case,
    Unicode form or invisible characters.
    """
    composed = unicodedata.normalize("NFKC", label)
    folded = unicodedata.normalize("NFKC", composed.casefold())
    visible = ""
    for character in folded:
        is_invisible = unicodedata.category(character) in INVISIBLE
        if character.isspace() or not is_invisible:
            visible += character
    visible = visible.replace(VARIATION_SELECTOR, "")
    return " ".join(visible.split())


def spellings(labels: Iterable[str]) -> dict[str, str]:
    """Return, for each visible form, its most frequent spelling; ties are broken alphabetically."""
    found = {}
    for seen, counts in _groups(labels).items():
        most = max(counts.values())
        found[seen] = min(label for label, count in counts.items() if count == most)
    return found


def alike(labels: Iterable[str]) -> str | None:
    """Return a note on different labels that look alike, or None."""
    groups = [counts for counts in _groups(labels).values() if len(counts) > 1]
    if not groups:
        return None
    shown = "; ".join(map(_group_in_words, groups[:SHOWN]))
    more = ""
    if len(groups) > SHOWN:
        more = f"; and {len(groups) - SHOWN} more"
    return (
        f"train: labels that look alike are different ones: {shown}{more};"
        " task.merge_labels=true makes them one"
    )


def _group_in_words(counts: Counter[str]) -> str:
    named = []
    for label, count in counts.most_common():
        spelt = ascii_where_hidden(label, counts)
        named.append(f"{spelt} ({count:,})")
    return " and ".join(named)


def ascii_where_hidden(label: str, others: Iterable[str]) -> str:
    """Return a label in quotation marks, escaped to ASCII if another label is displayed the
    same.
    """
    form = unicodedata.normalize("NFC", label)
    for other in others:
        if other != label and unicodedata.normalize("NFC", other) == form:
            return ascii(label)
    return repr(label)


def _groups(labels: Iterable[str]) -> dict[str, Counter[str]]:
    """Return, for each visible form, the counts of its spellings."""
    groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, count in Counter(labels).items():
        seen = look(label)
        groups[seen][label] += count
    return groups


def conflicting(texts: Sequence[str], labels: Sequence[object]) -> dict[str, Counter[object]]:
    """Return the texts that occur with different labels, with the count of each label."""
    counts_of: defaultdict[str, Counter[object]] = defaultdict(Counter)
    for text, label in zip(texts, labels, strict=True):
        counts_of[text][label] += 1
    return {text: counts for text, counts in counts_of.items() if len(counts) > 1}


def conflict_note(
    conflicts: Mapping[str, Counter[object]], n_rows: int, first: Sequence[str]
) -> str:
    """Return a note on conflicting texts, with the highest possible accuracy.

    first: the locations of the first conflicting text's rows.
    """
    rows = 0
    lost = 0
    for counts in conflicts.values():
        total = counts.total()
        rows += total
        lost += total - max(counts.values())
    texts = f"{len(conflicts):,} texts have" if len(conflicts) > 1 else "1 text has"
    where = " and ".join(first[:2])
    share = (n_rows - lost) / n_rows
    return (
        f"{texts} different labels, {rows:,} rows in all, first {where}: no model"
        f" is right on more than {share:.1%} of the rows; data.conflicts=drop"
        " leaves them out of training"
    )

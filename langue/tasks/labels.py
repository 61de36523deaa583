"""What arrives: labels as a table has them. What leaves: which of them look alike, and which texts
have several, in sentences for the preview.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

SHOWN = 4  # groups of labels that are named


def look(label: str) -> str:
    """What people see of a label: the same for two that differ by blanks, case, Unicode form or
    marks that are invisible.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    seen = (c for c in folded if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    bare = "".join(seen).replace("\N{VARIATION SELECTOR-16}", "")
    return " ".join(bare.split())


def spellings(labels: Iterable[str]) -> dict[str, str]:
    """look -> the spelling that most rows have, of equally many the first by the alphabet."""
    groups = _groups(labels)
    return {seen: min(of, key=lambda each: (-of[each], each)) for seen, of in groups.items()}


def alike(labels: Iterable[str]) -> str | None:
    """A sentence on the labels that look alike and are different; None where none are."""
    groups = [of for of in _groups(labels).values() if len(of) > 1]
    if not groups:
        return None
    shown = "; ".join(
        " and ".join(
            f"{ascii_where_hidden(each, of)} ({count:,})" for each, count in of.most_common()
        )
        for of in groups[:SHOWN]
    )
    more = f"; and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    return (
        f"train: labels that look alike are different ones: {shown}{more};"
        " task.merge_labels=true makes them one"
    )


def ascii_where_hidden(label: str, others: Iterable[str]) -> str:
    """A label in quotation marks, so written that it can be told from others that look alike."""
    plain = repr(label)
    form = unicodedata.normalize("NFC", label)
    hidden = any(each != label and unicodedata.normalize("NFC", each) == form for each in others)
    return ascii(label) if hidden else plain


def _groups(labels: Iterable[str]) -> dict[str, Counter[str]]:
    groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, count in Counter(labels).items():
        groups[look(label)][label] += count
    return groups


def conflicting(texts: Sequence[str], labels: Sequence[object]) -> dict[str, Counter[object]]:
    """The texts that stand with different labels, and how often with each."""
    of: defaultdict[str, Counter[object]] = defaultdict(Counter)
    for text, label in zip(texts, labels, strict=True):
        of[text][label] += 1
    return {text: counts for text, counts in of.items() if len(counts) > 1}


def conflict_note(
    conflicts: Mapping[str, Counter[object]], n_rows: int, first: Sequence[str]
) -> str:
    """A sentence on them, with the accuracy that is left. first: where the first one stands."""
    rows = sum(counts.total() for counts in conflicts.values())
    lost = sum(counts.total() - max(counts.values()) for counts in conflicts.values())
    texts = f"{len(conflicts):,} texts have" if len(conflicts) > 1 else "1 text has"
    return (
        f"{texts} different labels, {rows:,} rows in all, first {' and '.join(first[:2])}: no model"
        f" is right on more than {(n_rows - lost) / n_rows:.1%} of the rows; data.conflicts=drop"
        " leaves them out of training"
    )

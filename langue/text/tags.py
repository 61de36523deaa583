"""Tags of words: what they mark, and how well they mark it.

Entities in the schemes IO, IOB1, IOB2, IOBES and BILOU, which tag may follow which, counts for
precision and recall, and two baselines: a gazetteer, and the most frequent tag of each word.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.errors import DataError
from langue.text.quality.script import UNSPACED, is_unspaced

OUTSIDE = "O"
# A character of the scripts without spaces, a run of letters and digits, or a symbol.
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
_PREFIXED = re.compile(r"([BIMELSU])-(.+)", re.DOTALL)
# what is meant as a prefix, and is none of those: B_PER, X-PER, PER-B
_NEARLY = re.compile(r"[BIMELSU]_.+|[A-Z]-.+|.+[-_][BIMELSU]", re.DOTALL)
_STANDARD = {"M": "I", "L": "E", "U": "S"}  # prefixes of BMES and BILOU, as IOBES writes them


@dataclass(frozen=True, order=True)
class Entity:
    """The words from `start` to before `end`, and their type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True)
class Scheme:
    """What prefixes stand at the first, a middle and the last word of an entity, and at the only
    word of one.

    IO, IOB2 (Tjong Kim Sang and Veenstra 1999, arXiv:cs/9907006) and IOBES or BILOU (Ratinov and
    Roth 2009). IOB1 (Ramshaw and Marcus 1995, arXiv:cmp-lg/9505040) is read, and written as IOB2.
    """

    name: str
    first: str
    middle: str
    last: str
    only: str

    @property
    def prefixes(self) -> list[str]:
        return list(dict.fromkeys([self.first, self.middle, self.last, self.only]))

    def labels(self, types: Iterable[str]) -> list[str]:
        """`O`, and each type with each prefix."""
        return [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in self.prefixes)]

    def write(self, entities: Iterable[Entity], length: int) -> list[str]:
        """The tags of `length` words with these entities, which must not overlap."""
        tags = [OUTSIDE] * length
        for entity in entities:
            size = entity.end - entity.start
            inner = [self.middle] * (size - 2)
            prefixes = [self.only] if size == 1 else [self.first, *inner, self.last]
            for index, prefix in enumerate(prefixes, start=entity.start):
                tags[index] = f"{prefix}-{entity.type}"
        return tags

    def read(self, tags: Sequence[str]) -> list[Entity]:
        """The entities of tags that keep to the scheme; what does not is no entity.

        As seqeval's strict mode has it.
        """
        found: list[Entity] = []
        start = 0
        while start < len(tags):
            end = self._end(tags, start)
            if end is None:
                start += 1
                continue
            found.append(Entity(start, end, split_tag(tags[start])[1]))
            start = end
        return found

    def _end(self, tags: Sequence[str], start: int) -> int | None:
        """Where the entity ends that begins at `start`; None where none begins or it is never
        closed.
        """
        prefix, kind = split_tag(tags[start])
        if prefix == self.only and prefix != self.first:
            return start + 1
        if prefix != self.first:
            return None
        closed = self.first == self.only
        end = start + 1
        while end < len(tags):
            prefix, other = split_tag(tags[end])
            if other != kind or prefix not in (self.middle, self.last):
                break
            closed = prefix == self.last
            end += 1
            if self.last != self.middle and closed:
                break
        return end if closed else None

    def allows(self, before: str, after: str) -> bool:
        """Whether tag `after` may follow tag `before`; `O` stands for the beginning and the end of
        a text, too.
        """
        before_prefix, before_type = split_tag(before)
        after_prefix, after_type = split_tag(after)
        open_ = before_prefix in (self.first, self.middle) and before_prefix != ""
        closable = before_prefix in ("", self.last, self.only)
        begins = after_prefix in ("", self.first, self.only)
        continues = after_prefix in (self.middle, self.last) and after_type == before_type
        return (closable and begins) or (open_ and continues)


IO = Scheme("io", "I", "I", "I", "I")
IOB2 = Scheme("iob2", "B", "I", "I", "B")
IOBES = Scheme("iobes", "B", "I", "E", "S")
SCHEMES = {
    "io": IO,
    "iob2": IOB2,
    "bio": IOB2,
    "iobes": IOBES,
    "bioes": IOBES,
    "bilou": IOBES,
    "bmes": IOBES,
}


def split_tag(tag: str) -> tuple[str, str]:
    """`B-PER` as ("B", "PER"); BILOU's and BMES's prefixes as those of IOBES; ("", "") of `O`."""
    match = _PREFIXED.fullmatch(tag)
    if match is None:
        return "", ""
    return _STANDARD.get(match[1], match[1]), match[2]


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities of tags of any scheme, each run of one type being one: conlleval's rule,
    seqeval's default mode.

    A type that changes, a `B` or `S` begins an entity; an `E` or `S` ends one.
    """
    found: list[Entity] = []
    start = 0
    before_prefix, before_type = "", ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split_tag(tag)
        changed = kind != before_type or before_prefix in ("E", "S", "") or prefix in ("B", "S", "")
        if before_prefix and changed:
            found.append(Entity(start, index, before_type))
        if prefix and changed:
            start = index
        before_prefix, before_type = prefix, kind
    return found


def find_scheme(
    sequences: Iterable[Sequence[str]], where: Callable[[int], str] | None = None
) -> Scheme | None:
    """The scheme that tags are written in; None where they are plain, such as parts of speech.

    Tags of `O` and bare types are IO. IOB1 is told from IOB2 by its `B`, which stands only after an
    entity of its own type; it is read by `entities_of` and written as IOB2. DataError where some
    tags have a prefix and others none, or one that is of no scheme; where: the place of a sequence.
    """
    written: set[str] = set()
    outside = False
    bare: dict[str, int] = {}  # a tag without prefix -> the first sequence that has it
    for number, tags in enumerate(sequences):
        for tag in tags:
            prefix, _ = split_tag(tag)
            if prefix:
                written.add(prefix)
            elif tag == OUTSIDE:
                outside = True
            else:
                bare.setdefault(tag, number)
    if not written and not outside:
        return None
    odd = bare if written else [tag for tag in bare if _NEARLY.fullmatch(tag)]
    if odd:
        tag = min(odd, key=bare.__getitem__)
        others = f" and others have one ({', '.join(sorted(written))})" if written else ""
        raise DataError(
            f"the tag {tag!r} has no prefix of a scheme{others}",
            where="" if where is None else where(bare[tag]),
            do="write all entities as B-TYPE and I-TYPE, or all tags as plain words",
        )
    if bare:
        return IO
    if written & {"E", "S"}:
        return IOBES
    return IOB2 if "B" in written else IO


def normalised(tags: Sequence[str], scheme: Scheme) -> tuple[list[str], int]:
    """Tags of any scheme as this one writes them, and how many did not keep to it as they were."""
    prefixed = [tag if tag == OUTSIDE or split_tag(tag)[0] else f"I-{tag}" for tag in tags]
    made = scheme.write(entities_of(prefixed), len(tags))
    changed = sum(
        split_tag(one) != split_tag(other) for one, other in zip(made, prefixed, strict=True)
    )
    return made, changed


def allowed_edges(labels: Sequence[str], scheme: Scheme | None) -> NDArray[np.bool_]:
    """Whether a label may follow another, (C + 1, C + 1); row C: whether it may begin a text,
    column C: whether it may end one. Without a scheme everything is allowed.
    """
    if scheme is None:
        return np.ones((len(labels) + 1, len(labels) + 1), bool)
    tags = [*labels, OUTSIDE]  # which stands beside a text
    return np.array([[scheme.allows(before, after) for after in tags] for before in tags])


@dataclass(frozen=True)
class EntityCounts:
    """Of each text and type (n, K): entities that were found rightly, that were found, and that
    there are.
    """

    types: list[str]
    right: NDArray[np.float64]
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]


def count_entities(
    true: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> EntityCounts:
    types = sorted({entity.type for side in (true, predicted) for text in side for entity in text})
    place = {kind: index for index, kind in enumerate(types)}
    counts = np.zeros((3, len(true), max(1, len(types))))
    for text, (gold, found) in enumerate(zip(true, predicted, strict=True)):
        for layer, entities in enumerate((set(gold) & set(found), set(found), set(gold))):
            for entity in entities:
                counts[layer, text, place[entity.type]] += 1
    return EntityCounts(types, *counts)


def precision_recall_f1(
    right: NDArray[np.float64], predicted: NDArray[np.float64], true: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Shares of counts of any one shape; 0 where nothing was found or nothing is there, as seqeval
    has it.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(predicted > 0, right / predicted, 0.0)
        recall = np.where(true > 0, right / true, 0.0)
        f1 = np.where(precision + recall > 0, 2 * precision * recall / (precision + recall), 0.0)
    return {"precision": precision, "recall": recall, "f1": f1}


class Gazetteer:
    """The baseline of entities: the longest phrases that were one in training, of the type that
    they mostly were.

    The baseline of the CoNLL-2003 shared task (Tjong Kim Sang and De Meulder 2003,
    arXiv:cs/0306050), but for phrases of several types, which that leaves out.
    """

    def __init__(
        self, texts: Sequence[Sequence[str]], entities: Sequence[Sequence[Entity]]
    ) -> None:
        types: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for words, found in zip(texts, entities, strict=True):
            for entity in found:
                types[tuple(words[entity.start : entity.end])][entity.type] += 1
        self.types = {phrase: counts.most_common(1)[0][0] for phrase, counts in types.items()}
        self.longest = max(map(len, self.types), default=0)

    def find(self, words: Sequence[str]) -> list[Entity]:
        found: list[Entity] = []
        start = 0
        while start < len(words):
            most = min(self.longest, len(words) - start)
            sizes = (
                size
                for size in range(most, 0, -1)
                if tuple(words[start : start + size]) in self.types
            )
            size = next(sizes, 0)
            if size:
                found.append(
                    Entity(start, start + size, self.types[tuple(words[start : start + size])])
                )
            start += size or 1
        return found


class MostFrequentTag:
    """The baseline of plain tags: each word's commonest tag in training, and the commonest of all
    for new words.
    """

    def __init__(self, texts: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for words, own in zip(texts, tags, strict=True):
            for word, tag in zip(words, own, strict=True):
                counts[word][tag] += 1
        everywhere: Counter[str] = sum(counts.values(), Counter())
        self.usual = everywhere.most_common(1)[0][0]
        self.tags: Mapping[str, str] = {
            word: own.most_common(1)[0][0] for word, own in counts.items()
        }

    def find(self, words: Sequence[str]) -> list[str]:
        return [self.tags.get(word, self.usual) for word in words]


def prefixed(tags: Sequence[str]) -> list[str]:
    """Tags with bare types, as IO is sometimes written, get its prefix."""
    return [tag if tag == OUTSIDE or split_tag(tag)[0] else f"I-{tag}" for tag in tags]


def count_tags(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> EntityCounts:
    """Of each text and plain tag: words that have it rightly, that are given it, and that have
    it.
    """
    types = sorted({tag for side in (true, predicted) for tags in side for tag in tags})
    place = {tag: index for index, tag in enumerate(types)}
    counts = np.zeros((3, len(true), max(1, len(types))))
    for text, (gold, found) in enumerate(zip(true, predicted, strict=True)):
        for one, other in zip(gold, found, strict=True):
            counts[0, text, place[one]] += one == other
            counts[1, text, place[other]] += 1
            counts[2, text, place[one]] += 1
    return EntityCounts(types, *counts)


def tags_of_spans(text: str, spans: Any, where: Callable[[], str]) -> list[str]:
    """The tags of a text's words, of spans [{start, end, label}] of its characters.

    DataError where spans overlap, one begins or ends within a word, or there is no list of them.
    """
    if spans is None:
        raise DataError(
            "the spans are missing",
            where=where(),
            do="give a list, [] where nothing is marked (in training: data.invalid=drop)",
        )
    words = words_of(text)
    begins = {begin: place for place, (begin, _) in enumerate(words)}
    ends = {end: place + 1 for place, (_, end) in enumerate(words)}
    entities: list[Entity] = []
    for span in sorted(spans, key=lambda each: (each["start"], each["end"])):
        start, end = int(span["start"]), int(span["end"])
        shown = f"{start} to {end} ({text[start:end]!r})"
        if start not in begins or end not in ends:
            raise DataError(
                f"the span {shown} begins or ends within a word or a blank",
                where=where(),
                do="let it cover whole words (in training: data.invalid=drop)",
            )
        entity = Entity(begins[start], ends[end], str(span["label"]))
        if entities and entity.start < entities[-1].end:
            raise DataError(
                f"the span {shown} overlaps another one",
                where=where(),
                do="keep one of them: a word has one tag (in training: data.invalid=drop)",
            )
        entities.append(entity)
    return IOB2.write(entities, len(words))


def words_of(text: str) -> list[tuple[int, int]]:
    """The characters of each word of a text that does not come as a list of words: runs of letters
    and digits with their combining marks, single symbols, and single characters of the scripts that
    write no spaces.
    """
    found: list[tuple[int, int]] = []
    for match in _WORD.finditer(text):
        begin, end = match.span()
        if found and found[-1][1] == begin and _goes_on(text, found[-1][0], begin):
            begin, _ = found.pop()
        found.append((begin, end))
    return found


def _goes_on(text: str, begin: int, place: int) -> bool:
    """Whether the word from `begin` on, which `_WORD` ends before `place`, goes on there: with a
    mark, or behind one.
    """
    if _is_mark(text[place]):
        return True
    letter = text[place].isalnum() and not is_unspaced(text[place])
    return letter and _is_mark(text[place - 1]) and text[begin].isalnum()


def _is_mark(character: str) -> bool:
    """A combining mark, or a joiner, which stand within words and are no letters to `_WORD`."""
    return unicodedata.category(character)[0] == "M" or character in "\u200c\u200d"

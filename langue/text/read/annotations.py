"""Converts published annotations to one form each; errors name the row.

| column | form | accepted input |
|---|---|---|
| tokens, tags | `["EU", "rejects"]`, `["B-ORG", "O"]` | lists of strings or of numbers |
| spans | `[{"start": 0, "end": 2, "label": "ORG"}]` | dictionaries, triples |
| answers | `[{"text": "EU", "start": 0}]` | dictionaries, a dictionary of lists, strings |
| messages and the like | see `langue/text/read/turns.py` | |

Offsets count characters of the text as it is read; `end` is exclusive. An answer without an offset
in the file has the start -1. Records in the formats of spaCy, GLiNER and Label Studio become `text`
and `spans`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langue.errors import DataError
from langue.text.read.turns import tools, turns

_STARTS = ("start", "start_offset", "begin")
_ENDS = ("end", "end_offset")
_LABELS = ("label", "labels", "entity_group", "entity", "tag", "type")
_LAYOUT = re.compile(r"\s|\\n")  # Label Studio writes line breaks as a backslash and an n
_SPANS = 'write them as [{"start": 0, "end": 2, "label": "ORG"}, ...]'
OR_DROP = ", or take the row out (in training: data.invalid=drop)"
_ANSWERS = 'write them as [{"text": "...", "start": 0}, ...]'


def words(value: Any, name: str, where: str) -> list[str | None] | None:
    """Return a list of strings; numbers are converted to strings, a missing tag is None."""
    if _is_missing(value):
        return None
    if isinstance(value, (list, tuple)):
        if set(map(type, value)) <= {str}:
            return list(value)
        allowed = (str, int, float) if name == "tokens" else (str, int, float, type(None))
        if all(isinstance(each, allowed) for each in value):
            return [None if each is None else str(each) for each in value]
        odd = next(each for each in value if not isinstance(each, allowed))
        what = f"the {name} hold a {type(odd).__name__}, not words alone"
    else:
        what = f"the {name} are a {type(value).__name__}, not a list of words"
    raise DataError(what, where=where, do='write them as ["EU", "rejects", ...]')


def spans(value: Any, name: str, where: str) -> list[dict[str, Any]] | None:
    """Return a list of `{start, end, label}`, one for each label.

    Raises DataError for a span that is empty or reversed. Whether it ends within its text is
    checked by `faults`.
    """
    if _is_missing(value):
        return None
    found = []
    for number, span in enumerate(_listed(value, name, where, _SPANS), start=1):
        place = f"{where}, span {number}"
        if isinstance(span, (list, tuple)) and len(span) == 3:
            start, end, label = span
        elif isinstance(span, Mapping):
            start, end, label = (_first(span, keys) for keys in (_STARTS, _ENDS, _LABELS))
        else:
            raise DataError(f"{_shown(span)} is no span", where=place, do=_SPANS)
        start = _offset(start, "start", place)
        end = _offset(end, "end", place)
        if not 0 <= start < end:
            raise DataError(
                f"a span from {start} to {end} holds no characters",
                where=place,
                do="give the first character, from 0, and the one behind the last",
            )
        labels = label if isinstance(label, (list, tuple)) else [label]
        for each in labels:
            if not isinstance(each, str) or not each.strip():
                raise DataError(f"its label is {_shown(each)}", where=place, do=_SPANS)
            found.append({"start": start, "end": end, "label": each})
        if not labels:
            raise DataError("it has no label", where=place, do=_SPANS)
    return found


def answers(value: Any, name: str, where: str) -> list[dict[str, Any]] | None:
    """Return a list of `{text, start}`; an empty list means that the question has no answer."""
    if _is_missing(value):
        return None
    if isinstance(value, str):
        value = [value]
    found = []
    for number, answer in enumerate(_listed(value, name, where, _ANSWERS), start=1):
        place = f"{where}, answer {number}"
        text, start = answer, None
        if isinstance(answer, Mapping):
            text = answer.get("text")
            start = _first(answer, ("start", "answer_start"))
        if not isinstance(text, str):
            raise DataError(f"{_shown(text)} is no text", where=place, do=_ANSWERS)
        start = -1 if _is_missing(start) else _offset(start, "start", place)
        found.append({"text": text, "start": start})
    return found


# the columns with a fixed form, by our names
FORMS: dict[str, Callable[[Any, str, str], Any]] = {
    "tokens": words,
    "tags": words,
    "spans": spans,
    "answers": answers,
    "plausible_answers": answers,
    "messages": turns,
    "prompt": turns,
    "completion": turns,
    "chosen": turns,
    "rejected": turns,
    "tools": tools,
}


def record(value: Any, where: str) -> Any:
    """Convert a record in the format of spaCy, GLiNER or Label Studio to one with `text` and
    `spans`; return others unchanged.
    """
    if isinstance(value, dict):
        if "tokenized_text" in value:
            return _of_gliner(value, where)
        if isinstance(value.get("data"), dict) and isinstance(value.get("annotations"), list):
            return _of_label_studio(value, where)
    elif isinstance(value, (list, tuple)) and len(value) == 2:
        text, notes = value
        if isinstance(text, str) and isinstance(notes, dict) and "entities" in notes:
            return {**notes, "text": text, "spans": notes["entities"]}
    return value


def _of_gliner(value: dict[str, Any], where: str) -> dict[str, Any]:
    """Convert words and spans of words with inclusive ends; the words are joined by spaces, as in
    GLiNER.
    """
    tokens = words(value["tokenized_text"], "tokens", where) or []
    starts = []
    at = 0
    for token in tokens:
        starts.append(at)
        at += len(str(token)) + 1
    found: dict[str, Any] = {**value, "text": " ".join(map(str, tokens))}
    if _is_missing(value.get("ner")):
        return found
    found["spans"] = []
    for number, span in enumerate(_listed(value["ner"], "ner", where, _SPANS), start=1):
        place = f"{where}, span {number}"
        if not isinstance(span, (list, tuple)) or len(span) != 3:
            raise DataError(
                f"{_shown(span)} is no span", where=place, do='write it as [0, 1, "person"]'
            )
        first = _offset(span[0], "start", place)
        last = _offset(span[1], "end", place)
        if not 0 <= first <= last < len(tokens):
            raise DataError(
                f"a span from word {first} to word {last} where there are {len(tokens)} words",
                where=place,
                do="count words from 0, the last one included",
            )
        end = starts[last] + len(str(tokens[last]))
        found["spans"].append({"start": starts[first], "end": end, "label": span[2]})
    return found


def _of_label_studio(value: dict[str, Any], where: str) -> dict[str, Any]:
    """Convert a task of Label Studio's JSON export; regions without offsets, such as choices, are
    ignored.
    """
    data = value["data"]
    texts = [each for each in data.values() if isinstance(each, str)]
    if "text" not in data and len(texts) != 1:
        raise DataError(
            "which of its data is the text is not clear",
            where=where,
            do='call it "text" in its data',
        )
    finished = []
    for annotation in value["annotations"]:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            finished.append(annotation)
    if len(finished) > 1:
        raise DataError(
            f"it has {len(finished)} annotations", where=where, do="keep one of them a text"
        )
    only_text = texts[0] if texts else None
    found = {**data, "text": data.get("text", only_text)}
    if finished:
        regions = _listed(finished[0].get("result", []), "result", where, _SPANS)
        marked = [each.get("value") for each in regions if isinstance(each, dict)]
        found["spans"] = [each for each in marked if isinstance(each, dict) and "start" in each]
        for number, span in enumerate(found["spans"], start=1):
            _check_region(span, found["text"], f"{where}, span {number}")
    return found


def _check_region(span: dict[str, Any], text: Any, where: str) -> None:
    """Raise DataError if the text of a region differs from the text at its offsets, apart from
    white space.

    This happens because browsers count a character beyond U+FFFF as two.
    """
    start, end, own = (span.get(name) for name in ("start", "end", "text"))
    if not (isinstance(start, int) and isinstance(end, int)):
        return
    if not (isinstance(own, str) and isinstance(text, str)):
        return
    there = text[max(start, 0) : max(end, 0)]
    if _LAYOUT.sub("", there) != _LAYOUT.sub("", own):
        raise DataError(
            f"its text is {_shown(own)}, but the characters from {start} to {end} are"
            f" {_shown(there)}",
            where=where,
            do="count characters of Unicode, an emoji as one",
        )


def faults(columns: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    """Yield (row, what is wrong, what to do) for rows whose columns do not match each other.

    columns: Arrow arrays by name.
    """
    import pyarrow.compute as pc

    if "tokens" in columns:
        tokens = pc.list_value_length(columns["tokens"]).to_pylist()
        tags = tokens
        if "tags" in columns:
            tags = pc.list_value_length(columns["tags"]).to_pylist()
        for row, (n_tokens, n_tags) in enumerate(zip(tokens, tags, strict=True)):
            if not n_tokens:
                yield row, "there are no tokens", f"fill them in{OR_DROP}"
            elif n_tags is not None and n_tokens != n_tags:
                yield (
                    row,
                    f"{n_tags} tags for {n_tokens} tokens",
                    f"give each token one tag{OR_DROP}",
                )
    if "text" in columns and "spans" in columns:
        lengths = pc.utf8_length(columns["text"]).to_pylist()
        spans_of_rows = columns["spans"].to_pylist()
        for row, marked in enumerate(spans_of_rows):
            length = lengths[row] or 0
            end = max((each["end"] for each in marked or ()), default=0)
            if end > length:
                what = f"a span ends at {end}, but its text has {length} characters"
                do = f"count the characters of the text as it stands in the row{OR_DROP}"
                yield row, what, do


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _first(value: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _listed(value: Any, name: str, where: str, do: str) -> Sequence[Any]:
    """Return the items of a list, or of a dictionary of parallel lists, as which `datasets` stores
    lists of dictionaries.
    """
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        columns = {key: each for key, each in value.items() if isinstance(each, (list, tuple))}
        if not columns:
            return [value]
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            sizes = " and ".join(f"{len(column)} of {key!r}" for key, column in columns.items())
            raise DataError(f"the {name} are of different numbers: {sizes}", where=where, do=do)
        items = zip(*columns.values(), strict=True)
        return [dict(zip(columns, item, strict=True)) for item in items]
    raise DataError(f"the {name} are a {type(value).__name__}, not a list", where=where, do=do)


def _offset(value: Any, name: str, where: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 62:
        what = f"its {name} is {_shown(value)}, not a whole number"
        raise DataError(what, where=where, do="give the number of a character, from 0")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"

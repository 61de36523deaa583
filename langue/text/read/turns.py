"""Converts the messages of conversations to one form; errors name the row and the message.

| column | accepted input |
|---|---|
| messages | `[{"role": "user", "content": "Hi"}]`; ShareGPT's with "from" and "value" |
| prompt, completion, chosen, rejected | the same, or one text: a message without a role |
| tools | a list of functions, or JSON of one |

The form is a list of `{role, content, more}`: `more` is JSON of all other keys of a message
(`tool_calls`, `name`), since Arrow would give every message the keys of all others. A null in the
file is treated as absent, since Parquet cannot omit a key in any other way.
"""

import json
from collections.abc import Mapping
from typing import Any

from langue.errors import DataError

_DO = 'write it as [{"role": "user", "content": "..."}, ...]'
_ROLES = ("role", "from")
_CONTENTS = ("content", "value")


def turns(value: Any, name: str, where: str) -> list[dict[str, Any]] | None:
    """Return a list of `{role, content, more}`; a text becomes one message without a role."""
    if value is None or value != value:
        return None
    if isinstance(value, str):
        return [{"role": "", "content": value, "more": None}]
    if isinstance(value, Mapping):
        value = _side_by_side(value, name, where)
    if not isinstance(value, list | tuple):
        raise DataError(
            f"the {name} are a {type(value).__name__}, not messages", where=where, do=_DO
        )
    return [_turn(message, f"{where}, message {number}") for number, message in enumerate(value, 1)]


def tools(value: Any, name: str, where: str) -> str | None:
    """Return the JSON of a list of functions that the model may call."""
    if value is None or value != value:
        return None
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"the tools are not JSON: {error}", where=where) from None
    value = without_null(value)
    if not isinstance(value, list):
        raise DataError(
            f"the tools are a {type(value).__name__}, not a list",
            where=where,
            do='write them as [{"type": "function", "function": {"name": "...", ...}}]',
        )
    return json.dumps(value, ensure_ascii=False) if value else None


def message_of(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message in the form that chat templates expect."""
    found = {"role": turn["role"]}
    if turn["content"] is not None:
        found["content"] = turn["content"]
    more: dict[str, Any] = {} if turn["more"] is None else json.loads(turn["more"])
    return found | more


def without_null(value: Any) -> Any:
    """Return the value without the keys whose values are null, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_null(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [without_null(each) for each in value]
    return value


def _side_by_side(value: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    """Convert a dictionary of lists, as which `datasets` stores lists of dictionaries, or a single
    message.
    """
    columns = {key: each for key, each in value.items() if isinstance(each, list | tuple)}
    if not columns or len(columns) < len(value):
        return [dict(value)]
    if len({len(column) for column in columns.values()}) > 1:
        raise DataError(f"the {name} have lists of different lengths", where=where, do=_DO)
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _turn(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise DataError(f"a {type(message).__name__} is no message", where=where, do=_DO)
    given = without_null(message)
    role = next((given.pop(key) for key in _ROLES if key in given), None)
    if not isinstance(role, str) or not role.strip():
        raise DataError("the message has no role", where=where, do=_DO)
    content = next((given.pop(key) for key in _CONTENTS if key in given), None)
    more = json.dumps(given, ensure_ascii=False, default=str) if given else None
    return {"role": role.strip(), "content": _text_of(content, where), "more": more}


def _text_of(content: Any, where: str) -> str | None:
    """Return the text of a message: a string, or the joined text parts of a list."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, bool | int | float):
        return str(content)
    if not isinstance(content, list | tuple):
        raise DataError(
            f"its content is a {type(content).__name__}, not a text", where=where, do=_DO
        )
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text") if isinstance(part, Mapping) else part
        if kind != "text" or not isinstance(text, str):
            raise DataError(
                f"its content has a part of the kind {kind!r}, and only text is read",
                where=where,
                do="take it out, or put its text in its place",
            )
        texts.append(text)
    return "".join(texts)

"""Validation of JSON Schemas: takes a JSON Schema; returns the same schema if all of its keywords
are supported.

An unknown keyword would be ignored silently, and the text would not match the schema; so it is
rejected by name. The keywords are those of JSON Schema draft 2020-12 and its predecessors.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from langue.errors import ModelError

# What each keyword contains: a schema, a list of schemas, schemas by name, or values of a type.
SCHEMA = {"additionalProperties", "items", "additionalItems"}
SCHEMAS = {"anyOf", "oneOf", "allOf", "prefixItems", "items"}
NAMED = {"properties", "patternProperties", "$defs", "definitions"}
NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
COUNTS = {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
TEXTS = {"pattern", "format", "$ref", "$id", "id", "$schema", "$anchor", "title", "description"}
LISTS = {"enum", "required"}
OTHERS = {"type", "const"}
# Keywords that do not restrict the valid values.
REMARKS = {"default", "examples", "$comment", "readOnly", "writeOnly", "deprecated"}
REMARKS |= {"discriminator"}  # a hint that accompanies oneOf
KNOWN = SCHEMA | SCHEMAS | NAMED | NUMBERS | COUNTS | TEXTS | LISTS | OTHERS | REMARKS
SHOWN = 60  # characters of a value that an error message shows


def checked_schema(schema: Any) -> dict[str, Any]:
    """Return the schema as an object; raise ModelError with the name and position of an unsupported
    keyword.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the text is no JSON: {error}", where="json_schema") from None
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    for _ in _parts(schema):
        pass  # each part is checked when it is reached
    found: dict[str, Any] = schema
    return found


def never_ends(schema: dict[str, Any]) -> bool:
    """Return whether every valid value contains another valid value of the same schema, and so is
    infinite.

    Computes the least fixed point of "has a finite value" from types, references and required
    parts; other keywords are not considered.
    """
    finite = set[int]()  # identities of the schemas that are known to have a finite value
    parts = list(_parts(schema))
    size = -1
    while size < len(finite):
        size = len(finite)
        for part in parts:
            if _may_end(part, schema, finite):
                finite.add(id(part))
    return id(schema) not in finite


def _may_end(part: Mapping[str, Any], root: dict[str, Any], finite: set[int]) -> bool:
    """Return whether a schema has a finite value, given the schemas that are known to have one."""

    def ends(each: Any) -> bool:
        return not isinstance(each, Mapping) or id(each) in finite

    if "enum" in part or "const" in part:
        return True
    if not all(map(ends, _required_parts(part, root))):
        return False
    alternatives = [part[key] for key in ("anyOf", "oneOf") if key in part]
    return all(any(map(ends, schemas)) for schemas in alternatives)


def _required_parts(part: Mapping[str, Any], root: dict[str, Any]) -> list[Any]:
    """Return the schemas that a value of this schema must contain or satisfy; None for a part
    without a schema.
    """
    required = list(part.get("allOf", []))
    if "$ref" in part:
        required.append(_target(part["$ref"], root))
    kind = part.get("type")
    if kind in ("object", ["object"]):
        properties = part.get("properties", {})
        for name in part.get("required", []):
            required.append(properties.get(name))
    if kind in ("array", ["array"]):
        least = int(part.get("minItems", 0))
        first = part.get("prefixItems", [])
        required += first[:least]
        if least > len(first):
            required.append(part.get("items"))
    return required


def _target(reference: str, root: dict[str, Any]) -> Any:
    """Return the part of the schema that a reference points to; None for an external reference."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    path = unquote(reference[1:])
    for escaped in path.split("/")[1:]:
        name = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping):
            found = found.get(name)
        else:
            return None
    return found


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the schema and all schemas within it; raise ModelError if one is invalid."""
    left = [("#", schema)]
    while left:
        where, part = left.pop()
        if isinstance(part, bool):
            continue
        if not isinstance(part, Mapping):
            raise _error(where, f"{_short(part)} is no schema", "give an object, true or false")
        if "$ref" in part and "$id" in part:
            what = "an $id beside a $ref is read one way in draft 7 and another way since"
            raise _error(where, what, "leave the $id out")
        yield part
        for key, value in part.items():
            place = f"{where}/{key}"
            _check(place, key, value)
            for inner, each in _schemas_in(key, value):
                left.append((place + inner, each))


def _check(where: str, key: Any, value: Any) -> None:
    """Raise ModelError if a keyword is unknown, or its value does not have the right type."""
    if not isinstance(key, str):
        raise _error(where, f"{key!r} is no keyword", "keywords are strings")
    is_extension = key.startswith("x-") and key != "x-guidance"
    if key not in KNOWN and not is_extension:
        what = f"the keyword {key!r} is not supported"
        raise _error(where, what, "leave it out, or say it otherwise")
    is_list = isinstance(value, list)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in NUMBERS and not is_number:
        raise _error(where, f"{_short(value)} is no number", "give a number")
    if key in COUNTS and (not is_number or value < 0 or value != int(value)):
        raise _error(where, f"{_short(value)} is no count", "give a whole number, 0 or more")
    if key in TEXTS and not isinstance(value, str):
        raise _error(where, f"{_short(value)} is no text", "give a string")
    if key in LISTS and not is_list:
        raise _error(where, f"{_short(value)} is no list", "give a list")
    if key in SCHEMAS - SCHEMA and (not is_list or not value):
        raise _error(where, f"{_short(value)} is no list of schemas", "give a list of them")
    if key == "enum" and not value:
        raise _error(where, "no value is valid", "name at least one")
    if key == "required" and not all(isinstance(each, str) for each in value):
        raise _error(where, f"{_short(value)} is no list of names", "give names of properties")


def _schemas_in(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the schemas in the value of a keyword, each with the end of its path."""
    if key in SCHEMAS and isinstance(value, list):
        for index, each in enumerate(value):
            yield f"/{index}", each
    elif key in NAMED:
        if not isinstance(value, Mapping):
            raise _error(f"#/.../{key}", f"{_short(value)} is no object", "give schemas by name")
        for name, each in value.items():
            yield f"/{name}", each
    elif key in SCHEMA or key in SCHEMAS:
        yield "", value


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= SHOWN:
        return text
    return f"{text[: SHOWN - 3]}..."


def _error(where: str, what: str, do: str) -> ModelError:
    place = f"json_schema {where}"
    return ModelError(what, where=place[:200], do=do)

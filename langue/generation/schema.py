"""What arrives: a JSON Schema. What leaves: the same, once each of its keywords is one that is
followed.

A keyword that nobody knows would be dropped in silence, and the text not be what was asked for; so
it is refused by name. Keywords of JSON Schema draft 2020-12 and its forerunners.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from langue.errors import ModelError

# What keywords hold: a schema, several, or schemas by name; else values of these types.
SCHEMA = {"additionalProperties", "items", "additionalItems"}
SCHEMAS = {"anyOf", "oneOf", "allOf", "prefixItems", "items"}
NAMED = {"properties", "patternProperties", "$defs", "definitions"}
NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
COUNTS = {"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"}
TEXTS = {"pattern", "format", "$ref", "$id", "id", "$schema", "$anchor", "title", "description"}
LISTS = {"enum", "required"}
OTHERS = {"type", "const"}
# What says nothing of which values are valid.
REMARKS = {"default", "examples", "$comment", "readOnly", "writeOnly", "deprecated"}
REMARKS |= {"discriminator"}  # a hint beside oneOf
KNOWN = SCHEMA | SCHEMAS | NAMED | NUMBERS | COUNTS | TEXTS | LISTS | OTHERS | REMARKS


def checked_schema(schema: Any) -> dict[str, Any]:
    """The schema as an object. ModelError names a keyword that is not followed, and where it is."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the text is no JSON: {error}", where="json_schema") from None
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    for _ in _parts(schema):
        pass
    found: dict[str, Any] = schema
    return found


def never_ends(schema: dict[str, Any]) -> bool:
    """Whether each valid value holds another valid value of the same kind, and so has no end.

    The least fixed point of "has a value that ends", as far as it follows from types, references
    and what is required; what other keywords forbid is not looked at.
    """
    ending = set[int]()  # schemas, by their identity
    parts = list(_parts(schema))
    size = -1
    while size < len(ending):
        size = len(ending)
        ending.update(id(part) for part in parts if _may_end(part, schema, ending))
    return id(schema) not in ending


def _may_end(part: Mapping[str, Any], root: dict[str, Any], ending: set[int]) -> bool:
    """Whether a schema has a value that ends, if those have that are known to."""

    def ends(each: Any) -> bool:
        return not isinstance(each, Mapping) or id(each) in ending

    if "enum" in part or "const" in part:
        return True
    held = list(part.get("allOf", []))
    if "$ref" in part:
        held.append(_target(part["$ref"], root))
    if part.get("type") in ("object", ["object"]):
        properties = part.get("properties", {})
        held += [properties.get(name) for name in part.get("required", [])]
    if part.get("type") in ("array", ["array"]):
        least = int(part.get("minItems", 0))
        first = part.get("prefixItems", [])
        held += first[:least]
        held += [part.get("items")] if least > len(first) else []
    either = [part[key] for key in ("anyOf", "oneOf") if key in part]
    return all(map(ends, held)) and all(any(map(ends, some)) for some in either)


def _target(reference: str, root: dict[str, Any]) -> Any:
    """What a reference within the schema points to; None where it is another kind."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for name in unquote(reference[1:]).split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping):
            found = found.get(name)
        else:
            return None
    return found


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schemas within a schema, itself first. ModelError where one is none."""
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
            left += [(place + inner, each) for inner, each in _schemas_in(key, value)]


def _check(where: str, key: Any, value: Any) -> None:
    if not isinstance(key, str):
        raise _error(where, f"{key!r} is no keyword", "keywords are strings")
    if key not in KNOWN and (not key.startswith("x-") or key == "x-guidance"):
        raise _error(
            where, f"the keyword {key!r} is not supported", "leave it out, or say it otherwise"
        )
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in NUMBERS and not is_number:
        raise _error(where, f"{_short(value)} is no number", "give a number")
    if key in COUNTS and (not is_number or value < 0 or value != int(value)):
        raise _error(where, f"{_short(value)} is no count", "give a whole number, 0 or more")
    if key in TEXTS and not isinstance(value, str):
        raise _error(where, f"{_short(value)} is no text", "give a string")
    if key in LISTS and not isinstance(value, list):
        raise _error(where, f"{_short(value)} is no list", "give a list")
    if key in SCHEMAS - SCHEMA and (not isinstance(value, list) or not value):
        raise _error(where, f"{_short(value)} is no list of schemas", "give a list of them")
    if key == "enum" and not value:
        raise _error(where, "no value is valid", "name at least one")
    if key == "required" and not all(isinstance(each, str) for each in value):
        raise _error(where, f"{_short(value)} is no list of names", "give names of properties")


def _schemas_in(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The schemas that a keyword holds, with their places."""
    if key in SCHEMAS and isinstance(value, list):
        yield from ((f"/{index}", each) for index, each in enumerate(value))
    elif key in NAMED:
        if not isinstance(value, Mapping):
            raise _error(f"#/.../{key}", f"{_short(value)} is no object", "give schemas by name")
        yield from ((f"/{name}", each) for name, each in value.items())
    elif key in SCHEMA or key in SCHEMAS:
        yield "", value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _error(where: str, what: str, do: str) -> ModelError:
    return ModelError(what, where=f"json_schema {where}"[:200], do=do)

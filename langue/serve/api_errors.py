"""Error responses: take what is wrong with a call; return it in the form that OpenAI's clients
read, `{"error": {"message", "type", "param", "code"}}`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from langue.errors import LangueError

_FIELD = re.compile(r"[a-z_][a-z0-9_]*")
_OPTION = re.compile(r"([a-z_]+) (?:= |has )")
FORMS = ("json_schema", "regex", "choices", "grammar")
_KINDS = {"body", "str", "int", "float", "bool", "dict", "list"}
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Error(BaseModel):
    """What is wrong with a call."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of an error response."""

    error: Error


class ApiError(Exception):
    """A call that is not answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """status: HTTP status. param: the invalid field. code: identifies the kind of error to
        programs.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON of the response."""
        kind = TYPES.get(self.status)
        if kind is None:
            kind = TYPES[400] if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def of_langue(error: LangueError, param: str | None = None) -> ApiError:
    """Return an error that the user can fix as an ApiError.

    param: the field, unless the error starts with an option's name or its `where` names a form of
    constraint.
    """
    named = _OPTION.match(error.what)
    if named is not None:
        param = named.group(1)
    elif error.where.split(" ")[0] in FORMS:
        param = error.where.split(" ")[0]
    return ApiError(400, str(error), param=param, code="invalid_value")


def busy(message: str, seconds: float) -> ApiError:
    """Return the error for too many calls at once; seconds: when to retry."""
    after = {"Retry-After": str(max(1, round(seconds)))}
    return ApiError(429, message, code="rate_limit_exceeded", headers=after)


def too_long(given: int, asked: int, positions: int, param: str) -> ApiError:
    """Return the error for a prompt that does not fit, with both token counts."""
    what = f"This model's maximum context length is {positions:,} tokens. However, you requested"
    parts = f"{given:,} in the prompt" + (f" and {asked:,} for the completion" if asked else "")
    return ApiError(
        400,
        f"{what} {given + asked:,} tokens ({parts}). Shorten the prompt, or ask for fewer tokens.",
        param=param,
        code="context_length_exceeded",
    )


def of_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """Return the most relevant of pydantic's validation errors."""
    # A wrong value says more than a missing one, which may be due to the former. Among the
    # alternatives of a union, the error with the longest path is of the one that was meant.
    first = min(errors, key=lambda each: (each.get("type") == "missing", -len(each["loc"])))
    kind = str(first.get("type", ""))
    name = ".".join(_path(first.get("loc", ()))) or None
    if kind == "extra_forbidden":
        what = f"Unrecognized request argument supplied: {name}"
        return ApiError(400, what, param=name, code="unknown_parameter")
    if kind == "missing":
        if name is None:
            return ApiError(400, "The request has no body; send a JSON object", code="invalid_json")
        what = f"Missing required parameter: '{name}'"
        return ApiError(400, what, param=name, code="missing_required_parameter")
    if kind == "json_invalid":
        return ApiError(
            400, f"The request body is not valid JSON: {first.get('ctx', {}).get('error', '')}"
        )
    message = f"Invalid value for '{name}': {first.get('msg')}" if name else str(first.get("msg"))
    return ApiError(400, message, param=name, code="invalid_value")


def _path(place: Sequence[Any]) -> list[str]:
    """Return the path of a field, without pydantic's names for the alternatives of a union."""
    found = []
    for part in place:
        is_field = isinstance(part, int) or _FIELD.fullmatch(part) and part not in _KINDS
        if is_field:
            found.append(str(part))
    return found

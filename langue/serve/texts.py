"""Batching of texts: takes the texts of a call, and a function of the model; returns its results,
computed together with those of concurrent calls.

A text that is too long for the model is refused or, on request, truncated; the answer then says how
many were.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request

from langue.errors import LangueError, PromptTooLong
from langue.serve.api_errors import ApiError, of_langue, too_long
from langue.serve.guard import Limits
from langue.serve.models import Loaded
from langue.serve.worker import EngineError
from langue.serve.writing import until_gone

if TYPE_CHECKING:
    from langue.runs.model import Model

Function = Callable[[list[Any]], Sequence[Any]]
MOST_TEXTS = 2048  # per call, as in OpenAI's API


def check_count(items: Sequence[Any], limits: Limits) -> None:
    """Raise ApiError if a call has too many texts, or an empty one."""
    most = max(MOST_TEXTS, limits.prompts)
    if len(items) > most:
        what = f"'input' has {len(items):,} texts, and the limit is {most:,} per request"
        raise ApiError(400, what, param="input", code="invalid_value")
    empty = next((index for index, each in enumerate(items) if not each), None)
    if empty is not None:
        where = f"'input' {empty}" if len(items) > 1 else "'input'"
        raise ApiError(400, f"{where} is empty", param="input", code="invalid_value")


async def apply_together(
    loaded: Loaded,
    key: tuple[Any, ...],
    function: Function,
    items: list[Any],
    request: Request,
    *,
    truncate: bool = False,
) -> tuple[list[Any], int]:
    """Return a function's result for each item, computed on the model's thread, and how many were
    truncated.

    key: calls with the same key may be computed together. truncate: cut long texts of this call
    only. Raises ApiError if a text cannot be encoded.
    """
    inputs = loaded.model.inputs
    n_cut = 0
    if not truncate:
        for item in items:
            parts = [item] if isinstance(item, str) else item
            for part in parts.values() if isinstance(parts, dict) else parts:
                if isinstance(part, str):
                    loaded.check_size(part, "input")

    def strict(texts: list[Any]) -> Sequence[Any]:
        nonlocal n_cut
        if truncate:
            with inputs.counting_truncation() as counted:
                made = function(texts)
            n_cut = counted.texts_cut
            return made
        with inputs.refusing_long():
            return function(texts)

    try:
        own = (*key, request.state.call.id) if truncate else key
        work = loaded.worker.apply(own, strict, items, request.state.call.owner)
        found: list[Any] = await until_gone(request.receive, work)
    except EngineError as error:
        raise ApiError(500, str(error), code="engine_error") from error
    except PromptTooLong as error:
        made = too_long(error.tokens, 0, error.room, "input")
        made.message += " Or set truncate=true."
        raise made from error
    except LangueError as error:
        raise of_langue(error, "input") from error
    return found, n_cut


def usage_of(tokens: int, n_cut: int) -> dict[str, Any]:
    """Return the usage fields at the end of an answer."""
    usage: dict[str, Any] = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return usage | {"truncated": n_cut} if n_cut else usage


def n_tokens(model: "Model", items: Sequence[Any]) -> list[int]:
    """Return the number of tokens of each text or pair before truncation, or the number of given
    token ids.
    """
    if not items:
        return []
    first = items[0]
    if isinstance(first, str):
        return [len(each.ids) for each in model.tokenizer.encode_batch(list(items))]
    if isinstance(first, list | tuple) and first and isinstance(first[0], str):
        texts = [" ".join(each) for each in items]
        return [len(each.ids) for each in model.tokenizer.encode_batch(texts)]
    if isinstance(first, dict):
        texts = [" ".join(each.values()) for each in items]
        return [len(each.ids) for each in model.tokenizer.encode_batch(texts)]
    return [len(each) for each in items]

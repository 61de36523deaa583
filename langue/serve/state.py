"""What a server is made of, for its routes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fastapi import Request

from langue.serve.api_errors import ApiError
from langue.serve.guard import Limits
from langue.serve.metrics import Metrics
from langue.serve.models import Shelf, name_all, parse_size


@dataclass
class State:
    """What all routes of a server share."""

    shelf: Shelf
    limits: Limits
    metrics: Metrics
    failure: ApiError | None = None  # why it could not begin
    is_ending: bool = False  # calls are answered to the end, and none is wanted any more


def state_for(
    runs: Sequence[str],
    memory: str | None,
    weights: str | None,
    idle: float,
    limits: Mapping[str, Any] | None,
) -> State:
    """Of a new server; all of it as `langue serve` has it, and nothing loaded yet."""
    budget = None if memory is None else parse_size(memory)
    named, budget = name_all(runs, budget, weights)
    metrics = Metrics()
    return State(Shelf(named, budget, idle, metrics), Limits(**(limits or {})), metrics)


def state_of(request: Request) -> State:
    """Of the server that a call came to."""
    return cast(State, request.app.state.serve)

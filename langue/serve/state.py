"""The shared state of a server's routes."""

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
    failure: ApiError | None = None  # why it could not start
    is_ending: bool = False  # shutting down: open calls are completed, new ones refused


def state_for(
    runs: Sequence[str],
    memory: str | None,
    weights: str | None,
    idle: float,
    limits: Mapping[str, Any] | None,
) -> State:
    """Return the state of a new server, with the options of `langue serve`; no model is loaded
    yet.
    """
    budget = None if memory is None else parse_size(memory)
    named, budget = name_all(runs, budget, weights)
    metrics = Metrics()
    return State(Shelf(named, budget, idle, metrics), Limits(**(limits or {})), metrics)


def state_of(request: Request) -> State:
    """Return the state of the server that received a call."""
    return cast(State, request.app.state.serve)

"""What a server is made of, for its routes."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from langue.serve.api_errors import ApiError
from langue.serve.guard import Limits
from langue.serve.metrics import Metrics
from langue.serve.models import Shelf


@dataclass
class State:
    """What all routes of a server share."""

    shelf: Shelf
    limits: Limits
    metrics: Metrics
    failure: ApiError | None = None  # why it could not begin
    is_ending: bool = False  # calls are answered to the end, and none is wanted any more


def state_of(request: Request) -> State:
    """Of the server that a call came to."""
    return cast(State, request.app.state.serve)

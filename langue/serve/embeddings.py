"""`/v1/embeddings`: takes texts; returns a vector for each. Texts of concurrent calls are
batched.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from langue.serve.api_errors import ApiError
from langue.serve.fields import EmbeddingFields, as_list
from langue.serve.models import Loaded
from langue.serve.state import state_of
from langue.serve.texts import apply_together, check_count, n_tokens, usage_of

router = APIRouter()
UNIT = 1e-3  # tolerance for treating a vector as normalized


@router.post("/v1/embeddings")
async def embeddings(fields: EmbeddingFields, request: Request) -> Response:
    """Return a vector for each text, as computed by `Model.encode`."""
    state = state_of(request)
    call = request.state.call
    call.model = fields.model
    items = as_list(fields.input)
    check_count(items, state.limits)
    async with state.shelf.use(fields.model) as loaded:
        found, n_cut = await vectors_of(loaded, items, request, truncate=fields.truncate)
    vectors = _shortened([each for each, _ in found], fields.dimensions)
    tokens = sum(count for _, count in found)
    call.prompt_tokens = tokens
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, fields)}
        for index, vector in enumerate(vectors)
    ]
    head = {"object": "list", "data": data, "model": fields.model}
    return JSONResponse(head | usage_of(tokens, n_cut))


async def vectors_of(
    loaded: Loaded, items: list[Any], request: Request, *, truncate: bool, of: str = "text"
) -> tuple[list[tuple[NDArray[np.float32], int]], int]:
    """Return the vector and the number of tokens of each text, and how many texts were truncated.

    of: whether they are plain texts, queries or documents, for which a model may have different
    prompts.
    """
    model = loaded.model
    ways: dict[str, Callable[[list[Any]], NDArray[np.float32]]]
    ways = {"text": model.encode, "query": model.encode_query, "document": model.encode_document}

    def encode(texts: list[Any]) -> list[tuple[NDArray[np.float32], int]]:
        vectors = ways[of](texts)
        return list(zip(vectors, n_tokens(model, texts), strict=True))

    kind = "texts" if isinstance(items[0], str) else "ids"
    return await apply_together(
        loaded, ("vectors", kind, of), encode, items, request, truncate=truncate
    )


def _shortened(vectors: list[NDArray[np.float32]], size: int | None) -> list[NDArray[np.float32]]:
    """Truncate each vector; normalized ones are normalized again."""
    if size is None:
        return vectors
    whole = len(vectors[0])
    if size > whole:
        what = f"'dimensions' is {size}, and the model's embeddings have {whole}"
        raise ApiError(400, what, param="dimensions", code="invalid_value")
    found = []
    for vector in vectors:
        cut = vector[:size]
        norm = np.linalg.norm(cut)
        is_unit = abs(np.linalg.norm(vector) - 1) < UNIT
        found.append(cut / norm if is_unit and norm > 0 else cut)
    return found


def _written(vector: NDArray[np.float32], fields: EmbeddingFields) -> Any:
    if fields.encoding_format == "float":
        return vector.tolist()
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()

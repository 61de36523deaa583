"""What arrives: texts for models of tasks. What leaves: what each model predicts of them, and what
encoder-decoders write; texts of calls that come together go through the model together.
"""

import functools
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from langue.generation.request import Completion
from langue.serve.answering import STREAMED
from langue.serve.answering import answer as answer_call
from langue.serve.api_errors import ApiError
from langue.serve.embeddings import vectors_of
from langue.serve.fields import as_list
from langue.serve.models import Loaded
from langue.serve.sse import DONE, event
from langue.serve.state import state_of
from langue.serve.task_fields import (
    AnswerFields,
    ClassifyFields,
    RerankFields,
    TagFields,
    WriteFields,
)
from langue.serve.texts import apply_together, check_count, n_tokens, usage_of
from langue.serve.writing import Answers, Asked

router = APIRouter()


@router.post("/v1/classify")
async def classify(fields: ClassifyFields, request: Request) -> Response:
    """The labels of each text or pair of texts, with their scores."""

    def fits(loaded: Loaded) -> bool:
        task = loaded.model.task
        return task is not None and task.takes_texts and not task.has_language_head

    items = as_list(fields.input)
    top: Any = None if fields.top == "all" else fields.top or "auto"
    pairs = [tuple(each) if isinstance(each, list) else each for each in items]
    return await _predicted(request, fields, pairs, fits, "labels", top)


@router.post("/v1/tag")
async def tag(fields: TagFields, request: Request) -> Response:
    """What stands in each text or list of words: entities, or a tag a word."""

    def fits(loaded: Loaded) -> bool:
        return loaded.model.task is not None and loaded.model.reads_words

    items = as_list(fields.input)
    return await _predicted(request, fields, items, fits, "entities", "auto")


@router.post("/v1/answer")
async def answer(fields: AnswerFields, request: Request) -> Response:
    """The answer to each question, where it stands in its context; without text: there is none."""

    def fits(loaded: Loaded) -> bool:
        task = loaded.model.task
        return task is not None and "question" in task.columns.inputs

    one = (fields.question, fields.context)
    if (fields.input is None) == (one == (None, None)) or None in one and fields.input is None:
        what = "Give 'question' and 'context', or a list of them as 'input'"
        raise ApiError(400, what, param="question", code="missing_required_parameter")
    if fields.input is None:
        items = [{"question": fields.question, "context": fields.context}]
    else:
        items = [each.model_dump() for each in fields.input]
    return await _predicted(request, fields, items, fits, "answers", fields.top or "auto")


async def _predicted(
    request: Request, fields: Any, items: list[Any], fits: Any, name: str, top: Any
) -> Response:
    """Predictions of each item, under a name. top: as `Model.predict` has it."""
    state = state_of(request)
    call = request.state.call
    call.model = fields.model
    check_count(items, state.limits)
    async with state.shelf.use(fields.model) as loaded:
        if not fits(loaded):
            what = f"The model '{fields.model}' does not support {request.url.path}"
            raise ApiError(400, what, param="model", code="model_not_supported")
        model = loaded.model

        def predict(texts: list[Any]) -> list[tuple[Any, int]]:
            return list(zip(model.predict(texts, top=top), n_tokens(model, texts), strict=True))

        found, n_cut = await apply_together(
            loaded,
            ("predict", type(items[0]).__name__, top),
            predict,
            items,
            request,
            truncate=getattr(fields, "truncate", True),
        )
    tokens = call.prompt_tokens = sum(count for _, count in found)
    data = [
        {"index": index, name: each if isinstance(each, list | None) else [each]}
        for index, (each, _) in enumerate(found)
    ]
    head = {"object": "list", "data": data, "model": fields.model}
    return JSONResponse(head | usage_of(tokens, n_cut))


@router.post("/v1/translate", responses=STREAMED)
async def translate(fields: WriteFields, request: Request) -> Response:
    """Each text in another language, by a model that was made for it."""
    return await _written(fields, request)


@router.post("/v1/summarise", responses=STREAMED)
async def summarise(fields: WriteFields, request: Request) -> Response:
    """Each text in short, by a model that was made for it."""
    return await _written(fields, request)


async def _written(fields: WriteFields, request: Request) -> Response:
    fields.check_stream()
    check_count(as_list(fields.input), state_of(request).limits)
    path = request.url.path
    return await answer_call(fields, request, functools.partial(_Rewriting, path))


class _Rewriting:
    """One call of texts for which others are written."""

    def __init__(self, path: str, fields: WriteFields, loaded: Loaded, answers: Answers) -> None:
        self.path = path
        self.fields = fields
        self.loaded = loaded
        self.answers = answers

    async def start(self) -> None:
        """Queue it. ApiError where it cannot be answered."""
        fields = self.fields
        if self.loaded.model.config.architecture != "encoder-decoder" or not self.loaded.writes:
            what = f"The model '{fields.model}' does not support {self.path}"
            raise ApiError(400, what, param="model", code="model_not_supported")
        asked = Asked(
            as_list(fields.input),
            fields.options(),
            seed=fields.seed,
            max_tokens=fields.max_tokens,
            param="input",
            as_configured=True,
        )
        await self.answers.start(asked)

    async def whole(self) -> dict[str, Any]:
        """All texts."""
        found = await self.answers.whole()
        data = [_text(index, each.text, each) for index, each in enumerate(found)]
        return self._body(data) | {"usage": self.answers.usage}

    async def events(self) -> AsyncIterator[str]:
        """What is written, as it comes; of beams, when the best of them is known."""
        async for piece in self.answers.pieces():
            if piece.delta.text or piece.completion is not None:
                yield event(self._body([_text(piece.index, piece.delta.text, piece.completion)]))
        if self.fields.wants_usage:
            yield event(self._body([]) | {"usage": self.answers.usage})
        yield DONE

    def _body(self, data: list[dict[str, Any]]) -> dict[str, Any]:
        return {"object": "list", "data": data, "model": self.fields.model}


def _text(index: int, text: str, ended: Completion | None) -> dict[str, Any]:
    """A text that was written or a part of it. ended: how, where it has."""
    reason = None if ended is None else ended.finish_reason
    return {"index": index, "text": text, "finish_reason": reason}


@router.post("/v1/rerank")
async def rerank(fields: RerankFields, request: Request) -> Response:
    """Documents by how well they fit a query, the best first: by a model of pairs with one score,
    or by the cosines of vectors.
    """
    state = state_of(request)
    call = request.state.call
    call.model = fields.model
    check_count([fields.query, *fields.documents], state.limits)
    async with state.shelf.use(fields.model) as loaded:
        scores, tokens, n_cut = await _fits(loaded, fields, request)
    call.prompt_tokens = tokens
    order = np.argsort(-scores, kind="stable")[: fields.top_n]
    results = []
    for index in order.tolist():
        one: dict[str, Any] = {"index": index, "relevance_score": float(scores[index])}
        if fields.return_documents:
            one["document"] = {"text": fields.documents[index]}
        results.append(one)
    return JSONResponse({"model": fields.model, "results": results} | usage_of(tokens, n_cut))


async def _fits(loaded: Loaded, fields: RerankFields, request: Request) -> tuple[Any, int, int]:
    """How well each document fits, (N,); the tokens that were read; and how many were cut."""
    model = loaded.model
    task = model.task
    if task is None or not task.takes_texts or task.has_language_head:
        cut = fields.truncate
        asked, n_cut = await vectors_of(loaded, [fields.query], request, truncate=cut, of="query")
        found, more = await vectors_of(
            loaded, fields.documents, request, truncate=cut, of="document"
        )
        query, tokens = asked[0]
        vectors = np.stack([each for each, _ in found])
        norms = np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(query), 1e-12)
        cosines = vectors @ query / norms
        return cosines, tokens + sum(count for _, count in found), n_cut + more
    if model.pairs is False:
        what = f"The model '{fields.model}' does not score pairs of texts"
        raise ApiError(400, what, param="model", code="model_not_supported")

    def score(pairs: list[Any]) -> list[tuple[Any, int]]:
        shown = model.predict(pairs, top=None)
        return list(zip(shown, n_tokens(model, pairs), strict=True))

    pairs = [(fields.query, document) for document in fields.documents]
    answers, n_cut = await apply_together(
        loaded, ("score",), score, pairs, request, truncate=fields.truncate
    )
    if any(each is None or len(each) != 1 for each, _ in answers):
        what = f"The model '{fields.model}' has several labels and no single score"
        raise ApiError(400, what, param="model", code="model_not_supported")
    scores = np.asarray([each[0]["score"] for each, _ in answers])
    return scores, sum(count for _, count in answers), n_cut

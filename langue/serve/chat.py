"""`/v1/chat/completions`: takes a conversation; returns the answer, complete or as a stream."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from langue.generation.request import Completion
from langue.serve.answering import STREAMED, answer
from langue.serve.api_errors import FORMS, ApiError
from langue.serve.conversation import (
    Tools,
    as_template_has_them,
    check_template,
    encode,
    rendered,
    template_variables,
)
from langue.serve.fields import ChatFields
from langue.serve.models import Loaded
from langue.serve.sse import DONE, event
from langue.serve.thinking import Thinking
from langue.serve.writing import Answers, Asked

router = APIRouter()


@router.post("/v1/chat/completions", responses=STREAMED)
async def chat_completions(fields: ChatFields, request: Request) -> Response:
    """Answer a conversation, using the model's own chat template."""
    fields.check_stream()
    return await answer(fields, request, _Chat)


class _Chat:
    """The work of one call."""

    def __init__(self, fields: ChatFields, loaded: Loaded, answers: Answers) -> None:
        self.fields = fields
        self.loaded = loaded
        self.answers = answers
        self.tools = Tools(fields.tools, fields.tool_choice, fields.parallel_tool_calls)
        self.thinking = Thinking(loaded.thought_marks)
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": fields.model,
        }
        self.thought_tokens = 0
        if fields.top_logprobs is not None and not fields.logprobs:
            what = "'top_logprobs' needs logprobs=true"
            raise ApiError(400, what, param="top_logprobs", code="invalid_value")

    async def start(self) -> None:
        """Queue the call; raise ApiError if it cannot be answered."""
        fields = self.fields
        must_write(self.loaded)
        check_template(self.loaded, self.tools.may_call)
        messages = as_template_has_them(fields.messages)
        tools = self.tools.for_template()
        options = fields.options()
        form = form_of(options, self.tools, fields.response_format)
        if form is not None:
            options["json_schema"] = form
        if any(name in options for name in FORMS):
            self.thinking.end()
        effort = fields.reasoning_effort
        kwargs = fields.chat_template_kwargs
        variables = template_variables(self.loaded, kwargs, effort, "reasoning_effort")
        if fields.logprobs:
            options["logprobs"] = fields.top_logprobs or 0

        def read(each: Any) -> list[int]:
            text = rendered(self.loaded, each, tools, variables=variables)
            self.thinking.begin(text)
            return encode(self.loaded.model.tokenizer, text)

        limit = fields.max_completion_tokens
        if limit is not None and fields.max_tokens not in (None, limit):
            what = "'max_tokens' and 'max_completion_tokens' differ; give one of them"
            raise ApiError(400, what, param="max_tokens", code="invalid_value")
        await self.answers.start(
            Asked(
                [messages],
                options,
                fields.n or 1,
                fields.seed,
                fields.max_tokens if limit is None else limit,
                limit_param="max_tokens" if limit is None else "max_completion_tokens",
                form_param=_form_param(self.tools, fields.response_format),
                encode=read,
            )
        )

    async def whole(self) -> dict[str, Any]:
        """Return all answers."""
        found = await self.answers.whole()
        choices = [self._choice(index, each) for index, each in enumerate(found)]
        head = {**self.head, "object": "chat.completion"}
        return {**head, "choices": choices, "usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        details = {"reasoning_tokens": self.thought_tokens}
        return {**self.answers.usage, "completion_tokens_details": details}

    def _count(self, answer: Completion) -> None:
        decode = self.loaded.model.tokenizer.decode
        self.thought_tokens += self.thinking.count(answer.tokens, decode)

    def _choice(self, index: int, answer: Completion) -> dict[str, Any]:
        self._count(answer)
        parted = self.thinking.part(answer.text)
        text, calls = self.tools.read(parted.text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        message["annotations"] = []
        if parted.thought:
            message["reasoning_content"] = parted.thought
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        logprobs = self._logprobs(answer.choices) if self.fields.logprobs else None
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": "tool_calls" if calls else answer.finish_reason,
        }

    def _logprobs(self, choices: Any) -> dict[str, Any]:
        return self.loaded.tokens.chat_logprobs(choices)

    async def events(self) -> AsyncIterator[str]:
        """Yield the answers as they are generated."""
        for index in range(self.fields.n or 1):
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
        texts: dict[int, str] = {}
        sent: dict[int, int] = {}
        thought: dict[int, int] = {}
        async for piece in self.answers.pieces():
            index = piece.index
            texts[index] = texts.get(index, "") + piece.delta.text
            parted = self.thinking.part(texts[index], is_whole=piece.completion is not None)
            text = parted.text
            known = thought.get(index, 0)
            if len(parted.thought) > known:
                thought[index] = len(parted.thought)
                yield self._chunk(index, {"reasoning_content": parted.thought[known:]})
            begin = sent.get(index, 0)
            end = max(begin, self.tools.free(text))
            calls: list[dict[str, Any]] = []
            if piece.completion is not None:
                self._count(piece.completion)
                rest, calls = self.tools.read(text)
                end = len(rest) if calls else len(text)
            logprobs = piece.delta.choices
            if end > begin or logprobs:
                sent[index] = max(begin, end)
                yield self._chunk(index, {"content": text[begin:end]}, logprobs)
            if piece.completion is not None:
                for place, each in enumerate(calls):
                    yield self._chunk(index, {"tool_calls": [{"index": place, **each}]})
                reason = "tool_calls" if calls else piece.completion.finish_reason
                yield self._chunk(index, {}, reason=reason)
        if self.fields.wants_usage:
            yield event(self._head() | {"choices": [], "usage": self._usage()})
        yield DONE

    def _head(self) -> dict[str, Any]:
        return {**self.head, "object": "chat.completion.chunk"}

    def _chunk(
        self, index: int, delta: dict[str, Any], choices: Any = (), reason: str | None = None
    ) -> str:
        logprobs = self._logprobs(choices) if choices else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event(self._head() | {"choices": [choice]})


def _form_param(tools: Tools, asked: Any) -> str | None:
    if tools.must_call:
        return "tools"
    return None if asked is None else "response_format"


def must_write(loaded: Loaded) -> None:
    """Raise ApiError unless the model can generate text."""
    if not loaded.writes and loaded.worker.room == 0:
        what = f"The model '{loaded.id}' does not generate text; use the route for its task"
        raise ApiError(400, what, param="model", code="model_not_supported")


def form_of(options: dict[str, Any], tools: Tools, asked: Any) -> dict[str, Any] | None:
    """Return the schema that constrains the answer; raise ApiError if two are requested."""
    schema: dict[str, Any] | None = None if asked is None else asked.schema_asked()
    forced = tools.schema()
    own = [name for name in FORMS if name in options]
    if forced is not None and (schema is not None or own):
        what = "'tool_choice' requires a call, and another output format is requested too; give one"
        raise ApiError(400, what, param="tool_choice", code="invalid_value")
    if schema is not None and own:
        what = f"'response_format' and '{own[0]}' are given together; give one"
        raise ApiError(400, what, param="response_format", code="invalid_value")
    return forced if forced is not None else schema

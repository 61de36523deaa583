"""`/v1/responses`, OpenAI's newer conversation API: takes input items; returns output items,
complete or as events. Nothing is stored.
"""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from langue.generation.request import Completion
from langue.serve.answering import STREAMED, answer
from langue.serve.api_errors import ApiError
from langue.serve.chat import form_of, must_write
from langue.serve.conversation import (
    as_template_has_them,
    check_template,
    encode,
    rendered,
    template_variables,
)
from langue.serve.models import Loaded
from langue.serve.response_fields import FunctionTool, NamedTool, ResponseFields
from langue.serve.sse import event
from langue.serve.thinking import Thinking
from langue.serve.writing import Answers, Asked

router = APIRouter()
LOGPROBS = "message.output_text.logprobs"  # of `include`


@router.post("/v1/responses", responses=STREAMED)
async def responses(fields: ResponseFields, request: Request) -> Response:
    """Answer a conversation that is sent in full."""
    return await answer(fields, request, _Response, done=False)


class _Response:
    """The work of one call."""

    def __init__(self, fields: ResponseFields, loaded: Loaded, answers: Answers) -> None:
        self.fields = fields
        self.loaded = loaded
        self.answers = answers
        self.tools = fields.chosen_tools()
        self.form = None if fields.text is None else fields.text.format
        included = fields.include or ()
        self.wants_logprobs = LOGPROBS in included or fields.top_logprobs is not None
        self.created = int(time.time())
        self.id = f"resp_{secrets.token_hex(16)}"
        self.message_id = f"msg_{secrets.token_hex(16)}"
        self.thought_id = f"rs_{secrets.token_hex(16)}"
        self.thinking = Thinking(loaded.thought_marks)
        self._number = -1

    async def start(self) -> None:
        """Queue the call; raise ApiError if it cannot be answered."""
        must_write(self.loaded)
        check_template(self.loaded, self.tools.may_call)
        fields = self.fields
        messages = as_template_has_them(fields.conversation())
        tools = self.tools.for_template()
        options = {
            name: getattr(fields, name)
            for name in ("temperature", "top_p")
            if getattr(fields, name) is not None
        }
        form = form_of(options, self.tools, self.form)
        if form is not None:
            options["json_schema"] = form
            self.thinking.end()
        effort = None if fields.reasoning is None else fields.reasoning.effort
        variables = template_variables(self.loaded, None, effort, "reasoning.effort")
        if self.wants_logprobs:
            options["logprobs"] = fields.top_logprobs or 0

        def read(each: Any) -> list[int]:
            text = rendered(self.loaded, each, tools, variables=variables)
            self.thinking.begin(text)
            return encode(self.loaded.model.tokenizer, text)

        asked = Asked(
            [messages],
            options,
            max_tokens=fields.max_output_tokens,
            param="input",
            limit_param="max_output_tokens",
            form_param="tools" if self.tools.must_call else "text.format",
            encode=read,
        )
        await self.answers.start(asked)

    async def whole(self) -> dict[str, Any]:
        """Return the complete answer."""
        (answer,) = await self.answers.whole()
        return self._body(answer)

    def _body(self, answer: Completion | None) -> dict[str, Any]:
        """Return the response object in its current state; answer is None at the start."""
        fields = self.fields
        is_cut = answer is not None and answer.finish_reason == "length"
        status = "incomplete" if is_cut else "completed"
        if answer is None:
            status = "in_progress"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": None if answer is None else int(time.time()),
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": fields.instructions,
            "max_output_tokens": fields.max_output_tokens,
            "model": fields.model,
            "output": [] if answer is None else self._items(answer),
            "parallel_tool_calls": not self.tools.is_single,
            "previous_response_id": None,
            "store": False,
            "temperature": self.answers.sampling.temperature,
            "text": {"format": self._format()},
            "tool_choice": self._choice(),
            "tools": [self._tool(each) for each in fields.tools or ()],
            "top_p": self.answers.sampling.top_p,
            "top_logprobs": fields.top_logprobs or 0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "background": False,
            "max_tool_calls": None,
            "prompt_cache_key": fields.prompt_cache_key,
            "reasoning": None if fields.reasoning is None else fields.reasoning.model_dump(),
            "safety_identifier": fields.safety_identifier,
            "service_tier": "default",
            "truncation": "disabled",
            "metadata": fields.metadata or {},
            "usage": None if answer is None else self._usage(answer),
        }

    def _usage(self, answer: Completion) -> dict[str, Any]:
        usage = self.answers.usage
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {
                "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
                "cache_write_tokens": 0,
            },
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": self._thought_tokens(answer)},
            "total_tokens": usage["total_tokens"],
        }

    def _thought_tokens(self, answer: Completion) -> int:
        return self.thinking.count(answer.tokens, self.loaded.model.tokenizer.decode)

    def _format(self) -> dict[str, Any]:
        if self.form is None:
            return {"type": "text"}
        if self.form.type != "json_schema":
            return {"type": self.form.type}
        return self.form.model_dump(by_alias=True, exclude_none=True)

    def _choice(self) -> Any:
        choice = self.fields.tool_choice
        return choice.model_dump() if isinstance(choice, NamedTool) else choice or "auto"

    def _tool(self, tool: FunctionTool) -> dict[str, Any]:
        return {"parameters": None, "strict": None, **tool.model_dump(exclude_none=True)}

    def _items(self, answer: Completion) -> list[dict[str, Any]]:
        parted = self.thinking.part(answer.text)
        text, calls = self.tools.read(parted.text)
        status = "incomplete" if answer.finish_reason == "length" else "completed"
        items = []
        if parted.thought:
            ended = status if parted.thinks else "completed"
            items.append(self._thought_item([_thought_part(parted.thought)], ended))
        if text or not calls and not parted.thinks:
            items.append(self._message([self._part(text, answer.choices)], status))
        for call in calls:
            items.append(
                {
                    "id": f"fc_{secrets.token_hex(16)}",
                    "type": "function_call",
                    "call_id": call["id"],
                    "status": "completed",
                    **call["function"],
                }
            )
        return items

    def _message(self, content: list[Any], status: str) -> dict[str, Any]:
        head = {"id": self.message_id, "type": "message", "role": "assistant"}
        return {**head, "status": status, "content": content}

    def _thought_item(self, content: list[Any], status: str) -> dict[str, Any]:
        head = {"id": self.thought_id, "type": "reasoning", "summary": []}
        return {**head, "status": status, "content": content}

    def _part(self, text: str, choices: Any = ()) -> dict[str, Any]:
        return {
            "type": "output_text",
            "text": text,
            "annotations": [],
            "logprobs": self._logprobs(choices),
        }

    def _logprobs(self, choices: Any) -> list[Any]:
        if not self.wants_logprobs:
            return []
        found: list[Any] = self.loaded.tokens.chat_logprobs(choices)["content"]
        return found

    async def events(self) -> AsyncIterator[str]:
        """Yield the answer as events."""
        yield self._event("created", response=self._body(None))
        yield self._event("in_progress", response=self._body(None))
        text = ""
        answer: Completion | None = None
        thought = _Growing(self._event, self._thought_item([], "in_progress"), _thought_part(""))
        message = _Growing(self._event, self._message([], "in_progress"), self._part(""))
        try:
            async for piece in self.answers.pieces():
                text += piece.delta.text
                answer = piece.completion
                if answer is not None:
                    break
                parted = self.thinking.part(text, is_whole=False)
                for each in thought.grow(0, parted.thought):
                    yield each
                free = parted.text[: self.tools.free(parted.text)]
                logprobs = self._logprobs(piece.delta.choices)
                place = 1 if thought.has_begun else 0
                for each in message.grow(place, free, logprobs=logprobs):
                    yield each
        except ApiError as error:
            body = self._body(None) | {"status": "failed"}
            body["error"] = {"code": "server_error", "message": error.message}
            yield self._event("failed", response=body)
            return
        assert answer is not None
        body = self._body(answer)
        for index, item in enumerate(body["output"]):
            if item["type"] == "function_call":
                told = self._called(index, item)
            elif item["type"] == "reasoning":
                told = thought.end(index, item)
            else:
                logprobs = self._logprobs(piece.delta.choices)
                told = message.end(index, item, logprobs=logprobs)
            for each in told:
                yield each
        yield self._event(body["status"], response=body)

    def _event(self, kind: str, /, **data: Any) -> str:
        self._number += 1
        kind = f"response.{kind}"
        return event({"type": kind, "sequence_number": self._number, **data}, kind)

    def _called(self, index: int, item: dict[str, Any]) -> list[str]:
        """Return the events of a function call, which is sent at once."""
        place = {"item_id": item["id"], "output_index": index}
        begun = item | {"arguments": "", "status": "in_progress"}
        written = item["arguments"]
        name = "function_call_arguments"
        return [
            self._event("output_item.added", output_index=index, item=begun),
            self._event(f"{name}.delta", **place, delta=written),
            self._event(f"{name}.done", **place, arguments=written, name=item["name"]),
            self._event("output_item.done", output_index=index, item=item),
        ]


def _thought_part(text: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": text}


class _Growing:
    """An output item whose only part is a text that arrives in pieces."""

    def __init__(self, event: Callable[..., str], item: dict[str, Any], part: dict[str, Any]):
        """item, part: their initial state, without text."""
        self.event = event
        self.item = item
        self.part = part
        self.sent = 0
        self.has_begun = False

    def _place(self, index: int) -> dict[str, Any]:
        return {"item_id": self.item["id"], "output_index": index, "content_index": 0}

    def _begin(self, index: int) -> list[str]:
        """Announce the item and its part, once."""
        if self.has_begun:
            return []
        self.has_begun = True
        return [
            self.event("output_item.added", output_index=index, item=self.item),
            self.event("content_part.added", **self._place(index), part=self.part),
        ]

    def grow(self, index: int, text: str, **more: Any) -> list[str]:
        """Return the events for the new part of the text.

        index: position of the item in the output.
        """
        if len(text) <= self.sent:
            return []
        told = self._begin(index)
        delta = text[self.sent :]
        self.sent = len(text)
        name = f"{self.part['type']}.delta"
        more = {key: value for key, value in more.items() if key in self.part}
        return [*told, self.event(name, **self._place(index), delta=delta, **more)]

    def end(self, index: int, item: dict[str, Any], **more: Any) -> list[str]:
        """Return the events that complete the item."""
        (part,) = item["content"]
        place = self._place(index)
        whole = {key: value for key, value in part.items() if key in ("text", "logprobs")}
        return [
            *self.grow(index, part["text"], **more),
            *self._begin(index),
            self.event(f"{part['type']}.done", **place, **whole),
            self.event("content_part.done", **place, part=part),
            self.event("output_item.done", output_index=index, item=item),
        ]

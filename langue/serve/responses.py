"""What arrives: input at `/v1/responses`, OpenAI's newer form of a conversation. What leaves: the
items that are answered, whole or as events; nothing of them is kept here.
"""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from langue.generation.request import Completion
from langue.serve.answering import STREAMED, answer
from langue.serve.api_errors import ApiError
from langue.serve.chat import form_of, must_write
from langue.serve.conversation import as_template_has_them, check_template, encode
from langue.serve.models import Loaded
from langue.serve.response_fields import FunctionTool, NamedTool, ResponseFields
from langue.serve.sse import event
from langue.serve.writing import Answers, Asked

router = APIRouter()
LOGPROBS = "message.output_text.logprobs"  # of `include`


@router.post("/v1/responses", responses=STREAMED)
async def responses(fields: ResponseFields, request: Request) -> Response:
    """Answer a conversation that is sent whole."""
    return await answer(fields, request, _Response, done=False)


class _Response:
    """One call."""

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
        self._number = -1

    async def start(self) -> None:
        """Queue it. ApiError where it cannot be answered."""
        must_write(self.loaded)
        check_template(self.loaded.model, self.tools.may_call)
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
        if self.wants_logprobs:
            options["logprobs"] = fields.top_logprobs or 0
        tokenizer = self.loaded.model.tokenizer
        asked = Asked(
            [messages],
            options,
            max_tokens=fields.max_output_tokens,
            param="input",
            limit_param="max_output_tokens",
            form_param="tools" if self.tools.must_call else "text.format",
            encode=lambda each: encode(tokenizer, each, tools),
        )
        await self.answers.start(asked)

    async def whole(self) -> dict[str, Any]:
        """The answer."""
        (answer,) = await self.answers.whole()
        return self._body(answer)

    def _body(self, answer: Completion | None) -> dict[str, Any]:
        """The response as it stands; None: it has only begun."""
        fields = self.fields
        is_cut = answer is not None and answer.finish_reason == "length"
        status = "in_progress" if answer is None else "incomplete" if is_cut else "completed"
        usage = self.answers.usage
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
            "reasoning": None,
            "safety_identifier": fields.safety_identifier,
            "service_tier": "default",
            "truncation": "disabled",
            "metadata": fields.metadata or {},
            "usage": None
            if answer is None
            else {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {
                    "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
                    "cache_write_tokens": 0,
                },
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
        }

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
        text, calls = self.tools.read(answer.text)
        status = "incomplete" if answer.finish_reason == "length" else "completed"
        items = []
        if text or not calls:
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
        """What is answered, as it comes."""
        yield self._event("created", response=self._body(None))
        yield self._event("in_progress", response=self._body(None))
        text = ""
        sent = 0
        answer: Completion | None = None
        try:
            async for piece in self.answers.pieces():
                text += piece.delta.text
                answer = piece.completion
                rest, calls = self.tools.read(text) if answer is not None else (text, [])
                end = len(rest) if answer is not None else self.tools.free(text)
                if end > sent:
                    if not sent:
                        for each in self._begin():
                            yield each
                    logprobs = self._logprobs(piece.delta.choices)
                    yield self._of_text("delta", delta=text[sent:end], logprobs=logprobs)
                    sent = end
        except ApiError as error:
            body = self._body(None) | {"status": "failed"}
            body["error"] = {"code": "server_error", "message": error.message}
            yield self._event("failed", response=body)
            return
        assert answer is not None
        body = self._body(answer)
        for index, item in enumerate(body["output"]):
            if item["type"] == "message":
                for each in self._end(item, has_begun=sent > 0):
                    yield each
            else:
                for each in self._called(index, item):
                    yield each
        yield self._event(body["status"], response=body)

    def _event(self, kind: str, /, **data: Any) -> str:
        self._number += 1
        kind = f"response.{kind}"
        return event({"type": kind, "sequence_number": self._number, **data}, kind)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.message_id, "output_index": 0, "content_index": 0}

    def _of_text(self, name: str, **data: Any) -> str:
        return self._event(f"output_text.{name}", **self._place(), **data)

    def _begin(self) -> list[str]:
        """The message and its one part are announced."""
        item = self._message([], "in_progress")
        return [
            self._event("output_item.added", output_index=0, item=item),
            self._event("content_part.added", **self._place(), part=self._part("")),
        ]

    def _end(self, item: dict[str, Any], has_begun: bool) -> list[str]:
        """The message is whole."""
        part = item["content"][0]
        told = [] if has_begun else self._begin()
        return [
            *told,
            self._of_text("done", text=part["text"], logprobs=part["logprobs"]),
            self._event("content_part.done", **self._place(), part=part),
            self._event("output_item.done", output_index=0, item=item),
        ]

    def _called(self, index: int, item: dict[str, Any]) -> list[str]:
        """A call of a function, which is told at once."""
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

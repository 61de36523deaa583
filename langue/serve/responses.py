"""What arrives: input at `/v1/responses`, OpenAI's newer form of a conversation. What leaves: the
items that are answered, whole or as events; nothing of them is kept here.
"""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field

from langue.generation.request import Completion
from langue.serve.answering import STREAMED, answer
from langue.serve.api_errors import ApiError
from langue.serve.chat import form_of, must_write
from langue.serve.conversation import Tools, as_template_has_them, check_template, encode
from langue.serve.fields import (
    LABELS,
    MOST_LOGPROBS,
    Bool,
    CalledFunction,
    Count,
    Fields,
    FunctionFields,
    MessageFields,
    NamedFunction,
    Refused,
    SchemaFields,
    Text,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolFields,
)
from langue.serve.models import Loaded
from langue.serve.sse import event
from langue.serve.writing import Answers, Asked

router = APIRouter()


class InputMessage(Fields):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    refused: ClassVar[Refused] = {
        "phase": ((), "leave it out"),
    }
    id: str | None = None
    status: str | None = None


class InputCall(Fields):
    """A call of a function that the model made before."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: Text
    id: str | None = None
    status: str | None = None


class InputOutput(Fields):
    """What a function gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: Text | list[TextPart]
    id: str | None = None
    status: str | None = None


class FunctionTool(FunctionFields):
    """A function, as this route has it."""

    type: Literal["function"]


class NamedTool(Fields):
    """The one tool that must be called."""

    type: Literal["function"]
    name: str


class Format(SchemaFields):
    """What form the answer has."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"

    def schema_asked(self) -> dict[str, Any] | None:
        """What the answer must be; None where it is free."""
        if self.type == "text":
            return None
        if self.type == "json_object" or self.schema_ is None:
            return {"type": "object"}
        return self.schema_


class TextFields(Fields):
    """Of the text that is answered."""

    format: Format | None = None
    refused: ClassVar[Refused] = {
        "verbosity": (("medium",), "say in the instructions how long an answer is to be"),
    }


class ResponseStreamOptions(Fields):
    """What is told in a stream beside the text."""

    refused: ClassVar[Refused] = {"include_obfuscation": ((False,), "streams are not padded")}


class ResponseFields(Fields):
    """`POST /v1/responses`."""

    model: str
    input: Text | Annotated[list[InputMessage | InputCall | InputOutput], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS, strict=True)] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: TextFields | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: Bool | None = None
    stream: Bool | None = None
    stream_options: ResponseStreamOptions | None = None
    metadata: dict[str, str] | None = Field(default=None, description=LABELS)
    user: str | None = Field(default=None, description=LABELS)
    safety_identifier: str | None = Field(default=None, description=LABELS)
    prompt_cache_key: str | None = Field(default=None, description="beginnings are found anyway")
    # nothing is kept of a call, which clients that send null or nothing do not know
    refused: ClassVar[Refused] = {
        "access_programs": (([],), "leave it out"),
        "background": ((False,), "wait for the answer, or stream it"),
        "background_options": ((), "wait for the answer, or stream it"),
        "context_management": (([],), "send what is to be read"),
        "conversation": ((), "nothing is kept of a call: send all items as input"),
        "image": ((), "models here write text only"),
        "max_tool_calls": ((), "functions are called by the client"),
        "moderation": ((), "leave it out"),
        "previous_response_id": ((), "nothing is kept of a call: send all items as input"),
        "prompt": ((), "no prompts are kept here: send it as input"),
        "prompt_cache_options": ((), "beginnings are kept as long as there is room"),
        "prompt_cache_retention": (
            ("in_memory", "in-memory"),
            "beginnings are kept as long as there is room",
        ),
        "reasoning": (({},), "say in the instructions how to think"),
        "service_tier": (("auto", "default"), "all calls are served alike"),
        "store": ((False,), "nothing is kept of a call"),
        "truncation": (("disabled",), "shorten the input"),
    }

    def conversation(self) -> list[MessageFields]:
        """The input as messages."""
        found = []
        if self.instructions is not None:
            found.append(MessageFields(role="system", content=self.instructions))
        if isinstance(self.input, str):
            return [*found, MessageFields(role="user", content=self.input)]
        for item in self.input:
            if isinstance(item, InputCall):
                called = CalledFunction(name=item.name, arguments=item.arguments)
                call = ToolCall(id=item.call_id, type="function", function=called)
                last = found[-1] if found else None
                if last is not None and last.tool_calls:  # made together
                    last.tool_calls.append(call)
                else:
                    found.append(MessageFields(role="assistant", tool_calls=[call]))
            elif isinstance(item, InputOutput):
                call_id = item.call_id
                found.append(MessageFields(role="tool", tool_call_id=call_id, content=item.output))
            else:
                found.append(MessageFields(role=item.role, content=item.content))
        return found

    def chosen_tools(self) -> Tools:
        """The tools, and what is said of their use."""
        given = [
            ToolFields(
                type="function",
                function=FunctionFields(**each.model_dump(exclude={"type"}, exclude_none=True)),
            )
            for each in self.tools or ()
        ]
        choice: Any = self.tool_choice
        if isinstance(choice, NamedTool):
            choice = ToolChoice(type="function", function=NamedFunction(name=choice.name))
        return Tools(given, choice, self.parallel_tool_calls)


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
        self.wants_logprobs = bool(fields.include) or fields.top_logprobs is not None
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
            "temperature": fields.temperature,
            "text": {"format": self._format()},
            "tool_choice": self._choice(),
            "tools": [self._tool(each) for each in fields.tools or ()],
            "top_p": fields.top_p,
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

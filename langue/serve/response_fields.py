"""The fields of `/v1/responses`, supported and unsupported."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from langue.serve.conversation import Tools
from langue.serve.fields import (
    EARLIER,
    LABELS,
    MOST_LOGPROBS,
    WHOLE,
    Bool,
    CalledFunction,
    Count,
    Effort,
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


class InputMessage(Fields):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    phase: Literal["commentary", "final_answer"] | None = Field(default=None, description=LABELS)
    id: str | None = None
    status: str | None = None


class InputCall(Fields):
    """An earlier function call of the model."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: Text
    id: str | None = None
    status: str | None = None


class InputOutput(Fields):
    """The result of a function call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Text | list[TextPart]
    id: str | None = None
    status: str | None = None


class SummaryText(Fields):
    """A part of a summary of reasoning."""

    type: Literal["summary_text"]
    text: Text


class ThoughtText(Fields):
    """A part of reasoning."""

    type: Literal["reasoning_text"]
    text: Text


class InputThought(Fields):
    """Earlier reasoning of the model."""

    type: Literal["reasoning"]
    content: list[ThoughtText] | None = Field(default=None, description=EARLIER)
    summary: list[SummaryText] | None = Field(
        default=None, description="reasoning is returned in full"
    )
    id: str | None = None
    status: str | None = None
    refused: ClassVar[Refused] = {"encrypted_content": (("",), "send the content instead")}


class Reasoning(Fields):
    """Settings of the reasoning."""

    effort: Effort | None = None
    refused: ClassVar[Refused] = {
        "context": (("auto",), "the chat template decides which reasoning it reads"),
        "generate_summary": ((), "reasoning is returned in full"),
        "mode": (("standard",), "there is only one mode"),
        "summary": ((), "reasoning is returned in full"),
    }


class FunctionTool(FunctionFields):
    """A function, in the format of this route."""

    type: Literal["function"]


class NamedTool(Fields):
    """The one tool that must be called."""

    type: Literal["function"]
    name: str


class Format(SchemaFields):
    """The format of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"

    def schema_asked(self) -> dict[str, Any] | None:
        """Return the schema of the answer; None if it is free text."""
        if self.type == "text":
            return None
        if self.type == "json_object" or self.schema_ is None:
            return {"type": "object"}
        return self.schema_


class TextFields(Fields):
    """Settings of the answer's text."""

    format: Format | None = None
    refused: ClassVar[Refused] = {
        "verbosity": (("medium",), "ask for the length in the instructions"),
    }


class ResponseStreamOptions(Fields):
    """What a stream contains in addition to the text."""

    refused: ClassVar[Refused] = {"include_obfuscation": ((False,), "streams are not padded")}


InputItem = InputMessage | InputCall | InputOutput | InputThought


class ResponseFields(Fields):
    """`POST /v1/responses`."""

    model: str
    input: Text | Annotated[list[InputItem], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS, strict=True), WHOLE] | None = None
    # reasoning is always returned in full, so including it changes nothing
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    reasoning: Reasoning | None = None
    text: TextFields | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: Bool | None = None
    stream: Bool | None = None
    stream_options: ResponseStreamOptions | None = None
    metadata: dict[str, str] | None = Field(default=None, description=LABELS)
    user: str | None = Field(default=None, description=LABELS)
    safety_identifier: str | None = Field(default=None, description=LABELS)
    prompt_cache_key: str | None = Field(
        default=None, description="cached prefixes are reused anyway"
    )
    # the server stores nothing; clients that send null or leave the field out are not told
    refused: ClassVar[Refused] = {
        "access_programs": (([],), "leave it out"),
        "background": ((False,), "wait for the answer or stream it"),
        "background_options": ((), "wait for the answer or stream it"),
        "context_management": (([],), "send only the items that the model should read"),
        "conversation": ((), "the server stores nothing: send all items as input"),
        "image": ((), "the models here write text only"),
        "max_tool_calls": ((), "the client calls the functions"),
        "moderation": ((), "leave it out"),
        "previous_response_id": ((), "the server stores nothing: send all items as input"),
        "prompt": ((), "no prompts are stored here: send it as input"),
        "prompt_cache_options": ((), "prefixes stay cached as long as there is room"),
        "prompt_cache_retention": (
            ("in_memory", "in-memory"),
            "prefixes stay cached as long as there is room",
        ),
        "service_tier": (("auto", "default"), "all requests are served alike"),
        "store": ((False,), "the server stores nothing"),
        "truncation": (("disabled",), "shorten the input"),
    }

    def conversation(self) -> list[MessageFields]:
        """Return the input as messages."""
        found = []
        if self.instructions is not None:
            found.append(MessageFields(role="system", content=self.instructions))
        if isinstance(self.input, str):
            return [*found, MessageFields(role="user", content=self.input)]
        thought = None
        for item in self.input:
            before = len(found)
            if isinstance(item, InputThought):
                thought = "".join(part.text for part in item.content or ()) or None
            elif isinstance(item, InputCall):
                called = CalledFunction(name=item.name, arguments=item.arguments)
                call = ToolCall(id=item.call_id, type="function", function=called)
                last = found[-1] if found else None
                if last is not None and last.tool_calls:  # parallel calls of one turn
                    last.tool_calls.append(call)
                else:
                    found.append(MessageFields(role="assistant", tool_calls=[call]))
            elif isinstance(item, InputOutput):
                call_id = item.call_id
                found.append(MessageFields(role="tool", tool_call_id=call_id, content=item.output))
            else:
                found.append(MessageFields(role=item.role, content=item.content))
            if thought is not None and len(found) > before and found[-1].role == "assistant":
                found[-1].reasoning_content = thought
                thought = None
        return found

    def chosen_tools(self) -> Tools:
        """Return the tools, and the constraints on their use."""
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

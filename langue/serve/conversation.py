"""Conversations: takes messages and tools in OpenAI's format; returns the prompt tokens, rendered
by the model's chat template, and extracts tool calls from answers.

Models write tool calls in different formats. These are recognised: `<tool_call>{...}</tool_call>`
(Hermes, Qwen), a list after `[TOOL_CALLS]` (Mistral), and an answer that is nothing but the JSON of
a call of a known function (Llama 3). A required call is generated under a JSON Schema, and cannot
be anything else.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from langue.errors import LangueError
from langue.serve.api_errors import ApiError
from langue.serve.fields import MessageFields, TextPart, ToolChoice, ToolFields
from langue.serve.models import Loaded
from langue.text.tokenizers.tokenizer import Tokenizer

MARKS = ("<tool_call>", "[TOOL_CALLS]")
CLOSING = "</tool_call>"
# variables that the template gets from other fields
OWN_VARIABLES = ("messages", "tools", "documents", "add_generation_prompt")


def plain_text(content: str | Sequence[TextPart] | None) -> str:
    """Return the text of a message's parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


def as_template_has_them(messages: Sequence[MessageFields]) -> list[dict[str, Any]]:
    """Return the messages in the form that chat templates expect: `developer` becomes `system`,
    parts become one text, and arguments of tool calls become objects.

    Raises ApiError with the invalid field.
    """
    out = []
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        role = "system" if message.role == "developer" else message.role
        if message.content is None and not message.tool_calls:
            what = f"'{where}.content' is missing"
            raise ApiError(400, what, param=f"{where}.content", code="missing_required_parameter")
        if message.tool_calls is not None and role != "assistant":
            what = f"'{where}.tool_calls' is allowed only in messages of the assistant"
            raise ApiError(400, what, param=f"{where}.tool_calls", code="invalid_value")
        if (message.tool_call_id is not None) != (role == "tool"):
            what = (
                f"'{where}.tool_call_id' must be in each message of the role tool, and only there"
            )
            raise ApiError(400, what, param=f"{where}.tool_call_id", code="invalid_value")
        if message.reasoning_content is not None and role != "assistant":
            what = f"'{where}.reasoning_content' is allowed only in messages of the assistant"
            raise ApiError(400, what, param=f"{where}.reasoning_content", code="invalid_value")
        made: dict[str, Any] = {"role": role, "content": plain_text(message.content)}
        if message.reasoning_content:
            made["reasoning_content"] = message.reasoning_content
        if message.name is not None:
            made["name"] = message.name
        if message.tool_call_id is not None:
            made["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            made["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": _arguments(call.function.arguments, where),
                    },
                }
                for call in message.tool_calls
            ]
        out.append(made)
    return out


def _arguments(text: str, where: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        what = f"'{where}.tool_calls': the arguments of a call are not a JSON object"
        raise ApiError(400, what, param=f"{where}.tool_calls", code="invalid_value")
    return found


def check_template(loaded: Loaded, tools: bool) -> None:
    """Raise ApiError if the model has no chat template, or one without tools."""
    template = loaded.template
    if template is None:
        what = "The model has no chat template; use /v1/completions, or a chat model"
        raise ApiError(400, what, param="model", code="no_chat_template")
    if tools and "tools" not in template:
        what = (
            "The model's chat template does not support tools; leave them out, or use another model"
        )
        raise ApiError(400, what, param="tools", code="unsupported_parameter")


def template_variables(
    loaded: Loaded, given: Mapping[str, Any] | None, effort: str | None, param: str
) -> dict[str, Any]:
    """Return the template variables of a call in addition to its messages.

    effort: the reasoning effort, for templates that read it; `none` also works with templates that
    can disable thinking. param: the field with the effort. Raises ApiError if the template does not
    read a given variable.
    """
    template = loaded.template or ""
    found = dict(given or {})
    for name in found:
        where = "chat_template_kwargs"
        if name in OWN_VARIABLES or name not in template:
            what = f"'{where}': the model's chat template does not read {name[:100]!r}"
            raise ApiError(400, what, param=where, code="unsupported_parameter")
    if effort is None or effort == "none" and loaded.thought_marks is None:
        return found
    if "reasoning_effort" in template:
        return {"reasoning_effort": effort, **found}
    if effort == "none" and "enable_thinking" in template:
        return {"enable_thinking": False, **found}
    what = f"'{param}': the model's chat template has no reasoning effort; leave it out"
    raise ApiError(400, what, param=param, code="unsupported_parameter")


def rendered(
    loaded: Loaded,
    messages: Any,
    tools: Any,
    *,
    variables: Mapping[str, Any] | None = None,
    begins_answer: bool = True,
) -> str:
    """Render a conversation with the model's chat template."""
    try:
        text = loaded.model.tokenizer.chat(
            messages, begins_answer, tools=tools, variables=variables, templates=loaded.templates
        )
    except LangueError as error:
        raise ApiError(400, str(error), param="messages", code="invalid_value") from error
    loaded.check_size(text, "messages")
    return text


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a rendered conversation."""
    try:
        text.encode()
    except UnicodeEncodeError:
        what = "a text contains a lone surrogate"
        raise ApiError(400, what, param="messages", code="invalid_value") from None
    # the template has already written the special tokens
    ids: list[int] = tokenizer.backend.encode(text, add_special_tokens=False).ids
    return ids


class Tools:
    """The tools of one call, and the constraints on their use."""

    def __init__(
        self,
        tools: Sequence[ToolFields] | None,
        choice: str | ToolChoice | None,
        parallel: bool | None,
    ) -> None:
        """Raise ApiError if the chosen tool does not exist, or a name occurs twice."""
        self.given = list(tools or ())
        self.names = [tool.function.name for tool in self.given]
        self.is_single = parallel is False
        chosen = choice.function.name if isinstance(choice, ToolChoice) else None
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            what = f"'tools' has two functions named {twice}"
            raise ApiError(400, what, param="tools", code="invalid_value")
        if chosen is not None and chosen not in self.names:
            what = f"'tool_choice' names {chosen}, which is not among the tools"
            raise ApiError(400, what, param="tool_choice", code="invalid_value")
        if choice not in (None, "none") and not self.given:
            what = "'tool_choice' requires tools"
            raise ApiError(400, what, param="tool_choice", code="invalid_value")
        self.may_call = bool(self.given) and choice != "none"
        self.must_call = choice == "required" or chosen is not None
        self.allowed = [chosen] if chosen is not None else self.names

    def for_template(self) -> list[dict[str, Any]] | None:
        """Return the tools for the chat template; None if the model may not call any."""
        if not self.may_call:
            return None
        return [tool.model_dump(exclude_none=True) for tool in self.given]

    def schema(self) -> dict[str, Any] | None:
        """Return the schema of the answer if a tool must be called."""
        if not self.must_call:
            return None
        either = []
        for tool in self.given:
            if tool.function.name not in self.allowed:
                continue
            arguments = tool.function.parameters or {"type": "object"}
            either.append(
                {
                    "type": "object",
                    "properties": {"name": {"const": tool.function.name}, "arguments": arguments},
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                }
            )
        definitions: dict[str, Any] = {}
        for one in either:  # references in a schema are relative to its root
            inner = one["properties"]["arguments"]  # type: ignore[index]
            for key in ("$defs", "definitions"):
                if isinstance(inner, dict) and key in inner:
                    definitions.setdefault(key, {}).update(inner[key])
        return {"anyOf": either, **definitions} if len(either) > 1 else {**either[0], **definitions}

    def read(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """Split an answer into text and tool calls, in OpenAI's format."""
        if not self.may_call:
            return text, []
        before, calls = self._calls(text)
        if calls is None:
            return text, []
        made = [_call(name, arguments) for name, arguments in calls]
        return before, made[:1] if self.is_single else made

    def _calls(self, text: str) -> tuple[str, list[tuple[str, Any]] | None]:
        """Return the text before the calls, and the calls as (name, arguments); None if there are
        none.
        """
        for mark in MARKS:
            before, found, after = text.partition(mark)
            if not found:
                continue
            bodies = [part.replace(CLOSING, "").strip() for part in after.split(mark)]
            calls: list[tuple[str, Any]] = []
            for body in bodies:
                parsed = self._parsed(body)
                if parsed is None:
                    return text, None
                calls += parsed
            return before.rstrip(), calls
        return "", self._parsed(text.strip())

    def _parsed(self, body: str) -> list[tuple[str, Any]] | None:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return None
        calls = []
        for each in found if isinstance(found, list) else [found]:
            name = each.get("name") if isinstance(each, dict) else None
            if name not in self.names:
                return None
            arguments = each.get("arguments", each.get("parameters"))
            if not isinstance(arguments, dict):
                return None
            calls.append((name, arguments))
        return calls or None

    def free(self, text: str) -> int:
        """Return how many characters of the text so far cannot be part of a tool call, whatever
        follows.
        """
        if not self.may_call:
            return len(text)
        start = text.lstrip()
        if self.must_call or not start or start[0] in "{[":
            return 0
        for mark in MARKS:
            if mark in text:
                return len(text[: text.index(mark)].rstrip())
        longest = max(len(mark) for mark in MARKS) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(mark.startswith(text[-length:]) for mark in MARKS):
                return len(text[:-length].rstrip())
        return len(text.rstrip())


def _call(name: str, arguments: Any) -> dict[str, Any]:
    written = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": name, "arguments": written},
    }

"""Conversations from table rows: takes rows in any of the published layouts (messages, ShareGPT,
Alpaca, prompt and completion); returns checked `Conversation` objects whose messages have the form
that chat templates expect.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langue.errors import DataError
from langue.text.read.turns import message_of, without_null

if TYPE_CHECKING:
    from langue.text.read.source import Table

USER = "user"
ASSISTANT = "assistant"
# role names of ShareGPT and others, and the chat-template roles they stand for
ROLES = {
    "human": USER,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bot": ASSISTANT,
    "model": ASSISTANT,
    "observation": "tool",
    "function_response": "tool",
    "function_call": ASSISTANT,
}
KNOWN = ("system", "developer", USER, ASSISTANT, "tool", "function", "ipython")
BEFORE = ("system", "developer")  # roles that may precede the first user message
RESULTS = ("tool", "function", "ipython")  # the result of a tool call may be empty
# columns of the Alpaca layout and similar ones, which are parts of one conversation
PARTS = ("system", "history", "instruction", "input", "output", "prompt", "completion")
COLUMNS = ("messages", *PARTS, "tools")

Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    messages: list[Message]
    tools: list[Any] | None = None

    @property
    def prompt(self) -> list[Message]:
        """The messages before a final assistant turn, or all messages if the last one is not the
        assistant's.
        """
        if self.messages and self.messages[-1]["role"] == ASSISTANT:
            return self.messages[:-1]
        return self.messages

    @property
    def answers(self) -> list[Message]:
        return [message for message in self.messages if message["role"] == ASSISTANT]

    def as_text(self) -> str:
        """Return the conversation as plain text, for display and for finding duplicates."""
        return "\n".join(f"{each['role']}: {said_in(each)}" for each in self.messages)


def said_in(message: Mapping[str, Any]) -> str:
    """Return the content of a message, followed by its tool calls as JSON."""
    calls = message.get("tool_calls")
    said = str(message.get("content") or "")
    return said if not calls else f"{said}{json.dumps(calls, ensure_ascii=False)}"


def all_said(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the contents of all messages, without the role names, which the template adds."""
    return "\n".join(map(said_in, messages))


def rows_of(table: "Table", names: Sequence[str] = COLUMNS) -> list[dict[str, Any]]:
    """Return, for each row, the values of those of the given columns that the table has."""
    there = [name for name in names if name in table.rows.column_names]
    columns = [table.column(name) for name in there]
    return [dict(zip(there, row, strict=True)) for row in zip(*columns, strict=True)]


def read_conversation(
    row: Mapping[str, Any], where: Callable[[], str], *, answered: bool = True
) -> Conversation:
    """Return the conversation of a row.

    answered: require at least one assistant turn. Raises DataError if a model cannot learn from the
    row.
    """
    if "messages" in row:
        found = [message_of(turn) for turn in row["messages"] or ()]
        if any(not message["role"] for message in found):
            raise DataError(
                "the messages are one text, not a list of messages",
                where=where(),
                do='write them as [{"role": "user", "content": "..."}, ...]',
            )
    else:
        found = _messages_of_parts(row)
    messages = [_with_known_role(message, number, where) for number, message in enumerate(found, 1)]
    system = row.get("system")
    if system and str(system).strip() and not (messages and messages[0]["role"] in BEFORE):
        messages = [{"role": "system", "content": str(system)}, *messages]
    check_messages(messages, where, answered=answered)
    tools = row.get("tools")
    return Conversation(messages, None if tools is None else json.loads(tools))


def given_conversation(item: Any) -> Conversation:
    """Return the conversation that a user gives as input: a list of messages, a mapping with
    `messages` and `tools`, or one string as the user's message.
    """
    from langue.text.read.turns import tools, turns

    if isinstance(item, str):
        item = [{"role": USER, "content": item}]
    record = item if isinstance(item, Mapping) else {"messages": item}
    row = {
        "messages": turns(record.get("messages"), "messages", "the conversation"),
        "tools": tools(record.get("tools"), "tools", "the conversation"),
    }
    return read_conversation(row, lambda: "the conversation", answered=False)


def roles_renamed(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the roles in the rows that chat templates name differently, mapped to the template's
    names.
    """
    found = set()
    for row in rows:
        found |= {turn["role"].lower() for turn in row.get("messages") or ()}
    return {role: ROLES[role] for role in sorted(found) if role in ROLES}


def check_messages(
    messages: Sequence[Message], where: Callable[[], str], *, answered: bool
) -> None:
    """Raise DataError unless the messages form a valid conversation."""
    fill = "fill it in or take the row out (in training: data.invalid=drop)"
    if not messages:
        raise DataError("the conversation is empty", where=where(), do=fill)
    for number, message in enumerate(messages, 1):
        says = str(message.get("content", "")).strip() or message.get("tool_calls")
        if not says and message["role"] not in RESULTS:
            what = f"message {number} ({message['role']}) is empty"
            raise DataError(what, where=where(), do=fill)
    first = next((each["role"] for each in messages if each["role"] not in BEFORE), None)
    if first != USER:
        by = "begins with the " + first if first else "has nothing but the system's message"
        raise DataError(
            f"the conversation {by}, so that nothing is asked",
            where=where(),
            do="put the user's message before it, or take the row out (data.invalid=drop)",
        )
    if answered and all(message["role"] != ASSISTANT for message in messages):
        raise DataError(
            "the conversation has no turn of the assistant to learn",
            where=where(),
            do="add one, or take the row out (data.invalid=drop)",
        )


def _with_known_role(message: Message, number: int, where: Callable[[], str]) -> Message:
    """Return the message with its role renamed to the one that chat templates use."""
    said = message["role"].lower()
    role = ROLES.get(said, said)
    if role not in KNOWN:
        raise DataError(
            f"message {number} has the unknown role {message['role']!r}",
            where=where(),
            do=f"known are {', '.join((*KNOWN[:5], *ROLES))}; or take the row out"
            " (data.invalid=drop)",
        )
    if said == "function_call":
        return {"role": role, "tool_calls": _tool_calls(message, number, where)}
    return {**message, "role": role}


def _tool_calls(message: Message, number: int, where: Callable[[], str]) -> list[Any]:
    """Return the tool calls of a `function_call` turn, whose content is JSON, as in LLaMA-Factory's
    format.
    """
    try:
        found = json.loads(message.get("content", ""))
    except ValueError as error:
        raise DataError(
            f"message {number} (function_call) is not JSON: {error}", where=where()
        ) from None
    calls = found if isinstance(found, list) else [found]
    return [{"type": "function", "function": each} for each in calls]


def _messages_of_parts(row: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a prompt with its completion, or of Alpaca's columns."""
    if "prompt" in row:
        return [*as_messages(row["prompt"], USER), *as_messages(row.get("completion"), ASSISTANT)]
    found = []
    for pair in without_null(row.get("history") or []):
        found += _message_of_text(USER, pair[0]) + _message_of_text(ASSISTANT, pair[-1])
    asked = [row.get("instruction"), row.get("input")]
    parts = [str(each) for each in asked if each is not None and str(each).strip()]
    return [
        *found,
        *_message_of_text(USER, "\n\n".join(parts)),
        *_message_of_text(ASSISTANT, row.get("output")),
    ]


def as_messages(turns: Sequence[Mapping[str, Any]] | None, role: str) -> list[Message]:
    """Return turns as messages; a turn without a role gets the given one."""
    return [message_of({**turn, "role": turn["role"] or role}) for turn in turns or ()]


def _message_of_text(role: str, text: Any) -> list[Message]:
    return [] if text is None else [{"role": role, "content": str(text)}]

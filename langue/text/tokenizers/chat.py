"""Renders the messages of a conversation as the text that a model was trained to continue.

The format of roles and turns is specific to the model: a Jinja template in its
tokenizer_config.json or in chat_template.jinja. It is rendered in the same way as by
`transformers`, in the sandbox of `langue/text/sandbox.py`.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from langue.errors import DataError, ModelError
from langue.text.sandbox import TooLong, sandbox, written

PROBE = "qzxanswerxzq"  # a text that occurs in no template
TALK = ({"role": "user", "content": "question"}, {"role": "assistant", "content": PROBE})
Messages = Sequence[Mapping[str, Any]]


def template_of(folder: Path | None, options: Mapping[str, Any]) -> str | None:
    """Return the template of a model: chat_template.jinja, or the one in its tokenizer_config.json,
    of several named ones `default`.
    """
    if folder is not None and (file := folder / "chat_template.jinja").is_file():
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ModelError(
                f"cannot be read: {why}", where=str(file), do="fetch it again"
            ) from None
    found = options.get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def render(
    template: str | None,
    messages: Messages,
    *,
    tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
    tools: Sequence[Any] | None = None,
    marks: tuple[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
    where: str = "",
) -> str:
    """Return the conversation as one text, optionally followed by the generation prompt.

    tokens: the special tokens by the names that templates use, such as `bos_token`. tools: the
    functions that the model may call. marks: inserted around the parts that the template marks as
    written by the model (`{% generation %}`). variables: additional template variables, such as
    `enable_thinking`.
    """
    if template is None:
        raise ModelError(
            "the model has no chat template",
            where=where,
            do="give a text, or a model for conversation",
        )
    for index, message in enumerate(messages):
        says = isinstance(message, Mapping) and {"content", "tool_calls"} & message.keys()
        if not says or not isinstance(message.get("role"), str):
            raise DataError(
                f"message {index + 1} is not a role with content",
                do='{"role": "user", "content": "..."}',
            )
    known = {**(variables or {}), "messages": list(messages), "documents": None}
    known |= {"add_generation_prompt": add_generation_prompt, "tools": tools, **tokens}
    try:
        return written(_compiled(template, marks), known)
    except TooLong as error:
        raise ModelError(f"the chat template {error.what}", where=where) from None
    # a template is third-party code: any exception it raises is an error of the template
    except Exception as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"the chat template cannot be followed: {said}", where=where) from error


def end_of_turn(
    template: str | None, tokens: Sequence[str], special: Mapping[str, str]
) -> str | None:
    """Return the one of these tokens that the template writes directly after an answer.

    None if it writes none, or there is no template, or the template does not accept a question with
    its answer. special: the `tokens` of `render`.
    """
    if template is None:
        return None
    try:
        text = render(template, TALK, tokens=special, add_generation_prompt=False)
    except ModelError:  # then only the tokenizer's own end-of-text token is known
        return None
    _, found, after = text.rpartition(PROBE)
    fits = [token for token in tokens if token and found and after.lstrip().startswith(token)]
    return max(fits, key=len, default=None)


@lru_cache(maxsize=16)
def _compiled(template: str, marks: tuple[str, str] | None) -> Any:
    return _environment(marks).from_string(template)


def _environment(marks: tuple[str, str] | None) -> Any:
    """Return the environment with everything that templates on the Hub may call; marks: as in
    `render`.
    """
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols

    class Generation(Extension):
        """`{% generation %}` marks what the model wrote, for training; its content is rendered
        unchanged.
        """

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            inside = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            if marks is None:
                return inside
            before, after = (
                nodes.Output([nodes.TemplateData(mark)], lineno=line) for mark in marks
            )
            return [before, *inside, after]

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    environment = sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False} | options)

    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": refuse, "strftime_now": now}
    return environment

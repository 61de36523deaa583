"""What arrives: the messages of a conversation. What leaves: the text that a model was taught to go on from.

How roles and turns are marked is the model's own matter: a Jinja template in its tokenizer_config.json or in
chat_template.jinja, rendered as `transformers` renders it. A template comes with a model and is hostile until shown
otherwise: it runs in Jinja's sandbox, which reaches no attribute that could do harm and bounds ranges, and what it
writes is bounded here. How long it computes without writing is not.
"""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError, ModelError
from langue.files import read_json

MOST = 4_000_000  # characters of one conversation
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
Messages = Sequence[Mapping[str, Any]]


def template_in(folder: Path | None) -> str | None:
    """The template of a model folder; of several named ones, `default`."""
    if folder is None:
        return None
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text("utf-8")
    found = _config(folder).get("chat_template")
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def render(folder: Path, messages: Messages, *, add_generation_prompt: bool = True) -> str:
    """The conversation as one text; with the marks that begin an answer, where that is wished."""
    template = template_in(folder)
    if template is None:
        raise ModelError(
            "the model has no chat template", where=str(folder), do="give a text, or a model made for conversation"
        )
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise DataError(f"message {index + 1} is not a role with content", do='{"role": "user", "content": "..."}')
    config, out, size = _config(folder), list[str](), 0
    special = {name: _word(config[name]) for name in SPECIAL if config.get(name) is not None}
    from jinja2 import TemplateError

    try:
        compiled = _environment().from_string(template)
        parts = compiled.generate(messages=list(messages), add_generation_prompt=add_generation_prompt, **special)
        for part in parts:
            size += len(part)
            if size > MOST:
                raise ModelError(f"the chat template writes more than {MOST:,} characters", where=str(folder))
            out.append(part)
    except (TemplateError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ModelError(f"the chat template cannot be followed: {error}", where=str(folder)) from error
    return "".join(out)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    content = read_json(file) if file.is_file() else {}
    return content if isinstance(content, dict) else {}


def _word(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _environment() -> Any:
    """With what templates of the Hub may call."""
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the model wrote, for training; what is inside is rendered as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    tojson: Callable[..., str] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False} | options)  # noqa: E731
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": refuse, "strftime_now": now}
    return environment

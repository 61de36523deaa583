"""The chat template that a model is trained with: its own, one that a user names, or, where it has
none, ChatML, whose tokens the model gets. An adapter, which holds no rows of the embedding, is
trained with the plain one.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field

from langue.errors import ModelError, SettingsError
from langue.hub.checkpoint import Checkpoint
from langue.hub.new_tokens import with_tokens

BEGIN_TURN = "<|im_start|>"
END_TURN = "<|im_end|>"
# How both of our templates write turns: each begins with four words of its own. They say themselves
# what the assistant writes.
_TURNS = """\
{%- for message in messages -%}
{{- begin + message['role'] + after_role -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}
{{- message['content'] | default('', true) -}}
{%- for call in message['tool_calls'] | default([], true) -%}
{{- '\\n<tool_call>\\n' + call['function'] | tojson + '\\n</tool_call>' -}}
{%- endfor -%}
{{- end_of_answer -}}
{%- endgeneration -%}
{%- else -%}
{%- if loop.first and tools and message['role'] == 'system' -%}
{{- 'Tools: ' + tools | tojson + '\\n' -}}
{%- endif -%}
{{- message['content'] | default('', true) + end -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- begin + 'assistant' + after_role -}}
{%- endif -%}
"""
# OpenAI's ChatML
TEMPLATE = (
    """\
{%- set begin = '<|im_start|>' -%}
{%- set after_role = '\\n' -%}
{%- set end = '<|im_end|>' -%}
{%- set end_of_answer = end -%}
"""
    + _TURNS
)
# of words and the token that ends a text, which every decoder has: the embedding does not grow
PLAIN = (
    """\
{%- set begin = '' -%}
{%- set after_role = ':\\n' -%}
{%- set end = '' -%}
{%- set end_of_answer = eos_token -%}
"""
    + _TURNS
)
CHATML = "chatml"
OURS = {CHATML: TEMPLATE, "plain": PLAIN}


def template_field() -> Any:
    """The setting that chooses the template."""
    return Field(
        default=None,
        description=(
            "chat template: chatml, which adds two tokens to the model; plain, which"
            " adds none; or a Jinja file; none: the model's own, or chatml if it has"
            " none"
        ),
    )


def with_template(checkpoint: Checkpoint, chosen: str | None, notes: list[str]) -> Checkpoint:
    """The model with the chat template that is asked for, and with its tokens. ModelError where
    that does not say when an answer is over. notes: get what was added.
    """
    tokenizer = checkpoint.tokenizer
    own = tokenizer.chat_template
    if chosen == CHATML or (chosen is None and own is None):
        grown = with_tokens(checkpoint, (BEGIN_TURN, END_TURN))
        notes.append(
            f"the model gets the chat template chatml, with {BEGIN_TURN} and {END_TURN} as"
            " tokens, whose rows of the embedding begin as the mean of all"
        )
        return replace(grown, tokenizer=grown.tokenizer.with_chat_template(TEMPLATE))
    if chosen is not None:
        template = OURS.get(chosen) or _template_in(Path(chosen).expanduser())
        tokenizer = tokenizer.with_chat_template(template)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tokenizer.chat(talk, False)  # whose error says what is wrong with the template
    if tokenizer.end_of_turn() is None:
        raise ModelError(
            "the chat template writes no special token that ends an answer, so that the model"
            " would not learn to stop",
            where=str(checkpoint.folder) if chosen is None else chosen,
            do=f"take another one: task.template={CHATML}",
        )
    return replace(checkpoint, tokenizer=tokenizer)


def check_decoder(task: str, checkpoint: Checkpoint) -> None:
    """ModelError for a model that does not go on from a prompt."""
    architecture = checkpoint.config.architecture
    if architecture != "decoder":
        raise ModelError(
            f"the task {task} trains decoders, and the model is an {architecture}",
            where=str(checkpoint.folder),
            do="take a decoder, as gpt2",
        )


def ends_of_turns(model: Checkpoint) -> frozenset[int]:
    """The tokens that end an answer: those that end a text, and the template's."""
    token = model.tokenizer.end_of_turn()
    return model.ends | (frozenset() if token is None else frozenset([token]))


def _template_in(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"task.template = {file} cannot be read: {why}",
            do=f"name a file of Jinja, or {' or '.join(OURS)}",
        ) from None

"""Choice of the chat template for training: the model's own, one that the user names, or ChatML if
the model has none, in which case ChatML's special tokens are added to the model. Adapters, which
save no embedding rows, are trained with the plain template instead.
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
# The turns of both built-in templates, each of which first sets four variables. The `generation`
# blocks mark the tokens of the assistant.
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
# made of ordinary words and the end-of-text token that every decoder has, so that the embedding
# does not grow
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
    """Return the field of the setting that chooses the template."""
    return Field(
        default=None,
        description=(
            "chat template: chatml, which adds two tokens to the model; plain, which"
            " adds none; or a Jinja file; none: the model's own, or chatml if it has"
            " none"
        ),
    )


def with_template(checkpoint: Checkpoint, chosen: str | None, notes: list[str]) -> Checkpoint:
    """Return the model with the chosen chat template and the special tokens it needs.

    Appends a note to `notes` if tokens are added. Raises ModelError if the template does not mark
    the end of an answer.
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
    tokenizer.chat(talk, False)  # raises the error that says what is wrong with the template
    if tokenizer.end_of_turn() is None:
        raise ModelError(
            "the chat template writes no special token that ends an answer, so that the model"
            " would not learn to stop",
            where=str(checkpoint.folder) if chosen is None else chosen,
            do=f"take another one: task.template={CHATML}",
        )
    return replace(checkpoint, tokenizer=tokenizer)


def check_decoder(task: str, checkpoint: Checkpoint) -> None:
    """Raise ModelError unless the model is a decoder."""
    architecture = checkpoint.config.architecture
    if architecture != "decoder":
        raise ModelError(
            f"the task {task} trains decoders, and the model is an {architecture}",
            where=str(checkpoint.folder),
            do="take a decoder, as gpt2",
        )


def ends_of_turns(model: Checkpoint) -> frozenset[int]:
    """Return the tokens that end an answer: the model's end-of-text tokens and the template's
    end-of-turn token.
    """
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

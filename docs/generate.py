"""Generates the pages of docs/ from the command line and the settings that the code declares.

Run by `make docs`; a test fails if the pages do not match the code.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import typer.main

from langue.cli import app
from langue.cli.settings import written
from langue.hub.family import SEQUENCE
from langue.serve.decision_fields import DecisionFields
from langue.serve.fields import ChatFields, CompletionFields, EmbeddingFields
from langue.serve.response_fields import ResponseFields
from langue.serve.task_fields import (
    AnswerFields,
    ClassifyFields,
    RerankFields,
    TagFields,
    WriteFields,
)
from langue.serve.tokenizing import DetokenizeFields, TokenizeFields
from langue.verbs.settings import settings

HERE = Path(__file__).parent


def pages() -> dict[str, str]:
    """The text of each page, by its name."""
    return {
        "commands.md": _commands(),
        "settings.md": _settings(),
        "families.md": _families(),
        "serving.md": _serving(),
    }


def _commands() -> str:
    parts = [
        "# Commands\n\nThe same verbs are functions of `langue` in Python, with the same names and"
        " defaults."
    ]
    parts += [
        _command(f"langue {name}", command) for name, command in _flat(typer.main.get_command(app))
    ]
    return "\n\n".join(parts) + "\n"


def _flat(group: Any, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        found += (
            _flat(command, f"{prefix}{name} ")
            if hasattr(command, "commands")
            else [(prefix + name, command)]
        )
    return found


def _command(name: str, command: Any) -> str:
    rows = ["| option | what it does |", "|---|---|"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        option = parameter.param_type_name == "option"
        shown = ", ".join(parameter.opts) if option else parameter.metavar or parameter.name.upper()
        needed = " (needed)" if parameter.required else ""
        rows.append(f"| `{shown}`{needed} | {parameter.help} |")
    text = inspect.cleandoc(command.help).replace("\b\n", "")
    return f"## {name}\n\n{text}\n\n" + "\n".join(rows)


FIELDS = "## Fields of the routes"  # what stands before is written by hand
ROUTES = {
    "/v1/chat/completions": ChatFields,
    "/v1/completions": CompletionFields,
    "/v1/responses": ResponseFields,
    "/v1/embeddings": EmbeddingFields,
    "/v1/classify": ClassifyFields,
    "/v1/tag": TagFields,
    "/v1/answer": AnswerFields,
    "/v1/translate, /v1/summarise": WriteFields,
    "/v1/rerank": RerankFields,
    "/v1/decisions": DecisionFields,
    "/tokenize": TokenizeFields,
    "/detokenize": DetokenizeFields,
}


def _serving() -> str:
    written_by_hand, mark, _ = (HERE / "serving.md").read_text("utf-8").partition(FIELDS)
    parts = [
        written_by_hand + mark + "\n\nEach field is either supported or refused with status"
        " 400 and an error that names it. A field that is not in these tables is unknown and is"
        " refused too. `null` is the same as leaving the field out. Defaults are those of the"
        " model's generation config, or else those of `langue generate`."
    ]
    for route, fields in ROUTES.items():
        rows = ["| field | support |", "|---|---|"]
        for name, field in fields.model_fields.items():
            done = f"accepted: {field.description}" if field.description else "yes"
            rows.append(f"| `{field.alias or name}` | {done} |")
        for name, (harmless, remedy) in fields.refused.items():
            taken = ", except " + " or ".join(f"`{json.dumps(each)}`" for each in harmless)
            rows.append(f"| `{name}` | refused{taken if harmless else ''}; {remedy} |")
        parts.append(f"### {route}\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _settings() -> str:
    rows = []
    for key, row in settings().items():
        default = f"`{written(row['default'])}`{_of_others(row)}"
        choices = f": `{'` `'.join(row['choices'])}`" if row["choices"] else ""
        described = f"{row['description']}{choices}"
        rows.append(f"| `{key}` | {default} | {_otherwise(row)} | {described} |")
    head = (
        "# Settings\n\nWritten `section.key=value` after a command, or in a TOML recipe; the"
        " command wins."
    )
    table = (
        "| setting | default | in pretraining | what it does |\n|---|---|---|---|\n"
        + "\n".join(rows)
    )
    return f"{head}\n\n{table}\n"


def _of_others(row: dict[str, Any]) -> str:
    """The defaults of other tasks than the first that has the setting."""
    return "".join(f", {name}: `{written(value)}`" for name, value in row.get("others", {}).items())


def _otherwise(row: dict[str, Any]) -> str:
    return f"`{written(row['pretrain'])}`" if "pretrain" in row else ""


def _families() -> str:
    from langue.hub.families.registry import FAMILIES

    rows = [
        (
            "| `model_type` | file | opens as | classification runs pooled by | refused by it,"
            " pooled by | token classification | question answering | harness |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, family in FAMILIES.items():
        file = Path(inspect.getfile(family.read))
        opened = opened_by(family)
        expressed = ", ".join(opened["poolings"]) or "none"
        token, span, harness = (
            "yes" if opened[column] else "" for column in ("token", "span", "harness")
        )
        rows.append(
            f"| `{name}` | `hub/families/{file.name}` | {', '.join(opened['classes'])} "
            f"| {expressed} | {', '.join(opened['refused'])} | {token} | {span} | {harness} |"
        )
    head = (
        "# Families\n\nA family is data: how its config reads, and reversible rules between names."
        " It holds no module."
    )
    elsewhere = ", ".join(f"`{name}`" for name, each in FAMILIES.items() if "span" in each.prefixes)
    tested = _TESTED.format(elsewhere=elsewhere)
    return f"{head}\n\n{tested}\n\n" + "\n".join(rows) + "\n" + _presets()


_TESTED = """Each is held against `transformers` by `tests/contract/test_families.py`: logits,
gradients, saving. The table is what `tests/contract/test_elsewhere.py` is made of, and so proves of
the folders that we write. *Opens as*: these Auto classes, and the tokenizer's, give our tokens and
our numbers for padded batches. *Classification runs*: AutoModelForSequenceClassification, the
text-classification pipeline with a batch size of 3 and the Trainer's collator give our scores where
a run pools by these; a run that pools otherwise they refuse, since they would answer with a random
head, while AutoModel opens its body.
*Token classification*, *question answering*: AutoModelForTokenClassification and
AutoModelForQuestionAnswering give our scores of each token in padded batches, and what they save
loads here (`tests/contract/test_token_heads.py`); where there is no yes, they refuse our folders.
The question answering classes of {elsewhere} call their body
otherwise than all others: AutoModel finds none of its weights in such a folder, whether we saved it
or `transformers` did, and warns of it.
*Harness*: lm-evaluation-harness, given nothing but the folder, computes our log-likelihoods."""

_AUTO = {
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "MTModel": "AutoModelForSeq2SeqLM",
}


def opened_by(family: Any) -> dict[str, Any]:
    """What opens the folders of a family that we write: Auto classes of `transformers`, and whether
    lm-evaluation-harness; by which poolings its classification runs open there, or are refused;
    and whether its heads on single tokens do."""
    ending = next(ending for ending in _AUTO if family.architectures["lm"].endswith(ending))
    poolings = list(family.poolings) if SEQUENCE in family.heads else []
    causal = _AUTO[ending] == "AutoModelForCausalLM"
    possible = ("last", "mean") if causal else ("first", "last", "mean")
    return {
        "classes": ["AutoModel", _AUTO[ending]],
        "poolings": poolings,
        "refused": [pooling for pooling in possible if pooling not in poolings],
        "token": "token" in family.architectures,
        "span": "span" in family.architectures,
        "harness": causal,
    }


def _presets() -> str:
    from langue.hub.presets import PRESETS, count, preset
    from langue.tasks import OBJECTIVES

    rows = [
        "| preset | family | layers | width | heads | parameters |",
        "|---|---|---|---|---|---|",
    ]
    for name in PRESETS:
        family, config = preset(name, 32_768, 1024)
        sizes = (
            f"{config.n_layers} | {config.dim} | {config.n_heads} | {count(config) / 1e6:,.0f}"
            " million"
        )
        rows.append(f"| `{name}` | `{family.name}` | {sizes} |")
    usual = ", ".join(f"`{each.preset}` for {name}" for name, each in OBJECTIVES.items())
    return (
        "\n## Presets\n\nWhat `langue pretrain --preset` makes new, with 32,768 tokens and 1,024"
        f" positions; {usual} where none is named. `--size` keeps the proportions of the kind.\n\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    for file, content in pages().items():
        (HERE / file).write_text(content, "utf-8")

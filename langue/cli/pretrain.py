"""`langue pretrain`: train a language model on raw text and write a run directory."""

from typing import Annotated, Any

import typer

from langue.cli import early
from langue.cli.options import (
    Columns,
    Debug,
    Force,
    Json,
    KeepCheckpoints,
    Recipe,
    Resume,
    Words,
    parse_columns,
    parse_settings,
)
from langue.errors import SettingsError

Text = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="A corpus folder, or text: a file, a folder or a Hub name. Repeatable;"
        " NAME@WEIGHT mixes several by weight.",
        show_default=False,
    ),
]
Objective = Annotated[
    str | None, typer.Option(help="causal (the default), masked or denoise.", show_default=False)
]
Further = Annotated[
    str | None,
    typer.Option(
        help="Continue training this model: a Hub name, a folder or a run.", show_default=False
    ),
]
Vocabulary = Annotated[
    str | None,
    typer.Option(
        help="A folder with a tokenizer. Default: a tokenizer is trained on the data.",
        show_default=False,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="The number of parameters of a new model, such as 10M; short for model.size.",
        show_default=False,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="The architecture of a new model, such as gpt2; short for model.preset.",
        show_default=False,
    ),
]


def pretrain(
    context: typer.Context,
    settings: Words = None,
    *,
    objective: Objective = None,
    data: Text = None,
    out: Annotated[str, typer.Option(help="The run directory to write.", show_default=False)],
    model: Further = None,
    tokenizer: Vocabulary = None,
    size: Size = None,
    preset: Preset = None,
    columns: Columns = None,
    recipe: Recipe = None,
    force: Force = False,
    resume: Resume = False,
    keep_checkpoints: KeepCheckpoints = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Pretrain a language model on raw text, and evaluate it on held-out text.

    A model with ten million parameters, from a folder of text files:

        langue pretrain --objective causal --data texts/ --out runs/small \\
            --size 10M train.max_steps=2000

    A BERT for your own domain, from scratch and from a published model:

        langue pretrain --objective masked --data reports.jsonl --out runs/bert \\
            --preset bert-tiny
        langue pretrain --objective masked --data reports.jsonl --out runs/more \\
            --model google-bert/bert-base-uncased train.lr=1e-4

    On several GPUs: torchrun --nproc-per-node 8 -m langue pretrain ...
    Next steps: langue generate, langue finetune --model runs/small, langue
    inspect.
    """
    named = parse_columns(columns)
    words = _merged(parse_settings(settings, context), {"size": size, "preset": preset})
    sources = data[0] if data is not None and len(data) == 1 else data
    given = {"objective": objective, "model": model, "data": sources, "columns": named}
    early.check_training(
        "PRETRAIN", given, words, recipe=recipe, out=out, force=force, resume=resume
    )
    from langue.runs.show import preview_printer, print_json, print_run
    from langue.verbs.pretrain import pretrain as verb

    run = verb(
        objective,
        data=sources,
        out=out,
        model=model,
        tokenizer=tokenizer,
        columns=named,
        recipe=recipe,
        force=force,
        resume=resume,
        keep_checkpoints=keep_checkpoints,
        show=preview_printer(as_json),
        **words,
    )
    if as_json:
        print_json(run.metrics)
        return
    print_run(run.metrics)
    print(f"Report: {run.folder / 'report.html'}")


def _merged(words: dict[str, Any], options: dict[str, str | None]) -> dict[str, Any]:
    """Settings with what has an option of its own; SettingsError where the two are not the same."""
    for name, option in options.items():
        key = f"model.{name}"
        if option is not None and words.setdefault(key, option) != option:
            raise SettingsError(
                f"--{name} {option} and {key}={words[key]} differ", do="leave one of them out"
            )
    return words

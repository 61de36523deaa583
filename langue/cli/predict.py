"""`langue predict`: print predictions or write them to a file."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from langue.cli import early
from langue.cli.options import (
    BatchTokens,
    Columns,
    Dash,
    Debug,
    Device,
    Force,
    Json,
    Quiet,
    data_of,
    parse_columns,
)
from langue.errors import SettingsError

Run = Annotated[str, typer.Argument(help="A run, a folder or a Hub name.", show_default=False)]
Text = Annotated[list[str] | None, typer.Option(help="A text. Repeatable.", show_default=False)]
Pair = Annotated[
    list[str] | None,
    typer.Option(
        help="The second text, for a model of text pairs. Repeatable.", show_default=False
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="Read the texts from a file, a folder or a Hub name.", show_default=False),
]
Out = Annotated[
    str | None,
    typer.Option(
        help="Write the predictions to this file. The name ends in .jsonl, .csv, .tsv or .parquet.",
        show_default=False,
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        help="Other columns of the data to copy to the output: id,date, or all.", show_default=False
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=(
            "The number of labels per text, the most probable first. Default: one, or"
            " for a multi-label model those above the threshold that was chosen on dev."
        ),
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="Give the scores of all labels.")]
GoOn = Annotated[
    bool, typer.Option("--resume", help="Continue an output file that was interrupted.")
]


def predict(
    run: Run,
    standard_input: Dash = None,
    text: Text = None,
    pair: Pair = None,
    data: Data = None,
    out: Out = None,
    columns: Columns = None,
    keep: Keep = None,
    top: Top = None,
    all_labels: All = False,
    batch_tokens: BatchTokens = None,
    device: Device = None,
    resume: GoOn = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict the labels, scores or other results of texts.

    One text, then a file of them:

        langue predict runs/reviews --text "Two hours well spent."
        langue predict runs/reviews --data new.csv --columns text=review \\
            --keep id --out predicted.csv
        another-program | langue predict runs/reviews -

    The output holds each text with its prediction, in the order of the input;
    an empty text has no prediction. --keep id copies other columns. Ctrl-C
    keeps what was predicted, and the same command with --resume continues.

    With - (or --data -) it reads one text per line from standard input, or
    JSON objects if the first line is one, and writes each prediction as a JSON
    object as soon as it is ready.
    """
    data = data_of(standard_input, data)
    early.check_inputs(model=run, data=data, out=out, force=force)
    texts = _texts(text, pair)
    common: dict[str, Any] = {
        "columns": parse_columns(columns),
        "keep": keep,
        "top": _top(top, all_labels),
        "batch_tokens": batch_tokens,
        "device": device,
        "resume": resume,
    }
    from langue.progress import quiet as quietly
    from langue.runs.show import print_json, print_predictions
    from langue.verbs.predict import predict as verb

    with quietly(quiet):
        if data == "-" and out is None and not texts:
            from langue.verbs.predict import predict_stream

            for line in predict_stream(run, **common):
                print(line, flush=True)
            return
        results = verb(run, texts=texts, data=data, out=out, force=force, **common)
    if out is not None and as_json:
        print_json({"out": out})
    elif out is not None:
        print(f"Predictions: {out}")
    elif as_json or not text:
        print_json(results)
    else:
        print_predictions(text, results)


def _top(top: int | None, all_labels: bool) -> Any:
    return None if all_labels else top or "auto"


def _texts(texts: list[str] | None, pairs: list[str] | None) -> Sequence[Any] | None:
    """Texts alone, or (text, pair) tuples; None where neither is given."""
    if not pairs:
        return texts
    if len(pairs) != len(texts or ()):
        raise SettingsError(
            f"{len(texts or ())} --text but {len(pairs)} --pair",
            do="give one --pair for each --text",
        )
    return list(zip(texts or (), pairs, strict=True))

"""`langue rank`, `zero-shot`, `extract` and `fill-mask`: answers without training."""

from typing import Annotated, Any, Literal

import typer

from langue.cli import early
from langue.cli.options import Columns, Debug, Force, Json, Named, parse_columns

Texts = Annotated[
    list[str] | None,
    typer.Option("--text", help="A text. Repeatable.", show_default=False),
]
Rows = Annotated[
    str | None, typer.Option("--data", help="Read the texts from a file.", show_default=False)
]
Out = Annotated[
    str | None,
    typer.Option(
        help="Write the results to this file, one JSON object per line.", show_default=False
    ),
]
Normalize = Annotated[
    Literal["none", "tokens", "characters", "bytes"],
    typer.Option(
        help="What log-likelihoods are divided by, so that short answers are not favoured."
    ),
]


def rank(
    model: Named,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A prompt. Repeatable.", show_default=False),
    ] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option("--choice", help="A possible continuation. Repeatable.", show_default=False),
    ] = None,
    data: Rows = None,
    out: Out = None,
    columns: Columns = None,
    normalize: Normalize = "none",
    neutral: Annotated[
        list[str] | None,
        typer.Option(
            help='A prompt without content, such as "N/A", by which scores are calibrated.'
            " Repeatable.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Rank answers by the likelihood that a language model gives them.

    One prompt, then a file with the columns prompt and choices:

        langue rank MODEL --prompt "The capital of France is" \\
            --choice Paris --choice Rome
        langue rank MODEL --data questions.jsonl --out ranked.jsonl

    The scores of a prompt's choices sum to 1.
    """
    named = parse_columns(columns)
    early.check_inputs(model=model, data=data, out=out, force=force)
    from langue.verbs.rank import rank as verb

    found = verb(
        model,
        prompts=prompts or None,
        choices=choices or None,
        data=data,
        out=out,
        columns=named,
        normalize=normalize,
        neutral=neutral or None,
        force=force,
    )
    _show(prompts, found, out, as_json, lambda each: (each["choice"], each["score"]))


def zero_shot(
    model: Named,
    labels: Annotated[
        list[str],
        typer.Option("--label", help="A label. Repeat the option for each.", show_default=False),
    ],
    texts: Texts = None,
    data: Rows = None,
    out: Out = None,
    columns: Columns = None,
    template: Annotated[
        str,
        typer.Option(
            help="The sentence that states a label, in which {} stands for it. For a"
            " language model, {text} may precede it."
        ),
    ] = "This example is {}.",
    examples: Annotated[
        str | None,
        typer.Option(
            help="A file of few-shot examples for a language model, with the columns text"
            " and label.",
            show_default=False,
        ),
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Score each label independently of the others.")
    ] = False,
    normalize: Normalize = "none",
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Calibrate the scores: subtract the score that each label has without a text.",
        ),
    ] = False,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Classify texts with labels that no model was trained on.

    With a model trained on entailment, or with any language model:

        langue zero-shot MODEL --label sports --label politics \\
            --text "They won by two goals."
        langue zero-shot MODEL --label good --label bad --data reviews.csv \\
            --template "{text} It was {}." --examples few.csv --out labelled.jsonl

    The scores of a text sum to 1, except with --multi-label.
    """
    named = parse_columns(columns)
    early.check_inputs(model=model, data=data, out=out, force=force)
    from langue.verbs.zero_shot import zero_shot as verb

    found = verb(
        model,
        labels=labels,
        texts=texts or None,
        data=data,
        out=out,
        columns=named,
        template=template,
        examples=examples,
        multi_label=multi_label,
        normalize=normalize,
        calibrate=calibrate,
        force=force,
    )
    if not as_json and out is None:
        found = [list(zip(each["labels"], each["scores"], strict=True)) for each in found]
    _show(texts, found, out, as_json, lambda each: each)


def extract(
    model: Named,
    questions: Annotated[
        list[str] | None,
        typer.Option("--question", help="A question. Repeatable.", show_default=False),
    ] = None,
    contexts: Annotated[
        list[str] | None,
        typer.Option(
            "--context",
            help="The text that answers the questions: one for all, or one for each.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Read questions and contexts from a file.", show_default=False),
    ] = None,
    out: Out = None,
    columns: Columns = None,
    template: Annotated[
        str,
        typer.Option(
            help="The prompt, in which {context} and {question} stand for theirs;"
            " \\n is a new line.",
        ),
    ] = r"{context}\n\nQuestion: {question}\nAnswer:",
    examples: Annotated[
        str | None,
        typer.Option(
            help="A file of few-shot examples with the columns question, context and answers.",
            show_default=False,
        ),
    ] = None,
    no_answer: Annotated[
        str | None,
        typer.Option(
            "--no-answer",
            help='What the model writes where the context does not answer, such as "unanswerable".'
            " By default, every question gets an answer.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="The number of answers per question.")] = 1,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="The maximum number of tokens of an answer.")
    ] = 64,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Answer questions with parts of a text, by a language model without training.

    One question, then a file in SQuAD's format with few-shot examples:

        langue extract MODEL --question "Who had a ball?" \\
            --context "Lily had a red ball. Tom had none."
        langue extract MODEL --data squad.json --examples few.jsonl \\
            --out answers.jsonl

    Where the rows of the file have answers, exact match and F1 are shown.
    """
    named = parse_columns(columns)
    early.check_inputs(model=model, data=data, out=out, force=force)
    from langue.verbs.extract import extract as verb

    found = verb(
        model,
        questions=questions or None,
        contexts=contexts[0] if contexts and len(contexts) == 1 else contexts or None,
        data=data,
        out=out,
        columns=named,
        template=template.replace("\\n", "\n"),
        examples=examples,
        no_answer=no_answer,
        top=top,
        max_tokens=max_tokens,
        force=force,
    )
    _show(questions, found, out, as_json, lambda each: (each["answer"], each["score"]))


def fill_mask(
    model: Named,
    texts: Texts = None,
    data: Rows = None,
    out: Out = None,
    columns: Columns = None,
    top: Annotated[int, typer.Option(min=1, help="The number of candidates per mask.")] = 5,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="A token to restrict the candidates to. Repeatable.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fill the masks in texts with a masked language model.

    With any token, and with one of two tokens:

        langue fill-mask MODEL --text "Paris is the [MASK] of France."
        langue fill-mask MODEL --text "A [MASK] film." --target good --target bad

    Write the model's own mask token, which `langue inspect` shows.
    """
    named = parse_columns(columns)
    early.check_inputs(model=model, data=data, out=out, force=force)
    from langue.verbs.fill_mask import fill_mask as verb

    found = verb(
        model,
        texts=texts or None,
        data=data,
        out=out,
        columns=named,
        top=top,
        targets=targets or None,
        force=force,
    )
    if not as_json and out is None:
        found = [each if isinstance(each[0], dict) else sum(each, []) for each in found]
    _show(texts, found, out, as_json, lambda each: (each["sequence"], each["score"]))


def _show(
    given: list[str] | None, found: list[Any], out: str | None, as_json: bool, cells: Any
) -> None:
    """Answers as rows of what is said and how sure it is, under what was given."""
    from langue.runs.show import print_json, print_ranked

    if out is not None:
        print(f"Answers: {out}")
    elif as_json or not given:
        print_json(found)
    else:
        print_ranked(given, [[cells(each) for each in answers] for answers in found])

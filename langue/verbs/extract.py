"""Answer questions with a passage of their context, with a language model and without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import DataError, SettingsError
from langue.progress import say
from langue.runs.model import load
from langue.runs.prompted_answers import TEMPLATE
from langue.statistics import answers as scripts
from langue.text.read.annotations import answers as read_answers
from langue.text.read.rows import read_rows
from langue.verbs.prompted_rows import Rows, each_row
from langue.wording import counted

TRUE = "answers"  # the column of the correct answers


def extract(
    model: str | Path,
    *,
    questions: Sequence[str] | None = None,
    contexts: Sequence[str] | str | None = None,
    data: Any = None,
    out: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    template: str = TEMPLATE,
    examples: Any = None,
    no_answer: str | None = None,
    top: int = 1,
    max_tokens: int = 64,
    force: bool = False,
) -> list[Any]:
    """Answer questions with passages of their contexts, without training, as `Model.extract` does.

    model: a language model: a Hub name, folder or run.
    questions and contexts: texts; one context for all questions, or one for each.
    data: instead of these, a file with the columns `question` and `context`, in the forms of
        SQuAD's files. If its rows have `answers`, exact match and F1 of the best answers are
        reported, as computed by the scripts of SQuAD or CMRC.
    out: a file for the rows with their answers, one JSON object per line; the result is then an
        empty list. force: replace it if it exists.
    columns: our names -> names in the data.
    template, no_answer, top, max_tokens: as in `Model.extract`.
    examples: (question, context, answer) triples to show to the model, or a file with these
        columns.
    """
    shown = _examples(examples)
    if questions is not None and contexts is None:
        raise SettingsError("no context is given", do="give --context TEXT, or --data FILE")
    if data is not None and contexts is not None:
        raise SettingsError("--context and --data are given together", do="leave one of them out")
    ready = load(model)
    true: list[list[str]] = []
    given: list[str] = []

    def work(rows: Rows) -> list[Any]:
        asked = [row["question"] for row in rows]
        found = ready.extract(
            asked,
            [row["context"] for row in rows] if contexts is None else contexts,
            template=template,
            examples=shown,
            no_answer=no_answer,
            top=top,
            max_tokens=max_tokens,
        )
        for number, (row, answers) in enumerate(zip(rows, found, strict=True), start=1):
            right = read_answers(row.get(TRUE), TRUE, f"row {number}")
            if right is not None:
                true.append([each["text"] for each in right])
                given.append(answers[0]["answer"])
        return found

    found = each_row(
        work,
        questions,
        data,
        out,
        column="question",
        columns=columns,
        need_text="context",
        force=force,
    )
    if true:
        scores = scripts.score(true, given)
        say(
            f"exact match {100 * scores.exact.mean():.1f}%, F1 {100 * scores.f1.mean():.1f}%, over"
            f" {counted(len(true), 'question')} with true answers"
        )
    return found


def _examples(given: Any) -> list[tuple[str, str, str]]:
    """Return triples of question, context and answer, which is "" if the context does not contain
    it.
    """
    if given is None:
        return []
    if not isinstance(given, str | Path):
        return [(question, context, answer) for question, context, answer in given]
    made = []
    for rows in read_rows(given).values():
        for row, where in zip(rows.values, rows.where, strict=True):
            question, context = row.get("question"), row.get("context")
            right = read_answers(row.get(TRUE, row.get("answer")), TRUE, where)
            has_texts = isinstance(question, str) and isinstance(context, str)
            if not has_texts or right is None:
                raise DataError(
                    "an example has no question, context or answers",
                    where=where,
                    do="fill them in; answers are [] where the context does not answer",
                )
            answer = right[0]["text"] if right else ""
            made.append((str(question), str(context), answer))
    return made

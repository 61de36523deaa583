"""Reads the nested JSON of question answering data sets: articles of paragraphs of questions.

Accepts the list under `data` of a SQuAD 1.1 or 2.0 file (Rajpurkar et al. 2016, 2018), a format
also used by CMRC 2018, DRCD and XQuAD, or the list of contexts in the first files of CMRC. Each
question becomes a record.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from langue.errors import DataError

_OPTIONAL = ("is_impossible", "answers", "plausible_answers")


def is_nested(rows: Any) -> bool:
    """Return whether these are articles with paragraphs, or paragraphs with questions."""
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        return False
    return "paragraphs" in rows[0] or "qas" in rows[0]


def questions(articles: Sequence[Any], where: str) -> Iterator[dict[str, Any]]:
    """Yield each question as `{id, question, context, title, answers, ...}`, in the order of the
    file.

    A question without the key `answers` is not annotated, unless it is marked as impossible.
    """
    for number, article in enumerate(articles, start=1):
        place = f"{where}, article {number}"
        _check(article, dict, "article", place)
        paragraphs = article.get("paragraphs", [article])
        _check(paragraphs, list, "list of paragraphs", place)
        for index, paragraph in enumerate(paragraphs, start=1):
            yield from _of_paragraph(paragraph, article.get("title"), f"{place}, paragraph {index}")


def _of_paragraph(paragraph: Any, title: Any, where: str) -> Iterator[dict[str, Any]]:
    _check(paragraph, dict, "paragraph", where)
    context = paragraph.get("context", paragraph.get("context_text"))
    _check(context, str, "context", where)
    asked = paragraph.get("qas")
    _check(asked, list, "list of questions (qas)", where)
    for number, each in enumerate(asked, start=1):
        place = f"{where}, question {number}"
        _check(each, dict, "question", place)
        question = each.get("question", each.get("query_text"))
        _check(question, str, "question", place)
        found = {
            "id": each.get("id", each.get("query_id")),
            "question": question,
            "context": context,
            "title": title,
        }
        found |= {name: each[name] for name in _OPTIONAL if name in each}
        if each.get("is_impossible") and "answers" not in each:
            found["answers"] = []
        yield found


def _check(value: Any, kind: type, name: str, where: str) -> None:
    if not isinstance(value, kind):
        what = f"there is no {name}" if value is None else f"its {name} is a {type(value).__name__}"
        do = "write it as SQuAD does: data, paragraphs, context, qas, question, answers"
        raise DataError(what, where=where, do=do)

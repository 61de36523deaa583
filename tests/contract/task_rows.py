"""The cases of the contract tests of tasks: rows that a tiny model can learn, perfect predictions,
and malformed rows. Every registered task needs an entry here."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from langue.tasks.chat import Answered as Reply
from langue.tasks.extract import Answered, Span
from langue.tasks.judge_preferences import Rewarded
from langue.tasks.tag import Tagged
from langue.tasks.writing import Written
from tests.tiny import BAD, GOOD, PLAIN


@dataclass(frozen=True)
class Case:
    """One way to use a task."""

    task: str
    rows: Callable[[int], list[dict[str, Any]]]  # returns that many different rows
    # converts the golds of such rows to predictions without errors
    perfect: Callable[[Any, Any], Any]  # (task, golds)
    # invalid rows, with a part of the error message
    malformed: list[tuple[dict[str, Any], str]]
    settings: dict[str, Any] = field(default_factory=dict)
    # whether the loss of a row is independent of the other rows of the batch
    of_rows: bool = True
    # the initial model: a published encoder or decoder, or a new model
    model: Literal["encoder", "decoder", "new"] = "encoder"


def texts(n: int, *columns: str) -> list[dict[str, Any]]:
    """Return texts of different lengths; their words from `GOOD` and `BAD` determine the target."""
    generator = random.Random(5)
    rows = []
    for index in range(n):
        telling = [GOOD, BAD][index % 2]
        words = generator.choices(PLAIN, k=1 + index % 5) + generator.choices(telling, k=3)
        rows.append({column: " ".join(generator.sample(words, len(words))) for column in columns})
    return rows


def labelled(n: int, *columns: str) -> list[dict[str, Any]]:
    return [
        row | {"label": ["pos", "neg"][index % 2]}
        for index, row in enumerate(texts(n, *(columns or ("text",))))
    ]


def several(n: int) -> list[dict[str, Any]]:
    return [
        row | {"label": [["pos"], ["neg", "sad"]][index % 2]}
        for index, row in enumerate(texts(n, "text"))
    ]


def scored(n: int) -> list[dict[str, Any]]:
    return [
        row | {"score": [4.0, 1.0][index % 2] + 0.01 * index}
        for index, row in enumerate(texts(n, "text"))
    ]


def tagged(n: int, prefixes: bool = True) -> list[dict[str, Any]]:
    """Return words of which those of `GOOD` and `BAD` are entities, or have tags of their own."""
    rows = []
    for row in texts(n, "text"):
        tokens = row["text"].split()
        kinds = ["POS" if word in GOOD else "NEG" if word in BAD else "O" for word in tokens]
        if prefixes:
            tags = [kind if kind == "O" else f"B-{kind}" for kind in kinds]
        else:
            tags = ["X" if kind == "O" else kind for kind in kinds]
        rows.append({"tokens": tokens, "tags": tags})
    return rows


def as_tagged(task: Any, golds: Any) -> list[Tagged]:
    found = []
    for tags in golds:
        spans = [(2 * place, 2 * place + 1) for place in range(len(tags))]
        found.append(Tagged("x " * len(tags), spans, list(tags), [1.0] * len(tags)))
    return found


def asked(n: int, unanswered: int = 0) -> list[dict[str, Any]]:
    """Return contexts with one word of `GOOD` or `BAD`, the answer; every `unanswered`-th has
    none."""
    generator = random.Random(6)
    rows = []
    for index in range(n):
        words = generator.choices(PLAIN, k=3 + index % 7)
        question = "the good film" if index % 2 else "the bad film"
        row = {"id": f"q{index}", "question": question, "answers": []}
        if not unanswered or index % unanswered:
            place = generator.randrange(len(words) + 1)
            words.insert(place, generator.choice(GOOD if index % 2 else BAD))
            start = len("".join(f"{word} " for word in words[:place]))
            row["answers"] = [{"text": words[place], "start": start}]
        rows.append(row | {"context": " ".join(words)})
    return rows


def as_answered(task: Any, golds: Any) -> list[Answered]:
    found = []
    for gold in golds:
        spans = [Span(text, 0, len(text), 1.0) for text in gold.texts[:1]]
        found.append(Answered(spans, *(() if spans else (1.0, np.inf))))
    return found


def translated(n: int) -> list[dict[str, Any]]:
    """Return texts, with their first words in reverse order as targets."""
    rows = []
    for row in texts(n, "source"):
        words = row["source"].split()[:4]
        rows.append(row | {"target": " ".join(reversed(words))})
    return rows


def as_written(task: Any, golds: Any) -> list[Written]:
    return [Written([texts[0]], [0.0]) for texts in golds]


def compared(n: int) -> list[dict[str, Any]]:
    """Return pairs that share more words the more similar they are."""
    generator = random.Random(7)
    rows = []
    for index in range(n):
        share = index % 8
        words = generator.sample(PLAIN, 7)
        other = words[:share] + generator.choices(BAD, k=7 - share)
        score = round(share / 7 + 0.001 * (index // 8), 4)
        rows.append({"text": " ".join(words), "pair": " ".join(other), "score": score})
    return rows


def answered(n: int, negatives: int = 0) -> list[dict[str, Any]]:
    """Return pairs of texts that share distinctive words; negatives contain one of these words."""
    generator = random.Random(8)
    words = [*PLAIN, *GOOD]
    rows: list[dict[str, Any]] = []
    for index in range(n):
        own = [words[index % len(words)], words[(7 * index + 3) % len(words)]]
        query = [*own, *generator.sample(BAD, 2)]
        row = {"text": " ".join(query), "pair": " ".join(["was", *own, chr(97 + index)])}
        for number in range(1, 1 + negatives):
            row[f"negative_{number}"] = " ".join([own[0], *generator.sample(BAD, 3)])
        rows.append(row)
    return rows


def opposed(n: int, scored: bool = False) -> list[dict[str, Any]]:
    """Return pairs in which the answers of the other seven pairs in a block of eight are
    negatives."""
    rows = answered(n)
    for index, row in enumerate(rows):
        near = rows[index - index % 8 : index - index % 8 + 8]
        row["negatives"] = [each["pair"] for each in near if each is not row]
        if scored:
            row["score"] = [2.0] + [0.5] * len(row["negatives"])
    return rows


def as_vectors(task: Any, golds: Any) -> list[Any]:
    """Return vectors at angles that match the scores; for unscored pairs, a direction for each
    query and its answer."""
    if task.has_scores:
        scores = np.asarray([gold.scores[0] for gold in golds])
        rows = np.stack([scores, np.sqrt(1 - scores**2)], 1)
        return [np.stack([[1.0, 0.0], each]) for each in rows]
    unit = np.eye(len(golds) + 1)
    answers = {gold.documents[0]: row for row, gold in enumerate(golds)}
    return [
        unit[[row, *(answers.get(text, -1) for text in gold.documents)]]
        for row, gold in enumerate(golds)
    ]


def talks(n: int) -> list[dict[str, Any]]:
    """Return conversations in which the assistant repeats a word of the user's last message."""
    rows = []
    for index, row in enumerate(texts(n, "text")):
        words = row["text"].split()
        messages = [{"role": "user", "content": " ".join(words[:3])}]
        if index % 3 == 0:
            messages.append({"role": "assistant", "content": words[0]})
            messages.append({"role": "user", "content": words[1]})
        rows.append({"messages": [*messages, {"role": "assistant", "content": words[1]}]})
    return rows


def said(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def as_replies(task: Any, golds: Any) -> list[Reply]:
    return [Reply(["x"], [0.0], "", nats=0.0, tokens=2, right=2) for _ in golds]


def compared_answers(n: int) -> list[dict[str, Any]]:
    """Return pairs of answers, of which the better one has a word of `GOOD`."""
    generator = random.Random(9)
    rows = []
    for row in texts(n, "prompt"):
        answers = [generator.choices(PLAIN, k=2) + [generator.choice(of)] for of in (GOOD, BAD)]
        chosen, rejected = (" " + " ".join(words) for words in answers)
        rows.append(row | {"chosen": chosen, "rejected": rejected})
    return rows


def talk_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the same row as messages, without a separate prompt."""
    asked = {"role": "user", "content": row["prompt"]}
    return {
        name: [asked, {"role": "assistant", "content": row[name]}]
        for name in ("chosen", "rejected")
    }


def rated_answers(n: int) -> list[dict[str, Any]]:
    rows = []
    for index, row in enumerate(compared_answers(n)):
        answer = row["rejected"] if index % 2 else row["chosen"]
        rows.append({"prompt": row["prompt"], "completion": answer, "label": index % 2 == 0})
    return rows


def as_rewards(task: Any, golds: Any) -> list[Rewarded]:
    if task.has_pairs:
        return [Rewarded(1.0, 0.0) for _ in golds]
    return [Rewarded(0.5 if gold.good else -0.5, np.nan, gold.good) for gold in golds]


def one_hot(task: Any, golds: Any) -> Any:
    return np.eye(len(task.labels))[np.asarray(golds)]


NEW = {
    "model.dim": 32,
    "model.n_layers": 2,
    "model.n_heads": 2,
    "model.ffn_dim": 64,
    "tokenizer.kind": "bpe",
    "tokenizer.vocab_size": 300,
    "tokenizer.min_frequency": 0,
    "train.epochs": 150,
    "train.lr": 1e-2,
    "train.evaluate_every": 75,
}
NO_TEXT = ({"text": " ", "label": "pos"}, "the text is empty")
CASES = {
    "classify": Case(
        "classify",
        labelled,
        one_hot,
        [
            NO_TEXT,
            ({"text": "fine", "label": None}, "the label is empty"),
        ],
    ),
    "classify pairs": Case("classify", lambda n: labelled(n, "text", "pair"), one_hot, []),
    "classify several": Case(
        "classify",
        several,
        lambda task, golds: np.asarray(golds, float),
        [({"text": " ", "label": ["pos"]}, "the text is empty")],
        {"task.multi_label": True},
    ),
    "tag": Case(
        "tag",
        tagged,
        as_tagged,
        [
            ({"tokens": [], "tags": []}, "there are no tokens"),
            ({"tokens": ["fine", "film"], "tags": ["O"]}, "1 tags for 2 tokens"),
        ],
    ),
    "tag with a CRF": Case("tag", tagged, as_tagged, [], {"task.crf": True}),
    "tag words": Case("tag", partial(tagged, prefixes=False), as_tagged, []),
    "extract": Case(
        "extract",
        asked,
        as_answered,
        [
            ({"question": " ", "context": "a", "answers": []}, "the question is empty"),
            ({"question": "who", "context": " ", "answers": []}, "the context is empty"),
            ({"question": "who", "context": "a film", "answers": None}, "has no answers"),
            (
                {"question": "who", "context": "a film", "answers": [{"text": "it", "start": 0}]},
                "the answer 'it' does not stand in its context",
            ),
        ],
    ),
    "extract or nothing": Case(
        "extract",
        partial(asked, unanswered=3),
        as_answered,
        [
            (
                {"question": "who", "context": "a", "answers": [{"text": " ", "start": 0}]},
                "an answer is empty",
            )
        ],
    ),
    "regress": Case(
        "regress",
        scored,
        lambda task, golds: np.asarray(golds)[:, None],
        [
            ({"text": " ", "score": 1.0}, "the text is empty"),
            ({"text": "fine", "score": None}, "is not a number"),
        ],
    ),
    "seq2seq": Case(
        "seq2seq",
        translated,
        as_written,
        [
            ({"source": " ", "target": "a"}, "the source is empty"),
            ({"source": "a film", "target": " "}, "the target is empty"),
            ({"source": "a film", "target": None}, "the target is empty"),
        ],
        NEW | {"task.output": "translation"},
        model="new",
    ),
    "chat": Case(
        "chat",
        talks,
        as_replies,
        [
            (said(("user", "Hi"), ("assistant", " ")), "message 2 (assistant) is empty"),
            (said(("assistant", "Hi"), ("user", "Yes")), "begins with the assistant"),
            (said(("user", "Hi"), ("narrator", "Hm")), "has the unknown role 'narrator'"),
            (
                said(
                    ("user", "Hi"),
                ),
                "has no turn of the assistant",
            ),
            (
                said(
                    ("system", "Hi"),
                ),
                "has nothing but the system's message",
            ),
            ({"messages": []}, "the conversation is empty"),
            ({"messages": None}, "the conversation is empty"),
        ],
        {"train.epochs": 80, "task.max_new_tokens": 12},
        model="decoder",
    ),
    "preference": Case(
        "preference",
        compared_answers,
        as_rewards,
        [
            ({"prompt": "a", "chosen": " b", "rejected": " b"}, "chosen and rejected are the same"),
            ({"prompt": "a", "chosen": " ", "rejected": " b"}, "the chosen is empty"),
            ({"prompt": "a", "chosen": " b", "rejected": None}, "the rejected is empty"),
        ],
        {"train.epochs": 20},
        model="decoder",
    ),
    "preference without a reference": Case(
        "preference",
        lambda n: [talk_of(row) for row in compared_answers(n)],
        as_rewards,
        [
            (
                {
                    "chosen": said(("user", "a"))["messages"],
                    "rejected": said(("user", "b"))["messages"],
                },
                "has no turn of the assistant",
            )
        ],
        {"train.epochs": 20, "task.loss": "orpo", "task.beta": 1.0},
        model="decoder",
    ),
    "preference of single answers": Case(
        "preference",
        rated_answers,
        as_rewards,
        [
            ({"prompt": "a", "completion": " b", "label": None}, "neither true nor false"),
            ({"prompt": "a", "completion": " ", "label": True}, "the completion is empty"),
        ],
        {"train.epochs": 20, "task.loss": "kto"},
        of_rows=False,
        model="decoder",
    ),
    "seq2seq by a decoder": Case(
        "seq2seq", translated, as_written, [], NEW | {"model.preset": "llama"}, model="new"
    ),
    "embed scored pairs": Case(
        "embed",
        compared,
        as_vectors,
        [
            ({"text": " ", "pair": "a film", "score": 1.0}, "the text is empty"),
            ({"text": "a film", "pair": " ", "score": 1.0}, "the pair is empty"),
            ({"text": "a film", "pair": "a plot", "score": None}, "is not a number"),
        ],
    ),
    "embed by order of scores": Case(
        "embed", compared, as_vectors, [], {"task.loss": "cosent"}, of_rows=False
    ),
    "embed pairs": Case(
        "embed",
        answered,
        as_vectors,
        [({"text": "a film", "pair": "a film"}, "the pair is the text itself")],
        of_rows=False,
    ),
    "embed negatives": Case(
        "embed",
        partial(answered, negatives=2),
        as_vectors,
        [
            (
                {"text": "a film", "pair": "a plot", "negative_1": "a plot", "negative_2": None},
                "a negative is the pair itself",
            )
        ],
        {"task.symmetric": True},
        of_rows=False,
    ),
    "embed triplets": Case(
        "embed",
        opposed,
        as_vectors,
        [({"text": "a film", "pair": "a plot", "negatives": []}, "the row has no negative")],
        {"task.loss": "triplet"},
    ),
    "embed from a teacher": Case(
        "embed",
        partial(opposed, scored=True),
        as_vectors,
        [
            (
                {"text": "a film", "pair": "a plot", "negatives": ["it", "a"], "score": [1.0]},
                "1 scores for a pair and 2 negatives",
            )
        ],
    ),
}

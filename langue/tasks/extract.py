"""Extractive question answering: takes a question and a context; returns the span of the context
that answers the question, or that none does.

Question and context are encoded as a pair; a long context is split into overlapping windows, each
with the whole question (Devlin et al. 2018, sections 4.2 and 4.3). A start and an end logit for
each token score the answer spans. Metrics are those of the SQuAD and CMRC scripts, see
langue/statistics/answers.py.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from langue.data.batch import Batch, Examples
from langue.data.encode import check_vocabulary
from langue.data.encoded import Encoded
from langue.data.windows import Windows, encode_windows, offsets_of_texts
from langue.errors import DataError, ModelError
from langue.hub.checkpoint import classes_of
from langue.hub.family import TOKEN_CLASSES, Family
from langue.model.config import ModelConfig
from langue.model.heads import Head
from langue.model.token_heads import SpanHead, sequence_log_softmax
from langue.progress import warn
from langue.settings.sections import DataSettings, Section
from langue.statistics import answers
from langue.statistics.compare import Systems, mcnemar
from langue.statistics.intervals import clopper_pearson
from langue.statistics.metrics import Measure
from langue.statistics.sentences import NearestSentence
from langue.tasks import judgement
from langue.tasks.answer_spans import Answered, Span, best_answers
from langue.tasks.columns import Columns
from langue.tasks.judgement import Judgement
from langue.tasks.task import Baseline, Task, rows_with_tokens
from langue.text.read.parse import is_missing, replace_lone_surrogates
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.text.read.source import Table

SPAN = "span"  # the kind of head with two logits per token, as families name it
F1, EXACT = "f1", "exact_match"
NAMED = 5  # maximum number of rows that a note lists


class ExtractOptions(Section):
    max_answer_tokens: int = Field(
        default=30, ge=1, description="maximum number of tokens of an answer"
    )
    n_best: int = Field(default=20, ge=1, description="number of answers kept per question")
    no_answer_threshold: float | None = Field(
        default=None,
        description=(
            "a question has no answer if the log-odds of no answer over the best answer"
            " exceed this; none: the best threshold on dev"
        ),
    )
    stride: int = Field(
        default=128, ge=0, description="overlap of the windows of a long context, in tokens"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="dropout before the head; published models have none"
    )


@dataclass(frozen=True)
class Gold:
    """The gold answers of a question; no texts: the context does not answer it."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]  # position of each text in the context; -1: not found
    moved: tuple[bool, ...]  # whether that differs from the position in the data

    @property
    def span(self) -> tuple[int, int] | None:
        """The characters of the first answer found in the context, which is the training target."""
        for text, start in zip(self.texts, self.starts, strict=True):
            if start >= 0:
                return start, start + len(text)
        return None


@dataclass(frozen=True)
class _Contexts:
    """What maps token sequences back to the contexts of their rows."""

    texts: list[str]
    # for each row, the character offsets (G, 2) of its context's tokens
    offsets: list[NDArray[np.int32]]
    windows: Windows  # the parts of the contexts that the sequences contain


class Extract(Task):
    """Extractive question answering."""

    name = "extract"
    result = "answers"
    Options = ExtractOptions
    columns = Columns(
        required=("question", "context", "answers"),
        target="answers",
        optional=("id", "title", "is_impossible", "plausible_answers"),
        proportional=False,
        together="context",
        synonyms={
            "question": ("query", "question_text", "query_text"),
            "context": ("passage", "paragraph", "document", "text", "context_text"),
            "answers": ("answer", "label", "labels"),
        },
    )
    takes_texts = False
    primary_metric = F1
    best = F1
    main_metric = F1
    settings: ExtractOptions

    def __init__(self, settings: ExtractOptions, *, no_answer: bool, threshold: float = 0.0):
        """no_answer: whether questions may have no answer. threshold: the log-odds above which "no
        answer" is given.
        """
        self.settings = settings
        self.no_answer = no_answer
        chosen = settings.no_answer_threshold
        self.threshold = threshold if chosen is None else chosen
        self._notes: list[str] = []

    # --- what the training rows define ---

    @classmethod
    def fit(cls, train: "Table", options: ExtractOptions) -> Self:
        golds: list[Gold] = cls.read_targets(train, options)
        for row, gold in enumerate(golds):
            if gold.texts and gold.span is None:
                raise DataError(
                    f"the answer {_shown(gold.texts[0])} does not stand in its context, nor does"
                    " another of the question",
                    where=train.where(row),
                    do="correct it or take it out (in training: data.invalid=drop)",
                )
        if not any(gold.texts for gold in golds):
            raise DataError(
                "no training question has an answer",
                where=train.origin,
                do="is the answers column right? --columns answers=NAME",
            )
        return cls(options, no_answer=not all(gold.texts for gold in golds))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        return cls(
            cls.options_of(saved["settings"]),
            no_answer=bool(saved["no_answer"]),
            threshold=float(saved["threshold"]),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "no_answer": self.no_answer,
            "threshold": self.threshold,
            "settings": self.settings.model_dump(),
        }

    @classmethod
    def from_published(cls, published: Mapping[str, Any], family: Family) -> Self | None:
        """Recognise a published question-answering model.

        Such a model does not say whether it was trained on unanswerable questions, so "no answer"
        is allowed and given once it is more likely than any span.
        """
        own = any(name.endswith(TOKEN_CLASSES[SPAN]) for name in classes_of(published))
        if not own or SPAN not in family.heads or len(published.get("id2label") or "01") != 2:
            return None
        return cls(ExtractOptions(), no_answer=True)

    def published(self) -> dict[str, Any]:
        return {}  # these classes have two outputs unless the config says otherwise

    def output_names(self) -> list[str]:
        return ["start", "end"]

    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        if SPAN not in family.heads:
            return (
                f"transformers: no class for this head on {family.name}; AutoModel loads the body,"
                " and the head stays langue's."
            )
        return (
            "transformers: AutoModelForQuestionAnswering gives the same logits; windows, the best"
            " answers and the threshold of no answer are langue's."
        )

    # --- rows ---

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        """Return (context, answers, is_impossible) of each row."""
        marked = table.column_if_there("is_impossible") or [None] * len(table)
        return list(zip(table.column("context"), table.column("answers"), marked, strict=True))

    @classmethod
    def read_target(cls, value: Any, options: Any, where: Callable[[], str]) -> Gold:
        context, given, impossible = value
        if given is None and impossible:
            given = []
        if given is None or (not given and impossible is False):
            raise DataError(
                "the question has no answers",
                where=where(),
                do=(
                    "give them, or [] where its context does not answer it, or take the row out (in"
                    " training: data.invalid=drop)"
                ),
            )
        if given and impossible:
            raise DataError(
                "the question is marked is_impossible and has answers",
                where=where(),
                do="take one of them out (in training: data.invalid=drop)",
            )
        texts = tuple(replace_lone_surrogates(each["text"]) for each in given)
        if not all(text.strip() for text in texts):
            raise DataError(
                "an answer is empty",
                where=where(),
                do="take it out: [] where the context does not answer the question",
            )
        said = [int(each["start"]) for each in given]
        context = replace_lone_surrogates(context)
        starts = tuple(
            nearest_place(context, text, start) for text, start in zip(texts, said, strict=True)
        )
        moved = tuple(start not in (-1, own) for start, own in zip(starts, said, strict=True))
        return Gold(texts, starts, moved)

    def golds(self, table: "Table") -> list[Gold]:
        golds: list[Gold] = super().golds(table)
        self._notes += _notes_on_positions(table, golds)
        return golds

    @classmethod
    def usable_rows(cls, table: "Table", options: Any, ready: Task | None) -> list[int]:
        """Return the usable rows; training rows whose answers are not found in the context are
        excluded.
        """
        usable = super().usable_rows(table, options, ready)
        if ready is not None:
            return usable
        raw = cls.raw_targets(table)
        golds = {row: cls.read_target(raw[row], options, str) for row in usable}
        return [row for row in usable if not golds[row].texts or golds[row].span is not None]

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        """Return mappings with question and context, and the id if the table has one."""
        names = [each for each in ("id", "question", "context") if each in table.rows.column_names]
        columns = [table.column(name) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    @classmethod
    def texts(cls, table: "Table") -> list[str]:
        return [f"{question}\n{context}" for question, context in cls._pairs(table)]

    @staticmethod
    def _pairs(table: "Table") -> list[tuple[str, str]]:
        return list(zip(table.column("question"), table.column("context"), strict=True))

    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Any,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        encoded, cut = self._encoded(self._pairs(table), golds, tokenizer, data, config)
        kept = rows_with_tokens(table, encoded.rows_with_tokens(), data)
        if kept is not None:
            return self.encode_rows(kept, tokenizer, table, golds, data, config)
        if cut.any():
            first = table.where(int(np.flatnonzero(cut)[0]))
            self._notes.append(f"{table.origin}: {_cut_note(cut, data, config)}, first {first}")
        too_long = self._count_too_long(encoded)
        if too_long:
            self._notes.append(
                f"{table.origin}: {too_long:,} of {len(table):,} questions have an answer of more"
                f" than {self.settings.max_answer_tokens} tokens (task.max_answer_tokens), which"
                " can be learnt but is never given whole"
            )
        return table, encoded

    def encode_items(
        self,
        items: list[Any],
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
        as_texts: Callable[[list[Any]], Examples],
    ) -> Encoded:
        """Encode items: mappings with `question` and `context`, or pairs of the two."""
        rows = [_question_and_context(item, number) for number, item in enumerate(items, start=1)]
        encoded, cut = self._encoded(rows, None, tokenizer, data, config)
        if cut.any():
            warn(_cut_note(cut, data, config))
        return encoded

    def _encoded(
        self,
        rows: Sequence[tuple[Any, Any]],
        golds: Sequence[Gold] | None,
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple[Encoded, NDArray[np.int64]]:
        """Return the encoded rows, and how many tokens each row's question loses.

        A row without any tokens has no sequences.
        """
        filled = [row for row, pair in enumerate(rows) if not any(map(is_missing, pair))]
        while True:
            windows = encode_windows(
                tokenizer,
                [replace_lone_surrogates(rows[row][1]) for row in filled],
                [replace_lone_surrogates(rows[row][0]) for row in filled],
                max_length=min(data.max_length, config.max_length),
                stride=self.settings.stride,
                segments=config.n_segments > 1,
            )
            bare = {filled[place] for place in windows.row[windows.size == 0]}
            if not bare:
                break
            filled = [row for row in filled if row not in bare]
        check_vocabulary(tokenizer, windows.examples, config)
        row = np.asarray(filled, np.int64)[windows.row]
        cut = np.zeros(len(rows), np.int64)
        cut[filled] = windows.cut
        of_window = np.zeros(len(row), np.int32)
        ahead = np.diff(row, prepend=-1) != 0  # whether this is the first window of its row
        of_window[ahead] = cut[row[ahead]]
        texts = ["" if is_missing(pair[1]) else replace_lone_surrogates(pair[1]) for pair in rows]
        offsets = [np.zeros((0, 2), np.int32)] * len(rows)
        for place, own in zip(filled, offsets_of_texts(windows, len(filled)), strict=True):
            offsets[place] = own
        context = _Contexts(texts, offsets, windows)
        examples = replace(windows.examples, cut=of_window)
        if golds is not None:
            examples = examples.with_targets(_targets(context, row, golds))
        return Encoded(examples, len(rows), golds, row, context), cut

    def _count_too_long(self, encoded: Encoded) -> int:
        """Return the number of rows whose gold answer has more tokens than an answer may have."""
        context: _Contexts = encoded.context
        count = 0
        for offsets, gold in zip(context.offsets, encoded.golds or (), strict=False):
            first, last = _token_span(offsets, gold.span)
            count += last - first >= self.settings.max_answer_tokens
        return count

    def notes(self) -> list[str]:
        return self._notes

    def balance(self, golds: Any) -> dict[str, float]:
        answered = sum(bool(gold.texts) for gold in golds)
        without = len(golds) - answered
        counts: dict[str, float] = {"with an answer": answered}
        return counts | ({"without one": without} if without else {})

    def show_target(self, gold: Gold) -> str:
        if not gold.texts:
            return "(no answer)"
        return " | ".join(_shown(text) for text in dict.fromkeys(gold.texts))

    # --- training ---

    def head(self, config: ModelConfig, pad: int | None = None) -> Head:
        return SpanHead(config, dropout=self.settings.dropout)

    def head_kind(self, family: Family) -> str:
        return SPAN

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Return the mean of the start and end cross-entropies over the tokens of each window,
        summed.

        outputs (T, 2); targets (N, 2): the two positions in each window. If a window does not
        contain the answer, both targets are its first token.
        """
        assert batch.targets is not None
        logarithms = sequence_log_softmax(outputs, batch.starts)  # (T, 2)
        places = batch.starts[:-1, None] + batch.targets  # (N, 2)
        true = logarithms.gather(0, places)  # (N, 2)
        return -true.sum() / 2, float(len(batch))

    def metric_names(self) -> list[str]:
        return [EXACT, F1]

    def default_best(self) -> str:
        return F1

    @property
    def settles_on_dev(self) -> bool:
        return self.no_answer and self.settings.no_answer_threshold is None

    def settle_on_dev(self, golds: Any, predictions: Any) -> None:
        """Choose the no-answer threshold that maximizes the checkpoint metric on dev, as SQuAD
        2.0's script does.

        It stays 0 if dev does not have both answerable and unanswerable questions.
        """
        answerable = np.array([bool(gold.texts) for gold in golds])
        if answerable.all() or not answerable.any():
            self._notes.append(
                "dev does not have questions both with and without an answer: the threshold of no"
                " answer stays 0"
            )
            return
        given = [each.spans[0].text if each.spans else "" for each in predictions]
        scores = answers.score([gold.texts for gold in golds], given)
        chosen = scores.exact if self.best == EXACT else scores.f1
        odds = np.array([each.odds for each in predictions])
        self.threshold = answers.best_threshold(chosen, odds, answerable)

    # --- predicting ---

    def decode(self, outputs: Tensor, batch: Batch) -> Any:
        """Return the logits (t, 2) of each sequence's tokens."""
        scores = outputs.float().cpu().numpy()
        return np.split(scores, batch.starts[1:-1].tolist())

    def merge(self, sequences: Any, encoded: Encoded) -> list[Answered]:
        """Return the best answers of each row from the logits of all its windows."""
        context: _Contexts = encoded.context
        shown = context.windows
        assert encoded.row is not None
        bounds = np.searchsorted(encoded.row, np.arange(encoded.n_rows + 1))
        found = []
        for row in range(encoded.n_rows):
            windows = []
            nothing = math.inf
            for place in range(bounds[row], bounds[row + 1]):
                scores = sequences[place].astype(np.float64)
                begin = int(shown.begin[place])
                own = scores[begin : begin + int(shown.size[place])]
                windows.append((int(shown.first[place]), own))
                # as in the published recipe, the window with the lowest null score counts
                nothing = min(nothing, float(scores[0].sum()))
            found.append(
                best_answers(
                    context.texts[row],
                    context.offsets[row],
                    windows,
                    longest=self.settings.max_answer_tokens,
                    count=self.settings.n_best,
                    nothing=nothing if self.no_answer else None,
                )
            )
        return found

    def _final_answer(self, prediction: Answered) -> Span:
        """Return the final answer; an empty text means that there is none."""
        if not prediction.spans or prediction.odds > self.threshold:
            return Span("", 0, 0, prediction.nothing)
        return prediction.spans[0]

    def show(self, prediction: Answered, top: int | None) -> list[dict[str, Any]]:
        """Return the candidates, most probable first; "no answer" is one of them if it is
        allowed.
        """
        shown = list(prediction.spans)
        if self.no_answer or not shown:
            shown.append(Span("", 0, 0, prediction.nothing))
        shown.sort(key=lambda span: -span.score)
        return [span.as_json() for span in shown[:top]]

    def answer(self, prediction: Answered) -> Any:
        """Return the final answer, which because of the threshold is not always the most probable
        candidate.
        """
        return self._final_answer(prediction).as_json()

    # --- judging ---

    def _scores(self, golds: Any, predictions: Any) -> answers.Scores:
        given = [self._final_answer(each).text for each in predictions]
        return answers.score([gold.texts for gold in golds], given)

    def measure(self, golds: Any, predictions: Any) -> Measure:
        scores = self._scores(golds, predictions)

        def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            total = weights.sum(axis=0)
            return {EXACT: scores.exact @ weights / total, F1: scores.f1 @ weights / total}

        return measure

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        found = super().judge(golds, predictions, main, seed=seed)
        scores = self._scores(golds, predictions)
        exact = clopper_pearson(int(scores.exact.sum()), len(golds))
        found = replace(found, intervals={**found.intervals, EXACT: exact})
        if not self.no_answer:
            return found
        answerable = np.array([bool(gold.texts) for gold in golds])
        rows: list[list[judgement.Cell]] = []
        for name, own in (("with an answer", answerable), ("without one", ~answerable)):
            of_kind = [
                float(each[own].mean()) if own.any() else None for each in (scores.exact, scores.f1)
            ]
            rows.append([name, *of_kind, int(own.sum())])
        table = judgement.Table(
            title="By kind of question",
            columns=("", "exact match", "F1", "questions"),
            rows=rows,
            shares=(1, 2),
            bar=2,
        )
        chosen = "" if self.settings.no_answer_threshold is not None else ", chosen on dev"
        return replace(
            found,
            sections=(table,),
            notes=(
                *found.notes,
                "no answer is given where its log odds to the best answer are over"
                f" {self.threshold:.4g}{chosen}",
            ),
            settled={"no_answer_threshold": self.threshold},
        )

    def mistakes(
        self, table: "Table", golds: Any, predictions: Any, limit: int = 20
    ) -> judgement.Examples | None:
        f1 = self._scores(golds, predictions).f1
        given = [self._final_answer(each) for each in predictions]
        wrong = np.flatnonzero(f1 < 1).tolist()
        order = sorted(wrong, key=lambda row: (f1[row], -given[row].score, row))[:limit]
        chosen = table.select(order)
        rows = []
        for row, question, context in zip(
            order, chosen.column("question"), chosen.column("context"), strict=True
        ):
            passage = judgement.Passage(context, _highlights(golds[row], given[row]))
            cells = (
                self.show_target(golds[row]),
                given[row].text or "(no answer)",
                given[row].score,
                float(f1[row]),
            )
            rows.append(judgement.Example([judgement.Passage(question), passage], cells))
        return judgement.Examples(
            title="Worst mistakes",
            columns=("true", "given", "confidence", "F1"),
            rows=rows,
            texts_are="question and context",
            shares=(2, 3),
            note="The surest of the answers that share least with the true ones first.",
        )

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline | None:
        """Return the context's sentence that is most similar to the question; or "no answer" for
        every question if that scores higher on the training rows.
        """
        began = time.perf_counter()
        sentences = NearestSentence([*train[0].column("context"), *test[0].column("context")])
        name = "sentence nearest by tf-idf"
        predictions = _nearest_sentences(sentences, test[0])
        if self.no_answer:
            none = [Answered([], 1.0, math.inf)]
            own = self.metrics(train[1], _nearest_sentences(sentences, train[0]))[metric] or 0.0
            without = self.metrics(train[1], none * len(train[1]))[metric] or 0.0
            if without > own:
                name = "no answer to any question"
                predictions = none * len(test[1])
        metrics = self.metrics(test[1], predictions)
        return Baseline(name, metrics, predictions, round(time.perf_counter() - began, 3))

    def systems(self, golds: Any, predictions: Any, baseline: Baseline, metric: str) -> Systems:
        found = super().systems(golds, predictions, baseline, metric)
        if metric != EXACT:
            return found
        sides = [
            self._scores(golds, each).exact > 0 for each in (predictions, baseline.predictions)
        ]
        return replace(found, exact_p_value=mcnemar(*sides))


def nearest_place(context: str, text: str, start: int) -> int:
    """Return the occurrence of the text in the context nearest to `start`; -1 if there is none."""
    if start >= 0 and context.startswith(text, start):
        return start
    behind = context.find(text, max(start, 0))
    before = context.rfind(text, 0, start - 1 + len(text)) if start > 0 else -1
    if behind < 0 or before < 0:
        return max(behind, before)
    return behind if behind - start < start - before else before


# --- windows ---


def _token_span(offsets: NDArray[np.int32], span: tuple[int, int] | None) -> tuple[int, int]:
    """Return the first and last token that overlap a span; last < first if there is none."""
    if span is None:
        return 0, -1
    first = int(np.searchsorted(offsets[:, 1], span[0], side="right"))
    last = int(np.searchsorted(offsets[:, 0], span[1], side="left")) - 1
    return first, last


def _targets(
    context: _Contexts, row: NDArray[np.int64], golds: Sequence[Gold]
) -> NDArray[np.int64]:
    """Return the start and end position (n, 2) of the answer in each window; 0, the first token, if
    the window does not contain the whole answer.
    """
    shown = context.windows
    targets = np.zeros((len(row), 2), np.int64)
    for place, each in enumerate(row.tolist()):
        first, last = _token_span(context.offsets[each], golds[each].span)
        of_window = int(shown.first[place])
        if of_window <= first <= last < of_window + int(shown.size[place]):
            ahead = int(shown.begin[place]) - of_window
            targets[place] = first + ahead, last + ahead
    return targets


def _nearest_sentences(nearest: NearestSentence, table: "Table") -> list[Answered]:
    """Return, for each question, the most similar sentence of its context."""
    found = []
    for question, context in Extract._pairs(table):
        start, end = nearest.find(question, context)
        found.append(Answered([Span(context[start:end], start, end, 1.0)]))
    return found


# --- what people are told ---


def _question_and_context(item: Any, number: int) -> tuple[Any, Any]:
    """Return the question and context of an item; raise ModelError if it has another form."""
    if isinstance(item, Mapping) and {"question", "context"} <= item.keys():
        pair = item["question"], item["context"]
    elif isinstance(item, list | tuple) and len(item) == 2:
        pair = item[0], item[1]
    else:
        pair = 0, 0
    if not all(isinstance(each, str) or each is None or each != each for each in pair):
        raise ModelError(
            f"item {number} is no question with its context",
            do='give {"question": "...", "context": "..."}, or (question, context)',
        )
    return pair


def _notes_on_positions(table: "Table", golds: Sequence[Gold]) -> list[str]:
    """Return notes on answers that are not at the position that the data gives."""
    total = sum(len(gold.texts) for gold in golds)
    moved = [row for row, gold in enumerate(golds) for each in gold.moved if each]
    absent = [row for row, gold in enumerate(golds) for start in gold.starts if start < 0]
    notes = []
    for rows, what in (
        (moved, "do not stand at their start and are taken from the nearest place where they do"),
        (absent, "do not stand in their context: not learnt, true all the same in the scores"),
    ):
        if rows:
            first = [table.where(row) for row in dict.fromkeys(rows)]
            more = f" and {len(first) - NAMED:,} more" if len(first) > NAMED else ""
            named = "; ".join(first[:NAMED])
            notes.append(
                f"{table.origin}: {len(rows):,} of {total:,} answers {what} ({named}{more})"
            )
    return notes


def _cut_note(cut: NDArray[np.int64], data: DataSettings, config: ModelConfig) -> str:
    count = int((cut > 0).sum())
    are = "question is" if count == 1 else "questions are"
    room = min(data.max_length, config.max_length)
    return (
        f"{count:,} of {len(cut):,} {are} too long for a window of {room:,} tokens"
        f" (data.max_length): {int(cut.sum()):,} tokens at the end are left out"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _highlights(gold: Gold, given: Span) -> list[judgement.Highlight]:
    """Return highlights of the gold answers and of the predicted one."""
    true = {
        (start, start + len(text))
        for text, start in zip(gold.texts, gold.starts, strict=True)
        if start >= 0
    }
    said = (given.start, given.end)
    found = [judgement.Highlight(*span, kind="missed") for span in sorted(true - {said})]
    if given.text:
        kind: judgement.HighlightKind = "right" if said in true else "wrong"
        found.append(judgement.Highlight(*said, kind=kind))
    return sorted(found, key=lambda each: (each.start, each.end))

"""Token-level tagging: takes the words of a text; returns a tag for each word, such as an entity
type or a part of speech.

Words are joined to a text, which is split into windows if it is long, and the first token of a word
carries its tag (Devlin et al. 2018, section 5.3). Tags are decoded jointly, so that no invalid
sequence is returned; `task.crf` also learns transition scores between tags (Lample et al. 2016,
arXiv:1603.01360). Tagging schemes are defined in langue/text/tags.py.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from langue.data.batch import Batch, Examples
from langue.data.encode import check_vocabulary
from langue.data.encoded import Encoded
from langue.data.windows import encode_windows, places_of_words
from langue.errors import DataError, ModelError
from langue.hub.checkpoint import classes_of
from langue.hub.family import Family
from langue.model.config import ModelConfig
from langue.model.heads import Head
from langue.model.token_heads import (
    ChainScores,
    TokenHead,
    chain_loss,
    constrained,
    marginals,
    viterbi,
)
from langue.settings.sections import DataSettings, Section
from langue.statistics.metrics import Measure
from langue.tasks import judgement
from langue.tasks.columns import Columns
from langue.tasks.judgement import Judgement
from langue.tasks.task import Baseline, Task, rows_with_tokens
from langue.text.quality.script import mostly_unspaced
from langue.text.read.parse import replace_lone_surrogates
from langue.text.tags import (
    SCHEMES,
    Entity,
    Gazetteer,
    MostFrequentTag,
    Scheme,
    allowed_edges,
    count_entities,
    count_tags,
    entities_of,
    find_scheme,
    normalised,
    precision_recall_f1,
    prefixed,
    split_tag,
    tags_of_spans,
    words_of,
)
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.text.read.source import Table


SEARCHED = 1 << 22  # label-pair scores of one Viterbi batch, which bounds the memory


class TagOptions(Section):
    scheme: Literal["auto", "io", "iob2", "iobes"] = Field(
        default="auto",
        description=(
            "tagging scheme in training and in the saved model; auto: the scheme of the"
            " data, but iob2 for IOB1 and iobes for BILOU"
        ),
    )
    join: Literal["auto", "space", "none"] = Field(
        default="auto",
        description="how words are joined; auto: without a space in scripts that write none",
    )
    stride: int = Field(
        default=64, ge=0, description="overlap of the windows of a long text, in tokens"
    )
    crf: bool = Field(
        default=False,
        description=(
            "add a conditional random field, which learns the transitions between tags;"
            " transformers cannot load it"
        ),
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the head")


@dataclass(frozen=True)
class Tagged:
    """The words of a text, with the predicted tag of each and its probability."""

    text: str
    spans: list[tuple[int, int]]  # character offsets of each word
    tags: list[str]
    scores: list[float]


@dataclass(frozen=True)
class _Words:
    """What maps token sequences back to the words of their rows."""

    texts: list[str]
    spans: list[list[tuple[int, int]]]  # for each row, the character offsets of its words
    starts: NDArray[np.int64]  # (rows + 1,) index of each row's first word among all words
    word: list[NDArray[np.int64]]  # for each sequence, the words of its labelled tokens
    # (k, 2) words that begin in the first token of another word, and that other word
    sharing: NDArray[np.int64]
    without: int  # words in which no token begins


class _Scores(NamedTuple):
    """The scores kept for a sequence."""

    words: NDArray[np.float32]  # (m, C) log-probabilities of the labels of its words
    edges: Tensor | None  # (C + 1, C + 1) transition scores of the CRF, the same for all sequences


class Tag(Task):
    """Named entities, parts of speech, and other tasks with one tag for each word."""

    name = "tag"
    result = "spans"
    Options = TagOptions
    columns = Columns(
        required=("tokens", "tags"),
        target="tags",
        proportional=False,
        synonyms={
            "tokens": ("words", "sentence", "text"),
            "tags": ("ner_tags", "pos_tags", "labels", "ner", "pos", "upos"),
        },
    )
    takes_texts = False
    settings: TagOptions

    def __init__(
        self, labels: list[str], scheme: Scheme | None, separator: str, settings: TagOptions
    ) -> None:
        """scheme: None for plain tags, such as parts of speech. separator: the string between
        words.
        """
        self.labels = labels
        self.index = {label: place for place, label in enumerate(labels)}
        self.scheme = scheme
        self.separator = separator
        self.settings = settings
        self.allowed = allowed_edges(labels, scheme)
        self.primary_metric = "accuracy" if scheme is None else "f1"
        self.best = self.primary_metric
        self.main_metric = self.primary_metric
        self._notes: list[str] = []

    # --- what the training rows define ---

    @classmethod
    def fit(cls, train: "Table", options: TagOptions) -> Self:
        raw = cls.read_targets(train, options)
        scheme = find_scheme(raw, train.where)
        notes: list[str] = []
        if scheme is None:
            if options.scheme != "auto":
                raise DataError(
                    f"task.scheme = {options.scheme}, and the tags mark no entities",
                    where=train.origin,
                    do="leave task.scheme out: tags without B- and I- are taken as they are",
                )
            labels = sorted({tag for tags in raw for tag in tags})
        else:
            scheme = scheme if options.scheme == "auto" else SCHEMES[options.scheme]
            entities = [entities_of(prefixed(tags)) for tags in raw]
            types = sorted({entity.type for found in entities for entity in found})
            labels = scheme.labels(types)
            changed = sum(normalised(tags, scheme)[1] for tags in raw)
            if changed:
                notes.append(f"train: {changed:,} tags were rewritten as {scheme.name} has them")
        if len(labels) < 2:
            raise DataError(
                "every training word has the same tag",
                where=train.origin,
                do="there is nothing to tell apart; is the tags column right? --columns tags=NAME",
            )
        task = cls(labels, scheme, _separator(train, options), options)
        task._notes = notes
        return task

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        scheme = saved["scheme"]
        return cls(
            [str(label) for label in saved["labels"]],
            None if scheme is None else SCHEMES[scheme],
            str(saved["separator"]),
            cls.options_of(saved["settings"]),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "labels": self.labels,
            "scheme": None if self.scheme is None else self.scheme.name,
            "separator": self.separator,
            "settings": self.settings.model_dump(),
        }

    @classmethod
    def from_published(cls, published: Mapping[str, Any], family: Family) -> Self | None:
        """Recognise a published token classifier; its words are separated by blanks.

        The labels do not show whether the model uses IOB1 or IOB2, so no tag sequence is ruled out,
        and `entities_of` interprets whatever is predicted.
        """
        if not any(name.endswith("ForTokenClassification") for name in classes_of(published)):
            return None
        names = published.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
        labels = [str(names[key]) for key in sorted(names, key=int)]
        scheme = find_scheme([labels])
        task = cls(labels, scheme, " ", TagOptions())
        task.allowed = allowed_edges(labels, None)
        return task

    def published(self) -> dict[str, Any]:
        return {
            "id2label": {str(place): label for place, label in enumerate(self.labels)},
            "label2id": self.index,
        }

    def has_outputs_of(self, saved: Mapping[str, Any]) -> bool:
        return super().has_outputs_of(saved) and saved.get("labels") == self.labels

    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        if TOKEN not in family.heads:
            return (
                f"transformers: no class for this head on {family.name}; AutoModel loads the body,"
                " and the head stays langue's."
            )
        same = (
            "transformers: AutoModelForTokenClassification gives the same logits; the tag of a word"
            " is that of the token in which it begins, and invalid sequences are ruled out here"
            " alone."
        )
        if not self.settings.crf:
            return same
        return (
            f"{same} It leaves out, with a warning, how well tags follow each other (head.crf.* of"
            " model.safetensors), so that its likeliest tags are not those that langue gives."
        )

    # --- rows ---

    @classmethod
    def read_target(cls, value: Any, options: TagOptions, where: Callable[[], str]) -> Any:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise DataError(
                f"the tags are {type(value).__name__}, not a list",
                where=where(),
                do='give one tag a word: ["B-PER", "O"]',
            )
        for tag in value:
            if not isinstance(tag, str) or not tag.strip():
                raise DataError(
                    f"the tag {tag!r} is empty or no text",
                    where=where(),
                    do="give one tag a word, O for none (in training: data.invalid=drop)",
                )
        return list(value)

    def known_target(self, target: Any, where: Callable[[], str]) -> Any:
        tags = target
        if self.scheme is not None:
            tags, _ = normalised(target, self.scheme)
        for tag in tags:
            if tag not in self.index:
                raise DataError(
                    f"the tag {tag!r} was not seen in training",
                    where=where(),
                    do=(
                        f"known tags: {', '.join(self.labels[:12])}; correct it or take it out (in"
                        " training: data.invalid=drop)"
                    ),
                )
        return tags

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        """Return lists of tags, or of spans if the table has spans of texts."""
        return table.column("tags" if "tags" in table.rows.column_names else "spans")

    @classmethod
    def read_targets(cls, table: "Table", options: Any) -> list[Any]:
        """Return the tags of each row, derived from the spans of its text if the table has no
        tags.
        """
        if "tags" in table.rows.column_names:
            return super().read_targets(table, options)
        rows = zip(table.column("text"), table.column("spans"), strict=True)
        return [
            tags_of_spans(text, spans, partial(table.where, row))
            for row, (text, spans) in enumerate(rows)
        ]

    @classmethod
    def usable_rows(cls, table: "Table", options: Any, ready: Task | None) -> list[int]:
        if "tags" in table.rows.column_names:
            return super().usable_rows(table, options, ready)
        usable = []
        for row, text in enumerate(table.column("text")):
            try:
                tags = tags_of_spans(text, table.column("spans")[row], str)
                if ready is not None:
                    ready.known_target(tags, str)
            except DataError:
                continue
            usable.append(row)
        return usable

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        """Return lists of words, or texts."""
        there = "tokens" if "tokens" in table.rows.column_names else "text"
        return table.column(there)

    @classmethod
    def texts(cls, table: "Table") -> list[str]:
        rows = cls.items(table)
        return [row if isinstance(row, str) else " ".join(row) for row in rows]

    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Any,
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        rows = self.items(table)
        usable = np.array([_fault(words) is None for words in rows], bool)
        kept = rows_with_tokens(table, usable, data, lambda row: str(_fault(rows[row])))
        if kept is not None:
            return self.encode_rows(kept, tokenizer, table, golds, data, config)
        encoded = self._encoded(rows, golds, tokenizer, data, config)
        self._notes += _notes_on_words(table.origin, encoded)
        return table, encoded

    def encode_items(
        self,
        items: list[Any],
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
        as_texts: Callable[[list[Any]], Examples],
    ) -> Encoded:
        """Encode items: lists of words, or texts, which are split at blanks (or into characters in
        scripts without blanks).
        """
        rows: list[Any] = []
        for number, item in enumerate(items):
            words = item.get("tokens", item.get("text")) if isinstance(item, Mapping) else item
            if isinstance(words, str):
                rows.append(replace_lone_surrogates(words))
            elif isinstance(words, Sequence) and all(map(_is_text, words)):
                rows.append([replace_lone_surrogates(word) for word in words])
            else:
                raise ModelError(
                    f"item {number + 1} is neither a text nor a list of words",
                    do='give "a text" or ["its", "words"]',
                )
        return self._encoded(rows, None, tokenizer, data, config)

    def _encoded(
        self,
        rows: list[Any],
        golds: Any,
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
    ) -> Encoded:
        joined = [self._joined(words) for words in rows]
        texts = [text for text, _ in joined]
        spans = [own for _, own in joined]
        windows = encode_windows(
            tokenizer,
            texts,
            max_length=min(data.max_length, config.max_length),
            stride=self.settings.stride,
        )
        check_vocabulary(tokenizer, windows.examples, config)
        starts = np.cumsum([0, *map(len, spans)])
        labels = np.full(len(windows.examples.tokens), -1, np.int32)
        word_of = np.full(len(labels), -1, np.int64)
        sharing = [np.zeros((0, 2), np.int64)]
        without = 0
        for row, places in enumerate(places_of_words(windows, spans)):
            words = np.flatnonzero(places >= 0)
            without += len(places) - len(words)
            # Two words may begin in the same token, which then carries the tag of the first.
            tokens, first, which = np.unique(places[words], return_index=True, return_inverse=True)
            owners = words[first][which]
            pairs = np.stack([words, owners], axis=1)
            sharing.append(starts[row] + pairs[words != owners])
            word_of[tokens] = starts[row] + words[first]
            labels[tokens] = 0
            if golds is not None:
                labels[tokens] = [self.index[golds[row][word]] for word in words[first]]
        bounds = windows.examples.starts
        parts = [word_of[begin:end] for begin, end in zip(bounds, bounds[1:], strict=False)]
        context = _Words(
            texts=texts,
            spans=spans,
            starts=starts,
            word=[part[part >= 0] for part in parts],
            sharing=np.concatenate(sharing),
            without=without,
        )
        examples = replace(windows.examples, labels=labels)
        if self.settings.crf:
            examples = examples.with_targets(_covers_ends(windows.row))
        return Encoded(examples, len(rows), golds, windows.row, context)

    def _joined(self, words: str | list[str]) -> tuple[str, list[tuple[int, int]]]:
        """Return a row as one text, and the character offsets of its words."""
        if isinstance(words, str):
            return words, words_of(words)
        spans = []
        begin = 0
        for word in words:
            spans.append((begin, begin + len(word)))
            begin += len(word) + len(self.separator)
        return self.separator.join(words), spans

    def _words(self, row: str | list[str]) -> list[str]:
        text, spans = self._joined(row)
        return [text[begin:end] for begin, end in spans]

    def notes(self) -> list[str]:
        return self._notes

    def balance(self, golds: Any) -> dict[str, float]:
        counts: Counter[str] = Counter()
        for tags in golds:
            if self.scheme is None:
                counts.update(tags)
            else:
                counts.update(entity.type for entity in entities_of(tags))
        return dict(counts.most_common())

    def show_target(self, gold: Any) -> str:
        if self.scheme is None:
            return " ".join(gold)
        found = [f"{each.type} {each.start + 1}-{each.end}" for each in entities_of(gold)]
        return ", ".join(found) or "(no entity)"

    # --- training ---

    def head(self, config: ModelConfig, pad: int | None = None) -> Head:
        chosen = self.settings
        return TokenHead(config, len(self.labels), dropout=chosen.dropout, crf=chosen.crf)

    def head_kind(self, family: Family) -> str:
        return TOKEN

    def loss(self, outputs: Tensor | ChainScores, batch: Batch) -> tuple[Tensor, float]:
        """Return the summed negative log-likelihood of the words' tags, and their number.

        outputs (T, C), labels (M,). Without a CRF the tags are independent; with one, the
        likelihood is that of each sequence's tags together.
        """
        labels = batch.labels
        assert labels is not None
        scores = _word_scores(self.logits(outputs), batch)
        if isinstance(outputs, ChainScores):
            chain = ChainScores(scores, outputs.edges)
            offsets = _word_offsets(batch)
            loss = chain_loss(chain, labels, offsets, batch.targets).sum()
        else:
            loss = F.cross_entropy(scores, labels, reduction="sum")
        return loss, float(len(labels))

    def logits(self, outputs: Tensor | ChainScores) -> Tensor:
        return outputs.emissions if isinstance(outputs, ChainScores) else outputs

    def metric_names(self) -> list[str]:
        if self.scheme is None:
            return ["accuracy", "f1_macro"]
        return ["precision", "recall", "f1", "f1_macro", "accuracy"]

    def default_best(self) -> str:
        return "accuracy" if self.scheme is None else "f1"

    # --- predicting ---

    def decode(self, outputs: Tensor | ChainScores, batch: Batch) -> list[_Scores]:
        scores = _word_scores(self.logits(outputs), batch).float()
        # The CRF's probabilities do not change if all emissions of a word are shifted by a
        # constant.
        logarithms = scores.log_softmax(-1).cpu().numpy()
        edges = outputs.edges.cpu() if isinstance(outputs, ChainScores) else None
        bounds = _word_offsets(batch).cpu().numpy()
        return [_Scores(part, edges) for part in np.split(logarithms, bounds[1:-1])]

    def merge(self, sequences: list[_Scores], encoded: Encoded) -> list[Tagged]:
        """Return the best valid tags of each row, from the scores of the words in all its
        windows.
        """
        words: _Words = encoded.context
        count = len(self.labels)
        # A word without a token, such as a zero-width space, gets a uniform distribution.
        scores = np.full((words.starts[-1], count), -np.log(count))
        for word, found in zip(words.word, sequences, strict=True):
            scores[word] = found.words
        word, owner = words.sharing.T
        scores[word] = self._continued(scores[owner])
        edges = next((found.edges for found in sequences), None)
        best, probability = self._best(scores, words.starts, edges)
        tags = [self.labels[place] for place in best]
        predictions = []
        for row, (begin, end) in enumerate(zip(words.starts, words.starts[1:], strict=False)):
            part = slice(begin, end)
            own = probability[part].tolist()
            predictions.append(Tagged(words.texts[row], words.spans[row], tags[part], own))
        return predictions

    def _continued(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores (k, C) of words that share their first token with an earlier word with
        the given scores: of the same type, and inside the entity.
        """
        if self.scheme is None:
            return scores
        split = [split_tag(label) for label in self.labels]
        begins = {self.scheme.first, self.scheme.only} - {self.scheme.middle}
        found = np.full(scores.shape, -np.inf)
        for place, (prefix, kind) in enumerate(split):
            if prefix not in begins:
                same = [other for other, (_, its) in enumerate(split) if its == kind]
                found[:, place] = np.logaddexp.reduce(scores[:, same], axis=1)
        return found

    def _best(
        self, scores: NDArray[np.float64], starts: NDArray[np.int64], edges: Tensor | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the best valid labels (W,) of all rows' words, and the probability of each.

        scores (W, C), starts (rows + 1,). Without CRF edges, the argmax of each word is optimal
        wherever it forms a valid sequence, so that only the other rows need the Viterbi search.
        """
        count = len(self.labels)
        best = scores.argmax(axis=1)
        rows = np.flatnonzero(np.diff(starts) > 0)
        if edges is None:
            before = np.roll(best, 1)
            before[starts[rows]] = count
            wrong = ~self.allowed[before, best]
            wrong[starts[rows + 1] - 1] |= ~self.allowed[best[starts[rows + 1] - 1], count]
            rows = rows[np.logical_or.reduceat(wrong, starts[rows])] if len(rows) else rows
            edges = torch.zeros(count + 1, count + 1)
            joint = None
        else:
            joint = np.zeros(len(best))
        edges = constrained(edges.double(), torch.from_numpy(self.allowed))
        step = max(1, SEARCHED // count**2)
        for begin in range(0, len(rows), step):
            some = rows[begin : begin + step]
            places = np.concatenate([np.arange(starts[row], starts[row + 1]) for row in some])
            offsets = torch.from_numpy(np.cumsum([0, *np.diff(starts)[some]]))
            chain = ChainScores(torch.from_numpy(scores[places]), edges)
            found = viterbi(chain, offsets)
            best[places] = found.numpy()
            if joint is not None:
                joint[places] = marginals(chain, offsets).gather(1, found[:, None])[:, 0].numpy()
        return best, np.exp(scores[np.arange(len(best)), best]) if joint is None else joint

    def show(self, prediction: Tagged, top: int | None) -> list[dict[str, Any]]:
        if self.scheme is None:
            return [
                {
                    "entity": tag,
                    "score": score,
                    "index": number,
                    "word": prediction.text[begin:end],
                    "start": begin,
                    "end": end,
                }
                for number, (tag, score, (begin, end)) in enumerate(
                    zip(prediction.tags, prediction.scores, prediction.spans, strict=True)
                )
            ]
        shown = []
        for entity in entities_of(prefixed(prediction.tags)):
            begin = prediction.spans[entity.start][0]
            end = prediction.spans[entity.end - 1][1]
            score = float(np.mean(prediction.scores[entity.start : entity.end]))
            word = prediction.text[begin:end]
            shown.append(
                {
                    "entity_group": entity.type,
                    "score": score,
                    "word": word,
                    "start": begin,
                    "end": end,
                }
            )
        return shown

    def answer(self, prediction: Tagged) -> Any:
        return self.show(prediction, None)

    # --- judging ---

    def measure(self, golds: Any, predictions: Any) -> Measure:
        tags = [prediction.tags for prediction in predictions]
        right = np.array([_count_equal(gold, own) for gold, own in zip(golds, tags, strict=True)])
        words = np.array([len(each) for each in golds])

        def accuracy(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            return (right @ weights) / np.maximum(words @ weights, 1)

        if self.scheme is None:
            counts = count_tags(golds, tags)
        else:
            true = [entities_of(each) for each in golds]
            counts = count_entities(true, [entities_of(prefixed(each)) for each in tags])

        def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
            sides = [side.T @ weights for side in (counts.right, counts.predicted, counts.true)]
            macro = precision_recall_f1(*sides)["f1"].mean(axis=0)  # (R,)
            if self.scheme is None:
                return {"accuracy": accuracy(weights), "f1_macro": macro}
            micro = precision_recall_f1(*(side.sum(axis=0) for side in sides))
            return {**micro, "f1_macro": macro, "accuracy": accuracy(weights)}

        return measure

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        found = super().judge(golds, predictions, main, seed=seed)
        tags = [prediction.tags for prediction in predictions]
        if self.scheme is None:
            counts = count_tags(golds, tags)
        else:
            true = [entities_of(each) for each in golds]
            counts = count_entities(true, [entities_of(prefixed(each)) for each in tags])
        sides = [side.sum(axis=0) for side in (counts.right, counts.predicted, counts.true)]
        shares = precision_recall_f1(*sides)
        rows: list[list[judgement.Cell]] = []
        for place, kind in enumerate(counts.types):
            of_kind = [float(share[place]) for share in shares.values()]
            rows.append([kind, *of_kind, int(sides[2][place])])
        table = judgement.Table(
            title="By tag" if self.scheme is None else "By type of entity",
            columns=("", "precision", "recall", "F1", "examples"),
            rows=rows,
            shares=(1, 2, 3),
            bar=3,
        )
        return replace(found, sections=(table,))

    def mistakes(
        self, table: "Table", golds: Any, predictions: Any, limit: int = 20
    ) -> judgement.Examples | None:
        if self.scheme is None:
            return None
        found = []
        for gold, prediction in zip(golds, predictions, strict=True):
            true = set(entities_of(gold))
            said = set(entities_of(prefixed(prediction.tags)))
            if true != said:
                score = max(prediction.scores)
                found.append((len(true ^ said), score, _passage(prediction, true, said)))
        found.sort(key=lambda each: (-each[0], -each[1]))
        return judgement.Examples(
            title="Worst mistakes",
            columns=("wrong or missed",),
            rows=[judgement.Example([passage], [count]) for count, _, passage in found[:limit]],
            note="Texts with the most entities that are wrong or missed.",
        )

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline | None:
        began = time.perf_counter()
        golds = train[1]
        words = [self._words(row) for row in self.items(train[0])]
        rows = self.items(test[0])
        tested = [self._words(row) for row in rows]
        if self.scheme is None:
            name = "most frequent tag of each word"
            tags = [MostFrequentTag(words, golds).find(each) for each in tested]
        else:
            name = "gazetteer of the training entities"
            gazetteer = Gazetteer(words, [entities_of(each) for each in golds])
            tags = [self.scheme.write(gazetteer.find(each), len(each)) for each in tested]
        predictions = []
        for row, own in zip(rows, tags, strict=True):
            text, spans = self._joined(row)
            predictions.append(Tagged(text, spans, own, [1.0] * len(own)))
        metrics = self.metrics(test[1], predictions)
        return Baseline(name, metrics, predictions, round(time.perf_counter() - began, 3))


TOKEN = "token"  # the kind of head with logits for each token, as families name it


def _passage(prediction: Tagged, true: set[Entity], said: set[Entity]) -> judgement.Passage:
    """Return a text with its entities marked as correct, wrong or missed."""
    kinds = {"right": true & said, "wrong": said - true, "missed": true - said}
    highlights = []
    for kind, entities in kinds.items():
        for entity in entities:
            begin = prediction.spans[entity.start][0]
            end = prediction.spans[entity.end - 1][1]
            highlights.append(judgement.Highlight(begin, end, entity.type, kind))  # type: ignore[arg-type]
    highlights.sort(key=lambda each: (each.start, each.end))
    return judgement.Passage(prediction.text, highlights)


def _word_scores(scores: Tensor, batch: Batch) -> Tensor:
    """Return the scores (M, C), out of all (T, C), of the first tokens of words."""
    return scores if batch.places is None else scores[batch.places]


def _word_offsets(batch: Batch) -> Tensor:
    """Return the index (N + 1,) of each sequence's first word among the M words of a batch."""
    return batch.starts if batch.places is None else torch.searchsorted(batch.places, batch.starts)


def _covers_ends(row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each window starts and ends where its row's text does: (n,) -> (n, 2)."""
    other = np.diff(row) != 0
    return np.stack([np.append(True, other), np.append(other, True)], axis=1)[: len(row)]


def _notes_on_words(origin: str, encoded: Encoded) -> list[str]:
    """Return notes on long texts, and on words without a token of their own."""
    words: _Words = encoded.context
    assert encoded.row is not None
    windows = np.bincount(encoded.row, minlength=1)
    several = windows[windows > 1]
    notes = []
    if len(several):
        notes.append(
            f"{origin}: {len(several):,} of {len(encoded):,} texts are longer than the model reads"
            f" at once, and are read in {several.sum():,} windows"
        )
    if len(words.sharing):
        notes.append(
            f"{origin}: {len(words.sharing):,} of {words.starts[-1]:,} words begin in the token of"
            " the word before them, and get its tag"
        )
    if words.without:
        notes.append(
            f"{origin}: of {words.without:,} of {words.starts[-1]:,} words the tokenizer leaves"
            " nothing, and no tag is learnt"
        )
    return notes


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _count_equal(gold: Sequence[str], tags: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(gold, tags, strict=True))


def _fault(row: str | Sequence[str]) -> str | None:
    """Return why a text or a list of words cannot be encoded, or None."""
    words = [row] if isinstance(row, str) else row
    empty = [number for number, word in enumerate(words, start=1) if not word.strip()]
    if len(empty) == len(words):
        return "the row has no words"
    return f"word {empty[0]} is empty" if empty else None


def _separator(train: "Table", options: TagOptions) -> str:
    """Return the separator of words: empty in scripts that write no spaces."""
    if options.join != "auto":
        return " " if options.join == "space" else ""
    sample = "".join("".join(words) for words in Tag.items(train)[:1000])
    return "" if mostly_unspaced(sample) else " "

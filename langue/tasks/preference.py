"""Preference optimization: a decoder learns to prefer the better of two answers, or the good ones
among single answers.

DPO and its variants constrain the model to the reference, the model that training starts from. The
reference log-probabilities of the answers never change, so they are computed once, before training,
and only one model is in memory; a resumed run recomputes them from the same weights. ORPO and SimPO
need no reference. Rows may be texts or messages. A loss needs whole answers, so all answers of a
row are in the same batch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from langue.data.batch import Examples
from langue.data.encode import check_vocabulary
from langue.data.encoded import Encoded
from langue.data.loader import BatchSource, RowGroups
from langue.errors import DataError, LangueError, ModelError, SettingsError
from langue.hub.checkpoint import Checkpoint, describe, load_into, read_checkpoint, without_extra
from langue.hub.family import Family
from langue.model.config import ModelConfig
from langue.model.language_model import build_on_meta
from langue.runtime import evaluating
from langue.settings.sections import DataSettings, Section, Settings
from langue.statistics.metrics import Measure
from langue.tasks import judgement, preference_losses
from langue.tasks.chat_templates import check_decoder, ends_of_turns, template_field, with_template
from langue.tasks.columns import Columns
from langue.tasks.conversations import ASSISTANT, rows_of
from langue.tasks.judge_preferences import (
    ALWAYS,
    BY_LENGTH,
    Rewarded,
    furthest_from_preference,
    measure_of_rewards,
    table_of_rewards,
)
from langue.tasks.judgement import Judgement
from langue.tasks.objective import Metrics, Outcome
from langue.tasks.preference_batches import (
    GOOD,
    REFERENCE,
    answers_of,
    autocast,
    encoded_pairs,
    log_probabilities,
    whole_rows,
)
from langue.tasks.preference_losses import UNPAIRED, WITHOUT_REFERENCE, Answers
from langue.tasks.preference_rows import (
    COLUMNS,
    Preferred,
    as_given,
    as_row,
    read_preference,
    text_of,
)
from langue.tasks.task import Baseline
from langue.tasks.writing import HEAD, LanguageTask, end_token
from langue.text.tokenizers.assistant_turns import Labelled, Turns, labelled, lost_in, turns_of
from langue.text.tokenizers.flags import frame_of
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import Lost

if TYPE_CHECKING:
    from langue.text.read.source import Table

METRICS = ("accuracy", "margin")
SMOOTHED = ("sigmoid", "robust")


class PreferenceOptions(Section):
    loss: Literal["sigmoid", "ipo", "hinge", "robust", "orpo", "simpo", "kto"] = Field(
        default="sigmoid",
        description=(
            "the loss: sigmoid is DPO, and ipo, hinge and robust are its variants; orpo"
            " and simpo need no reference model; kto learns from single answers, good"
            " and bad (its KL term is the mean gain, over a batch, of prompts with the"
            " answer of the preceding row of the data; trl rotates the answers within a"
            " batch)"
        ),
    )
    beta: float = Field(
        default=0.1,
        gt=0,
        description="strength of the constraint to the reference model; for simpo and orpo, the"
        " scale of the rewards",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="sigmoid, robust: the fraction of preferences that is assumed to be wrong",
    )
    gamma: float = Field(default=0.5, ge=0, description="simpo: the margin between the rewards")
    good_weight: float = Field(default=1.0, gt=0, description="kto: weight of the good answers")
    bad_weight: float = Field(default=1.0, gt=0, description="kto: weight of the bad answers")
    template: str | None = template_field()


class Preference(LanguageTask):
    """Preference of one answer over another."""

    name = "preference"
    result = "messages"
    Options = PreferenceOptions
    columns = Columns(
        required=("chosen", "rejected"),
        target="preference",
        optional=("prompt", "tools"),
        proportional=False,
        synonyms={
            "chosen": ("good", "preferred", "winner", "accepted", "answer_chosen"),
            "rejected": ("bad", "dispreferred", "loser", "answer_rejected"),
        },
    )
    takes_texts: ClassVar[bool] = False
    looks_first: ClassVar[bool] = True
    why_dropped: ClassVar[str] = (
        "that the chat template cannot write, or of which an answer begins beyond data.max_length"
    )
    primary_metric = main_metric = best = "accuracy"
    settings: PreferenceOptions

    def __init__(
        self,
        settings: PreferenceOptions,
        *,
        has_pairs: bool = True,
        has_messages: bool = False,
        reference: str | None = None,
    ) -> None:
        """has_messages: rows are messages, not texts. reference: path of the model that training
        started from.
        """
        super().__init__()
        self.settings = settings
        self.has_pairs = has_pairs
        self.has_messages = has_messages
        self.reference = reference
        self._check_settings()

    def _check_settings(self) -> None:
        chosen = self.settings
        if (chosen.loss in UNPAIRED) == self.has_pairs:
            rows = "two answers a row" if self.has_pairs else "one answer a row, good or bad"
            raise SettingsError(
                f"task.loss = {chosen.loss} does not learn from {rows}",
                do="set task.loss=sigmoid" if self.has_pairs else "set task.loss=kto",
            )
        if chosen.label_smoothing and chosen.loss not in SMOOTHED:
            raise SettingsError(
                f"task.label_smoothing is of {' and '.join(SMOOTHED)}, and does nothing with"
                f" task.loss = {chosen.loss}",
                do="leave one of them out",
            )

    # --- what the training rows define ---

    @classmethod
    def fit(cls, train: "Table", options: PreferenceOptions) -> Self:
        golds = cls.read_targets(train, options)
        kinds = [isinstance(gold.chosen, list) for gold in golds]
        if len(set(kinds)) > 1:
            odd = next(row for row, kind in enumerate(kinds) if kind != kinds[0])
            raise DataError(
                "some rows are texts and others messages",
                where=train.where(odd),
                do="write all rows alike",
            )
        return cls(options, has_pairs=golds[0].good is None, has_messages=bool(kinds and kinds[0]))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        return cls(
            cls.options_of(saved["settings"]),
            has_pairs=saved["has_pairs"],
            has_messages=saved["has_messages"],
            reference=saved["reference"],
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "has_pairs": self.has_pairs,
            "has_messages": self.has_messages,
            "reference": self.reference,
            "settings": self.settings.model_dump(),
        }

    def describe_transformers_support(self, family: Family, data: DataSettings) -> str:
        return "transformers: AutoModelForCausalLM gives the same logits."

    # --- the model ---

    def completed(self, checkpoint: Checkpoint) -> Checkpoint:
        check_decoder(self.name, checkpoint)
        if checkpoint.folder != Path():
            self.reference = str(checkpoint.folder.resolve())
        return self._with_template(checkpoint, self._notes)

    def _with_template(self, checkpoint: Checkpoint, notes: list[str]) -> Checkpoint:
        if not self.has_messages:
            return checkpoint
        return with_template(checkpoint, self.settings.template, notes)

    def use(self, checkpoint: Checkpoint) -> None:
        check_decoder(self.name, checkpoint)
        super().use(checkpoint)

    def generation(self) -> dict[str, Any]:
        return {"eos_token_id": sorted(ends_of_turns(self.model))} if self.has_messages else {}

    @property
    def needs_reference(self) -> bool:
        return self.settings.loss not in WITHOUT_REFERENCE

    def begun_with(
        self, model: nn.Module, encoded: Encoded, *, device: torch.device, dtype: torch.dtype
    ) -> Encoded:
        """Return the rows with the reference log-probability of every answer."""
        if not self.needs_reference:
            return encoded
        examples = encoded.examples
        assert examples.targets is not None
        targets = examples.targets.copy()
        for batch in whole_rows(encoded, device):
            with torch.no_grad(), autocast(device, dtype):
                logs, _ = log_probabilities(model, batch)
            targets[batch.rows, REFERENCE] = logs.double().cpu().numpy()
        return replace(encoded, examples=examples.with_targets(targets))

    def _add_reference(self, encoded: Encoded, device: torch.device, dtype: torch.dtype) -> Encoded:
        """Return rows after training with reference log-probabilities, computed by the model that
        training started from.
        """
        targets = encoded.examples.targets
        assert targets is not None
        if not self.needs_reference or not np.isnan(targets[:, REFERENCE]).any():
            return encoded
        if self.reference is None:
            raise ModelError("the run does not say what its training began with")
        try:
            found = self._with_template(read_checkpoint(describe(self.reference), HEAD), [])
        except LangueError as error:
            raise ModelError(
                f"the reference, which training began with, cannot be read: {error.what}",
                where=self.reference,
                do="put it back: rewards are measured by it",
            ) from error
        network = build_on_meta(found.config)
        weights = without_extra(found.weights)
        load_into(network, weights, where=self.reference, new="head.", copy=False)
        network.to(device).eval()
        return self.begun_with(network, encoded, device=device, dtype=dtype)

    # --- rows ---

    @classmethod
    def raw_targets(cls, table: "Table") -> list[Any]:
        return rows_of(table, COLUMNS)

    @classmethod
    def read_target(cls, value: Any, options: Any, where: Callable[[], str]) -> Preferred:
        return read_preference(value, where)

    @classmethod
    def items(cls, table: "Table") -> list[Any]:
        rows = rows_of(table, COLUMNS)
        return [{name: as_given(value) for name, value in row.items()} for row in rows]

    @classmethod
    def texts(cls, table: "Table") -> list[str]:
        found = []
        for row in rows_of(table, COLUMNS):
            turns = []
            for value in row.values():
                if isinstance(value, list):
                    turns += value
            found.append("\n".join(str(turn["content"]) for turn in turns))
        return found

    def encode(
        self,
        tokenizer: Tokenizer,
        table: "Table",
        golds: Sequence[Preferred],
        data: DataSettings,
        config: ModelConfig,
    ) -> tuple["Table", Encoded]:
        found, faults, lost = self._labelled(tokenizer, golds)
        if faults and data.invalid == "error":
            row, fault = next(iter(faults.items()))
            raise DataError(fault.what, where=table.where(row), do=fault.do)
        room = min(data.max_length, config.longest) + 1  # plus one: the last token is only a label
        learnt = np.asarray([int(each.written[1:room].sum()) for each in found])
        usable = np.flatnonzero((learnt.reshape(-1, 2) > 0).all(axis=1))  # (rows, 2)
        if not len(usable):
            raise DataError(
                f"no row has answers within data.max_length = {data.max_length}",
                where=table.origin,
                do="raise data.max_length",
            )
        self._note_dropped(table, found, learnt, faults, room)
        if len(usable) < len(golds):
            table = table.select(usable)
            golds = [golds[row] for row in usable.tolist()]
            first = 2 * usable
            sequences = np.stack([first, first + 1], axis=1).ravel()  # (2 rows,)
            found = [found[sequence] for sequence in sequences.tolist()]
        encoded = encoded_pairs(found, golds, room, lost)
        check_vocabulary(tokenizer, encoded.examples, config)
        return table, replace(encoded, golds=golds)

    def encode_items(
        self,
        items: list[Any],
        tokenizer: Tokenizer,
        data: DataSettings,
        config: ModelConfig,
        as_texts: Callable[[list[Any]], Examples],
    ) -> Encoded:
        """Encode items: mappings with the columns of training; a row with a single answer needs no
        label.
        """
        rows = [read_preference(as_row(item), lambda: "the row", judged=False) for item in items]
        found, faults, lost = self._labelled(tokenizer, rows)
        for fault in faults.values():
            raise fault
        return encoded_pairs(found, rows, min(data.max_length, config.longest) + 1, lost)

    def _labelled(
        self, tokenizer: Tokenizer, golds: Sequence[Preferred]
    ) -> tuple[list[Labelled], dict[int, DataError], Lost]:
        """Tokenize two sequences for each row; also return the error for each row that cannot be
        rendered, and what the tokenizer does not know.

        For rows with a single answer, the second sequence is the answer of the previous row, from
        which KTO estimates the divergence from the reference.
        """
        faults = {}
        made: list[Turns] = []
        said: list[str] = []
        write = partial(self._turns, tokenizer)
        for row, gold in enumerate(golds):
            other = golds[row - 1].chosen if gold.good is not None else gold.rejected
            said.append(gold.said(gold.chosen))
            if gold.rejected is not None:
                said.append(gold.said(gold.rejected))
            try:
                made += [write(gold, gold.chosen), write(gold, other)]
            except DataError as error:
                faults[row] = error
                made += [Turns("", []), Turns("", [])]
        found = labelled(tokenizer, made)
        lost = lost_in(tokenizer, found, made, said)
        if not self.has_messages:
            found = self._with_frame(tokenizer, found)
        return found, faults, lost

    def _turns(self, tokenizer: Tokenizer, gold: Preferred, answer: Any) -> Turns:
        if not self.has_messages:
            text = gold.prompt + answer
            return Turns(text, [(len(gold.prompt), len(text))])
        end = tokenizer.end_of_turn()
        token = None if end is None else str(tokenizer.backend.id_to_token(end))
        found = turns_of(tokenizer, [*gold.prompt, *answer], gold.tools, token)
        answers = sum(message["role"] == ASSISTANT for message in answer)
        return Turns(found.text, found.spans[len(found.spans) - answers :])

    def _with_frame(self, tokenizer: Tokenizer, found: Sequence[Labelled]) -> list[Labelled]:
        """Add the begin and end tokens to texts; the end token belongs to the answer.

        If the tokenizer puts nothing before a text, its first token is not predicted. An answer to
        an empty prompt gets the begin token, so that its first token is.
        """
        before = frame_of(tokenizer.backend)[0]
        begin = self.model.published.get("bos_token_id")
        end = end_token(tokenizer, self.model.ends)
        made = []
        for each in found:
            first = before
            if not first and isinstance(begin, int) and each.written[:1].any():
                first = [begin]
            ids = np.concatenate([first, each.ids, [end]]).astype(np.int32)
            written = np.concatenate([np.zeros(len(first), bool), each.written, [True]])
            made.append(Labelled(ids, written))
        return made

    def _note_dropped(
        self,
        table: "Table",
        found: Sequence[Labelled],
        learnt: NDArray[np.int64],
        faults: Mapping[int, DataError],
        room: int,
    ) -> None:
        """Add notes on rows and tokens that are not learnt."""
        if faults:
            row, fault = next(iter(faults.items()))
            self._notes.append(
                f"{table.origin}: {len(faults):,} rows cannot be written by the chat template,"
                f" first {table.where(row)}: {fault.what}"
            )
        written = np.asarray([int(each.written[1:].sum()) for each in found])
        cut = np.flatnonzero((learnt > 0) & (learnt < written))
        if len(cut):
            self._notes.append(
                f"{table.origin}: {len(cut):,} of {len(found):,} answers are beyond"
                f" {room - 1:,} tokens (data.max_length) and lose their ends, first"
                f" {table.where(int(cut[0]) // 2)}"
            )

    # --- what people see ---

    def facts(self) -> dict[str, Any]:
        return {"reads_texts": False, "reads_two_texts": False}

    def balance(self, golds: Sequence[Preferred]) -> dict[str, float]:
        chosen = [len(text_of(gold.chosen)) for gold in golds]
        if not self.has_pairs:
            good = sum(bool(gold.good) for gold in golds)
            return {"good": good, "bad": len(golds) - good}
        rejected = [len(text_of(gold.rejected)) for gold in golds]
        longer = np.mean(np.asarray(chosen) > np.asarray(rejected))
        return {
            "characters chosen, median": float(np.median(chosen)),
            "rejected, median": float(np.median(rejected)),
            "chosen is longer": float(longer),
        }

    def show_target(self, gold: Preferred) -> str:
        if gold.good is not None:
            return f"{'good' if gold.good else 'bad'}: {text_of(gold.chosen)}"
        return f"{text_of(gold.chosen)} (rejected: {text_of(gold.rejected)})"

    # --- training ---

    def batches(self, train: Encoded, settings: Settings) -> BatchSource:
        return RowGroups(train, settings.train)

    def forward(self, model: nn.Module, batch: Any) -> Outcome:
        first, second = answers_of(model, batch)
        good = batch.targets[np.argsort(batch.rows, kind="stable")][0::2, GOOD] > 0
        losses = self._losses(first, second, good)
        rewards = self._reward(first).detach(), self._reward(second).detach()
        return Outcome(losses.sum(), float(len(losses)), (*rewards, good))

    def _losses(self, first: Answers, second: Answers, good: Tensor) -> Tensor:
        """Return the loss of each row (N,)."""
        chosen = self.settings
        if chosen.loss == "kto":
            weights = chosen.good_weight, chosen.bad_weight
            return preference_losses.kto(first, second, good, chosen.beta, weights)
        if chosen.loss == "simpo":
            return preference_losses.simpo(first, second, chosen.beta, chosen.gamma)
        if chosen.loss in SMOOTHED:
            loss = getattr(preference_losses, chosen.loss)
            found: Tensor = loss(first, second, chosen.beta, chosen.label_smoothing)
            return found
        plain: Tensor = getattr(preference_losses, chosen.loss)(first, second, chosen.beta)
        return plain

    def _reward(self, answers: Answers) -> Tensor:
        """Return the reward (N,) of each answer."""
        by = answers.gain if self.needs_reference else answers.mean
        return self.settings.beta * by

    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        return self._metrics_of(outcomes)["accuracy"]

    def logged(self, outcomes: list[Outcome]) -> dict[str, Any]:
        """Return the rewards of the answers of a step, and their margin."""
        found = self._metrics_of(outcomes)
        first = torch.cat([outcome.outputs[0] for outcome in outcomes])
        second = torch.cat([outcome.outputs[1] for outcome in outcomes])
        kept = {"margin": found["margin"]}
        if not self.has_pairs:
            return kept | {"reward": float(first.mean())}
        return kept | {
            "reward_chosen": float(first.mean()),
            "reward_rejected": float(second.mean()),
        }

    def _metrics_of(self, outcomes: list[Outcome]) -> Metrics:
        rows = []
        for outcome in outcomes:
            first, second, good = (each.tolist() for each in outcome.outputs)
            rows += [self._rewarded(*each) for each in zip(first, second, good, strict=True)]
        return self.metrics(rows, rows)

    def _rewarded(self, first: float, second: float, good: bool) -> Rewarded:
        if self.has_pairs:
            return Rewarded(first, second)
        return Rewarded(first, np.nan, bool(good))

    # --- predicting ---

    def evaluate(
        self, model: nn.Module, dev: Encoded, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        found, loss = self.apply(model, dev, device=device, dtype=dtype)
        return self.metrics(dev.golds, found), loss

    def apply(
        self,
        model: nn.Module,
        encoded: Encoded,
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[Rewarded], float | None]:
        encoded = self._add_reference(encoded, device, dtype)
        with evaluating(model):
            found: list[Any] = [None] * encoded.n_rows
            total = 0.0
            for batch in whole_rows(encoded, device):
                with torch.no_grad(), autocast(device, dtype):
                    outcome = self.forward(model, batch)
                total += float(outcome.loss)
                assert batch.targets is not None
                order = np.sort(batch.rows)
                of = batch.targets[np.argsort(batch.rows, kind="stable"), REFERENCE].tolist()
                parts = [each.tolist() for each in outcome.outputs]
                for place, row in enumerate((order[0::2] // 2).tolist()):
                    made = self._rewarded(*(part[place] for part in parts))
                    if self.has_pairs:
                        made = replace(made, reference=of[2 * place] - of[2 * place + 1])
                    found[row] = made
                if progress is not None:
                    progress(len(batch))
        scored = encoded.golds is not None and encoded.n_rows
        return found, total / encoded.n_rows if scored else None

    def show(self, prediction: Rewarded, top: int | None) -> list[dict[str, Any]]:
        """Return the probability of each answer given the rewards (Bradley and Terry 1952)."""
        names = ("chosen", "rejected") if self.has_pairs else ("good", "bad")
        other = prediction.rejected if self.has_pairs else 0.0
        share = float(1 / (1 + np.exp(other - prediction.chosen)))
        scores = {names[0]: share, names[1]: 1 - share}
        order = sorted(names, key=lambda name: -scores[name])
        return [{"label": name, "score": scores[name]} for name in order[:top]]

    # --- judging ---

    def metric_names(self) -> list[str]:
        return list(METRICS)

    def default_best(self) -> str:
        return "accuracy"

    def measure(self, golds: Any, predictions: Sequence[Rewarded]) -> Measure:
        return measure_of_rewards(predictions)

    def judge(
        self, golds: Any, predictions: Any, main: str | None = None, *, seed: int = 0
    ) -> Judgement:
        found = super().judge(golds, predictions, main, seed=seed)
        if not self.has_pairs:
            return found
        table, settled = table_of_rewards(predictions)
        return replace(found, sections=(*found.sections, table), settled=settled)

    def mistakes(
        self, table: "Table", golds: Any, predictions: Any, limit: int = 20
    ) -> judgement.Examples | None:
        if not self.has_pairs:
            return None
        return furthest_from_preference(golds, predictions, limit)

    def baseline(
        self,
        train: tuple["Table", Any],
        test: tuple["Table", Any],
        *,
        metric: str,
        as_model: bool = True,
    ) -> Baseline | None:
        """Return a baseline that always prefers the longer or the shorter answer, whichever is
        right more often in training; for single answers, the majority label.
        """
        began = time.perf_counter()
        makers = BY_LENGTH if self.has_pairs else ALWAYS
        right: dict[str, float] = {}
        for name, make in makers.items():
            guesses = [make(gold) for gold in train[1]]
            right[name] = self.metrics(train[1], guesses)["accuracy"] or 0.0
        best = max(right, key=lambda name: right[name])
        predictions = [makers[best](gold) for gold in test[1]]
        metrics = self.metrics(test[1], predictions)
        return Baseline(best, metrics, predictions, round(time.perf_counter() - began, 3))

"""The base of the pretraining objectives (causal, masked, denoising): takes tokenized documents and
a language model; returns how well the model predicts them, as (sum, count).

Each objective defines in its own file how a chunk of text becomes a batch.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from langue.data.batch import Batch, Examples, Pairs
from langue.data.corpus.stream import Chunks, Documents, SpecialTokenOverhead, Stream
from langue.errors import ModelError
from langue.model.config import ModelConfig
from langue.model.kernels import chunk_size
from langue.model.language_model import LanguageModel, init_weights
from langue.runtime import device_memory, evaluating
from langue.settings.sections import Settings
from langue.statistics.intervals import bootstrap
from langue.statistics.metrics import number
from langue.tasks.objective import LOSS, Metrics, Objective, Outcome
from langue.text.tokenizers.special import special_ids
from langue.text.tokenizers.tokenizer import Tokenizer

FEW = 20  # number of documents below which bootstrapping them is meaningless


class LanguageObjective(Objective):
    """Prediction of tokens of a text from other tokens of it."""

    primary_metric = "perplexity"
    best = LOSS
    learns_from = "documents"
    architecture: str  # the architecture that it trains
    overhead: SpecialTokenOverhead

    def __init__(
        self, tokenizer: Tokenizer, settings: Any, *, z_loss: float = 0.0, seed: int = 0
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.z_loss = z_loss
        self.seed = seed
        self.vocabulary = len(tokenizer)  # the range of random replacement tokens
        self.special = special_ids(tokenizer)

    @classmethod
    def fits(cls, settings: Any, block: int, sentinels: int) -> None:
        """Raise SettingsError if a chunk of `block` tokens needs more than `sentinels`
        sentinels.
        """

    @classmethod
    def learns_pairs(cls, settings: Any) -> bool:
        """Return whether the model also learns how two parts of a text relate (a pair loss)."""
        return False

    @classmethod
    def check_documents(cls, settings: Any, n_documents: int) -> None:
        """Raise SettingsError if chunks cannot be made from so few documents."""

    @abstractmethod
    def make(self, corpus: Documents, chunks: Chunks, device: torch.device) -> Batch | Pairs:
        """Build the batch of these chunks, with the tokens to predict as labels."""

    def stream(
        self, corpus: Documents, *, block: int, budget: int, seed: int, ramp: int = 0
    ) -> Stream:
        self.fits(self.settings, block, len(self.special.sentinels))
        return Stream(
            corpus, self.make, self.overhead, block=block, budget=budget, seed=seed, ramp=ramp
        )

    def network(self, config: ModelConfig, seed: int = 0, pad: int | None = None) -> LanguageModel:
        model = LanguageModel(config)
        init_weights(model, seed)
        return model

    def batches(self, train: Documents, settings: Settings) -> Stream:
        chosen = settings.train
        return self.stream(
            train,
            block=settings.data.seq_len,
            budget=chosen.batch_tokens,
            seed=chosen.seed,
            ramp=chosen.ramp_steps * chosen.accumulate,
        )

    def held_out(self, dev: Documents, settings: Settings) -> "HeldOutSet":
        return HeldOutSet(self.batches(dev, settings), settings.data.dev_tokens)

    @classmethod
    def overhead_for(cls, settings: Any) -> SpecialTokenOverhead:
        """Return how many special tokens wrap a chunk with these settings."""
        return cls.overhead

    @classmethod
    def suits(cls, config: ModelConfig) -> None:
        """Raise ModelError if the model does not have the objective's architecture."""
        if config.architecture != cls.architecture:
            raise ModelError(
                f"{cls.name} trains the architecture {cls.architecture}, and the model is of"
                f" {config.architecture}",
                do="choose another model.preset, model or objective",
            )

    def predicted(self, batch: Any) -> Batch:
        """Return the side of a batch whose tokens are predicted."""
        return decoder_side(batch)

    def states(self, model: LanguageModel, batch: Any) -> Tensor:
        """Return the hidden states (T, D) of the side whose tokens are predicted."""
        return language_states(model, batch)

    def hidden(self, model: LanguageModel, batch: Any) -> Tensor:
        """Return the hidden states (M, D) from which the labels are predicted."""
        return select_labelled(self.states(model, batch), self.predicted(batch))

    def extra(self, model: LanguageModel, states: Tensor, batch: Any) -> Tensor | None:
        """Return an additional loss of the batch, summed, or None."""
        return None

    def shares(
        self, model: LanguageModel, states: Tensor, batch: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return further accuracies: for each name, sequence indices (P,) and whether each was
        answered correctly (P,).
        """
        return {}

    def forward(self, model: nn.Module, batch: Any) -> Outcome:
        assert isinstance(model, LanguageModel)
        side = self.predicted(batch)
        assert side.labels is not None
        states = self.states(model, batch)
        (loss, z_term) = model.loss(select_labelled(states, side), side.labels, self.z_loss)
        count = float(len(side.labels))
        extra = self.extra(model, states, batch)
        if extra is None:
            return Outcome(loss, count, aux_loss=z_term)
        return Outcome(loss + extra, count, aux_loss=extra.detach() + z_term)

    def train_metric(self, outcomes: list[Outcome], loss: float) -> float | None:
        return perplexity(loss)

    def evaluate(
        self, model: nn.Module, dev: Any, *, device: torch.device, dtype: torch.dtype
    ) -> tuple[Metrics, float | None]:
        """Evaluate on a `HeldOutSet`; the loss is in nats per predicted token, without the
        z-loss.
        """
        judged = self.judge(model, dev, device=device, dtype=dtype)
        weights = np.ones((len(judged.counts), 1))
        losses, shares_of = judged.summed(weights)
        loss = float(losses[0])
        shares = {name: float(share[0]) for name, share in shares_of.items()}
        metrics = self.metrics(loss, dev, shares)
        rounded = {
            name: None if value is None else number(value) for name, value in metrics.items()
        }
        return rounded, loss

    def settle(
        self, model: nn.Module, dev: Any, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Do nothing: only the checkpoint is chosen on held-out text."""

    @torch.no_grad()
    def judge(
        self, model: nn.Module, dev: "HeldOutSet", *, device: torch.device, dtype: torch.dtype
    ) -> "DocumentLosses":
        """Return how well each held-out document is predicted."""
        assert isinstance(model, LanguageModel)
        with evaluating(model):
            found = DocumentLosses.nothing(dev.stream.corpus.lengths)
            for rows, batch in dev.batches(device):
                side = self.predicted(batch)
                assert side.labels is not None
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    states = self.states(model, batch)
                    losses, right = token_losses(model, select_labelled(states, side), side.labels)
                    shares = self.shares(model, states, batch)
                sequences = side.label_sequences
                shares |= {"accuracy": (sequences, right)}
                documents = rows[side.rows, 0]
                found.add_losses(documents[sequences.cpu().numpy()], losses.cpu().numpy())
                for name, (sequence, correct) in shares.items():
                    found.add_share(name, documents[sequence.cpu().numpy()], correct.cpu().numpy())
        return found

    def metrics(self, loss: float, dev: "HeldOutSet", shares: dict[str, float]) -> Metrics:
        return {"perplexity": perplexity(loss), **shares}


class HeldOutSet:
    """Held-out documents, in batches that are the same at every evaluation."""

    def __init__(self, stream: Stream, most: int = 0) -> None:
        """most: maximum number of tokens to evaluate, in evenly spaced chunks; 0: all."""
        self.stream = stream
        chunks = stream.chunks(0)
        tokens = int(chunks[:, 2].sum())
        if most and tokens > most:
            n_chunks = max(1, len(chunks) * most // tokens)
            evenly_spaced = np.linspace(0, len(chunks) - 1, n_chunks).astype(np.int64)
            chunks = chunks[evenly_spaced]
        self.chunks = chunks[np.argsort(-chunks[:, 2], kind="stable")]

    @property
    def bytes_per_prediction(self) -> float:
        """Bytes of text per predicted token, over the whole corpus."""
        corpus = self.stream.corpus
        overhead = self.stream.overhead
        return corpus.n_bytes / max(1, int((corpus.lengths + overhead.document).sum()))

    @property
    def lost_bits(self) -> float:
        """Bits per byte that unknown tokens hide: eight for each byte that one stands for, the cost
        of writing it out.
        """
        corpus = self.stream.corpus
        return 8 * corpus.lost_bytes / max(1, corpus.n_bytes)

    def batches(self, device: torch.device) -> Any:
        padded = self.chunks[:, 2] + self.stream.overhead.chunk
        filled = np.cumsum(padded) // int(self.stream.budgets[-1])
        for rows in np.split(self.chunks, np.flatnonzero(np.diff(filled)) + 1):
            yield rows, self.stream.batch(rows, 0, device)


@dataclass(frozen=True)
class DocumentLosses:
    """Losses of held-out text, summed over the predicted tokens of each document (n,)."""

    losses: NDArray[np.float64]  # in nats
    counts: NDArray[np.int64]
    # for each accuracy, the numbers of correct answers and of all answers
    shares: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]

    @classmethod
    def nothing(cls, documents: NDArray[np.int64]) -> "DocumentLosses":
        return cls(np.zeros(len(documents)), np.zeros(len(documents), np.int64), {})

    def add_losses(self, documents: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        """Add token losses, each to the document at the same index of `documents`."""
        np.add.at(self.losses, documents, losses)
        np.add.at(self.counts, documents, 1)

    def add_share(self, name: str, documents: NDArray[np.int64], right: NDArray[np.bool_]) -> None:
        if not len(documents):  # an accuracy without any question is undefined
            return
        correct, told = self.shares.setdefault(
            name, (np.zeros_like(self.counts), np.zeros_like(self.counts))
        )
        np.add.at(correct, documents, right)
        np.add.at(told, documents, 1)

    def summed(
        self, weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """Return the mean loss (R,) and the accuracies (R,) under weights (n, R), the number of
        times each document counts in each of R samples.
        """
        shares = {
            name: right @ weights / np.maximum(told @ weights, 1)
            for name, (right, told) in self.shares.items()
        }
        return self.losses @ weights / np.maximum(self.counts @ weights, 1), shares


def decoder_side(batch: Batch | Pairs) -> Batch:
    """Return the side of a batch whose tokens are predicted."""
    return batch.target if isinstance(batch, Pairs) else batch


def language_states(model: LanguageModel, batch: Batch | Pairs) -> Tensor:
    """Return the hidden states (T, D) of the side whose tokens are predicted."""
    if isinstance(batch, Pairs):
        encoder_states = model.body(*batch.source.inputs)[batch.order]
        decoded: Tensor = model.body.decode(*batch.target.inputs[:3], encoder_states, batch.groups)
        return decoded
    encoded: Tensor = model.body(*batch.inputs)
    return encoded


def select_labelled(states: Tensor, side: Batch) -> Tensor:
    """Return the states (M, D), of all (T, D), of the tokens that carry loss."""
    return states if side.places is None else states[side.places]


def token_log_probabilities(model: LanguageModel, states: Tensor, labels: Tensor) -> Tensor:
    """Return the log-probability (M,) of each label from states (M, D), with its gradient.

    Only one chunk's logits are in memory at a time; the backward pass recomputes them.
    """

    def of_part(states: Tensor, labels: Tensor) -> Tensor:
        logits = model.logits(states).float()
        return -F.cross_entropy(logits, labels, reduction="none")

    size = chunk_size(model.body.config.vocab_size, device_memory(states.device))
    parts = []
    for begin in range(0, len(labels), size):
        part = slice(begin, begin + size)
        if torch.is_grad_enabled():
            parts.append(checkpoint(of_part, states[part], labels[part], use_reentrant=False))
        else:
            parts.append(of_part(states[part], labels[part]))
    return torch.cat(parts)


def token_losses(model: LanguageModel, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return each token's cross-entropy (M,), float64, and whether its label has the highest logit,
    from states (M, D); only one chunk's logits are in memory at a time.
    """
    losses = []
    right = []
    size = chunk_size(model.body.config.vocab_size, device_memory(states.device))
    for begin in range(0, len(labels), size):
        part = slice(begin, begin + size)
        logits = model.logits(states[part]).float()
        losses.append(F.cross_entropy(logits, labels[part], reduction="none").double())
        right.append(logits.argmax(-1) == labels[part])
    return torch.cat(losses), torch.cat(right)


def perplexity(loss: float) -> float:
    """Return exp(loss), or infinity if it overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def examples(tokens: Any, lengths: Any, labels: Any) -> Examples:
    """Return flat tokens and labels as the `Examples` that `gather` takes."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    cut = np.zeros(len(lengths), np.int32)
    return Examples(tokens.astype(np.int32), starts, None, cut, labels=labels.astype(np.int32))


# --- metrics of held-out text, and their intervals ---


def scores(
    objective: LanguageObjective, held: HeldOutSet, judged: DocumentLosses
) -> tuple[Metrics, dict[str, Any]]:
    """Return the metrics and their 95% intervals: from a bootstrap over documents or, with fewer
    than FEW documents, from the variation between them.
    """

    def measure(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        losses, shares = judged.summed(weights)
        rows = []
        for sample, loss in enumerate(losses):
            of_sample = {name: share[sample] for name, share in shares.items()}
            rows.append({"loss": loss} | objective.metrics(loss, held, of_sample))
        return {name: np.asarray([row[name] for row in rows], np.float64) for name in rows[0]}

    whole = measure(np.ones((len(judged.counts), 1)))
    metrics: Metrics = {name: number(values[0]) for name, values in whole.items()}
    if len(judged.counts) >= FEW:
        intervals = bootstrap(measure, metrics, len(judged.counts))
    else:
        intervals = few_intervals(objective, held, judged)
    intervals.pop("bits_per_byte", None)  # the documents' byte counts are not kept
    return metrics, intervals


def few_intervals(
    objective: LanguageObjective, held: HeldOutSet, judged: DocumentLosses
) -> dict[str, Any]:
    """Return 95% intervals from few documents, by Student's t for a ratio of two sums (Cochran
    1977, chapter 6).

    Covers the loss and each accuracy; metrics derived from the loss get theirs from the ends of its
    interval. None if the documents do not differ; an empty dict for a single document.
    """
    ratios = {name: ratio_interval(right, told) for name, (right, told) in judged.shares.items()}
    loss = ratio_interval(judged.losses, judged.counts)
    if loss is None:
        return {}
    loss = (max(0.0, loss[0]), loss[1])
    unknown: dict[str, float] = dict.fromkeys(ratios, 0.0)
    lower: Metrics = {"loss": loss[0], **objective.metrics(loss[0], held, unknown)}
    upper: Metrics = {"loss": loss[1], **objective.metrics(loss[1], held, unknown)}
    intervals: dict[str, Any] = {}
    for name in lower:
        if name not in ratios:
            intervals[name] = (lower[name], upper[name])
        elif (ends := ratios[name]) is not None:
            intervals[name] = (max(0.0, ends[0]), min(1.0, ends[1]))
        else:
            intervals[name] = None
    return intervals


def ratio_interval(sums: NDArray[Any], counts: NDArray[Any]) -> tuple[float, float] | None:
    """Return the 95% interval of sum(sums) / sum(counts), with documents (n,) as the random
    sample.
    """
    there = counts > 0
    sums = sums[there]
    counts = counts[there]
    number_of = len(counts)
    if number_of < 2:
        return None
    ratio = sums.sum() / counts.sum()
    residuals = sums - ratio * counts
    half = number_of * t_half_width(number_of) * residuals.std(ddof=1) / counts.sum()
    return (float(ratio - half), float(ratio + half)) if half > 0 else None


def t_half_width(documents: int) -> float:
    """Return half the width of the 95% interval of a mean, in standard deviations between
    documents.
    """
    from scipy.special import stdtrit

    return float(stdtrit(documents - 1, 0.975)) / math.sqrt(documents)

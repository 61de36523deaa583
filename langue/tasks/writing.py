"""Tasks whose answer is a text that the model writes: what they share.

Their network is a language model, an encoder-decoder that reads a source and writes a target, or a
decoder that goes on from a prompt. The loss is the cross-entropy of the target's tokens alone;
predictions are written by the engine of `langue/generation/`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from langue.data.batch import Examples, gather, gather_pairs
from langue.data.encoded import Encoded
from langue.data.loader import BatchSource, PairSplit, Split
from langue.data.pack import sorted_batches
from langue.errors import ModelError, SettingsError
from langue.generation.engine import MOST_ROWS, Engine
from langue.generation.request import Beams, Request
from langue.generation.sample import Sampling
from langue.hub.checkpoint import Checkpoint
from langue.hub.family import Family
from langue.hub.generation_config import GenerationConfig
from langue.model.cache import PAGE
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel, init_weights
from langue.model.weight_linear import for_generation
from langue.runtime import evaluating
from langue.settings.sections import Section, Settings
from langue.tasks.language import decoder_side, language_states, select_labelled
from langue.tasks.objective import Outcome
from langue.tasks.task import Task
from langue.text.tokenizers.special import special_ids
from langue.text.tokenizers.tokenizer import Tokenizer

HEAD = "lm"  # what families call the head that scores every token
LOSS_TOKENS = 4096  # of a batch whose loss is computed in judging
LONGER = 1.5  # how much longer than the longest reference of training a text may become
MORE = 8  # tokens


class WritingOptions(Section):
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        description="maximum number of generated tokens; none: one and a half times the longest"
        " reference",
    )
    beams: int = Field(default=1, ge=1, le=64, description="number of beams; 1: no beam search")
    length_penalty: float = Field(
        default=1.0,
        description="exponent of the length by which the log-probabilities of beams are divided",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="label smoothing: fraction of the target's probability that is spread"
        " evenly over all tokens",
    )


@dataclass(frozen=True)
class Written:
    """The texts that were written for one row, the likeliest first."""

    texts: list[str]
    scores: list[float]  # of beams: log-probability over the power of the length
    source: str = ""


class LanguageTask(Task):
    """A task whose network is a language model."""

    has_language_head: ClassVar[bool] = True

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._model: Checkpoint | None = None

    def use(self, checkpoint: Checkpoint) -> None:
        if checkpoint.config.architecture == "encoder":
            raise ModelError(
                f"the task {self.name} writes texts, and an encoder does not",
                where=str(checkpoint.folder),
                do="take an encoder-decoder, as t5-small, or a decoder, as gpt2",
            )
        self._model = checkpoint

    @property
    def model(self) -> Checkpoint:
        """What it is trained on or used with: its tokenizer, and how it generates."""
        assert self._model is not None, "Task.use was not called"
        return self._model

    @property
    def is_decoder(self) -> bool:
        return self.model.config.architecture == "decoder"

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a text."""
        return self.model.ends

    def network(self, config: ModelConfig, seed: int = 0, pad: int | None = None) -> LanguageModel:
        model = LanguageModel(config)
        init_weights(model, seed)
        return model

    def weights_to_begin_with(
        self, weights: Mapping[str, Tensor], saved: Mapping[str, Any] | None, network: nn.Module
    ) -> dict[str, Tensor]:
        return dict(weights)

    def head_kind(self, family: Family) -> str:
        return HEAD

    def published(self) -> dict[str, Any]:
        return {}

    def describe_transformers_support(self, family: Family, data: Any) -> str:
        auto = "AutoModelForCausalLM" if self.is_decoder else "AutoModelForSeq2SeqLM"
        return f"transformers: {auto} gives the same logits, and writes the same texts."

    def notes(self) -> list[str]:
        return self._notes


class WritingTask(LanguageTask):
    """A text for each row."""

    settings: WritingOptions
    key: str  # what a text is called in an answer, as `transformers` pipelines call it

    def __init__(self, settings: WritingOptions, *, max_new_tokens: int | None = None) -> None:
        """max_new_tokens: what training has settled, where the settings leave it to that."""
        super().__init__()
        self.settings = settings
        chosen = settings.max_new_tokens
        self.max_new_tokens = max_new_tokens if chosen is None else chosen

    # --- the model ---

    def use(self, checkpoint: Checkpoint) -> None:
        super().use(checkpoint)
        cap = checkpoint.config.logit_cap
        if self.settings.label_smoothing and cap:
            raise SettingsError(
                f"task.label_smoothing = {self.settings.label_smoothing} does not go with logits"
                f" that are capped (model.logit_cap = {cap:g})",
                do="leave one of them out",
            )

    def generation(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {"num_beams": self.settings.beams}
        if self.settings.beams > 1:
            chosen["length_penalty"] = self.settings.length_penalty
        if self.max_new_tokens is not None:
            chosen |= {"max_new_tokens": self.max_new_tokens, "max_length": None}
        return chosen

    # --- rows ---

    def settle_length(self, targets: Examples) -> None:
        """Say how long a text may become, by the targets of training, where nothing says it."""
        if self.max_new_tokens is None:
            longest = int(targets.lengths.max(initial=1))
            self.max_new_tokens = min(int(LONGER * longest) + MORE, self.model.config.longest - 1)

    # --- training ---

    def batches(self, train: Encoded, settings: Settings) -> BatchSource:
        if train.decoder is None:
            return Split(train.examples, settings.train)
        return PairSplit(train.examples, train.decoder, settings.train)

    def forward(self, model: nn.Module, batch: Any) -> Outcome:
        """The cross-entropy of the target's tokens, with label smoothing (Szegedy et al. 2016,
        arXiv:1512.00567, section 7) as `transformers` has it.
        """
        assert isinstance(model, LanguageModel)
        side = decoder_side(batch)
        assert side.labels is not None
        states = select_labelled(language_states(model, batch), side)
        loss, _ = model.loss(states, side.labels)
        smoothing = self.settings.label_smoothing
        if smoothing and model.training:
            loss = loss + smoothing * model.excess(states, side.labels)
        return Outcome(loss, float(len(side.labels)))

    @torch.no_grad()
    def mean_loss(
        self, model: nn.Module, encoded: Encoded, device: torch.device, dtype: torch.dtype
    ) -> float | None:
        """In nats a token of the targets; None where there are none."""
        assert isinstance(model, LanguageModel)
        total = 0.0
        count = 0.0
        for batch in _every_batch(encoded, device):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                found = self.forward(model, batch)
            total += float(found.loss)
            count += found.count
        return total / count if count else None

    # --- predicting ---

    def apply(
        self,
        model: nn.Module,
        encoded: Encoded,
        *,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[Written], float | None]:
        with evaluating(model):
            scored = encoded.golds is not None
            loss = self.mean_loss(model, encoded, device, dtype) if scored else None
            written = self.write(model, encoded.context, dtype, progress=progress)
        return written, loss

    def write(
        self,
        model: nn.Module,
        prompts: Sequence["Prompt"],
        dtype: torch.dtype,
        *,
        beams: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Written]:
        """The texts after each prompt. beams: in the place of the settings'."""
        assert isinstance(model, LanguageModel)
        width = self.settings.beams if beams is None else beams
        config = self._generation_config()
        rows = min(MOST_ROWS, width * len(prompts))
        longest = max((len(prompt.tokens) for prompt in prompts), default=1)
        most = longest + (self.max_new_tokens or 0) + 4 * PAGE
        engine = Engine(
            for_generation(model, dtype),
            self.model.tokenizer,
            rows=max(rows, width),
            tokens=max(rows, width) * most,
            dtype=dtype,
        )
        search = None
        if width > 1:
            search = Beams(width, width, self.settings.length_penalty, config.early_stopping)
        sampling = Sampling(max_tokens=self.max_new_tokens)
        ids = []
        for prompt in prompts:
            request = Request(prompt.tokens, sampling, config, beams=search, as_text=True)
            ids.append(engine.submit(request))
        while engine.has_work:
            ended = sum(delta.finish_reason is not None for delta in engine.step())
            if progress is not None and ended:
                progress(ended)
        written = []
        for id, prompt in zip(ids, prompts, strict=True):
            answer = engine.collect(id)
            if answer.error is not None:
                raise answer.error
            best = answer.n_best or [answer]
            texts = [each.text.strip() for each in best]
            scores = [0.0 if each.score is None else each.score for each in best]
            written.append(Written(texts, scores, prompt.source))
        return written

    def _generation_config(self) -> GenerationConfig:
        """The model's own, without what it says of lengths and of drawing."""
        tokenizer = self.model.tokenizer
        found = self.model.generation_in(tokenizer)
        return replace(
            found,
            end=self.ends,
            max_new_tokens=None,
            max_length=None,
            min_length=0,
            min_new_tokens=0,
            do_sample=False,
        )

    def show(self, prediction: Written, top: int | None) -> list[dict[str, Any]]:
        """The likeliest texts; with their scores where they were searched by beams."""
        texts = prediction.texts[:top]
        if len(prediction.texts) == 1:
            return [{self.key: text} for text in texts]
        pairs = zip(texts, prediction.scores, strict=False)
        return [{self.key: text, "score": score} for text, score in pairs]

    def answer(self, prediction: Written) -> Any:
        return {self.key: prediction.texts[0]}


@dataclass(frozen=True)
class Prompt:
    """What a text is written from: a decoder's prompt, or the source of an encoder-decoder."""

    tokens: list[int]
    source: str = ""  # as people read it


def prompt_and_target(prompt: Sequence[int], target: Sequence[int]) -> tuple[list[int], list[int]]:
    """A decoder's tokens and the labels of each: what follows it, of the target alone.

    prompt p1 .. pm, target t1 .. tn: read p1 .. pm t1 .. tn-1, labels -1 .. -1 t1 .. tn.
    """
    tokens = [*prompt, *target[:-1]]
    labels = [-1] * (len(prompt) - 1) + list(target)
    return tokens, labels


def labelled_examples(
    tokens: Sequence[Sequence[int] | NDArray[np.int32]],
    labels: Sequence[Sequence[int] | NDArray[np.int32]],
    cut: NDArray[np.int32],
) -> Examples:
    """Sequences with what is to be predicted at each token; cut (n,): tokens left out of each."""
    starts = np.zeros(len(tokens) + 1, np.int64)
    np.cumsum([len(each) for each in tokens], out=starts[1:])
    return Examples(_flat(tokens), starts, None, cut, labels=_flat(labels))


def end_token(tokenizer: Tokenizer, ends: frozenset[int]) -> int:
    """The token that ends a target: the tokenizer's, if it is one of those that end a text."""
    own = tokenizer.end
    if own is not None:
        return own
    special = special_ids(tokenizer)
    for token in (special.eos, special.sep):
        if token is not None:
            return token
    if not ends:
        raise ModelError(
            "the model has no token that ends a text",
            do="name eos_token in its tokenizer_config.json",
        )
    return min(ends)


def _flat(parts: Sequence[Sequence[int] | NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate([np.asarray(part, np.int32) for part in [*parts, []]]).astype(np.int32)


def _every_batch(encoded: Encoded, device: torch.device) -> Any:
    """All sequences, in batches whose loss is to be computed."""
    lengths = encoded.examples.lengths
    if encoded.decoder is not None:
        lengths = lengths + encoded.decoder.lengths
    for rows in sorted_batches(lengths, max(LOSS_TOKENS, int(lengths.max(initial=1)))):
        if encoded.decoder is None:
            yield gather(encoded.examples, rows, device)
        else:
            yield gather_pairs(encoded.examples, encoded.decoder, rows, device)

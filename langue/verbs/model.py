"""What arrives: a Hub name, a folder or a run. What leaves: a model in use: hidden states, embeddings, predictions."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, gather, gather_pairs
from langue.data.pack import sorted_batches
from langue.errors import ModelError
from langue.files import atomic_folder
from langue.generate.sample import sampling_of
from langue.hub.checkpoint import (
    Checkpoint,
    classes_of,
    describe,
    load_into,
    read_checkpoint,
    usable,
    write_checkpoint,
)
from langue.hub.family import KEPT, SPEAKING
from langue.hub.sentence import copy_modules
from langue.model.language import LanguageModel, draw_up, unfilled
from langue.model.transformer import Transformer
from langue.runtime import device, precision
from langue.settings import DataSettings
from langue.tasks.infer import infer
from langue.tasks.task import Task, TaskModel
from langue.verbs.embed import SentenceEncoder
from langue.verbs.generation import TextGenerator
from langue.verbs.inputs import Inputs, Room, Texts, check_kind, is_pair, listed
from langue.verbs.save import head_of, task_of, write_task_checkpoint

LOGITS = 2048  # tokens of a batch whose logits are held whole


class Model:
    """A loaded model. Texts may be strings, (text, pair) tuples, or lists of token ids."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        body: Transformer,
        task: Task | None,
        network: TaskModel | None,
        dtype: torch.dtype,
        language: LanguageModel | None = None,
    ) -> None:
        self.checkpoint, self.config, self.tokenizer = checkpoint, checkpoint.config, checkpoint.tokenizer
        self.body, self.task, self.network, self.language = body, task, network, language
        self.device, self.dtype = next(body.parameters()).device, dtype
        self.inputs = Inputs(checkpoint)
        self.data = self._data_settings()
        self.pairs: bool | None = (checkpoint.task or {}).get("pairs")  # what the task is of; None: not known

    def _data_settings(self) -> DataSettings:
        """How the task's texts are cut: as the run says, or as `transformers` cuts what it published."""
        if self.checkpoint.task is not None:
            return DataSettings(**self.checkpoint.task.get("data", {}))
        return DataSettings(max_length=max(4, self.inputs.room.tokens), cut=self.inputs.cut_side)

    @cached_property
    def _sentence_encoder(self) -> SentenceEncoder:
        return SentenceEncoder(self.checkpoint, self.body, self.inputs)

    @cached_property
    def _text_generator(self) -> TextGenerator:
        return TextGenerator(self.checkpoint, self._language(), self.inputs)

    def hidden(self, texts: Texts) -> list[NDArray[np.float32]]:
        """The last hidden state of every token, special ones included: one (t, D) array a text.

        A text that is longer than the model's positions, or its tokenizer's model_max_length, is an error.
        """
        examples = self._examples(texts)
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)

        def states(batch: Batch) -> NDArray[np.float32]:
            found: NDArray[np.float32] = self.body(*batch.inputs).float().cpu().numpy()
            return found

        for batch, found in infer(states, examples, self.device, self.dtype):
            ends = np.cumsum(examples.lengths[batch.rows])
            for row, part in zip(batch.rows, np.split(found, ends[:-1]), strict=True):
                out[row] = part
        return out

    def encode(
        self, texts: Texts, pool: str | None = None, prompt: str | None = None, prompt_name: str | None = None
    ) -> NDArray[np.float32]:
        """One vector a text, (N, D).

        A folder of sentence-transformers is followed: its max_seq_length, pooling, Dense and Normalize modules, and
        its default prompt. Elsewhere the vector is the mean of the text's hidden states. A longer text is cut, with a
        LangueWarning that counts.

        pool: plain pooled hidden states instead: mean, first (cls), last (lasttoken), max, mean_sqrt_len or
        weightedmean. prompt: put before each string; prompt_name: the one that the model has under this name. Token
        ids are taken as they are.
        """
        return self._sentence_encoder.encode(texts, pool, prompt, prompt_name, self.dtype)

    def logits(self, texts: Texts, targets: Texts | None = None) -> Any:
        """What the head gives before softmax or sigmoid: (N, labels) of a task model, one (t, V) array a text of a
        language model.

        An encoder-decoder takes sources and targets. A target's row i is the score of what follows its first i + 1
        tokens; of strings, the start token is put before and the last token left off, so that row i scores token i.
        """
        if self.task is None:
            return self._language_logits(texts, targets)
        task, network = self._trained()
        with self.inputs.counting_truncation():
            examples = self._examples(texts, room=self._task_room())
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)
        for batch, scores in infer(network, examples, self.device, self.dtype):
            for row, each in zip(batch.rows, scores.float().cpu().numpy(), strict=True):
                out[row] = each
        return np.stack(out) if out else np.zeros((0, task.n_outputs), np.float32)

    def generate(
        self,
        prompts: Texts,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> list[Any]:
        """What the model writes after each prompt (an encoder-decoder: for each source), up to its end token.

        Strings give strings, lists of token ids lists of token ids; conversations, lists of `{"role", "content"}`,
        give what is answered, where the model has a chat template. What is not given is as the model's
        generation_config.json says, as in `transformers`; where it says nothing: 64 new tokens, the likeliest each
        time (temperature 0), with top_k 0 (all) and top_p 1. A LangueWarning names what it says and is not
        implemented. A prompt that is longer than the model's positions is an error.
        """
        self._language()
        if self.config.architecture == "encoder":
            raise ModelError("an encoder sees both ways and does not generate", where=str(self.checkpoint.folder))
        items = listed(prompts, "prompts")
        generator = self._text_generator
        sampling = sampling_of(generator.generation, max_tokens, temperature, top_k, top_p, seed)
        if not items:
            return []
        with self._autocast():
            return generator.generate(items, sampling)

    def _language_logits(self, texts: Texts, targets: Texts | None) -> list[NDArray[np.float32]]:
        language = self._language()
        if (targets is not None) != (self.config.architecture == "encoder-decoder"):
            raise ModelError(
                f"the model is an {self.config.architecture}" if targets is not None else "targets are missing",
                do="an encoder-decoder takes logits(sources, targets), others logits(texts)",
            )
        examples = self._examples(texts)
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)
        read = examples if targets is None else self._shifted(targets)
        if len(read) != len(examples):
            raise ModelError(f"{len(examples)} sources and {len(read)} targets", do="give one target a source")
        longer = np.maximum(examples.lengths, read.lengths)
        with torch.no_grad():
            for rows in sorted_batches(longer, max(LOGITS, int(longer.max(initial=1)))):
                with self._autocast():
                    if targets is None:
                        batch = gather(read, rows, self.device)
                        hidden = self.body(*batch.inputs)
                    else:
                        pairs = gather_pairs(examples, read, rows, self.device)
                        batch, memory = pairs.target, self.body(*pairs.source.inputs)[pairs.order]
                        hidden = self.body.decode(*batch.inputs[:3], memory, pairs.groups)
                    scores = language.logits(hidden).float().cpu().numpy()
                for row, part in zip(batch.rows, np.split(scores, batch.starts[1:-1].tolist()), strict=True):
                    out[row] = part
        return out

    def _shifted(self, targets: Texts) -> Examples:
        """Targets as the decoder reads them."""
        examples = self._examples(targets, target=True)
        if len(targets) and isinstance(targets[0], str):
            tokens = np.roll(examples.tokens, 1)
            tokens[examples.starts[:-1]] = self.checkpoint.start
            return replace(examples, tokens=tokens)
        return examples

    def _language(self) -> LanguageModel:
        if self.language is None:
            raise ModelError(
                "the model has no language-model head, so it scores and writes no tokens",
                where=str(self.checkpoint.folder),
                do="load a model saved with its head (ForCausalLM, ForMaskedLM, ForConditionalGeneration)",
            )
        return self.language

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def predict(self, texts: Texts, top: int | None = 1) -> list[Any]:
        """What the task promises, shaped as `transformers` pipelines do: one `{"label", "score"}` a text with top=1,
        a list of the best `top` of them otherwise (None: all labels)."""
        task, _ = self._trained()
        if top is not None and top < 1:
            raise ModelError(f"top = {top} labels cannot be shown", do="give 1 or more, or None for all")
        items = listed(texts)
        check_kind(items)
        if items and (isinstance(items[0], str) or is_pair(items[0])):
            self.check_pairs(is_pair(items[0]))
        with self.inputs.counting_truncation():
            examples = self._examples(items, room=self._task_room())
        shown = [task.show(p, top) for p in self.probabilities(examples)]
        return [each[0] for each in shown] if top == 1 else shown

    def _task_room(self) -> Room:
        """Where the task's texts are cut."""
        most = min(self.data.max_length, self.config.max_length)
        source = "data.max_length of the run" if self.checkpoint.task is not None else self.inputs.room.source
        return Room(most, source, self.data.cut)

    def check_pairs(self, pairs: bool, where: str = "") -> None:
        """ModelError where pairs of texts are given to a run of single ones, or the other way round."""
        if self.pairs is not None and self.pairs != pairs:
            kinds = ("pairs of texts", "single texts")
            trained, given = kinds if self.pairs else kinds[::-1]
            what = f"the run was trained on {trained}, and these are {given}"
            raise ModelError(what, where=where, do="give what it was trained on")

    def probabilities(self, examples: Examples, progress: Any = None) -> NDArray[np.float32]:
        """Predictions of encoded examples, (n, n_outputs), in their order."""
        task, network = self._trained()
        predictions, _ = task.apply(network, examples, device=self.device, dtype=self.dtype, progress=progress)
        return predictions

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load`, and `transformers` where it has the architecture, read."""
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ModelError("the folder exists and is not empty, or is a file", where=str(path), do="choose another")
        with atomic_folder(path) as temporary:
            if self.task is not None and self.network is not None:
                trained = dict(self.network.named_parameters())
                write_task_checkpoint(temporary, self.checkpoint, self.task, trained, self.data, self.pairs)
            else:
                whole = self.language
                weights: dict[str, torch.Tensor] = {f"body.{n}": w for n, w in self.body.named_parameters()}
                if whole is not None:
                    weights |= dict(whole.named_parameters())
                weights |= {n: w for n, w in self.checkpoint.weights.items() if n.startswith(KEPT)}
                write_checkpoint(
                    temporary,
                    family=self.checkpoint.family,
                    config=self.config,
                    weights=weights,
                    tokenizer=self.tokenizer,
                    head=None if whole is None else "lm",
                    published=self.checkpoint.published,
                    writes=self.checkpoint.writes,
                )
                copy_modules(self.checkpoint.folder, temporary)

    def _trained(self) -> tuple[Task, TaskModel]:
        if self.task is None or self.network is None:
            raise ModelError(
                "the model has no task head, so it has no predictions",
                where=str(self.checkpoint.folder),
                do="fine-tune it first: langue finetune --task classify --model ... --data ... --out RUN",
            )
        return self.task, self.network

    def _examples(self, texts: Any, **options: Any) -> Examples:
        """As `Inputs.examples`."""
        return self.inputs.examples(texts, **options)


def load(name: str | Path, revision: str | None = None, dtype: str = "fp32") -> Model:
    """Load a model for use. `dtype`: fp32, bf16, or auto (bf16 where the hardware has it): what its matrices are held
    and multiplied in."""
    described, kind = describe(name, revision), precision(dtype)
    task = task_of(described)
    head = "lm" if task is None else head_of(task, described)
    checkpoint = read_checkpoint(described, head, matrices=kind)
    weights, where = usable(checkpoint.weights), str(checkpoint.folder)
    network = language = None
    if task is None:
        body, language = _language_model(checkpoint, weights, kind)
    else:
        with unfilled():
            network = TaskModel(checkpoint.config, task, pad=checkpoint.pad)
        load_into(network, weights, where=where, copy=False, matrices=kind)
        body = network.body
    (network or language or body).to(device()).eval()  # a body without its head never moves the head's meta tensors
    if kind != torch.float32:  # what the file has in another precision is not held beside
        prefix = "" if network or language else "body."
        whole = {prefix + name: w for name, w in (network or language or body).named_parameters()}
        held = {name: whole.get(name, tensor) for name, tensor in checkpoint.weights.items()}
        checkpoint = replace(checkpoint, weights=held)
    return Model(checkpoint, body, task, network, kind, language)


def _language_model(
    checkpoint: Checkpoint, weights: dict[str, torch.Tensor], kind: torch.dtype
) -> tuple[Transformer, LanguageModel | None]:
    """The body, and the whole with its language-model head where the folder has one."""
    where = str(checkpoint.folder)
    whole = draw_up(checkpoint.config)
    family, classes = checkpoint.family, classes_of(checkpoint.published)
    absent = load_into(whole, weights, where=where, new="head.", copy=False, matrices=kind)
    promised = any(name.endswith(SPEAKING) for name in classes)
    if absent and (promised or len(absent) < len(list(whole.head.parameters()))):
        raise ModelError(f"weights of the language-model head missing: {', '.join(absent[:3])}", where=where)
    speaks = len(list(whole.head.parameters())) or family.speaks(checkpoint.config, classes)
    return whole.body, whole if speaks and not absent and not family.other(classes) else None

"""What arrives: a Hub name, a folder or a run. What leaves: a model in use: hidden states, embeddings, predictions."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, first_tokens, gather, gather_pairs, pool_mean
from langue.data.pack import sorted_batches
from langue.errors import ModelError
from langue.files import atomic_folder
from langue.generate.sample import Sampling, generate
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
from langue.model.language import LanguageModel, draw_up, unfilled
from langue.model.transformer import Transformer
from langue.runtime import device, precision
from langue.settings import DataSettings
from langue.tasks.infer import infer
from langue.tasks.task import Task, TaskModel, encode_texts
from langue.text.parse import is_missing, sound
from langue.text.tokenizer import Tokenizer
from langue.verbs.save import head_of, task_of, write_task_checkpoint

LOGITS = 2048  # tokens of a batch whose logits are held whole
Top = int | Literal["auto"] | None  # how many labels of a text are shown: what the task gives, so many, or all
Texts = Sequence[str] | Sequence[tuple[str, str]] | Sequence[Sequence[int]]


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
        saved = (checkpoint.task or {}).get("data", {})
        self.data = DataSettings(**saved)
        self.pairs: bool | None = (checkpoint.task or {}).get("pairs")  # what the task is of; None: not known

    def hidden(self, texts: Texts) -> list[NDArray[np.float32]]:
        """The last hidden state of every token, special ones included: one (t, D) array a text."""
        examples = self._examples(texts)
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)
        for rows, states in self._states(examples, pool=None):
            ends = np.cumsum(examples.lengths[rows])
            for row, part in zip(rows, np.split(states, ends[:-1]), strict=True):
                out[row] = part
        return out

    def encode(self, texts: Texts, pool: str = "mean") -> NDArray[np.float32]:
        """One vector a text, (N, D): the mean of its hidden states, or the first one (`pool="first"`)."""
        if pool not in ("mean", "first"):
            raise ModelError(f"pool = {pool!r} is not known", do='use "mean" or "first"')
        examples = self._examples(texts)
        out = np.zeros((len(examples), self.config.dim), np.float32)
        for rows, states in self._states(examples, pool=pool):
            out[rows] = states
        return out

    def logits(self, texts: Texts, targets: Texts | None = None) -> Any:
        """What the head gives before softmax or sigmoid: (N, labels) of a task model, one (t, V) array a text of a
        language model.

        An encoder-decoder takes sources and targets. A target's row i is the score of what follows its first i + 1
        tokens; of strings, the start token is put before and the last token left off, so that row i scores token i.
        """
        if self.task is None:
            return self._language_logits(texts, targets)
        task, network = self._trained()
        examples = self._examples(texts)
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(examples)
        for batch, scores in infer(network, examples, self.device, self.dtype):
            for row, each in zip(batch.rows, scores.float().cpu().numpy(), strict=True):
                out[row] = each
        return np.stack(out) if out else np.zeros((0, task.n_outputs), np.float32)

    def generate(
        self,
        prompts: Texts,
        max_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[Any]:
        """What the model writes after each prompt (an encoder-decoder: for each source), up to its end token. Strings
        give strings, lists of token ids lists of token ids; conversations, lists of `{"role", "content"}`, give what is
        answered, where the model has a chat template."""
        language = self._language()
        prompts = prompts if isinstance(prompts, str) else list(prompts)  # type: ignore[assignment]
        if len(prompts) and not isinstance(prompts[0], str) and len(prompts[0]) and isinstance(prompts[0][0], Mapping):
            texts = [self.tokenizer.chat(messages) for messages in prompts]  # type: ignore[arg-type]
            encode = self.tokenizer.backend.encode
            ids = [encode(text, add_special_tokens=False).ids for text in texts]  # the template has written them
            return [self.tokenizer.decode(t) for t in self.generate(ids, max_tokens, temperature, top_k, top_p, seed)]
        if self.config.architecture == "encoder":
            raise ModelError("an encoder sees both ways and does not generate", where=str(self.checkpoint.folder))
        sampling = Sampling(max_tokens, temperature, top_k, top_p, seed)
        examples = self._examples(prompts, prompt=self.config.architecture == "decoder")
        of, begins = self.checkpoint, self.checkpoint.published.get("bos_token_id")
        ids = [part.tolist() for part in np.split(examples.tokens, examples.starts[1:-1])]
        if self.config.architecture == "decoder" and isinstance(begins, int):  # from nothing: as a text begins
            ids = [part or [begins] for part in ids]
        with self._autocast():
            written = generate(language, ids, sampling, stop=of.ends, start=of.start, first=of.first, banned=of.banned)
        strings = len(prompts) > 0 and isinstance(prompts[0], str)
        return [self.tokenizer.decode(tokens) for tokens in written] if strings else written

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
        examples = self._examples(targets, tokenizer=self.tokenizer.target)
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

    def predict(self, texts: Texts, top: Top = "auto") -> list[Any]:
        """What the task promises of each text, shaped as `transformers` pipelines do.

        top="auto": one `{"label", "score"}` a text, or, of a task with several labels a text, a list of those at or
        over its threshold, which may be empty. top=1: the best label alone; other numbers: a list of the best so many;
        None: a list of all labels. A text in which there is nothing (None, blank, without tokens) has None.
        """
        task, _ = self._trained()
        if top not in ("auto", None) and (not isinstance(top, int) or top < 1):
            do = 'give 1 or more, None for all, or "auto" for what the task gives'
            raise ModelError(f"top = {top!r} labels cannot be shown", do=do)
        if isinstance(texts, str):
            raise ModelError("texts is one string", do="give a list: [text]")
        items: list[Any] = list(texts)
        answers: list[Any] = [None] * len(items)
        rows, examples = self._answerable(items)
        for row, prediction in zip(rows, self.probabilities(examples), strict=True):
            if top == "auto":
                answers[row] = task.answer(prediction)
            else:
                shown = task.show(prediction, top)
                answers[row] = shown[0] if top == 1 else shown
        return answers

    def _answerable(self, items: list[Any]) -> tuple[list[int], Examples]:
        """Which of these texts, pairs or lists of token ids have something in them, and these encoded."""
        rows = [row for row, item in enumerate(items) if not _is_empty(item)]
        filled = [items[row] for row in rows]
        paired = _paired(filled[:1]) == [True]
        if filled and isinstance(filled[0], str) or paired:
            self.check_pairs(paired)
        examples = self._examples(filled)
        usable = examples.lengths > 0
        if not usable.all():
            rows = [row for row, fits in zip(rows, usable, strict=True) if fits]
            examples = self._examples([items[row] for row in rows])
        return rows, examples

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

    def _trained(self) -> tuple[Task, TaskModel]:
        if self.task is None or self.network is None:
            raise ModelError(
                "the model has no task head, so it has no predictions",
                where=str(self.checkpoint.folder),
                do="fine-tune it first: langue finetune --task classify --model ... --data ... --out RUN",
            )
        return self.task, self.network

    def _examples(self, texts: Texts, prompt: bool = False, tokenizer: Tokenizer | None = None) -> Examples:
        """Encode strings or pairs; take lists of ids as they are. prompt: without the tokens that end a text."""
        if isinstance(texts, str):
            raise ModelError("texts is one string", do="give a list: [text]")
        items: list[Any] = list(texts)
        strings, paired = [isinstance(item, str) for item in items], _paired(items)
        if len(set(strings)) > 1 or len(set(paired)) > 1:
            raise ModelError("texts mixes strings, pairs and token ids", do="give one kind at a time")
        if items and not strings[0] and not paired[0]:
            return self._from_ids(items, self.config.decoder_vocab_size if tokenizer is not None else 0)
        pairs = None
        if items and paired[0]:
            odd = next((n for n, item in enumerate(items) if len(item) != 2 or not isinstance(item[1], str)), None)
            if odd is not None:
                raise ModelError(f"texts: item {odd} is not a pair of strings", do="give (text, pair), two strings")
            items, pairs = [sound(item[0]) for item in items], [sound(item[1]) for item in items]
        else:
            items = [sound(item) for item in items]
        chosen, data = tokenizer or self.tokenizer, self.data
        cut = "tail" if prompt else data.cut  # what is written goes on from a prompt's end
        examples = encode_texts(chosen, items, pairs, max_length=data.max_length, cut=cut, config=self.config)
        return _without_end(examples, self.checkpoint.ends) if prompt else examples

    def _from_ids(self, items: list[Any], vocabulary: int = 0) -> Examples:
        """vocabulary: tokens that there are; 0: those of the model, or of the encoder."""
        try:
            parts = [np.asarray(item) for item in items]
            whole = all(part.ndim == 1 and (part.dtype.kind in "iu" or not part.size) for part in parts)
        except ValueError:
            whole = False
        if not whole:
            raise ModelError(
                "texts are neither strings nor pairs of them nor lists of token ids", do="give one of these"
            )
        lengths, tokens = [len(part) for part in parts], np.concatenate(parts).astype(np.int64)
        if min(lengths) < 1 or max(lengths) > self.config.longest:
            raise ModelError(f"a sequence must have 1 to {self.config.longest} tokens")
        known = vocabulary or self.config.vocab_size
        if tokens.min() < 0 or tokens.max() >= known:
            raise ModelError(f"token ids must lie in 0 to {known - 1}")
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Examples(tokens.astype(np.int32), starts, None, np.zeros(len(items), np.int32))

    def _states(self, examples: Examples, pool: str | None) -> Any:
        """Batches of (rows, states): pooled (N, D), or flat (T, D) where pool is None."""

        def states(batch: Batch) -> NDArray[np.float32]:
            hidden = self.body(*batch.inputs, wanted=first_tokens(batch) if pool == "first" else None).float()
            found: NDArray[np.float32] = (pool_mean(hidden, batch) if pool == "mean" else hidden).cpu().numpy()
            return found

        return ((batch.rows, found) for batch, found in infer(states, examples, self.device, self.dtype))


def _is_empty(item: Any) -> bool:
    """Whether there is nothing in a text, in one side of a pair, or in a list of token ids."""
    if isinstance(item, (tuple, list)) and 0 < len(item) <= 2:
        return any(each is None or isinstance(each, (str, float)) and is_missing(each) for each in item)
    if item is None or isinstance(item, (str, float)):
        return is_missing(item)
    return isinstance(item, Sized) and not len(item)


def _paired(items: list[Any]) -> list[bool]:
    """Which of them are pairs of strings, and no lists of token ids."""
    return [isinstance(item, (tuple, list)) and len(item) > 0 and isinstance(item[0], str) for item in items]


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


def _without_end(examples: Examples, ends: frozenset[int]) -> Examples:
    """Prompts to go on from: the tokens that say a text is over are left off."""
    if not len(examples.tokens):
        return examples
    last = np.maximum(examples.starts[1:] - 1, 0)
    over = np.isin(examples.tokens[last], list(ends)) & (examples.lengths > 1)
    kept = np.ones(len(examples.tokens), bool)
    kept[last[over]] = False
    starts = np.concatenate([[0], np.cumsum(examples.lengths - over)]).astype(np.int64)
    return replace(examples, tokens=examples.tokens[kept], starts=starts, segments=None)

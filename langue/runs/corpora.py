"""Preparation of pretraining: takes a pretraining command; opens or builds the corpus, its
tokenizer and the model, and returns everything that training needs, with the facts to show first.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from langue.data.corpus.builder import Building, build
from langue.data.corpus.reader import Corpus, is_corpus, vocabulary
from langue.data.corpus.split import SplitAssignment
from langue.data.corpus.stream import Stream, check_sizes
from langue.errors import DataError, SettingsError
from langue.files import sha256
from langue.hardware import matmul_rate
from langue.hub.checkpoint import Checkpoint, describe, locate, read_checkpoint
from langue.hub.family import Family, parameters
from langue.hub.presets import count
from langue.model.config import ModelConfig
from langue.progress import bar, say
from langue.runs.arguments import MANY, Call, check_rereadable
from langue.runs.folder import CORPUS
from langue.runs.new_model import AXES, TOKENIZER, shape_of_new_model
from langue.runs.prepare import Prepared, shape_of
from langue.runs.save import write_language_checkpoint, write_objective_facts
from langue.runs.train_tokenizer import as_list, train_tokenizer
from langue.runtime import precision, rank
from langue.settings.sections import (
    OF_BUILDING,
    OF_TRAINING_TOKENIZERS,
    Settings,
    TrainSettings,
    refuse_others,
)
from langue.tasks.language import FEW, LanguageObjective, t_half_width
from langue.tasks.objective import check_best
from langue.text.read.documents import Reading, open_texts
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.train.parallel import barrier
from langue.train.throughput import body_flops, head_flops
from langue.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

FEWEST = 100  # smallest vocabulary size that a tokenizer may end up with
MOST_COUNTED = 20_000_000  # maximum number of corpus tokens to scan for unknown ones
COUNTED = 256  # number of documents whose first chunks are used to estimate the cost of a token


@dataclass(kw_only=True, repr=False)
class Pretraining(Prepared):
    """Prepared pretraining: tokenized documents, of which some are held out."""

    task: LanguageObjective
    train: Corpus
    dev: Corpus

    @property
    def objective(self) -> LanguageObjective:
        """The task, under the name that `langue/runs/samples.py` uses."""
        return self.task

    @classmethod
    def given_folders(cls, call: Call) -> list[Path]:
        corpus = given_corpus(call.arguments["data"])
        return [] if corpus is None else [corpus]

    @property
    def folders(self) -> list[Path]:
        return [self.train.folder]

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        if self.settings.model.adapter is not None:
            from langue.runs.adapters import write_adapter_files

            of = self.checkpoint, self.settings.model, "lm"
            base = write_adapter_files(folder, *of, weights)
            write_objective_facts(folder, self.task, self.settings.data, {"base": base})
            return
        write_language_checkpoint(folder, self.checkpoint, self.task, weights, self.settings.data)

    def print(self, console: "Console") -> None:
        from langue.runs.show import print_pretraining

        print_pretraining(self, first_pieces(self), console)

    def __repr__(self) -> str:
        facts = self.facts
        of = f"{facts['tokens']:,} tokens, {facts['steps']:,} steps"
        return f"Pretraining({self.task.name}, {facts['parameters']:,} parameters: {of})"

    def fingerprint(self) -> dict[str, str]:
        return {CORPUS: sha256(self.train.folder / "corpus.json")}

    @classmethod
    def check(cls, call: Call) -> None:
        arguments = call.arguments
        settings = call.settings
        if settings.train.best is not None:
            check_best(settings.train.best, (), "pretraining, which chooses by the loss")
        corpus = given_corpus(arguments["data"])
        if corpus is not None:
            what = "text that becomes a corpus, and this data is one"
            refuse_others(settings, call.usual, OF_BUILDING, what)
            for name in ("tokenizer", "columns"):
                if arguments[name] is not None:
                    what = f"--{name} is of text, and a corpus is tokens already"
                    raise SettingsError(what, where=str(corpus), do="leave it out")
        model = arguments["model"]
        if corpus is not None or model is not None or arguments["tokenizer"] is not None:
            what = "a tokenizer that is trained, and there is one"
            refuse_others(settings, call.usual, OF_TRAINING_TOKENIZERS, what)
        if model is None and settings.model.adapter is not None:
            raise SettingsError(
                "model.adapter is of a model that is trained further, and none is named",
                do="name it with --model",
            )
        if settings.model.base_weights is not None:
            raise SettingsError(
                "model.base_weights is of fine-tuning, and does nothing here", do="leave it out"
            )
        if model is None:
            return
        for name in ("preset", "size", *AXES):
            if getattr(settings.model, name) is not None and not name.endswith("dropout"):
                raise SettingsError(
                    f"model.{name} is of a new model, and --model names one that exists",
                    do="leave one of them out",
                )

    @classmethod
    def make(cls, call: Call, folder: Path | None = None, resume: bool = False) -> Self:
        """Find or build the tokenizer, corpus and model; what is built is stored in the run."""
        assert folder is not None
        kind: type[LanguageObjective] = call.kind  # type: ignore[assignment]
        settings = call.settings
        published = None
        if call.arguments["model"] is not None:
            described = describe(call.arguments["model"], settings.model.revision)
            pairs = kind.learns_pairs(settings.task)
            published = read_checkpoint(described, head="lm", pairs=pairs)
            if settings.model.adapter is not None:
                from langue.runs.adapters import check as check_adapters

                check_adapters(published, settings)

        if published is not None:
            kind.suits(published.config)  # before any complaint about its tokenizer

        def check(tokenizer: Tokenizer | None) -> None:
            check_sizes(
                kind.overhead_for(settings.task), settings.data.seq_len, settings.train.batch_tokens
            )
            if tokenizer is not None:
                _task_and_model(kind, tokenizer, published, settings)
            else:
                kind.fits(settings.task, settings.data.seq_len, settings.tokenizer.sentinels)
                _check_shape(kind, settings)

        own = None if published is None else published.tokenizer
        train, dev = corpus_of(call.arguments, own, settings, folder, check)
        kind.check_documents(settings.task, train.n_documents)
        tokenizer = train.tokenizer if own is None else own
        task, checkpoint = _task_and_model(kind, tokenizer, published, settings)
        made = cls(task=task, checkpoint=checkpoint, settings=settings, train=train, dev=dev)
        made.facts = _facts(made, call.arguments)
        if settings.model.adapter is not None:
            from langue.runs.adapters import trained_weights

            made.facts["trained"] = trained_weights(task, checkpoint, settings.model)
        return made


def corpus_of(
    arguments: Mapping[str, Any],
    own: Tokenizer | None,
    settings: Settings,
    folder: Path,
    check: Callable[[Tokenizer | None], None] = lambda tokenizer: None,
) -> tuple[Corpus, Corpus]:
    """Return the training split and the held-out split.

    own: the tokenizer of the model that is trained further. check: called before the text is
    tokenized, and with None before a tokenizer is trained, so that errors are raised before that
    work is done. The text is tokenized into `folder`/corpus once; a resumed run finds it there.
    """
    given = given_corpus(arguments["data"])
    path = given or folder / "corpus"
    there = is_corpus(path)
    if not there and rank() == 0:
        check_rereadable(arguments["data"])  # a resumed run already has them as a corpus
        _build(as_list(arguments["data"]), arguments, own, settings, path, check)
    if not given:
        barrier()
    train = Corpus.open(path, "train")
    dev = Corpus.open(path, "dev")
    if there and rank() == 0:  # the checksums of a new corpus have just been computed
        with bar("reading checksums", 2) as advance:
            for corpus in (train, dev):
                corpus.verify()
                advance(1)
    if own is not None:
        same_tokens(train.tokenizer, own, path)
    return train, dev


def given_corpus(data: Any) -> Path | None:
    """Return the corpus that is given as data, or None if it is no corpus."""
    named = as_list(data)
    one = len(named) == 1 and isinstance(named[0], (str, Path))
    return Path(named[0]) if one and is_corpus(Path(named[0])) else None


def same_tokens(tokenizer: Tokenizer, own: Tokenizer, where: Path) -> None:
    """Raise DataError if a token id means another token to the model than to the tokenizer that
    produced it.
    """
    theirs, ours = (each.backend.get_vocab(with_added_tokens=True) for each in (tokenizer, own))
    if theirs == ours:
        return
    sizes = f"has {vocabulary(tokenizer):,} tokens and the model {vocabulary(own):,}"
    different = next((token for token in theirs if theirs[token] != ours.get(token)), "")
    alike = f"has as many tokens as the model, but {different!r:.40} is another"
    raise DataError(
        f"the tokenizer of the text {alike if len(theirs) == len(ours) else sizes}",
        where=str(where),
        do=(
            "tokenise the text with the model's own tokenizer: leave out --tokenizer, or build the"
            " corpus again with it"
        ),
    )


def _build(
    named: list[Any],
    arguments: Mapping[str, Any],
    own: Tokenizer | None,
    settings: Settings,
    path: Path,
    check: Callable[[Tokenizer | None], None],
) -> None:
    """Build the corpus at `path`, with the given tokenizer, the model's, or one trained on the
    text.
    """
    columns = arguments["columns"] or {}
    notes = list[str]()
    tokenizer = own
    if arguments["tokenizer"] is not None:
        tokenizer = Tokenizer.load(locate(arguments["tokenizer"]))
        if own is not None:
            same_tokens(tokenizer, own, Path(arguments["tokenizer"]))
    elif tokenizer is None:
        made = path.parent / TOKENIZER
        chosen = {
            f"tokenizer.{key}": value for key, value in settings.tokenizer.model_dump().items()
        }
        if not (made / "tokenizer.json").is_file():
            check(None)
            of_reading = settings.data.model_dump(include={"invalid", "encoding"})
            words = {**{f"data.{key}": value for key, value in of_reading.items()}, **chosen}
            notes += train_tokenizer(named, out=made, columns=columns, **words)["notes"]
        tokenizer = Tokenizer.load(made)
    check(tokenizer)
    reading = Reading.of(settings.data, columns)
    texts = open_texts(named, reading, notes)
    with bar("text to tokens", sum(each.size or 0 for each in texts)) as advance:
        division = SplitAssignment.of(settings.data.dev_fraction, settings.data.seed)
        building = Building(texts, tokenizer, reading, division, settings.data.shard_tokens)
        build(building, path, progress=advance, notes=notes)
    for note in dict.fromkeys(notes):
        say(note)


def _task_and_model(
    kind: type[LanguageObjective],
    tokenizer: Tokenizer,
    published: Checkpoint | None,
    settings: Settings,
) -> tuple[LanguageObjective, Checkpoint]:
    """Return the task and its initial model, or raise what is wrong with them; needs no text."""
    task = kind(tokenizer, settings.task, z_loss=settings.train.z_loss, seed=settings.train.seed)
    task.fits(settings.task, settings.data.seq_len, len(task.special.sentinels))
    family, config = _shape(kind, vocabulary(tokenizer), published, settings)
    # some models have one token fewer, because of a spare one
    task.vocabulary = min(task.vocabulary, config.vocab_size)
    if published is not None:
        return task, replace(published, config=config)
    return task, Checkpoint(Path(), family, config, None, {}, tokenizer)


def _check_shape(kind: type[LanguageObjective], settings: Settings) -> None:
    """Raise an error if the model's shape is invalid whatever the vocabulary size.

    The final size depends on the text, so no shape is rejected that is valid for some size.
    """
    errors = []
    for vocab_size in np.geomspace(settings.tokenizer.vocab_size, FEWEST, 17).astype(int).tolist():
        try:
            _shape(kind, vocab_size, None, settings)
            return
        except SettingsError as error:
            errors.append(error)
    raise errors[0]


def _shape(
    kind: type[LanguageObjective],
    vocab_size: int,
    checkpoint: Checkpoint | None,
    settings: Settings,
) -> tuple[Family, ModelConfig]:
    """Return the family and config of the model that is trained further, or of a new one."""
    block = settings.data.seq_len
    if checkpoint is not None:
        family = checkpoint.family
        config = checkpoint.config
    else:
        assert kind.preset is not None
        family, config = shape_of_new_model(kind.preset, vocab_size, block, settings)
    kind.suits(config)
    if kind.learns_pairs(settings.task):
        config = _with_pairs(family, config)
    if block > config.longest:
        raise SettingsError(
            f"data.seq_len = {block} is more than the {config.longest} tokens of the model",
            do=f"set data.seq_len to at most {config.longest}",
        )
    return family, config


def _with_pairs(family: Family, config: ModelConfig) -> ModelConfig:
    """Return the config with the head that predicts whether a second part follows the first."""
    published = any(r.ours == "head.pairs.weight" for r in family.heads.get("lm", ()))
    if not published or config.n_segments < 2:
        raise SettingsError(
            f"task.pairs needs a model that tells two parts apart, which {family.name} does not",
            do="choose model.preset=bert-tiny .. bert-base, or task.pairs=none",
        )
    return replace(config, pair_head=True)


def _facts(prepared: Pretraining, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts to show before training."""
    chosen = prepared.settings.train
    train = prepared.train
    config = prepared.config
    step = chosen.batch_tokens * chosen.accumulate
    stream = prepared.task.batches(train, prepared.settings)
    tokens = stream.expected()
    a_pass = max(1, math.ceil(tokens / step))
    steps = _steps(stream, a_pass, chosen)
    passes = stream.tokens_in(steps * chosen.accumulate) / (a_pass * step)
    seen = passes * tokens  # the last batch of an epoch has fewer tokens
    block = prepared.settings.data.seq_len
    flops = _flops_a_token(prepared, stream) * seen
    new = _new_parts(prepared.checkpoint)
    return {
        "objective": prepared.task.name,
        **shape_of(prepared.checkpoint),
        "parameters": count(config),
        **({"new_weights": new} if new else {}),
        "documents": train.n_documents,
        "tokens": train.n_tokens,
        "bytes": train.n_bytes,
        "dev_documents": prepared.dev.n_documents,
        "dev_tokens": prepared.dev.n_tokens,
        "dev_bytes": prepared.dev.n_bytes,
        "block": block,
        "tokens_per_step": step,
        "steps": steps,
        "tokens_per_epoch": tokens,
        "passes": passes,
        "tokens_per_parameter": seen / count(config),
        "flops": flops,
        "seconds_estimated": flops / (0.5 * matmul_rate(precision(chosen.precision))),
        "precision": str(precision(chosen.precision)).removeprefix("torch."),
        "notes": notes_on_data(prepared, arguments["data"]),
    }


def notes_on_data(prepared: Pretraining, data: Any) -> list[str]:
    """Return notes on the text: how little of it is held out, and how much of it is unknown."""
    train = prepared.train
    dev = prepared.dev
    given = given_corpus(data) is not None
    remedy = "langue data tokenize with" if given else "setting"
    return notes_on_held_out(train.n_documents, dev.n_documents, remedy) + notes_on_text(
        train, prepared.task, "training"
    )


def _new_parts(checkpoint: Checkpoint) -> list[str]:
    """Return the names of head weights that the model to train further lacks."""
    if not checkpoint.weights:
        return []
    return [
        name
        for name in parameters(checkpoint.config)
        if name.startswith("head.") and name not in checkpoint.weights
    ]


def _flops_a_token(prepared: Pretraining, stream: Stream) -> float:
    """Return forward and backward FLOPs per token of the budget, estimated on chunks of some
    documents.

    The objective determines what is predicted, and what the encoder and the decoder process.
    """
    sizes = prepared.train.lengths
    # the last of these is not empty
    documents = np.append(np.arange(min(COUNTED, len(sizes))), sizes.argmax())
    lengths = np.minimum(
        sizes[documents] + stream.overhead.document, stream.block - stream.overhead.chunk
    )
    nothing = np.zeros_like(lengths)
    rows = np.stack([documents, nothing, lengths, nothing], axis=1)[lengths > 0]
    batch = stream.batch(rows, 0, torch.device("cpu"))
    labels = prepared.task.predicted(batch).labels
    assert labels is not None
    forward = body_flops(prepared.config, batch) + head_flops(prepared.config) * len(labels)
    return 3 * forward / int((rows[:, 2] + stream.overhead.chunk).sum())


def _steps(stream: Stream, a_pass: int, chosen: TrainSettings) -> int:
    """Return the number of steps of the run, given the number of steps of an epoch with full
    batches.
    """
    if chosen.epochs >= MANY:
        return chosen.max_steps
    full = max(1, round(a_pass * chosen.epochs)) * chosen.accumulate * chosen.batch_tokens
    steps = math.ceil(stream.batches_for(full) / chosen.accumulate)
    return min(steps, chosen.max_steps) if chosen.max_steps else steps


def first_pieces(
    prepared: Pretraining, pieces: int = 2, most: int = 60
) -> list[list[tuple[str, bool]]]:
    """Return the tokens of the longest chunks of the first batch, each with whether it carries
    loss.

    A token that carries loss predicts the next one in causal pretraining, and itself where it was
    masked.
    """
    stream = prepared.task.batches(prepared.train, prepared.settings)
    rows = stream.plan(0)[0]
    rows = rows[np.argsort(-rows[:, 2], kind="stable")[:pieces]]
    batch = stream.batch(rows, 0, torch.device("cpu"))
    side = prepared.task.predicted(batch)
    tokenizer = prepared.tokenizer
    assert side.labels is not None
    carries = torch.zeros(side.n_tokens, dtype=torch.bool)
    carries[slice(None) if side.places is None else side.places] = True
    shown = []
    for a, b in zip(side.starts[:-1].tolist(), side.starts[1:].tolist(), strict=True):
        tokens = side.tokens[a : min(b, a + most)].tolist()
        words = [tokenizer.shown(token) for token in tokens]
        shown.append(list(zip(words, carries[a:b].tolist(), strict=False)))
    return shown


def notes_on_held_out(train: int, held: int, remedy: str = "") -> list[str]:
    """Return a note if few documents are held out.

    train, held: number of documents. remedy: words before a setting that holds out FEW documents,
    if there are enough.
    """
    if held >= FEW:
        return []
    if held < 2:
        width = "how far the scores are from those on other text cannot be told"
    else:
        width = (
            f"the 95% interval of a score reaches {t_half_width(held):.2g} times the spread between"
            f" documents to either side (of {FEW}: {t_half_width(FEW):.2g} times)"
        )
    do = ""
    if remedy and train + held >= 2 * FEW:
        do = f"; {remedy} data.dev_fraction={1.1 * FEW / (train + held):.2g} holds out about {FEW}"
    if (train, held) == (1, 1):
        there = "there is a single document, whose end is held out to judge on"
    elif train:
        are = "is" if held == 1 else "are"
        there = f"only {held} of {train + held:,} documents {are} held out to judge on"
    else:
        are = "is" if held == 1 else "are"
        there = f"there {are} only {counted(held, 'document')} to judge on"
    return [f"{there}: {width}{do}"]


def notes_on_text(text: Corpus, objective: LanguageObjective, which: str = "held-out") -> list[str]:
    """Return a note on unknown tokens in the text under evaluation."""
    if text.unknown is not None:
        unknown = text.unknown
        of = text.n_tokens
    elif objective.special.unk is not None:  # an old corpus, whose unknown tokens are counted now
        unknown, of = text.count(objective.special.unk, MOST_COUNTED)
    else:
        return []
    if not unknown and not text.lost_bytes:
        return []
    share = text.lost_bytes / max(1, text.n_bytes)
    part = unknown / max(1, of)
    so_many = f"{part:.1%}" if part >= 0.001 else f"{unknown:,}"
    said = f"{so_many} of the {which} tokens are the unknown one"
    if not unknown:
        said = (
            f"About {share:.1%} of the {which} text is of characters that the tokenizer leaves out"
        )
    said += (
        ". What is lost is never predicted, so that the perplexity is lower than that of a"
        " tokenizer that knows every text"
    )
    if text.lost_bytes:
        said += f"; bits per byte count each byte of it, about {share:.1%} of the text, as 8 bits"
    return [f"{said}."]

"""Preparation of training: takes a training command; returns `Prepared`, with everything that
training needs and the facts to show first.

This file prepares labelled rows; text for pretraining is in `langue/runs/corpora.py`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from langue.data.batch import Examples
from langue.data.encoded import Encoded
from langue.data.loader import Loader
from langue.errors import DataError, SettingsError
from langue.hub.checkpoint import (
    Checkpoint,
    describe,
    load_into,
    read_checkpoint,
    without_extra,
)
from langue.model.config import ModelConfig
from langue.model.transformer import Transformer, set_dropout
from langue.progress import bar
from langue.registry import Registry
from langue.runs.arguments import Call, check_rereadable
from langue.runs.folder import AS_READ
from langue.runs.save import head_of, write_task_checkpoint, write_task_facts
from langue.runtime import device, precision
from langue.settings.recipe import display_name
from langue.settings.sections import DataSettings, Section, Settings
from langue.tasks.objective import Objective
from langue.tasks.task import Task
from langue.text.read.source import Source, Table, read
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.console import Console

SPLITS = ("train", "dev", "test")
FEW = 100  # number of examples below which an accuracy is known to ten points at best


@dataclass(kw_only=True)
class Prepared(ABC):
    """Everything that a run consists of, and the facts to show before it costs anything.

    There is one subclass for each kind of data that tasks learn from (`Objective.learns_from`).
    """

    task: Objective
    checkpoint: Checkpoint  # the initial model; without weights if it is a new one
    train: Any  # the training split, in the form that `Objective.batches` takes
    dev: Any  # the dev split, in the form that `Objective.held_out` takes
    settings: Settings  # as given, with `auto` resolved
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    @abstractmethod
    def check(cls, call: Call) -> None:
        """Raise SettingsError for settings that are impossible, or would have no effect."""

    @classmethod
    def given_folders(cls, call: Call) -> list[Path]:
        """Return the folders of a command's data that must not be replaced during the run."""
        return []

    @property
    def folders(self) -> list[Path]:
        """The folders that must not be replaced, including what the run itself makes of its
        data.
        """
        return []

    @property
    def examples_of_training(self) -> list[Examples]:
        """All examples that training reads, if they are in memory."""
        return []

    @abstractmethod
    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the model with these weights, loadable by langue, and by `transformers` if it has
        the head.
        """

    @classmethod
    @abstractmethod
    def make(cls, call: Call, folder: Path | None, resume: bool) -> Self:
        """Read, split and tokenize the data, and read the model; folder: of the run."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Return a digest of each part of the data on which the run is trained and selected."""

    @abstractmethod
    def print(self, console: "Console") -> None:
        """Print what will be trained, before training."""

    def _repr_html_(self) -> str:
        from langue.runs.notebook import as_html

        return as_html(self.print)

    @property
    def config(self) -> ModelConfig:
        return self.checkpoint.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self.checkpoint.tokenizer


@dataclass(kw_only=True, repr=False)
class Finetuning(Prepared):
    """Prepared fine-tuning: labelled rows, by split."""

    task: Task
    train: Encoded
    dev: Encoded | None
    source: Source  # the rows for training and evaluation
    as_read: Source  # the rows as they were read, including those that turned out to have no tokens
    encoded: dict[str, Encoded]  # by split

    @property
    def examples(self) -> dict[str, Examples]:
        """The token sequences of each split."""
        return {name: each.examples for name, each in self.encoded.items()}

    @property
    def examples_of_training(self) -> list[Examples]:
        if self.task.has_language_head:  # the output matrix scores every row of the embedding
            return []
        return [each.examples for each in (self.train, self.dev) if each is not None]

    def look_at(self, network: nn.Module) -> None:
        """Let the task compute what its loss needs from the initial model."""
        network.to(device()).eval()
        dtype = precision(self.settings.train.precision)
        known = partial(self.task.begun_with, network, device=device(), dtype=dtype)
        self.encoded = {name: known(each) for name, each in self.encoded.items()}
        self.train = self.encoded["train"]
        self.dev = self.encoded.get("dev")
        network.train()

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        rows = self.source.train
        pairs = rows is not None and "pair" in rows.rows.column_names
        weights = self.task.rescale_head(weights)
        if self.settings.model.adapter is not None:
            from langue.runs.adapters import write_adapter_files

            data = self.settings.data
            head = self.task.head_kind(self.checkpoint.family)
            of = self.checkpoint, self.settings.model, head
            base = write_adapter_files(folder, *of, weights)
            write_task_facts(folder, self.checkpoint, self.task, data, pairs, {"base": base})
            return
        write_task_checkpoint(
            folder, self.checkpoint, self.task, weights, self.settings.data, pairs
        )

    def print(self, console: "Console") -> None:
        from langue.runs.show import print_preview

        print_preview(self, console)

    def __repr__(self) -> str:
        counts = [f"{each.n_rows:,} {name}" for name, each in self.encoded.items()]
        what = f"{self.task.name} on {self.facts['origin']}"
        return f"Finetuning({what}: {', '.join(counts)}; {self.facts['steps']:,} steps)"

    def fingerprint(self) -> dict[str, str]:
        return data_fingerprint(self.task, self.as_read)

    @classmethod
    def check(cls, call: Call) -> None:
        check_rereadable(call.arguments["data"])

    @classmethod
    def make(cls, call: Call, folder: Path | None = None, resume: bool = False) -> Self:
        """Prepare a run; errors in the data are found before any slow work."""
        settings = call.settings
        kind: type[Task] = call.kind  # type: ignore[assignment]
        source = read_source(kind, call.arguments["data"], call.arguments["columns"], settings)
        assert source.train is not None
        task = kind.fit(source.train, settings.task)
        # a run from before `train.best` existed keeps its way of selecting
        if not (resume and settings.train.best is None):
            task.choose_by(settings.train.best)
            chosen = settings.train.model_copy(update={"best": task.best})
            settings = settings.model_copy(update={"train": chosen})
        tables = {name: table for name in SPLITS if (table := getattr(source, name)) is not None}
        check_same_columns(tables)
        golds = {name: task.golds(table) for name, table in tables.items()}
        model = call.arguments["model"]
        if model is None:
            from langue.runs.new_model import new_checkpoint

            assert kind.preset is not None
            if settings.model.adapter is not None:
                raise SettingsError(
                    "model.adapter is of a model that exists, and a new one is made",
                    do="name the model with --model",
                )
            with _folder_of(folder) as kept:
                texts = kind.training_texts(source.train)
                checkpoint = new_checkpoint(kind.preset, texts, kept, settings, source.notes)
        else:
            checkpoint = _completed(task, _published_model(task, model, settings), settings)
        if settings.model.freeze:
            from langue.runs.freeze import frozen_depths

            config = checkpoint.config  # so that an invalid part is found before the slow work, too
            frozen_depths(settings.model.freeze, max(config.n_layers, config.decoder_layers))
        task.use(checkpoint)
        encoded = _encode(task, checkpoint, tables, golds, settings, source.notes)
        made = cls(
            task=task,
            checkpoint=checkpoint,
            train=encoded["train"],
            dev=encoded.get("dev"),
            source=replace(source, **tables),
            as_read=source,
            encoded=encoded,
            settings=settings.model_copy(update={"task": task.settings}),
        )
        made.facts = facts(made, made.settings)
        if settings.model.adapter is not None:
            from langue.runs.adapters import describe_peft_support, trained_weights

            made.facts["transformers"] = describe_peft_support(task, checkpoint, settings.model)
            made.facts["trained"] = trained_weights(task, checkpoint, settings.model)
        return made


# The kinds of preparation, by what the task learns from.
PREPARED: Registry[type[Prepared]] = Registry(
    {"rows": "runs.prepare:Finetuning", "documents": "runs.corpora:Pretraining"}
)


def prepare(call: Call, folder: Path | None = None, *, resume: bool = False) -> Prepared:
    """Prepare everything that training needs.

    folder: of the run, which stores what pretraining makes of its text. resume: whether a run is
    resumed.
    """
    return PREPARED[call.kind.learns_from].make(call, folder, resume)


def build(prepared: Prepared) -> nn.Module:
    """Return the model to train: a new one, or one with the published weights, a new head if it has
    none for this task, and the dropout of the settings. What the task needs from the initial model
    is stored in `prepared`.
    """
    checkpoint = prepared.checkpoint
    settings = prepared.settings
    torch.manual_seed(settings.train.seed)
    pad = checkpoint.batch_pad
    network = prepared.task.network(checkpoint.config, settings.train.seed, pad)
    if not checkpoint.weights:
        return _frozen(network, prepared)
    weights = without_extra(checkpoint.weights)
    load_into(
        network,
        prepared.task.weights_to_begin_with(weights, checkpoint.task, network),
        where=str(checkpoint.folder),
        new="head.",
    )
    if isinstance(prepared, Finetuning):
        prepared.look_at(network)
    body: Transformer = network.body  # type: ignore[assignment]
    set_dropout(body, settings.model.dropout, settings.model.attention_dropout)
    if settings.model.adapter is not None:
        from langue.runs.adapters import adapt

        return adapt(network, checkpoint, settings)
    return _frozen(network, prepared)


def _frozen(network: nn.Module, prepared: Prepared) -> nn.Module:
    """Return the network with the parts frozen that are not to be trained."""
    parts = prepared.settings.model.freeze
    if parts:
        from langue.runs.freeze import freeze_parts

        config = prepared.config
        freeze_parts(network, parts, max(config.n_layers, config.decoder_layers))
    return network


@contextmanager
def _folder_of(run: Path | None) -> Iterator[Path]:
    """Provide the folder in which a run stores what it makes before training; a temporary one for a
    preview.
    """
    if run is not None:
        yield run
        return
    with TemporaryDirectory(prefix="langue-") as temporary:
        yield Path(temporary)


def _completed(task: Task, checkpoint: Checkpoint, settings: Settings) -> Checkpoint:
    """Return the model with the task's additions; raise SettingsError if an adapter could not store
    them.
    """
    known = len(checkpoint.tokenizer)
    found = task.completed(checkpoint)
    if settings.model.adapter is not None and len(found.tokenizer) > known:
        raise SettingsError(
            f"the model gets tokens of a chat template, whose rows of the embedding a"
            f" {settings.model.adapter} adapter does not hold",
            do=(
                "set task.template=plain, which needs no new tokens, take a model that has a chat"
                " template, or leave model.adapter out"
            ),
        )
    return found


def _published_model(task: Task, model: Any, settings: Settings) -> Checkpoint:
    """Return the model to train further, with the head that the task uses on it."""
    described = describe(model, settings.model.revision)
    if described.task is not None and described.task.get("task") == task.name:
        task.go_on_from(described.task)
    checkpoint = read_checkpoint(described, head=head_of(task, described))
    if settings.model.adapter is not None:
        from langue.runs.adapters import check

        check(checkpoint, settings)
    languages = settings.data.source_language, settings.data.target_language
    return replace(checkpoint, tokenizer=checkpoint.tokenizer.for_languages(*languages))


def _encode(
    task: Task,
    checkpoint: Checkpoint,
    tables: dict[str, Table],
    golds: Mapping[str, Any],
    settings: Settings,
    notes: list[str],
) -> dict[str, Encoded]:
    """Return each split as tokens. Drops rows without tokens from `tables`, and adds to `notes`
    what was dropped or cut.
    """
    encoded: dict[str, Encoded] = {}
    with bar("reading texts as tokens", sum(map(len, tables.values()))) as advance:
        for name, table in tables.items():
            kept, encoded[name] = task.encode(
                checkpoint.tokenizer, table, golds[name], settings.data, checkpoint.config
            )
            if len(kept) < len(table):
                notes.append(dropped_note(task, table, kept))
                tables[name] = kept
            advance(len(table))
    for name, each in encoded.items():
        notes.extend(each.notes_of_unknown(f"{name}: "))
    judged_on = "test" if "test" in encoded else "dev"
    if judged_on in encoded:
        notes.extend(few_examples(judged_on, len(encoded[judged_on])))
    notes.extend(task.notes())
    return encoded


def read_source(
    kind: type[Task], data: Any, columns: Mapping[str, str] | None, settings: Settings
) -> Source:
    """Return the splits with the columns that the task needs; on request, without rows whose target
    is unusable.
    """
    chosen = settings.data
    source = read(
        data,
        columns=columns,
        need=kind.columns.required,
        optional=kind.columns.optional,
        synonyms=kind.columns.synonyms,
        stratify=kind.columns.target if kind.columns.proportional else None,
        together=kind.columns.together,
        dev_fraction=chosen.dev_fraction or 0.1,
        test_fraction=chosen.test_fraction,
        dev_max=chosen.dev_max,
        fold=_fold(chosen),
        share=chosen.share,
        seed=chosen.seed,
        invalid=chosen.invalid,
        encoding=chosen.encoding,
        decimal_comma=chosen.decimal_comma,
    )
    if source.train is None or not len(source.train):
        more = f" ({'; '.join(source.notes)})" if source.notes else ""
        what = f"there is no training data{more}"
        raise DataError(
            what, where=display_name(data), do="name a file, or a folder with a train file"
        )
    if chosen.invalid == "drop":
        source = _without_bad_targets(kind, source, settings)
    return _with_note_on_conflicts(kind, source, settings)


def _fold(chosen: DataSettings) -> tuple[int, int] | None:
    """Return (fold, number of folds) of the test split; raise SettingsError if there is no such
    fold.
    """
    if chosen.folds is None and chosen.fold is None:
        return None
    if chosen.folds is None or chosen.fold is None or chosen.fold > chosen.folds:
        raise SettingsError(
            f"data.folds = {chosen.folds} and data.fold = {chosen.fold} name no fold",
            do="give both, as data.folds=5 data.fold=1, or --folds 5",
        )
    return chosen.fold, chosen.folds


def dropped_note(task: Task, table: Table, kept: Table) -> str:
    """Return a note on how many rows of a table `Task.encode` has dropped."""
    from langue.wording import counted

    dropped = counted(len(table) - len(kept), "row")
    return f"{table.origin}: {dropped} dropped {task.why_dropped}"


def _without_bad_targets(kind: type[Task], source: Source, settings: Settings) -> Source:
    """Drop rows whose target cannot be read, or (outside train) was not seen in training, and note
    how many.
    """
    assert source.train is not None
    kept: dict[str, Table | None] = dict.fromkeys(SPLITS)
    notes = list(source.notes)
    ready: Task | None = None
    for name in SPLITS:
        table: Table | None = getattr(source, name)
        if table is None:
            continue
        table = with_usable_targets(kind, ready, name, table, settings.task, notes)
        kept[name] = table
        ready = ready or kind.fit(table, settings.task)
    return Source(kept["train"], kept["dev"], kept["test"], notes)


def _with_note_on_conflicts(kind: type[Task], source: Source, settings: Settings) -> Source:
    """Add a note on texts with conflicting labels; on request, drop them from training."""
    tables = [table for name in SPLITS if (table := getattr(source, name)) is not None]
    if not (found := kind.conflicts(tables, settings.task)):
        return source
    from langue.tasks.labels import conflict_note

    first_text = next(iter(found))
    first = []
    n_rows = 0
    for table in tables:
        texts = kind.texts(table)
        n_rows += len(texts)
        first += [table.where(row) for row, text in enumerate(texts) if text == first_text]
    notes = [*source.notes, conflict_note(found, n_rows, first)]
    train = source.train
    assert train is not None
    if settings.data.conflicts == "drop":
        within = kind.conflicts([train], settings.task)
        kept = [row for row, text in enumerate(kind.texts(train)) if text not in within]
        notes.append(f"train: {len(train) - len(kept):,} rows dropped for texts of several labels")
        train = train.select(kept)
    return replace(source, train=train, notes=notes)


def with_usable_targets(
    kind: type[Task],
    ready: Task | None,
    split: str,
    table: Table,
    options: Section,
    notes: list[str],
) -> Table:
    """Return the rows whose target can be read and, if there is a task already, was seen in its
    training; note how many are dropped. Raises DataError if none is left.
    """
    rows = kind.usable_rows(table, options, ready)
    target = kind.columns.target
    if not rows:
        raise DataError(f"no row of {split} has a {target} that can be used", where=table.origin)
    if len(rows) < len(table):
        from langue.wording import counted

        dropped = len(table) - len(rows)
        whose = "its" if dropped == 1 else "their"
        notes.append(f"{split}: {counted(dropped, 'row')} dropped for {whose} {target}")
        return table.select(rows)
    return table


def few_examples(split: str, number: int) -> list[str]:
    """Return a note on how imprecise metrics from few examples are: the 95% interval of a
    proportion of one half extends at most 0.98 / sqrt(n) to either side.
    """
    if number >= FEW:
        return []
    from langue.wording import counted

    wide = f"{98 / max(1, number) ** 0.5:.0f} points"
    return [
        f"{split}: only {counted(number, 'example')} to judge on: the 95% interval of an accuracy"
        f" may reach {wide} to either side"
    ]


def facts(prepared: Finetuning, settings: Settings) -> dict[str, Any]:
    """Return the facts to show before training: sizes, label balance, truncation, duplicates,
    batches, steps, time.
    """
    from langue.hardware import matmul_rate

    chosen = settings.train
    task = prepared.task
    loader = Loader(task.batches(prepared.train, settings), chosen.accumulate)
    steps = loader.total(chosen.epochs, chosen.max_steps)
    per_pass = len(loader.steps(0))
    lengths = prepared.train.lengths
    passes = steps / per_pass
    flops = 3 * prepared.checkpoint.config.forward_flops(lengths.tolist()) * passes
    splits = {
        name: {
            "examples": len(each),
            "tokens": int(each.lengths.sum()),
            "longest": int(each.lengths.max()),
            "cut_examples": int((each.examples.cut > 0).sum()),
            "cut_tokens": int(each.examples.cut.sum()),
            "balance": task.balance(each.golds),
        }
        for name, each in prepared.encoded.items()
        if len(each)
    }
    columns = prepared.source.train.rows.column_names if prepared.source.train else ()
    return {
        "origin": prepared.source.train.origin if prepared.source.train else "",
        "task": task.name,
        **shape_of(prepared.checkpoint),
        "verb": "predict",  # the command that uses the run
        "reads_texts": True,
        "reads_two_texts": "pair" in columns or len(task.columns.inputs) == 2,
        **task.facts(),
        "splits": splits,
        "notes": prepared.source.notes,
        "transformers": task.describe_transformers_support(
            prepared.checkpoint.family, settings.data
        ),
        "duplicates": duplicates(task, prepared.source) if settings.data.duplicates else {},
        "steps": steps,
        "steps_per_epoch": per_pass,
        "mean_tokens": float(lengths.mean()),
        "flops": flops,
        "seconds_estimated": flops / (0.6 * matmul_rate(precision(chosen.precision))),
        "precision": str(precision(chosen.precision)).removeprefix("torch."),
    }


def shape_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a model is, in a few numbers."""
    config = checkpoint.config
    return {
        "family": checkpoint.family.name,
        "layers": config.n_layers,
        "width": config.dim,
        "heads": config.n_heads,
        "vocabulary": config.vocab_size,
    }


def duplicates(task: Task, source: Source) -> dict[str, dict[str, Any]]:
    """Count dev and test rows that also occur in train, exactly or nearly: the most common leak."""
    assert source.train is not None
    tables = {name: getattr(source, name) for name in ("dev", "test")}
    return {
        name: count_leaks(task, source.train, table)
        for name, table in tables.items()
        if table is not None and len(table)
    }


def count_leaks(task: Task, train: Table, table: Table) -> dict[str, int]:
    """Return how many rows of a table occur in train, exactly or nearly."""
    from langue.text.quality.duplicates import find

    pairs = find(task.texts(train), task.texts(table))
    return {"exact": len(pairs.exact), "near": len(pairs.near), "of": len(table)}


def check_same_columns(tables: Mapping[str, Table]) -> None:
    """Raise DataError if some splits have pairs of texts and others single texts."""
    having = {name: "pair" in table.rows.column_names for name, table in tables.items()}
    if len(set(having.values())) > 1:
        pairs = next(name for name, has_pairs in having.items() if has_pairs)
        single = next(name for name, has_pairs in having.items() if not has_pairs)
        raise DataError(
            f"{pairs} has pairs of texts and {single} single ones",
            where=tables[single].origin,
            do="give all of them a column `pair` or none; --columns pair=NAME says which it is",
        )


def data_fingerprint(task: Task, source: Source) -> dict[str, str]:
    """Return digests of the data that a run was trained and selected on: for each split one of the
    texts and targets as they are in the table, and one with the targets as the task reads them,
    which does not depend on the file format.
    """
    made: dict[str, str] = {}
    for name in SPLITS:
        table: Table | None = getattr(source, name)
        if table is not None:
            written = task.raw_targets(table)
            made[name] = _digest(task.texts(table), written)
            read = [_as_read(task, target) for target in written]
            made[name + AS_READ] = _digest(task.texts(table), read)
    return made


def _digest(texts: Sequence[str], targets: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for text, target in zip(texts, targets, strict=True):
        digest.update(f"{len(text)} {text} {target!r}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _as_read(task: Task, target: Any) -> Any:
    """Return a target as the task reads it, or as it is if the task cannot read it."""
    try:
        return task.read_target(target, task.settings, str)
    except DataError:
        return target

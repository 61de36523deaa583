"""What arrives: a training command.
What leaves: everything training needs, and the facts that people should see first: `Prepared`.

Here are labelled rows; text for pretraining is in `langue/runs/corpora.py`.
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
FEW = 100  # examples, of which an accuracy is known to ten points at best


@dataclass(kw_only=True)
class Prepared(ABC):
    """What a run is made of, and the facts to see before it costs anything.

    There is one kind for each that tasks learn from (`Objective.learns_from`).
    """

    task: Objective
    checkpoint: Checkpoint  # what training begins from; of a new model, without weights
    train: Any  # the training split, as `Objective.batches` takes it
    dev: Any  # what is held out in training, as `Objective.held_out` takes it
    settings: Settings  # as given, `auto` replaced by what it is here
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    @abstractmethod
    def check(cls, call: Call) -> None:
        """SettingsError at what cannot be, or would be accepted and do nothing."""

    @classmethod
    def given_folders(cls, call: Call) -> list[Path]:
        """The folders of a command's data that nobody may replace as long as the run lasts."""
        return []

    @property
    def folders(self) -> list[Path]:
        """The same, once what the run itself makes of its data is there."""
        return []

    @property
    def examples_of_training(self) -> list[Examples]:
        """All that training reads, where it is in memory."""
        return []

    @abstractmethod
    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the model with these weights: loadable here, and by `transformers` where it has
        the head.
        """

    @classmethod
    @abstractmethod
    def make(cls, call: Call, folder: Path | None, resume: bool) -> Self:
        """Read the data, split it, make tokens of it, and read the model. folder: of the run."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Which data the run is trained and chosen on: a digest of each part."""

    @abstractmethod
    def print(self, console: "Console") -> None:
        """Show what will be trained, before it is."""

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
    """Labelled rows, by split."""

    task: Task
    train: Encoded
    dev: Encoded | None
    source: Source  # what is trained and judged on
    as_read: Source  # what was read: also rows whose texts turned out to have no tokens
    encoded: dict[str, Encoded]  # by split

    @property
    def examples(self) -> dict[str, Examples]:
        """The token sequences of each split."""
        return {name: each.examples for name, each in self.encoded.items()}

    @property
    def examples_of_training(self) -> list[Examples]:
        if self.task.has_language_head:  # every row of the embedding is scored
            return []
        return [each.examples for each in (self.train, self.dev) if each is not None]

    def look_at(self, network: nn.Module) -> None:
        """Keep what training needs to know of the model that it begins with."""
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
        """Whatever is wrong with the data is found before the slow work."""
        settings = call.settings
        kind: type[Task] = call.kind  # type: ignore[assignment]
        source = read_source(kind, call.arguments["data"], call.arguments["columns"], settings)
        assert source.train is not None
        task = kind.fit(source.train, settings.task)
        # a run that began before there was `train.best` goes on choosing as it did
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

            config = checkpoint.config  # a part that is none is found before the slow work, too
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


# What runs are made of, by what their tasks learn from.
PREPARED: Registry[type[Prepared]] = Registry(
    {"rows": "runs.prepare:Finetuning", "documents": "runs.corpora:Pretraining"}
)


def prepare(call: Call, folder: Path | None = None, *, resume: bool = False) -> Prepared:
    """Everything that training needs. folder: of the run, which keeps what pretraining makes of
    text; resume: the run goes on.
    """
    return PREPARED[call.kind.learns_from].make(call, folder, resume)


def build(prepared: Prepared) -> nn.Module:
    """The model to train: a new one, or one with the published weights, a new head where it has
    none for this task, and dropout as set. What the task needs to know of a published model before
    it is trained is kept in what is prepared.
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
    """The network with the parts frozen that are not to be trained."""
    parts = prepared.settings.model.freeze
    if parts:
        from langue.runs.freeze import freeze_parts

        config = prepared.config
        freeze_parts(network, parts, max(config.n_layers, config.decoder_layers))
    return network


@contextmanager
def _folder_of(run: Path | None) -> Iterator[Path]:
    """Where a run keeps what it makes before training; what is only looked at is not kept."""
    if run is not None:
        yield run
        return
    with TemporaryDirectory(prefix="langue-") as temporary:
        yield Path(temporary)


def _completed(task: Task, checkpoint: Checkpoint, settings: Settings) -> Checkpoint:
    """The model with what the task adds to it; SettingsError where an adapter would not hold it."""
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
    """The model to train further, with the head that the task has on it."""
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
    """Each split as tokens. `tables` are left with the rows that have some, `notes` say what was
    lost on the way.
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
    """The splits with the columns that the task needs, rows without a usable target dropped where
    that is wished.
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
    return _told_of_conflicts(kind, source, settings)


def _fold(chosen: DataSettings) -> tuple[int, int] | None:
    """Which fold of how many is test; SettingsError where there is no such."""
    if chosen.folds is None and chosen.fold is None:
        return None
    if chosen.folds is None or chosen.fold is None or chosen.fold > chosen.folds:
        raise SettingsError(
            f"data.folds = {chosen.folds} and data.fold = {chosen.fold} name no fold",
            do="give both, as data.folds=5 data.fold=1, or --folds 5",
        )
    return chosen.fold, chosen.folds


def dropped_note(task: Task, table: Table, kept: Table) -> str:
    """How many rows `Task.encode` has left out of a table."""
    from langue.wording import counted

    dropped = counted(len(table) - len(kept), "row")
    return f"{table.origin}: {dropped} dropped {task.why_dropped}"


def _without_bad_targets(kind: type[Task], source: Source, settings: Settings) -> Source:
    """Drop rows whose target cannot be read, or (outside train) was not seen in training; say how
    many.
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


def _told_of_conflicts(kind: type[Task], source: Source, settings: Settings) -> Source:
    """The source with a note on the texts that have several labels, which are left out of training
    where that is wished.
    """
    tables = [table for name in SPLITS if (table := getattr(source, name)) is not None]
    if not (found := kind.conflicts(tables, settings.task)):
        return source
    from langue.tasks.labels import conflict_note

    named = [(text, table, row) for table in tables for row, text in enumerate(kind.texts(table))]
    first = [table.where(row) for text, table, row in named if text == next(iter(found))]
    notes = [*source.notes, conflict_note(found, len(named), first)]
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
    """The rows whose target can be read and, where there is a task already, was seen in its
    training; a note says how many are dropped. DataError where none is left.
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
    """How wide a figure is that few examples give: a share's 95% interval reaches at most 0.98 /
    sqrt(n) to either side of it, where it is a half.
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
    """What one should see before paying: sizes, balance, what is cut, duplicates, batches, steps,
    time.
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
        "verb": "predict",  # with which the run is used
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
    """What a model is, in a few numbers."""
    config = checkpoint.config
    return {
        "family": checkpoint.family.name,
        "layers": config.n_layers,
        "width": config.dim,
        "heads": config.n_heads,
        "vocabulary": config.vocab_size,
    }


def duplicates(task: Task, source: Source) -> dict[str, dict[str, Any]]:
    """Rows of dev and test that stand in train too, exactly or nearly: the commonest way to fool
    oneself.
    """
    assert source.train is not None
    tables = {name: getattr(source, name) for name in ("dev", "test")}
    return {
        name: count_leaks(task, source.train, table)
        for name, table in tables.items()
        if table is not None and len(table)
    }


def count_leaks(task: Task, train: Table, table: Table) -> dict[str, int]:
    """How many rows of a table stand in train, exactly or nearly."""
    from langue.text.quality.duplicates import find

    pairs = find(task.texts(train), task.texts(table))
    return {"exact": len(pairs.exact), "near": len(pairs.near), "of": len(table)}


def check_same_columns(tables: Mapping[str, Table]) -> None:
    """DataError where some splits have pairs of texts and others single ones."""
    having = {name: "pair" in table.rows.column_names for name, table in tables.items()}
    if len(set(having.values())) > 1:
        pairs, single = (
            next(name for name, has in having.items() if has is there) for there in (True, False)
        )
        raise DataError(
            f"{pairs} has pairs of texts and {single} single ones",
            where=tables[single].origin,
            do="give all of them a column `pair` or none; --columns pair=NAME says which it is",
        )


def data_fingerprint(task: Task, source: Source) -> dict[str, str]:
    """Which data a run was trained and chosen on: a digest of each split's texts and targets as
    they stand in the table, and one, under another name, of the targets as they are read, which
    does not change with the format of the file.
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
    """A target as the task reads it; one that it cannot read as it stands."""
    try:
        return task.read_target(target, task.settings, str)
    except DataError:
        return target

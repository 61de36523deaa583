"""What arrives: the words of a command.
What leaves: everything training needs, and the facts people should see first."""

import hashlib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from langue.data.batch import Examples
from langue.data.encoded import Encoded
from langue.data.loader import Loader
from langue.errors import DataError, RunError, SettingsError
from langue.files import disk_errors, exclusive_lock, read_json, write_text
from langue.hardware import matmul_rate
from langue.hub.checkpoint import Checkpoint, describe, read_checkpoint
from langue.progress import bar
from langue.runs.save import head_of
from langue.runtime import precision, rank, restarted
from langue.settings.recipe import ROWS, display_name, flat_keys, read_recipe
from langue.settings.sections import Section, Settings, known
from langue.tasks import OPTIONS, TASKS
from langue.tasks.task import Task
from langue.text.quality.duplicates import find
from langue.text.read.source import Source, Table, read

SPLITS = ("train", "dev", "test")
FEW = 100  # examples, of which an accuracy is known to ten points at best
DIGESTS = "checkpoints/data.json"  # what the data of a run was


@dataclass
class Prepared:
    task: Task
    checkpoint: Checkpoint
    source: Source  # what is trained and judged on
    as_read: Source  # what was read: also rows whose texts turned out to have no tokens
    encoded: dict[str, Encoded]  # by split
    settings: Settings  # as given, `auto` replaced by what it is here
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def examples(self) -> dict[str, Examples]:
        """The token sequences of each split."""
        return {name: each.examples for name, each in self.encoded.items()}


def task_class(name: str) -> type[Task]:
    if name not in TASKS:
        raise SettingsError(f"the task {name!r} is not known", do=f"known: {', '.join(TASKS)}")
    return TASKS[name]


def read_source(
    kind: type[Task], data: Any, columns: Mapping[str, str] | None, settings: Settings
) -> Source:
    """The splits with the columns that the task needs, rows without a usable target dropped where
    that is wished."""
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
        seed=chosen.seed,
        invalid=chosen.invalid,
    )
    if source.train is None or not len(source.train):
        more = f" ({'; '.join(source.notes)})" if source.notes else ""
        what = f"there is no training data{more}"
        raise DataError(
            what, where=display_name(data), do="name a file, or a folder with a train file"
        )
    return _without_bad_targets(kind, source, settings) if chosen.invalid == "drop" else source


def prepare(
    task: str,
    *,
    model: Any,
    data: Any,
    columns: Mapping[str, str] | None,
    settings: Settings,
    resumes_without_best: bool = False,
) -> Prepared:
    """Read, fit the task, read the model, encode. Whatever is wrong with the data is found before
    the slow work.

    resumes_without_best: a run is resumed that began before there was `train.best`, and goes on
    choosing as it did.
    """
    kind = task_class(task)
    source = read_source(kind, data, columns, settings)
    assert source.train is not None
    ready = kind.fit(source.train, settings.task)
    if not resumes_without_best:
        ready.choose_by(settings.train.best)
        settings = settings.model_copy(
            update={"train": settings.train.model_copy(update={"best": ready.best})}
        )
    tables = {name: table for name in SPLITS if (table := getattr(source, name)) is not None}
    check_same_columns(tables)
    golds = {name: ready.golds(table) for name, table in tables.items()}
    described = describe(model, settings.model.revision)
    if described.task is not None and described.task.get("task") == task:
        ready.go_on_from(described.task)
    checkpoint = read_checkpoint(described, head=head_of(ready, described))
    data = settings.data
    tokenizer = checkpoint.tokenizer.for_languages(data.source_language, data.target_language)
    checkpoint = replace(checkpoint, tokenizer=tokenizer)
    encoded: dict[str, Encoded] = {}
    with bar("reading texts as tokens", sum(map(len, tables.values()))) as advance:
        for name, table in tables.items():
            kept, encoded[name] = ready.encode(
                checkpoint.tokenizer, table, golds[name], settings.data, checkpoint.config
            )
            if len(kept) < len(table):
                source.notes.append(dropped_note(table, kept))
                tables[name] = kept
            advance(len(table))
    as_read = source
    source = replace(source, **tables)
    for name, each in encoded.items():
        if each.examples.lost is not None:
            source.notes.extend(each.examples.lost.note(f"{name}: "))
    judged_on = "test" if "test" in encoded else "dev"
    if judged_on in encoded:
        source.notes.extend(few_examples(judged_on, len(encoded[judged_on])))
    source.notes.extend(ready.notes())
    settings = settings.model_copy(update={"task": ready.settings})
    prepared = Prepared(ready, checkpoint, source, as_read, encoded, settings)
    prepared.facts = facts(prepared, settings)
    return prepared


def dropped_note(table: Table, kept: Table) -> str:
    """How many rows `Task.encode` has left out of a table."""
    count = len(table) - len(kept)
    return (
        f"{table.origin}: {count:,} {'row' if count == 1 else 'rows'} dropped whose text has no"
        " tokens"
    )


def _without_bad_targets(kind: type[Task], source: Source, settings: Settings) -> Source:
    """Drop rows whose target cannot be read, or (outside train) was not seen in training; say how
    many."""
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


def with_usable_targets(
    kind: type[Task],
    ready: Task | None,
    split: str,
    table: Table,
    options: Section,
    notes: list[str],
) -> Table:
    """The rows whose target can be read and, where there is a task already, was seen in its
    training; a note says how many are dropped. DataError where none is left."""
    rows = kind.usable_rows(table, options, ready)
    target = kind.columns.target
    if not rows:
        raise DataError(f"no row of {split} has a {target} that can be used", where=table.origin)
    if len(rows) < len(table):
        notes.append(f"{split}: {len(table) - len(rows)} rows dropped for their {target}")
        return table.select(rows)
    return table


def few_examples(split: str, number: int) -> list[str]:
    """How wide a figure is that few examples give: a share's 95% interval reaches at most 0.98 /
    sqrt(n) to either side of it, where it is a half."""
    if number >= FEW:
        return []
    wide = f"{98 / max(1, number) ** 0.5:.0f} points"
    return [
        f"{split}: only {number} examples to judge on: the 95% interval of an accuracy may reach"
        f" {wide} to either side"
    ]


def facts(prepared: Prepared, settings: Settings) -> dict[str, Any]:
    """What one should see before paying: sizes, balance, what is cut, duplicates, batches, steps,
    time."""
    train = prepared.examples["train"]
    chosen = settings.train
    task = prepared.task
    loader = Loader(task.batches(prepared.encoded["train"], chosen), chosen.accumulate)
    steps = loader.total(chosen.epochs, chosen.max_steps)
    per_pass = len(loader.steps(0))
    lengths = train.lengths
    passes = steps / per_pass
    flops = 3 * prepared.checkpoint.config.forward_flops(lengths.tolist()) * passes
    splits = {
        name: {
            "examples": len(each),
            "tokens": int(each.examples.lengths.sum()),
            "longest": int(each.examples.lengths.max()),
            "cut_examples": int((each.examples.cut > 0).sum()),
            "cut_tokens": int(each.examples.cut.sum()),
            "balance": task.balance(each.golds),
        }
        for name, each in prepared.encoded.items()
        if len(each)
    }
    return {
        "origin": prepared.source.train.origin if prepared.source.train else "",
        "model": str(prepared.checkpoint.folder),
        "task": task.name,
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


def duplicates(task: Task, source: Source) -> dict[str, dict[str, Any]]:
    """Rows of dev and test that stand in train too, exactly or nearly: the commonest way to fool
    oneself."""
    assert source.train is not None
    tables = {name: getattr(source, name) for name in ("dev", "test")}
    return {
        name: count_leaks(task, source.train, table)
        for name, table in tables.items()
        if table is not None and len(table)
    }


def count_leaks(task: Task, train: Table, table: Table) -> dict[str, int]:
    """How many rows of a table stand in train, exactly or nearly."""
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
    """A digest of each split's texts and targets: which data a run was trained and chosen on."""
    made: dict[str, str] = {}
    for name in SPLITS:
        table: Table | None = getattr(source, name)
        if table is not None:
            digest = hashlib.sha256()
            for text, target in zip(task.texts(table), task.raw_targets(table), strict=True):
                digest.update(f"{len(text)} {text} {target!r}\n".encode("utf-8", "surrogatepass"))
            made[name] = digest.hexdigest()
    return made


def first_changed_split(folder: Path, task: Task, source: Source) -> str:
    """The first split that is not what it was when the run in `folder` began; "" where all are, or
    nothing says it."""
    kept = folder / DIGESTS
    before = read_json(kept) if kept.is_file() else {}
    now = data_fingerprint(task, source)
    if not isinstance(before, dict):
        raise RunError(
            "does not say what the data of the run was",
            where=str(kept),
            do="put the run's own back",
        )
    return next(
        (name for name in SPLITS if "train" in before and before.get(name) != now.get(name)), ""
    )


# What a run that goes on may have otherwise than before, since no step that was made depends on it.
CHANGEABLE_ON_RESUME = (
    *(
        "on_nonfinite",
        "spike",
        "checkpoint_every",
        "tracker",
        "activation_checkpointing",
        "parallel",
    ),
)


def check_resumable(folder: Path, written: str) -> None:
    """A run goes on only as what it was, but for what is CHANGEABLE_ON_RESUME; its recipe then says
    so."""
    path = folder / "recipe.toml"
    before = read_recipe(path)
    now = flat_keys(tomllib.loads(written))
    before = without_foreign(before, now.get("task.name") or now.get("task.objective"))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    fixed = [key for key in changed if key.removeprefix("train.") not in CHANGEABLE_ON_RESUME]
    if fixed:
        was, given = (
            repr(each[fixed[0]]) if fixed[0] in each else "not set" for each in (before, now)
        )
        raise RunError(
            f"cannot resume with other settings: {fixed[0]} is {given} and was {was}",
            where=str(path),
            do="repeat the first command, or start a new run",
        )
    if changed and rank() == 0:
        write_text(path, written)


def without_foreign(recipe: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """A recipe without the settings of other tasks and objectives than this one, which those of
    earlier versions hold too."""
    own = {
        key for of, options in OPTIONS.items() if of.endswith(f" {name}") for key in known(options)
    }
    foreign = set(known(*OPTIONS.values())) - set(own)
    return {key: value for key, value in recipe.items() if key not in foreign}


def check_rereadable(data: Any) -> None:
    """SettingsError where a recipe names as data what it cannot hold."""
    if isinstance(data, str) and data == ROWS:
        what = "the run's data were rows given in Python, which its recipe does not hold"
        raise SettingsError(what, do="give them again: data=...")


def check_output_outside_inputs(folder: Path, reads: Iterable[Any]) -> None:
    """SettingsError where what is to be read, the model, the data and the like, is in the folder to
    be replaced."""
    for each in (Path(name) for name in reads if isinstance(name, (str, Path))):
        if each.exists() and each.resolve().is_relative_to(os.path.realpath(folder)):
            raise SettingsError(
                f"{each} is read, and --force would replace it", do="choose another --out"
            )


def run_folder(out: str | Path, *, force: bool, resume: bool) -> tuple[Path, bool]:
    """The run directory, checked before any work is done (one is never overwritten without `force`,
    nor taken from a run that is at work in it), and whether to go on with what is there: as asked,
    or because torchrun has started this process again."""
    folder = Path(out)
    with disk_errors(folder):
        there = (folder / "recipe.toml").is_file()
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if resume or (there and restarted()):
        if not there:
            raise RunError(
                "there is no run to resume", where=str(folder), do="start it without --resume"
            )
        _refuse_busy(folder)
        return folder, True
    if occupied and not force:
        raise RunError(
            "the run directory exists and is not empty",
            where=str(folder),
            do="choose another --out, go on with --resume, or replace it with --force",
        )
    if occupied and not there:
        raise RunError(
            "the folder is not a run of langue, so --force does not replace it",
            where=str(folder),
            do="choose another",
        )
    _refuse_busy(folder)
    return folder, False


def _refuse_busy(folder: Path) -> None:
    """RunError where a run is at work in the folder; one of an earlier version is, where its
    checkpoints are locked."""
    for path in (folder, folder / "checkpoints"):
        if path.exists():
            with at_work(path):
                pass


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Within, no other run gets the folder, which is made where it is missing. Of the processes of
    a run the first asks for it, and ends the others where it does not get it."""
    if rank() > 0:
        yield
        return
    with exclusive_lock(folder):
        yield

"""What arrives: where a run is to be, or is.
What leaves: its folder, which one process has at a time, and the checks that a run that goes on is
still what it was.
"""

import os
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langue.errors import RunError, SettingsError
from langue.files import clear, disk_errors, exclusive_lock, read_json, write_text
from langue.runtime import rank, restarted
from langue.settings.recipe import (
    ARGUMENTS,
    flat_keys,
    located,
    read_recipe,
)
from langue.settings.sections import known
from langue.tasks import OPTIONS

RECIPE = "recipe.toml"
CHECKPOINTS = "checkpoints"
DIGESTS = "checkpoints/data.json"  # what the data of a run was, by split
METRICS = "metrics.json"  # of a run that is finished
AS_READ = ", as read"  # behind the name of a split
CORPUS = "data"  # in the place of splits, where it was one corpus
# What pretraining makes in its folder before it trains.
MADE_BEFORE = ("tokenizer", "corpus")
# What a run that goes on may have otherwise than before, since no step that was made depends on it.
CHANGEABLE_ON_RESUME = (
    "train.on_nonfinite",
    "train.spike",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.log_every",
    "train.tracker",
    "train.activation_checkpointing",
    "train.parallel",
    "data.duplicates",
)


# How long it trains. A run that has its checkpoints may go on longer than it was to; the learning
# rate then follows the schedule of the longer run.
LENGTHS = ("train.epochs", "train.max_steps", "train.patience")


def is_finished(folder: Path) -> bool:
    """Whether a run is judged and has dropped its checkpoints, so that nothing can be gone on
    with.
    """
    return (folder / METRICS).is_file() and not any((folder / CHECKPOINTS).glob("step-*"))


def drop_checkpoints(folder: Path) -> None:
    """Remove what a finished run was resumed from; what its data was stays known."""
    for kind in ("step", "best"):
        for path in [*(folder / CHECKPOINTS).glob(f"{kind}-*")]:
            shutil.rmtree(path)


def run_folder(out: str | Path, *, force: bool, resume: bool) -> tuple[Path, bool]:
    """The run directory, checked before any work is done (one is never overwritten without `force`,
    nor taken from a run that is at work in it), and whether to go on with what is there: as asked,
    or because torchrun has started this process again.
    """
    folder = Path(out)
    with disk_errors(folder):
        there = (folder / RECIPE).is_file()
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if resume or (there and restarted()):
        if not there:
            do = "start it without --resume" + (", in another --out" if occupied else "")
            raise RunError("there is no run to resume", where=str(folder), do=do)
        _refuse_busy(folder)
        return folder, True
    if occupied and not force:
        of_run = ", go on with --resume, or replace it with --force" if there else ""
        raise RunError(
            f"the run directory exists and is not {'empty' if folder.is_dir() else 'a folder'}",
            where=str(folder),
            do=f"choose another --out{of_run}",
        )
    if occupied and not there:
        raise RunError(
            "the folder is not a run of langue, so --force does not replace it",
            where=str(folder),
            do="choose another --out",
        )
    _refuse_busy(folder)
    return folder, False


def _refuse_busy(folder: Path) -> None:
    """RunError where a run is at work in the folder; one of an earlier version is, where its
    checkpoints are locked.
    """
    for path in (folder, folder / "checkpoints"):
        if path.exists():
            with at_work(path):
                pass


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Within, no other run gets the folder, which is made where it is missing. Of the processes of
    a run the first asks for it, and ends the others where it does not get it.
    """
    if rank() > 0:
        yield
        return
    with exclusive_lock(folder):
        yield


def check_output_outside_inputs(folder: Path, reads: Iterable[Any]) -> None:
    """SettingsError where what is to be read, the model, the data and the like, is in the folder to
    be replaced.
    """
    for each in (Path(name) for name in reads if isinstance(name, (str, Path))):
        if each.exists() and each.resolve().is_relative_to(os.path.realpath(folder)):
            raise SettingsError(
                f"{each} is read, and --force would replace it", do="choose another --out"
            )


def check_resumable(folder: Path, written: str) -> None:
    """A run goes on only as what it was, but for what is CHANGEABLE_ON_RESUME; its recipe then says
    so.
    """
    path = folder / RECIPE
    before = read_recipe(path)
    now = flat_keys(tomllib.loads(written))
    before = _without_foreign(before, now.get("task.name") or now.get("task.objective"))
    for key in (ARGUMENTS[name] for name in ("model", "data", "tokenizer")):
        if isinstance(name := before.get(key), str):  # runs of before have it as it was typed
            before[key] = located(name)
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    longer = [key for key in changed if key in LENGTHS]
    fixed = [key for key in changed if key not in (*CHANGEABLE_ON_RESUME, *LENGTHS)]
    if longer and not fixed and is_finished(folder):
        raise RunError(
            f"{longer[0]} is another, and the finished run has not kept its checkpoints",
            where=str(folder),
            do="train its model further with --model in a new --out; --keep-checkpoints keeps them",
        )
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


def _without_foreign(recipe: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """A recipe without the settings of other tasks and objectives than this one, which those of
    earlier versions hold too.
    """
    own = {
        key for of, options in OPTIONS.items() if of.endswith(f" {name}") for key in known(options)
    }
    foreign = set(known(*OPTIONS.values())) - set(own)
    return {key: value for key, value in recipe.items() if key not in foreign}


def changed_data(folder: Path, now: Mapping[str, str]) -> str:
    """What of a run's data is not what it was when the run in `folder` began, in words: the first
    split, or the corpus; "" where all is, or nothing says it. now: `Prepared.fingerprint`.
    """
    kept = folder / DIGESTS
    before = read_json(kept) if kept.is_file() else {}
    if not isinstance(before, dict):
        raise RunError(
            "does not say what the data of the run was",
            where=str(kept),
            do="put the run's own back",
        )
    if not before.keys() & now.keys():
        return ""
    names = {name.removesuffix(AS_READ): None for name in (*now, *before)}
    changed = next((name for name in names if _differs(name, before, now)), None)
    if changed is None:
        return ""
    return "corpus" if changed == CORPUS else f"{changed} data"


def _differs(split: str, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether neither a split's rows as they stand in its files nor as they are read are the same.
    Runs of before have no digest of the second.
    """
    keys = [key for key in (split, split + AS_READ) if key in before]
    return not any(before[key] == now.get(key) for key in keys)


def leave_nothing(folder: Path, everything: bool) -> None:
    """Empty the folder of a run that could not begin, so that the same command mended finds no run
    that it would have to replace.

    Where something was made that the mended command can go on with, a tokenizer or a corpus, it is
    kept; everything: nothing could go on with it.
    """
    if rank() > 0:
        return
    nothing = {RECIPE, *MADE_BEFORE} if everything else {RECIPE}
    there = {file.name for file in folder.iterdir()}
    if there and there <= nothing:  # an empty one goes with its lock
        clear(folder)
        if not folder.is_symlink():
            folder.rmdir()

"""The folder of a run: creates or finds it, locks it for one process, and checks that a resumed run
has not changed.
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
DIGESTS = "checkpoints/data.json"  # digests of the run's data, by split
METRICS = "metrics.json"  # exists once the run is finished
AS_READ = ", as read"  # suffix of a split's name, for the digest of its rows as they were read
CORPUS = "data"  # replaces the split names if the data was a corpus
# What pretraining creates in its folder before training.
MADE_BEFORE = ("tokenizer", "corpus")
# Settings that may differ on resume, since no completed step depends on them.
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


# Settings of the training length. A run that has its checkpoints may be resumed with a greater
# length; the learning rate then follows the longer schedule.
LENGTHS = ("train.epochs", "train.max_steps", "train.patience")


def is_finished(folder: Path) -> bool:
    """Return whether a run is evaluated and has dropped its checkpoints, so that it cannot be
    continued.
    """
    return (folder / METRICS).is_file() and not any((folder / CHECKPOINTS).glob("step-*"))


def drop_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished run; the digests of its data are kept."""
    for kind in ("step", "best"):
        for path in [*(folder / CHECKPOINTS).glob(f"{kind}-*")]:
            shutil.rmtree(path)


def run_folder(out: str | Path, *, force: bool, resume: bool) -> tuple[Path, bool]:
    """Return the run's folder, checked before any work is done, and whether to resume it.

    A folder is never overwritten without `force`, nor taken from an active run. A run is resumed on
    request, or if torchrun has restarted this process.
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
    """Raise RunError if a run is active in the folder; runs of earlier versions lock their
    checkpoints instead.
    """
    for path in (folder, folder / "checkpoints"):
        if path.exists():
            with at_work(path):
                pass


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Lock the folder, which is created if missing, against other runs.

    Of the processes of a run, the first one takes the lock, and stops the others if it cannot.
    """
    if rank() > 0:
        yield
        return
    with exclusive_lock(folder):
        yield


def check_output_outside_inputs(folder: Path, reads: Iterable[Any]) -> None:
    """Raise SettingsError if an input of the run is inside the folder to be replaced."""
    for each in (Path(name) for name in reads if isinstance(name, (str, Path))):
        if each.exists() and each.resolve().is_relative_to(os.path.realpath(folder)):
            raise SettingsError(
                f"{each} is read, and --force would replace it", do="choose another --out"
            )


def check_resumable(folder: Path, written: str) -> None:
    """Check that a run is resumed with its own settings, except for those in CHANGEABLE_ON_RESUME,
    which are updated in its recipe.
    """
    path = folder / RECIPE
    before = read_recipe(path)
    now = flat_keys(tomllib.loads(written))
    before = _without_foreign(before, now.get("task.name") or now.get("task.objective"))
    for key in (ARGUMENTS[name] for name in ("model", "data", "tokenizer")):
        # earlier versions stored the names as they were typed
        if isinstance(name := before.get(key), str):
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
    """Return a recipe without the settings of other tasks and objectives, which earlier versions
    also stored.
    """
    own: set[str] = set()
    for of, options in OPTIONS.items():
        if of.endswith(f" {name}"):
            own |= known(options).keys()
    if not own:  # a task that a program registered itself: no earlier version stored its settings
        return dict(recipe)
    foreign = set(known(*OPTIONS.values())) - own
    return {key: value for key, value in recipe.items() if key not in foreign}


def changed_data(folder: Path, now: Mapping[str, str]) -> str:
    """Return which part of a run's data has changed since it began, in words: the first such split,
    or the corpus; "" if nothing has changed, or nothing is known.

    now: the result of `Prepared.fingerprint`.
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
    changed = next((name for name in names if _split_changed(name, before, now)), None)
    if changed is None:
        return ""
    return "corpus" if changed == CORPUS else f"{changed} data"


def _split_changed(split: str, before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Return whether a split has changed, both in the form of its files and in the form in which it
    is read; earlier versions only stored the first digest.
    """
    keys = [key for key in (split, split + AS_READ) if key in before]
    return not any(before[key] == now.get(key) for key in keys)


def leave_nothing(folder: Path, everything: bool) -> None:
    """Empty the folder of a run that could not start, so that the corrected command finds no run in
    its way.

    A tokenizer or a corpus that the corrected command can use is kept, unless everything is set.
    """
    if rank() > 0:
        return
    nothing = {RECIPE, *MADE_BEFORE} if everything else {RECIPE}
    there = {file.name for file in folder.iterdir()}
    if there and there <= nothing:  # an empty folder is removed together with its lock
        clear(folder)
        if not folder.is_symlink():
            folder.rmdir()

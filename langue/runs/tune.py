"""Hyperparameter search: takes a training command with ranges and lists among its settings; makes a
study, a folder of trials, each of which is a run; evaluates the best one and returns its recipe.

Optuna suggests the settings by TPE (Bergstra et al. 2011). Its seed is a function of the trial's
number, so that a suggestion depends only on the earlier trials. A trial is pruned if it is below
the median of the others at the same evaluation on dev. Trials are compared on dev only; the best is
evaluated on test after the last one.
"""

import json
import shutil
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from langue.errors import DataError, Interrupted, LangueError, RunError, SettingsError
from langue.files import atomic_file, exclusive_lock, read_json, write_json, write_text
from langue.progress import say
from langue.runs.arguments import FINETUNE, Call, resolve_call
from langue.runs.execute import Run, execute
from langue.runs.folder import DIGESTS, RECIPE
from langue.runtime import world_size
from langue.settings.recipe import flat_keys, read_recipe, write_recipe
from langue.settings.sections import known
from langue.settings.space import Choice, Range, Space, parse_space
from langue.statistics.metrics import LOWER_IS_BETTER
from langue.tasks import OPTIONS
from langue.train.journal import read_log

STUDY = "study.json"  # the search space and the data
JOURNAL = "journal.jsonl"  # Optuna's own storage
TRIALS = "trials.jsonl"
BEST = "best.toml"
RESULT = "result.json"
AT_RANDOM = 5  # random trials before TPE and pruning start
UNPRUNED = 1  # first evaluations of a trial that are ignored, in the learning rate's warmup
MOST_FAILURES = 5  # in a row: then the settings are not the cause
WEIGHTS = ("checkpoints", "model.safetensors")  # kept for the best trial only


@dataclass
class Study:
    """A search in progress in `folder`."""

    folder: Path
    given: Mapping[str, Any]  # the command's arguments
    recipe: str | Path | None
    space: Space
    fixed: Mapping[str, Any]
    seeds: int
    seed: int  # of the first run of a trial
    optuna: ModuleType
    study: Any = None  # Optuna's study

    def run_folders(self, number: int) -> list[Path]:
        """Return the folders of a trial's runs, one for each seed."""
        folder = self.folder / f"trial-{number + 1:04d}"
        if self.seeds == 1:
            return [folder]
        return [folder / f"seed-{self.seed + index}" for index in range(self.seeds)]

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.fixed, **params}


def tune_run(
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    out: str | Path,
    trials: int,
    seeds: int,
    recipe: str | Path | None,
    resume: bool,
) -> dict[str, Any]:
    """Run the search, and return the content of result.json.

    trials: total number, including those before a resume. seeds: runs of each trial, whose mean
    score counts.
    """
    optuna = _optuna()
    if world_size() > 1:
        raise SettingsError(
            "trials train one after another in one process", do="start it without torchrun"
        )
    for name, number in (("trials", trials), ("seeds", seeds)):
        if number < 1:
            raise SettingsError(f"{name} = {number}: there must be one at least", do="give more")
    words = {key.replace("__", "."): value for key, value in settings.items()}
    layer = {} if recipe is None else read_recipe(Path(recipe))
    space, fixed = parse_space(words, known(*OPTIONS.values()))
    if not space:
        resolve_call(FINETUNE, layer, given, fixed)  # raises the error for a misspelt name
        raise SettingsError(
            "no setting is searched",
            do="give one a range, as train.lr=1e-5..1e-3, or a list, as train.epochs=1,2,4",
        )
    call = _check(space, fixed, layer, given)
    study = Study(Path(out), given, recipe, space, fixed, seeds, call.settings.train.seed, optuna)
    defined = _definition(study, call)
    there = _folder(study.folder, resume)
    with exclusive_lock(study.folder):
        if there:
            _check_same(study.folder / STUDY, defined)
        else:
            write_json(study.folder / STUDY, defined)
        study.study = _open(study)
        _search(study, trials)
        return _finish(study, trials)


def _optuna() -> ModuleType:
    try:
        optuna = import_module("optuna")
    except ImportError:
        raise SettingsError(
            "tune needs Optuna, which is not installed", do="run: pip install 'langue[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _check(
    space: Space, fixed: Mapping[str, Any], layer: Mapping[str, Any], given: Mapping[str, Any]
) -> Call:
    """Raise SettingsError for the first value of the search space that is invalid."""
    for key, part in space.items():
        for value in part.tried:
            others = {name: each.tried[0] for name, each in space.items()}
            call = resolve_call(FINETUNE, layer, given, {**fixed, **others, key: value})
    return call


def _definition(study: Study, call: Call) -> dict[str, Any]:
    """Return the stored definition of a study; only a study with the same definition can be
    resumed.
    """
    flat = flat_keys(tomllib.loads(write_recipe(call.arguments, call.settings)))
    settled = {key: str(value) for key, value in flat.items() if key not in study.space}
    return {
        "space": {key: str(part) for key, part in study.space.items()},
        "seeds": study.seeds,
        "settings": settled,
    }


def _folder(folder: Path, resume: bool) -> bool:
    """Return whether there is a study to resume; raise RunError if the request and the folder do
    not match.
    """
    there = (folder / STUDY).is_file()
    if resume and not there:
        raise RunError(
            "there is no study to resume", where=str(folder), do="start it without --resume"
        )
    occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if occupied and not resume:
        raise RunError(
            "the folder exists and is not empty",
            where=str(folder),
            do="choose another --out" + (", or go on with --resume" if there else ""),
        )
    return there


def _check_same(path: Path, now: Mapping[str, Any]) -> None:
    """Raise RunError if a study has another search space, data, model or settings."""
    before = read_json(path)
    if not isinstance(before, dict) or not {"space", "seeds", "settings"} <= before.keys():
        raise RunError("does not say what is searched", where=str(path), do="begin a new study")
    for part in ("space", "settings"):
        was = before[part]
        asked = now[part]
        for key in sorted(was.keys() | asked.keys()):
            if was.get(key) != asked.get(key):
                _refuse(path, part, key, was.get(key), asked.get(key))
    if before["seeds"] != now["seeds"]:
        _refuse(path, "settings", "seeds", before["seeds"], now["seeds"])


def _refuse(path: Path, part: str, key: str, was: Any, asked: Any) -> None:
    what = "another search space" if part == "space" else "other settings"
    kept, wanted = (repr(each) if each is not None else "not there" for each in (was, asked))
    raise RunError(
        f"the study is of {what}: {key} was {kept} and is now {wanted}",
        where=str(path),
        do="repeat the first command with --resume, or choose another --out",
    )


def _open(study: Study) -> Any:
    """Open Optuna's study, after removing an incomplete line or a lock that a killed process has
    left; no other process is active in the folder.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = study.folder / JOURNAL
    for lock in study.folder.glob(f"{JOURNAL}.lock*"):
        lock.unlink()
    if path.is_file():
        whole = path.read_bytes()
        whole = whole[: whole.rfind(b"\n") + 1]
        if len(whole) < path.stat().st_size:
            with atomic_file(path) as temporary:
                temporary.write_bytes(whole)
    pruner = study.optuna.pruners.MedianPruner(
        n_startup_trials=AT_RANDOM, n_warmup_steps=UNPRUNED + 1
    )
    return study.optuna.create_study(
        study_name="langue",
        storage=JournalStorage(JournalFileBackend(str(path))),
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )


# --- the trials ---


def _search(study: Study, trials: int) -> None:
    states = study.optuna.trial.TrialState
    failures: list[LangueError] = []
    while True:
        found = study.study.get_trials(deepcopy=False)
        begun = [trial for trial in found if trial.state == states.RUNNING]
        number = begun[0].number if begun else len(found)
        if number >= trials:
            break
        study.study.sampler = study.optuna.samplers.TPESampler(
            n_startup_trials=AT_RANDOM, seed=number + 1_000_003 * study.seed
        )
        if begun:
            trial = study.optuna.trial.Trial(study.study, begun[0]._trial_id)
        else:
            trial = study.study.ask()
        params = {key: _suggest(trial, key, part) for key, part in study.space.items()}
        told = " ".join(f"{key}={value}" for key, value in params.items())
        say(f"trial {number + 1} of {trials}: {told}")
        failure = _try(study, trial, params)
        failures = [*failures, failure] if failure is not None else []
        if failure is not None and _is_unrelated_failure(study, failure, failures):
            raise failure
        _update_files(study)


def _is_unrelated_failure(study: Study, failure: LangueError, failures: list[LangueError]) -> bool:
    """Return whether a failure has another cause than the settings of the trial."""
    if len(failures) >= MOST_FAILURES:
        return True
    states = study.optuna.trial.TrialState
    through = study.study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
    return not through and not isinstance(failure, RunError)


def _suggest(trial: Any, key: str, part: Range | Choice) -> str:
    """Return the value of a setting in a trial; a value that was drawn before stays."""
    if isinstance(part, Choice):
        return str(trial.suggest_categorical(key, part.values))
    if part.whole:
        return str(trial.suggest_int(key, int(part.low), int(part.high), log=part.log))
    return repr(trial.suggest_float(key, part.low, part.high, log=part.log))


def _try(study: Study, trial: Any, params: Mapping[str, Any]) -> LangueError | None:
    """Train a trial and report its result to Optuna; return the error if it failed."""
    states = study.optuna.trial.TrialState
    began = time.perf_counter()
    failure: LangueError | None = None
    value = None
    state = states.COMPLETE
    try:
        scores = [_train(study, trial, params, i) for i in range(study.seeds)]
        value = sum(scores) / len(scores)
        trial.set_user_attr("scores", scores)
    except study.optuna.TrialPruned:
        state = states.PRUNED
    except Interrupted as error:
        raise Interrupted(
            error.what,
            where=str(study.folder),
            do="the same command with --resume goes on from here",
        ) from None
    except LangueError as error:
        failure = error
    except (MemoryError, torch.OutOfMemoryError):
        failure = RunError("memory is used up", do="search smaller values")
    if failure is not None:
        state = states.FAIL
        trial.set_user_attr("error", str(failure))
    before = trial.user_attrs.get("seconds", 0.0)
    trial.set_user_attr("seconds", round(before + time.perf_counter() - began, 3))
    study.study.tell(trial, value, state=None if state == states.COMPLETE else state)
    say(_outcome_line(study, trial.number, state, value, failure))
    return failure


def _train(study: Study, trial: Any, params: Mapping[str, Any], index: int) -> float:
    """Make or resume one run of a trial; return its best score on dev."""
    folder = study.run_folders(trial.number)[index]
    resume = (folder / RECIPE).is_file()
    if folder.exists() and not resume:  # killed before it started
        shutil.rmtree(folder)

    def watch(line: Mapping[str, Any], score: float) -> None:
        # Trials differ in the number of steps per epoch, not in the number of evaluations.
        evaluation = sum(each["split"] == "dev" for each in read_log(folder / "log.jsonl"))
        if (
            index == 0
            and evaluation not in trial.storage.get_trial(trial._trial_id).intermediate_values
        ):
            trial.report(score, evaluation)
            if trial.should_prune():
                raise study.optuna.TrialPruned

    run = execute(
        FINETUNE,
        study.given,
        {**study.settings(params), "train.seed": study.seed + index},
        out=folder,
        recipe=study.recipe,
        resume=resume,
        watch=watch,
        judge=False,
    )
    _check_data(study, folder)
    if run.score is None:
        raise DataError(
            "there is no dev split to compare trials on",
            where=str(run.facts["origin"]),
            do="add a dev file",
        )
    return run.score


def _check_data(study: Study, folder: Path) -> None:
    """Raise RunError if the data has changed since the first trial."""
    now = read_json(folder / DIGESTS)
    kept = study.folder / "data.json"
    if not kept.is_file():
        write_json(kept, now)
    elif read_json(kept) != now:
        raise RunError(
            "the data is not what it was when the study began",
            where=str(study.folder),
            do="put the data back, or begin a new study",
        )


# --- what is kept ---


def _metric(study: Study) -> str:
    """Return the metric by which trials are compared, as the first one has resolved it."""
    for folder in sorted(study.folder.glob(f"trial-*/**/{RECIPE}")):
        found = read_recipe(folder).get("train.best")
        if found is not None:
            return str(found)
    return "score"


def _as_metric(study: Study, score: float) -> float:
    return -score if _metric(study) in LOWER_IS_BETTER else score


def _outcome_line(
    study: Study, number: int, state: Any, value: float | None, failure: LangueError | None
) -> str:
    """Return one line on how a trial ended."""
    if failure is not None:
        return f"trial {number + 1} failed and is counted as such: {failure}"
    if value is None:
        return f"trial {number + 1} pruned: below the median of the others on dev"
    best = _best(study)
    assert best is not None
    mark = (
        "the best so far"
        if best.number == number
        else (f"the best is {_as_metric(study, best.value):.4f} of trial {best.number + 1}")
    )
    return f"trial {number + 1}: dev {_metric(study)} {_as_metric(study, value):.4f}, {mark}"


def _best(study: Study) -> Any:
    """Return the best complete trial, the first of ties, or None."""
    complete = study.study.get_trials(
        deepcopy=False, states=(study.optuna.trial.TrialState.COMPLETE,)
    )
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def listed(study: Study) -> list[dict[str, Any]]:
    """Return one record for each trial, in order."""
    rows = []
    for trial in study.study.get_trials(deepcopy=False):
        row: dict[str, Any] = {
            "trial": trial.number + 1,
            "state": trial.state.name.lower(),
            "value": None if trial.value is None else _as_metric(study, trial.value),
            "settings": trial.params,
            "dev": [_as_metric(study, each) for each in trial.intermediate_values.values()],
            "seconds": trial.user_attrs.get("seconds"),
        }
        if "error" in trial.user_attrs:
            row["error"] = trial.user_attrs["error"]
        if study.seeds > 1 and "scores" in trial.user_attrs:
            row["seeds"] = [_as_metric(study, each) for each in trial.user_attrs["scores"]]
        rows.append(row)
    return rows


def _update_files(study: Study) -> None:
    """Update the table of trials and the recipe of the best one, and remove the weights of all
    others.
    """
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in listed(study)]
    write_text(study.folder / TRIALS, "".join(lines))
    best = _best(study)
    running = study.optuna.trial.TrialState.RUNNING
    for trial in study.study.get_trials(deepcopy=False):
        if trial.state == running or (best is not None and trial.number == best.number):
            continue
        for folder in study.run_folders(trial.number):
            for name in WEIGHTS:
                path = folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    if best is not None:
        recipe = study.run_folders(best.number)[0] / RECIPE
        write_text(study.folder / BEST, recipe.read_text("utf-8"))


def _finish(study: Study, trials: int) -> dict[str, Any]:
    """Evaluate the best trial, and write what people read."""
    best = _best(study)
    rows = listed(study)
    if best is None:
        states = sorted({row["state"] for row in rows})
        raise RunError(
            f"none of {len(rows)} trials was completed ({', '.join(states)})",
            where=str(study.folder / TRIALS),
            do="read why there, and search other values in a new --out",
        )
    _update_files(study)
    judged = []
    for index, folder in enumerate(study.run_folders(best.number)):
        if not (folder / "metrics.json").is_file():
            _judge(study, best.params, folder, index)
        judged.append(read_json(folder / "metrics.json"))
    counts = {name: sum(row["state"] == name for row in rows) for name in COUNTED}
    result = {
        "metric": _metric(study),
        "trials": len(rows),
        **counts,
        "best": {
            "trial": best.number + 1,
            "dev": _as_metric(study, best.value),
            "settings": best.params,
            "runs": [str(folder) for folder in study.run_folders(best.number)],
        },
        "test": judged[0] if len(judged) == 1 else judged,
        "importances": _importances(study),
        "recipe": str(study.folder / BEST),
    }
    write_json(study.folder / RESULT, result)
    from langue.evaluation.study import write_study

    write_study(study.folder, result, rows, {key: str(part) for key, part in study.space.items()})
    return result


COUNTED = ("complete", "pruned", "fail")


def _judge(study: Study, params: Mapping[str, Any], folder: Path, index: int) -> Run:
    """Evaluate a run: resuming one whose steps are complete writes its model and evaluates it."""
    return execute(
        FINETUNE,
        study.given,
        {**study.settings(params), "train.seed": study.seed + index},
        out=folder,
        recipe=study.recipe,
        resume=True,
    )


def _importances(study: Study) -> dict[str, float] | None:
    """Return how much of the variation between trials each setting explains (functional ANOVA,
    Hutter et al. 2014); None if too few trials were completed, or all have the same value.
    """
    complete = [
        trial
        for trial in study.study.get_trials(deepcopy=False)
        if trial.state == study.optuna.trial.TrialState.COMPLETE
    ]
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return None
    evaluator = study.optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = study.optuna.importance.get_param_importances(study.study, evaluator=evaluator)
    return {key: round(float(value), 4) for key, value in found.items()}

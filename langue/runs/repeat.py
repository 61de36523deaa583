"""Repeated fine-tuning: takes a command to run several times, on folds, with different seeds, or on
fractions of the training rows; makes one run each, and a summary.

Every run is complete in itself, in a subfolder such as `fold-1` or `share-0.3/seed-2`. Its recipe
has its data.fold, data.share and train.seed, so that it can be evaluated and resumed on its own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langue.errors import RunError, SettingsError
from langue.files import exclusive_lock, read_json, write_json
from langue.progress import say
from langue.runs.arguments import FINETUNE, resolve_call
from langue.runs.execute import Run, execute
from langue.runs.folder import RECIPE
from langue.runtime import rank, world_size
from langue.settings.recipe import read_recipe
from langue.statistics.compare import outcome
from langue.statistics.intervals import bounds
from langue.statistics.repeats import spread

SUMMARY = "metrics.json"
MOST = 1000  # maximum number of runs
ONCE = ("main_metric", "split", "positive")  # what all runs have in common


@dataclass(frozen=True)
class Repeat:
    """One of the runs."""

    folder: str  # relative to the common folder
    settings: Mapping[str, Any]  # its own settings
    fold: int | None = None
    share: float | None = None
    seed: int = 0

    def facts(self) -> dict[str, Any]:
        said = {"fold": self.fold, "share": self.share, "seed": self.seed}
        return {"folder": self.folder, **{k: v for k, v in said.items() if v is not None}}


def repeats(
    folds: int | None, seeds: int | None, shares: Sequence[float], seed: int
) -> Iterator[Repeat]:
    """Yield every combination of fold, share and seed; seed: that of the first run."""
    for fold in range(1, (folds or 1) + 1):
        for share in shares or [None]:  # type: ignore[list-item]
            for index in range(seeds or 1):
                parts = []
                settings: dict[str, Any] = {"train.seed": seed + index}
                if folds:
                    parts.append(f"fold-{fold}")
                    settings |= {"data.folds": folds, "data.fold": fold}
                if share is not None:
                    parts.append(f"share-{share:g}")
                    settings["data.share"] = share
                if seeds:
                    parts.append(f"seed-{index + 1}")
                number = fold if folds else None
                yield Repeat("/".join(parts), settings, number, share, seed + index)


def repeat(
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    out: str | Path,
    folds: int | None,
    seeds: int | None,
    shares: Sequence[float] | None,
    recipe: str | Path | None,
    force: bool,
    resume: bool,
    show: Callable[[Any], None] | None,
) -> Run:
    """Make all runs, and summarize them in out/metrics.json and report.html; on resume, finished
    runs are not repeated.
    """
    words = {key.replace("__", "."): value for key, value in settings.items()}
    wanted = sorted({float(share) for share in shares or ()})
    _check(folds, seeds, wanted, words, force)
    layer = {} if recipe is None else read_recipe(Path(recipe))
    seed = resolve_call(FINETUNE, layer, given, words).settings.train.seed
    every = list(repeats(folds, seeds, wanted, seed))
    folder = Path(out)
    there = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    begun = any((folder / each.folder).is_dir() for each in every)
    if there and not resume:
        raise RunError(
            "the folder exists and is not empty",
            where=str(folder),
            do="choose another --out" + (", or go on with --resume" if begun else ""),
        )
    if resume and not begun:
        raise RunError(
            "there are no runs to resume",
            where=str(folder),
            do="start without --resume" + (", in another --out" if there else ""),
        )
    runs: list[dict[str, Any]] = []
    with exclusive_lock(folder):
        for number, each in enumerate(every, 1):
            say(f"run {number} of {len(every)}: {each.folder}")
            runs.append(_run(folder, each, given, words, recipe, resume, show))
            show = None  # show only the first preview
        content = summary(runs, folds, wanted)
        if len(wanted) > 1:
            content["more_data"] = _more_data(folder, runs, wanted)
        write_json(folder / SUMMARY, content)
        from langue.evaluation.repeats import write_repeats

        write_repeats(folder, content)
    return Run(folder, content, {})


def _check(
    folds: int | None,
    seeds: int | None,
    shares: Sequence[float],
    words: Mapping[str, Any],
    force: bool,
) -> None:
    """Raise SettingsError for impossible settings."""
    if world_size() > 1:
        raise SettingsError(
            "several runs train one after another in one process", do="start it without torchrun"
        )
    if force:
        raise SettingsError(
            "--force replaces one run, and these are several",
            do="leave it out, and choose another --out",
        )
    if folds is not None and folds < 2:
        raise SettingsError(f"folds = {folds}: of one part none is left to train on", do="give 5")
    if seeds is not None and seeds < 1:
        raise SettingsError(f"seeds = {seeds}: there must be a run", do="give 3")
    for share in shares:
        if not 0 < share <= 1:
            raise SettingsError(
                f"shares: {share:g} is no share of the training rows", do="give 0.1,0.3,1"
            )
    count = (folds or 1) * (seeds or 1) * max(1, len(shares))
    if count > MOST:
        raise SettingsError(f"these are {count:,} runs", do=f"take at most {MOST:,}")
    taken = {"data.fold": folds, "data.folds": folds, "data.share": shares or None}
    for key, value in taken.items():
        if value is not None and key in words:
            raise SettingsError(
                f"{key} = {words[key]} is set, and the runs differ in it", do="leave it out"
            )


def _run(
    folder: Path,
    each: Repeat,
    given: Mapping[str, Any],
    words: Mapping[str, Any],
    recipe: str | Path | None,
    resume: bool,
    show: Callable[[Any], None] | None,
) -> dict[str, Any]:
    """Return the summary of one run, which is made unless it is finished."""
    own = folder / each.folder
    kept = own / "rows.json"
    done = resume and (own / "metrics.json").is_file() and kept.is_file()
    if not done:
        begun = (own / RECIPE).is_file()
        run = execute(
            FINETUNE,
            given,
            {**words, **each.settings},
            out=own,
            recipe=recipe,
            resume=begun,
            show=show,
        )
        if rank() == 0:
            write_json(kept, {"train": run.facts["splits"]["train"]["examples"]})
    metrics = read_json(own / "metrics.json")
    return {
        **each.facts(),
        "rows": read_json(kept)["train"],
        "split": metrics["split"],
        "examples": metrics["examples"],
        "main_metric": metrics["main_metric"],
        "metrics": metrics["metrics"],
        "baseline": metrics["baseline"],
        **({"positive": metrics["positive"]} if "positive" in metrics else {}),
    }


def summary(
    runs: Sequence[Mapping[str, Any]], folds: int | None, shares: Sequence[float]
) -> dict[str, Any]:
    """Return the content of the common metrics.json: the spread of each metric, separately for each
    share.
    """
    main = runs[0]["main_metric"]
    own = []
    for run in runs:
        own.append({key: value for key, value in run.items() if key not in ONCE})
    content: dict[str, Any] = {"split": runs[0]["split"], "main_metric": main, "runs": own}
    if len(shares) > 1:
        parts = []
        for share in shares:
            of_share = [run for run in runs if run["share"] == share]
            rows = sum(run["rows"] for run in of_share) / len(of_share)
            parts.append({"share": share, "rows": rows, **_spreads(of_share, folds)})
        content["shares"] = parts
        content |= {k: v for k, v in parts[-1].items() if k not in ("share", "rows")}
    else:
        content |= _spreads(runs, folds)
    return content


def _spreads(runs: Sequence[Mapping[str, Any]], folds: int | None) -> dict[str, Any]:
    """Return the spread of each metric of the model and the baseline, and of their difference in
    the main metric, over the runs of one share. Several seeds of a fold count as one value, their
    mean.
    """
    main = runs[0]["main_metric"]
    overlap = 0.0
    if folds:
        overlap = sum(run["examples"] / run["rows"] for run in runs) / len(runs)

    def spread_of(
        values: Sequence[float | None], limits: tuple[float, float] = (-math.inf, math.inf)
    ) -> dict[str, Any] | None:
        if any(value is None for value in values):
            return None  # undefined in some run, which a mean of the others would hide
        grouped: dict[Any, list[float]] = {}
        for run, value in zip(runs, values, strict=True):
            assert value is not None
            grouped.setdefault(run.get("fold") if folds else run["seed"], []).append(value)
        means = [sum(group) / len(group) for group in grouped.values()]
        return spread(means, overlap, limits).as_json()

    metrics = {}
    for name in runs[0]["metrics"]:
        metrics[name] = spread_of([run["metrics"].get(name) for run in runs])
    found: dict[str, Any] = {"metrics": metrics}
    if all(run["baseline"] for run in runs):
        theirs = [run["baseline"]["metrics"].get(main) for run in runs]
        ours = [run["metrics"].get(main) for run in runs]
        gains = [
            None if a is None or b is None else a - b for a, b in zip(ours, theirs, strict=True)
        ]
        found["baseline"] = {
            "name": runs[0]["baseline"]["name"],
            "metrics": {main: spread_of(theirs, bounds(main))},
            "difference": spread_of(gains),
        }
    return found


def _more_data(
    folder: Path, runs: Sequence[Mapping[str, Any]], shares: Sequence[float]
) -> dict[str, Any]:
    """Return whether the largest share is better than the second largest: the first runs of both
    predict the same rows, so the test is paired.
    """
    from langue.runs.compare import compare_runs

    last = next(run for run in runs if run["share"] == shares[-1])
    before = next(run for run in runs if run["share"] == shares[-2])
    found: dict[str, Any] = {"from": before["rows"], "to": last["rows"], "outcome": "unknown"}
    try:
        compared = compare_runs(folder / last["folder"], folder / before["folder"])
    except RunError as error:  # the data was given as rows in Python, which the runs do not store
        return found | {"comparison": None, "why": str(error)}
    comparison = compared["baseline"]["comparison"]
    if comparison is None:
        return found | {"comparison": None, "why": "the metric is undefined"}
    return found | {"outcome": outcome(comparison), "comparison": comparison}

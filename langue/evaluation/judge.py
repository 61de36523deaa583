"""The verdict on a model relative to its baseline, and the formatting of metrics.

Intervals are 95% intervals: they tell how much the number would vary with another test set of the
same size. They do not cover variation between training seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langue.statistics import metrics as m
from langue.statistics.compare import LEVEL, outcome
from langue.wording import counted

LOWER_IS_BETTER = m.LOWER_IS_BETTER
OF_POSITIVE = m.OF_POSITIVE
SHARES = ("precision", "recall", "f1", "exact")  # prefixes of metrics on a scale from 0 to 1
LONGEST = 60  # maximum length of a label beside a metric


@dataclass(frozen=True)
class Verdict:
    """Whether the model is better than its baseline; `outcome` is better, same, worse
    or unknown.
    """

    outcome: str
    sentence: str


def verdict(summary: Mapping[str, Any]) -> Verdict:
    """Summarise in one sentence the comparison in a metrics.json between the model and its
    baseline, or between two runs if the content has `other`.
    """
    baseline = summary.get("baseline") or {}
    comparison = baseline.get("comparison")
    name = comparison["metric"] if comparison else summary["main_metric"]
    called = named(name, summary)
    ours = summary["metrics"].get(name)
    theirs = (baseline.get("metrics") or {}).get(name)
    if ours is None:
        return Verdict("unknown", f"The model has no {called}: it is undefined here.")
    if theirs is None:
        return Verdict("unknown", "The model has no baseline to be compared with.")
    against = (
        f"{called} {format_metric(name, ours)} against {format_metric(name, theirs)} of"
        f" {baseline['name']}"
    )
    if comparison is None:
        return Verdict("unknown", f"Not compared with its baseline example by example: {against}.")
    found = outcome(comparison)
    of_run = "other" in summary
    beside = "the other run" if of_run else "its baseline"
    if found == "same":
        return Verdict(
            "same", f"Not distinguishable from {beside}: {against}{_undecided(comparison)}."
        )
    against += _apart(comparison)
    if found == "worse":
        return Verdict(
            "worse",
            f"Worse than {beside}: {against}."
            + ("" if of_run else " Use the baseline, or train longer."),
        )
    off, usual = (each.get("mse") for each in (summary["metrics"], baseline.get("metrics") or {}))
    if off is not None and usual is not None and off > usual:
        errors = (
            f"mean squared error {format_metric('mse', off)} against {format_metric('mse', usual)}"
        )
        return Verdict(
            "same", f"It ranks better than {beside}, but errs more: {against}; {errors}."
        )
    return Verdict("better", f"Better than {beside}: {against}.")


def _apart(comparison: Mapping[str, Any]) -> str:
    """Format the interval of the difference between two systems: `, by 0.52 to 5.48 points (95%
    interval over the same 300 examples)`.
    """
    name = comparison["metric"]
    ends = sorted(abs(end) for end in comparison["interval"])
    low, high = (format_metric(name, end).removesuffix("%") for end in ends)
    points = " points" if _is_share(name) else ""
    examples = counted(comparison["examples"], "example")
    return f", by {low} to {high}{points} (95% interval over the same {examples})"


def _undecided(comparison: Mapping[str, Any]) -> str:
    """Explain why a difference may be due to chance."""
    examples = f"the same {counted(comparison['examples'], 'example')}"
    if comparison["p_value"] > LEVEL:
        return (
            f"; equal systems differ as much on {examples} with a probability of"
            f" {comparison['p_value']:.2g}"
        )
    return f"; on other examples than {examples} the difference may well turn round"


def named(name: str, summary: Mapping[str, Any]) -> str:
    """Return the display name of a metric, with the label it refers to if it is that of one of two
    labels.
    """
    positive = summary.get("positive")
    if name not in OF_POSITIVE or positive is None:
        return metric_label(name)
    label = " ".join(positive.split())
    return f"{metric_label(name)} of {label if len(label) <= LONGEST else label[:LONGEST] + '…'}"


def metric_label(name: str) -> str:
    """Return the display name of a metric: `f1_macro` -> `F1, macro`."""
    words = {
        "bleu": "BLEU",
        "chrf": "chrF",
        "rouge1": "ROUGE-1",
        "rouge2": "ROUGE-2",
        "rougeL": "ROUGE-L",
        "f1": "F1",
        "mcc": "MCC",
        "mse": "mean squared error",
        "pearson": "Pearson",
        "spearman": "Spearman",
    }
    head, _, tail = name.partition("_")
    if tail in ("macro", "micro", "samples"):
        return f"{words.get(head, head)}, {'per text' if tail == 'samples' else tail}"
    return words.get(name, name.replace("_", " "))


def format_metric(name: str, value: float | None) -> str:
    """Format the value of a metric.

    Shares are in percent; perplexity and metrics on a scale of 100 have two decimals, other metrics
    four; undefined values are a dash.
    """
    if value is None or not math.isfinite(value):
        return "–"
    # of scores with a narrow range, for which four decimals would not be informative
    if name == "mse" and 0 < value < 1e-3:
        return f"{value:.4g}"
    if _is_share(name):
        return f"{100 * value:.2f}%"
    return f"{value:,.2f}" if name == "perplexity" or name in m.OF_HUNDRED else f"{value:.4f}"


def _is_share(name: str) -> bool:
    return name.endswith("accuracy") or name.split("_")[0] in SHARES


def better_than_baseline(content: Mapping[str, Any]) -> str:
    """Return a sentence for the end of a run that compares the perplexities of the model and the
    n-gram baseline, or "".
    """
    baseline = content["baseline"] or {}
    comparison = baseline.get("comparison")
    own = content["metrics"]["perplexity"]
    if comparison is None or own is None:
        return ""
    beside = f"the n-gram model's {baseline['metrics']['perplexity']:,.2f}"
    relation = {"better": "less than", "worse": "MORE than", "same": "not distinguishable from"}
    sentence = f"The model's perplexity {own:,.2f} is {relation[outcome(comparison)]} {beside}"
    if outcome(comparison) != "same":
        return f"{sentence}."
    documents = counted(comparison["examples"], "document")
    return (
        f"{sentence}: on {documents} equal models differ as much with a probability of"
        f" {comparison['p_value']:.2g}."
    )


def began(content: Mapping[str, Any]) -> str:
    """Return a sentence on the weights that the initial model lacked when training continued from
    it, and on its loss before training, or "".
    """
    before = content.get("before")
    if before is None:
        return ""
    return (
        f"The model that it began from has no {listed(before['new_weights'])}, so that these began"
        f" at random: before training its loss was {format_metric('loss', before['loss'])}, where"
        f" guessing among all tokens has {format_metric('loss', before['uniform_loss'])}."
    )


def listed(names: list[str]) -> str:
    """Describe missing weights of a language-model head by the first three of their names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"weights of a language-model head ({', '.join(names[:3])}{more})"

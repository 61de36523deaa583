"""What arrives: how likely a model took the answers of a task file, or what it wrote. What leaves:
what each row is worth, and the metrics of all rows with their standard errors and intervals.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langue.evaluation.answer_filters import exact_match
from langue.evaluation.task_file import Metric, TaskFile
from langue.evaluation.task_prompts import Question
from langue.statistics.metrics import number

RESAMPLES = 1000
MOST_WEIGHTS = 2_000_000  # of the bootstrap, that are held at once
MISSING = -100  # the number of a right answer that is none of the choices
Values = dict[str, Any]


def of_choices(
    question: Question,
    logprobs: Sequence[float],
    greedy: Sequence[bool],
    unconditional: Sequence[float] = (),
) -> Values:
    """What a multiple-choice row is worth, by every metric.

    The first of equally likely choices is the model's. acc_norm divides by characters, acc_bytes by
    bytes of UTF-8; acc_mutual_info takes off how likely each choice is by itself.
    """
    assert question.choices is not None
    found = np.asarray(logprobs, np.float64)
    characters = np.asarray([len(choice) for choice in question.choices], np.float64)
    in_bytes = np.asarray([len(choice.encode()) for choice in question.choices], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty choice
        answers = {
            "acc": int(np.argmax(found)),
            "acc_norm": int(np.argmax(found / characters)),
            "acc_bytes": int(np.argmax(found / in_bytes)),
        }
    if len(unconditional):
        answers["acc_mutual_info"] = int(np.argmax(found - np.asarray(unconditional)))
    gold = _gold(question)
    several = gold if isinstance(gold, list) else [gold]
    values: Values = {name: float(answer in several) for name, answer in answers.items()}
    values["exact_match"] = float(any(greedy[i] for i in several if i != MISSING))
    shifted = np.exp(found - found.max())
    values["f1"] = (gold, answers["acc"])
    values["mcc"] = (gold, answers["acc"])
    values["brier_score"] = (gold, shifted / shifted.sum())
    values["answer"] = answers["acc"]
    values["gold"] = gold
    return values


def _gold(question: Question) -> int | list[int]:
    """The number of the right choice, or of several."""
    choices = question.choices or []

    def number(gold: Any) -> int:
        if isinstance(gold, str) and gold in choices:
            return choices.index(gold)
        if isinstance(gold, str) and gold.isdecimal():  # as a table of text has it
            gold = int(gold)
        inside = isinstance(gold, int | np.integer) and 0 <= gold < len(choices)
        return int(gold) if inside else MISSING

    gold = question.gold
    return [number(each) for each in gold] if isinstance(gold, list) else number(gold)


def of_continuation(logprob: float, greedy: bool) -> Values:
    return {"perplexity": logprob, "acc": float(greedy)}


def of_whole(text: str, logprob: float) -> Values:
    """A text's log-likelihood beside its words, which blanks part, and its bytes."""
    words = len(re.split(r"\s+", text))
    size = len(text.encode())
    return {
        "word_perplexity": (logprob, words),
        "byte_perplexity": (logprob, size),
        "bits_per_byte": (logprob, size),
    }


def of_written(metric: Metric, answer: Any, gold: Any) -> Any:
    """Whether what was written is right, of several right answers any; or, where a metric is of all
    rows together, what is written and the right answers.
    """
    golds = gold if isinstance(gold, list) else [gold]
    right = [str(each) for each in golds]
    if metric.name != "exact_match":
        return str(answer), right
    matches = [exact_match(str(answer), each, **metric.options) for each in right]
    return float(any(matches))


def has_no_gold(values: Values) -> bool:
    """Whether the row's right answer is none of its choices."""
    gold = values.get("gold")
    return MISSING in gold if isinstance(gold, list) else gold == MISSING


# --- metrics of all rows ---

Weighted = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Score = Callable[[NDArray[Any], NDArray[Any], NDArray[np.float64]], float]


def summarise(
    task: TaskFile, rows: Sequence[Values], names: Mapping[str, Metric]
) -> tuple[dict[str, float | None], dict[str, float | None], dict[str, tuple[float, float] | None]]:
    """Metrics by the name that they are shown under, their standard errors, and 95% intervals:
    of means the sample's standard error, of others a bootstrap over rows.
    """
    metrics: dict[str, float | None] = {}
    errors: dict[str, float | None] = {}
    intervals: dict[str, tuple[float, float] | None] = {}
    for name, metric in names.items():
        items = [row[name] for row in rows]
        work = _aggregation(metric.aggregation, items)
        metrics[name] = number(work(np.ones((len(items), 1)))[0])
        if metric.aggregation == "mean":
            errors[name], intervals[name] = _of_mean(np.asarray(items, np.float64))
        else:
            errors[name], intervals[name] = _bootstrap(work, len(items))
    return metrics, errors, intervals


def _aggregation(name: str, items: Sequence[Any]) -> Weighted:
    """A function of how often each row counts, (n, R), that gives the metric of each of R samples;
    infinity where a number is beyond those of the machine.
    """
    if name == "mean":
        return _mean(items)
    if name == "perplexity":
        logprobs = _mean(items)
        return lambda weights: _exp(-logprobs(weights))
    if name == "weighted_perplexity":
        a_unit = _ratio(items)
        return lambda weights: _exp(-a_unit(weights))
    if name == "bits_per_byte":
        a_byte = _ratio(items)
        return lambda weights: -a_byte(weights) / math.log(2)
    if name == "brier_score":
        return _mean([_distance(gold, found) for gold, found in items])
    if name in ("bleu", "chrf"):
        return _translation(name, items)
    return _of_labels(_f1 if name == "f1" else _mcc, items)


def _mean(items: Sequence[float]) -> Weighted:
    values = np.asarray(items, np.float64)  # (n,)

    def mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = values @ weights / weights.sum(axis=0)
        return found

    return mean


def _ratio(items: Sequence[tuple[float, int]]) -> Weighted:
    """The sum of log-likelihoods by the sum of sizes."""
    logprobs, sizes = np.asarray(items, np.float64).T  # (n,) each

    def ratio(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):  # texts that are all empty
            found: NDArray[np.float64] = logprobs @ weights / (sizes @ weights)
        return found

    return ratio


def _translation(name: str, items: Sequence[tuple[str, list[str]]]) -> Weighted:
    from langue.statistics.translation import USUAL, TranslationScores

    written = [text for text, _ in items]
    references = [right for _, right in items]
    measure = TranslationScores(written, references, USUAL).measure
    return lambda weights: measure(weights)[name]


def _of_labels(score: Score, items: Sequence[tuple[Any, Any]]) -> Weighted:
    """A metric of true and given choices, computed for each sample by itself."""
    golds = np.asarray([gold for gold, _ in items])
    answers = np.asarray([answer for _, answer in items])

    def of_samples(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray([score(golds, answers, each) for each in weights.T])

    return of_samples


def _exp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return np.exp(values)


def _distance(gold: Any, probabilities: NDArray[np.float64]) -> float:
    """Brier's score of one row: the squared distance from certainty of what is right."""
    right = np.zeros(len(probabilities))
    if gold != MISSING:
        right[gold] = 1.0
    return float(((probabilities - right) ** 2).sum())


def _f1(golds: NDArray[Any], answers: NDArray[Any], weights: NDArray[np.float64]) -> float:
    """F1 of choice 1."""
    right = weights[(golds == 1) & (answers == 1)].sum()
    either = weights[golds == 1].sum() + weights[answers == 1].sum()
    return float(2 * right / either) if either else 0.0


def _mcc(golds: NDArray[Any], answers: NDArray[Any], weights: NDArray[np.float64]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(golds, answers, sample_weight=weights))


def _of_mean(
    values: NDArray[np.float64],
) -> tuple[float | None, tuple[float, float] | None]:
    """The standard error of a mean, and its 95% interval: exact where rows are right or wrong
    (Clopper and Pearson 1934).
    """
    from langue.statistics.intervals import clopper_pearson

    if len(values) < 2:
        return None, None
    error = float(values.std(ddof=1) / math.sqrt(len(values)))
    if set(np.unique(values)) <= {0.0, 1.0}:
        return error, clopper_pearson(int(values.sum()), len(values))
    middle = float(values.mean())
    return error, (middle - 1.96 * error, middle + 1.96 * error)


def _bootstrap(work: Weighted, n: int) -> tuple[float | None, tuple[float, float] | None]:
    """The standard deviation of the metric over rows drawn anew, and the middle 95% of it."""
    from langue.statistics.intervals import chunks, drawn

    if n < 2:
        return None, None
    generator = np.random.default_rng(0)
    parts = []
    for columns in chunks(n, RESAMPLES):
        parts.append(work(drawn(generator, np.ones(n, np.int64), columns)))
    found = np.concatenate(parts)
    found = found[np.isfinite(found)]
    if len(found) < 2:
        return None, None
    low, high = np.percentile(found, (2.5, 97.5))
    return float(found.std(ddof=1)), (float(low), float(high)) if low < high else None


def shown_names(task: TaskFile) -> dict[str, Metric]:
    """Each metric by the name that it is shown under: where there are several filters, with the
    filter's behind.
    """
    filters = [None] if task.filters is None else [each.name for each in task.filters]
    made = {}
    for metric in task.metrics:
        for name in filters:
            shown = metric.name if len(filters) == 1 else f"{metric.name},{name}"
            made[shown] = metric
    return made

"""Scores of each row of a task file, from log-likelihoods or generated answers, and the metrics of
all rows with standard errors and intervals.
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
MISSING = -100  # the index of a gold answer that is not among the choices
Values = dict[str, Any]
Array = NDArray[Any]
Floats = NDArray[np.float64]
Interval = tuple[float, float] | None


def of_choices(
    question: Question,
    logprobs: Sequence[float],
    greedy: Sequence[bool],
    unconditional: Sequence[float] = (),
) -> Values:
    """Return the scores of a multiple-choice row by every metric.

    The answer of the model is the likeliest choice, the first in case of a tie. acc_norm divides
    log-likelihoods by the number of characters, acc_bytes by that of UTF-8 bytes; acc_mutual_info
    subtracts the log-likelihood of each choice without context.
    """
    assert question.choices is not None
    found = np.asarray(logprobs, np.float64)
    characters = [len(choice) for choice in question.choices]
    utf8_bytes = [len(choice.encode()) for choice in question.choices]
    answers = {
        "acc": _best(found),
        "acc_norm": _best(_per_unit(found, characters)),
        "acc_bytes": _best(_per_unit(found, utf8_bytes)),
    }
    if len(unconditional):
        answers["acc_mutual_info"] = _best(found - np.asarray(unconditional))
    gold = _gold(question)
    right = gold if isinstance(gold, list) else [gold]
    values: Values = {}
    for name, answer in answers.items():
        values[name] = float(answer in right)
    values["exact_match"] = float(any(greedy[i] for i in right if i != MISSING))
    answer = answers["acc"]
    shifted = np.exp(found - found.max())
    values["f1"] = (gold, answer)
    values["mcc"] = (gold, answer)
    values["brier_score"] = (gold, shifted / shifted.sum())
    values["answer"] = answer
    values["gold"] = gold
    return values


def _best(scores: Floats) -> int:
    return int(np.argmax(scores))


def _per_unit(logprobs: Floats, sizes: Sequence[int]) -> Floats:
    units = np.asarray(sizes, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # for an empty choice
        found: Floats = logprobs / units
    return found


def _gold(question: Question) -> int | list[int]:
    """Return the index of the gold choice, or a list of them if there are several."""
    choices = question.choices or []
    gold = question.gold
    if isinstance(gold, list):
        return [_choice_index(each, choices) for each in gold]
    return _choice_index(gold, choices)


def _choice_index(gold: Any, choices: Sequence[str]) -> int:
    if isinstance(gold, str) and gold in choices:
        return choices.index(gold)
    if isinstance(gold, str) and gold.isdecimal():  # from a table in which all values are text
        gold = int(gold)
    is_index = isinstance(gold, int | np.integer) and 0 <= gold < len(choices)
    return int(gold) if is_index else MISSING


def of_continuation(logprob: float, greedy: bool) -> Values:
    return {"perplexity": logprob, "acc": float(greedy)}


def of_whole(text: str, logprob: float) -> Values:
    """Return the log-likelihood of a text with its number of words, separated by whitespace, or of
    bytes.
    """
    words = re.split(r"\s+", text)
    size = len(text.encode())
    return {
        "word_perplexity": (logprob, len(words)),
        "byte_perplexity": (logprob, size),
        "bits_per_byte": (logprob, size),
    }


def of_written(metric: Metric, answer: Any, gold: Any) -> Any:
    """Return whether a generated answer equals one of the gold answers; for a corpus-level metric,
    return the answer and the gold answers.
    """
    golds = gold if isinstance(gold, list) else [gold]
    right = [str(each) for each in golds]
    written = str(answer)
    if metric.name != "exact_match":
        return written, right
    matches = [exact_match(written, each, **metric.options) for each in right]
    return float(any(matches))


def has_no_gold(values: Values) -> bool:
    """Return whether the gold answer of the row is not among its choices."""
    gold = values.get("gold")
    return MISSING in gold if isinstance(gold, list) else gold == MISSING


# --- metrics of all rows ---

# Maps the weights of n rows in each of R samples, (n, R), to the metric of each sample, (R,).
Weighted = Callable[[Floats], Floats]
Score = Callable[[Array, Array, Floats], float]


def summarise(
    task: TaskFile, rows: Sequence[Values], names: Mapping[str, Metric]
) -> tuple[dict[str, float | None], dict[str, float | None], dict[str, Interval]]:
    """Return the metrics by display name, their standard errors, and 95% intervals.

    The standard errors of means come from the sample standard deviation, those of other metrics
    from a bootstrap over rows.
    """
    metrics: dict[str, float | None] = {}
    errors: dict[str, float | None] = {}
    intervals: dict[str, Interval] = {}
    for name, metric in names.items():
        items = [row[name] for row in rows]
        aggregate = _aggregation(metric.aggregation, items)
        once = np.ones((len(items), 1))
        (value,) = aggregate(once)
        metrics[name] = number(value)
        if metric.aggregation == "mean":
            values = np.asarray(items, np.float64)
            errors[name], intervals[name] = _of_mean(values)
        else:
            errors[name], intervals[name] = _bootstrap(aggregate, len(items))
    return metrics, errors, intervals


def _aggregation(name: str, items: Sequence[Any]) -> Weighted:
    """Return the function that computes a metric of each sample; infinity on overflow."""
    if name == "mean":
        return _mean(items)
    if name == "perplexity":
        per_row = _mean(items)
        return lambda weights: _exp(-per_row(weights))
    if name == "weighted_perplexity":
        per_unit = _ratio(items)
        return lambda weights: _exp(-per_unit(weights))
    if name == "bits_per_byte":
        per_byte = _ratio(items)
        return lambda weights: -per_byte(weights) / math.log(2)
    if name == "brier_score":
        return _mean([_distance(gold, probabilities) for gold, probabilities in items])
    if name in ("bleu", "chrf"):
        return _translation(name, items)
    score = _f1 if name == "f1" else _mcc
    return _of_labels(score, items)


def _mean(items: Sequence[float]) -> Weighted:
    values = np.asarray(items, np.float64)  # (n,)

    def mean(weights: Floats) -> Floats:
        found: Floats = values @ weights / weights.sum(axis=0)
        return found

    return mean


def _ratio(items: Sequence[tuple[float, int]]) -> Weighted:
    """Return the sum of log-likelihoods divided by the sum of sizes."""
    logprobs, sizes = np.asarray(items, np.float64).T  # (n,) each

    def ratio(weights: Floats) -> Floats:
        total = sizes @ weights
        with np.errstate(divide="ignore", invalid="ignore"):  # if all texts are empty
            found: Floats = logprobs @ weights / total
        return found

    return ratio


def _translation(name: str, items: Sequence[tuple[str, list[str]]]) -> Weighted:
    from langue.statistics.translation import USUAL, TranslationScores

    written = [text for text, _ in items]
    references = [right for _, right in items]
    scores = TranslationScores(written, references, USUAL)
    return lambda weights: scores.measure(weights)[name]


def _of_labels(score: Score, items: Sequence[tuple[Any, Any]]) -> Weighted:
    """Return a metric of gold and predicted labels, computed for one sample at a time."""
    golds = np.asarray([gold for gold, _ in items])
    answers = np.asarray([answer for _, answer in items])

    def of_samples(weights: Floats) -> Floats:
        return np.asarray([score(golds, answers, each) for each in weights.T])

    return of_samples


def _exp(values: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.exp(values)


def _distance(gold: Any, probabilities: Floats) -> float:
    """Return the Brier score of one row: the squared distance to a probability of 1 for the gold
    choice.
    """
    right = np.zeros(len(probabilities))
    if gold != MISSING:
        right[gold] = 1.0
    squares = (probabilities - right) ** 2
    return float(squares.sum())


def _f1(golds: Array, answers: Array, weights: Floats) -> float:
    """Return the F1 of choice 1."""
    is_gold = golds == 1
    is_answer = answers == 1
    both = weights[is_gold & is_answer].sum()
    total = weights[is_gold].sum() + weights[is_answer].sum()
    return float(2 * both / total) if total else 0.0


def _mcc(golds: Array, answers: Array, weights: Floats) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(golds, answers, sample_weight=weights))


def _of_mean(values: Floats) -> tuple[float | None, Interval]:
    """Return the standard error of a mean and its 95% interval, which is exact if every value is 0
    or 1 (Clopper and Pearson 1934).
    """
    from langue.statistics.intervals import clopper_pearson

    n = len(values)
    if n < 2:
        return None, None
    error = float(values.std(ddof=1) / math.sqrt(n))
    is_binary = set(np.unique(values)) <= {0.0, 1.0}
    if is_binary:
        successes = int(values.sum())
        return error, clopper_pearson(successes, n)
    middle = float(values.mean())
    reach = 1.96 * error
    return error, (middle - reach, middle + reach)


def _bootstrap(aggregate: Weighted, n: int) -> tuple[float | None, Interval]:
    """Return the standard deviation of a metric over resampled rows, and its central 95%."""
    from langue.statistics.intervals import chunks, drawn

    if n < 2:
        return None, None
    generator = np.random.default_rng(0)
    once = np.ones(n, np.int64)
    parts = []
    for columns in chunks(n, RESAMPLES):
        weights = drawn(generator, once, columns)
        parts.append(aggregate(weights))
    found = np.concatenate(parts)
    finite = found[np.isfinite(found)]
    if len(finite) < 2:
        return None, None
    error = float(finite.std(ddof=1))
    low, high = np.percentile(finite, (2.5, 97.5))
    interval = (float(low), float(high)) if low < high else None
    return error, interval


def shown_names(task: TaskFile) -> dict[str, Metric]:
    """Return each metric by its display name: with several filters, `METRIC,FILTER`."""
    filters = [None] if task.filters is None else [each.name for each in task.filters]
    found = {}
    for metric in task.metrics:
        for name in filters:
            shown = metric.name
            if len(filters) > 1:
                shown = f"{metric.name},{name}"
            found[shown] = metric
    return found

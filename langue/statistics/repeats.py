"""Mean and spread of a metric over several runs of the same training, with an interval of the mean.

Runs with different seeds are independent, and the interval is that of Student's t. Folds are not
independent, since any two share most of their training rows; Nadeau and Bengio (2003, "Inference
for the generalization error", equation 9) therefore increase the variance, with (1/k + test rows /
training rows) in place of 1/k.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

_UPPER = 0.975  # quantile of a 95% interval


@dataclass(frozen=True)
class Spread:
    """Statistics of k values.

    deviation: standard deviation of the values, with denominator k - 1. interval: 95% interval of
    their mean.
    """

    mean: float
    deviation: float | None
    low: float
    high: float
    interval: tuple[float, float] | None  # None: a single value gives none

    def as_json(self) -> dict[str, float | list[float] | None]:
        return {
            "mean": self.mean,
            "deviation": self.deviation,
            "lowest": self.low,
            "highest": self.high,
            "interval": None if self.interval is None else list(self.interval),
        }


def spread(
    values: Sequence[float],
    overlap: float = 0.0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Spread:
    """Return mean and spread of k values.

    overlap: number of test rows for each training row if the runs share their data, as folds do; 0:
    the runs are independent. bounds: the range of possible values, to which intervals are clipped.
    """
    array = np.asarray(values, np.float64)
    k = len(array)
    mean = float(array.mean())
    if k < 2:
        return Spread(mean, None, mean, mean, None)
    deviation = float(array.std(ddof=1))
    reach = float(stdtrit(k - 1, _UPPER)) * deviation * math.sqrt(1 / k + overlap)
    interval = max(bounds[0], mean - reach), min(bounds[1], mean + reach)
    return Spread(mean, deviation, float(array.min()), float(array.max()), interval)

"""What arrives: one metric of several runs of the same training.
What leaves: its mean, its spread, and how well the mean is known.

Runs that differ in their seed are independent, and Student's t says how well their mean is known.
Folds are not: any two share most of their training rows. Nadeau and Bengio (2003, "Inference for
the generalization error", equation 9) widen the variance for it: (1/k + test rows / training rows)
in the place of 1/k.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

_UPPER = 0.975  # of a 95% interval


@dataclass(frozen=True)
class Spread:
    """Of k values. deviation: of the values, with k - 1 below; interval: 95%, of their mean."""

    mean: float
    deviation: float | None
    low: float
    high: float
    interval: tuple[float, float] | None  # None: one value says nothing of it

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
    """Mean and spread of k values. overlap: test rows for each training row where the runs share
    their data, as folds do; 0: they are independent. bounds: of what a value can be, beyond which
    no interval goes.
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

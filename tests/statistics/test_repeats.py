"""The spread of several runs, against the slow way."""

import numpy as np
import pytest
from scipy import stats

from langue.statistics import rouge, translation
from langue.statistics.intervals import bounds
from langue.statistics.repeats import spread


def test_independent_runs_have_students_interval():
    values = [0.81, 0.84, 0.79, 0.86]
    found = spread(values)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.interval == pytest.approx(expected)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert (found.low, found.high) == (0.79, 0.86)


def test_folds_have_the_wider_interval_of_nadeau_and_bengio():
    values = [0.81, 0.84, 0.79, 0.86, 0.8]
    scale = np.sqrt(np.var(values, ddof=1) * (1 / 5 + 1 / 4))  # 5 folds: 1 row judged to 4 trained
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=scale)
    assert spread(values, overlap=0.25).interval == pytest.approx(expected)


def test_one_run_has_no_spread_and_an_interval_stays_within_bounds():
    assert spread([0.5]).interval is None and spread([0.5]).deviation is None
    low, high = spread([0.9, 1.0], bounds=bounds("accuracy")).interval
    assert high == 1.0 and low == pytest.approx(max(0, 0.95 - 12.706 * 0.05), abs=1e-3)
    for name in (*translation.METRICS, *rouge.METRICS):
        assert bounds(name) == (0, 100)
    assert bounds("mcc") == (-1, 1) and bounds("loss") == (0, float("inf"))

"""How good a model is: metrics with intervals, baselines, comparisons, reports."""

"""Evaluation of models: metrics with intervals, baselines, comparisons, and reports."""

"""Statistics for evaluation, independent of tasks: metrics of weighted examples, intervals, paired
tests, and the bag-of-words baseline.
"""

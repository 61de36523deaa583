"""What tasks judge with, without knowing of tasks: metrics of weighted examples, intervals, paired
tests, and the bag of words that models are compared with.
"""

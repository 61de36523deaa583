"""From texts to batches: encode, pack to a token budget, load in an order that is a function of
(seed, epoch).
"""

"""Documents held in memory, as tests need them in the place of a corpus on disk."""

import numpy as np


class Memory:
    def __init__(self, documents, weights=None):
        self.documents = [np.asarray(each, np.int32) for each in documents]
        self.weights = weights or [("all", 1.0, 0, len(self.documents))]

    @property
    def lengths(self):
        return np.asarray([len(each) for each in self.documents], np.int64)

    @property
    def n_bytes(self):
        return 4 * int(self.lengths.sum())

    lost_bytes = 0.0

    @property
    def sources(self):
        return self.weights

    def tokens(self, documents, begin, length):
        assert all(
            b + n <= len(self.documents[d])
            for d, b, n in zip(documents, begin, length, strict=True)
        )
        parts = [
            self.documents[d][b : b + n] for d, b, n in zip(documents, begin, length, strict=True)
        ]
        return np.concatenate([np.zeros(0, np.int32), *parts])

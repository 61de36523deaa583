"""Training of the used embedding rows only: takes a model and the texts of its training; trains
only the rows whose tokens occur in these texts.

The gradient of any other row is always zero. Training would still clear that gradient, measure it,
keep two moments of it and add nothing to the row, at every step. A batch of sentences contains a
few hundred of thirty thousand rows, or of two hundred and fifty thousand, in which case this may
take half of a step. So the optimizer only gets the rows used by the training and held-out texts.
(AdamW's weight decay, which does not depend on gradients, would shrink the other rows; here they
stay as published.)
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from langue.data.batch import Examples
from langue.model.transformer import Transformer, TrimmedEmbedding


@contextmanager
def trim_embedding(body: Transformer, *splits: Examples | None) -> Iterator[None]:
    """Reduce the body's embedding to the rows that the splits use; afterwards restore all rows,
    with the trained ones updated. The body must not read other texts inside.
    """
    table = body.token
    assert isinstance(table, nn.Embedding)
    held = np.zeros(table.num_embeddings, bool)
    held[0] = True  # batches are padded with it, but nothing reads the padding
    for each in splits:
        if each is not None:
            held[each.tokens] = True
    used = torch.from_numpy(np.flatnonzero(held))
    if len(used) == table.num_embeddings:
        yield
        return
    rows = TrimmedEmbedding(table, used)
    body.token = rows  # type: ignore[assignment]
    try:
        yield
    finally:
        body.token = table
    with torch.no_grad():
        table.weight[used] = rows.weight.to(table.weight.device)
    table.to(rows.weight.device)

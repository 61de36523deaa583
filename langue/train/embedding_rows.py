"""What arrives: a model and the texts of its training. What leaves: the same model, trained on the
rows of its embedding that these texts hold.

A row that no text holds has no gradient, ever: all that training does to it is to clear that
gradient, measure it, keep two moments of it and move it by nothing, in every step. A batch of
sentences holds some hundred rows of thirty thousand, or of two hundred and fifty thousand, and then
this may be half of what a step takes. So the optimiser is given the rows in use alone, of the texts
that are learnt from and of those held out. (AdamW's decay, which knows no gradient, would draw the
other rows towards zero; they stay as they were published.)
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
    """The body with the rows of its embedding that the splits hold; afterwards with all of them,
    trained where they were. It reads no other text in between.
    """
    table = body.token
    assert isinstance(table, nn.Embedding)
    held = np.zeros(table.num_embeddings, bool)
    held[0] = True  # what a batch is filled up with, and nobody reads
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

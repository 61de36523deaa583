"""What arrives: a model's weights after each step. What leaves: their exponential moving average
(Polyak and Juditsky 1992; as `ema` in the field): smoother than the last step, and mostly
better."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from langue.train.sharding import local_shard


class EMA:
    """a <- d a + (1 - d) w, with d = min(decay, (1 + n) / (10 + n)) at the n-th update, so that the
    start is forgotten.

    decay 0: no average is kept, and every method does nothing.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        kept = {"updates": torch.zeros(())} if decay else {}
        named = model.named_parameters() if decay else ()
        self.weights: dict[str, Tensor] = kept | {
            name: weight.detach().clone() for name, weight in named
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        if not self.decay:
            return
        number = float(self.weights["updates"].add_(1))
        share = 1 - min(self.decay, (1 + number) / (10 + number))
        named = dict(model.named_parameters())
        torch._foreach_lerp_(
            [local_shard(self.weights[name]) for name in named],
            [local_shard(w) for w in named.values()],
            share,
        )

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """The averaged weights as the model's."""
        if self.decay:
            for name, weight in model.named_parameters():
                weight.copy_(self.weights[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights, and afterwards with its own."""
        kept = (
            {name: weight.detach().clone() for name, weight in model.named_parameters()}
            if self.decay
            else {}
        )
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    if self.decay:
                        weight.copy_(kept[name])

"""What arrives: the keys and values of new tokens.
What leaves: those of all tokens so far, so that none is computed twice.

As ragged as the batch: each group of n equally long sequences has buffers of its own, and grows
with them.
"""

import torch
from torch import Tensor

from langue.model.attention import LengthBuckets


class Cache:
    """Keys and values of every layer, made for one batch's groups; `capacity` bounds the tokens of
    a sequence."""

    def __init__(self, n_groups: int, capacity: int) -> None:
        self.capacity = capacity
        self.lengths = [0] * n_groups  # tokens that each group's sequences have so far
        # a layer's keys and values of the encoder's output
        self.encoder_states: dict[int, tuple[Tensor, Tensor]] = {}
        # (layer, group) -> (2, n, capacity, G, K)
        self._buffers: dict[tuple[int, int], Tensor] = {}

    def extend(self, layer: int, group: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add k and v (n, t, G, K) of a layer's new tokens; returns all of them, each (n, length +
        t, G, K)."""
        n, t, heads, width = k.shape
        begin = self.lengths[group]
        buffer = self._buffers.get((layer, group))
        if buffer is None:
            buffer = k.new_empty(2, n, self.capacity, heads, width)
            self._buffers[layer, group] = buffer
        buffer[0, :, begin : begin + t] = k
        buffer[1, :, begin : begin + t] = v
        return buffer[0, :, : begin + t], buffer[1, :, : begin + t]

    def advance(self, groups: LengthBuckets) -> None:
        """All layers have seen the new tokens."""
        self.lengths = [length + t for length, (_, _, t) in zip(self.lengths, groups, strict=True)]

    def positions(self, groups: LengthBuckets, device: torch.device) -> Tensor:
        """Where the new tokens stand in their sequences, (T,)."""
        ranges = zip(self.lengths, groups, strict=True)
        return torch.cat(
            [
                torch.arange(length, length + t, device=device).repeat(n)
                for length, (_, n, t) in ranges
            ]
        )

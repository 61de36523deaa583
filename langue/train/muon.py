"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): takes gradients of
matrices; makes steps in which all directions of a matrix have the same size, by orthogonalizing the
momentum of the gradient.

    M <- mu M + (1 - mu) G,    W <- W - lr s NewtonSchulz(mu M + (1 - mu) G)

The factor s = 0.2 sqrt(max(rows, columns)) makes its steps as long as AdamW's, so that both use the
same learning rate (Liu et al. 2025, arXiv:2502.16982). `torch.optim.Muon` does the same for one
matrix at a time, and always iterates in bf16, which is fifty times slower than fp32 on processors
without bf16 instructions. Here matrices of equal shape are batched, and the iteration uses bf16
only if the hardware supports it. For a weight that is sharded (fsdp, tp), every process gathers the
whole update, since a part of a matrix cannot be orthogonalized on its own, and applies its own part
of the result.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from langue.runtime import has_bf16
from langue.train.sharding import gather_full, local_shard, shard_like

# Jordan's coefficients: the steepest slope at 0, and results from 0.7 to 1.2 after five steps
QUINTIC = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return approximately U V^T of the singular value decomposition U S V^T of each matrix (B, n,
    m); the singular values of the result are from 0.7 to 1.2.
    """
    a, b, c = QUINTIC
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """The Muon optimizer; groups contain matrices.

    `parts` of a group: the numbers of rows of the matrices that are stacked in each of its weights.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "parts": ()})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[Tensor, int, Tensor]]] = defaultdict(list)
            # updates of each weight's parts, by part number
            steps: dict[Tensor, dict[int, Tensor]] = defaultdict(dict)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                update = gather_full(self._momentum(weight, group["momentum"]), weight)
                local_shard(weight).mul_(1 - group["lr"] * group["weight_decay"])
                sizes = list(group["parts"]) or [len(weight)]
                for number, part in enumerate(torch.split(update, sizes)):
                    shapes[part.shape].append((weight, number, part))
            for shape, found in shapes.items():
                first_weight, _, first_part = found[0]
                dtype = torch.bfloat16 if has_bf16(first_weight.device.type) else torch.float32
                stacked = torch.stack([part for _, _, part in found])  # (B, n, m)
                made = orthogonalise(stacked, dtype).to(first_part.dtype)
                made = made * (0.2 * max(shape) ** 0.5)
                for (weight, number, _), step in zip(found, made, strict=True):
                    steps[weight][number] = step
            for weight, parts in steps.items():
                step = parts[0]
                if len(parts) > 1:
                    step = torch.cat([parts[number] for number in range(len(parts))])
                local_shard(weight).add_(shard_like(step, weight), alpha=-group["lr"])

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        """Return the Nesterov momentum of a weight's gradient, and update its running mean."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(buffer, momentum)

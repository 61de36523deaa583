"""What arrives: a model and the rates. What leaves: AdamW, or Muon beside it, over weights that
share rate and decay.

AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101. Layer-wise decay of the rate: Howard and Ruder
2018 (ULMFiT), arXiv:1801.06146: a layer's rate is that of the one above it times `layer_decay`.
Muon: see muon.py.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from langue.settings.sections import TrainSettings
from langue.train.muon import Muon
from langue.train.sharding import gather_full, is_dtensor, local_shard

# what each remembers
ADAMW = frozenset(["step", "exp_avg", "exp_avg_sq"])
MUON = frozenset(["momentum_buffer"])
# Muon's or not, whether processes share it, rate relative to the others', decay, parts
Group = tuple[bool, bool, float, float, tuple[int, ...]]


def depth(name: str, n_layers: int) -> int:
    """0 for the embeddings and what else stands before the blocks, i + 1 for block i, n_layers + 1
    for what follows."""
    block = re.search(r"body\.(?:decoder\.)?blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    before = r"body\.(decoder\.)?(token|position|segment|embedding_norm|widen|bias)\b"
    return 0 if re.match(before, name) else n_layers + 1


class Optimizers:
    """One or two optimisers as if they were one."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def set_rate(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * group["scale"]

    def state(self) -> Iterator[tuple[Tensor, dict[str, Any], frozenset[str]]]:
        """Each weight with the dictionary of what its optimiser remembers of it, and what it does
        once it has moved."""
        for part in self.parts:
            for group in part.param_groups:
                for weight in group["params"]:
                    yield weight, part.state[weight], MUON if isinstance(part, Muon) else ADAMW


def make_optimizer(model: nn.Module, settings: TrainSettings, n_layers: int) -> Optimizers:
    """Matrices and embeddings decay, biases and norms do not; Muon, where it is wished, takes the
    blocks' matrices."""
    groups: dict[Group, list[nn.Parameter]] = defaultdict(list)
    for name, weight in model.named_parameters():
        scale = settings.layer_decay ** (n_layers + 1 - depth(name, n_layers))
        decay = settings.weight_decay if weight.ndim >= 2 else 0.0
        muon = settings.optimizer == "muon" and weight.ndim == 2 and ".blocks." in name
        stacked = 3 if name.endswith(".qkv.weight") else 2 if name.endswith(".kv.weight") else 0
        parts = (len(weight) // stacked,) * stacked if muon and stacked else ()
        groups[muon, is_dtensor(weight), scale, decay, parts].append(weight)
    adam = [
        {"params": w, "scale": s, "weight_decay": d}
        for (muon, _, s, d, _), w in groups.items()
        if not muon
    ]
    made: list[torch.optim.Optimizer] = []
    if adam:
        made.append(
            torch.optim.AdamW(
                adam, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
            )
        )
    matrices = [
        {"params": w, "scale": s * settings.muon_scale, "weight_decay": d, "parts": p}
        for (muon, _, s, d, p), w in groups.items()
        if muon
    ]
    if matrices:
        made.append(Muon(matrices, lr=settings.lr, momentum=settings.momentum))
    return Optimizers(made)


def clip_gradients(model: nn.Module, largest: float) -> float:
    """Scale all gradients so that their joint norm is at most `largest` (0: only measure). Returns
    the norm before."""
    gradients = [w.grad for w in model.parameters() if w.grad is not None]
    kinds = [[g for g in gradients if is_dtensor(g) == shared] for shared in (False, True)]
    norm = math.hypot(
        *(float(gather_full(torch.nn.utils.get_total_norm(kind))) for kind in kinds if kind)
    )
    if largest and norm > largest:
        torch._foreach_mul_(
            [local_shard(gradient) for gradient in gradients], largest / (norm + 1e-6)
        )
    return norm

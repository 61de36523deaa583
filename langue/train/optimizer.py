"""Optimization: takes gradients and the number of the step; updates the weights, and their moving
average.

Contains the learning rate schedule, gradient clipping, AdamW (or Muon together with it) with
parameter groups of equal rate and decay, and the exponential moving average of the weights.

AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101. Layer-wise learning rate decay: Howard and
Ruder 2018 (ULMFiT), arXiv:1801.06146: a layer's rate is that of the layer above times
`layer_decay`. Muon: see muon.py.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from langue.settings.sections import TrainSettings
from langue.train.sharding import is_dtensor, local_shard

# the state tensors of each optimizer
ADAMW = frozenset(["step", "exp_avg", "exp_avg_sq"])
MUON = frozenset(["momentum_buffer"])
# (uses Muon, is sharded, relative rate, weight decay, parts)
Group = tuple[bool, bool, float, float, tuple[int, ...]]


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Return the learning rate of step `step` (from 0) of `total`."""
    return settings.lr * factor(step, total, settings)


def factor(step: int, total: int, settings: TrainSettings) -> float:
    """Return the fraction of the peak learning rate at a step (from 0).

    After a linear warmup: linear or cosine decay (Loshchilov and Hutter 2017, arXiv:1608.03983),
    constant, or wsd: constant, then a linear decay over the last `decay` of the steps (Hu et al.
    2024, arXiv:2404.06395). Decays end at `min_lr_ratio` of the peak.
    """
    kind = settings.schedule
    final = settings.min_lr_ratio
    rising = max(1, round(total * settings.warmup)) if settings.warmup else 0
    if step < rising:
        return (step + 1) / rising
    if kind == "constant":
        return 1.0
    begin = max(rising, total - max(1, round(total * settings.decay))) if kind == "wsd" else rising
    progress = min(1.0, max(0, step - begin) / max(1, total - begin))
    left = 0.5 * (1.0 + math.cos(math.pi * progress)) if kind == "cosine" else 1.0 - progress
    return final + (1.0 - final) * left


def depth(name: str, n_layers: int) -> int:
    """Return the depth of a weight: 0 for the embeddings and all else before the blocks, i + 1 for
    block i, n_layers + 1 for all that follows.
    """
    block = re.search(r"body\.(?:decoder\.)?blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    before = r"body\.(decoder\.)?(token|position|segment|embedding_norm|widen|bias)\b"
    return 0 if re.match(before, name) else n_layers + 1


def trained_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the names and weights that are trained, which are all that are not frozen."""
    return ((name, w) for name, w in model.named_parameters() if w.requires_grad)


class Optimizers:
    """One or two optimizers with the interface of a single one."""

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
        """Yield each weight with its optimizer state, and the keys of that state after the first
        step.
        """
        for part in self.parts:
            for group in part.param_groups:
                for weight in group["params"]:
                    adam = isinstance(part, torch.optim.AdamW)
                    yield weight, part.state[weight], ADAMW if adam else MUON


def make_optimizer(model: nn.Module, settings: TrainSettings, n_layers: int) -> Optimizers:
    """Create the optimizers. Matrices and embeddings have weight decay, biases and norms have none;
    Muon, if chosen, gets the matrices of the blocks. A module's `least_rate` is the minimum peak
    rate of its weights.
    """
    groups: dict[Group, list[nn.Parameter]] = defaultdict(list)
    least = {
        name: float(module.least_rate)
        for name, module in model.named_modules()
        if hasattr(module, "least_rate")
    }
    for name, weight in trained_parameters(model):
        scale = settings.layer_decay ** (n_layers + 1 - depth(name, n_layers))
        scale = max(scale, least.get(name.rpartition(".")[0], 0.0) / settings.lr)
        decay = settings.weight_decay if weight.ndim >= 2 else 0.0
        uses_muon = settings.optimizer == "muon" and weight.ndim == 2 and ".blocks." in name
        parts = _stacked_rows(name, len(weight)) if uses_muon else ()
        groups[uses_muon, is_dtensor(weight), scale, decay, parts].append(weight)
    adamw_groups = []
    muon_groups = []
    for (uses_muon, _, scale, decay, parts), weights in groups.items():
        group: dict[str, Any] = {"params": weights, "scale": scale, "weight_decay": decay}
        if uses_muon:
            group["scale"] = scale * settings.muon_scale
            group["parts"] = parts
            muon_groups.append(group)
        else:
            adamw_groups.append(group)
    made: list[torch.optim.Optimizer] = []
    if adamw_groups:
        made.append(
            torch.optim.AdamW(
                adamw_groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
            )
        )
    if muon_groups:
        from langue.train.muon import Muon

        made.append(Muon(muon_groups, lr=settings.lr, momentum=settings.momentum))
    return Optimizers(made)


def _stacked_rows(name: str, rows: int) -> tuple[int, ...]:
    """Return the numbers of rows of the matrices stacked in a weight; empty for a single matrix."""
    if name.endswith(".qkv.weight"):
        return (rows // 3,) * 3
    if name.endswith(".kv.weight"):
        return (rows // 2,) * 2
    return ()


def clip_gradients(gradients: Sequence[Tensor], largest: float) -> float:
    """Scale all gradients so that their joint norm is at most `largest` (0: only measure it).

    Returns the norm before scaling.
    """
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if largest and norm > largest:
        torch._foreach_mul_(list(gradients), largest / (norm + 1e-6))
    return norm


class EMA:
    """The exponential moving average of a model's weights (Polyak and Juditsky 1992), which is
    smoother than the last step and usually better.

    a <- d a + (1 - d) w, with d = min(decay, (1 + n) / (10 + n)) at the n-th update, so that the
    initial weights are forgotten. decay 0: there is no average, and all methods do nothing.
    divided: whether the weights are sharded.
    """

    def __init__(self, model: nn.Module, decay: float, divided: bool = False) -> None:
        self.decay = decay
        self.divided = divided
        kept = {"updates": torch.zeros(())} if decay else {}
        named = trained_parameters(model) if decay else ()
        self.weights: dict[str, Tensor] = kept | {
            name: weight.detach().clone() for name, weight in named
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        if not self.decay:
            return
        number = float(self.weights["updates"].add_(1))
        share = 1 - min(self.decay, (1 + number) / (10 + number))
        named = dict(trained_parameters(model))
        averages = [self.weights[name] for name in named]
        weights: list[Tensor] = list(named.values())
        if self.divided:
            averages = [local_shard(average) for average in averages]
            weights = [local_shard(weight) for weight in weights]
        torch._foreach_lerp_(averages, weights, share)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Copy the averaged weights to the model."""
        if self.decay:
            for name, weight in trained_parameters(model):
                weight.copy_(self.weights[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Use the averaged weights inside, and restore the model's own afterwards."""
        kept = (
            {name: weight.detach().clone() for name, weight in trained_parameters(model)}
            if self.decay
            else {}
        )
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in trained_parameters(model):
                    if self.decay:
                        weight.copy_(kept[name])

"""What arrives: a model and the rates. What leaves: AdamW over groups of weights that share rate and decay.

AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101. Layer-wise decay of the rate: Howard and Ruder 2018 (ULMFiT),
arXiv:1801.06146: a layer's rate is that of the one above it times `layer_decay`.
"""

import re
from collections import defaultdict

import torch
from torch import nn

from langue.settings import TrainSettings


def depth(name: str, n_layers: int) -> int:
    """0 for the embeddings, i + 1 for block i, n_layers + 1 for what follows the blocks."""
    block = re.search(r"body\.blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return 0 if re.match(r"body\.(token|position|segment|embedding_norm)\b", name) else n_layers + 1


def make_optimizer(model: nn.Module, settings: TrainSettings, n_layers: int) -> torch.optim.AdamW:
    """Matrices and embeddings decay, biases and norms do not. Each group's `scale` multiplies the scheduled rate."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, weight in model.named_parameters():
        scale = settings.layer_decay ** (n_layers + 1 - depth(name, n_layers))
        decay = settings.weight_decay if weight.ndim >= 2 else 0.0
        groups[scale, decay].append(weight)
    return torch.optim.AdamW(
        [{"params": w, "scale": scale, "weight_decay": decay} for (scale, decay), w in groups.items()],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def clip_gradients(model: nn.Module, largest: float) -> float:
    """Scale all gradients so that their joint norm is at most `largest` (0: only measure). Returns the norm before."""
    gradients = [w.grad for w in model.parameters() if w.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if largest and norm > largest:
        torch._foreach_mul_(gradients, largest / (norm + 1e-6))
    return norm

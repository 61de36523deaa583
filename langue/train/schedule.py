"""What arrives: a step's number. What leaves: the share of the peak learning rate that it takes.

After a linear warm-up: linear or cosine decay (Loshchilov and Hutter 2017, arXiv:1608.03983), none,
or wsd: constant, and a linear fall over the last `decay` of the steps (Hu et al. 2024,
arXiv:2404.06395).
"""

import math

from langue.settings.sections import TrainSettings


def factor(step: int, total: int, settings: TrainSettings) -> float:
    """step counts from 0. The decays end at `final` of the peak."""
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

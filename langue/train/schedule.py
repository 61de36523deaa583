"""What arrives: a step's number. What leaves: the share of the peak learning rate that it takes."""

import math


def factor(step: int, total: int, kind: str, warmup: float) -> float:
    """Linear warm-up over `warmup` of the steps, then linear or cosine decay to zero, or none. step counts from 0."""
    rising = max(1, round(total * warmup)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    if kind == "constant":
        return 1.0
    progress = min(1.0, (step - rising) / max(1, total - rising))
    return 1.0 - progress if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))

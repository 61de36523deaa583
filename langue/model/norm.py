"""What arrives: hidden states (T, D). What leaves: each row normalised, with a learned scale (and shift)."""

from torch import nn

from langue.model.config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450) or RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    if config.norm == "rms":
        return nn.RMSNorm(config.dim, eps=config.norm_eps)
    return nn.LayerNorm(config.dim, eps=config.norm_eps, bias=config.bias)

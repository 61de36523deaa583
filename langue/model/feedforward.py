"""What arrives: hidden states (T, D). What leaves: the same shape, each token transformed by itself.

FFN(x) = act(x W1 + b1) W2 + b2 (Vaswani et al. 2017, eq. 2); gated: (act(x W1) * x W3) W2 (Shazeer 2020).
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from langue.model.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # Hendrycks and Gimpel 2016, arXiv:1606.08415, exact
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.dim, config.ffn_dim, bias=config.bias)
        self.gate = nn.Linear(config.dim, config.ffn_dim, bias=config.bias) if config.gated else None
        self.down = nn.Linear(config.ffn_dim, config.dim, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.up(x) if self.gate is None else self.gate(x))
        if self.gate is not None:
            hidden = hidden * self.up(x)
        out: Tensor = self.down(hidden)
        return out

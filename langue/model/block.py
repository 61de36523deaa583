"""What arrives: hidden states (T, D) of a flat batch. What leaves: the same shape, after attention and feed-forward."""

from torch import Tensor, nn

from langue.model.attention import Groups, attention
from langue.model.config import ModelConfig
from langue.model.dropout import Dropout
from langue.model.feedforward import FeedForward
from langue.model.norm import make_norm


class SelfAttention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.bias)
        self.out = nn.Linear(config.dim, config.dim, bias=config.bias)

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        qkv = self.qkv(x).view(x.shape[0], 3, self.n_heads, -1)  # (T, 3, H, K)
        mixed = attention(qkv, groups, self.dropout if self.training else 0.0)
        out: Tensor = self.out(mixed)
        return out


class Block(nn.Module):
    """post: x = norm(x + sublayer(x)), as first published. pre: x = x + sublayer(norm(x)), Xiong et al. 2020."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre = config.norm_place == "pre"
        self.attention = SelfAttention(config)
        self.attention_norm = make_norm(config)
        self.feedforward = FeedForward(config)
        self.feedforward_norm = make_norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), groups))
            return x + self.dropout(self.feedforward(self.feedforward_norm(x)))  # type: ignore[no-any-return]
        x = self.attention_norm(x + self.dropout(self.attention(x, groups)))
        out: Tensor = self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        return out

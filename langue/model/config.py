"""What arrives: numbers and words about an architecture.
What leaves: `ModelConfig`, flat and frozen, all axes orthogonal.

A model family is data: everything that tells one published architecture from another is an axis here.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

from langue.errors import ModelError

Norm = Literal["layer", "rms"]
NormPlace = Literal["post", "pre"]
Position = Literal["learned", "sinusoidal", "none"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]


@dataclass(frozen=True)
class ModelConfig:
    """One Transformer encoder (Vaswani et al. 2017, arXiv:1706.03762). Sizes are counts; dropouts are probabilities."""

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    ffn_dim: int
    max_length: int  # longest sequence the positions can express, in tokens
    norm: Norm = "layer"
    norm_place: NormPlace = "post"  # post: after each residual sum, as first published; pre: before each sublayer
    norm_eps: float = 1e-12
    position: Position = "learned"
    position_offset: int = 0  # row of the position table that the first token takes
    activation: Activation = "gelu"
    gated: bool = False  # GLU: act(x W1) * (x W3), Shazeer 2020, arXiv:2002.05202
    bias: bool = True
    n_segments: int = 0  # 0: no segment embedding
    embedding_norm: bool = True  # a norm right after the embedding sum
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if get_origin(field.type) is Literal and value not in get_args(field.type):
                raise ModelError(
                    f"config: {field.name} = {value!r} is not known", do=f"known are {', '.join(get_args(field.type))}"
                )
            if field.type is int and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise ModelError(f"config: {field.name} = {value!r} is not a count")
        for name in ("vocab_size", "dim", "n_heads", "ffn_dim", "max_length"):
            if getattr(self, name) < 1:
                raise ModelError(f"config: {name} = {getattr(self, name)} must be at least 1")
        if self.dim % self.n_heads:
            raise ModelError(f"config: dim = {self.dim} does not divide into n_heads = {self.n_heads}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def matrix_parameters(self) -> int:
        """Parameters of the matrix products that every token passes, the embedding excluded."""
        return self.n_layers * self.dim * (4 * self.dim + (3 if self.gated else 2) * self.ffn_dim)

    def forward_flops(self, lengths: list[int]) -> int:
        """Floating-point operations of the matrix products of one forward pass over sequences of these lengths."""
        attention = self.n_layers * 4 * self.dim * sum(length * length for length in lengths)
        return 2 * self.matrix_parameters * sum(lengths) + attention

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

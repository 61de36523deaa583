"""What arrives: each token's place in its own sequence, positions (T,). What leaves: vectors (T, D)
to add to the embedding, rotations of queries and keys, or biases (H, S, S) on scores."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.model.attention import LengthBuckets
from langue.model.config import ModelConfig

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each (T, R / 2)


class Sinusoidal(nn.Module):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(the same): Vaswani et al. 2017, section
    3.5.

    halves: all sines first, then all cosines, as Marian has it.
    """

    def __init__(self, length: int, dim: int, halves: bool = False) -> None:
        super().__init__()
        # On the CPU also while the model is drawn up on the meta device: no file holds these
        # numbers.
        steps = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")
        rates = torch.exp(-math.log(10_000.0) * steps / dim)
        angles = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] * rates
        table = torch.zeros(length, dim, device="cpu")
        sines = slice(0, (dim + 1) // 2) if halves else slice(0, None, 2)
        cosines = slice((dim + 1) // 2, None) if halves else slice(1, None, 2)
        table[:, sines] = angles.sin().float()
        table[:, cosines] = angles.cos()[:, : dim // 2].float()
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return cast(Tensor, self.table)[positions]


def make_position(config: ModelConfig, dim: int) -> nn.Module | None:
    length = config.max_length + config.position_offset
    if config.position == "learned":
        return nn.Embedding(length, dim)
    if config.position in ("sinusoidal", "sinusoidal_halves"):
        return Sinusoidal(length, dim, halves=config.position == "sinusoidal_halves")
    return None


class Rotary(nn.Module):
    """Pairs of a head's elements turn by position * rate_i, rate_i = base^(-2i/R) (Su et al. 2021,
    arXiv:2104.09864).

    Element i is paired with i + R/2. Published ways to stretch the context change the rates;
    `dynamic` changes the base with the length of each sequence beyond `rotary_length`.
    """

    def __init__(self, config: ModelConfig, local: bool = False) -> None:
        super().__init__()
        own = local and config.rotary_local_base > 0
        self.size = config.n_rotary_dims
        self.base = config.rotary_local_base if own else config.rotary_base
        self.scaling = "none" if own else config.rotary_scaling
        self.factor = config.rotary_factor
        self.length = config.rotary_length or config.max_length
        self.amplitude = 1.0 if own else config.rotary_amplitude
        rates = _rates(self.base, self.size)
        if self.scaling == "linear":
            rates = rates / self.factor
        elif self.scaling == "llama3":
            rates = _llama3(rates, self.length, config)
        elif self.scaling == "yarn":
            rates = _yarn(rates, self.base, self.length, config)
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, positions: Tensor, groups: LengthBuckets) -> Rotation:
        """positions (T,) -> cosines and sines (T, R / 2), float32; groups cover those tokens that
        are in sequences."""
        rates = cast(Tensor, self.rates)
        if self.scaling == "dynamic":
            lengths = torch.cat(
                [
                    positions[o : o + n * t].view(n, t)[:, -1:].expand(n, t).flatten()
                    for o, n, t in groups
                ]
            )
            lengths = F.pad(lengths, (0, len(positions) - len(lengths)))
            stretch = self.factor * (lengths + 1).clamp(min=self.length) / self.length - (
                self.factor - 1
            )
            bases = self.base * stretch ** (self.size / (self.size - 2))  # (T,)
            rates = 1.0 / bases[:, None] ** (
                torch.arange(0, self.size, 2, device=positions.device) / self.size
            )
        angles = positions[:, None].float() * rates
        return angles.cos() * self.amplitude, angles.sin() * self.amplitude


def _rates(base: float, size: int) -> Tensor:
    return 1.0 / base ** (torch.arange(0, size, 2, device="cpu").float() / size)


def _llama3(rates: Tensor, length: int, config: ModelConfig) -> Tensor:
    """Llama 3.1, arXiv:2407.21783: slow rates divided by the factor, fast ones kept, a ramp
    between."""
    turns = length * rates / (2 * math.pi)
    low = config.rotary_low
    high = config.rotary_high
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return rates * keep + rates / config.rotary_factor * (1 - keep)


def _yarn(rates: Tensor, base: float, length: int, config: ModelConfig) -> Tensor:
    """YaRN, Peng et al. 2023, arXiv:2309.00071: as above, with the ramp over the index of the
    rate."""
    size = 2 * len(rates)

    def index(turns: float) -> float:
        return size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(index(config.rotary_high)), 0)
    high = min(math.ceil(index(config.rotary_low)), size - 1)
    ramp = ((torch.arange(len(rates), device="cpu").float() - low) / (high - low or 0.001)).clamp(
        0, 1
    )
    return rates / config.rotary_factor * ramp + rates * (1 - ramp)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn the first R elements of each head of x (T, H, K)."""
    cos, sin = (part[:, None, :] for part in rotation)  # (T, 1, R / 2)
    half = cos.shape[-1]
    first = x[..., :half].float()
    second = x[..., half : 2 * half].float()
    rest = x[..., 2 * half :]
    rotated = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(
        x.dtype
    )
    return torch.cat([rotated, rest], dim=-1) if rest.shape[-1] else rotated


class RelativeBias(nn.Module):
    """T5's learned bias on each head's scores by bucketed distance (Raffel et al. 2019,
    arXiv:1910.10683)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.buckets = config.relative_buckets
        self.distance = config.relative_distance
        self.causal = config.causal
        self.table = nn.Embedding(self.buckets, config.n_heads)

    def forward(self, length: int) -> Tensor:
        """(H, S, S): near distances have a bucket each, far ones share buckets that grow as their
        logarithm."""
        places = torch.arange(length, device=self.table.weight.device)
        ahead = places[None, :] - places[:, None]  # key minus query
        buckets = self.buckets if self.causal else self.buckets // 2
        side = torch.zeros_like(ahead) if self.causal else (ahead > 0).long() * buckets
        distance = (-ahead).clamp(min=0) if self.causal else ahead.abs()
        exact = buckets // 2
        ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.distance / exact)
        far = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
        bucket = side + torch.where(distance < exact, distance, far)
        bias: Tensor = self.table(bucket).permute(2, 0, 1)
        return bias


class Alibi(nn.Module):
    """-m_h |i - j| on each head's scores, m_h a geometric series (Press et al. 2021,
    arXiv:2108.12409)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        power = 2 ** math.floor(math.log2(config.n_heads))
        slopes = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
        slopes += [2.0 ** (-4 * (2 * i + 1) / power) for i in range(config.n_heads - power)]
        self.register_buffer("slopes", torch.tensor(slopes, device="cpu"), persistent=False)

    def forward(self, length: int) -> Tensor:
        places = torch.arange(length, device=cast(Tensor, self.slopes).device)
        return -cast(Tensor, self.slopes)[:, None, None] * (places[None, :] - places[:, None]).abs()


def make_bias(config: ModelConfig) -> nn.Module | None:
    if config.position == "relative":
        return RelativeBias(config)
    return Alibi(config) if config.position == "alibi" else None

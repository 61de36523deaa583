"""Positions: take each token's position in its own sequence (T,); return vectors (T, D) to add to
the embedding, rotations of queries and keys, biases (H, S, S) of scores, or embeddings of distances
(2 S, D).
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from langue.model.attention import LengthBuckets
from langue.model.config import ModelConfig
from langue.model.layers import make_norm

Rotation = tuple[Tensor, Tensor]  # cosines and sines, (T, R / 2) each


class Sinusoidal(nn.Module):
    """PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D)): Vaswani et al. 2017,
    section 3.5.

    halves: all sines first, then all cosines, as in Marian. slowest: the last frequency is exactly
    1 / 10000, as in fairseq.
    """

    def __init__(self, length: int, dim: int, halves: bool = False, slowest: bool = False) -> None:
        super().__init__()
        # On the CPU even if the model is created on the meta device, since no file contains these
        # numbers.
        positions = torch.arange(length, dtype=torch.float64, device="cpu")
        steps = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")
        rates = torch.exp(-math.log(10_000.0) * steps / (dim - 2 if slowest else dim))
        angles = positions[:, None] * rates  # (length, ceil(D / 2))
        n_sines = (dim + 1) // 2
        n_cosines = dim // 2
        if halves:
            sines = slice(0, n_sines)
            cosines = slice(n_sines, None)
        else:
            sines = slice(0, None, 2)
            cosines = slice(1, None, 2)
        table = torch.zeros(length, dim, device="cpu")
        table[:, sines] = angles.sin().float()
        table[:, cosines] = angles.cos()[:, :n_cosines].float()
        self.register_buffer("table", table, persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return cast(Tensor, self.table)[positions]


def make_position(config: ModelConfig, dim: int) -> nn.Module | None:
    length = config.max_length + config.position_offset
    if config.position == "learned":
        return nn.Embedding(length, dim)
    if config.position.startswith("sinusoidal"):
        fairseq = config.position == "sinusoidal_fairseq"
        return Sinusoidal(length, dim, config.position != "sinusoidal", slowest=fairseq)
    return None


class Rotary(nn.Module):
    """Rotary positions: pairs of a head's elements are rotated by position * rate_i, rate_i =
    base^(-2i/R) (Su et al. 2021, arXiv:2104.09864).

    Element i is paired with i + R/2. Published methods for extending the context change the rates;
    `dynamic` changes the base with the length of each sequence beyond `rotary_length`, and
    `longrope` has separate rates for sequences beyond it.
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
        elif self.scaling == "longrope":
            powers = 1.0 / rates
            longer = 1.0 / (torch.tensor(config.rotary_long, device="cpu") * powers)
            rates = 1.0 / (torch.tensor(config.rotary_short, device="cpu") * powers)
            self.register_buffer("long_rates", longer, persistent=False)
        self.register_buffer("rates", rates, persistent=False)

    def forward(
        self, positions: Tensor, groups: LengthBuckets, lengths: Tensor | None = None
    ) -> Rotation:
        """Return cosines and sines (T, R / 2), float32, for positions (T,); groups cover the tokens
        that belong to sequences.

        lengths (T,): length of each token's sequence, if its last token is not among these.
        """
        rates = cast(Tensor, self.rates)  # (R / 2,)
        if self.scaling in ("dynamic", "longrope"):
            if lengths is None:
                lengths = sequence_lengths(positions, groups)
            rates = self._rates_of(lengths)  # (T, R / 2)
        angles = positions[:, None].float() * rates  # (T, R / 2)
        cosines = angles.cos() * self.amplitude
        sines = angles.sin() * self.amplitude
        return cosines, sines

    def _rates_of(self, lengths: Tensor) -> Tensor:
        """Return the rates (T, R / 2) of each token, given the length (T,) of its sequence."""
        if self.scaling == "dynamic":
            return self._dynamic_rates(lengths)
        longer = (lengths > self.length)[:, None]  # (T, 1)
        return torch.where(longer, cast(Tensor, self.long_rates), cast(Tensor, self.rates))

    def _dynamic_rates(self, lengths: Tensor) -> Tensor:
        """Return the rates for a base that grows with the length of the sequence beyond
        `rotary_length`.

        Each distinct length is computed on its own, because the rounding of vectorized powers
        depends on the number of elements.
        """
        exponents = torch.arange(0, self.size, 2, device=lengths.device) / self.size  # (R / 2,)
        distinct, places = torch.unique(lengths, return_inverse=True)
        of_lengths = []
        for length in distinct.tolist():
            beyond = max(length, self.length) / self.length
            stretch = self.factor * beyond - (self.factor - 1)
            base = self.base * stretch ** (self.size / (self.size - 2))
            of_lengths.append(1.0 / base**exponents)
        return torch.stack(of_lengths)[places]


def sequence_lengths(positions: Tensor, groups: LengthBuckets) -> Tensor:
    """Return the length (T,) of each token's sequence, from the position of its last token."""
    parts = []
    for offset, n, t in groups:
        last = positions[offset : offset + n * t].view(n, t)[:, -1:]  # (n, 1)
        parts.append(last.expand(n, t).flatten() + 1)
    lengths = torch.cat(parts)
    return F.pad(lengths, (0, len(positions) - len(lengths)), value=1)


def _rates(base: float, size: int) -> Tensor:
    """Return base^(-2i / R) for each pair, (R / 2,)."""
    exponents = torch.arange(0, size, 2, device="cpu").float() / size
    return 1.0 / base**exponents


def _llama3(rates: Tensor, length: int, config: ModelConfig) -> Tensor:
    """Return the rates of Llama 3.1, arXiv:2407.21783: slow ones are divided by the factor, fast
    ones kept, with a ramp in between.
    """
    turns = length * rates / (2 * math.pi)
    low = config.rotary_low
    high = config.rotary_high
    ramp = (turns - low) / (high - low)
    keep = ramp.clamp(0, 1)
    slowed = rates / config.rotary_factor
    return rates * keep + slowed * (1 - keep)


def _yarn(rates: Tensor, base: float, length: int, config: ModelConfig) -> Tensor:
    """Return the rates of YaRN, Peng et al. 2023, arXiv:2309.00071: like Llama 3.1, but with the
    ramp over the index of the rate.
    """
    size = 2 * len(rates)

    def index(turns: float) -> float:
        """Return the index of the rate with this number of rotations over the length."""
        wavelength = length / (turns * 2 * math.pi)
        return size * math.log(wavelength) / (2 * math.log(base))

    first = index(config.rotary_high)
    last = index(config.rotary_low)
    if config.rotary_truncate:
        first = math.floor(first)
        last = math.ceil(last)
    low = max(first, 0)
    high = min(last, size - 1)
    width = high - low or 0.001
    indices = torch.arange(len(rates), device="cpu").float()
    ramp = ((indices - low) / width).clamp(0, 1)
    slowed = rates / config.rotary_factor
    return slowed * ramp + rates * (1 - ramp)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the first R elements of each head of x (T, H, K)."""
    cos, sin = (part[:, None, :] for part in rotation)  # (T, 1, R / 2)
    half = cos.shape[-1]
    first = x[..., :half].float()
    second = x[..., half : 2 * half].float()
    rest = x[..., 2 * half :]
    new_first = first * cos - second * sin
    new_second = second * cos + first * sin
    rotated = torch.cat([new_first, new_second], dim=-1).to(x.dtype)  # (T, H, R)
    if not rest.shape[-1]:
        return rotated
    return torch.cat([rotated, rest], dim=-1)  # (T, H, K)


class RelativeBias(nn.Module):
    """T5's learned bias of each head's scores by bucketed distance (Raffel et al. 2019,
    arXiv:1910.10683).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.buckets = config.relative_buckets
        self.distance = config.relative_distance
        self.causal = config.causal
        self.table = nn.Embedding(self.buckets, config.n_heads)

    def forward(self, length: int, begin: int = 0) -> Tensor:
        """Return the bias (H, S - begin, S) of the queries from `begin` on: near distances have a
        bucket each, far ones share buckets of logarithmic width.
        """
        positions = torch.arange(length, device=self.table.weight.device)
        offset = positions[None, :] - positions[begin:, None]  # (S - begin, S), key minus query
        if self.causal:
            buckets = self.buckets
            first_bucket = torch.zeros_like(offset)
            distance = (-offset).clamp(min=0)
        else:  # keys after the query use the second half of the buckets
            buckets = self.buckets // 2
            first_bucket = (offset > 0).long() * buckets
            distance = offset.abs()
        exact = buckets // 2
        # position between `exact` and the largest distance, on a logarithmic scale
        log_distance = torch.log(distance.clamp(min=1).float() / exact)
        ratio = log_distance / math.log(self.distance / exact)
        shared = (ratio * (buckets - exact)).long()
        far = (exact + shared).clamp(max=buckets - 1)
        bucket = first_bucket + torch.where(distance < exact, distance, far)
        of_heads: Tensor = self.table(bucket)  # (S - begin, S, H)
        return of_heads.permute(2, 0, 1)


class Alibi(nn.Module):
    """The bias -m_h |i - j| of each head's scores, with m_h from a geometric series (Press et al.
    2021, arXiv:2108.12409).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        power = 2 ** math.floor(math.log2(config.n_heads))
        slopes = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
        slopes += [2.0 ** (-4 * (2 * i + 1) / power) for i in range(config.n_heads - power)]
        self.register_buffer("slopes", torch.tensor(slopes, device="cpu"), persistent=False)

    def forward(self, length: int, begin: int = 0) -> Tensor:
        """Return the bias (H, S - begin, S) of the queries from `begin` on."""
        slopes = cast(Tensor, self.slopes)
        positions = torch.arange(length, device=slopes.device)
        distance = (positions[None, :] - positions[begin:, None]).abs()  # (S - begin, S)
        return -slopes[:, None, None] * distance


def make_bias(config: ModelConfig) -> nn.Module | None:
    if config.has_relative_bias:
        return RelativeBias(config)
    return Alibi(config) if config.position == "alibi" else None


class DistanceStates(NamedTuple):
    """The embeddings of the distances in a batch, each once."""

    states: Tensor  # (R, D)
    rows: Tensor  # (2 S,) row of each distance in `states`


class DistanceEmbedding(nn.Module):
    """Embeddings P of the distance between two tokens (He et al. 2020, arXiv:2006.03654, eq. 3),
    with buckets for large distances (as in its code since version 2).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.span = config.relative_buckets // 2 or config.relative_distance  # k of eq. 3
        self.exact = config.relative_buckets // 4  # 0: no buckets
        self.distance = config.relative_distance
        self.table = nn.Embedding(2 * self.span, config.dim)
        self.norm = make_norm(config) if config.position_norm else None

    def forward(self, length: int) -> DistanceStates:
        """Return the embeddings of all distances in sequences of at most `length` tokens."""
        apart = torch.arange(-length, length, device=self.table.weight.device)
        rows = (self.bucket(apart) + self.span).clamp(0, 2 * self.span - 1)  # (2 S,), ascending
        first, last = (int(row) for row in rows[[0, -1]])
        states: Tensor = self.table.weight[first : last + 1]  # (R, D)
        states = states.float() if states.dtype == torch.bfloat16 else states
        return DistanceStates(states if self.norm is None else self.norm(states), rows - first)

    def bucket(self, distance: Tensor) -> Tensor:
        """Return the bucket of each distance (R,) int64: near ones have a bucket each, far ones
        share buckets of logarithmic width.
        """
        if not self.exact:
            return distance
        far = distance.abs().clamp(min=self.exact)
        largest = torch.tensor((self.distance - 1) / self.exact, device=distance.device)
        ratio = torch.log(far / self.exact) / torch.log(largest)
        shared = self.exact + torch.ceil(ratio * (self.exact - 1)).long()
        return torch.where(distance.abs() <= self.exact, distance, distance.sign() * shared)


def make_distances(config: ModelConfig) -> DistanceEmbedding | None:
    return DistanceEmbedding(config) if config.is_disentangled else None

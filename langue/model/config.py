"""`ModelConfig`: the architecture of a model as a flat, frozen set of orthogonal axes.

A model family is data: everything that distinguishes one published architecture from another is an
axis here.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin

from langue.errors import ModelError

Norm = Literal["layer", "rms", "rms_offset", "rms_plain"]
NormPlace = Literal["post", "pre", "both", "after"]
Position = Literal[
    "learned",
    "sinusoidal",
    "sinusoidal_halves",
    "sinusoidal_fairseq",
    "rotary",
    "relative",
    "alibi",
    "none",
]
Scaling = Literal["none", "linear", "dynamic", "yarn", "llama3", "longrope"]
Activation = Literal["gelu", "gelu_tanh", "gelu_quick", "relu", "silu", "tanh", "relu_squared"]

ANY_LENGTH = 1_000_000  # maximum length with relative positions, which do not limit it


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a Transformer (Vaswani et al. 2017, arXiv:1706.03762). Sizes are counts;
    dropouts are probabilities.

    An encoder is bidirectional, a decoder is `causal`. With `decoder_layers` the model is an
    encoder-decoder, whose encoder (`n_layers`) is attended to by a causal decoder. Axes that do not
    name a side apply to both.
    """

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    ffn_dim: int
    max_length: int  # longest sequence that the model was made for, in tokens
    norm: Norm = (
        # rms_offset: RMSNorm whose weight is stored as its difference from one; rms_plain: without
        # a weight
        "layer"
    )
    # post: after each residual sum, as originally published; pre: before each sublayer; after:
    # after each sublayer, before the sum; both: before and after
    norm_place: NormPlace = "post"
    norm_eps: float = 1e-12
    norm_bias: bool | None = None  # None: same as `bias`
    position: Position = "learned"
    position_offset: int = 0  # row of the position table for the first token
    activation: Activation = "gelu"
    gated: bool = False  # GLU: act(x W1) * (x W3), Shazeer 2020, arXiv:2002.05202
    # act(min(x W1, c)) * clip(x W3, -c, c), gpt-oss, arXiv:2508.10925; 0: no limit c
    gated_limit: float = 0.0
    gated_offset: float = 0.0  # act(x W1) * (x W3 + gated_offset)
    bias: bool = True
    n_segments: int = 0  # 0: no segment embedding
    # rows of a task embedding, the first of which is added to each token, ERNIE 2.0,
    # arXiv:1907.12412
    n_tasks: int = 0
    embedding_norm: bool = True  # a norm directly after the sum of the embeddings
    dropout: float = 0.1
    attention_dropout: float = 0.1
    init_std: float = 0.02
    # attention
    causal: bool = False
    # key/value heads, Ainslie et al. 2023, arXiv:2305.13245; 0: same as n_heads
    kv_heads: int = 0
    head_width: int = 0  # 0: dim / n_heads
    qkv_bias: bool | None = None  # None: same as `bias`; also below
    key_bias: bool = True  # whether keys have one if queries and values do, DeBERTa 1
    out_bias: bool | None = None
    ffn_bias: bool | None = None
    # a norm on the queries and keys of each head, Dehghani et al. 2023, arXiv:2302.05442
    qk_norm: bool = False
    qk_norm_each: bool = False  # separate norm weights for each head, StableLM 2 12B
    qk_norm_joint: bool = False  # that norm taken over all heads together, OLMo 2, arXiv:2501.00656
    # for each layer: token i attends to j with |i - j| < window; 0: to all
    windows: tuple[int, ...] = ()
    # factor of the scores; 0: 1 / sqrt(head width), with the number of score terms included
    attention_scale: float = 0.0
    scores_by_layer: bool = False  # scores of layer i are divided by i + 1, Mistral's GPT-2
    attention_cap: float = 0.0  # c tanh(score / c), Gemma 2, arXiv:2408.00118; 0: none
    # each head's softmax has an additional term, exp of a learned logit, whose weight goes to no
    # value: Miller 2023, "Attention is off by one", with the logit learned as in gpt-oss
    attention_sinks: bool = False
    # queries are multiplied by 1 + query_growth * ln(1 + floor(position / rotary_length)), Llama 4;
    # 0: they are not
    query_growth: float = 0.0
    # positions
    rotary_base: float = 10_000.0  # Su et al. 2021, arXiv:2104.09864
    rotary_local_base: float = 0.0  # of layers with a window; 0: rotary_base, with its scaling
    rotary_dim: int = 0  # number of rotated elements of each head; 0: all
    rotary_scaling: Scaling = "none"
    rotary_factor: float = 1.0  # factor by which the context was extended
    rotary_length: int = 0  # the original context; 0: max_length
    # rotations within `rotary_length` below which a frequency is scaled in full
    rotary_low: float = 1.0
    rotary_high: float = 1.0  # and above which it is not scaled
    rotary_amplitude: float = 1.0  # YaRN's factor of cosines and sines
    rotary_truncate: bool = True  # YaRN's ramp starts and ends at integer indices
    # divisors of each frequency in sequences of up to `rotary_length` tokens, and in longer ones:
    # LongRoPE, Ding et al. 2024, arXiv:2402.13753
    rotary_short: tuple[float, ...] = ()
    rotary_long: tuple[float, ...] = ()
    # layers without rotary positions, Yang et al. 2025, arXiv:2501.18795
    unrotated: tuple[int, ...] = ()
    relative_bias: bool = False  # relative-position biases in addition to `position`, MPNet
    relative_bias_each: bool = False  # each layer has its own, UMT5, arXiv:2304.09151
    relative_buckets: int = 32  # T5's, Raffel et al. 2019, arXiv:1910.10683
    relative_distance: int = 128
    # score terms between contents and distances, DeBERTa, arXiv:2006.03654; relative_buckets = 0:
    # each distance has its own embedding
    content_to_position: bool = False
    position_to_content: bool = False
    shared_position_maps: bool = False  # distances use the projections of contents
    position_norm: bool = False  # a norm on the distance embeddings
    # blocks, embedding and head
    # attention and feed-forward have the same input and are summed, GPT-J and GPT-NeoX
    parallel: bool = False
    shared_norm: bool = False  # one norm for both, GPT-J
    residual_scale: float = 1.0  # factor of each sublayer's output, Granite
    # number of distinct blocks, each applied several times in a row, ALBERT, arXiv:1909.11942; 0:
    # one for each layer
    layer_groups: int = 0
    first_norm: bool = True  # whether the first block has an attention norm
    final_norm: bool | None = None  # None: if norms precede sublayers
    # width in tokens of a convolution over the embeddings, whose output is added to that of the
    # first block and normalized, DeBERTa v2; 0: none
    convolution: int = 0
    convolution_activation: Activation = "tanh"
    embedding_dim: int = 0  # 0: dim; otherwise a linear map widens it, ELECTRA
    widen_bias: bool = True
    position_widened: bool = False  # positions are added after that map, OPT-350m
    narrowed: bool = False  # the last states are mapped back to embedding_dim, without a bias
    embedding_scale: float = 1.0
    tied: bool = True  # the output matrix is the embedding
    # dense map, activation and norm before the output matrix, BERT's masked-LM head
    head_transform: bool = False
    head_activation: Activation = "gelu"
    head_bias: bool = False
    dense_bias: bool = True  # bias of head_transform's dense map
    # binary classifier on the first token's state, whether the second part follows the first, as in
    # BERT's pretraining
    pair_head: bool = False
    pooler_activation: Activation = "tanh"  # of a classifier, between its two maps
    # a classifier's first map is like head_transform, including the norm
    classifier_transform: bool = False
    logit_scale: float = 1.0
    logit_cap: float = 0.0
    # the decoder of an encoder-decoder
    decoder_layers: int = 0
    decoder_heads: int = 0  # 0: n_heads
    decoder_ffn_dim: int = 0  # 0: ffn_dim
    decoder_vocab_size: int = 0  # 0: both sides share one vocabulary and one embedding
    # mixture of experts, Shazeer et al. 2017, arXiv:1701.06538
    n_experts: int = 0  # 0: one feed-forward network for all tokens
    experts_per_token: int = 0
    # normalize the probabilities of the chosen experts to sum to one
    expert_renormalise: bool = True
    router_bias: bool = False
    shared_ffn_dim: int = 0  # an expert for all tokens, gated by a sigmoid; 0: none

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if get_origin(field.type) is Literal and value not in get_args(field.type):
                raise ModelError(
                    f"config: {field.name} = {value!r} is not known",
                    do=f"known are {', '.join(get_args(field.type))}",
                )
            if field.type is int and (
                not isinstance(value, int) or isinstance(value, bool) or value < 0
            ):
                raise ModelError(f"config: {field.name} = {value!r} is not a count")
            either = field.type is bool or (field.type == bool | None and value is not None)
            if either and not isinstance(value, bool):
                raise ModelError(f"config: {field.name} = {value!r} is neither true nor false")
            if field.type is float and (
                isinstance(value, bool) or not isinstance(value, (int, float))
            ):
                raise ModelError(f"config: {field.name} = {value!r} is not a number")
        for name in ("vocab_size", "dim", "n_layers", "n_heads", "ffn_dim", "max_length"):
            if getattr(self, name) < 1:
                raise ModelError(f"config: {name} = {getattr(self, name)} must be at least 1")
        sizes = ("norm_eps", "init_std", "rotary_local_base", "attention_cap", "logit_cap")
        for name in (*sizes, "gated_limit"):
            if getattr(self, name) < 0:
                raise ModelError(f"config: {name} = {getattr(self, name)} is below zero")
        if self.rotary_base <= 0:
            raise ModelError(f"config: rotary_base = {self.rotary_base} is not above zero")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"config: {name} = {getattr(self, name)} is not a probability")
        self._check_sizes()

    def _check_sizes(self) -> None:
        if not self.head_width and self.dim % self.n_heads:
            raise ModelError(
                f"config: dim = {self.dim} does not divide into n_heads = {self.n_heads}"
            )
        if self.n_heads % self.n_kv_heads:
            raise ModelError(
                f"config: n_heads = {self.n_heads} is not a multiple of kv_heads ="
                f" {self.n_kv_heads}"
            )
        if not all(type(window) is int and window >= 0 for window in self.windows):
            raise ModelError("config: a window is not a count")
        if self.windows and len(self.windows) != self.n_layers:
            raise ModelError(f"config: {len(self.windows)} windows for {self.n_layers} layers")
        if self.shared_norm and not (self.parallel and self.norm_place == "pre"):
            raise ModelError("config: shared_norm is for parallel sublayers behind their norm")
        if (self.narrowed or self.position_widened) and not self.embedding_dim:
            raise ModelError("config: no embedding_dim, and states are to be mapped from or to it")
        if self.layer_groups and (self.causal or self.decoder_layers or self.windows):
            raise ModelError("config: layer_groups are for an encoder without windows")
        if self.layer_groups > self.n_layers:
            raise ModelError(
                f"config: layer_groups = {self.layer_groups} of {self.n_layers} layers"
            )
        if (self.gated_limit or self.gated_offset) and not self.gated:
            raise ModelError("config: gated_limit and gated_offset are of gated feed-forwards")
        if self.qk_norm_each and not (self.qk_norm and self.norm == "layer"):
            raise ModelError("config: qk_norm_each is of LayerNorms of queries and keys")
        if not all(type(layer) is int and layer >= 0 for layer in self.unrotated):
            raise ModelError("config: a layer that does not turn is not a number")
        if self.position == "rotary" and (
            self.n_rotary_dims % 2 or self.n_rotary_dims > self.head_dim
        ):
            raise ModelError(
                f"config: rotary_dim = {self.n_rotary_dims} must be even and at most"
                f" {self.head_dim}"
            )
        for divisors in (self.rotary_short, self.rotary_long):
            if not all(type(each) in (int, float) and 0 < each < math.inf for each in divisors):
                raise ModelError("config: a divisor of rotary rates is not above zero")
            pairs = self.n_rotary_dims // 2 if self.rotary_scaling == "longrope" else 0
            if len(divisors) != pairs:
                raise ModelError(f"config: {len(divisors)} divisors of {pairs} rotary rates")
        exact = self.relative_buckets // (2 if self.causal or self.decoder_layers else 4)
        if self.has_relative_bias and not 0 < exact < self.relative_distance:
            raise ModelError(
                f"config: relative_distance = {self.relative_distance} leaves no distance to the"
                f" shared ones of {self.relative_buckets} buckets"
            )
        self._check_disentangled()
        if self.n_experts and not 0 < self.experts_per_token <= self.n_experts:
            raise ModelError(
                f"config: experts_per_token = {self.experts_per_token} of {self.n_experts} experts"
            )

    def _check_disentangled(self) -> None:
        """Raise ModelError if scores with distances, or a convolution, are combined with anything
        but full bidirectional attention.
        """
        if self.convolution and (self.convolution % 2 == 0 or self.architecture != "encoder"):
            raise ModelError(
                f"config: convolution = {self.convolution} must be odd, and of an encoder"
            )
        if not self.is_disentangled:
            return
        if self.relative_buckets % 2 or self.relative_buckets == 2:
            raise ModelError(
                f"config: relative_buckets = {self.relative_buckets} must be even, and 0 or at"
                " least 4"
            )
        if self.relative_distance <= self.relative_buckets // 4 + 1:
            raise ModelError(
                f"config: relative_distance = {self.relative_distance} leaves no distance to the"
                f" shared ones of {self.relative_buckets} buckets"
            )
        odd = {
            "a decoder": self.architecture != "encoder",
            "the maps of contents, whose keys have no bias,": self.shared_position_maps
            and not self.stacks_qkv,
            "fewer kv_heads than heads": self.n_kv_heads != self.n_heads,
            "windows": any(self.windows),
            "rotary positions": self.position == "rotary",
            "relative-position biases": self.has_relative_bias or self.position == "alibi",
            "norms of queries and keys": self.qk_norm,
            "a cap on scores": self.attention_cap > 0,
            "attention sinks": self.attention_sinks,
        }
        found = next((name for name, there in odd.items() if there), "")
        if found:
            raise ModelError(f"config: scores with distances and {found} are not for one model")

    @property
    def is_disentangled(self) -> bool:
        return self.content_to_position or self.position_to_content

    def score_scale(self, layer: int) -> float:
        """Return `attention_scale` of a layer, which depends on the number of score terms (He et
        al. 2020, section 3.2) and, with `scores_by_layer`, decreases with depth.
        """
        terms = 1 + self.content_to_position + self.position_to_content
        if terms == 1 and not self.scores_by_layer:
            return self.attention_scale
        scale = self.attention_scale or (self.head_dim * terms) ** -0.5
        return scale / (layer + 1) if self.scores_by_layer else scale

    @property
    def head_dim(self) -> int:
        return self.head_width or self.dim // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        return self.kv_heads or self.n_heads

    @property
    def stacks_qkv(self) -> bool:
        """Whether queries, keys and values come from one matrix, because they have equal sizes and
        biases.
        """
        return self.n_heads == self.n_kv_heads and (self.key_bias or not self.has_bias("qkv"))

    @property
    def out_dim(self) -> int:
        """Size of the last states."""
        return self.embedding_dim if self.narrowed else self.dim

    @property
    def n_blocks(self) -> int:
        """Number of distinct blocks in the layers of the first side."""
        return self.layer_groups or self.n_layers

    @property
    def n_rotary_dims(self) -> int:
        """Number of elements of each head that rotary positions rotate."""
        return self.rotary_dim or self.head_dim

    @property
    def rotates_by_length(self) -> bool:
        """Whether rotary frequencies depend on the length of the whole sequence."""
        return self.rotary_scaling in ("dynamic", "longrope")

    @property
    def rotary_switch(self) -> int:
        """The length beyond which all positions of a sequence are rotated differently; 0: there is
        none.
        """
        return self.rotary_length if self.rotary_scaling == "longrope" else 0

    @property
    def has_relative_bias(self) -> bool:
        return self.position == "relative" or self.relative_bias

    @property
    def has_parallel_norms(self) -> bool:
        """Whether the sublayers are parallel, each with a norm of its own."""
        return self.parallel and not self.shared_norm

    @property
    def has_final_norm(self) -> bool:
        return self.norm_place != "post" if self.final_norm is None else self.final_norm

    @property
    def longest(self) -> int:
        """The longest sequence that the positions can represent, in tokens."""
        table = self.position == "learned" or self.position.startswith("sinusoidal")
        return self.max_length if table else max(self.max_length, ANY_LENGTH)

    @property
    def architecture(self) -> Literal["encoder", "decoder", "encoder-decoder"]:
        if self.decoder_layers:
            return "encoder-decoder"
        return "decoder" if self.causal else "encoder"

    def has_bias(self, part: str) -> bool:
        """Return whether `qkv`, `out`, `ffn` or `norm` has a bias."""
        own: bool | None = getattr(self, f"{part}_bias")
        return self.bias if own is None else own

    def window(self, layer: int) -> int:
        return self.windows[layer] if self.windows else 0

    def decoder(self) -> "ModelConfig":
        """Return the decoder side of an encoder-decoder as the config of a decoder-only model."""
        heads = self.decoder_heads or self.n_heads
        return replace(
            self,
            causal=True,
            n_layers=self.decoder_layers,
            n_heads=heads,
            kv_heads=heads if self.kv_heads in (0, self.n_heads) else self.kv_heads,
            ffn_dim=self.decoder_ffn_dim or self.ffn_dim,
            vocab_size=self.decoder_vocab_size or self.vocab_size,
            windows=(),
            decoder_layers=0,
        )

    @property
    def matrix_parameters(self) -> int:
        """Number of parameters in matrix products of each token, without the embedding."""
        attention = 2 * self.dim * self.head_dim * (self.n_heads + self.n_kv_heads)
        per_expert = (3 if self.gated else 2) * self.dim
        feedforward = per_expert * (
            self.ffn_dim * max(1, self.experts_per_token) + self.shared_ffn_dim
        )
        total = self.n_layers * (attention + feedforward)
        if self.decoder_layers:
            other = self.decoder()
            total += other.matrix_parameters + other.n_layers * attention
        return total

    def forward_flops(self, lengths: list[int]) -> int:
        """Return the FLOPs of the matrix products of one forward pass over sequences of these
        lengths.
        """
        attention = (
            self.n_layers
            * 4
            * self.n_heads
            * self.head_dim
            * sum(length * length for length in lengths)
        )
        # each token's products with twice as many distances as tokens, compared to two products
        attention *= 1 + self.content_to_position + self.position_to_content
        return 2 * self.matrix_parameters * sum(lengths) + attention

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

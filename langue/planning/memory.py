"""What arrives: a model and how it lies on its devices. What leaves: the bytes that training takes
on one, by part, and those that it takes to use it.

Weights, gradients and AdamW's two moments are fp32, matrix products bf16 (Micikevicius et al. 2018,
arXiv:1710.03740): 16 bytes a parameter, and 2 for the copy that the products read. What attention
keeps does not grow with the square of the length (Dao et al. 2022, arXiv:2205.14135), and logits
are never held whole (model/kernels.py).
"""

import math
from dataclasses import asdict, dataclass

from langue.model.config import ModelConfig
from langue.model.kernels import chunk_size

FULL = 4  # bytes of fp32


@dataclass(frozen=True)
class Layout:
    """How a model and its batches are spread: `data` replicas, each over `tensor` times `pipeline`
    devices.
    """

    data: int = 1
    # FSDP: replicas share weights, gradients and moments (Rajbhandari et al. 2020)
    sharded: bool = False
    # devices of a node that share each matrix, with sequence parallel norms (Korthikanti et al.
    # 2022)
    tensor: int = 1
    # stages of layers, one after another (Narayanan et al. 2021, arXiv:2104.04473)
    pipeline: int = 1
    # blocks are computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174)
    activation_checkpointing: bool = False
    sequences: int = 1  # that a replica computes at once

    @property
    def devices(self) -> int:
        return self.data * self.tensor * self.pipeline

    @property
    def name(self) -> str:
        data = f"{'FSDP' if self.sharded else 'data parallel'} {self.data}" if self.data > 1 else ""
        tensor = f"tensor parallel {self.tensor}" if self.tensor > 1 else ""
        pipeline = f"pipeline {self.pipeline}" if self.pipeline > 1 else ""
        return " x ".join(part for part in (data, tensor, pipeline) if part) or "one device"

    @property
    def here(self) -> bool:
        """Whether langue trains so."""
        return self.pipeline == 1 and 1 in (self.tensor, self.data)

    @property
    def around(self) -> int:
        """Devices that share what stands outside of blocks, which langue leaves whole."""
        return 1 if self.here else self.tensor


@dataclass(frozen=True)
class Memory:
    """Bytes on the device that holds most."""

    weights: float
    gradients: float
    moments: float
    copies: float  # the weights in bf16, as the matrix products read them
    gathered: float  # FSDP: a block's weights and gradients, whole for as long as they are used
    activations: float
    logits: float  # a chunk of them, and the gradient of the output matrix

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))


@dataclass(frozen=True)
class Sizes:
    """How many parameters there are, and how many of them stand in blocks."""

    total: int
    blocks: int

    @property
    def outside(self) -> int:
        return self.total - self.blocks


def kept(config: ModelConfig, low: int) -> int:
    """Bytes that a block keeps of a token for the backward pass; `low`: bytes of a number in the
    matrix products.
    """
    heads = config.n_heads * config.head_dim
    groups = config.n_kv_heads * config.head_dim
    norms = (
        (1 if config.parallel else 2)
        * (2 if config.norm_place == "both" else 1)
        * FULL
        * config.dim
    )
    # of the two sublayers' first matrices
    inputs = (1 if config.shared_norm else 2) * low * config.dim
    attention = low * (2 * heads + 2 * groups)  # queries, keys, values, and what was mixed of them
    if config.position == "rotary" or config.qk_norm:
        attention += low * (heads + groups)  # before and after they are turned or normalised
    if config.qk_norm and low != FULL:
        attention += FULL * (heads + groups)
    wide = config.ffn_dim * max(1, config.experts_per_token) + config.shared_ffn_dim
    # The activation's input and output, of which relu keeps the latter only; gated, the gate's and
    # the product.
    feedforward = (
        low * wide * ((2 if config.gated else 0) + (1 if config.activation == "relu" else 2))
    )
    masks = 2 * config.dim if config.dropout else 0
    return norms + inputs + attention + feedforward + masks


def activations(config: ModelConfig, length: int, layout: Layout, low: int) -> float:
    """Bytes of the first stage, which waits for the longest and so holds most batches."""
    layers = math.ceil((config.n_layers + config.decoder_layers) / layout.pipeline)
    each = kept(config, low)
    stream = FULL * config.dim
    block = stream if layout.activation_checkpointing else each
    waiting = layout.pipeline  # batches that have gone forward and not yet back
    # the embedding's sum, the last norm's input and output
    ends = stream + stream + low * config.dim
    a_token = (
        waiting * (layers * block + stream)
        + (each if layout.activation_checkpointing else 0)
        + ends
    )
    return layout.sequences * length * a_token / layout.tensor


def logits(
    config: ModelConfig,
    length: int,
    layout: Layout,
    low: int,
    room: float | None,
    *,
    whole: bool = False,
) -> float:
    """Bytes of a chunk of logits (in both precisions, with what its loss leaves) and of the
    gradients they give; whole: of all of them at once; room: as in `chunk_size`.
    """
    vocabulary = config.decoder_vocab_size or config.vocab_size
    width = config.embedding_dim or config.dim
    tokens = layout.sequences * length
    held = tokens if whole else min(chunk_size(vocabulary, room), tokens)
    chunk = held * vocabulary * (2 * FULL + (2 * low if low != FULL else 0))
    return (chunk + FULL * vocabulary * width + 2 * low * tokens * width) / layout.around


def memory(
    config: ModelConfig,
    sizes: Sizes,
    length: int,
    layout: Layout,
    low: int,
    room: float | None,
    *,
    of_language: bool = True,
) -> Memory:
    """of_language: it predicts tokens, and so has logits; low, room: as in `kept` and `logits`."""
    layers = max(1, config.n_layers + config.decoder_layers)
    distinct = max(1, config.n_blocks + config.decoder_layers)
    block = sizes.blocks / distinct / layout.tensor
    outside = sizes.outside / layout.around
    # of blocks that are applied several times, a stage needs those of its layers
    local = min(distinct, math.ceil(layers / layout.pipeline)) * block + outside
    share = local / (layout.data if layout.sharded else 1)
    copied = block + outside if layout.activation_checkpointing else local
    return Memory(
        weights=FULL * share,
        gradients=FULL * share,
        moments=2 * FULL * share,
        copies=low * copied if low != FULL else 0.0,
        # The block in use and the next one's weights, one block's gradient, and what stands outside
        # of the blocks.
        gathered=FULL * (3 * block + 2 * outside) if layout.sharded else 0.0,
        activations=activations(config, length, layout, low),
        logits=logits(config, length, layout, low, room) if of_language else 0.0,
    )


def memory_to_use(config: ModelConfig, sizes: Sizes, length: int) -> float:
    """Bytes of the weights in fp32 and, where a model writes text, of the keys and values that it
    keeps of `length` tokens.
    """
    layers = config.n_layers + config.decoder_layers
    cached = 0
    if config.architecture != "encoder":
        cached = 2 * FULL * layers * config.n_kv_heads * config.head_dim * length
    return FULL * sizes.total + cached

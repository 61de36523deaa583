"""Estimates the memory that training takes on one device, by part, and the memory for inference.

Weights, gradients and AdamW's two moments are fp32, matrix products bf16 (Micikevicius et al. 2018,
arXiv:1710.03740): 16 bytes per parameter, and 2 for the copy that the products read. The
activations of attention are not quadratic in the length (Dao et al. 2022, arXiv:2205.14135), and
the logits are never in memory as a whole (model/kernels.py).
"""

import math
from dataclasses import asdict, dataclass

from langue.model.config import ModelConfig
from langue.model.kernels import chunk_size

FULL = 4  # size of fp32 in bytes


@dataclass(frozen=True)
class Layout:
    """How a model and its batches are distributed: `data` replicas, each over `tensor` times
    `pipeline` devices.
    """

    data: int = 1
    # FSDP: weights, gradients and moments are sharded over the replicas (Rajbhandari et al. 2020)
    sharded: bool = False
    # number of devices of a node that share each matrix, with sequence parallel norms (Korthikanti
    # et al. 2022)
    tensor: int = 1
    # number of consecutive stages of layers (Narayanan et al. 2021, arXiv:2104.04473)
    pipeline: int = 1
    # blocks are recomputed in the backward pass (Chen et al. 2016, arXiv:1604.06174)
    activation_checkpointing: bool = False
    sequences: int = 1  # number that a replica computes at once

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
        """Whether langue supports training in this layout."""
        return self.pipeline == 1 and 1 in (self.tensor, self.data)

    @property
    def around(self) -> int:
        """The number of devices that share the parameters outside of blocks, which langue does not
        split.
        """
        return 1 if self.here else self.tensor


@dataclass(frozen=True)
class Memory:
    """Bytes on the device that uses the most memory."""

    weights: float
    gradients: float
    moments: float
    copies: float  # the weights in bf16, which the matrix products read
    gathered: float  # FSDP: the unsharded weights and gradients of a block while they are used
    activations: float
    logits: float  # a chunk of logits, and the gradient of the output matrix

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))


@dataclass(frozen=True)
class Sizes:
    """The number of parameters, in total and in blocks."""

    total: int
    blocks: int

    @property
    def outside(self) -> int:
        return self.total - self.blocks


def kept(config: ModelConfig, low: int) -> int:
    """Return the bytes of activations that a block stores per token for the backward pass.

    low: bytes of a number in the matrix products.
    """
    heads = config.n_heads * config.head_dim
    groups = config.n_kv_heads * config.head_dim
    norms = (
        (1 if config.parallel else 2)
        * (2 if config.norm_place == "both" else 1)
        * FULL
        * config.dim
    )
    # inputs of the first matrices of both sublayers
    inputs = (1 if config.shared_norm else 2) * low * config.dim
    attention = low * (2 * heads + 2 * groups)  # queries, keys, values, and the output of attention
    if config.position == "rotary" or config.qk_norm:
        attention += low * (heads + groups)  # before and after rotation or normalisation
    if config.qk_norm and low != FULL:
        attention += FULL * (heads + groups)
    wide = config.ffn_dim * max(1, config.experts_per_token) + config.shared_ffn_dim
    # The input and output of the activation, of which relu stores only the latter; if gated, also
    # the gate and the product.
    feedforward = (
        low * wide * ((2 if config.gated else 0) + (1 if config.activation == "relu" else 2))
    )
    masks = 2 * config.dim if config.dropout else 0
    return norms + inputs + attention + feedforward + masks


def activations(config: ModelConfig, length: int, layout: Layout, low: int) -> float:
    """Return the bytes of activations of the first stage, which waits the longest and so stores the
    most batches.
    """
    layers = math.ceil((config.n_layers + config.decoder_layers) / layout.pipeline)
    each = kept(config, low)
    stream = FULL * config.dim
    block = stream if layout.activation_checkpointing else each
    waiting = layout.pipeline  # batches whose forward pass is done, but not the backward pass
    # the sum of the embeddings, and the input and output of the last norm
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
    """Return the bytes of a chunk of logits (in both precisions, with what the loss stores) and of
    the gradients they produce.

    whole: of all logits at once. room: as in `chunk_size`.
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
    """Return the memory of training, by part.

    of_language: whether the model predicts tokens, and so has logits. low, room: as in `kept` and
    `logits`.
    """
    layers = max(1, config.n_layers + config.decoder_layers)
    distinct = max(1, config.n_blocks + config.decoder_layers)
    block = sizes.blocks / distinct / layout.tensor
    outside = sizes.outside / layout.around
    # of blocks that are applied several times, a stage needs those that its layers use
    local = min(distinct, math.ceil(layers / layout.pipeline)) * block + outside
    share = local / (layout.data if layout.sharded else 1)
    copied = block + outside if layout.activation_checkpointing else local
    return Memory(
        weights=FULL * share,
        gradients=FULL * share,
        moments=2 * FULL * share,
        copies=low * copied if low != FULL else 0.0,
        # The weights of the current and the next block, the gradient of one block, and everything
        # outside of the blocks.
        gathered=FULL * (3 * block + 2 * outside) if layout.sharded else 0.0,
        activations=activations(config, length, layout, low),
        logits=logits(config, length, layout, low, room) if of_language else 0.0,
    )


def memory_to_use(config: ModelConfig, sizes: Sizes, length: int) -> float:
    """Return the bytes for inference: the weights in fp32 and, for a model that generates text, the
    KV cache of `length` tokens.
    """
    layers = config.n_layers + config.decoder_layers
    cached = 0
    if config.architecture != "encoder":
        cached = 2 * FULL * layers * config.n_kv_heads * config.head_dim * length
    return FULL * sizes.total + cached

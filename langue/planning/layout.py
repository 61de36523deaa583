"""Chooses how to distribute a model and its batches over devices, and estimates the loss of
utilisation.

Among the layouts that fit, the one with the least loss is chosen, and the simplest among equals:
data parallel if a device can hold everything, otherwise FSDP; tensor parallel within a node if the
batch has too few sequences for so many replicas, or if it avoids recomputation; pipeline stages
only if nothing else fits.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from langue.errors import SettingsError
from langue.hardware import Hardware
from langue.model.config import ModelConfig
from langue.planning.memory import Layout, Memory, Sizes, memory

# usable fraction of a device's memory: the rest is used by the driver, or lost to fragmentation
USABLE = 0.9
# maximum number of tokens that a device computes at once: more do not make matrix products faster
MOST_TOKENS = 65_536
# remaining utilisation for each doubling of the number of nodes, and of tensor parallel devices
PER_DOUBLING = 0.98
RECOMPUTED = 0.75  # 6 N of the 8 N operations per token count towards utilisation
CHUNKS = 4  # number of interleaved chunks of layers per pipeline stage
MOST_DEVICES = 1 << 17


def choose(
    config: ModelConfig, sizes: Sizes, hardware: Hardware, devices: int, length: int, batch: int
) -> tuple[Layout, Memory]:
    """Choose the layout with the best utilisation, and return it with its memory.

    Raises SettingsError if nothing fits, with a suggestion of what would.
    """
    found = _first(config, sizes, hardware, devices, length, batch)
    if found is not None:
        return found
    where = f"{devices:,} {hardware.name}"
    if not any(layout.data * length <= batch for layout in _layouts(config, hardware, devices)):
        raise SettingsError(
            f"a batch of {batch:,} tokens has too few sequences of {length:,} for {where}",
            do="give a larger --batch-tokens or fewer --devices",
        )
    more = devices
    while more < MOST_DEVICES and not hardware.measured:
        more *= 2
        if _first(config, sizes, hardware, more, length, max(batch, more * length)):
            raise SettingsError(
                f"{sizes.total:,} parameters do not fit on {where}",
                do=f"{more:,} would hold it: give --devices {more}",
            )
    raise SettingsError(
        f"{sizes.total:,} parameters do not fit on {where}", do="give a smaller --size or --length"
    )


def _first(
    config: ModelConfig, sizes: Sizes, hardware: Hardware, devices: int, length: int, batch: int
) -> tuple[Layout, Memory] | None:
    low = 2 if hardware.bf16 else 4
    best: tuple[float, Layout, Memory] | None = None
    for layout in _layouts(config, hardware, devices):
        if best is not None and layout.pipeline > 1:
            break
        most = min(batch // (layout.data * length), max(1, MOST_TOKENS // length))
        if layout.pipeline > 1:  # many small batches keep all stages busy
            most = min(most, max(1, batch // (layout.data * length * 4 * layout.pipeline)))
        while most >= 1:
            tried = replace(layout, sequences=most)
            taken = memory(config, sizes, length, tried, low, hardware.room)
            if taken.total <= USABLE * hardware.memory:
                left = utilisation(
                    1.0, tried, hardware, config, batch / (layout.data * length * most)
                )
                if best is None or left > 1.001 * best[0]:
                    best = left, tried, taken
                break
            most //= 2
    return None if best is None else best[1:]


def _layouts(config: ModelConfig, hardware: Hardware, devices: int) -> Iterator[Layout]:
    layers = config.n_layers + config.decoder_layers
    tensors = [
        size
        for size in (1, 2, 4, 8)
        if size <= min(devices, hardware.linked) and size <= config.n_heads and devices % size == 0
    ]
    splits = [(size, 1) for size in tensors]
    splits += [(tensors[-1], stages) for stages in (2, 4, 8, 16, 32, 64) if stages <= layers]
    for tensor, pipeline in splits:
        if devices % (tensor * pipeline):
            continue
        data = devices // (tensor * pipeline)
        for activation_checkpointing in (False, True):
            for sharded in (False, True) if data > 1 else (False,):
                yield Layout(data, sharded, tensor, pipeline, activation_checkpointing)


def utilisation(
    stated: float, layout: Layout, hardware: Hardware, config: ModelConfig, batches: float
) -> float:
    """Return the utilisation that remains of that of one node, after the losses by more nodes, by
    recomputation, and by waiting pipeline stages.

    batches: the number that a replica computes in a step. A pipeline of p stages with v chunks per
    stage is idle for (p - 1) / (v m) of its work with m batches (Narayanan et al. 2021,
    arXiv:2104.04473, section 2.2).
    """
    nodes = max(1.0, layout.devices / hardware.node)
    left: float = stated * PER_DOUBLING ** (math.log2(nodes) + math.log2(layout.tensor))
    if layout.activation_checkpointing:
        left *= RECOMPUTED
    if layout.pipeline > 1:
        layers = (config.n_layers + config.decoder_layers) // layout.pipeline
        chunks = max(1, min(CHUNKS, layers))
        left /= 1 + (layout.pipeline - 1) / (chunks * max(1.0, batches))
    return left

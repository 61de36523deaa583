"""What arrives: a model, devices and a batch. What leaves: the best way to spread it that fits, and
what it costs.

Of the layouts that fit, the one that loses least, and of equals the simplest: data parallel where a
device holds everything, else FSDP; tensor parallel within a node where the batch has too few
sequences for so many replicas, or it saves recomputing; pipeline stages only where nothing else
fits.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from langue.errors import SettingsError
from langue.hardware import Hardware
from langue.model.config import ModelConfig
from langue.planning.memory import Layout, Memory, Sizes, memory

USABLE = 0.9  # of a device's memory: the rest is the driver's, and lost between blocks
MOST_TOKENS = 65_536  # that a device computes at once: more makes its products no faster
# of the utilisation is left for each doubling of the nodes, and of tensor parallel devices
PER_DOUBLING = 0.98
RECOMPUTED = 0.75  # 6 N of the 8 N operations a token are counted
CHUNKS = 4  # a stage's layers are interleaved in so many parts
MOST_DEVICES = 1 << 17


def choose(
    config: ModelConfig, sizes: Sizes, hardware: Hardware, devices: int, length: int, batch: int
) -> tuple[Layout, Memory]:
    """SettingsError where nothing fits, with what would."""
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
        if layout.pipeline > 1:  # many small batches keep all stages at work
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
    """What is left of the utilisation of one node: less for each doubling, for recomputing, for
    stages that wait.

    batches: that a replica computes in a step. A pipeline of p stages with v chunks a stage stands
    still for (p - 1) / (v m) of its work (Narayanan et al. 2021, arXiv:2104.04473, section 2.2).
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

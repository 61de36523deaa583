"""Estimate what training will take, before any computing time is spent."""

import math
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from langue.errors import SettingsError
from langue.hardware import Hardware, find, matmul_rate, read
from langue.hub.checkpoint import describe, family_of
from langue.hub.family import parameters
from langue.hub.presets import USUAL, parse_count
from langue.hub.presets import preset as named
from langue.model.config import ModelConfig
from langue.planning.layout import choose, utilisation
from langue.planning.memory import Layout, Memory, Sizes, activations, logits
from langue.planning.scaling import FITTED, TOKENS_A_PARAMETER, by_rule, expected_loss, optima
from langue.planning.timing import flops_per_token, time_steps
from langue.runs.notebook import Result
from langue.runs.show_plan import print_plan
from langue.runtime import device, precision

LENGTH = 1024
MFU = 0.40
PUE = 1.56
SMALL = 100_000_000
FEW = 8192
MANY = 32_768  # the default vocabulary is FEW below SMALL parameters, otherwise MANY
# Tokens per step by number of parameters, after Brown et al. 2020 (arXiv:2005.14165), table 2.1, as
# powers of two.
BATCHES = ((1e9, 1 << 19), (5e9, 1 << 20), (100e9, 1 << 21), (math.inf, 1 << 22))
FEWEST_STEPS = 1000
UNITS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0}
_TIME = re.compile(
    r"\s*(\d{1,9})\s*x?\s+(.+?)\s+for\s+(\d{1,6}(?:\.\d{1,6})?)\s*(hour|day|week)s?\s*",
    re.IGNORECASE,
)

ASSUMED = {
    "mfu": (
        "{mfu:.0%} of the peak on one node is an assumption: --measure, or --mfu with what you have"
        " seen"
    ),
    "scale": (
        "each doubling of nodes or of tensor parallel leaves 98% of it, an assumption (Llama 3"
        " 405B: 43% on 8,192 H100, 41% on 16,384, arXiv:2407.21783, table 4)"
    ),
    "activation_checkpointing": (
        "recomputing the blocks leaves three quarters of it: 6 of 8 operations count"
    ),
    "pipeline": "a pipeline stands still for part of its work (arXiv:2104.04473)",
    "sides": "every token is reckoned to pass encoder and decoder, which is the most it can",
    "paper": (
        "langue trains data parallel, with FSDP, or with the matrices of blocks divided (tp):"
        " mixtures and pipelines stand here on paper only"
    ),
    "time": "time is that of the steps alone: no failures, no evaluations",
    "energy": (
        "energy is that of the devices at full power, times {pue:g} for the building (1.56: the"
        " average of Uptime Institute's survey 2024); hosts and network come on top"
    ),
    "guessing": (
        "no loss is expected where the law gives more than guessing among {vocabulary:,} tokens"
        " costs ({guessing:.2f} nats): it was fitted on models of {fitted}"
    ),
    "extrapolated": "the expected loss is extrapolated: the law was fitted on models of {fitted}",
    "memory": "memory is reckoned, not measured; a tenth of the device is left free",
}


def plan(
    *,
    size: str | None = None,
    preset: str | None = None,
    model: str | Path | None = None,
    tokens: str | float | None = None,
    budget: str | float | None = None,
    hardware: str = "here",
    devices: int | None = None,
    length: int | None = None,
    vocabulary: int | None = None,
    batch_tokens: str | int | None = None,
    mfu: float | None = None,
    pue: float = PUE,
    measure: bool = False,
) -> Result:
    """Estimate parameters, operations, memory per device, time and energy of a training run, and
    the best use of a budget.

    size, preset: number of parameters (such as `10M`) and preset of a new model.
    model: instead of these, an existing model.
    tokens: number of training tokens; None: 20 per parameter.
    budget: operations (1e21), or devices and time ("8 h100 for 3 days"); it determines size or
        tokens if they are not given.
    hardware: a name in the table, or "here" for this machine; devices: their number.
    length: tokens of a sequence; None: 1,024, or that of the model.
    vocabulary: its size; None: 32,768 (8,192 for a small model), or that of the model.
    batch_tokens: tokens of a step.
    mfu: fraction of the peak throughput that is reached; it is not adjusted further.
    pue: power usage effectiveness, the energy of the building per energy of the devices.
    measure: time some steps on this machine.

    Raises SettingsError for arguments that contradict each other or are out of range.
    """
    _check((size, preset, model), tokens, budget, mfu, pue)
    if vocabulary is not None and vocabulary < 2:
        raise SettingsError(
            f"a vocabulary of {vocabulary} leaves nothing to predict", do="give at least 2"
        )
    flops, seconds, hardware, devices = _budget(budget, hardware, devices)
    if not 1 <= devices <= 1_000_000:
        raise SettingsError(f"{devices:,} devices are not possible", do="give 1 to 1,000,000")
    device_ = _hardware(hardware)
    if seconds:
        flops = seconds * devices * device_.peak * (mfu or MFU)
    budget_tokens = None if tokens is None else float(parse_count(str(tokens)))
    config, kind, length = _model(size, preset, model, vocabulary, length, flops, budget_tokens)
    sizes = count_parameters(config)
    if budget_tokens is None:
        budget_tokens = flops / (6 * sizes.total) if flops else TOKENS_A_PARAMETER * sizes.total
    batch = _batch(batch_tokens, sizes.total, budget_tokens, length)
    layout, memory = choose(config, sizes, device_, devices, length, batch)
    local = hardware == "here"
    measured = time_steps(config, length, device_.peak if local else None) if measure else None
    stated, origin = _stated(mfu, measured, local)
    passes = batch / (layout.data * layout.sequences * length)
    reached = stated if mfu is not None else utilisation(stated, layout, device_, config, passes)
    rate = device_.peak * devices * reached / flops_per_token(config, length)
    if seconds and tokens is None:
        budget_tokens = rate * seconds  # now that the rate is known
    content = {
        "model": _about(config, sizes, kind, length),
        "training": _training(config, sizes, budget_tokens, batch, length),
        "hardware": (
            asdict(device_)
            | {
                "devices": devices,
                "mfu_stated": stated,
                "mfu_from": origin,
                "mfu": reached,
            }
        ),
        "layout": asdict(layout) | {"name": layout.name, "in_langue": layout.here},
        "memory": _memory(config, length, layout, memory, device_),
        "cost": _cost(budget_tokens, rate, device_, devices, pue),
        "measured": measured,
    }
    spent = 6 * sizes.total * budget_tokens
    laws = optima(spent, config.vocab_size)
    whole = content | {
        "optimal": {"flops": spent, "laws": laws},
        "assumed": _assumed(content, layout, pue),
    }
    return Result(whole, print_plan)


def _check(
    which: tuple[Any, Any, Any], tokens: Any, budget: Any, mfu: float | None, pue: float
) -> None:
    size, preset, model = which
    if size is None and preset is None and model is None and budget is None:
        raise SettingsError(
            "there is nothing to plan", do="give --size, --preset, --model or --budget"
        )
    if model is not None and (size is not None or preset is not None):
        raise SettingsError(
            "--model is a model that exists: it has its size", do="leave --size and --preset out"
        )
    for name, value, good in (("mfu", mfu, mfu is None or 0 < mfu <= 1), ("pue", pue, pue >= 1)):
        if not good:
            raise SettingsError(
                f"{name} = {value} is not possible", do="give 0 < mfu <= 1 and pue >= 1"
            )
    if (
        budget is not None
        and tokens is not None
        and not (size is None and preset is None and model is None)
    ):
        raise SettingsError(
            "budget, size and tokens are all given", do="leave one out: it follows from the others"
        )


def count_parameters(config: ModelConfig) -> Sizes:
    """Return the number of parameters, extrapolated from models with one and two blocks, so that
    large models need not be built.
    """
    few = replace(
        config,
        n_layers=1,
        decoder_layers=min(1, config.decoder_layers),
        windows=config.windows[:1],
        layer_groups=min(1, config.layer_groups),
    )
    more = replace(
        few,
        n_layers=2,
        windows=(config.windows or (0,))[:1] * 2 if config.windows else (),
        layer_groups=2 * few.layer_groups,
    )
    one, two = (
        sum(math.prod(shape) for shape in parameters(each).values()) for each in (few, more)
    )
    if config.decoder_layers:
        deeper = replace(few, decoder_layers=2)
        third = sum(math.prod(shape) for shape in parameters(deeper).values())
        blocks = config.n_blocks * (two - one) + config.decoder_layers * (third - one)
        return Sizes(one - (two - one) - (third - one) + blocks, blocks)
    blocks = config.n_blocks * (two - one)
    return Sizes(one - (two - one) + blocks, blocks)


def _budget(
    budget: str | float | None, hardware: str, devices: int | None
) -> tuple[float, float, str, int]:
    """Return operations or seconds (the other is 0), hardware, and number of devices."""
    if budget is None:
        return 0.0, 0.0, hardware, 1 if devices is None else devices
    if found := _TIME.fullmatch(str(budget)):
        if devices is not None or hardware != "here":
            raise SettingsError(
                "the budget names hardware and devices already",
                do="leave --hardware and --devices out",
            )
        seconds = float(found[3]) * UNITS[found[4].lower()]
        if seconds <= 0:
            raise SettingsError(
                f"the budget {budget!r} is nothing", do="write it like '8 h100 for 3 days'"
            )
        return 0.0, seconds, found[2], int(found[1])
    try:
        flops = float(str(budget))
    except ValueError:
        flops = math.nan
    if not 1e9 <= flops <= 1e30:
        raise SettingsError(
            f"the budget {budget!r} is not understood", do="write 1e21, or '8 h100 for 3 days'"
        )
    return flops, 0.0, hardware, 1 if devices is None else devices


def _hardware(name: str) -> Hardware:
    """Return the hardware of a name; `here` is looked up in the table if known, otherwise
    measured.
    """
    if name != "here":
        return find(name)
    place = device()
    dtype = precision()
    if place.type == "cuda":
        properties = torch.cuda.get_device_properties(place)
        memory = float(properties.total_memory)
        node = torch.cuda.device_count()
        label = properties.name
        if (known := read(label)) is not None:
            return replace(known, memory=memory, node=node)
    else:
        memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        node = 1
        label = "this machine"
    source = f"matrix products timed here in {str(dtype).removeprefix('torch.')}"
    return Hardware(
        label,
        matmul_rate(dtype),
        memory,
        None,
        node,
        1,
        source,
        True,
        dtype == torch.bfloat16,
        place.type,
    )


def _model(
    size: str | None,
    preset: str | None,
    model: str | Path | None,
    vocabulary: int | None,
    length: int | None,
    flops: float,
    tokens: float | None,
) -> tuple[ModelConfig, str, int]:
    """Return the config, the name of its kind, and the tokens of a sequence."""
    if length is not None and length < 2:
        raise SettingsError(f"length = {length} leaves nothing to predict", do="give at least 2")
    if model is not None:
        if vocabulary is not None:
            raise SettingsError(
                "--vocabulary is of a new model, and --model names one that exists",
                do="leave it out",
            )
        family, config = family_of(describe(model))
        length = length or min(LENGTH, config.longest)
        if length > config.longest:
            raise SettingsError(
                f"the model takes {config.longest:,} tokens, not {length:,}",
                do=f"give --length {config.longest}",
            )
        return config, family.name, length
    if size is None and preset is None:
        size = f"{flops / (6 * tokens) if tokens else by_rule(flops)[0]:.0f}"
    few = size is not None and parse_count(size) < SMALL
    kind = preset or USUAL
    length = length or LENGTH
    return named(kind, vocabulary or (FEW if few else MANY), length, size=size)[1], kind, length


def _batch(given: str | int | None, total: int, tokens: float, length: int) -> int:
    if given is not None:
        batch = parse_count(str(given))
        if batch < length:
            raise SettingsError(
                f"a batch of {batch:,} tokens holds no sequence of {length:,}", do="give more"
            )
        return batch
    usual = next(batch for most, batch in BATCHES if total < most)
    return max(min(usual, 1 << int(math.log2(max(2, tokens / FEWEST_STEPS)))), length)


def _stated(mfu: float | None, measured: dict[str, Any] | None, local: bool) -> tuple[float, str]:
    if mfu is not None:
        return mfu, "given"
    if measured is not None and local:
        return min(1.0, float(measured["mfu"])), "measured here"
    return MFU, "assumed"


def _about(config: ModelConfig, sizes: Sizes, kind: str, length: int) -> dict[str, Any]:
    return {
        "preset": kind,
        "architecture": config.architecture,
        "parameters": sizes.total,
        "outside_blocks": sizes.outside,
        "layers": config.n_layers + config.decoder_layers,
        "width": config.dim,
        "heads": config.n_heads,
        "ffn": config.ffn_dim,
        "vocabulary": config.vocab_size,
        "length": length,
    }


def _training(
    config: ModelConfig, sizes: Sizes, tokens: float, batch: int, length: int
) -> dict[str, Any]:
    return {
        "tokens": round(tokens),
        "tokens_per_parameter": tokens / sizes.total,
        "batch_tokens": batch,
        "steps": math.ceil(tokens / batch),
        "flops": flops_per_token(config, length) * tokens,
        "flops_6nd": 6 * sizes.total * tokens,
        "loss_expected": expected_loss(sizes.total, tokens, config.vocab_size),
        "loss_of_guessing": math.log(config.vocab_size),
    }


def _memory(
    config: ModelConfig, length: int, layout: Layout, memory: Memory, where: Hardware
) -> dict[str, Any]:
    low = 2 if where.bf16 else 4
    keeping = replace(layout, activation_checkpointing=False)
    recomputing = replace(layout, activation_checkpointing=True)
    return asdict(memory) | {
        "total": memory.total,
        "device": where.memory,
        "activations_kept": activations(config, length, keeping, low),
        "activations_recomputed": activations(config, length, recomputing, low),
        "logits_whole": logits(config, length, layout, low, where.room, whole=True),
    }


def _cost(tokens: float, rate: float, where: Hardware, devices: int, pue: float) -> dict[str, Any]:
    seconds = tokens / rate
    watts = where.watts
    return {
        "tokens_per_second": rate,
        "seconds": seconds,
        "days": seconds / UNITS["day"],
        "device_hours": devices * seconds / UNITS["hour"],
        "kwh": None if watts is None else watts * devices * seconds / 3.6e6 * pue,
        "pue": pue,
    }


def _assumed(content: dict[str, Any], layout: Layout, pue: float) -> list[str]:
    """Return the assumptions behind the figures."""
    where = content["hardware"]
    said = []
    if where["mfu_from"] == "assumed":
        said.append(ASSUMED["mfu"])
    if where["mfu_from"] != "given":
        said += [ASSUMED["scale"]] if where["devices"] > where["node"] or layout.tensor > 1 else []
        said += [ASSUMED["activation_checkpointing"]] if layout.activation_checkpointing else []
        said += [ASSUMED["pipeline"]] if layout.pipeline > 1 else []
    said += [ASSUMED["sides"]] if content["model"]["architecture"] == "encoder-decoder" else []
    said += [] if layout.here else [ASSUMED["paper"]]
    said += [ASSUMED["memory"], ASSUMED["time"]]
    said += [ASSUMED["energy"]] if content["cost"]["kwh"] is not None else []
    said += _of_loss(content)
    values = {
        "guessing": content["training"]["loss_of_guessing"],
        "vocabulary": content["model"]["vocabulary"],
    }
    values |= {"mfu": where["mfu_stated"], "pue": pue}
    values["fitted"] = f"{FITTED[0] / 1e6:.0f} million to {FITTED[1] / 1e9:.0f} billion parameters"
    return [line.format(**values) for line in said]


def _of_loss(content: dict[str, Any]) -> list[str]:
    """Return the assumptions behind the expected loss."""
    if content["training"]["loss_expected"] is None:
        return [ASSUMED["guessing"]]
    fitted = FITTED[0] <= content["model"]["parameters"] <= FITTED[1]
    return [] if fitted else [ASSUMED["extrapolated"]]

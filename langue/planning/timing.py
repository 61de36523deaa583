"""Measures how fast this machine trains a model, and how fast it multiplies matrices."""

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from langue.data.batch import Batch, Examples, gather
from langue.errors import SettingsError
from langue.hardware import matmul_rate
from langue.hub.presets import count, sized
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel, init_weights
from langue.runtime import device, precision

# Limits of what is timed: (parameters, tokens of a step).
SMALL = {"cpu": (5_000_000, 1024), "cuda": (500_000_000, 16_384)}
VOCABULARY = 8192  # of the scaled-down model: its output matrix should not dominate it
STEPS = 3


def flops_per_token(config: ModelConfig, length: int) -> float:
    """Return the operations per token of forward and backward pass.

    They are three times those of the matrix products in the forward pass, including attention and
    logits (the convention of PaLM, Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
    """
    vocabulary = config.decoder_vocab_size or config.vocab_size
    return 3 * (
        config.forward_flops([length]) / length
        + 2 * vocabulary * (config.embedding_dim or config.dim)
    )


def time_steps(config: ModelConfig, length: int, peak: float | None = None) -> dict[str, Any]:
    """Train a scaled-down version of the model for a few steps on random tokens, and return its
    speed.

    peak: of this machine, in FLOP/s; None: it is measured.
    """
    if config.decoder_layers:
        raise SettingsError(
            "steps of an encoder-decoder are not timed here", do="leave --measure out"
        )
    place = device()
    dtype = precision()
    most, step = SMALL.get(place.type, SMALL["cpu"])
    small = config
    length = min(length, step)
    if count(config) > most:
        length = min(length, 256) if place.type == "cpu" else length
        narrow = replace(
            config, vocab_size=min(config.vocab_size, VOCABULARY), max_length=max(length, 2)
        )
        # lists with a value for each layer or frequency would not fit a smaller model, and take no
        # time
        plain = replace(
            narrow,
            windows=(),
            layer_groups=min(1, narrow.layer_groups),
            rotary_scaling="none",
            rotary_short=(),
            rotary_long=(),
        )
        small = sized(plain, most)
    model = LanguageModel(small).to(place).train()
    init_weights(model, 0)
    sequences = max(1, step // length)
    batch, labels = _random(small, sequences, length, place)
    seconds = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        with torch.autocast(place.type, dtype, enabled=dtype != torch.float32):
            loss, _ = model.loss(model.body(*batch.inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        seconds.append(time.perf_counter() - began)
        model.zero_grad(set_to_none=True)
    rate = sequences * length / statistics.median(seconds[1:])  # the first step is a warm-up
    peak = peak or matmul_rate(dtype)
    return {
        "parameters": count(small),
        "length": length,
        "tokens_per_step": sequences * length,
        "precision": str(dtype).removeprefix("torch."),
        "tokens_per_second": rate,
        "peak": peak,
        "mfu": rate * flops_per_token(small, length) / peak,
    }


def _random(
    config: ModelConfig, sequences: int, length: int, place: torch.device
) -> tuple[Batch, torch.Tensor]:
    total = sequences * length
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, total + 1).astype(np.int32)
    starts = np.arange(0, total + 1, length)
    examples = Examples(tokens[:-1], starts, None, np.zeros(sequences, np.int32))
    batch = gather(examples, np.arange(sequences), place)
    return batch, torch.from_numpy(tokens[1:].astype(np.int64)).to(place)

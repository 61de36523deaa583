"""Measure tokens per second of GPT-2's training step, for langue and a checkout of nanoGPT.

The smallest GPT-2 (124 million parameters, 1,024 tokens, biases, no dropout) is trained on random
tokens, with bf16 and the compiler on a GPU, gradient clipping and fused AdamW. nanoGPT's steps are
those of its own train.py; langue's are those of its Trainer, as `langue pretrain` builds it. A CPU
gets a small version, which only shows that both sides run.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers import Peer

VOCABULARY = 50_304
WORDS = {"layers": 12, "heads": 12, "width": 768, "block": 1024}
SMALL = {"layers": 2, "heads": 2, "width": 64, "block": 64}
GOAL = 1.25
MFU = 0.5  # required on an H100


class Random:
    """Random documents of eight blocks each, with the interface of a corpus."""

    def __init__(self, documents: int, block: int) -> None:
        self.size = 8 * block - 1  # plus an end token for each
        self.flat = (
            np.random.default_rng(0).integers(1, VOCABULARY, documents * self.size).astype(np.int32)
        )
        self.lengths = np.full(documents, self.size)
        self.n_bytes = 4 * len(self.flat)
        self.sources = [("random", 1.0, 0, documents)]

    def tokens(
        self, documents: NDArray[Any], begin: NDArray[Any], length: NDArray[Any]
    ) -> NDArray[np.int32]:
        starts = documents * self.size + begin
        return np.concatenate(
            [self.flat[a : a + n] for a, n in zip(starts.tolist(), length.tolist(), strict=True)]
        )


def ours(job: dict[str, Any]) -> dict[str, Any]:
    import tokenizers

    from langue.hardware import peak
    from langue.hub.presets import preset
    from langue.model.language_model import LanguageModel, init_weights
    from langue.runtime import precision
    from langue.settings.sections import PRETRAINING, resolve
    from langue.tasks.causal import Causal
    from langue.text.tokenizers.tokenizer import Tokenizer
    from langue.train.trainer import Trainer

    shape = job["shape"]
    steps = job["steps"]
    words = {"<|endoftext|>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    tokenizer = Tokenizer(tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w1")))
    asked = {
        "train.batch_tokens": job["sequences"] * shape["block"],
        "train.max_steps": steps,
        "train.epochs": 1e6,
    }
    settings = resolve(
        PRETRAINING, asked, {"train.checkpoint_every": steps, "train.compile": job["compile"]}
    )
    axes = {"n_layers": shape["layers"], "dim": shape["width"], "n_heads": shape["heads"]}
    still = {"dropout": 0.0, "attention_dropout": 0.0}
    network = LanguageModel(preset("gpt2", VOCABULARY, shape["block"], axes=axes | still)[1])
    init_weights(network, 0)
    objective = Causal(tokenizer, settings.task, seed=0)
    stream = objective.stream(
        Random(max(8, job["sequences"]), shape["block"]),
        block=shape["block"],
        budget=settings.train.batch_tokens,
        seed=0,
    )
    device_peak = peak(precision(settings.train.precision))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            network, objective, stream, None, settings.train, Path(folder), peak=device_peak
        ).run()
        lines = [
            json.loads(line)
            for line in (Path(folder) / "log.jsonl").read_text("utf-8").splitlines()
        ]
    first = lines[job["skip"] - 1]
    last = lines[-1]
    return _answer(
        job, (last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]), device_peak
    )


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    from langue.hardware import peak
    from langue.runtime import device, precision

    sys.path.insert(0, job["nanogpt"])
    from model import GPT, GPTConfig

    shape = job["shape"]
    place = device()
    dtype = precision()
    torch.backends.cuda.matmul.allow_tf32 = True
    sizes = {"n_layer": shape["layers"], "n_head": shape["heads"], "n_embd": shape["width"]}
    made = GPT(
        GPTConfig(block_size=shape["block"], vocab_size=VOCABULARY, dropout=0.0, bias=True, **sizes)
    ).to(place)
    optimizer = made.configure_optimizers(0.1, 1e-3, (0.9, 0.95), place.type)
    model = torch.compile(made) if job["compile"] else made
    data = torch.from_numpy(Random(max(8, job["sequences"]), shape["block"]).flat.astype(np.int64))

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.randint(len(data) - shape["block"], (job["sequences"],)).tolist()
        x, y = (torch.stack([data[i + k : i + k + shape["block"]] for i in at]) for k in (0, 1))
        if place.type == "cuda":
            x = x.pin_memory()
            y = y.pin_memory()
        return x.to(place, non_blocking=True), y.to(place, non_blocking=True)

    x, y = batch()
    for step in range(job["steps"]):
        if step == job["skip"]:
            began = _now(place)
        with torch.autocast(place.type, dtype, enabled=dtype != torch.float32):
            _, loss = model(x, y)
        x, y = batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = _now(place) - began
    tokens = (job["steps"] - job["skip"]) * job["sequences"] * shape["block"]
    return _answer(job, tokens / seconds, peak(dtype))


def _now(place: torch.device) -> float:
    if place.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _answer(job: dict[str, Any], speed: float, peak: float) -> dict[str, Any]:
    """Return the speed, and the fraction of the peak with the same count of operations for both."""
    from langue.hub.presets import preset
    from langue.planning.timing import flops_per_token

    shape = job["shape"]
    axes = {"n_layers": shape["layers"], "dim": shape["width"], "n_heads": shape["heads"]}
    config = preset("gpt2", VOCABULARY, shape["block"], axes=axes)[1]
    return {
        "speed": speed,
        "unit": "tokens/s",
        "mfu": speed * flops_per_token(config, shape["block"]) / peak,
    }


PEERS: dict[str, Peer] = {"gpt2-langue": ours, "gpt2-nanogpt": theirs}

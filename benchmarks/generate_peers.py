"""Measure the CPU time of generation by langue, with weights of each kind, and by transformers.

The tasks are one request, 16 requests of mixed lengths at once, a prompt of 256 tokens, and the
part of a step outside of matrix products. The weights are random; time does not depend on them, and
no text ends before its limit. The measure is the CPU time of the process with one thread, the
minimum over the rounds, with the sides in turn. transformers generates in one padded batch, of
which only the requested tokens count; its continuous batching (`generate_batch` of 5.24) gave no
answer on a CPU within 40 s, with three prompts and a model of two layers, and is left out.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks import results
from benchmarks.machine import facts
from langue.generation.engine import Engine
from langue.generation.request import Request
from langue.generation.sample import Sampling
from langue.hub.presets import preset
from langue.model.language_model import LanguageModel, init_weights
from langue.model.native import Native, native
from langue.model.weight_linear import with_weights

KINDS = ("fp32", "bf16", "int8", "int4")
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "title": "GPT-2 of 124M",
        "vocabulary": 50257,
        "positions": 1024,
        "axes": {"n_layers": 12, "dim": 768, "n_heads": 12},
        "theirs": ("GPT2Config", {}),
    },
    "llama": {
        "title": "Llama of 1.1B",
        "vocabulary": 32000,
        "positions": 2048,
        "axes": {"n_layers": 22, "dim": 2048, "n_heads": 32, "n_kv_heads": 4, "ffn_dim": 5632},
        "theirs": (
            "LlamaConfig",
            {
                "hidden_size": 2048,
                "intermediate_size": 5632,
                "num_hidden_layers": 22,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
            },
        ),
    },
}
PROMPT = 64  # tokens of the prompt in the decoding task
DECODED = 24
PREFILL = 256
REQUESTS = 16
WORKS = ("decode", "outside the products", "prefill", "16 requests")  # in the order of the table

# CPU seconds per token, for all requests, or for a prompt
Measured = dict[str, float]


def run(shape: str, rounds: int) -> None:
    torch.set_num_threads(1)
    kernels = native()
    if kernels is None:
        raise SystemExit("no native kernels here: nothing to compare")
    machine = facts()
    chosen = SHAPES[shape]
    requests = _requests(chosen["vocabulary"])
    sides: dict[str, Callable[[], Measured]] = {}
    axes = chosen["axes"] | {"dropout": 0.0, "attention_dropout": 0.0}
    config = preset(shape, chosen["vocabulary"], chosen["positions"], axes=axes)[1]
    model = LanguageModel(config)
    init_weights(model, 0)
    for kind in KINDS:
        engine = Engine(with_weights(model, kind), rows=REQUESTS)
        sides[f"langue {kind}"] = lambda engine=engine: _ours(engine, requests, kernels)  # type: ignore[misc]
    theirs = _their_model(chosen)
    sides["transformers fp32"] = lambda: _theirs(theirs, requests)
    best: dict[str, Measured] = {name: {} for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            for work, seconds in measure().items():
                best[name][work] = min(seconds, best[name].get(work, seconds))
    tokens = sum(count for _, count in requests)
    text = _table(f"{chosen['title']}, {machine['processor']}, one thread", best, tokens)
    print(text)
    print(results.save(f"generate-{shape}", {"machine": machine, "found": best}, text))


def _requests(vocabulary: int) -> list[tuple[list[int], int]]:
    """Return prompts, and the number of new tokens for each."""
    draw = random.Random(0)
    found = []
    for _ in range(REQUESTS):
        prompt = _prompt(draw, vocabulary, draw.randint(16, 192))
        found.append((prompt, draw.randint(8, 48)))
    return found


def _prompt(draw: random.Random, vocabulary: int, length: int) -> list[int]:
    return [draw.randrange(vocabulary) for _ in range(length)]


def _ours(engine: Engine, requests: list[tuple[list[int], int]], kernels: Native) -> Measured:
    """Measure langue's engine. No two prompts are equal, so that none is in the prefix cache."""
    draw = random.Random()
    size = engine.vocabulary

    def ask(length: int, tokens: int) -> None:
        engine.submit(Request(_prompt(draw, size, length), Sampling(max_tokens=tokens)))

    found: Measured = {}
    ask(PREFILL, 1)
    found["prefill"] = _cpu_time(engine.run)
    ask(PROMPT, 2 + 2 * DECODED)
    engine.step()
    engine.step()
    steps = [_cpu_time(engine.step) for _ in range(DECODED)]
    found["decode"] = sorted(steps)[DECODED // 2]
    outside = []
    with _clocked(kernels) as products:
        for _ in range(DECODED):
            products.clear()
            step = _cpu_time(engine.step)
            outside.append(step - sum(products))
    found["outside the products"] = sorted(outside)[DECODED // 2]
    engine.run()
    for prompt, tokens in requests:
        ask(len(prompt), tokens)
    found["16 requests"] = _cpu_time(engine.run)
    engine.answers.clear()
    return found


@contextmanager
def _clocked(kernels: Native) -> Iterator[list[float]]:
    """Record the CPU time of each product within this context, including the call from Python."""
    found: list[float] = []
    plain = kernels.linear

    def linear(*operands: Any) -> Tensor:
        began = time.process_time()
        out = plain(*operands)
        found.append(time.process_time() - began)
        return out

    kernels.linear = linear  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del kernels.linear


def _their_model(chosen: dict[str, Any]) -> Any:
    """Return transformers' model of the same shape with random weights and no end token."""
    import transformers

    name, axes = chosen["theirs"]
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    config = getattr(transformers, name)(vocab_size=chosen["vocabulary"], **axes, **ids)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def _theirs(model: Any, requests: list[tuple[list[int], int]]) -> Measured:
    draw = random.Random(0)
    size = model.config.vocab_size

    def seconds(prompts: list[list[int]], tokens: int) -> float:
        longest = max(len(prompt) for prompt in prompts)
        padded = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
        mask = [[int(i >= longest - len(each)) for i in range(longest)] for each in prompts]
        given = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}
        with torch.no_grad():
            return _cpu_time(
                lambda: model.generate(**given, max_new_tokens=tokens, do_sample=False)
            )

    prompt = _prompt(draw, size, PROMPT)
    return {
        "prefill": seconds([_prompt(draw, size, PREFILL)], 1),
        "decode": (seconds([prompt], 1 + DECODED) - seconds([prompt], 1)) / DECODED,
        "16 requests": seconds([each for each, _ in requests], max(count for _, count in requests)),
    }


def _cpu_time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _table(title: str, best: dict[str, Measured], tokens: int) -> str:
    lines = [
        f"### Generation: {title}",
        "",
        f"CPU time in ms: of a token after {PROMPT}, of that what is outside the products, of a"
        f" prompt of {PREFILL} tokens; {REQUESTS} requests of mixed lengths, {tokens} new tokens.",
        "",
        f"| side | decode | outside | prefill | {REQUESTS} requests | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in best.items():
        cells = []
        for work in WORKS:
            cells.append(f"{1000 * found[work]:.2f}" if work in found else "")
        rate = f"{tokens / found['16 requests']:.1f}" if "16 requests" in found else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {rate} |")
    padded = best["transformers fp32"]
    for name, found in best.items():
        if name.startswith("langue"):
            ratios = [
                f"{work} {padded[work] / found[work]:.2f}"
                for work in ("decode", "prefill", "16 requests")
            ]
            lines.append(f"\n{name} is faster than transformers in fp32 by: {', '.join(ratios)}")
    return "\n".join(lines) + "\n"

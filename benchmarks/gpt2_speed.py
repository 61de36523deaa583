"""Compare the speed of GPT-2's training step in langue and nanoGPT; on a GPU with a given number of
sequences per step.
"""

import statistics
from pathlib import Path

import torch

from benchmarks import results
from benchmarks.gpt2_peers import GOAL, MFU, SMALL, WORDS
from benchmarks.machine import facts
from benchmarks.peers import take_turns
from langue.runtime import device

STEPS = 40
SKIP = 15  # the number of steps for warm-up, including compilation


def run(nanogpt: Path, rounds: int, patience: float, sequences: int) -> None:
    gpu = device().type == "cuda"
    job = {"nanogpt": str(nanogpt.resolve()), "steps": STEPS, "skip": SKIP, "compile": gpu}
    job |= {"shape": WORDS if gpu else SMALL, "sequences": sequences if gpu else 8}
    answers = take_turns(["gpt2-nanogpt", "gpt2-langue"], rounds, patience, lambda name: job)
    ratios = [
        mine["speed"] / other["speed"]
        for mine, other in zip(answers["gpt2-langue"], answers["gpt2-nanogpt"], strict=True)
    ]
    where = (
        torch.cuda.get_device_name() if gpu else "a processor, a small model: no figure to go by"
    )
    shape = job["shape"]
    size = (
        f"{shape['layers']} layers, width {shape['width']}, {job['sequences']} x {shape['block']}"
        " tokens"
    )
    lines = [
        f"### GPT-2's step: {size}, {where}",
        "",
        "| side | tokens/s, median | share of the peak | rounds |",
        "|---|---|---|---|",
    ]
    for name, found in answers.items():
        speeds = [each["speed"] for each in found]
        share = statistics.median(each["mfu"] for each in found)
        shown = ", ".join(f"{speed:,.0f}" for speed in speeds)
        lines.append(
            f"| {name.removeprefix('gpt2-')} | {statistics.median(speeds):,.0f} | {share:.1%} |"
            f" {shown} |"
        )
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    lines += [
        "",
        (
            f"langue is {told} times as fast (asked of an H100: {GOAL} times, at {MFU:.0%} of the"
            " peak)"
        ),
        "",
    ]
    print("\n".join(lines))
    print(
        results.save("gpt2", {"machine": facts(), "job": job, "answers": answers}, "\n".join(lines))
    )

"""Measure examples per second of fine-tuning, for langue and HF's Trainer."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import material, results
from benchmarks.finetune_peers import best_options
from benchmarks.machine import facts, floor_seconds, precisions, rates
from benchmarks.noise import wait_until_quiet
from benchmarks.peers import take_turns
from langue.hub.checkpoint import describe, read_checkpoint

DEFAULTS = "hf:defaults"
BEST = "hf:best options"
EXAMPLES = 4000
# the first quarter is not timed
STEPS = {"review-like": 24, "sentence-like": 60}


def run(
    model: str | None, rounds: int, scale: float, profiles: list[str], pooling: str, patience: float
) -> None:
    """Measure both length profiles; `scale` multiplies the steps, for a quick look."""
    folder = material.model_folder(model)
    config = read_checkpoint(describe(folder)).config
    machine = facts()
    wait_until_quiet(patience)
    measured = rates(config)
    text = results.machine_text(machine, measured)
    print(text)
    content: dict[str, Any] = {"machine": machine, "rates": measured, "profiles": {}}
    for profile in (material.REVIEWS, material.SENTENCES):
        if profile.name not in profiles:
            continue
        steps = max(8, round(STEPS[profile.name] * scale))
        made = material.make(profile, EXAMPLES, folder)
        best = measured[precisions()[-1]]
        floor = EXAMPLES / floor_seconds(config, made.lengths, best, training=True)
        title = (
            f"fine-tune, {profile.name}: batches of 32, {made.origin}, longest {profile.longest},"
            f" {steps} steps"
        )
        print(f"{title}\n  floor: {floor:.1f} examples/s")
        lines = _profile(folder, made, rounds, steps, pooling, floor, patience)
        content["profiles"][profile.name] = {"floor": floor, "lines": lines}
        shown = results.table(title, "langue", lines)
        text += f"\n{shown}\nfloor: {floor:.1f} examples/s\n"
        print(shown)
    print(results.save("finetune", content, text))


def _profile(
    folder: Path,
    made: material.Material,
    rounds: int,
    steps: int,
    pooling: str,
    floor: float,
    patience: float,
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "material.json"
        material.write(made, path)
        shared = {
            "material": str(path),
            "model": str(folder),
            "steps": steps,
            "skip": steps // 4,
            "pooling": pooling,
        }
        options = {DEFAULTS: {}, BEST: best_options()}
        names = ["langue", DEFAULTS, BEST]
        answers = take_turns(
            names, rounds, patience, lambda name: shared | {"options": options.get(name, {})}
        )
    return results.summary(answers, "langue", dict.fromkeys(names, floor))

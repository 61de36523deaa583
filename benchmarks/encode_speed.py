"""Measure texts per second of encoding, for langue and its peers, with errors."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks import material, results
from benchmarks.machine import facts, floor_seconds, precisions, rates
from benchmarks.noise import wait_until_quiet
from benchmarks.peers import take_turns
from langue.hub.checkpoint import describe, read_checkpoint

TEXTS = 512


def run(model: str | None, rounds: int, patience: float) -> None:
    folder = material.model_folder(model)
    config = read_checkpoint(describe(folder)).config
    machine = facts()
    wait_until_quiet(patience)
    measured = rates(config)
    text = results.machine_text(machine, measured)
    made = material.make(material.ENCODING, TEXTS, folder)
    floors = {
        name: TEXTS / floor_seconds(config, made.lengths, measured[name], training=False)
        for name in precisions()
    }
    title = f"encode {TEXTS} texts, {made.origin}, longest {material.ENCODING.longest}"
    print(
        f"{text}{title}\n  floor: "
        + ", ".join(f"{n} {speed:.0f} texts/s" for n, speed in floors.items())
    )
    jobs: dict[str, dict[str, Any]] = {}
    for name in precisions():
        jobs |= {
            f"encode:{name}": {"precision": name},
            f"encode_hf:{name} unsorted": {"precision": name, "sort": False},
            f"encode_hf:{name} sorted": {"precision": name, "sort": True},
        }
    jobs |= {"encode_onnx:int8 sorted": {}, "encode_ctranslate2:int8 sorted": {}}
    ours = f"encode:{precisions()[-1]}"
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "material.json"
        material.write(made, path)
        shared = {"material": str(path), "model": str(folder), "check": True}
        answers = take_turns(list(jobs), rounds, patience, lambda name: shared | jobs[name])
    floor = {name: floors[p] for name in answers for p in floors if f":{p}" in name}
    lines = results.summary(answers, ours, floor)
    shown = results.table(title, ours, lines)
    print(shown)
    content = {"machine": machine, "rates": measured, "floors": floors, "lines": lines}
    print(results.save("encode", content, f"{text}\n{shown}"))

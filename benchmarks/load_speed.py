"""Compare the seconds and memory of loading a model in langue and transformers.

transformers saves random models of published shapes, in fp32 and in bf16, in shards. Every load is
a separate process that has imported all it needs; the sides run in turn; the files are in the page
cache. Memory is measured in separate rounds: the peak of resident memory (the kernel's high-water
mark, reset after the imports), and the peak of its anonymous part, read from outside every few
milliseconds. Unmodified pages of mapped files belong to the page cache: they count as resident, and
the kernel reclaims them when it needs memory.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.machine import facts
from benchmarks.noise import wait_until_quiet

SIDES = ("langue", "transformers")
DTYPES = ("fp32", "bf16")
EVERY = 0.003  # seconds between two readings of a child's memory
MOST = 1.1  # limit, as a multiple of the model's bytes
SHARD = {"gpt2": "200MB", "llama": "1GB"}


def run(rounds: int, patience: float, folder: Path | None) -> None:
    """Run the comparison. folder: where the models are created and kept; None: a temporary folder
    (8 GB).
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        models = {name: _models(place, name) for name in SHARD}
        wait_until_quiet(patience)
        lines = []
        for name, saved in models.items():
            for dtype in DTYPES:
                for stored, path in saved.items():
                    lines.append(
                        {
                            "model": name,
                            "stored": stored,
                            "as": dtype,
                            **_measure(path, dtype, rounds),
                        }
                    )
                    print(_row(lines[-1]), flush=True)
    text = _table(lines)
    print(text)
    print(results.save("load", {"machine": facts(), "lines": lines}, text))


def _models(place: Path, name: str) -> dict[str, Path]:
    """Return the folders of one model by stored precision, and create them if they are missing."""
    folders = {dtype: place / f"{name}-{dtype}" for dtype in DTYPES}
    if not all((folder / "tokenizer.json").is_file() for folder in folders.values()):
        subprocess.run(
            [sys.executable, "-m", "benchmarks.load_speed", str(place), name], check=True
        )
    return folders


def _make(place: Path, name: str) -> None:
    """Save random weights with the shape of GPT-2 (124M) or TinyLlama (1.1B), by transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    shape = {
        "hidden_size": 2048,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    }
    if name == "gpt2":
        model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    else:
        config = transformers.LlamaConfig(vocab_size=32000, intermediate_size=5632, **shape)
        model = transformers.LlamaForCausalLM(config)
    for dtype, kind in zip(DTYPES, (torch.float32, torch.bfloat16), strict=True):
        folder = place / f"{name}-{dtype}"
        model.to(kind).save_pretrained(folder, max_shard_size=SHARD[name])
        _tokenizer(model.config.vocab_size).save(str(folder / "tokenizer.json"))


def _tokenizer(size: int) -> Any:
    """Return a byte-level BPE with as many tokens as the model has embeddings; each merge joins two
    bytes.
    """
    import tokenizers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a in letters for b in letters][: size - len(letters)]
    tokens = {token: number for number, token in enumerate([*letters, *(a + b for a, b in merges)])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=tokens, merges=merges))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend


def _measure(folder: Path, dtype: str, rounds: int) -> dict[str, Any]:
    """Measure both sides in turn: one warm-up round, then rounds for time, then rounds for
    memory.
    """
    timed: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    held: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(-1, rounds):
        for side in SIDES if number % 2 else SIDES[::-1]:
            answer = _child(side, folder, dtype, watch=False)
            timed[side] += [answer] if number >= 0 else []
    for _ in range(min(rounds, 3)):
        for side in SIDES:
            held[side].append(_child(side, folder, dtype, watch=True))
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    width = {"fp32": 4, "bf16": 2}
    model = stored * width[dtype] // width[folder.name.rpartition("-")[2]]
    sides = {side: _side(timed[side], held[side], model) for side in SIDES}
    seconds = [
        ours["seconds"] / theirs["seconds"] for ours, theirs in zip(*timed.values(), strict=True)
    ]
    return {
        "bytes": model,
        "time_ratio": statistics.median(seconds),
        "time_ratios": seconds,
        **sides,
    }


def _side(timed: list[dict[str, Any]], held: list[dict[str, Any]], model: int) -> dict[str, Any]:
    times = {
        key: statistics.median(each[key] for each in timed)
        for key in ("load", "use", "seconds", "imports")
    }
    sizes = {
        key: max(each[key] for each in held) / model
        for key in ("peak", "anonymous_peak", "anonymous", "mapped")
    }
    return (
        times
        | sizes
        | {
            "rounds": [each["seconds"] for each in timed],
            "answer": timed[0]["answer"],
        }
    )


def _child(side: str, folder: Path, dtype: str, *, watch: bool) -> dict[str, Any]:
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    quiet |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load_peers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | quiet,
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    child.stdin.write(json.dumps({"side": side, "folder": str(folder), "dtype": dtype}) + "\n")
    child.stdin.flush()
    child.stdout.readline()
    child.stdin.write("go\n")
    child.stdin.flush()
    highest = 0
    while watch and child.poll() is None:
        highest = max(highest, _anonymous(child.pid))
        time.sleep(EVERY)
    said, complaint = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{side} failed:\n{complaint[-4000:]}")
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer | {"anonymous_peak": highest - answer["before"]}


def _anonymous(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


HEADER = """### Loading, one thread, files in the page cache

Memory as a multiple of the model's bytes in the precision asked for: `peak` is the most resident
at any time, mapped file pages included; `anonymous` the most that is not of a mapped file.

| model | stored | as | seconds, langue | transformers | ratio | peak, langue | transformers \
| anonymous, langue | transformers |
|---|---|---|---|---|---|---|---|---|---|
"""


def _row(line: dict[str, Any]) -> str:
    ours = line["langue"]
    theirs = line["transformers"]
    return (
        f"| {line['model']} {line['bytes'] / 1e9:.2f} GB | {line['stored']} | {line['as']} |"
        f" {ours['seconds']:.2f} | {theirs['seconds']:.2f} | {line['time_ratio']:.2f} |"
        f" {ours['peak']:.2f} | {theirs['peak']:.2f} | {ours['anonymous_peak']:.2f} |"
        f" {theirs['anonymous_peak']:.2f} |"
    )


def _table(lines: list[dict[str, Any]]) -> str:
    slower = [line for line in lines if line["time_ratio"] > 1]
    larger = [
        line for line in lines if line["langue"]["peak"] > max(MOST, line["transformers"]["peak"])
    ]
    above = [line for line in lines if line["langue"]["peak"] > MOST]
    said = (
        f"{len(slower)} of {len(lines)} slower, {len(larger)} with a higher peak, {len(above)}"
        f" above {MOST} models\n"
    )
    return HEADER + "\n".join(_row(line) for line in lines) + "\n\n" + said


if __name__ == "__main__":
    _make(Path(sys.argv[1]), sys.argv[2])

"""Load a model with one side in a process of its own; report the time and memory.

`python -m benchmarks.load_peers` reads a folder, a precision and a side as a line of JSON on stdin.
It imports what the side needs, prints "ready", waits for a line, loads the model, uses every
weight, and prints the kernel's figures of its memory as JSON.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()
TOKENS = 8


def memory() -> dict[str, int]:
    """Return the memory of this process in bytes: resident, anonymous, mapped files, and the peak
    since the last reset.
    """
    names = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped", "VmHWM": "peak"}
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {
        names[line[0][:-1]]: int(line[1]) * 1024 for line in lines if line and line[0][:-1] in names
    }


def proportional() -> int:
    """Return the proportional set size of this process in bytes: shared pages are divided among
    their users.
    """
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def load_langue(folder: str, dtype: str) -> Any:
    import langue

    return langue.load(folder, dtype=dtype)


def load_transformers(folder: str, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    # because langue's model includes a tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval(), tokenizer


def prepare(side: str) -> None:
    """Import everything that the load will use, and initialise the matrix library."""
    import torch

    torch.set_num_threads(1)
    (torch.ones(8, 8) @ torch.ones(8, 8)).sum()
    if side == "langue":
        from langue.runs import model  # noqa: F401
    else:
        from transformers import (  # noqa: F401
            AutoModelForCausalLM,
            GPT2LMHeadModel,
            LlamaForCausalLM,
            PreTrainedTokenizerFast,
        )


def use(side: str, model: Any, dtype: str) -> float:
    """Run a forward pass of eight tokens; for bf16, which the hardware may not multiply, take the
    maximum of every weight instead.
    """
    import torch

    ids = list(range(1, TOKENS + 1))
    if dtype == "bf16":
        module = (model.language or model.body) if side == "langue" else model[0]
        whole = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
        # in storage order: reading a transposed matrix by rows takes ten times as long
        with torch.no_grad():
            lying = (w if w.is_contiguous() else w.t() for w in module.parameters())
            return float(sum(int(w.view(whole[w.dtype]).max()) for w in lying))
    if side == "langue":
        return float(model.logits([ids])[0][-1].max())
    with torch.inference_mode():
        return float(model[0](torch.tensor([ids])).logits[0, -1].max())


def main() -> None:
    job = json.loads(sys.stdin.readline())
    prepare(job["side"])
    imported = time.perf_counter() - BEGAN
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = memory()
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    model = {"langue": load_langue, "transformers": load_transformers}[job["side"]](
        job["folder"], job["dtype"]
    )
    loaded = time.perf_counter()
    answer = use(job["side"], model, job["dtype"])
    ended = time.perf_counter()
    after = memory()
    told = {
        "load": loaded - began,
        "use": ended - loaded,
        "seconds": ended - began,
        "imports": imported,
    }
    grown = {name: after[name] - before["resident" if name == "peak" else name] for name in after}
    print(
        json.dumps(
            {
                **told,
                **grown,
                "before": before["anonymous"],
                "pss": proportional(),
                "answer": answer,
            }
        )
    )


if __name__ == "__main__":
    main()

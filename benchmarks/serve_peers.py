"""Compare the speed of `langue serve` with other servers, for the same model on the same machine,
and measure the overhead of HTTP over the engine.

Embeddings: 32 callers send 512 short texts, one per call, to langue and to a plain FastAPI route
around sentence-transformers. Chat: 16 callers with mixed lengths stream from langue, from
`transformers serve`, and from llama.cpp's server if its program is given; the same requests also go
to the engine in process. The sides run in turn, and the best round of each is reported. No side has
the prompts in a cache, except the first one. Times are wall-clock; CPU seconds, which other work on
the machine does not affect, are reported in addition.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.hostile_load import make_model
from benchmarks.machine import facts
from benchmarks.material import SENTENCES, make, model_folder
from benchmarks.served import Served, at_once, free_port, percentiles, post, served, stream

CALLERS = 32
TEXTS = 512
CHATS = 16
PROMPT = "Once upon a time there was a little girl who liked to play in the park. "
Measured = dict[str, Any]


def run(model: str | None, rounds: int, scale: float, llama: Path | None) -> None:
    """Run the comparison.

    scale: factor of the number of texts and the lengths of answers. llama: the program
    `llama-server`, which is then measured with f16 and q8_0, and langue with int8 too.
    """
    machine = facts()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        encoder = model_folder(model)
        texts = make(SENTENCES, max(CALLERS, int(TEXTS * scale)), encoder).texts
        found = _turns(
            rounds,
            {
                "langue serve": lambda: _embed(*_ours(encoder), texts, folder, "/v1/embeddings"),
                "plain route": lambda: _embed(*_plain(encoder), texts, folder, "/embed"),
            },
        )
        writer = make_writer(folder / "writer")
        chats = [_chat(index, scale, writer) for index in range(CHATS)]
        words = ["transformers.cli.transformers", "serve", str(writer), "--port"]
        sides: dict[str, Callable[[], Measured]] = {
            "langue serve, chat": lambda: _talk(*_ours(writer), chats, folder),
            "transformers serve": lambda: _talk(*_with_port(words), chats, folder),
            "engine in process": lambda: _in_process(writer, chats),
        }
        if llama is not None:
            int8 = ["--weights", "int8"]
            sides["langue serve, chat, int8"] = lambda: _talk(*_ours(writer, int8), chats, folder)
            for dtype in ("f16", "q8_0"):
                command = _llama(llama, writer, dtype)
                sides[f"llama.cpp, {dtype}"] = partial(_talk_to, command, chats, folder)
        found |= _turns(rounds, sides)
    text = _table(machine, found)
    print(text)
    print(results.save("serve", {"machine": machine, "found": found}, text))


def make_writer(folder: Path) -> Path:
    """Write a Llama with 27 million random weights and the tokenizer of the stories model: large
    enough that a step takes milliseconds, as in models that are served.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = json.loads((make_model(folder) / "config.json").read_text("utf-8"))
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "head_dim": 64}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config | sizes | heads)).save_pretrained(folder)
    return folder


def _turns(rounds: int, sides: dict[str, Callable[[], Measured]]) -> dict[str, Measured]:
    """Return the best round of each side."""
    best: dict[str, Measured] = {}
    for _ in range(rounds):
        for name, measure in sides.items():
            one = measure()
            if name not in best or one["speed"] > best[name]["speed"]:
                best[name] = one
    return best


def _with_port(words: list[str]) -> tuple[list[str], int]:
    port = free_port()
    return [*words, str(port)], port


def _ours(folder: Path, more: Sequence[str] = ()) -> tuple[list[str], int]:
    return _with_port(["langue", "serve", str(folder), "--memory", "2GB", *more, "--port"])


def _llama(program: Path, folder: Path, dtype: str) -> list[str]:
    """Return the command of llama.cpp's server without the port, with a slot for each caller."""
    import langue

    file = folder.with_suffix(f".{dtype}.gguf")
    langue.convert(folder, file, dtype=dtype)
    context = str(CHATS * 512)
    places = ["--parallel", str(CHATS), "--ctx-size", context, "--alias", folder.name]
    return [str(program), "--model", str(file), *places, "--port"]


def _talk_to(command: list[str], chats: list[Any], folder: Path) -> Measured:
    return _talk(*_with_port(command), chats, folder)


def _plain(folder: Path) -> tuple[list[str], int]:
    return _with_port(["benchmarks.serve_peers", str(folder)])


def _embed(words: list[str], port: int, texts: list[str], folder: Path, route: str) -> Measured:
    name = "model" if words[0].startswith("benchmarks") else Path(words[2]).name

    def call(text: str) -> None:
        post(port, route, {"model": name, "input": text})

    with served(words, port, folder / "log") as server:
        at_once(CALLERS, call, texts[:CALLERS])
        return _timed(server, lambda: at_once(CALLERS, call, texts), len(texts), "texts/s")


def _timed(server: Served, work: Callable[[], Any], count: int, unit: str) -> Measured:
    cpu = server.cpu()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    cpu = server.cpu() - cpu
    return {"speed": count / seconds, "by cpu": count / cpu, "unit": unit}


def _chat(index: int, scale: float, folder: Path) -> dict[str, Any]:
    """Return a request with one of several lengths of prompt and answer."""
    content = PROMPT * (1 + index % 4)
    length = max(4, int((24 + 12 * (index % 5)) * scale))
    return {
        "model": folder.name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": length,
        "temperature": 0,
    }


def _talk(words: list[str], port: int, chats: list[Any], folder: Path) -> Measured:
    is_transformers = words[0].startswith("transformers")
    asked = [{**each, "model": words[2]} if is_transformers else each for each in chats]
    heard: list[Any] = []
    with served(words, port, folder / "log") as server:
        stream(port, asked[0])

        def work() -> None:
            heard.extend(at_once(CHATS, lambda each: stream(port, each), asked))

        tokens = sum(each["max_tokens"] for each in chats)
        measured = _timed(server, work, tokens, "tokens/s")
    between = [seconds for each in heard for seconds in each.between]
    measured["chunks"] = sum(each.tokens for each in heard)
    measured["first"] = percentiles([each.first for each in heard])
    measured["between"] = percentiles(between)
    return measured


def _in_process(folder: Path, chats: list[Any]) -> Measured:
    """Measure the engine alone, in this process."""
    import langue

    model = langue.load(folder, dtype="auto")
    best: Measured = {"speed": 0.0}
    for _ in range(3):
        engine = model.engine(rows=CHATS)  # with an empty prefix cache
        engine.submit(chats[0]["messages"], max_tokens=4, temperature=0)
        while engine.has_work:
            engine.step()
        cpu, began = time.process_time(), time.perf_counter()
        for each in chats:
            engine.submit(each["messages"], max_tokens=each["max_tokens"], temperature=0)
        written = 0
        while engine.has_work:
            written += sum(len(delta.tokens) for delta in engine.step())
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        one = {"speed": written / seconds, "by cpu": written / cpu, "unit": "tokens/s"}
        best = max(best, one, key=lambda found: found["speed"])
    return best


def _table(machine: dict[str, Any], found: dict[str, Measured]) -> str:
    rows = [
        f"### Serving, {machine['processor']}, {machine['cores']} cores, load before:"
        f" {machine['load_before']}",
        "",
        "| side | speed | by the processor's seconds | first token, ms, p50 / p95 / p99 | between"
        " tokens |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        rows.append(
            f"| {name} | {one['speed']:.1f} {one['unit']} | {one['by cpu']:.1f} |"
            f" {one.get('first', '')} | {one.get('between', '')} |"
        )
    pairs = (
        ("langue serve", "plain route"),
        ("langue serve, chat", "transformers serve"),
        ("langue serve, chat", "engine in process"),
        ("langue serve, chat", "llama.cpp, f16"),
        ("langue serve, chat, int8", "llama.cpp, q8_0"),
    )
    for ours, theirs in pairs:
        if theirs not in found:
            continue
        ratio = found[ours]["speed"] / found[theirs]["speed"]
        by_cpu = found[ours]["by cpu"] / found[theirs]["by cpu"]
        rows += ["", f"{ours} over {theirs}: {ratio:.2f}; by processor seconds: {by_cpu:.2f}"]
    return "\n".join([*rows, ""])


def _serve_plainly(folder: str, port: int) -> None:
    """Run the peer, a route of FastAPI around sentence-transformers."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    app = FastAPI()

    class Asked(BaseModel):
        model: str
        input: str

    @app.post("/embed")
    def embed(asked: Asked) -> dict[str, Any]:
        return {"embedding": model.encode(asked.input, show_progress_bar=False).tolist()}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    _serve_plainly(sys.argv[1], int(sys.argv[2]))

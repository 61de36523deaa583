"""Encode texts with one peer; return texts per second and the error of the hidden states.

Each peer encodes strings to one mean-pooled vector per text, including tokenisation. The error is
the relative L2 distance of all tokens' last hidden states from those of `transformers` in float64,
on the first texts.
"""

import importlib
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.material import read

BATCH = 32
CHECKED = 96  # number of texts on which the error is measured
Hidden = list[NDArray[Any]]  # (t, D) for each text


def relative_error(found: Hidden, reference: Hidden) -> float:
    apart = sum(float(((a - b) ** 2).sum()) for a, b in zip(found, reference, strict=True))
    return float(np.sqrt(apart / sum(float((b**2).sum()) for b in reference)))


def _measure(
    texts: list[str],
    encode: Callable[[list[str]], Any],
    hidden: Callable[[list[str]], Hidden] | None,
    model: str,
) -> dict[str, Any]:
    encode(texts[:BATCH])
    began = time.perf_counter()
    encode(texts)
    seconds = time.perf_counter() - began
    answer = {"speed": len(texts) / seconds, "unit": "texts/s", "seconds": seconds}
    if hidden is not None:
        checked = texts[:CHECKED]
        answer["error"] = relative_error(hidden(checked), _reference(checked, model))
    return answer


def ours(job: dict[str, Any]) -> dict[str, Any]:
    import langue

    model = langue.load(job["model"], dtype=job["precision"])
    hidden = model.hidden if job["check"] else None
    return _measure(read(Path(job["material"])).texts, model.encode, hidden, job["model"])


def hf(job: dict[str, Any]) -> dict[str, Any]:
    """Measure transformers' AutoModel with padded batches of 32, in the given order or longest
    first.
    """
    texts = read(Path(job["material"])).texts
    network, tokenizer = _transformers(job["model"], job["precision"])
    return _measure(
        texts,
        lambda some: _pooled(network, tokenizer, some, job["sort"]),
        (lambda some: _states(network, tokenizer, some)) if job["check"] else None,
        job["model"],
    )


def _transformers(model: str, precision: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}[precision]
    return AutoModel.from_pretrained(model, dtype=dtype).eval(), AutoTokenizer.from_pretrained(
        model
    )


def _padded(
    tokenizer: Any, texts: list[str], kind: str, sort: bool
) -> Iterator[tuple[list[int], Any]]:
    """Yield rows and their padded batch. Sorting is by number of characters before tokenisation, as
    in sentence-transformers.
    """
    order = (
        sorted(range(len(texts)), key=lambda i: -len(texts[i])) if sort else list(range(len(texts)))
    )
    for begin in range(0, len(order), BATCH):
        rows = order[begin : begin + BATCH]
        yield (
            rows,
            tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors=kind,
            ),
        )


def _pooled(network: Any, tokenizer: Any, texts: list[str], sort: bool) -> Any:
    import torch

    out = torch.empty(len(texts), network.config.hidden_size)
    with torch.inference_mode():
        for rows, batch in _padded(tokenizer, texts, "pt", sort):
            states = network(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
            out[rows] = ((states * mask).sum(1) / mask.sum(1)).float()
    return out


def _states(network: Any, tokenizer: Any, texts: list[str]) -> Hidden:
    import torch

    found: Hidden = []
    with torch.inference_mode():
        for _, batch in _padded(tokenizer, texts, "pt", sort=False):
            states = network(**batch).last_hidden_state.double().numpy()
            found += [
                s[:t] for s, t in zip(states, batch["attention_mask"].sum(1).tolist(), strict=True)
            ]
    return found


def _reference(texts: list[str], model: str) -> Hidden:
    network, tokenizer = _transformers(model, "fp64")
    return _states(network, tokenizer, texts)


def onnx_int8(job: dict[str, Any]) -> dict[str, Any]:
    """Measure ONNX Runtime with dynamically quantised weights, longest texts first."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        return {"missing": f"not installed: {', '.join(missing)}"}
    with tempfile.TemporaryDirectory() as folder:
        session, tokenizer = _onnx_session(job["model"], Path(folder))
        names = {each.name for each in session.get_inputs()}

        def states(batch: Any) -> NDArray[Any]:
            out: NDArray[Any] = session.run(None, {k: v for k, v in batch.items() if k in names})[0]
            return out

        return _measure_numpy(job, tokenizer, states)


def _onnx_session(model: str, folder: Path) -> tuple[Any, Any]:
    import torch

    # Optional, so imported by name: the type checker must work without them.
    onnxruntime = importlib.import_module("onnxruntime")
    quantization = importlib.import_module("onnxruntime.quantization")

    network, tokenizer = _transformers(model, "fp32")
    network.set_attn_implementation("eager")

    class States(torch.nn.Module):
        """The exporter passes inputs by place; transformers takes them by name."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.network(
                input_ids=ids, attention_mask=mask, token_type_ids=types
            ).last_hidden_state

    batch = tokenizer(["one text", "and another one"], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        States(),
        tuple(batch[name] for name in names),
        str(folder / "model.onnx"),
        input_names=names,
        output_names=["states"],
        dynamic_axes={name: {0: "n", 1: "t"} for name in [*names, "states"]},
        dynamo=False,
    )
    kind = quantization.QuantType.QInt8
    quantization.quantize_dynamic(folder / "model.onnx", folder / "int8.onnx", weight_type=kind)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        str(folder / "int8.onnx"), options, ["CPUExecutionProvider"]
    ), tokenizer


def ctranslate2_int8(job: dict[str, Any]) -> dict[str, Any]:
    """Measure CTranslate2's encoder in int8, longest texts first."""
    if importlib.util.find_spec("ctranslate2") is None:
        return {"missing": "not installed: ctranslate2"}
    import torch
    from transformers import AutoTokenizer

    ctranslate2 = importlib.import_module("ctranslate2")
    with tempfile.TemporaryDirectory() as folder:
        made = str(Path(folder) / "model")
        ctranslate2.converters.TransformersConverter(job["model"]).convert(
            made, quantization="int8"
        )
        encoder = ctranslate2.Encoder(
            made, device="cpu", compute_type="int8", intra_threads=torch.get_num_threads()
        )

        def states(batch: Any) -> NDArray[Any]:
            lengths = batch["attention_mask"].sum(1)
            ids = [row[:t].tolist() for row, t in zip(batch["input_ids"], lengths, strict=True)]
            return np.asarray(encoder.forward_batch(ids).last_hidden_state)

        return _measure_numpy(job, AutoTokenizer.from_pretrained(job["model"]), states)


def _measure_numpy(
    job: dict[str, Any], tokenizer: Any, states: Callable[[Any], NDArray[Any]]
) -> dict[str, Any]:
    def encode(texts: list[str]) -> None:
        for _, batch in _padded(tokenizer, texts, "np", sort=True):
            mask = batch["attention_mask"][:, :, None]
            (states(batch) * mask).sum(1) / mask.sum(1)

    def hidden(texts: list[str]) -> Hidden:
        found: Hidden = []
        for _, batch in _padded(tokenizer, texts, "np", sort=False):
            lengths = batch["attention_mask"].sum(1).tolist()
            found += [s[:t].astype(np.float64) for s, t in zip(states(batch), lengths, strict=True)]
        return found

    return _measure(
        read(Path(job["material"])).texts, encode, hidden if job["check"] else None, job["model"]
    )


PEERS = {
    "encode": ours,
    "encode_hf": hf,
    "encode_onnx": onnx_int8,
    "encode_ctranslate2": ctranslate2_int8,
}

"""Read OpenAI's release of GPT-2 as config, weights and tokenizer with the names of `transformers`.

The release consists of `model.ckpt.*`, `hparams.json`, `encoder.json` and `vocab.bpe`
(github.com/openai/gpt-2).
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.files import read_json
from langue.formats import tensorflow
from langue.text.tokenizers.classes import END
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.vocabulary import merged

CONFIG = "hparams.json"
WORDS = {
    "n_vocab": "vocab_size",
    "n_ctx": "n_positions",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
ENDS = {"w": "weight", "g": "weight", "b": "bias"}


def find(path: Path) -> Path | None:
    folder = path if path.is_dir() else path.parent
    return tensorflow.find(folder) if (folder / CONFIG).is_file() else None


def read_config(index: Path) -> dict[str, Any]:
    content = read_json(index.parent / CONFIG)
    lacking = [word for word in WORDS if not isinstance(content, dict) or word not in content]
    if lacking:
        raise ModelError(f"{lacking[0]} is missing", where=str(index.parent / CONFIG))
    end = {"bos_token_id": content["n_vocab"] - 1, "eos_token_id": content["n_vocab"] - 1}
    return {
        "model_type": "gpt2",
        **{theirs: content[word] for word, theirs in WORDS.items()},
        **end,
    }


def read_weights(index: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the weights under the names of `transformers`.

    `model/h3/attn/c_attn/w`, (1, in, out), becomes `transformer.h.3.attn.c_attn.weight`, which is
    also (in, out).
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in tensorflow.read(index, weights_dtype).items():
        *path, last = re.sub(
            r"^model/(h(\d+)/)?", lambda m: f"h/{m[2]}/" if m[1] else "", name
        ).split("/")
        table = last in ("wte", "wpe")
        parts = [*path, last, "weight"] if table else [*path, ENDS.get(last, last)]
        weights[".".join(["transformer", *parts])] = (
            tensor[0] if tensor.ndim == 3 and len(tensor) == 1 else tensor
        )
    return weights


def read_tokenizer(index: Path) -> Tokenizer:
    files = index.parent / "encoder.json", index.parent / "vocab.bpe"
    for path in files:
        if not path.is_file():
            raise ModelError(f"the release lacks its {path.name}", where=str(index.parent))
    backend = merged(*files, {}, "GPT2")
    if backend.token_to_id(END) is not None:
        backend.add_special_tokens([END])
    return Tokenizer(backend, options={"tokenizer_class": "GPT2Tokenizer"})

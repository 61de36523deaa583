"""Read Google's release of BERT as config, weights and tokenizer with the names of `transformers`.

The release consists of `bert_model.ckpt.*`, `bert_config.json` and `vocab.txt`
(github.com/google-research/bert).
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.files import read_json
from langue.formats import tensorflow
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.vocabulary import wordpiece

CONFIG = "bert_config.json"
OPTIMISER = re.compile(r"(/adam_[mv]|/lamb_[mv]|^global_step|^beta[12]_power)$")


def find(path: Path) -> Path | None:
    """Return the index file of the checkpoint in a folder, or in the folder of the given file."""
    folder = path if path.is_dir() else path.parent
    return tensorflow.find(folder) if (folder / CONFIG).is_file() else None


def read_config(index: Path) -> dict[str, Any]:
    content = read_json(index.parent / CONFIG)
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=str(index.parent / CONFIG))
    return {"model_type": "bert", **content}


def read_weights(index: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for name, tensor in tensorflow.read(index, weights_dtype).items():
        if not OPTIMISER.search(name):
            theirs, part = renamed(name, tensor)
            weights[theirs] = part
    return weights


def renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Rename `bert/encoder/layer_3/output/dense/kernel`, (in, out), to
    `bert.encoder.layer.3.output.dense.weight`.
    """
    *path, last = re.sub(r"layer_(\d+)", r"layer/\1", name).split("/")
    if last == "kernel":
        return ".".join([*path, "weight"]), tensor.t()
    if last.endswith("_embeddings") or last == "output_weights":
        kept = [*path, last, "weight"] if last.endswith("_embeddings") else [*path, "weight"]
        return ".".join(kept), tensor
    ends = {"gamma": "weight", "beta": "bias", "output_bias": "bias"}
    return ".".join([*path, ends.get(last, last)]), tensor


def read_tokenizer(index: Path) -> Tokenizer:
    """Return the tokenizer, which lowercases if the vocabulary has no capital letters: the release
    says so only in the folder's name.
    """
    path = index.parent / "vocab.txt"
    if not path.is_file():
        raise ModelError("the release lacks its vocab.txt", where=str(index.parent))
    words = path.read_text("utf-8").split("\n")
    lower = not any(re.search("[A-Z]", word) for word in words if not word.startswith("["))
    options = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    return Tokenizer(wordpiece(path, options), options=options)

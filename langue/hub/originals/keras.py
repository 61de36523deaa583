"""Read BERT as Keras stores it, as config, weights and tokenizer with the names of `transformers`.

There are two layouts: a preset of KerasHub (`config.json` of its own kind, `model.weights.h5`,
`assets/tokenizer/vocabulary.txt`), and the `tf_model.h5` that `transformers` up to version 4 wrote
beside its own config.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.files import read_json
from langue.formats import hdf5
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.vocabulary import wordpiece

WEIGHTS = "model.weights.h5"
VOCABULARY = "assets/tokenizer/vocabulary.txt"
BACKBONE = re.compile(r"keras_(hub|nlp)>BertBackbone")
ANY = re.compile(r"keras_(hub|nlp)>\w+")
WORDS = {
    "vocabulary_size": "vocab_size",
    "hidden_dim": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_dim": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
    "num_segments": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
}
# keys of a layer that do not affect the computation
IDLE = ("name", "trainable", "dtype")
# KerasHub builds every BERT with these, whatever the config says.
FIXED = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-12}
TABLES = {
    "reversible_embedding": "word",
    "position_embedding": "position",
    "embedding": "token_type",
}
PARTS = {
    "self_attention_layer/query_dense": "attention.self.query",
    "self_attention_layer/key_dense": "attention.self.key",
    "self_attention_layer/value_dense": "attention.self.value",
    "self_attention_layer/output_dense": "attention.output.dense",
    "self_attention_layer_norm": "attention.output.LayerNorm",
    "feedforward_intermediate_dense": "intermediate.dense",
    "feedforward_output_dense": "output.dense",
    "feedforward_layer_norm": "output.LayerNorm",
}


def find(path: Path) -> Path | None:
    """Return the weights of a preset in a folder, or in the folder of the given file."""
    folder = path if path.is_dir() else path.parent
    if not (folder / WEIGHTS).is_file() or not (folder / "config.json").is_file():
        return None
    content = read_json(folder / "config.json")
    known = isinstance(content, dict) and ANY.fullmatch(str(content.get("registered_name")))
    return folder / WEIGHTS if known else None


def read_config(weights: Path) -> dict[str, Any]:
    file = weights.parent / "config.json"
    content = read_json(file)
    kind = content["registered_name"]
    said = content.get("config")
    if not BACKBONE.fullmatch(kind) or not isinstance(said, dict):
        raise ModelError(
            f"{kind} is not read", where=str(file), do="of KerasHub's models, BertBackbone is"
        )
    wrong = sorted(said.keys() - {*WORDS, *IDLE}) or sorted(WORDS.keys() - said.keys())
    if wrong:
        raise ModelError(
            f"{wrong[0]!r} is not what a BertBackbone has, or is missing", where=str(file)
        )
    theirs = {theirs: said[ours] for ours, theirs in WORDS.items()}
    return {
        "model_type": "bert",
        **theirs,
        **FIXED,
        "attention_probs_dropout_prob": said["dropout"],
    }


def read_weights(file: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the weights, with names such as
    `layers/transformer_encoder_1/_feedforward_output_dense/vars/0` changed to
    `bert.encoder.layer.1.output.dense.weight`.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in hdf5.read(file, weights_dtype).items():
        if not name.startswith("optimizer/") and "seed_generator" not in name:
            theirs, part = _renamed(name, tensor, str(file))
            weights[theirs] = part
    return weights


def _renamed(name: str, tensor: Tensor, where: str) -> tuple[str, Tensor]:
    """Return the published name and tensor of an array.

    Names consist of class names, with a counter from the second instance on. Attention maps have
    the heads as a separate dimension: of the input in the output map, (heads, head, out), and of
    the output in the other three, (in, heads, head).
    """
    found = re.fullmatch(r"layers/([^/]+)/(?:(.+)/)?vars/([01])", name.replace("/_", "/"))
    layer, path, which = found.groups(default="") if found else ("", "", "")
    block = re.fullmatch(r"transformer_encoder(?:_(\d+))?", layer)
    if block and path in PARTS:
        place = f"bert.encoder.layer.{block[1] or 0}.{PARTS[path]}"
    elif layer in TABLES and not path:
        return f"bert.embeddings.{TABLES[layer]}_embeddings.weight", tensor
    elif layer in ("layer_normalization", "dense") and not path:
        place = {"layer_normalization": "bert.embeddings.LayerNorm", "dense": "bert.pooler.dense"}[
            layer
        ]
    else:
        raise ModelError(f"{name} is not an array of a BERT", where=where)
    if which != "0" or place.endswith("LayerNorm"):
        return f"{place}.{'weight' if which == '0' else 'bias'}", tensor.flatten()
    matrix = tensor.flatten(0, -2) if path.endswith("output_dense") else tensor.flatten(1)
    return f"{place}.weight", matrix.t()


def read_tokenizer(weights: Path) -> Tokenizer:
    path = weights.parent / VOCABULARY
    file = weights.parent / "tokenizer.json"
    if not path.is_file() or not file.is_file():
        raise ModelError(
            f"the preset lacks {VOCABULARY} or tokenizer.json", where=str(weights.parent)
        )
    content = read_json(file)
    said = content.get("config") if isinstance(content, dict) else None
    if not isinstance(said, dict) or said.get("suffix_indicator", "##") != "##":
        raise ModelError("this is not the tokenizer of a BERT", where=str(file))
    options = {
        "do_lower_case": said.get("lowercase", False),
        "strip_accents": said.get("strip_accents", False),
    }
    options |= {"tokenizer_class": "BertTokenizer"}
    return Tokenizer(wordpiece(path, options), options=options)


def from_tf(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename `bert/tf_bert_model/bert/encoder/layer_._0/output/dense/kernel:0` to
    `bert.encoder.layer.0.output.dense.weight`.

    The first two parts are the layer and the model to which it belongs. `_._` precedes the index in
    a list, and `___` separates Keras's name of a layer from its actual name.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in arrays.items():
        path = re.sub(r":\d+$", "", name).replace("_._", "/").split("/")
        *parts, last = [part.rpartition("___")[2] for part in path[2:]]
        kept = tensor.t() if last == "kernel" and tensor.ndim == 2 else tensor
        ends = {"kernel": "weight", "gamma": "weight", "embeddings": "weight", "beta": "bias"}
        weights[".".join([*parts, ends.get(last, last)])] = kept
    return weights

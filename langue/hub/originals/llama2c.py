"""Read a model in llama2.c's file format, and its tokenizer (such as tok512.bin), as a Llama
checkpoint with the Hub's names.

The file consists of seven int32 (dim, hidden, layers, heads, key/value heads, vocabulary, context;
a negative vocabulary means that the output matrix is not tied) and of float32 arrays. Its rotary
pairs are adjacent rows and ours are half a head apart, so the rows of queries and keys are
reordered. The sizes are checked against the file size before anything is read.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, processors
from torch import Tensor

from langue.errors import ModelError
from langue.formats.mapped import map_file, numbers
from langue.hub.convert_dtype import pairs_apart
from langue.text.tokenizers.sentencepiece import merges_of
from langue.text.tokenizers.tokenizer import Tokenizer

_HEADER = struct.Struct("<7i")
_TOKENS = "tok*.bin"
# Arrays that exist once, not once per layer -> their published names.
_ONCE = {
    "embed_tokens": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}
_ONCE |= {"unread": "unread"}


def find(path: Path) -> Path | None:
    """Return the model file at `path`, or in it beside its tokenizer, or None."""
    if path.is_file():
        return path if path.suffix == ".bin" and any(path.parent.glob(_TOKENS)) else None
    tokens = set(path.glob(_TOKENS))
    others = [
        file
        for file in path.glob("*.bin")
        if file not in tokens and not file.name.startswith("pytorch_model")
    ]
    return others[0] if tokens and len(others) == 1 else None


def read_config(file: Path) -> dict[str, Any]:
    """Return the header as a Llama config."""
    sizes = _sizes(file)
    return {
        "model_type": "llama",
        "hidden_size": sizes["dim"],
        "intermediate_size": sizes["hidden"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "vocab_size": abs(sizes["vocabulary"]),
        "max_position_embeddings": sizes["context"],
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": sizes["vocabulary"] > 0,
        "bos_token_id": 1,
        "eos_token_id": [1, 2],  # the begin token of the next story also ends this one
    }


def _sizes(file: Path) -> dict[str, int]:
    with file.open("rb") as handle:
        header = handle.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ModelError("the file ends within its header", where=str(file))
    names = ("dim", "hidden", "layers", "heads", "kv_heads", "vocabulary", "context")
    sizes = dict(zip(names, _HEADER.unpack(header), strict=True))
    odd = [name for name in names if sizes[name] < 1 and name != "vocabulary"] + ["vocabulary"] * (
        not sizes["vocabulary"]
    )
    if not odd and (sizes["dim"] % (2 * sizes["heads"]) or sizes["heads"] % sizes["kv_heads"]):
        odd = ["heads"]
    if odd:
        raise ModelError(f"not a llama2.c model: {odd[0]} = {sizes[odd[0]]}", where=str(file))
    needed = sum(int(np.prod(shape)) for _, shape in _layout(sizes))
    if file.stat().st_size < _HEADER.size + 4 * needed:
        raise ModelError(
            f"its header asks for {4 * needed:,} bytes and the file has fewer", where=str(file)
        )
    return sizes


def _layout(sizes: dict[str, int]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the arrays in the file's order."""
    dim = sizes["dim"]
    hidden = sizes["hidden"]
    layers = sizes["layers"]
    keys = dim // sizes["heads"] * sizes["kv_heads"]
    vocabulary = abs(sizes["vocabulary"])
    head = dim // sizes["heads"]
    arrays: list[tuple[str, tuple[int, ...]]] = [
        ("embed_tokens", (vocabulary, dim)),
        ("input_layernorm", (layers, dim)),
        ("self_attn.q_proj", (layers, dim, dim)),
        ("self_attn.k_proj", (layers, keys, dim)),
        ("self_attn.v_proj", (layers, keys, dim)),
        ("self_attn.o_proj", (layers, dim, dim)),
        ("post_attention_layernorm", (layers, dim)),
        ("mlp.gate_proj", (layers, hidden, dim)),
        ("mlp.down_proj", (layers, dim, hidden)),
        ("mlp.up_proj", (layers, hidden, dim)),
        ("norm", (dim,)),
    ]
    # before a separate output matrix, the file has cosines and sines that nothing reads
    if sizes["vocabulary"] < 0:
        arrays += [("unread", (2, sizes["context"], head // 2)), ("lm_head", (vocabulary, dim))]
    return arrays


def read_weights(file: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the weights under Llama's published names.

    All are mapped pages of the file, except queries and keys.
    """
    sizes = _sizes(file)
    data = map_file(file)
    offset = _HEADER.size
    permuted = {"self_attn.q_proj": sizes["heads"], "self_attn.k_proj": sizes["kv_heads"]}
    weights: dict[str, Tensor] = {}
    for name, shape in _layout(sizes):
        once = name in _ONCE
        for place in (
            [_ONCE[name]] if once else [f"model.layers.{i}.{name}.weight" for i in range(shape[0])]
        ):
            tensor = numbers(
                data, offset, torch.float32, shape if once else shape[1:], weights_dtype
            )
            offset += tensor.nbytes
            weights[place] = (
                pairs_apart(tensor, permuted[name], weights_dtype) if name in permuted else tensor
            )
    weights.pop("unread", None)
    return weights


def read_tokenizer(file: Path) -> Tokenizer:
    """Return the sentencepiece BPE beside the model: pieces with scores, the highest score merged
    first.
    """
    (path,) = sorted(file.parent.glob(_TOKENS))[:1]
    pieces = _pieces(path)
    vocabulary = {piece: index for index, (piece, _) in enumerate(pieces)}
    if len(vocabulary) != len(pieces) or pieces[0][0] != "<unk>":
        raise ModelError(
            "the tokenizer names a piece twice, or does not begin with <unk>", where=str(path)
        )
    merges = merges_of(dict(pieces), str(path))
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # the format defines the roles of these ids
    unknown, begin, end = (piece for piece, _ in pieces[:3])
    backend.post_processor = processors.TemplateProcessing(
        single=[begin, "$A"], special_tokens=[(begin, 1)]
    )
    backend.add_special_tokens([AddedToken(name, special=True) for name in (unknown, begin, end)])
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": unknown,
        "bos_token": begin,
        "eos_token": end,
    }
    return Tokenizer(backend, options=options)


def _pieces(path: Path) -> list[tuple[str, float]]:
    """Return (piece, score) in order.

    The file has an int32 (the length of the longest piece) and, for each piece, a float32 score, an
    int32 length and as many bytes.
    """
    data = path.read_bytes()
    at = 4
    pieces = []
    try:
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            raw = data[at + 8 : at + 8 + length]
            if length < 0 or len(raw) < length:
                raise ModelError("a piece ends beyond the file", where=str(path))
            pieces.append(
                (raw.decode("utf-8").strip("\n").replace(" ", "▁") or raw.decode("utf-8"), score)
            )
            at += 8 + length
    except (struct.error, UnicodeDecodeError) as error:
        raise ModelError(f"not a llama2.c tokenizer: {error}", where=str(path)) from error
    if len(pieces) < 3:
        raise ModelError("the tokenizer has no pieces", where=str(path))
    return pieces

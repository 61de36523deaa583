"""Read a GGUF file of a Llama, Mistral, Qwen2, Qwen3 or GPT-2 as a checkpoint with the Hub's names,
and write one that llama.cpp runs.

For the architecture "llama", llama.cpp rotates adjacent rows of queries and keys; for the Qwens,
rows that are half a head apart. The Hub's layout is always the latter, so the rows of a Llama's
queries and keys are reordered.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langue.errors import ModelError
from langue.formats.gguf import BLOCK, BLOCK_KINDS, Gguf, Given, read, write
from langue.hub.convert_dtype import pairs_apart
from langue.hub.families.registry import FAMILIES
from langue.hub.family import Family
from langue.hub.originals import gguf_tokenizer
from langue.hub.quantized import StoredRows
from langue.model.config import ModelConfig
from langue.model.weight_kinds import Weight, WeightKind, quantize
from langue.text.tokenizers.tokenizer import Tokenizer

SUFFIX = ".gguf"
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
MOST = 2**24  # upper limit of every size, such as context length or vocabulary
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}  # general.file_type
_LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{i}.attn_norm": "model.layers.{i}.input_layernorm",
    "blk.{i}.attn_q": "model.layers.{i}.self_attn.q_proj",
    "blk.{i}.attn_k": "model.layers.{i}.self_attn.k_proj",
    "blk.{i}.attn_v": "model.layers.{i}.self_attn.v_proj",
    "blk.{i}.attn_q_norm": "model.layers.{i}.self_attn.q_norm",
    "blk.{i}.attn_k_norm": "model.layers.{i}.self_attn.k_norm",
    "blk.{i}.attn_output": "model.layers.{i}.self_attn.o_proj",
    "blk.{i}.ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "blk.{i}.ffn_gate": "model.layers.{i}.mlp.gate_proj",
    "blk.{i}.ffn_up": "model.layers.{i}.mlp.up_proj",
    "blk.{i}.ffn_down": "model.layers.{i}.mlp.down_proj",
}
_GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.{i}.attn_norm": "transformer.h.{i}.ln_1",
    "blk.{i}.attn_qkv": "transformer.h.{i}.attn.c_attn",
    "blk.{i}.attn_output": "transformer.h.{i}.attn.c_proj",
    "blk.{i}.ffn_norm": "transformer.h.{i}.ln_2",
    "blk.{i}.ffn_up": "transformer.h.{i}.mlp.c_fc",
    "blk.{i}.ffn_down": "transformer.h.{i}.mlp.c_proj",
}
# The Hub's name of an architecture -> llama.cpp's, for which a Mistral is a Llama.
_KINDS = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gpt2": "gpt2"}
_FREQUENCIES = "rope_freqs.weight"
# Axes that do not affect what the model computes, or that the comparison in `_check` covers
# separately; the context length is that of the file.
_APART = {
    "dropout",
    "attention_dropout",
    "init_std",
    "max_length",
    "windows",
    "head_width",
    "kv_heads",
}


def find(path: Path) -> Path | None:
    """Return the GGUF file at `path` or in it, or None."""
    if path.is_file():
        return path if path.suffix.lower() == SUFFIX else None
    files = [file for file in path.glob("*") if file.suffix.lower() == SUFFIX]
    in_parts = len(files) > 1 and all(PART.search(file.name) for file in files)
    return min(files) if len(files) == 1 or in_parts else None


def read_tokenizer(file: Path) -> Tokenizer:
    return gguf_tokenizer.from_metadata(read(file).metadata, str(file))


def read_config(file: Path) -> dict[str, Any]:
    """Return the metadata as a config of the Hub."""
    found = read(file)
    count = found.metadata.get("split.count", 0)
    if count and count > 1:
        whole = PART.sub("", file.name) + SUFFIX
        raise ModelError(
            f"one of {count} parts of a GGUF",
            where=str(file),
            do=f"join them with llama.cpp's tool: llama-gguf-split --merge FIRST_PART {whole}",
        )
    names = {name.removesuffix(".weight") for name in found.tensors}
    said = _Said(found.metadata, str(file))
    if said.get("block_count") > len(found.tensors):
        raise ModelError("it claims more layers than it has tensors", where=str(file))
    special = gguf_tokenizer.Vocabulary(found.metadata, str(file)).special()
    config = special | _config(said, found, names)
    if (
        "token_embd.weight" not in found.tensors
        or len(found.tensors["token_embd.weight"].shape) != 2
    ):
        raise ModelError("it has no table of token embeddings", where=str(file))
    return config | {"vocab_size": found.tensors["token_embd.weight"].shape[0]}


@dataclass(frozen=True)
class _Said:
    """Checked access to metadata under the architecture's own keys."""

    metadata: Mapping[str, Any]
    where: str

    @property
    def kind(self) -> str:
        kind = self.metadata.get("general.architecture")
        if kind not in _KINDS.values():
            known = ", ".join(sorted(set(_KINDS.values())))
            raise ModelError(
                f"the architecture {kind!r} is not read", where=self.where, do=f"known: {known}"
            )
        return str(kind)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a number, or `default` if the file lacks it (ModelError if `default` is None)."""
        value = self.metadata.get(f"{self.kind}.{key}", default)
        if isinstance(value, float):
            # 1e-5 is 9.99999975e-06 in fp32; take the shortest decimal number with this fp32 value
            value = float(str(np.float32(value)))
        if isinstance(value, bool) or not isinstance(value, int | float):
            what = "is missing" if value is None else "is not one number"
            raise ModelError(f"{self.kind}.{key} {what}", where=self.where)
        if not 0 < value < (2**40 if isinstance(value, float) else MOST) and value != default:
            raise ModelError(f"{self.kind}.{key} = {value}", where=self.where)
        return value


def _config(said: _Said, found: Gguf | None, names: set[str]) -> dict[str, Any]:
    """Return the metadata as config.json. names: the tensors' names without ".weight"."""
    tied = "output" not in names
    if said.kind == "gpt2":
        return {
            "model_type": "gpt2",
            "n_embd": said.get("embedding_length"),
            "n_layer": said.get("block_count"),
            "n_head": said.get("attention.head_count"),
            "n_inner": said.get("feed_forward_length"),
            "n_positions": said.get("context_length"),
            "layer_norm_epsilon": said.get("attention.layer_norm_epsilon"),
            "tie_word_embeddings": tied,
        }
    if said.get("expert_count", 0):
        raise ModelError("a mixture of experts is not read from GGUF", where=said.where)
    dim = said.get("embedding_length")
    heads = said.get("attention.head_count")
    width = said.get("attention.key_length", dim // heads)
    if (said.get("attention.value_length", width), said.get("rope.dimension_count", width)) != (
        width,
        width,
    ):
        raise ModelError(
            "heads of unequal widths, or that turn in part, are not read from GGUF",
            where=said.where,
        )
    config = {
        "model_type": said.kind,
        "hidden_size": dim,
        "intermediate_size": said.get("feed_forward_length"),
        "num_hidden_layers": said.get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": said.get("attention.head_count_kv", heads),
        "head_dim": width,
        "max_position_embeddings": said.get("context_length"),
        "rms_norm_eps": said.get("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": tied,
        "rope_parameters": _rope(said, found, width),
    }
    if said.kind in ("llama", "qwen3"):
        config["attention_bias"] = "blk.0.attn_q.bias" in names
    if said.kind == "llama":
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in names
    return config


def _rope(said: _Said, found: Gguf | None, width: int) -> dict[str, Any]:
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": said.get("rope.freq_base", 10_000.0),
    }
    scaling = said.metadata.get(f"{said.kind}.rope.scaling.type", "none")
    if scaling == "linear":
        rope |= {"rope_type": "linear", "factor": said.get("rope.scaling.factor")}
    elif scaling != "none":
        raise ModelError(
            f"rotary scaling {scaling!r} is not read from GGUF",
            where=said.where,
            do="known: linear",
        )
    if found is not None and _FREQUENCIES in found.tensors:
        given = found.tensor(_FREQUENCIES).float()
        # The file contains only the factors. Those of Llama 3 follow from one factor, which is
        # their maximum, and an original context length that is a power of two.
        for length in (8192, *(2**power for power in range(6, 22))):
            rope |= {
                "rope_type": "llama3",
                "factor": float(given.max()),
                "original_max_position_embeddings": length,
            }
            rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
            made = _factors(width, rope)
            if made.shape == given.shape and torch.allclose(made, given, rtol=1e-4):
                return rope
        raise ModelError(
            "its rotary frequencies are not Llama 3's, and others are not read", where=said.where
        )
    return rope


def _factors(width: int, rope: Mapping[str, Any]) -> Tensor:
    """Return the factors by which Llama 3 stretches each wavelength: 1 for short ones, the full
    factor for long ones.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    waves = 2 * torch.pi * torch.pow(float(rope["rope_theta"]), exponents)
    turns = float(rope["original_max_position_embeddings"]) / waves
    low, high, factor = (
        float(rope[key]) for key in ("low_freq_factor", "high_freq_factor", "factor")
    )
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - share) / factor + share)).float()


def read_weights(file: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return the tensors under their published names.

    Tensors that are not mapped pages of the file are created in `weights_dtype`.
    """
    return _read(file, weights_dtype, None)


def read_stored(file: Path, rows: StoredRows) -> dict[str, Tensor]:
    """Return `read_weights` with the matrices kept in `rows` in the file's quantisation; the
    returned tensors contain the numbers of their rows.
    """
    return _read(file, None, rows)


def _read(
    file: Path, weights_dtype: torch.dtype | None, rows: StoredRows | None
) -> dict[str, Tensor]:
    found = read(file)
    said = _Said(found.metadata, str(file))
    names = _names(said.kind, min(said.get("block_count"), len(found.tensors)))
    weights = {}
    for name in found.tensors:
        stem, _, part = name.rpartition(".")
        if name == _FREQUENCIES:
            continue
        if stem not in names or part not in ("weight", "bias"):
            raise ModelError(f"it has a tensor {name} that a {said.kind} does not", where=str(file))
        if rows is not None and _is_matrix(found.tensors[name].shape):
            tensor = rows.numbered(_stored_weight(found, name))
        else:
            tensor = found.tensor(name, weights_dtype)
        if said.kind == "llama" and stem.endswith(("attn_q", "attn_k")):
            tensor = pairs_apart(tensor, _heads(tensor, stem, said), weights_dtype)
        weights[f"{names[stem]}.{part}"] = (
            tensor.t() if _is_transposed(said.kind, names[stem], tensor) else tensor
        )
    return weights


def _is_matrix(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and 1 not in shape


def _stored_weight(found: Gguf, name: str) -> Weight:
    """Return a matrix in the file's quantisation; float16 becomes fp32."""
    if found.tensors[name].kind in BLOCK_KINDS:
        blocks = found.blocks(name)
        kind: WeightKind = "int8" if blocks.numbers.dtype == torch.int8 else "int4"
        return Weight(kind, blocks.numbers, blocks.scales, blocks.mins)
    tensor = found.tensor(name)
    return quantize(tensor, "bf16" if tensor.dtype == torch.bfloat16 else "fp32")


def _names(kind: str, layers: int) -> dict[str, str]:
    table = _GPT2 if kind == "gpt2" else _LLAMA
    return {
        theirs.format(i=i): ours.format(i=i)
        for theirs, ours in table.items()
        for i in range(layers if "{i}" in theirs else 1)
    }


def _is_transposed(kind: str, name: str, tensor: Tensor) -> bool:
    """Return whether the Hub stores the matrix as (in, out)."""
    return kind == "gpt2" and tensor.ndim == 2 and name.rpartition(".")[2].startswith("c_")


def _heads(tensor: Tensor, stem: str, said: _Said) -> int:
    """Return the number of heads in a tensor of queries or keys."""
    heads = said.get("attention.head_count")
    if stem.endswith("attn_k"):
        heads = said.get("attention.head_count_kv", heads)
    if tensor.shape[0] % (2 * heads):
        raise ModelError(f"{stem} has {tensor.shape[0]} rows for {heads} heads", where=said.where)
    return int(heads)


def _pairs_together(tensor: Tensor, heads: int) -> Tensor:
    """Make rotary pairs adjacent rows, the inverse of `pairs_apart`."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def save(
    file: Path,
    *,
    family: Family,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    published: Mapping[str, Any],
    dtype: str = "f16",
) -> None:
    """Write a model ("body.*" and "head.*") for llama.cpp; vectors and learned positions stay fp32.

    dtype: of the matrices, one of FILE_TYPES. Raises ModelError if GGUF cannot express the model.
    """
    kind = _KINDS.get(family.name)
    if kind is None:
        raise ModelError(
            f"a {family.name} cannot be written as GGUF here",
            do=f"those can: {', '.join(_KINDS)} (langue pretrain --preset llama, --preset gpt2)",
        )
    rope = family.write(config).get("rope_parameters") or {}
    metadata = _metadata(kind, config, rope) | {
        "general.name": file.stem,
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": 2,
    }
    said = _Said(metadata, str(file))
    theirs = family.to_theirs(weights, config, "lm")
    names = {ours: name for name, ours in _names(kind, config.n_layers).items()}
    unplaced = [name for name in theirs if name.rpartition(".")[0] not in names]
    if unplaced:
        raise ModelError(f"{unplaced[0]} has no place in a GGUF file of a {kind}")
    given = [_given(name, tensor, names, said, dtype) for name, tensor in theirs.items()]
    if rope.get("rope_type") == "llama3":
        factors = _factors(config.head_dim, rope)
        given.append(Given(_FREQUENCIES, "F32", tuple(factors.shape), lambda: factors))
    _check(said, config, rope, {each.name.removesuffix(".weight") for each in given})
    metadata |= gguf_tokenizer.to_metadata(tokenizer, published, config.vocab_size)
    write(file, metadata, given)


def _given(name: str, tensor: Tensor, names: Mapping[str, str], said: _Said, dtype: str) -> Given:
    ours, _, part = name.rpartition(".")
    stem = names[ours]
    transposed = _is_transposed(said.kind, ours, tensor)

    def make() -> Tensor:
        whole = tensor.t() if transposed else tensor
        exchanged = said.kind == "llama" and stem.endswith(("attn_q", "attn_k"))
        return _pairs_together(whole, _heads(whole, stem, said)) if exchanged else whole

    shape = tuple(tensor.shape)[::-1] if transposed else tuple(tensor.shape)
    stored = "F32" if tensor.ndim < 2 or stem == "position_embd" else dtype.upper()
    if stored == "Q8_0" and shape[-1] % BLOCK:
        # rows that do not divide into blocks become F16, as in llama.cpp's own converter
        stored = "F16"
    return Given(f"{stem}.{part}", stored, shape, make)


def _metadata(kind: str, config: ModelConfig, rope: Mapping[str, Any]) -> dict[str, Any]:
    context = min([config.max_length, *(window for window in config.windows if window)])
    values: dict[str, Any] = {
        # within the narrowest window, a model with windows equals one without
        "context_length": context,
        "embedding_length": config.dim,
        "block_count": config.n_layers,
        "feed_forward_length": config.ffn_dim,
        "attention.head_count": config.n_heads,
        "vocab_size": config.vocab_size,
    }
    if kind == "gpt2":
        values["attention.layer_norm_epsilon"] = float(config.norm_eps)
    else:
        values |= {
            "attention.head_count_kv": config.n_kv_heads,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "attention.layer_norm_rms_epsilon": float(config.norm_eps),
            "rope.freq_base": float(config.rotary_base),
            "rope.dimension_count": config.n_rotary_dims,
        }
    if rope.get("rope_type") == "linear":
        values |= {
            "rope.scaling.type": "linear",
            "rope.scaling.factor": float(config.rotary_factor),
        }
    return {"general.architecture": kind} | {
        f"{kind}.{key}": value for key, value in values.items()
    }


def _check(said: _Said, config: ModelConfig, rope: Mapping[str, Any], names: set[str]) -> None:
    """Raise ModelError if the metadata reads back as another model."""
    again = _config(said, None, names) | {"vocab_size": config.vocab_size}
    if rope.get("rope_type") == "llama3":
        again["rope_parameters"] = dict(rope)
    back = FAMILIES[again["model_type"]].read(again)
    alike = (
        replace(back, rotary_length=config.rotary_length)
        if config.rotary_scaling != "llama3"
        else back
    )
    for name, value in alike.to_dict().items():
        mine = config.to_dict()[name]
        if isinstance(mine, float) and isinstance(value, int | float):
            mine = float(np.float32(mine))
            value = float(np.float32(value))
        if name not in _APART and mine != value:
            raise ModelError(f"a model with {name} = {mine} cannot be written as GGUF here")
    if (back.head_dim, back.n_kv_heads) != (config.head_dim, config.n_kv_heads):
        raise ModelError("heads of these widths cannot be written as GGUF here")

"""Read a release of Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344), as published by
OPUS-MT, as config, weights and tokenizer with the names of `transformers`.

A release consists of one `*.npz`, its options (in the array `special:model.yml`, or in a .yml
beside it), `*vocab.yml`, `source.spm` and `target.spm`.

Marian begins a target with a zero vector; here this is a row of zeros after the vocabulary's rows,
called <pad>. As in the Hub's conversions, norms have an epsilon of 1e-5 (Marian: 1e-9), and
positions have frequencies 10000^(-2i/D) (Marian: 10000^(-2i/(D-2))), so that results equal those of
`transformers`' Marian and approximate those of Marian itself.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langue.errors import LangueError, ModelError
from langue.files import write_json
from langue.formats import npz
from langue.hub.convert_dtype import DtypeConverter
from langue.hub.originals.marian_options import (
    count,
    options_of,
    read_yaml,
    tables_of,
    vocabularies,
    words,
)
from langue.text.tokenizers.marian import sides
from langue.text.tokenizers.tokenizer import Tokenizer

NEVER = -10_000.0  # output bias of rows that Marian lacks, so that these are never generated
LAYER = re.compile(r"(encoder|decoder)_l(\d{1,4})_(self|context|ffn)_(\w+)")
SIDES = ("encoder", "decoder")
PARTS = {f"{kind}{part}": f"{part}_proj" for kind in "Wb" for part in "qkv"} | {
    "Wo": "out_proj",
    "bo": "out_proj",
}
FFN = {"W1": "fc1", "b1": "fc1", "W2": "fc2", "b2": "fc2"}
MATRICES = ("_proj.weight", "fc1.weight", "fc2.weight")
ATTENTION = {"self": "self_attn", "context": "encoder_attn"}


def find(path: Path) -> Path | None:
    """Return the weights at `path` or in it, ignoring optimiser state; ModelError if there are
    several.
    """
    if not path.is_dir():
        return path if path.suffix == ".npz" and path.is_file() else None
    found = sorted(file for file in path.glob("*.npz") if not file.name.endswith(".optimizer.npz"))
    if len(found) > 1 and (path / "decoder.yml").is_file():
        names = [Path(name).name for name in words(read_yaml(path / "decoder.yml").get("models"))]
        found = [file for file in found if file.name in names] if len(names) == 1 else found
    if len(found) > 1:
        raise ModelError(
            f"{len(found)} .npz files lie here",
            where=str(path),
            do="give the path of the one to read",
        )
    return found[0] if found else None


def read_config(file: Path) -> dict[str, Any]:
    """Return the options as a config of the Hub; all sizes are checked against the arrays."""
    options = options_of(file)
    shapes = npz.shapes(file)
    tables, shared, tied = tables_of(options)
    dim = count(options, "dim-emb", file)
    ffn = count(options, "transformer-dim-ffn", file)
    own = options.get("transformer-decoder-dim-ffn", "0") != "0"
    wide = [ffn, count(options, "transformer-decoder-dim-ffn", file) if own else ffn]
    depths = [count(options, f"{side}-depth", file) for side in ("enc", "dec")]
    for side, table, depth, width in zip(SIDES, tables, depths, wide, strict=True):
        if len(shapes.get(table, ())) != 2 or shapes[table][1] != dim:
            raise ModelError(f"{table} is not a table of dim-emb = {dim}", where=str(file))
        layers = {int(m[2]) for name in shapes if (m := LAYER.fullmatch(name)) and m[1] == side}
        if layers != set(range(1, len(layers) + 1)) or len(layers) != depth:
            raise ModelError(
                f"the options say {depth} layers of the {side}, not those in the file",
                where=str(file),
            )
        if shapes.get(f"{side}_l1_ffn_W1") != (dim, width):
            raise ModelError(
                f"{side}_l1_ffn_W1 is not {dim} x {width}, as the options say", where=str(file)
            )
    source, target = (shapes[table][0] for table in tables)
    heads = count(options, "transformer-heads", file)
    end = vocabularies(file)[1].get("</s>", 0)
    return {
        "model_type": "marian",
        # <pad>, the decoder's start token, is a row of both tables
        "vocab_size": max(source, target) + 1,
        "decoder_vocab_size": target + 1,
        "share_encoder_decoder_embeddings": shared and tied,
        "tie_word_embeddings": tied,
        "d_model": dim,
        **{f"{side}_layers": depth for side, depth in zip(SIDES, depths, strict=True)},
        **{f"{side}_ffn_dim": width for side, width in zip(SIDES, wide, strict=True)},
        **{f"{side}_attention_heads": heads for side in SIDES},
        "activation_function": options.get("transformer-ffn-activation", "swish"),
        # the Hub's conversions use dim, which usually is 512
        "max_position_embeddings": max(dim, 512),
        "scale_embedding": True,
        "pad_token_id": target,
        "decoder_start_token_id": target,
        "eos_token_id": end,
        "forced_eos_token_id": end,
    }


def read_weights(file: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]:
    given = npz.weights(file, lambda name: not name.startswith("special:"), weights_dtype)
    (source, target), shared, tied = tables_of(options_of(file))
    lacking = [name for name in (source, target) if name not in given or given[name].ndim != 2]
    if lacking:
        raise ModelError(f"{lacking[0]} is missing", where=str(file))
    tables = {name: given.pop(name) for name in {source, target}}
    rows = len(tables[target])
    longest = max(map(len, tables.values()))
    places = {"encoder.embed_tokens": (source, longest), "decoder.embed_tokens": (target, rows)}
    if shared and tied:
        places = {"shared": (source, rows)}
    holder = DtypeConverter(None, [tables[name] for name, _ in places.values()])
    weights = {
        f"model.{at}.weight": _rows(tables[name], n + 1, holder) for at, (name, n) in places.items()
    }
    output = [
        name
        for name in ("decoder_ff_logit_out_Wt", "decoder_ff_logit_out_W")
        if name in given and not tied
    ]
    if output:
        matrix = given.pop(output[0])
        weights["lm_head.weight"] = _rows(
            matrix if output[0].endswith("t") else matrix.t(), rows + 1, holder
        )
    bias = given.pop("decoder_ff_logit_out_b", torch.zeros(1, rows)).reshape(1, -1)
    weights["final_logits_bias"] = torch.cat([bias, torch.tensor([[NEVER]])], dim=1)
    for name, tensor in given.items():
        theirs = renamed(name)
        if theirs is None:
            raise ModelError(f"the weight {name} has no place in our Marian", where=str(file))
        weights[theirs] = tensor.t() if theirs.endswith(MATRICES) else tensor.reshape(-1)
    return weights


def renamed(name: str) -> str | None:
    """Return the published name of a layer's weight, or None if it is unknown.

    For example `encoder_l1_self_Wq`, (in, out), is
    `model.encoder.layers.0.self_attn.q_proj.weight`.
    """
    found = LAYER.fullmatch(name)
    if found is None:
        return None
    side, number, block, part = found.groups()
    norm = part.removeprefix("ffn_ln_" if block == "ffn" else "Wo_ln_")
    if norm in ("scale", "bias") and norm != part:
        ours = "final_layer_norm" if block == "ffn" else f"{ATTENTION[block]}_layer_norm"
        end = "weight" if norm == "scale" else "bias"
    elif part in (FFN if block == "ffn" else PARTS):
        ours = FFN[part] if block == "ffn" else f"{ATTENTION[block]}.{PARTS[part]}"
        end = "weight" if part.startswith("W") else "bias"
    else:
        return None
    return f"model.{side}.layers.{int(number) - 1}.{ours}.{end}"


def _rows(table: Tensor, count: int, holder: DtypeConverter) -> Tensor:
    """Pad the table with rows of zeros to `count` rows."""
    return holder.stack([table, table.new_zeros(count - len(table), table.shape[1])])


class _Release(Tokenizer):
    """A tokenizer that is saved with its vocabularies, which the release stores as .yml."""

    files: dict[str, dict[str, int]]

    def save(self, folder: Path) -> None:
        super().save(folder)
        for name, ids in self.files.items():
            write_json(folder / name, ids)


def read_tokenizer(file: Path) -> Tokenizer:
    spm = [file.parent / name for name in ("source.spm", "target.spm")]
    ids = vocabularies(file)
    for path in spm:
        if not path.is_file():
            raise ModelError(f"the release lacks its {path.name}", where=str(file.parent))
    shapes = npz.shapes(file)
    for side, table in zip(ids, tables_of(options_of(file))[0], strict=True):
        rows = shapes.get(table, (0,))[0]
        if len(side) != rows:
            raise ModelError(
                f"the vocabulary has {len(side)} names and {table} {rows} rows", where=str(file)
            )
        side.setdefault("<pad>", rows)
    try:
        found = sides((spm[0], spm[1]), (ids[0], ids[1]), where=str(file.parent))
    except LangueError:
        raise
    except Exception as error:  # `tokenizers` raises plain Exception
        raise ModelError(
            f"the tokenizer cannot be read: {error}", where=str(file.parent)
        ) from error
    apart = ids[0] != ids[1]
    options = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": apart}
    tokenizer = _Release.of_two_sides(found, file.parent, options)
    tokenizer.files = {"vocab.json": ids[0]} | ({"target_vocab.json": ids[1]} if apart else {})
    return tokenizer

"""Make the special tokens of a saved config and tokenizer agree, so that other libraries batch,
score and generate correctly.

A token is never special because of its spelling: the tokenizer's files or the model's config must
name it. If neither names a padding token, the end-of-text token pads, as is usual for decoders.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langue.files import read_json, write_json
from langue.model.config import ModelConfig
from langue.text.tokenizers.tokenizer import Tokenizer

# roles in order of preference as padding: the first that is named
PADDING = ("pad", "eos", "sep", "bos", "unk")


def named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the tokens that the tokenizer's files or class defaults name, by role."""
    named: dict[str, str] = {}
    for role, token in tokenizer.roles.items():
        if token and tokenizer.backend.token_to_id(token) is not None:
            named[role] = token
    return named


def special_tokens(tokenizer: Tokenizer, published: Mapping[str, Any]) -> dict[str, str]:
    """Return `named_tokens`, completed by the ids in a config (`bos_token_id` and the like)."""
    named = named_tokens(tokenizer)
    if tokenizer.has_two_vocabularies:
        return named  # the ids belong to the decoder's vocabulary, and the names to the encoder's
    begin = published.get("bos_token_id")
    for role in PADDING:
        ids = published.get(f"{role}_token_id")
        several = ids if isinstance(ids, list) else [ids]
        known = [index for index in several if type(index) is int and 0 <= index < len(tokenizer)]
        # Among several end tokens, one that is also the begin token comes last.
        known.sort(key=lambda index: role == "eos" and index == begin)
        if role not in named and known and tokenizer.backend.id_to_token(known[0]) is not None:
            named[role] = str(tokenizer.backend.id_to_token(known[0]))
    return named


def padding_token(tokenizer: Tokenizer, published: Mapping[str, Any]) -> str | None:
    """Return the token that pads batches: the padding token or a substitute; None if no token is
    named.
    """
    named = special_tokens(tokenizer, published)
    return next((named[role] for role in PADDING if role in named), None)


def special_ids(tokenizer: Tokenizer, published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ids in a config, completed by the tokens that the tokenizer names; present ids
    stay.

    A padding token that also has another role is left out, because other libraries do not train the
    embedding row of the padding token.
    """
    ids = {key: value for key, value in published.items() if key.endswith("_token_id")}
    named = named_tokens(tokenizer)
    for role in ("bos", "eos", "pad"):
        if ids.get(f"{role}_token_id") is not None or role not in named:
            continue
        if tokenizer.has_two_vocabularies:
            continue
        index = tokenizer.backend.token_to_id(named[role])
        if role != "pad" or index not in ids.values():
            ids[f"{role}_token_id"] = index
    return ids


def write_tokenizer_config(
    folder: Path, tokenizer: Tokenizer, published: Mapping[str, Any], config: ModelConfig
) -> None:
    """Complete the tokenizer_config.json that the tokenizer wrote to `folder`; existing entries
    stay.

    The special tokens are named, and the model's inputs beside token ids are listed, because the
    generic class of `transformers` would otherwise give every model BERT's segments.
    """
    file = folder / "tokenizer_config.json"
    written: dict[str, Any] = read_json(file)
    named = special_tokens(tokenizer, published)
    padding = padding_token(tokenizer, published)
    if padding is not None:
        named["pad"] = padding
    for role, token in named.items():
        # A file may explicitly name no token; without a padding token, however, nobody could batch.
        if f"{role}_token" not in written or (role == "pad" and written["pad_token"] is None):
            written[f"{role}_token"] = token
    segments = ["token_type_ids"] if config.n_segments > 1 else []
    written.setdefault("model_input_names", ["input_ids", *segments, "attention_mask"])
    write_json(file, written)

"""What arrives: the special token ids of a model's config and its tokenizer, as they are saved.
What leaves: both naming the same tokens, so that other libraries batch, score and generate.

No token is special because of how it is spelled: the tokenizer's files name it, or the model's
config does. Where neither names one for padding, the token that ends a text pads, as is usual
for decoders.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langue.files import read_json, write_json
from langue.model.config import ModelConfig
from langue.text.tokenizers.tokenizer import Tokenizer

PADDING = ("pad", "eos", "sep", "bos", "unk")  # what pads a batch: the first of these that is named


def named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The tokens that the tokenizer's files name, or its class has by default, by their roles."""
    named: dict[str, str] = {}
    for role, token in tokenizer.roles.items():
        if token and tokenizer.backend.token_to_id(token) is not None:
            named[role] = token
    return named


def special_tokens(tokenizer: Tokenizer, published: Mapping[str, Any]) -> dict[str, str]:
    """`named_tokens`, completed by the ids of a config (`bos_token_id` and the like)."""
    named = named_tokens(tokenizer)
    if tokenizer.has_two_vocabularies:
        return named  # the ids are of the decoder's vocabulary, and the names of the encoder's
    begin = published.get("bos_token_id")
    for role in PADDING:
        ids = published.get(f"{role}_token_id")
        several = ids if isinstance(ids, list) else [ids]
        known = [index for index in several if type(index) is int and 0 <= index < len(tokenizer)]
        # Of several that end a text, one that also begins one says less.
        known.sort(key=lambda index: role == "eos" and index == begin)
        if role not in named and known and tokenizer.backend.id_to_token(known[0]) is not None:
            named[role] = str(tokenizer.backend.id_to_token(known[0]))
    return named


def padding_token(tokenizer: Tokenizer, published: Mapping[str, Any]) -> str | None:
    """What fills up a batch: the token for it, or one that may stand in.

    None where no token is named at all.
    """
    named = special_tokens(tokenizer, published)
    return next((named[role] for role in PADDING if role in named), None)


def special_ids(tokenizer: Tokenizer, published: Mapping[str, Any]) -> dict[str, Any]:
    """The ids of a config, completed by the tokens that the tokenizer names; what is there stays.

    A padding token that has another role too is left out: other libraries do not train the row of
    an embedding that is named for padding.
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
    """Complete the tokenizer_config.json that the tokenizer wrote to `folder`; what it says stays.

    The special tokens get their names, and what the model takes beside token ids is listed: the
    generic class of `transformers` would give any model the segments that BERT has.
    """
    file = folder / "tokenizer_config.json"
    written: dict[str, Any] = read_json(file)
    named = special_tokens(tokenizer, published)
    padding = padding_token(tokenizer, published)
    if padding is not None:
        named["pad"] = padding
    for role, token in named.items():
        # A file may say that there is none. Of padding that would mean that nobody can batch.
        if f"{role}_token" not in written or (role == "pad" and written["pad_token"] is None):
            written[f"{role}_token"] = token
    segments = ["token_type_ids"] if config.n_segments > 1 else []
    written.setdefault("model_input_names", ["input_ids", *segments, "attention_mask"])
    write_json(file, written)

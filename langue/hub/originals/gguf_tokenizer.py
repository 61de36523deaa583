"""Convert a tokenizer to the metadata of a GGUF file, and back.

llama.cpp has two kinds of BPE. "llama" is that of sentencepiece: pieces with scores; any two
adjacent pieces that form a piece are merged, the highest score first. "gpt2" is byte-level BPE:
tokens, merges, and the name of the pre-tokenizer's rule, of which the file contains only the name.
Tokenizers that neither kind can express are refused, not approximated.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from langue.errors import ModelError
from langue.text.tokenizers.chat import template_of
from langue.text.tokenizers.flags import frame_of
from langue.text.tokenizers.sentencepiece import MOST_MERGES, SPACE, frame, merges_of
from langue.text.tokenizers.special import special_ids
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.vocabulary import LLAMA3, QWEN2, by_words

NORMAL = 1
UNKNOWN = 2
CONTROL = 3
USER = 4
UNUSED = 5
BYTE = 6
KEY = "tokenizer.ggml."
ROLE_KEYS = {
    "unk": "unknown_token_id",
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "pad": "padding_token_id",
}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def _digits() -> Any:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


# name -> (pre-tokenizer, whether a word that is a token is taken whole before any merge)
RULES: dict[str, tuple[Callable[[], Any], bool]] = {
    "gpt-2": (lambda: pre_tokenizers.ByteLevel(add_prefix_space=False), False),
    "llama-bpe": (lambda: by_words(LLAMA3), True),
    "smaug-bpe": (lambda: by_words(LLAMA3), False),
    "qwen2": (lambda: by_words(QWEN2), False),
    "smollm": (_digits, False),
}
_SAME = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
    "phi-2": "gpt-2",
    "mpt": "gpt-2",
}
_SAME |= {"starcoder": "smollm", "refact": "smollm", "command-r": "smollm"}


def to_metadata(tokenizer: Tokenizer, published: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the tokenizer as metadata.

    size: that of the model's vocabulary; ids without a token get one that is never used. Raises
    ModelError if the tokenizer has no exact counterpart.
    """
    said = json.loads(tokenizer.backend.to_str())
    model = said["model"]
    if tokenizer.has_two_vocabularies or model["type"] != "BPE" or model.get("dropout"):
        raise _refused(
            f"a {model['type']} tokenizer", "it must be BPE, byte-level or sentencepiece's"
        )
    added = {entry["id"]: entry for entry in said["added_tokens"]}
    tokens, types = _tokens(tokenizer.backend.get_vocab(), added, size)
    written: dict[str, Any]
    if model.get("byte_fallback"):
        types = [
            BYTE if kind == NORMAL and _BYTE.fullmatch(t) else kind
            for t, kind in zip(tokens, types, strict=True)
        ]
        written = {"model": "llama", "tokens": tokens} | _pieces(said, tokens, types)
        unknown = tokens.index(model["unk_token"]) if model.get("unk_token") in tokens else None
        if unknown is not None:
            types[unknown] = UNKNOWN
            written["unknown_token_id"] = unknown
    else:
        merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
        written = {"model": "gpt2", "pre": _rule(said), "tokens": tokens, "merges": merges}
    written["token_type"] = np.asarray(types, "<i4")
    written |= _special(tokenizer, published)
    return {KEY + key: value for key, value in written.items()} | _template(tokenizer)


def _refused(what: str, why: str) -> ModelError:
    return ModelError(f"{what} has no place in a GGUF file", do=why)


def _tokens(
    vocabulary: Mapping[str, int], added: Mapping[int, Any], size: int
) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [UNUSED] * size
    for token, index in vocabulary.items():
        tokens[index] = token
        types[index] = (
            NORMAL if index not in added else CONTROL if added[index]["special"] else USER
        )
    if len(set(tokens)) < size:
        raise _refused("a vocabulary with a token of the name [PAD...]", "rename it")
    return tokens, types


def _pieces(said: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]) -> dict[str, Any]:
    """Return scores that imply the merges, and whether a space is put before the text."""
    merges = [
        tuple(pair.split(" ", 1) if isinstance(pair, str) else pair)
        for pair in said["model"]["merges"]
    ]
    scores: dict[str, float] = {}
    for left, right in merges:
        scores.setdefault(left + right, -float(len(scores)))
    normal = {
        token: scores.get(token, 0.0)
        for token, kind in zip(tokens, types, strict=True)
        if kind == NORMAL
    }
    order = [left + right for left, right in merges]
    together = sum(a != b for a, b in zip(order, order[1:], strict=False)) == max(
        len(scores) - 1, 0
    )
    if {*merges_of(normal)} != {*merges} or not together:
        raise _refused(
            "BPE with bytes to fall back on, whose merges are not those that its pieces imply,",
            "none is",
        )
    # a piece of one character results from no merge, so its score is never used
    last = -float(len(scores))
    return {
        "scores": np.asarray(
            [scores.get(token, last if token in normal else 0.0) for token in tokens], "<f4"
        ),
        "add_space_prefix": _prefixed(said),
    }


def _prefixed(said: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer puts a space before the text; ModelError for any other
    normalisation.
    """
    steps = [step for step in (said["normalizer"], said["pre_tokenizer"]) if step]
    flat = [
        part
        for step in steps
        for part in step.get("normalizers", step.get("pretokenizers", [step]))
    ]
    replaces = False
    prefixed = False
    for step in flat:
        if step["type"] == "Prepend" and step["prepend"] == SPACE:
            prefixed = True
        elif (
            step["type"] == "Replace"
            and step["pattern"] == {"String": " "}
            and step["content"] == SPACE
        ):
            replaces = True
        elif (
            step["type"] == "Metaspace"
            and step["replacement"] == SPACE
            and not step.get("split", True)
        ):
            replaces = True
            prefixed = step.get("prepend_scheme", "always") != "never"
        else:
            raise _refused(
                f"the step {step['type']} of a sentencepiece tokenizer",
                "only spaces may become marks",
            )
    if not replaces:
        raise _refused(
            "a tokenizer with bytes to fall back on that leaves spaces alone",
            "use a byte-level one",
        )
    return prefixed


def _rule(said: Mapping[str, Any]) -> str:
    """Return the name of the pre-tokenizer's rule; ModelError for an unknown rule."""
    model = said["model"]
    odd = [
        key
        for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix")
        if model.get(key)
    ]
    # Text is assumed to be NFC-normalised, as llama.cpp does for the published models that require
    # it.
    normal = said["normalizer"] or {"normalizers": []}
    odd += [step["type"] for step in normal.get("normalizers", [normal]) if step["type"] != "NFC"]
    if odd:
        raise _refused(f"a BPE tokenizer with {odd[0]}", "use a plain byte-level one")
    cut = _essence(said["pre_tokenizer"])
    if not model["merges"] and cut == _essence(
        _json(pre_tokenizers.ByteLevel(False, use_regex=False))
    ):
        return "gpt-2"  # without merges, no token spans a word boundary
    for name, (make, whole) in RULES.items():
        if cut == _essence(_json(make())) and whole == bool(model.get("ignore_merges")):
            return name
    raise ModelError(
        "the rule by which the tokenizer cuts words is not one that llama.cpp is told by name here",
        do=f"known: {', '.join(RULES)}",
    )


def _json(cut: Any) -> Any:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = cut
    return json.loads(backend.to_str())["pre_tokenizer"]


def _essence(cut: Any) -> Any:
    """Return a pre-tokenizer without the settings that do not affect ids."""
    if not isinstance(cut, dict):
        return cut
    parts = [_essence(part) for part in cut.get("pretokenizers", [])]
    if cut.get("type") == "Sequence":
        return parts[0] if len(parts) == 1 else parts
    return {key: value for key, value in cut.items() if key != "trim_offsets"}


def _special(tokenizer: Tokenizer, published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the begin and end tokens, and whether they are added to a text."""
    named = special_ids(tokenizer)
    ends = published.get("eos_token_id", named.eos)
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    start = published.get("bos_token_id")
    start = named.bos if start is None else start
    before, after = frame_of(tokenizer.backend)
    start = before[0] if before else start
    ends = sorted(ends, key=lambda index: (index not in after, index == start, index != named.eos))
    if not 0 < len(ends) <= 3:
        raise ModelError(
            f"the model names {len(ends)} tokens that end a text, and a GGUF file has room for 1"
            " to 3",
            do="set eos_token_id in config.json",
        )
    start = ends[0] if start is None else start
    if before not in ([], [start]) or after not in ([], [ends[0]]):
        raise _refused(
            "what the tokenizer puts around a text",
            "at most a begin and an end token may stand there",
        )
    keys = zip(("eos_token_id", "eot_token_id", "eom_token_id"), ends, strict=False)
    pad = published.get("pad_token_id", named.pad)
    return (
        {"bos_token_id": start, "add_bos_token": bool(before), "add_eos_token": bool(after)}
        | dict(keys)
        | ({} if pad is None else {"padding_token_id": pad})
    )


def _template(tokenizer: Tokenizer) -> dict[str, Any]:
    template = template_of(tokenizer.folder, tokenizer.options)
    return {} if template is None else {"tokenizer.chat_template": template}


class Vocabulary:
    """Checked access to the tokenizer in a file's metadata."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self.metadata = metadata
        self.where = where
        self.model = metadata.get(KEY + "model")
        tokens = self.texts("tokens")
        if len(set(tokens)) != len(tokens) or not tokens:
            raise ModelError("its tokenizer has no tokens, or one twice", where=where)
        types = metadata.get(KEY + "token_type", np.full(len(tokens), NORMAL, "<i4"))
        if not isinstance(types, np.ndarray) or len(types) != len(tokens):
            raise ModelError("its tokenizer has not one token_type for each token", where=where)
        self.types: list[int] = types.tolist()
        # Ids after the last used token pad the model's vocabulary and do not belong to the
        # tokenizer.
        self.used = max((i + 1 for i, kind in enumerate(self.types) if kind != UNUSED), default=0)
        self.tokens = tokens[: self.used]

    def texts(self, key: str) -> list[str]:
        value = self.metadata.get(KEY + key)
        if not isinstance(value, list):
            raise ModelError(f"its {KEY}{key} is missing or no list of texts", where=self.where)
        return value

    def number(self, key: str) -> int | None:
        value = self.metadata.get(KEY + key)
        return value if type(value) is int and 0 <= value < len(self.tokens) else None

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.metadata.get(KEY + key, default))

    def special(self) -> dict[str, Any]:
        """Return the special token ids as in config.json."""
        ends = [self.number(key) for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
        known = list(dict.fromkeys(index for index in ends if index is not None))
        said = {
            "bos_token_id": self.number("bos_token_id"),
            "pad_token_id": self.number("padding_token_id"),
        }
        said["eos_token_id"] = known[0] if len(known) == 1 else known or None  # type: ignore[assignment]
        return {key: value for key, value in said.items() if value is not None}

    def named(self, key: str) -> list[str]:
        index = self.number(key)
        return [] if index is None else [self.tokens[index]]


def from_metadata(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """Return the tokenizer in a file's metadata; ModelError if its kind is unknown."""
    found = Vocabulary(metadata, where)
    if found.model not in ("llama", "gpt2"):
        raise ModelError(
            f"its tokenizer is of the kind {found.model!r}", where=where, do="known: llama, gpt2"
        )
    try:
        backend, begins = _sentencepiece(found) if found.model == "llama" else _byte_level(found)
    except ModelError:
        raise
    except Exception as error:  # `tokenizers` raises plain Exception
        raise ModelError(f"its tokenizer cannot be built: {error}", where=where) from error
    options: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in ROLE_KEYS.items():
        options |= {f"{role}_token": name for name in found.named(key)}
    named = {name for key, name in options.items() if key.endswith("_token")}
    pairs = list(zip(found.tokens, found.types, strict=False))
    control = [token for token, kind in pairs if kind in (UNKNOWN, CONTROL) or token in named]
    special = [AddedToken(token, special=True, normalized=False) for token in control]
    # in one call, since each call scans all tokens that were added before
    backend.add_special_tokens(special)
    users = [token for token, kind in pairs if kind == USER and token not in named]
    backend.add_tokens([AddedToken(token, normalized=False) for token in users])
    first = found.named("bos_token_id") if found.flag("add_bos_token", begins) else []
    last = found.named("eos_token_id") if found.flag("add_eos_token", False) else []
    frame(backend, first, last)
    if isinstance(metadata.get("tokenizer.chat_template"), str):
        options["chat_template"] = metadata["tokenizer.chat_template"]
    return Tokenizer(backend, options=options)


def _sentencepiece(found: Vocabulary) -> tuple[tokenizers.Tokenizer, bool]:
    scores = found.metadata.get(KEY + "scores")
    if (
        not isinstance(scores, np.ndarray)
        or len(scores) < len(found.tokens)
        or not np.isfinite(scores).all()
    ):
        raise ModelError("its tokenizer has no score for each token", where=found.where)
    places = [i for i, kind in enumerate(found.types[: found.used]) if kind == NORMAL]
    unknown = found.named("unknown_token_id") or [
        t for t in found.tokens[:1] if found.types[0] == UNKNOWN
    ]
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(found.tokens)},
            merges=merges_of({found.tokens[i]: float(scores[i]) for i in places}, found.where),
            unk_token=unknown[0] if unknown else None,
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    prefix = found.flag("add_space_prefix", True)
    steps: list[Any] = [normalizers.Prepend(SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    decoder: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(
        [*decoder, *([decoders.Strip(" ", 1, 0)] if prefix else [])]
    )
    return backend, True


def _byte_level(found: Vocabulary) -> tuple[tokenizers.Tokenizer, bool]:
    said = found.metadata.get(KEY + "pre")
    name = _SAME.get(str(said), said)
    if name not in RULES:
        raise ModelError(
            f"its tokenizer cuts words by {said!r}",
            where=found.where,
            do=f"known: {', '.join(RULES)}",
        )
    make, whole = RULES[name]
    vocabulary = {token: index for index, token in enumerate(found.tokens)}
    merges = []
    joined = found.texts("merges")
    if len(joined) > MOST_MERGES:
        raise ModelError(f"its tokenizer has {len(joined):,} merges", where=found.where)
    for merge in joined:
        at = merge.find(" ", 1)
        left = merge[: max(at, 0)]
        right = merge[at + 1 :]
        if not {left, right, left + right} <= vocabulary.keys():
            raise ModelError(
                f"its tokenizer merges {merge!r} and lacks a token for it", where=found.where
            )
        merges.append((left, right))
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole))
    backend.pre_tokenizer = make()
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend, name == "llama-bpe"

"""Converts a sentencepiece model file (spiece.model, tokenizer.model, source.spm) to an equivalent
tokenizer of the `tokenizers` library.

Supports Unigram (Kudo 2018, arXiv:1804.10959) and BPE (Sennrich et al. 2016, arXiv:1508.07909). The
file is an untrusted protocol buffer. It is parsed here field by field, so that neither
sentencepiece nor protobuf is needed; lengths are checked before they are used.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from langue.errors import ModelError
from langue.text.tokenizers.classes import check_class
from langue.text.tokenizers.languages import RULES

SPACE = "▁"
# types of pieces
NORMAL = 1
CONTROL = 3
USER = 4
BYTE = 6
UNIGRAM = 1
BPE = 2
LONGEST = 512  # maximum length of a piece in characters; the default limit of sentencepiece is 16
MOST_MERGES = 2**22  # a vocabulary of 250,000 tokens has about 500,000


@dataclass
class SentencePiece:
    """The contents of a model file."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)  # (piece, score, type)
    model: int = UNIGRAM
    byte_fallback: bool = False
    unknown: int = 0
    charsmap: bytes = b""
    prefix: bool = True  # add_dummy_prefix: a space is added before the text
    tidy: bool = True  # remove_extra_whitespaces: outer spaces are stripped, inner ones merged


def read(path: Path) -> SentencePiece:
    """Parse the file; raise ModelError if it is not a sentencepiece model."""
    found = SentencePiece()
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                parts = dict(_fields(value))
                found.pieces.append(
                    (parts[1].decode("utf-8"), _score(parts.get(2)), parts.get(3, 1))
                )
            elif number == 2:
                trainer = dict(_fields(value))
                found.model = trainer.get(3, UNIGRAM)
                found.unknown = trainer.get(40, 0)
                found.byte_fallback = bool(trainer.get(35, 0))
                if trainer.get(24, 0):
                    raise ModelError(
                        "pieces with their space behind them are not read", where=str(path)
                    )
            elif number == 3:
                normal = dict(_fields(value))
                found.charsmap = normal.get(2, b"")
                found.prefix = bool(normal.get(3, 1))
                found.tidy = bool(normal.get(4, 1))
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(
            f"not a sentencepiece model ({type(error).__name__})", where=str(path)
        ) from error
    if (
        not found.pieces
        or found.model not in (UNIGRAM, BPE)
        or not 0 <= found.unknown < len(found.pieces)
    ):
        raise ModelError("not a sentencepiece model of unigrams or BPE", where=str(path))
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of the fields of a message; values are int or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}[kind]
        if size > len(data) - at:
            raise ValueError("a field ends beyond the file")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number without end")


def _score(raw: bytes | None) -> float:
    return 0.0 if raw is None else float(struct.unpack("<f", raw)[0])


def merges_of(scores: Mapping[str, float], where: str = "") -> list[tuple[str, str]]:
    """Return BPE's merges, which a sentencepiece file implies: any two pieces that form a third,
    ordered by its score.

    Raises ModelError if the pieces have more possible splits, each of which may be a merge, than
    any vocabulary in use.
    """
    if max(map(len, scores), default=0) > LONGEST:
        raise ModelError(
            f"its tokenizer has a piece of more than {LONGEST} characters", where=where
        )
    if sum(map(len, scores)) > MOST_MERGES:
        raise ModelError(
            "its tokenizer's pieces have more cuts than there are merges in use", where=where
        )
    pieces = sorted((piece for piece in scores if len(piece) > 1), key=lambda piece: -scores[piece])
    cuts = ((piece[:cut], piece[cut:]) for piece in pieces for cut in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in scores and right in scores]


def build(
    found: SentencePiece,
    vocabulary: Sequence[tuple[str, float]] | None = None,
    *,
    unknown: str | None = None,
    once: bool = False,
    last_steps: Sequence[Any] = (),
) -> tokenizers.Tokenizer:
    """Return the tokenizer, without special tokens around a text.

    vocabulary: the pieces in another order, with their scores. unknown: the unknown piece, if it is
    not that of the file. once: a space is added only before the text, and not also after a special
    token in it. last_steps: the last steps of normalisation, after spaces were replaced by marks.
    """
    pieces = (
        [(piece, score) for piece, score, _ in found.pieces]
        if vocabulary is None
        else list(vocabulary)
    )
    unknown = unknown or found.pieces[found.unknown][0]
    place = next(index for index, (piece, _) in enumerate(pieces) if piece == unknown)
    if found.model == UNIGRAM:
        backend = tokenizers.Tokenizer(models.Unigram(pieces, place, found.byte_fallback))
    else:
        merged = {
            piece: score for piece, score, kind in found.pieces if kind not in (CONTROL, USER, BYTE)
        }
        backend = tokenizers.Tokenizer(
            models.BPE(
                vocab={piece: index for index, (piece, _) in enumerate(pieces)},
                merges=merges_of(merged),
                unk_token=unknown,
                byte_fallback=found.byte_fallback,
                fuse_unk=True,
            )
        )
    steps: list[Any] = [normalizers.Precompiled(found.charsmap)] if found.charsmap else []
    if found.tidy:  # spaces only, not line breaks and tabs
        steps += [
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
        ]
    steps += [normalizers.Replace(" ", SPACE), *last_steps]
    # No unigram piece contains an inner space, so words can be tokenized one at a time.
    if found.prefix and once:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            SPACE, "first", split=found.model == UNIGRAM
        )
    elif found.model == UNIGRAM:
        backend.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    if found.prefix and not once:
        steps.append(normalizers.Prepend(SPACE))
    backend.normalizer = normalizers.Sequence(steps)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if found.prefix else [])
    )
    known = {piece for piece, _ in pieces}
    special = [
        AddedToken(p, special=True, normalized=False)
        for p, _, kind in found.pieces
        if kind == CONTROL
    ]
    backend.add_special_tokens([token for token in special if token.content in known])
    users = [piece for piece, _, kind in found.pieces if kind == USER and piece in known]
    # Those with spaces, as in Gemma, are matched after spaces were replaced by marks; so no mark
    # may be added before the text.
    if found.prefix and any(SPACE in piece for piece in users):
        raise ModelError(
            "pieces of the user's own that hold spaces, with a space put before the text, are not"
            " read"
        )
    backend.add_tokens([AddedToken(piece, normalized=SPACE in piece) for piece in users])
    return backend


def load(path: Path, options: Mapping[str, Any], kind: str = "") -> tokenizers.Tokenizer:
    """Load T5's spiece.model or Llama's tokenizer.model, with the special tokens around a text and
    T5's sentinels.

    options: the content of tokenizer_config.json, including its special tokens. kind: the class
    that the folder names.
    """
    t5 = path.name == "spiece.model"
    check_class(kind, ("T5", "MT5") if t5 else ("Llama", "Gemma"), path)
    found = read(path)
    backend = build(found, once=options.get("legacy") is False and not t5)
    names = {piece for piece, _, _ in found.pieces}
    if t5 and "<extra_id_0>" not in names:
        count = int(options.get("extra_ids", 100))
        backend.add_special_tokens(
            [AddedToken(f"<extra_id_{i}>", special=True) for i in reversed(range(count))]
        )
    first = [
        token
        for token in (options.get("bos_token"),)
        if token in names and options.get("add_bos_token", not t5)
    ]
    last = [
        token
        for token in (options.get("eos_token"),)
        if token in names and options.get("add_eos_token", t5)
    ]
    frame(backend, first, last)
    return backend


def load_fairseq(path: Path, kind: str) -> tokenizers.Tokenizer:
    """Load the sentencepiece.bpe.model of XLM-R or mBART.

    Ids are those of fairseq: its four special tokens, the pieces of the file, the language codes if
    the class has any, and <mask>.
    """
    # CamemBERT has different ids, and NLLB is a BPE model
    check_class(kind, ("XLMRoberta", "MBart", "MBart50"), path)
    found = read(path)
    own = ["<s>", "<pad>", "</s>", "<unk>"]
    codes = RULES[kind].codes if kind in RULES else ()
    pieces = [(piece, score) for piece, score, _ in found.pieces if piece not in own]
    backend = build(
        found,
        [*((name, 0.0) for name in own), *pieces, *((name, 0.0) for name in [*codes, "<mask>"])],
    )
    backend.add_special_tokens([AddedToken(name, special=True) for name in [*own, *codes]])
    backend.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True)])
    # replaced for each language if there are any
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return backend


def load_deberta(path: Path, options: Mapping[str, Any], kind: str) -> tokenizers.Tokenizer:
    """Load the spm.model of DeBERTa v2 or v3, with the mask token after its pieces.

    A text is tokenized as by sentencepiece, as in training; `transformers` 5 normalises it
    differently.
    """
    check_class(kind, ("DebertaV2",), path)
    if options.get("split_by_punct"):
        raise ModelError(
            "split_by_punct = true in tokenizer_config.json is not followed",
            where=str(path),
            do="put a tokenizer.json beside it that cuts texts so",
        )
    found = read(path)
    first, last, unknown = (options[f"{role}_token"] for role in ("cls", "sep", "unk"))
    names = {piece for piece, _, _ in found.pieces}
    missing = [name for name in (first, last, unknown) if name not in names]
    if missing:
        raise ModelError(f"the vocabulary lacks {', '.join(missing)}", where=str(path))
    backend = build(found, unknown=unknown)
    if options.get("do_lower_case"):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), backend.normalizer])
    roles = ("pad", "cls", "sep", "unk", "mask")
    backend.add_special_tokens(
        [AddedToken(options[f"{role}_token"], special=True) for role in roles]
    )
    frame_as_bert(backend, first, last)
    return backend


def frame(backend: tokenizers.Tokenizer, first: list[str], last: list[str]) -> None:
    """Add special tokens around each text."""
    special = [(name, backend.token_to_id(name)) for name in {*first, *last}]
    if special:
        single = [*first, "$A", *last]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=[*single, *first, "$B:1", *last], special_tokens=special
        )


def frame_as_bert(backend: tokenizers.Tokenizer, first: str, last: str) -> None:
    """Add `first` before a text, and `last` after it and after a second one (Devlin et
    al. 2018).
    """
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in (first, last)],
    )

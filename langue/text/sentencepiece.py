"""What arrives: a sentencepiece model file (spiece.model, tokenizer.model, source.spm), a protocol buffer that may be
hostile. What leaves: a tokenizer of the `tokenizers` library that cuts texts the same way.

Unigram (Kudo 2018, arXiv:1804.10959) and BPE (Sennrich et al. 2016, arXiv:1508.07909). The file is read here, field by
field, so that neither sentencepiece nor protobuf is needed; lengths are checked before they are followed.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from langue.errors import ModelError

SPACE = "▁"
CONTROL, USER, BYTE = 3, 4, 6  # kinds of piece
UNIGRAM, BPE = 1, 2
LONGEST = 512  # characters of a piece; sentencepiece's own limit is 16 unless told otherwise
MOST_MERGES = 2**22  # a quarter of a million tokens have some half a million


@dataclass
class SentencePiece:
    """What a model file says."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)  # piece, score, kind
    model: int = UNIGRAM
    byte_fallback: bool = False
    unknown: int = 0
    charsmap: bytes = b""
    prefix: bool = True  # a space before the text
    tidy: bool = True  # outer spaces go, inner ones become one


def read(path: Path) -> SentencePiece:
    """Parse the file. ModelError where it is no sentencepiece model."""
    found = SentencePiece()
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                parts = dict(_fields(value))
                found.pieces.append((parts[1].decode("utf-8"), _score(parts.get(2)), parts.get(3, 1)))
            elif number == 2:
                trainer = dict(_fields(value))
                found.model, found.unknown = trainer.get(3, UNIGRAM), trainer.get(40, 0)
                found.byte_fallback = bool(trainer.get(35, 0))
                if trainer.get(24, 0):
                    raise ModelError("pieces with their space behind them are not read", where=str(path))
            elif number == 3:
                normal = dict(_fields(value))
                found.charsmap = normal.get(2, b"")
                found.prefix, found.tidy = bool(normal.get(3, 1)), bool(normal.get(4, 1))
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"not a sentencepiece model ({type(error).__name__})", where=str(path)) from error
    if not found.pieces or found.model not in (UNIGRAM, BPE) or not 0 <= found.unknown < len(found.pieces):
        raise ModelError("not a sentencepiece model of unigrams or BPE", where=str(path))
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message: an int, or bytes."""
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
    """BPE's merges, which a sentencepiece file implies: any two pieces that make a third, the likelier first.
    ModelError where the pieces have more cuts, each of which may be a merge, than any vocabulary."""
    if max(map(len, scores), default=0) > LONGEST:
        raise ModelError(f"its tokenizer has a piece of more than {LONGEST} characters", where=where)
    if sum(map(len, scores)) > MOST_MERGES:
        raise ModelError("its tokenizer's pieces have more cuts than there are merges in use", where=where)
    pieces = sorted((piece for piece in scores if len(piece) > 1), key=lambda piece: -scores[piece])
    cuts = ((piece[:cut], piece[cut:]) for piece in pieces for cut in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in scores and right in scores]


def build(
    found: SentencePiece, vocabulary: Sequence[tuple[str, float]] | None = None, *, once: bool = False
) -> tokenizers.Tokenizer:
    """The tokenizer, no special tokens around a text. vocabulary: its pieces in another order, with their scores; once:
    a space is put before the text alone, not also after a special token in it."""
    pieces = [(piece, score) for piece, score, _ in found.pieces] if vocabulary is None else list(vocabulary)
    unknown = found.pieces[found.unknown][0]
    place = next(index for index, (piece, _) in enumerate(pieces) if piece == unknown)
    if found.model == UNIGRAM:
        backend = tokenizers.Tokenizer(models.Unigram(pieces, place, found.byte_fallback))
    else:
        merged = {piece: score for piece, score, kind in found.pieces if kind not in (CONTROL, USER, BYTE)}
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
    if found.tidy:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    steps.append(normalizers.Replace(" ", SPACE))
    # No piece of unigrams reaches over a space, so words may be cut one at a time.
    if found.prefix and once:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", split=found.model == UNIGRAM)
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
    special = [AddedToken(p, special=True, normalized=False) for p, _, kind in found.pieces if kind == CONTROL]
    backend.add_special_tokens([token for token in special if token.content in known])
    users = [piece for piece, _, kind in found.pieces if kind == USER and piece in known]
    # Those of spaces, as Gemma has them, are looked for where spaces have become marks; no mark may come before them.
    if found.prefix and any(SPACE in piece for piece in users):
        raise ModelError("pieces of the user's own that hold spaces, with a space put before the text, are not read")
    backend.add_tokens([AddedToken(piece, normalized=SPACE in piece) for piece in users])
    return backend


def load(path: Path, options: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """T5's spiece.model or Llama's tokenizer.model, with the tokens that stand around a text and T5's sentinels."""
    found = read(path)
    t5 = path.name == "spiece.model"
    backend = build(found, once=options.get("legacy") is False and not t5)
    names = {piece for piece, _, _ in found.pieces}
    if t5 and "<extra_id_0>" not in names:
        count = int(options.get("extra_ids", 100))
        backend.add_special_tokens([AddedToken(f"<extra_id_{i}>", special=True) for i in reversed(range(count))])
    first = ["<s>"] if options.get("add_bos_token", not t5) and "<s>" in names else []
    last = ["</s>"] if options.get("add_eos_token", t5) and "</s>" in names else []
    frame(backend, first, last)
    return backend


# mBART's languages (Liu et al. 2020, arXiv:2001.08210), and what mBART-50 adds (Tang et al. 2020, arXiv:2008.00401).
_FEW = """ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP
nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"""
_MORE = """af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE
ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"""
LANGUAGES = {"MBartTokenizer": _FEW.split(), "MBart50Tokenizer": f"{_FEW} {_MORE}".split()}


def load_fairseq(path: Path, options: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """XLM-R's and mBART's sentencepiece.bpe.model. Ids are fairseq's: four tokens of its own, the file's pieces, the
    names of languages where there are some, and <mask>; tokenizer_config.json says whose it is and its `src_lang`."""
    found, kind = read(path), str(options.get("tokenizer_class", "")).removesuffix("Fast")
    if kind not in ("", "XLMRobertaTokenizer", "PreTrainedTokenizer", *LANGUAGES):  # CamemBERT's has other ids
        raise ModelError(
            f"how {kind} numbers this file is not known", where=str(path), do="put a tokenizer.json beside it"
        )
    own = ["<s>", "<pad>", "</s>", "<unk>"]
    tongues = LANGUAGES.get(kind, [])
    pieces = [(piece, score) for piece, score, _ in found.pieces if piece not in own]
    backend = build(found, [*((name, 0.0) for name in own), *pieces, *((name, 0.0) for name in [*tongues, "<mask>"])])
    special = [*own, *tongues]
    backend.add_special_tokens([AddedToken(name, special=True) for name in special])
    backend.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True)])
    tongue = str(options.get("src_lang") or "en_XX")
    if tongues and tongue not in tongues:
        raise ModelError(f"src_lang {tongue!r} is not a language of the model", where=str(path.parent))
    single, pair = {
        "MBartTokenizer": (f"$A </s> {tongue}", f"$A $B </s> {tongue}"),
        "MBart50Tokenizer": (f"{tongue} $A </s>", f"{tongue} $A $B </s>"),
    }.get(kind, ("<s> $A </s>", "<s> $A </s> </s> $B </s>"))
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, backend.token_to_id(name)) for name in special]
    )
    return backend


def frame(backend: tokenizers.Tokenizer, first: list[str], last: list[str]) -> None:
    """Put special tokens around each text."""
    special = [(name, backend.token_to_id(name)) for name in {*first, *last}]
    if special:
        single = [*first, "$A", *last]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=[*single, *first, "$B:1", *last], special_tokens=special
        )


Three = tuple[tokenizers.Tokenizer, tokenizers.Tokenizer, tokenizers.Tokenizer]


def load_pair(folder: Path) -> Three:
    """Marian's source.spm, target.spm and vocab.json, with target_vocab.json where the target has its own."""
    from langue.files import read_json

    own = (folder / "target_vocab.json").is_file()
    files = [folder / "vocab.json", folder / ("target_vocab.json" if own else "vocab.json")]
    source, target = (read_json(file) for file in files)
    return pair(folder / "source.spm", folder / "target.spm", source, target, where=str(files[0]))


def pair(source: Path, target: Path, source_ids: Any, target_ids: Any, *, where: str) -> Three:
    """Tokenizers of the source, of the target, and one that reads the target's ids.

    Ids are the vocabularies'. A name there that a side's file does not have gets a string no text holds; pieces that
    the vocabulary does not have are not used.
    """
    sides = []
    for file, ids in ((source, source_ids), (target, target_ids)):
        if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
            raise ModelError("the vocabulary does not number its names from 0", where=where)
        if "</s>" not in ids or "<unk>" not in ids:
            raise ModelError("the vocabulary lacks <unk> or </s>", where=where)
        names, found = sorted(ids, key=ids.__getitem__), read(file)
        scores = {piece: score for piece, score, _ in found.pieces}
        kept = scores.keys() | {n for n in names if n.startswith(">>") or n == "</s>"}
        listed = [(n, scores.get(n, 0.0)) if n in kept else (f"\uffff\ufffe{i}", 0.0) for i, n in enumerate(names)]
        side = build(found, listed)
        # Language names such as >>fr<< are not of the file, and stand for themselves.
        languages = [name for name in names if name.startswith(">>") and name.endswith("<<")]
        side.add_special_tokens([AddedToken(name, special=True) for name in ("</s>", *languages)])
        frame(side, [], ["</s>"])
        sides.append(side)
    reader = tokenizers.Tokenizer(models.WordLevel(target_ids, unk_token="<unk>"))
    reader.decoder = sides[0].decoder
    reader.add_special_tokens([AddedToken(n, special=True) for n in ("</s>", "<unk>", "<pad>") if n in target_ids])
    return sides[0], sides[1], reader

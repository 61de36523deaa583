"""Builds a tokenizer of the `tokenizers` library from a vocabulary in an older format than
tokenizer.json: vocab.txt, or vocab.json with merges.txt.

It tokenizes like the class that the folder names, with the options of tokenizer_config.json; an
unknown class is a ModelError.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from langue.errors import ModelError
from langue.files import read_json
from langue.text.tokenizers.classes import CLASSES, check_class
from langue.text.tokenizers.declared import named
from langue.text.tokenizers.sentencepiece import frame, frame_as_bert

# How Llama 3 and Qwen2 split a text into words before merging bytes.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + r"\p{N}{1,3}" + _REST
QWEN2 = _CONTRACTIONS + r"\p{N}" + _REST

# Classes with WordPiece, and those with byte-level BPE, which pre-tokenize like BERT and GPT-2.
WORDPIECE = ("Bert", "DistilBert", "Electra")
BYTES = ("GPT2", "Roberta", "Bart", "Deberta")
FRAMED = ("Roberta", "Bart")  # each text is enclosed in <s> and </s>


def by_words(pattern: str) -> Any:
    """Return a pre-tokenizer that splits by a pattern, and then into bytes."""
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def named_token(options: Mapping[str, Any], role: str, kind: str) -> str:
    """Return the token that tokenizer_config.json names for a role, or the default of the class."""
    return named(options.get(f"{role}_token")) or CLASSES[kind].special[role]


def wordpiece(path: Path, options: Mapping[str, Any], kind: str = "Bert") -> tokenizers.Tokenizer:
    """Build BERT's WordPiece from `vocab.txt`, normalised according to tokenizer_config.json (by
    default in lower case).
    """
    check_class(kind, WORDPIECE, path)
    words = path.read_text("utf-8").split("\n")
    vocabulary = {word.rstrip("\r"): index for index, word in enumerate(words) if word.rstrip("\r")}
    names = {role: named_token(options, role, "Bert") for role in CLASSES["Bert"].special}
    missing = [names[role] for role in ("unk", "cls", "sep") if names[role] not in vocabulary]
    if missing:
        raise ModelError(f"the vocabulary lacks {', '.join(missing)}", where=str(path))
    backend = tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token=names["unk"], max_input_chars_per_word=100)
    )
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
        strip_accents=options.get("strip_accents"),
        lowercase=bool(options.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    frame_as_bert(backend, names["cls"], names["sep"])
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(
        [AddedToken(name, special=True) for name in names.values() if name in vocabulary]
    )
    return backend


def merged(
    words: Path, merges: Path, options: Mapping[str, Any], kind: str
) -> tokenizers.Tokenizer:
    """Build BPE (Sennrich et al. 2016, arXiv:1508.07909) from `vocab.json` and `merges.txt`,
    whatever their file names.

    It is byte-level as in GPT-2, RoBERTa and Qwen2 or, if words end with a mark, of characters as
    in the first GPT.
    """
    vocabulary = read_json(words)
    if not isinstance(vocabulary, dict) or not all(
        type(index) is int for index in vocabulary.values()
    ):
        raise ModelError("the vocabulary does not number its tokens", where=str(words))
    if kind == "OpenAIGPT" or any(token.endswith("</w>") for token in vocabulary):
        return _letters(words, merges, options, kind)
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(words), str(merges)))
    backend.decoder = decoders.ByteLevel()
    if kind == "Qwen2":
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = by_words(QWEN2)
        _frame_by_flags(backend, options, kind)
        return backend
    check_class(kind, BYTES, words)
    prefix = bool(options.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if kind in (*FRAMED, "Deberta"):
        first, last = (named_token(options, role, kind) for role in ("cls", "sep"))
        missing = [token for token in (first, last) if token not in vocabulary]
        if missing:
            raise ModelError(f"the vocabulary lacks {', '.join(missing)}", where=str(words))
        if kind not in FRAMED:  # a single separator between the two texts of a pair
            frame_as_bert(backend, first, last)
            return backend
        ends = (last, vocabulary[last]), (first, vocabulary[first])
        backend.post_processor = processors.RobertaProcessing(
            *ends, trim_offsets=True, add_prefix_space=prefix
        )
        return backend
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    _frame_by_flags(backend, options, kind)
    return backend


def of_bytes(options: Mapping[str, Any], kind: str) -> tokenizers.Tokenizer:
    """Build the tokenizer of ByT5 (Xue et al. 2021, arXiv:2105.13626), which has no vocabulary
    file: three special tokens, one token for each byte of UTF-8, and sentinels.
    """
    special = [named_token(options, role, kind) for role in ("pad", "eos", "unk")]
    count = options.get("extra_ids", 125)
    if type(count) is not int or not 0 <= count <= 1000:
        raise ModelError(f"extra_ids = {count!r} in tokenizer_config.json is no count of sentinels")
    pieces = {token: index for index, token in enumerate([*special, *_letters_of_bytes()])}
    backend = tokenizers.Tokenizer(models.BPE(pieces, [], unk_token=special[2]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, special=True, lstrip=True, rstrip=True) for token in special]
    )
    sentinels = [f"<extra_id_{index}>" for index in range(count)]
    backend.add_special_tokens([AddedToken(token, special=True) for token in sentinels])
    frame(backend, [], [special[1]])
    return backend


def _letters_of_bytes() -> list[str]:
    """Return the character that stands for each byte in byte-level tokenizers: the byte itself if
    it is printable in Latin-1, otherwise the next one from 256 (Radford et al. 2019).
    """
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters = []
    for byte in range(256):
        hidden = sum(each not in seen for each in range(byte))
        letters.append(chr(byte if byte in seen else 256 + hidden))
    return letters


def _frame_by_flags(backend: tokenizers.Tokenizer, options: Mapping[str, Any], kind: str) -> None:
    """Add bos and eos around a text if tokenizer_config.json asks for it and such tokens exist."""
    around: dict[str, list[str]] = {}
    for role in ("bos", "eos"):
        token = named(options.get(f"{role}_token")) or CLASSES[kind or "GPT2"].special.get(role)
        asked = options.get(f"add_{role}_token") is True and token is not None
        around[role] = [token] if asked and token is not None else []
    frame(backend, around["bos"], around["eos"])


def _letters(
    words: Path, merges: Path, options: Mapping[str, Any], kind: str
) -> tokenizers.Tokenizer:
    """Build the tokenizer of the first GPT (Radford et al. 2018): BERT's words in lower case, each
    with a mark at its end.
    """
    check_class(kind, ("OpenAIGPT",), words)
    unknown = named_token(options, "unk", "OpenAIGPT")
    backend = tokenizers.Tokenizer(
        models.BPE.from_file(str(words), str(merges), unk_token=unknown, end_of_word_suffix="</w>")
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def follow_normaliser(backend: tokenizers.Tokenizer, options: Mapping[str, Any], kind: str) -> None:
    """Apply the normaliser options of tokenizer_config.json, which take precedence over
    tokenizer.json in BERT's classes.
    """
    normal = backend.normalizer
    if isinstance(normal, normalizers.BertNormalizer) and kind in WORDPIECE:
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=normal.clean_text,
            handle_chinese_chars=bool(
                options.get("tokenize_chinese_chars", normal.handle_chinese_chars)
            ),
            strip_accents=options.get("strip_accents", normal.strip_accents),
            lowercase=bool(options.get("do_lower_case", normal.lowercase)),
        )

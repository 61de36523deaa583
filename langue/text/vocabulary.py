"""What arrives: a vocabulary in an older form than tokenizer.json (vocab.txt, or vocab.json with merges.txt), what
tokenizer_config.json says of it, and the files that add tokens to it. What leaves: a tokenizer of the `tokenizers`
library that cuts texts as the class does that tokenizer_config.json names; ModelError where that class is not known.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from langue.errors import ModelError
from langue.files import read_json
from langue.text.sentencepiece import frame

# How Llama 3 and Qwen2 cut a text into words before merging bytes.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3, QWEN2 = _CONTRACTIONS + r"\p{N}{1,3}" + _REST, _CONTRACTIONS + r"\p{N}" + _REST

# Classes whose words are WordPiece's, and those whose words are bytes merged, cut as GPT-2 cuts them.
WORDPIECE = ("", "Bert", "DistilBert", "Electra", "PreTrained")
BYTES = ("", "GPT2", "Roberta", "Bart", "PreTrained")
NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# What tokens are called where no file says it, by what the vocabulary must have for that.
USUAL = {
    "[CLS]": {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"},
    "<s>": {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"},
    "<|endoftext|>": {"eos": "<|endoftext|>"},
    "<unk>": {"unk": "<unk>"},
}


def by_words(pattern: str) -> Any:
    """Cut by a pattern, then into bytes."""
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def named(said: Any) -> str | None:
    """A token that a file gives as a string, or as an object with its content."""
    said = said.get("content") if isinstance(said, dict) else said
    return said if isinstance(said, str) else None


def wordpiece(path: Path, options: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's WordPiece from `vocab.txt`, normalised as its tokenizer_config says (lower case unless told otherwise)."""
    _of_class(options, WORDPIECE, path)
    words = path.read_text("utf-8").split("\n")
    vocabulary = {word.rstrip("\r"): index for index, word in enumerate(words) if word.rstrip("\r")}
    names = {key: named(options.get(f"{key}_token")) or usual for key, usual in USUAL["[CLS]"].items()}
    missing = [names[key] for key in ("unk", "cls", "sep") if names[key] not in vocabulary]
    if missing:
        raise ModelError(f"the vocabulary lacks {', '.join(missing)}", where=str(path))
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
        strip_accents=options.get("strip_accents"),
        lowercase=bool(options.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{names['cls']}:0 $A:0 {names['sep']}:0",
        pair=f"{names['cls']}:0 $A:0 {names['sep']}:0 $B:1 {names['sep']}:1",
        special_tokens=[(names[key], vocabulary[names[key]]) for key in ("cls", "sep")],
    )
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([AddedToken(name, special=True) for name in names.values() if name in vocabulary])
    return backend


def merged(words: Path, merges: Path, options: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BPE (Sennrich et al. 2016, arXiv:1508.07909) from `vocab.json` and `merges.txt`, by whatever names: of bytes as
    GPT-2, RoBERTa and Qwen2 have it, or, where words end with a mark, of letters as the first GPT does."""
    vocabulary = read_json(words)
    if not isinstance(vocabulary, dict) or not all(type(index) is int for index in vocabulary.values()):
        raise ModelError("the vocabulary does not number its tokens", where=str(words))
    kind = _class(options)
    if kind == "OpenAIGPT" or any(token.endswith("</w>") for token in vocabulary):
        return _letters(words, merges, options)
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(words), str(merges)))
    backend.decoder = decoders.ByteLevel()
    if kind == "Qwen2":
        backend.normalizer, backend.pre_tokenizer = normalizers.NFC(), by_words(QWEN2)
        return backend
    _of_class(options, BYTES, words)
    prefix = bool(options.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    first, last = (named(options.get(f"{key}_token")) or USUAL["<s>"][key] for key in ("cls", "sep"))
    if kind != "GPT2" and first in vocabulary and last in vocabulary:  # RoBERTa's frame around each text
        frame_ = (last, vocabulary[last]), (first, vocabulary[first])
        backend.post_processor = processors.RobertaProcessing(*frame_, trim_offsets=True, add_prefix_space=prefix)
    else:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
        frame(backend, [named(options.get("bos_token")) or "<|endoftext|>"] if options.get("add_bos_token") else [], [])
    return backend


def _letters(words: Path, merges: Path, options: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The first GPT's (Radford et al. 2018): BERT's words in lower case, each with a mark at its end."""
    _of_class(options, ("", "OpenAIGPT", "PreTrained"), words)
    unknown = named(options.get("unk_token")) or "<unk>"
    backend = tokenizers.Tokenizer(
        models.BPE.from_file(str(words), str(merges), unk_token=unknown, end_of_word_suffix="</w>")
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def follow(backend: tokenizers.Tokenizer, folder: Path, options: Mapping[str, Any]) -> None:
    """What the files beside a tokenizer.json say otherwise: tokens that it lacks, and how BERT's normalise a text."""
    special = _special(folder, options, {})
    added = _added(folder, options, special)
    _add(backend, {index: each for index, each in added.items() if backend.token_to_id(each.content) is None}, folder)
    backend.add_special_tokens([token for name, token in special.items() if backend.token_to_id(name) is None])
    normal = backend.normalizer
    if isinstance(normal, normalizers.BertNormalizer) and _class(options) in WORDPIECE[1:-1]:
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=normal.clean_text,
            handle_chinese_chars=bool(options.get("tokenize_chinese_chars", normal.handle_chinese_chars)),
            strip_accents=options.get("strip_accents", normal.strip_accents),
            lowercase=bool(options.get("do_lower_case", normal.lowercase)),
        )


def add_tokens(backend: tokenizers.Tokenizer, folder: Path, options: Mapping[str, Any]) -> None:
    """Make special what is called so, and add what tokenizer_config.json (`added_tokens_decoder`) or, in older folders,
    added_tokens.json adds; each must get the id that is said."""
    usual = next((names for first, names in USUAL.items() if backend.token_to_id(first) is not None), {})
    usual = {key: name for key, name in usual.items() if backend.token_to_id(name) is not None}
    special = _special(folder, options, usual)
    added = _added(folder, options, special)
    backend.add_special_tokens([token for name, token in special.items() if backend.token_to_id(name) is not None])
    _add(backend, added, folder)
    backend.add_special_tokens([token for name, token in special.items() if backend.token_to_id(name) is None])


def _add(backend: tokenizers.Tokenizer, added: Mapping[int, AddedToken], folder: Path) -> None:
    for index in sorted(added):
        backend.add_tokens([added[index]])
        if (found := backend.token_to_id(added[index].content)) != index:
            raise ModelError(f"{added[index].content!r} is to be token {index} and is {found}", where=str(folder))


def _special(folder: Path, options: Mapping[str, Any], usual: Mapping[str, str]) -> dict[str, AddedToken]:
    """The special tokens that the files name, or, where none does, `usual`."""
    kept = folder / "special_tokens_map.json"
    said = {**(read_json(kept) if kept.is_file() else {}), **options}
    special: dict[str, AddedToken] = {}
    for key in NAMES:
        own = said.get(f"{key}_token")
        if (name := named(own) or usual.get(key)) is not None:
            left = own.get("lstrip", False) if isinstance(own, dict) else key == "mask" and name == "<mask>"
            special.setdefault(name, AddedToken(name, special=True, lstrip=bool(left), normalized=False))
    for each in said.get("additional_special_tokens") or said.get("extra_special_tokens") or []:
        if (name := named(each)) is not None:
            special.setdefault(name, AddedToken(name, special=True, normalized=False))
    return special


def _added(folder: Path, options: Mapping[str, Any], special: Mapping[str, AddedToken]) -> dict[int, AddedToken]:
    """Tokens by the ids that they are to have."""
    decoder, older = options.get("added_tokens_decoder"), folder / "added_tokens.json"
    if isinstance(decoder, dict):
        kinds = ("single_word", "lstrip", "rstrip", "normalized", "special")
        return {
            int(index): AddedToken(entry["content"], **{kind: bool(entry[kind]) for kind in kinds if kind in entry})
            for index, entry in decoder.items()
        }
    listed = read_json(older) if older.is_file() else {}
    return {
        index: AddedToken(name, special=name in special, normalized=name not in special)
        for name, index in listed.items()
    }


def _class(options: Mapping[str, Any]) -> str:
    """The class's name without its endings: Bert, of BertTokenizerFast too; nothing where none is named."""
    return str(options.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")


def _of_class(options: Mapping[str, Any], known: tuple[str, ...], file: Path) -> None:
    if _class(options) not in known:
        raise ModelError(
            f"how {options['tokenizer_class']} uses this file is not known",
            where=str(file),
            do="put a tokenizer.json beside it: AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )

"""What arrives: text. What leaves: token ids of a published or trained vocabulary, through the `tokenizers` library.

A folder's `tokenizer.json` is taken as it is; where there is only `vocab.txt` (WordPiece) or `vocab.json` with
`merges.txt` (byte-level BPE), the tokenizer is built from it and from `tokenizer_config.json`.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from langue.errors import ModelError
from langue.files import read_json, write_json
from langue.text import sentencepiece
from langue.text.chat import Messages, render

# What others read beside tokenizer.json; copied unchanged so that a saved model means the same to them.
SIDE_FILES: tuple[str, ...] = (
    *("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("vocab.txt", "vocab.json", "target_vocab.json", "merges.txt"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "source.spm", "target.spm"),
)


class Tokenizer:
    """Encode and decode. `encode` adds the special tokens that the model was trained with; nothing is padded."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        folder: Path | None = None,
        target: tokenizers.Tokenizer | None = None,
        reader: tokenizers.Tokenizer | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """target: what cuts texts for the decoder, where that is not the same; reader: what decodes; options: what its
        tokenizer_config.json says, where it comes from no folder."""
        for each in (backend, target or backend):
            each.no_padding()
            each.no_truncation()  # cut and counted in data/encode.py, never silently here
        self.backend, self.reader = backend, reader or backend
        self.target = self if target is None else Tokenizer(target, reader=reader)
        self.folder, self.options = folder, options or {}

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """From a model folder. ModelError where there is no tokenizer or it cannot be read."""
        try:
            if (folder / "tokenizer.json").is_file():
                return cls(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), folder)
            options = (
                read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
            )
            if all((folder / name).is_file() for name in ("source.spm", "target.spm", "vocab.json")):
                source, target, reader = sentencepiece.load_pair(folder)
                return cls(source, folder, target, reader)
            for name in ("spiece.model", "tokenizer.model"):
                if (folder / name).is_file():
                    return cls(sentencepiece.load(folder / name, options), folder)
            if (folder / "sentencepiece.bpe.model").is_file():
                return cls(sentencepiece.load_fairseq(folder / "sentencepiece.bpe.model", options), folder)
            if (folder / "vocab.txt").is_file():
                return cls(wordpiece(folder / "vocab.txt", options), folder)
            if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                return cls(byte_bpe(folder / "vocab.json", folder / "merges.txt", options), folder)
        except ModelError:
            raise
        except Exception as error:  # `tokenizers` raises bare Exception with the parser's words
            raise ModelError(f"the tokenizer cannot be read: {error}", where=str(folder)) from error
        raise ModelError(
            "the model folder has no tokenizer",
            where=str(folder),
            do="put its tokenizer.json, vocab.txt, spiece.model or vocab.json with merges.txt beside the weights",
        )

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size())

    @property
    def padding(self) -> int | None:
        """The token that its tokenizer_config.json names for padding, which nothing here does."""
        options = self.options
        if self.folder is not None and (self.folder / "tokenizer_config.json").is_file():
            options = read_json(self.folder / "tokenizer_config.json")
        named = options.get("pad_token") if isinstance(options, dict) else None
        named = named.get("content") if isinstance(named, dict) else named
        token: int | None = self.backend.token_to_id(named) if isinstance(named, str) else None
        return token

    def encode_batch(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[tokenizers.Encoding]:
        """Whole texts (or pairs) on all cores; the encodings carry ids, type_ids and sequence_ids."""
        items: Any = texts if pairs is None else list(zip(texts, pairs, strict=True))
        return self.backend.encode_batch_fast(items)

    def chat(self, messages: Messages, add_generation_prompt: bool = True) -> str:
        """The text of a conversation (`[{"role", "content"}]`) by the model's own template; ModelError without one."""
        if self.folder is None:
            raise ModelError("the tokenizer comes from no folder, and so has no chat template")
        return render(self.folder, messages, add_generation_prompt=add_generation_prompt)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return str(self.reader.decode(list(ids), skip_special_tokens=skip_special))

    def token(self, index: int) -> str:
        return str(self.reader.id_to_token(index))

    def save(self, folder: Path) -> None:
        """tokenizer.json, and the side files that came with it."""
        if self.target is self:  # one file cannot say how two sides are cut; theirs are copied
            self.backend.save(str(folder / "tokenizer.json"))
        for name in SIDE_FILES:
            if self.folder is not None and (self.folder / name).is_file() and self.folder != folder:
                shutil.copyfile(self.folder / name, folder / name)
        if not (folder / "tokenizer_config.json").is_file():
            write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | self.options)


def wordpiece(path: Path, options: dict[str, Any]) -> tokenizers.Tokenizer:
    """BERT's WordPiece from `vocab.txt`, normalised as its tokenizer_config says (lower case unless told otherwise)."""
    lower = bool(options.get("do_lower_case", True))
    words = path.read_text("utf-8").split("\n")
    vocabulary = {word.rstrip("\r"): index for index, word in enumerate(words) if word.rstrip("\r")}
    names = {
        key: str(options.get(f"{key}_token", default))
        for key, default in {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}.items()
    }
    missing = [names[key] for key in ("unk", "cls", "sep") if names[key] not in vocabulary]
    if missing:
        raise ModelError(f"the vocabulary lacks {', '.join(missing)}", where=str(path))
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
        strip_accents=options.get("strip_accents"),
        lowercase=lower,
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


def byte_bpe(words: Path, merges: Path, options: dict[str, Any]) -> tokenizers.Tokenizer:
    """GPT-2's byte-level BPE (Radford et al. 2019) from `vocab.json` and `merges.txt`, by whatever names."""
    model = models.BPE.from_file(str(words), str(merges))
    backend = tokenizers.Tokenizer(model)
    prefix = bool(options.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    vocabulary = json.loads(words.read_text("utf-8"))
    bos, eos = str(options.get("cls_token", "<s>")), str(options.get("sep_token", "</s>"))
    if bos in vocabulary and eos in vocabulary:  # RoBERTa's frame around each text
        backend.post_processor = processors.RobertaProcessing(
            (eos, vocabulary[eos]), (bos, vocabulary[bos]), trim_offsets=True, add_prefix_space=prefix
        )
    else:
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend

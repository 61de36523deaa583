"""What arrives: text. What leaves: token ids of a published or trained vocabulary, through the `tokenizers` library.

A folder's `tokenizer.json` is taken as it is, but for tokens that the files beside it add; where there is an older form
only, the tokenizer is built from it (vocabulary.py, sentencepiece.py) and from `tokenizer_config.json`. The files may
be hostile: one of a size that no vocabulary has is not read.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from langue.errors import ModelError
from langue.files import read_json, refuse_code, write_json
from langue.text import sentencepiece
from langue.text.chat import Messages, render
from langue.text.vocabulary import add_tokens, follow, merged, wordpiece

# What others read beside tokenizer.json; copied unchanged so that a saved model means the same to them.
SIDE_FILES: tuple[str, ...] = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.txt", "vocab.json", "target_vocab.json", "merges.txt"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "source.spm", "target.spm"),
)
HALF = "\ufffd"  # what bytes that are no whole character decode to
MOST_BYTES = 200_000_000  # of one file; a quarter of a million tokens take some 35 million


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
        tokenizer_config.json says."""
        for each in (backend, target or backend):
            each.no_padding()
            each.no_truncation()  # cut and counted in data/encode.py, never silently here
        self.backend, self.reader = backend, reader or backend
        self.target = self if target is None else Tokenizer(target, reader=reader)
        self.folder, self.options = folder, options or {}

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """From a model folder. ModelError where there is no tokenizer or it cannot be read."""
        _check_sizes(folder)
        said = folder / "tokenizer_config.json"
        options = read_json(said) if said.is_file() else {}
        if not isinstance(options, dict):
            raise ModelError("the file is not a JSON object", where=str(said))
        refuse_code(options, said)
        try:
            if (folder / "tokenizer.json").is_file():
                whole = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
                follow(whole, folder, options)
                return cls(whole, folder, options=options)
            if all((folder / name).is_file() for name in ("source.spm", "target.spm", "vocab.json")):
                source, target, reader = sentencepiece.load_pair(folder)
                return cls(source, folder, target, reader, options)
            backend = _from_older(folder, options)
            if backend is not None:
                add_tokens(backend, folder, options)
                return cls(backend, folder, options=options)
        except ModelError as error:
            raise ModelError(error.what, where=error.where or str(folder), do=error.do) from error
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
        return self._named("pad_token")

    @property
    def end(self) -> int | None:
        """The token that its tokenizer_config.json names for the end of a text."""
        return self._named("eos_token")

    def _named(self, key: str) -> int | None:
        named = self.options.get(key)
        named = named.get("content") if isinstance(named, dict) else named
        token: int | None = self.backend.token_to_id(named) if isinstance(named, str) else None
        return token

    def encode_batch(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[tokenizers.Encoding]:
        """Whole texts (or pairs) on all cores; the encodings carry ids, type_ids and sequence_ids."""
        items: Any = texts if pairs is None else list(zip(texts, pairs, strict=True))
        try:
            return self.backend.encode_batch_fast(items)
        except Exception as error:
            if type(error) is not Exception:
                raise
            # The library raises it bare where a character is unknown and there is no token for that.
            raise ModelError(
                f"the tokenizer cannot read a text: {error}",
                where="" if self.folder is None else str(self.folder),
                do="give its model an unknown token (unk_token, unk_id), or choose another",
            ) from error

    def chat(self, messages: Messages, add_generation_prompt: bool = True) -> str:
        """The text of a conversation (`[{"role", "content"}]`) by the model's own template; ModelError without one."""
        return render(self.folder, self.options, messages, add_generation_prompt=add_generation_prompt)

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return str(self.reader.decode(list(ids), skip_special_tokens=skip_special))

    def continuation(self, given: Sequence[int], new: Sequence[int]) -> tuple[str, str]:
        """The text of the given tokens, and that of the new ones as it goes on from there.

        Decoders look beyond a token: most strip the space at a text's front, so the new tokens are
        decoded behind the given ones. The two texts joined are the text of all tokens, but that a
        character which the last tokens begin is one mark. A character whose bytes stand on both
        sides is in the second text.
        """
        before = self.decode(given)
        whole = self.decode([*given, *new])
        if whole.startswith(before):
            return before, whole[len(before) :]
        if whole.endswith(HALF) and not before.endswith(HALF):
            # A run of bytes that ends within a character loses the characters before it, too.
            for most in range(len(new) - 1, max(-1, len(new) - 4), -1):
                shorter = self.decode([*given, *new[:most]])
                if shorter.startswith(before):
                    return before, shorter[len(before) :] + HALF
        common = os.path.commonprefix([before, whole])
        return common, whole[len(common) :]

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


def _from_older(folder: Path, options: dict[str, Any]) -> tokenizers.Tokenizer | None:
    """Built from the first of the older forms that is there."""
    for name in ("spiece.model", "tokenizer.model"):
        if (folder / name).is_file():
            return sentencepiece.load(folder / name, options)
    if (folder / "sentencepiece.bpe.model").is_file():
        return sentencepiece.load_fairseq(folder / "sentencepiece.bpe.model", options)
    if (folder / "vocab.txt").is_file():
        return wordpiece(folder / "vocab.txt", options)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return merged(folder / "vocab.json", folder / "merges.txt", options)
    return None


def _check_sizes(folder: Path) -> None:
    for name in ("tokenizer.json", *SIDE_FILES):
        size = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if size > MOST_BYTES:
            raise ModelError(f"{size:,} bytes are more than any vocabulary has", where=str(folder / name))

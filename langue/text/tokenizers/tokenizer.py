"""Encodes text as token ids of a published or trained vocabulary, with the `tokenizers` library.

The `tokenizer.json` of a folder is used unchanged, except for tokens that other files declare
(declared.py), flags that take precedence over it (flags.py) and the languages of a translation
model (languages.py). If there are only older formats, the tokenizer is built from them
(vocabulary.py, sentencepiece.py) and from `tokenizer_config.json`. The files are untrusted: a file
larger than any vocabulary is not read.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import tokenizers
from tokenizers import decoders

from langue.errors import ModelError
from langue.files import refuse_code, write_json, write_text
from langue.text.tokenizers import declared, flags, vocabulary
from langue.text.tokenizers.classes import CLASSES, GENERIC, PublishedClass, class_of, read_object
from langue.text.tokenizers.languages import Languages, languages_of

if TYPE_CHECKING:
    from langue.text.tokenizers.chat import Messages
    from langue.text.tokenizers.marian import Sides
    from langue.text.tokenizers.template_worker import Templates

# Files beside tokenizer.json that other libraries read; they are copied unchanged, so that a saved
# model has the same meaning for them.
SIDE_FILES: tuple[str, ...] = (
    *(
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
    ),
    *("vocab.txt", "vocab.json", "target_vocab.json", "merges.txt"),
    *("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model"),
    *("source.spm", "target.spm"),
)
HALF = "\ufffd"  # the decoded form of bytes that are not a complete character
# maximum size of a file; a vocabulary of 250,000 tokens takes about 35 million
MOST_BYTES = 200_000_000


class Tokenizer:
    """Encodes and decodes texts; `encode_batch` adds the special tokens that the model was trained
    with by default, and never pads.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        folder: Path | None = None,
        target: "Tokenizer | None" = None,
        reader: tokenizers.Tokenizer | None = None,
        options: dict[str, Any] | None = None,
        *,
        languages: Languages | None = None,
        prepare: Callable[[str], str] | None = None,
        notes: Sequence[str] = (),
        declarations: declared.Declared | None = None,
    ) -> None:
        """target: the tokenizer of the decoder's texts, if it is another one. reader: the backend
        that decodes. options: the content of tokenizer_config.json. languages: those of a
        translation model. prepare: preprocessing of a text before the backend. notes:
        contradictions between the files. declarations: the declared tokens, if they were read
        already.
        """
        backend.no_padding()
        # texts are truncated and counted in data/encode.py, never silently here
        backend.no_truncation()
        self.backend = backend
        self.reader = reader or backend
        self.folder = folder
        self.options = options or {}
        self.notes = list(notes)
        found = declarations or declared.read(
            folder, self.options, _class_as_read(backend, folder, self.options)
        )
        self.roles = found.roles
        self._names = found.names
        self.target = target or self
        self._prepare = prepare
        self._chat_template: str | None = None  # replaces that of the files
        # Texts of several languages share one backend, whose post-processor is set before each
        # batch.
        self._frame: Any = None
        # Special tokens that decoding in `tokenizers` 0.23 does not skip, because they are matched
        # in normalised text.
        added = self.reader.get_added_tokens_decoder().items()
        self._not_skipped = {index for index, token in added if token.special and token.normalized}
        self.languages = languages
        self.source_language: str | None = None
        self.target_language: str | None = None
        # the start token of the decoder, if the language determines it
        self.decoder_start: int | None = None
        # the first token that the decoder generates, if the language determines it
        self.first_token: int | None = None
        # languages chosen in place of those of the files
        self._chosen_languages: dict[str, str] = {}
        if languages is not None:
            self._set_languages(self.options.get("src_lang"), self.options.get("tgt_lang"))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Load the tokenizer of a model folder; raise ModelError if there is none or it cannot be
        read.
        """
        _check_sizes(folder)
        options = read_object(folder / "tokenizer_config.json")
        refuse_code(options, folder / "tokenizer_config.json")
        try:
            if (folder / "tokenizer.json").is_file():
                return cls._of(_from_json(folder / "tokenizer.json"), folder, options, whole=True)
            from langue.text.tokenizers import m2m100, marian

            for layout in (marian, m2m100):
                if all((folder / name).is_file() for name in layout.FILES):
                    return cls.of_two_sides(layout.load(folder, options), folder, options)
            backend = _from_older(folder, options)
            if backend is not None:
                return cls._of(backend, folder, options, whole=False)
        except ModelError as error:
            raise ModelError(error.what, where=error.where or str(folder), do=error.do) from error
        except Exception as error:  # `tokenizers` raises bare Exception with the parser's words
            raise ModelError(f"the tokenizer cannot be read: {error}", where=str(folder)) from error
        raise ModelError(
            "the model folder has no tokenizer",
            where=str(folder),
            do=(
                "put its tokenizer.json, vocab.txt, spiece.model, spm.model or vocab.json with"
                " merges.txt beside the weights"
            ),
        )

    @classmethod
    def of_two_sides(cls, sides: "Sides", folder: Path, options: dict[str, Any]) -> Self:
        """Return a tokenizer like Marian's, with separate backends for sources, targets or
        decoding.
        """
        target = Tokenizer(sides.target.backend, reader=sides.reader, prepare=sides.target.prepare)
        return cls(
            sides.source.backend,
            folder,
            target,
            sides.reader,
            options,
            languages=sides.languages,
            prepare=sides.source.prepare,
        )

    @classmethod
    def _of(
        cls, backend: tokenizers.Tokenizer, folder: Path, options: dict[str, Any], *, whole: bool
    ) -> "Tokenizer":
        """Return the tokenizer for a backend read from tokenizer.json (whole) or built from older
        files, with everything that the other files of the folder declare.
        """
        kind = _class_as_read(backend, folder, options)
        languages = languages_of(backend, kind)
        codes = tuple(languages.codes) if languages is not None else ()
        found = declared.read(folder, options, kind, codes)
        notes = declared.declare(backend, found, str(folder), whole=whole)
        if whole:
            notes += flags.follow(backend, options, kind, found.roles)
            vocabulary.follow_normaliser(backend, options, kind)
        else:
            notes += flags.notes_of_older(options, kind)
        return cls(
            backend, folder, options=options, languages=languages, notes=notes, declarations=found
        )

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size())

    @property
    def padding(self) -> int | None:
        """The id of the padding token, if one is named; langue itself never pads with it."""
        return self._named("pad")

    @property
    def end(self) -> int | None:
        """The id of the end-of-text token, if one is named."""
        return self._named("eos")

    def _named(self, role: str) -> int | None:
        name = self.roles.get(role)
        token: int | None = None if name is None else self.backend.token_to_id(name)
        return token

    @property
    def has_two_vocabularies(self) -> bool:
        """Whether the texts of the decoder use another vocabulary."""
        return self.target.backend is not self.backend

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        offsets: bool = False,
        special: bool = True,
    ) -> list[tokenizers.Encoding]:
        """Encode whole texts (or pairs) on all cores.

        The encodings have ids, type_ids and sequence_ids. special: whether to add the special
        tokens around a text.
        """
        if self._prepare is not None:
            texts = [self._prepare(text) for text in texts]
            pairs = None if pairs is None else [self._prepare(text) for text in pairs]
        if self._frame is not None:
            self.backend.post_processor = self._frame
        items: Any = texts if pairs is None else list(zip(texts, pairs, strict=True))
        try:
            if offsets:
                return self.backend.encode_batch(items, add_special_tokens=special)
            return self.backend.encode_batch_fast(items, add_special_tokens=special)
        except Exception as error:
            if type(error) is not Exception:
                raise
            # The library raises a bare Exception for an unknown character if there is no unknown
            # token.
            raise ModelError(
                f"the tokenizer cannot read a text: {error}",
                where="" if self.folder is None else str(self.folder),
                do="give its model an unknown token (unk_token, unk_id), or choose another",
            ) from error

    def for_languages(self, source: str | None = None, target: str | None = None) -> "Tokenizer":
        """Return the same tokenizer for sources and targets in these languages; None: as in its
        files.

        Raises ModelError if the tokenizer has no languages, or not these.
        """
        if source is None and target is None:
            return self
        where = str(self.folder or "")
        if self.languages is None:
            raise ModelError(
                "the model has no codes of languages", where=where, do="leave the languages out"
            )
        changed = copy.copy(self)
        asked = {"src_lang": source, "tgt_lang": target}
        chosen = {key: language for key, language in asked.items() if language is not None}
        changed._chosen_languages = self._chosen_languages | chosen
        changed._set_languages(source or self.source_language, target or self.target_language)
        return changed

    def _set_languages(self, source: str | None, target: str | None) -> None:
        """Put the codes of these languages where the model expects them."""
        languages = self.languages
        where = str(self.folder or "")
        assert languages is not None
        rule = languages.rule
        bare = tuple(each for each in rule.source if each != "{}")
        if rule.target_code_at == "source" and source is not None:
            what = f"source_language = {source!r}: the model takes the target's language only"
            raise ModelError(what, where=where, do="leave the source's language out")
        if source is None and rule.default in languages.codes:
            source = rule.default
        if source is not None:
            source = languages.check(source, "the source's language", where)
        if target is not None:
            target = languages.check(target, "the target's language", where)
        self.source_language = source
        self.target_language = target
        if rule.target_code_at == "source":
            self._frame = languages.processor(rule.source if target else bare, target or "")
            return
        self._frame = languages.processor(rule.source if source else bare, source or "")
        # as in the reference, which uses the source language if there is no target language
        language = target or source
        self.target = copy.copy(self)
        self.target._frame = languages.processor(rule.target if language else bare, language or "")
        code = None if target is None else languages.ids[target]
        self.decoder_start = code if rule.target_code_at == "decoder start" else None
        self.first_token = code if rule.target_code_at == "first token" else None

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` can render a conversation."""
        return self.chat_template is not None

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of the model's conversations; None if it has none."""
        from langue.text.tokenizers.chat import template_of

        if self._chat_template is not None:
            return self._chat_template
        return template_of(self.folder, self.options)

    def with_chat_template(self, template: str) -> "Tokenizer":
        """Return the same tokenizer with this template in place of that of its files."""
        changed = copy.copy(self)
        changed.target = changed if self.target is self else self.target
        changed._chat_template = template
        return changed

    def chat(
        self,
        messages: "Messages",
        add_generation_prompt: bool = True,
        *,
        tools: Sequence[Any] | None = None,
        marks: tuple[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
        templates: "Templates | None" = None,
    ) -> str:
        """Return the text of a conversation (`[{"role", "content"}]`) rendered by the model's chat
        template.

        Raises ModelError if there is none. tools, marks, variables: as in `render`. templates: the
        worker that renders it with limits.
        """
        from langue.text.tokenizers.chat import render

        by = render if templates is None else templates.render
        return by(
            self.chat_template,
            messages,
            tokens=self._names,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            marks=marks,
            variables=variables,
            where=str(self.folder or ""),
        )

    def end_of_turn(self) -> int | None:
        """Return the token that the model's chat template writes directly after an answer; None if
        it writes none.
        """
        from langue.text.tokenizers.chat import end_of_turn

        added = [token.content for token in self.backend.get_added_tokens_decoder().values()]
        found = end_of_turn(self.chat_template, added, self._names)
        token: int | None = None if found is None else self.backend.token_to_id(found)
        return token

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Return the text of token ids, by default without special tokens."""
        kept = list(ids)
        if skip_special and self._not_skipped:
            kept = [index for index in kept if index not in self._not_skipped]
        return str(self.reader.decode(kept, skip_special_tokens=skip_special))

    def continuation(self, given: Sequence[int], new: Sequence[int]) -> tuple[str, str]:
        """Return the text of the given tokens, and that of the new tokens as its continuation.

        Decoders look beyond single tokens: most strip the space at the start of a text, so the new
        tokens are decoded after the given ones. The two texts joined are the text of all tokens,
        except that an incomplete character at the end is a single replacement character. A
        character whose bytes are in both parts belongs to the second text.
        """
        before = self.decode(given)
        whole = self.decode([*given, *new])
        if whole.startswith(before):
            return before, whole[len(before) :]
        if whole.endswith(HALF) and not before.endswith(HALF):
            # A run of byte tokens that ends within a character also loses the complete characters
            # before it.
            for most in range(len(new) - 1, max(-1, len(new) - 4), -1):
                shorter = self.decode([*given, *new[:most]])
                if shorter.startswith(before):
                    return before, shorter[len(before) :] + HALF
        common = os.path.commonprefix([before, whole])
        return common, whole[len(common) :]

    def shown(self, index: int) -> str:
        """Return a token for people who look at texts token by token: its characters followed by a
        space, or its name if it has no characters of its own.

        If every token is a single character, no space is added, so that a text remains readable.
        """
        text = self.decode([index], skip_special=False).replace("\n", "⏎")
        if not self.is_by_character:
            text = text.strip()
        if not text or HALF in text:
            text = self.token(index)
        return text if self.is_by_character else f"{text} "

    @cached_property
    def is_by_character(self) -> bool:
        """Whether every token except the special ones is a single character or byte."""
        special = self.reader.get_added_tokens_decoder()
        names = self.reader.get_vocab(with_added_tokens=True)
        return all(len(name) == 1 for name, index in names.items() if index not in special)

    def token(self, index: int) -> str:
        return str(self.reader.id_to_token(index))

    def save(self, folder: Path) -> None:
        """Save tokenizer.json, and the other files that the tokenizer was loaded with."""
        # a single file cannot represent separate backends for two sides or for decoding; their
        # files are copied
        if self.reader is self.backend:
            if self._frame is not None:
                self.backend.post_processor = self._frame
            self.backend.save(str(folder / "tokenizer.json"))
        for name in SIDE_FILES:
            if self.folder is not None and (self.folder / name).is_file() and self.folder != folder:
                shutil.copyfile(self.folder / name, folder / name)
        if self._chat_template is not None:
            write_text(folder / "chat_template.jinja", self._chat_template)
        config = folder / "tokenizer_config.json"
        if not config.is_file() or self._chosen_languages:
            content = (
                {"tokenizer_class": "PreTrainedTokenizerFast"}
                | self.options
                | self._chosen_languages
            )
            write_json(config, content)


def _from_json(file: Path) -> tokenizers.Tokenizer:
    """Parse a tokenizer.json; raise ModelError if it is complete but not supported by
    the library.
    """
    text = file.read_text("utf-8-sig")  # may begin with a byte order mark, as written by Windows
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # `tokenizers` raises bare Exception with the parser's words
        if not _has_model(text):
            raise
        raise ModelError(
            f"tokenizers {tokenizers.__version__} cannot read it, and it is not cut short"
            f" ({error})",
            where=str(file),
            do="it may be of a newer release: pip install --upgrade tokenizers, if there is one",
        ) from error


def _has_model(text: str) -> bool:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("model"), dict)


def _class_as_read(
    backend: tokenizers.Tokenizer, folder: Path | None, options: dict[str, Any]
) -> str:
    """Return the class of a tokenizer.

    Llama 3 and others name the class of Llama, which has the pieces and special tokens of
    sentencepiece, for a byte-level tokenizer; like `transformers` 5, this uses the generic class
    instead.
    """
    kind = class_of(folder, options)
    of_bytes = isinstance(backend.decoder, decoders.ByteLevel)
    return GENERIC if of_bytes and CLASSES.get(kind, PublishedClass()).of_sentencepiece else kind


def _from_older(folder: Path, options: dict[str, Any]) -> tokenizers.Tokenizer | None:
    """Build the tokenizer from the first of the older formats that exists; None if
    there is none.
    """
    kind = class_of(folder, options)
    roles = declared.read(folder, options, kind).roles
    options = options | {
        f"{role}_token": token for role, token in roles.items() if token is not None
    }
    if kind == "ByT5":
        return vocabulary.of_bytes(options, kind)
    from langue.text.tokenizers import sentencepiece

    for name in ("spiece.model", "tokenizer.model"):
        if (folder / name).is_file():
            return sentencepiece.load(folder / name, options, kind)
    if (folder / "sentencepiece.bpe.model").is_file():
        return sentencepiece.load_fairseq(folder / "sentencepiece.bpe.model", kind)
    if (folder / "spm.model").is_file():
        return sentencepiece.load_deberta(folder / "spm.model", options, kind)
    if (folder / "vocab.txt").is_file():
        return vocabulary.wordpiece(folder / "vocab.txt", options, kind)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return vocabulary.merged(folder / "vocab.json", folder / "merges.txt", options, kind)
    return None


def _check_sizes(folder: Path) -> None:
    for name in ("tokenizer.json", *SIDE_FILES):
        size = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if size > MOST_BYTES:
            raise ModelError(
                f"{size:,} bytes are more than any vocabulary has", where=str(folder / name)
            )

"""Loads Marian's two sentencepiece files (source.spm, target.spm) and one or two vocabularies as
tokenizers with the same ids as `transformers`' MarianTokenizer.

Marian (Junczys-Dowmunt et al. 2018, arXiv:1804.00344) splits a text with sentencepiece and then
looks up the names of the pieces in its vocabulary, whose ids are those of the model. So a character
that is unknown to the sentencepiece file, which makes it a separate piece, still gets an id if the
vocabulary has it. `<s>` in a text is not a token, since sentencepiece never produces it, nor is a
`>>code<<` except at the beginning of a text.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers

from langue.errors import ModelError
from langue.files import read_json
from langue.text.tokenizers import declared
from langue.text.tokenizers.languages import LanguageRule, Languages
from langue.text.tokenizers.sentencepiece import (
    BPE,
    CONTROL,
    NORMAL,
    USER,
    SentencePiece,
    build,
    frame,
    read,
)

FILES = ("source.spm", "target.spm", "vocab.json")
SPECIAL = ("</s>", "<unk>", "<pad>")  # of the class, if no file declares more
EDGE = "\ufffe"  # a noncharacter that marks both ends of a run of unknown characters
# as in sentencepiece: the score of an unknown character is this much below that of the worst piece
UNKNOWN_PENALTY = 10.0
Prepare = Callable[[str], str]


@dataclass(frozen=True)
class Side:
    """The tokenizer of one side, and the preprocessing of its texts."""

    backend: tokenizers.Tokenizer
    prepare: Prepare


@dataclass(frozen=True)
class Sides:
    """The tokenizers of source and target, the decoder of target ids, and the languages of the
    model, if it has any.
    """

    source: Side
    target: Side
    reader: tokenizers.Tokenizer
    languages: Languages | None


def load(folder: Path, options: Mapping[str, Any]) -> Sides:
    """Load a folder with source.spm, target.spm and vocab.json, and target_vocab.json if the target
    has its own vocabulary.
    """
    own = (folder / "target_vocab.json").is_file()
    files = [folder / "vocab.json", folder / ("target_vocab.json" if own else "vocab.json")]
    source, target = (read_json(file) for file in files)
    found = declared.read(folder, options, "Marian")
    special = tuple(found.special | found.defaults)
    spm = folder / "source.spm", folder / "target.spm"
    return sides(spm, (source, target), special, where=str(files[0]))


def sides(
    files: tuple[Path, Path],
    vocabularies: tuple[Any, Any],
    special: tuple[str, ...] = SPECIAL,
    *,
    where: str,
) -> Sides:
    """Return the tokenizers for the sentencepiece files and the vocabularies (name -> id) of source
    and target, which define the ids.
    """
    for ids in vocabularies:
        check_vocabulary(ids, where)
    pieces = [read(file) for file in files]
    source, target = (
        make_side(found, ids, special) for found, ids in zip(pieces, vocabularies, strict=True)
    )
    # Generated ids are decoded by the pieces of the source file, unless the target has its own
    # vocabulary.
    writer = pieces[0] if vocabularies[0] == vocabularies[1] else pieces[1]
    control = [piece for piece, _, kind in writer.pieces if kind == CONTROL]
    reader = tokenizers.Tokenizer(models.WordLevel(vocabularies[1], unk_token="<unk>"))
    reader.decoder = source.backend.decoder
    unseen = [name for name in dict.fromkeys([*special, *control]) if name in vocabularies[1]]
    reader.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in unseen])
    return Sides(source, target, reader, _languages(vocabularies[0]))


def check_vocabulary(ids: Any, where: str) -> None:
    """Raise ModelError unless the vocabulary maps names to ids without gaps from 0 and has the
    required names.
    """
    if not isinstance(ids, dict) or sorted(ids.values()) != list(range(len(ids))):
        raise ModelError("the vocabulary does not number its names from 0", where=where)
    if "</s>" not in ids or "<unk>" not in ids:
        raise ModelError("the vocabulary lacks <unk> or </s>", where=where)


def _run(name: str) -> str:
    """Return the backend's name of an entry that may be a whole run of unknown characters, or that
    is a language code.
    """
    return f"{EDGE}{name}{EDGE}"


def _is_code(name: str) -> bool:
    return name.startswith(">>") and name.endswith("<<")


def make_side(found: SentencePiece, ids: Mapping[str, int], special: Iterable[str]) -> Side:
    """Return a tokenizer that splits by a sentencepiece file and takes the ids from a
    vocabulary.
    """
    scores = {piece: score for piece, score, kind in found.pieces if kind in (NORMAL, USER)}
    known = {character for piece in scores for character in piece}
    own = [name for name in special if name in ids]
    codes = [name for name in ids if _is_code(name)]
    # Names that consist of characters unknown to the file; sentencepiece makes a run of such
    # characters one piece.
    beyond = {name for name in ids if name and name not in own and not known.intersection(name)}
    dear = min(scores.values(), default=0.0) - UNKNOWN_PENALTY
    listed: list[tuple[str, float]] = []
    for index, name in enumerate(sorted(ids, key=ids.__getitem__)):
        if name in scores:
            listed.append((name, scores[name]))
        elif name in own:
            listed.append((name, 0.0))
        elif name in beyond or name in codes:
            listed.append((_run(name), dear))
        else:
            listed.append((f"\uffff{EDGE}{index}", 0.0))  # a string that occurs in no text
    steps = (
        [normalizers.Replace(EDGE, "\uffff"), normalizers.Replace(Regex(_edges(known)), EDGE)]
        if beyond
        else []
    )
    side = build(found, listed, unknown="<unk>", last_steps=steps)
    if found.model == BPE and beyond:  # BPE has no merges for these, and must take a run as a whole
        side.pre_tokenizer = pre_tokenizers.Split(Regex(f"{EDGE}[^{EDGE}]*{EDGE}"), "isolated")
        side.model.ignore_merges = True
    side.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in own])
    side.add_special_tokens(
        [AddedToken(_run(code), special=True, normalized=False) for code in codes]
    )
    frame(side, [], ["</s>"])
    return Side(side, _code_at_the_beginning(set(codes), own))


def _edges(known: set[str]) -> str:
    """Return a pattern that matches the positions where a run of unknown characters
    begins or ends.
    """
    unknown = "[^" + "".join(f"\\x{{{ord(character):X}}}" for character in sorted(known)) + "]"
    return f"(?<!{unknown})(?={unknown})|(?<={unknown})(?!{unknown})"


def _code_at_the_beginning(codes: set[str], special: Iterable[str]) -> Prepare:
    """Return a function that replaces the `>>code<<` at the beginning of a text, or after a special
    token in it, by its name in the backend.
    """
    begins = "|".join([r"\A", *(re.escape(name) for name in special)])
    pattern = re.compile(rf"({begins})(>>.*?<<)", re.DOTALL)

    def written(found: re.Match[str]) -> str:
        before, code = found.groups()
        return f"{before}{_run(code) if code in codes else '<unk>'}"

    def prepare(text: str) -> str:
        return pattern.sub(written, text) if ">>" in text else text

    return prepare


def _languages(ids: Mapping[str, int]) -> Languages | None:
    """Return the target languages of the model, or None if it has no language codes."""
    codes = tuple(name for name in ids if _is_code(name))
    if not codes:
        return None
    rule = LanguageRule(codes, None, ("{}", "$A", "</s>"), ("$A", "</s>"), "source")
    numbers = {name: ids[name] for name in (*codes, "</s>")}
    runs = {code: _run(code) for code in codes}
    return Languages(rule, numbers | {runs[code]: ids[code] for code in codes}, runs)

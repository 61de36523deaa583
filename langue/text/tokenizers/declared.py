"""The special and added tokens that a published folder declares in any form, and a tokenizer with
these tokens.

Special tokens are declared in `tokenizer.json`; in `tokenizer_config.json` as
`added_tokens_decoder`, as entries such as `bos_token`, and as lists or objects of more tokens; in
`special_tokens_map.json`; and by the class. They are merged here. If two files contradict each
other about a token, the file wins that wins in `transformers` (4.57 and 5 alike).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from langue.errors import ModelError
from langue.text.tokenizers.classes import CLASSES, ROLES, PublishedClass, read_object

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# Keys of additional special tokens: a list of them, or an object of names and tokens.
MORE = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")


@dataclass(frozen=True)
class Declared:
    """The special and added tokens declared by a folder's files and its class."""

    # "bos" -> its token; None if a file declares that there is none
    roles: dict[str, str | None] = field(default_factory=dict)
    special: dict[str, AddedToken] = field(default_factory=dict)  # declared by files
    defaults: dict[str, AddedToken] = field(default_factory=dict)  # declared only by the class
    # by the ids that they must have
    numbered: dict[int, AddedToken] = field(default_factory=dict)
    # "bos_token", "image_token" -> their tokens, for templates
    names: dict[str, str] = field(default_factory=dict)


def named(entry: Any) -> str | None:
    """Return the token that a file gives as a string, or as an object with its content."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def read(
    folder: Path | None, options: Mapping[str, Any], kind: str, more: tuple[str, ...] = ()
) -> Declared:
    """Return all tokens declared by tokenizer_config.json (`options`), the other files of the
    folder, and the class `kind`.

    more: further special tokens of the class, such as the language codes of mBART.
    """
    published = CLASSES.get(kind, PublishedClass())
    where = "" if folder is None else str(folder)
    mapped = {} if folder is None else read_object(folder / "special_tokens_map.json")
    # As in transformers: with an added_tokens_decoder, tokenizer_config.json takes precedence.
    config_first = isinstance(options.get("added_tokens_decoder"), dict)
    sources = (options, mapped) if config_first else (mapped, options)
    roles: dict[str, str | None] = {}
    special: dict[str, AddedToken] = {}
    names: dict[str, str] = {}
    for source in sources:
        for key, entry in _entries(source):
            token = _special_token(key, entry, published, where)
            role = key.removesuffix("_token")
            if role in ROLES:
                roles.setdefault(role, None if token is None else token.content)
            if token is not None:
                special.setdefault(token.content, token)
                names.setdefault(key, token.content)
    defaults: dict[str, AddedToken] = {}
    for role, name in published.special.items():
        if role not in roles:
            roles[role] = name
            lstrip = role == "mask" and published.mask_takes_space
            defaults.setdefault(
                name, AddedToken(name, special=True, lstrip=lstrip, normalized=False)
            )
    for name in more:
        defaults.setdefault(name, AddedToken(name, special=True, normalized=False))
    names = {key: token for key, token in names.items() if key not in MORE}
    names |= {f"{role}_token": token for role, token in roles.items() if token is not None}
    return Declared(roles, special, defaults, _numbered(folder, options, special, where), names)


def _entries(source: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (key, entry) of each special token that a file names; the entry None means that there
    is none.
    """
    for role in ROLES:
        if f"{role}_token" in source:
            yield f"{role}_token", source[f"{role}_token"]
    for key, entry in source.items():
        if (
            key.endswith("_token")
            and key.removesuffix("_token") not in ROLES
            and named(entry) is not None
        ):
            yield key, entry
    for key in MORE:
        entries = source.get(key) or []
        if not isinstance(entries, list | dict):
            raise ModelError(f"{key} is neither a list nor an object of tokens")
        yield from (
            entries.items() if isinstance(entries, dict) else ((key, entry) for entry in entries)
        )


def _special_token(
    key: str, entry: Any, published: PublishedClass, where: str
) -> AddedToken | None:
    """Return the token of an entry, with the flags that it gives."""
    if entry is None:
        return None
    content = named(entry)
    if content is None:
        raise ModelError(f"{key} is neither a text nor an object with a content", where=where)
    if isinstance(entry, dict):
        flags = {flag: bool(entry[flag]) for flag in FLAGS if flag in entry}
        return AddedToken(content, **({"normalized": False} | flags | {"special": True}))
    lstrip = key == "mask_token" and published.mask_takes_space
    return AddedToken(content, special=True, lstrip=lstrip, normalized=False)


def _numbered(
    folder: Path | None, options: Mapping[str, Any], special: Mapping[str, AddedToken], where: str
) -> dict[int, AddedToken]:
    """Return the tokens by their required ids: `added_tokens_decoder`, or added_tokens.json in
    older folders.
    """
    decoder = options.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        found: dict[int, AddedToken] = {}
        for index, entry in decoder.items():
            content = named(entry)
            if content is None or not str(index).isdecimal():
                raise ModelError(
                    f"added_tokens_decoder: entry {index!r} is not a numbered token", where=where
                )
            flags = (
                {flag: bool(entry[flag]) for flag in FLAGS if flag in entry}
                if isinstance(entry, dict)
                else {}
            )
            found[int(index)] = AddedToken(content, **flags)
        return found
    older = {} if folder is None else read_object(folder / "added_tokens.json")
    return {
        index: AddedToken(name, special=name in special, normalized=name not in special)
        for name, index in older.items()
    }


def declare(
    backend: tokenizers.Tokenizer, declared: Declared, where: str, *, whole: bool
) -> list[str]:
    """Add the declared tokens to a tokenizer, and return the contradictions between its files about
    their ids.

    whole: the tokenizer was read from a tokenizer.json, whose ids take precedence; otherwise each
    token must get the declared id. A token that only the class declares becomes special if the
    vocabulary has it, and is not added otherwise, since no model would know it.
    """
    present = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    # A single call, since each call iterates over all tokens added before.
    changed: list[AddedToken] = []
    new: dict[int, AddedToken] = {}
    notes: list[str] = []
    for index in sorted(declared.numbered):
        token = declared.numbered[index]
        place = backend.token_to_id(token.content)
        union = _united(token, declared, present.get(token.content))
        if place is None:
            new[index] = union
            continue
        if place != index:
            what = f"{token.content!r} is to be token {index} and is {place}"
            if not whole:
                raise ModelError(what, where=where)
            notes.append(f"added_tokens_decoder: {what} in tokenizer.json, which is followed")
        if repr(union) != repr(present.get(token.content)):
            changed.append(union)
    listed = {token.content for token in declared.numbered.values()}
    last: list[AddedToken] = []
    for name, token in (declared.defaults | declared.special).items():
        if name in listed:
            continue
        if backend.token_to_id(name) is None:
            last += [token] if name in declared.special else []
        elif name not in present:
            changed.append(token)
        elif not present[name].special:
            changed.append(_united(present[name], declared, None))
    backend.add_tokens([*changed, *new.values(), *last])
    for index, token in new.items():
        if (found := backend.token_to_id(token.content)) != index:
            raise ModelError(
                f"{token.content!r} is to be token {index} and is {found}", where=where
            )
    return notes


def _united(token: AddedToken, declared: Declared, present: AddedToken | None) -> AddedToken:
    """Return the token with its own flags, special if any of the files or the class says so."""
    name = token.content
    special = token.special or name in declared.special or name in declared.defaults
    special = special or (present is not None and present.special)
    flags = {flag: getattr(token, flag) for flag in FLAGS if flag != "special"}
    return AddedToken(name, special=special, **flags)

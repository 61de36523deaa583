"""Resolves contradictions between the flags of a tokenizer_config.json and the tokenizer.json
beside it.

`add_prefix_space`, `add_bos_token` and `add_eos_token` were once used to build the tokenizer; a
tokenizer.json contains the same information, and sometimes a different one. If `transformers` 4.57
and 5 agree on which of the two takes precedence, that one is followed. If they do not, version 5 is
followed, and the contradiction is reported (`langue inspect`, `langue verify`).
"""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import models

from langue.text.tokenizers.classes import CLASSES, PublishedClass

SPACE = "▁"
Steps = list[dict[str, Any]]
Roles = Mapping[str, str | None]


def follow(
    backend: tokenizers.Tokenizer, options: Mapping[str, Any], kind: str, roles: Roles
) -> list[str]:
    """Apply the flags to a tokenizer read from a tokenizer.json, and return the remaining
    contradictions.
    """
    published = CLASSES.get(kind, PublishedClass())
    return _prefix_space(backend, options, published) + _frame(backend, options, published, roles)


def _prefix_space(
    backend: tokenizers.Tokenizer, options: Mapping[str, Any], published: PublishedClass
) -> list[str]:
    flag = options.get("add_prefix_space")
    steps = _Steps(backend)
    prefix_space = bool(flag)
    source = "the class" if flag is None else "tokenizer_config.json"
    flag_text = f"add_prefix_space = {str(prefix_space).lower()} of {source}"
    if published.prefix_space_default is not None and steps.of_bytes:
        prefix_space = published.prefix_space_default if flag is None else prefix_space
        if prefix_space == steps.prefixed:
            return []
        alone = steps.byte_level_alone
        steps.put_prefix(prefix_space)
        return (
            []
            if alone
            else [f"{flag_text} is followed, as transformers 5 does; 4.57 follows tokenizer.json"]
        )
    if flag is None or not steps.decides or prefix_space == steps.prefixed:
        return []
    if published.of_sentencepiece and steps.of_sentencepiece:
        steps.put_prefix(prefix_space, always=options.get("legacy") is True)
        once = published.prefix_space_ignored_once
        return (
            [f"{flag_text} is followed, as transformers 5 does; 4.57 follows tokenizer.json"]
            if once
            else []
        )
    return [
        f"{flag_text} is not followed: tokenizer.json counts, as in transformers 5; 4.57 follows"
        " the flag"
    ]


def notes_of_older(options: Mapping[str, Any], kind: str) -> list[str]:
    """Return notes on differences between versions of the reference for a tokenizer built from
    older files.
    """
    published = CLASSES.get(kind, PublishedClass())
    if published.framed_by_flags_once and not isinstance(options.get("add_bos_token"), bool):
        return [
            "tokenizer_config.json has no add_bos_token: bos stands before a text, as in"
            " transformers 4.57 and when such models were trained; 5 puts none"
        ]
    # and without tokens around a text
    of_bytes = published.prefix_space_default is not None and not published.mask_takes_space
    if of_bytes and options.get("add_eos_token") is True:
        return [
            "add_eos_token = true is followed, as transformers 5 does; 4.57 ignores it for such a"
            " class"
        ]
    return []


class _Steps:
    """The normalizer, pre-tokenizer and decoder of a tokenizer as JSON, without its vocabulary."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        shell = tokenizers.Tokenizer(models.BPE())
        if backend.normalizer is not None:
            shell.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            shell.pre_tokenizer = backend.pre_tokenizer
        if backend.decoder is not None:
            shell.decoder = backend.decoder
        self.tree: dict[str, Any] = json.loads(shell.to_str())
        self.normalizers = _flat(self.tree["normalizer"], "normalizers")
        self.cuts = _flat(self.tree["pre_tokenizer"], "pretokenizers")

    @property
    def byte_level_alone(self) -> bool:
        return (
            bool(self.tree["pre_tokenizer"]) and self.tree["pre_tokenizer"]["type"] == "ByteLevel"
        )

    @property
    def of_bytes(self) -> bool:
        return any(step["type"] == "ByteLevel" for step in self.cuts)

    @property
    def of_sentencepiece(self) -> bool:
        marks = [
            step
            for step in self.normalizers
            if step["type"] == "Replace" and step["content"] == SPACE
        ]
        return len(marks) > 0 or any(step["type"] == "Metaspace" for step in self.cuts)

    @property
    def decides(self) -> bool:
        """Whether the steps are of a kind that adds a space before a text, or could."""
        return self.of_sentencepiece or self.of_bytes

    @property
    def prefixed(self) -> bool:
        """Whether a space is added before a text."""
        prepends = any(
            step["type"] == "Prepend" and step["prepend"] == SPACE for step in self.normalizers
        )
        return prepends or any(_puts_space(step) for step in self.cuts)

    def put_prefix(self, prefix_space: bool, always: bool = False) -> None:
        """Change the tokenizer to add a space before a text, or not to.

        always: before each part of a text between special tokens, not only before the first.
        """
        scheme = ("always" if always else "first") if prefix_space else "never"
        for step in self.cuts:
            if step["type"] == "ByteLevel":
                step["add_prefix_space"] = prefix_space
            elif step["type"] == "Metaspace":
                step["prepend_scheme"] = scheme
        if self.of_sentencepiece and not any(step["type"] == "Metaspace" for step in self.cuts):
            kept = [step for step in self.normalizers if step["type"] != "Prepend"]
            if prefix_space and not always and not self.cuts:
                cut = {
                    "type": "Metaspace",
                    "replacement": SPACE,
                    "prepend_scheme": scheme,
                    "split": False,
                }
                self.tree["pre_tokenizer"] = cut
            elif prefix_space:
                kept = [{"type": "Prepend", "prepend": SPACE}, *kept]
            self.tree["normalizer"] = {"type": "Sequence", "normalizers": kept}
        if self.of_sentencepiece:
            self._strip_in_decoding(prefix_space)
        changed = tokenizers.Tokenizer.from_str(json.dumps(self.tree))
        if changed.normalizer is not None:
            self.backend.normalizer = changed.normalizer
        if changed.pre_tokenizer is not None:
            self.backend.pre_tokenizer = changed.pre_tokenizer
        if changed.decoder is not None:
            self.backend.decoder = changed.decoder

    def _strip_in_decoding(self, prefix_space: bool) -> None:
        """Make the decoder strip the space that is added before a text, and no other."""
        steps = _flat(self.tree["decoder"], "decoders")
        for step in steps:
            if step["type"] == "Metaspace":
                step["prepend_scheme"] = "always" if prefix_space else "never"
                return
        kept = [step for step in steps if step["type"] != "Strip"]
        strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix_space else []
        self.tree["decoder"] = {"type": "Sequence", "decoders": [*kept, *strip]}


def _flat(step: Any, inner: str) -> Steps:
    """Return the steps of a sequence, or the single step."""
    if not step:
        return []
    if step["type"] != "Sequence":
        return [step]
    return [part for each in step[inner] for part in _flat(each, inner)]


def _puts_space(step: Mapping[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step["add_prefix_space"])
    return bool(step["type"] == "Metaspace" and step["prepend_scheme"] != "never")


def _frame(
    backend: tokenizers.Tokenizer,
    options: Mapping[str, Any],
    published: PublishedClass,
    roles: Roles,
) -> list[str]:
    """Return the contradictions between the flags and whether bos and eos are added around a text.

    For a class that is never framed, the tokens around a text are removed first.
    """
    notes: list[str] = []
    tokens = {role: roles.get(role) for role in ("bos", "eos")}
    ids = {
        role: None if token is None else backend.token_to_id(token)
        for role, token in tokens.items()
    }
    before, after = frame_of(backend)
    there = {"bos": ids["bos"] is not None and ids["bos"] in before}
    there["eos"] = ids["eos"] is not None and ids["eos"] in after
    if published.never_framed and any(there.values()):
        backend.post_processor = None
        there = {"bos": False, "eos": False}
    for role, place in (("bos", "before"), ("eos", "behind")):
        flag = options.get(f"add_{role}_token")
        if not isinstance(flag, bool) or flag == there[role]:
            continue
        does = f"{tokens[role]} stands" if there[role] else f"no {role} token stands"
        differ = published.framed_by_flags_once or published.never_framed
        versions = "5 has it; 4.57 follows the flag" if differ else "4.57 and 5 have it"
        notes.append(
            f"add_{role}_token = {str(flag).lower()} of tokenizer_config.json is not followed:"
            f" {does} {place} a text, as transformers {versions}"
        )
    return notes


def frame_of(backend: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Return the ids that are added before and after a text."""
    for text in ("a", "1", ".", "一"):  # a character vocabulary may lack some of these
        bare, whole = (backend.encode(text, add_special_tokens=each).ids for each in (False, True))
        if bare:
            break
    found = (i for i in range(len(whole)) if bare and whole[i : i + len(bare)] == bare)
    at = next(found, len(whole))
    return whole[:at], whole[at + len(bare) :]

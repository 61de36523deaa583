"""Test constrained generation with the JSON-Schema-Test-Suite (github.com/json-schema-org): which
of its schemas are supported, and whether generated texts are valid.

Each schema in the required parts of a draft is either refused with a reason, or accepted. Then each
instance in the suite is followed token by token (a valid one may be refused, as keys have a fixed
order here; an invalid one must not pass), and random texts are drawn from the grammar and validated
by the library jsonschema.
"""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from benchmarks import results
from benchmarks.machine import facts
from langue.errors import ModelError
from langue.generation.constrain import Constraint, Grammars
from langue.text.tokenizers.tokenizer import Tokenizer

DRAFTS = {"draft2020-12": "Draft202012Validator", "draft7": "Draft7Validator"}
DRAWS = 4  # texts that are drawn for each schema
LONGEST = 400  # maximum number of tokens of such a text
END = 0


def run(folder: Path) -> None:
    import jsonschema

    grammars = Grammars(TOKENIZER, 257, frozenset({END}))
    found = {}
    lines = []
    for draft, validator in DRAFTS.items():
        one = _Draft(grammars, getattr(jsonschema, validator))
        for file in sorted((folder / "tests" / draft).glob("*.json")):
            for group in json.loads(file.read_text("utf-8")):
                one.try_group(file.stem, group)
        found[draft] = {"counts": one.counts, "refused": one.refused, "wrong": one.wrong}
        lines += one.lines(draft)
    text = "\n".join([*lines, ""])
    print(text)
    print(results.save("schemas", {"machine": facts(), "found": found}, text))


def _byte_tokenizer() -> Tokenizer:
    """Return a tokenizer in which each byte is a token, and 0 is the end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = {name: index for index, name in enumerate(["<end>", *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(names, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer(backend)


TOKENIZER = _byte_tokenizer()


class _Draft:
    """The schemas of one draft, and the results."""

    def __init__(self, grammars: Grammars, validator: Any) -> None:
        self.grammars = grammars
        self.validator = validator
        self.counts = Counter[str]()
        self.refused = Counter[str]()  # number by reason
        self.wrong: list[str] = []

    def try_group(self, name: str, group: dict[str, Any]) -> None:
        schema = group["schema"]
        where = f"{name}: {group['description']}"
        try:
            constraint = self.grammars.compile(json_schema=schema)
        except ModelError as error:
            self.counts["schemas refused"] += 1
            self.counts["tests of refused schemas"] += len(group["tests"])
            self.refused[error.what[:80]] += 1
            return
        self.counts["schemas accepted"] += 1
        for test in group["tests"]:
            passes = _follows(constraint.fork(), json.dumps(test["data"], ensure_ascii=False))
            kind = "valid" if test["valid"] else "invalid"
            self.counts[f"{kind} instances {'passed' if passes else 'stopped'}"] += 1
            if passes and not test["valid"]:
                self.wrong.append(f"{where}: {test['description']} passes")
        for seed in range(DRAWS):
            self._draw(constraint.fork(), schema, where, seed)

    def _draw(self, constraint: Constraint, schema: Any, where: str, seed: int) -> None:
        text = _drawn(constraint, random.Random(seed))
        if text is None:
            self.counts["drawn texts without an end"] += 1
            return
        try:
            is_valid = self.validator(schema).is_valid(json.loads(text))
        except Exception as error:  # for example references that only the suite's server resolves
            self.counts[f"drawn texts not judged ({type(error).__name__})"] += 1
            return
        self.counts[f"drawn texts {'valid' if is_valid else 'INVALID'}"] += 1
        if not is_valid:
            self.wrong.append(f"{where}: drawn {text[:80]!r}")

    def lines(self, draft: str) -> list[str]:
        rows = [f"### {draft}", "", "| what | how many |", "|---|---|"]
        rows += [f"| {what} | {count:,} |" for what, count in sorted(self.counts.items())]
        rows += ["", "Refused, most often: "]
        rows += [f"- {count}: {why}" for why, count in self.refused.most_common(12)]
        return [*rows, "", f"Wrong: {len(self.wrong)}", *self.wrong[:20], ""]


def _follows(constraint: Constraint, text: str) -> bool:
    """Return whether a text may be generated and may end after its last token."""
    ids = TOKENIZER.backend.encode(text).ids
    try:
        for token in ids:
            constraint.accept(token)
        return bool(constraint.allowed()[END])
    except ModelError:
        return False


def _drawn(constraint: Constraint, draw: random.Random) -> str | None:
    """Return a text of random allowed tokens, or None if it does not end."""
    ids: list[int] = []
    while len(ids) < LONGEST:
        allowed = np.flatnonzero(constraint.allowed().numpy())
        # prefer the end token, because otherwise most texts would not end
        ends = allowed[0] == END and draw.random() < 0.7
        token = END if ends else int(draw.choice(allowed))
        if token == END:
            return TOKENIZER.decode(ids)
        ids.append(token)
        constraint.accept(token)
    return None

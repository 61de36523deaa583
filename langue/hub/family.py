"""What arrives: a published config and its weight names. What leaves: ours; and back again, with the same rules.

A family is data: how its config reads into `ModelConfig`, and a list of reversible rules between weight names.
`{i}` in a rule stands for the layer's number.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.model.config import ModelConfig

Config = Mapping[str, Any]
KEPT = "kept."  # before the names of published weights that ours has no place for


@dataclass(frozen=True)
class Rule:
    """Our weight `ours` is their `theirs`; several of theirs (queries, keys, values) are stacked along axis 0."""

    ours: str
    theirs: tuple[str, ...]


def rule(ours: str, *theirs: str) -> list[Rule]:
    """The rules of a layer's weight and bias at once."""
    return [Rule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs)) for kind in ("weight", "bias")]


@dataclass(frozen=True)
class Family:
    name: str  # the `model_type` of its configs
    prefix: str  # what a model with a head puts before the names of the body ("bert.")
    body: list[Rule]
    read: Callable[[Config], ModelConfig]
    write: Callable[[ModelConfig], dict[str, Any]]
    architectures: Mapping[str, str]  # our task or "body" -> the class that `transformers` loads it with
    heads: Mapping[str, list[Rule]] = field(default_factory=dict)  # head kind -> rules, with the prefix written out
    renames: Mapping[str, str] = field(default_factory=dict)  # endings used by old files -> today's
    unused: tuple[str, ...] = ()  # patterns of published weights that no use of ours needs

    def to_ours(self, theirs: Mapping[str, Tensor], config: ModelConfig, head: str | None) -> dict[str, Tensor]:
        """Rename and stack published tensors. Every one is used once; ModelError names what is left over or missing."""
        published = {self._today(name): tensor for name, tensor in theirs.items()}
        bare = not any(name.startswith(self.prefix) for name in published)
        body = [_strip(r, self.prefix) for r in self._body()] if bare else self._body()
        ours: dict[str, Tensor] = {}
        missing: list[str] = []
        for mapping in _expand(body, config.n_layers):
            absent = [name for name in mapping.theirs if name not in published]
            missing += absent
            if not absent:
                parts = [published.pop(name) for name in mapping.theirs]
                ours[mapping.ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
        for mapping in self.heads.get(head or "", []):
            # A head may be new: a pretrained body has none yet, or only its pooler. What is there is taken.
            names = [_bare(n, self.prefix) if bare else n for n in mapping.theirs]
            if all(name in published for name in names):
                ours[mapping.ours] = torch.cat([published.pop(name) for name in names])
        if head is not None:
            ours.update({name: published.pop(name) for name in list(published) if name.startswith("head.")})
        left = [n for n in published if not any(re.search(pattern, n) for pattern in self.unused)]
        if missing or left:
            raise ModelError(_difference(missing, left), do="the config and the weights are not of one model")
        # What no use of ours needs is kept under its own name, so that saving loses nothing.
        return ours | {KEPT + name: tensor for name, tensor in published.items()}

    def to_theirs(self, ours: Mapping[str, Tensor], config: ModelConfig, head: str | None) -> dict[str, Tensor]:
        """The inverse of `to_ours`; names that no rule covers are kept, so that nothing is lost."""
        theirs: dict[str, Tensor] = {}
        covered: set[str] = set()
        for mapping in [*_expand(self._body(), config.n_layers), *self.heads.get(head or "", [])]:
            if mapping.ours in ours:
                covered.add(mapping.ours)
                parts = ours[mapping.ours].chunk(len(mapping.theirs))
                theirs.update({name: part.contiguous() for name, part in zip(mapping.theirs, parts, strict=True)})
        if head not in self.heads:
            theirs = {_bare(name, self.prefix): tensor for name, tensor in theirs.items()}
        return theirs | {name.removeprefix(KEPT): tensor for name, tensor in ours.items() if name not in covered}

    def _body(self) -> list[Rule]:
        return [Rule(f"body.{r.ours}", tuple(self.prefix + name for name in r.theirs)) for r in self.body]

    def _today(self, name: str) -> str:
        for old, new in self.renames.items():
            if name.endswith(old):
                return name[: -len(old)] + new
        return name


def _strip(mapping: Rule, prefix: str) -> Rule:
    return Rule(mapping.ours, tuple(_bare(name, prefix) for name in mapping.theirs))


def _bare(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)


def _expand(rules: list[Rule], n_layers: int) -> list[Rule]:
    expanded: list[Rule] = []
    for r in rules:
        layers = range(n_layers) if "{i}" in r.ours else range(1)
        for i in layers:
            number = str(i)
            expanded.append(
                Rule(r.ours.replace("{i}", number), tuple(name.replace("{i}", number) for name in r.theirs))
            )
    return expanded


def _difference(missing: list[str], left: list[str]) -> str:
    def few(names: list[str]) -> str:
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    parts = [f"weights missing: {few(missing)}"] if missing else []
    parts += [f"weights left over: {few(left)}"] if left else []
    return "; ".join(parts)


def require(config: Config, **expected: Any) -> None:
    """Refuse values that change the mathematics in a way this family's rules do not express."""
    for key, known in expected.items():
        choices = known if isinstance(known, tuple) else (known,)
        if key in config and config[key] not in choices:
            raise ModelError(
                f"config: {key} = {json.dumps(config[key], default=str)} is not supported for this family",
                do=f"supported: {', '.join(map(str, choices))}",
            )


def take(config: Config, key: str, kind: type = int) -> Any:
    """A value that a config must have."""
    if key not in config:
        raise ModelError(f"config: {key} is missing")
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ModelError(f"config: {key} = {value!r} is not of type {kind.__name__}")
    return value

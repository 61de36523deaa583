"""Describe a model family as data, and convert its configs and weight names in both directions.

A family consists of functions that read and write its config, and of a list of reversible rules
between weight names. `{i}` in a rule stands for the number of the layer.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from langue.errors import ModelError
from langue.hub.config_keys import Config
from langue.hub.convert_dtype import DtypeConverter
from langue.hub.weights import UNQUANTISED
from langue.model.config import ModelConfig
from langue.model.language_model import build_on_meta
from langue.runtime import in_threads

# Suffixes of the published classes that score tokens.
LM_CLASSES = (
    "ForCausalLM",
    "ForMaskedLM",
    "ForConditionalGeneration",
    "LMHeadModel",
    "MTModel",
    "BertForPreTraining",
)
# dtypes of stored weights
HELD = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# the embeddings; a tied output matrix is one of these
TABLES = ("token.weight", "decoder.token.weight")
SEQUENCE = "sequence"  # the kind of head of the published sequence classifiers
EXTRA_PREFIX = "kept."  # prefix of published weights that are kept only for saving
CRF_PARAMETERS = ("transitions", "start", "end")  # the names in `langue.model.token_heads.CRF`
# The kinds of head that score single tokens, and the suffixes of their classes in `transformers`.
TOKEN_CLASSES = {"token": "ForTokenClassification", "span": "ForQuestionAnswering"}


@dataclass(frozen=True)
class Rule:
    """Our weight `ours` corresponds to the published `theirs`; several (queries, keys, values) are
    concatenated along the first axis.

    change: how the two differ beyond the name:

    transpose: the published matrix is (in, out).
    heads: queries, keys and values are interleaved by key head in the published tensor; ours may be
        one matrix or three.
    row: the published tensor is a matrix with one row.
    halves: the two halves of the published tensor are two of ours, whose names `ours` lists with a
        comma between them.
    grouped: the published tensor has queries, keys and values one after another, which are three of
        ours if heads share keys.
    reversed: rotary positions rotate in the opposite direction, so that ours has the halves of each
        query and key head exchanged.
    interleaved: rotary pairs are adjacent rows in the published tensor, and half the rotated
        dimensions apart in ours.
    experts: the published tensor has all experts of a layer, (E, in, out), with the outputs of the
        maps that `ours` names, separated by commas, interleaved.

    when: (axis, required truth value in the config), if two rules have the same name. zero: ours is
    zero if a file lacks the published tensor, as in published bodies that are used as language
    models. tied: other names of the same tensor; a file may contain it under any of them, once or
    several times. substitutes: names from which it is taken if the file lacks it; if it is present,
    those are different tensors.
    """

    ours: str
    theirs: tuple[str, ...]
    change: str = ""
    when: tuple[str, bool] | None = None
    zero: bool = False
    tied: tuple[str, ...] = ()
    substitutes: tuple[str, ...] = ()


def rule(
    ours: str, *theirs: str, change: str = "", when: tuple[str, bool] | None = None
) -> list[Rule]:
    """Return the rules of a layer's weight and bias."""
    return [
        Rule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs), change, when)
        for kind in ("weight", "bias")
    ]


DECODING = {  # the heads of almost all published decoders
    SEQUENCE: [Rule("head.out.weight", ("score.weight",))],
    "lm": [Rule("head.out.weight", ("lm_head.weight",))],
}
LM_WITH_BIAS = [*DECODING["lm"], Rule("head.bias", ("lm_head.bias",))]


def classes(stem: str, lm: str) -> dict[str, str]:
    """Return the classes of `transformers` for a family with the usual class names; lm: the suffix
    of the language model's class.
    """
    return {"body": f"{stem}Model", SEQUENCE: f"{stem}ForSequenceClassification", "lm": stem + lm}


def with_token_heads(
    family: "Family", *, token: str = "", span: str = "", prefixes: Mapping[str, str] | None = None
) -> "Family":
    """Return the family with the rules of its published heads that score single tokens
    (`TOKEN_CLASSES`).

    token, span: the name of the output matrix in that class; "": no class computes what ours does.
    prefixes: head kind -> the prefix of the body's names in that class, if it differs from the
    family's. A dense layer and a norm before the output matrix are those of the family's sequence
    classifier (ModernBERT). No class has a CRF: its scores keep our names, and `transformers` warns
    about them and returns the logits without them.
    """
    stem = family.architectures["body"].removesuffix("Model")
    transform = [
        r
        for r in family.heads.get(SEQUENCE, [])
        if r.ours.startswith(("head.dense.", "head.norm."))
    ]
    crf = [Rule(f"head.crf.{part}", (f"head.crf.{part}",)) for part in CRF_PARAMETERS]
    heads = dict(family.heads)
    architectures = dict(family.architectures)
    for kind, output in (("token", token), ("span", span)):
        if output:
            own = crf if kind == "token" else []
            heads[kind] = [*transform, *rule("head.out", output), *own]
            architectures[kind] = stem + TOKEN_CLASSES[kind]
    return replace(
        family,
        heads=heads,
        architectures=architectures,
        prefixes=prefixes or {},
        unused=(*family.unused, r"^head\.crf\."),
    )


def joined(
    r: Rule, parts: list[Tensor], config: ModelConfig, holder: DtypeConverter
) -> list[Tensor]:
    """Return the published tensors of a rule as ours."""
    if r.change == "row":
        parts = [part.reshape(-1) for part in parts]
    elif r.change in _ORDERS:  # only queries and keys are reordered; a lone part is one
        order = _ORDERS[r.change](config)
        parts = [_by_head(part, order) for part in parts[:2]] + parts[2:]
    elif r.change == "heads":
        parts = _by_kind(parts[0], config)
    elif r.change == "experts":
        return _by_expert(parts[0], r.ours.count(",") + 1, holder)
    whole = holder.stack(parts)
    if r.change == "transpose" and whole.ndim == 2:
        whole = whole.t()
    if "," in r.ours and r.change in ("grouped", "heads"):
        return list(torch.split(whole, _group_rows(config)))
    several = r.ours.count(",") + 1
    return list(whole.chunk(several)) if several > 1 else [whole]


def _group_rows(config: ModelConfig) -> list[int]:
    """Return the numbers of rows of the query, key and value maps."""
    heads = (config.n_heads, config.n_kv_heads, config.n_kv_heads)
    return [count * config.head_dim for count in heads]


def _by_kind(part: Tensor, config: ModelConfig) -> list[Tensor]:
    """Split a tensor that is grouped by key head into all queries, all keys and all values, as
    views.
    """
    shared = config.n_heads // config.n_kv_heads  # query heads per key head
    rest = part.shape[1:]
    groups = part.view(config.n_kv_heads, shared + 2, config.head_dim, *rest).unbind()
    queries = [group[:shared].reshape(-1, *rest) for group in groups]  # (shared * K, ...)
    keys = [group[shared] for group in groups]  # (K, ...)
    values = [group[shared + 1] for group in groups]
    return queries + keys + values


def _by_group(parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    """Group queries, keys and values by key head, the inverse of `_by_kind`."""
    rest = parts[0].shape[1:]
    kinds = [part.view(config.n_kv_heads, -1, config.head_dim, *rest) for part in parts]
    return torch.cat(kinds, dim=1).reshape(-1, *rest)


def _by_expert(fused: Tensor, count: int, holder: DtypeConverter) -> list[Tensor]:
    """Split (E, in, out), or biases (E, out), into `count` tensors: the maps of the first expert,
    then of the second, and so on.
    """
    each = count // len(fused)
    made = []
    for expert in fused:
        for part in expert.unflatten(-1, (-1, each)).unbind(-1):  # ([in,] out / each)
            made.append(holder.stack([part.t()]).contiguous())
    return made


def _with_experts(parts: Sequence[Tensor], experts: int) -> Tensor:
    """Return the tensor of all experts, the inverse of `_by_expert`."""
    each = len(parts) // experts
    fused = []
    for begin in range(0, len(parts), each):
        turned = [part.t() for part in parts[begin : begin + each]]
        fused.append(torch.stack(turned, dim=-1).flatten(-2))  # ([in,] out * each)
    return torch.stack(fused)


def _joinable(r: Rule, parts: list[Tensor], config: ModelConfig) -> bool:
    """Return whether `joined` can be applied to such parts; shapes are compared with the config
    later.
    """
    if parts[0].ndim == 0 or any(part.shape != parts[0].shape for part in parts):
        return False
    if r.change == "halves" and len(parts[0]) % 2:
        return False
    if r.change == "experts":
        each = (r.ours.count(",") + 1) // config.n_experts
        whole = parts[0].shape[-1] % each == 0
        return whole and parts[0].ndim in (2, 3) and len(parts[0]) == config.n_experts
    if r.change in ("heads", "grouped"):
        return len(parts[0]) == sum(_group_rows(config))
    return r.change not in _ORDERS or len(parts[0]) % config.head_dim == 0


def _taken(
    r: Rule, published: dict[str, Tensor], config: ModelConfig, holder: DtypeConverter
) -> list[Tensor]:
    """Remove the tensors of a rule from `published` and return them as ours.

    A tensor that is copied is not kept in memory beside the copy.
    """
    parts = [published.pop(name) for name in r.theirs]
    odd = next((n for n, p in zip(r.theirs, parts, strict=True) if p.dtype not in HELD), None)
    if odd is not None:
        kind = str(parts[r.theirs.index(odd)].dtype)[6:]
        raise ModelError(f"{odd} is of {kind}, which no weight is read from", do=UNQUANTISED)
    if not _joinable(r, parts, config):
        told = (
            f"{name} of shape {[*p.shape]} ({str(p.dtype)[6:]})"
            for name, p in zip(r.theirs, parts, strict=True)
        )
        shapes = ", ".join(told)
        raise ModelError(
            f"{r.ours} cannot be made of {shapes}",
            do="the config and the weights are not of one model",
        )
    made = joined(r, parts, config, holder)
    holder.done(parts, made)
    return made


def _part(r: Rule, wholes: list[Tensor], config: ModelConfig) -> list[Tensor]:
    """Return our tensors as published, the inverse of `joined`."""
    if r.change == "experts":
        return [_with_experts(wholes, config.n_experts)]
    whole = wholes[0] if len(wholes) == 1 else torch.cat(wholes)
    if r.change == "row":
        whole = whole[None]
    elif r.change == "heads":
        whole = _by_group(torch.split(whole, _group_rows(config)), config)
    parts = list(whole.chunk(len(r.theirs)))
    if r.change in _ORDERS:
        order = _ORDERS[r.change](config).argsort()
        parts = [_by_head(part, order) for part in parts[:2]] + parts[2:]
    return [part.t() if r.change == "transpose" and part.ndim == 2 else part for part in parts]


def _by_head(part: Tensor, order: Tensor) -> Tensor:
    """Reorder the rows of each head."""
    return part.view(-1, len(order), *part.shape[1:])[:, order].reshape(part.shape)


def _exchanged(config: ModelConfig) -> Tensor:
    """Return the row order of a head with its halves exchanged."""
    return torch.arange(config.head_dim).roll(config.head_dim // 2)


def _pairs_apart(config: ModelConfig) -> Tensor:
    """Return our row order of a head whose adjacent rows are rotary pairs: the first of each pair,
    then the second of each, then the rows that are not rotated.
    """
    rows = torch.arange(config.head_dim)
    turned, rest = rows[: config.n_rotary_dims], rows[config.n_rotary_dims :]
    return torch.cat([turned[0::2], turned[1::2], rest])


_ORDERS = {"reversed": _exchanged, "interleaved": _pairs_apart}


@cache
def parameters(config: ModelConfig) -> dict[str, torch.Size]:
    """Return the names ("body.*", "head.*") and shapes of the parameters of a language model with
    this config; nothing is allocated.
    """
    return {name: weight.shape for name, weight in build_on_meta(config).named_parameters()}


@dataclass(frozen=True)
class Family:
    name: str  # the `model_type` of its configs
    prefix: str  # the prefix of the body's names in a model with a head ("bert.")
    body: list[Rule]
    read: Callable[[Config], ModelConfig]
    write: Callable[[ModelConfig], dict[str, Any]]
    # A kind of head ("sequence", "token", "span", "lm"), "body", or "encoder" for the encoder alone
    # of an encoder-decoder -> the class with which `transformers` loads it
    architectures: Mapping[str, str]
    # head kind -> rules, with full names
    heads: Mapping[str, list[Rule]] = field(default_factory=dict)
    # the poolings that the published classifier supports, the default first, and the config.json
    # keys of each
    poolings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"first": {}})
    # suffixes in old files -> current suffixes
    renames: Mapping[str, str] = field(default_factory=dict)
    # head kind -> the body's prefix in the class of that head, if it differs
    prefixes: Mapping[str, str] = field(default_factory=dict)
    # head kind -> the name of the output matrix in the published class, if `heads` has no rules for
    # it
    outputs: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()  # patterns of published weights that we never use

    def to_ours(
        self,
        theirs: dict[str, Tensor],
        config: ModelConfig,
        head: str | None,
        weights_dtype: torch.dtype | None = None,
        other: bool = False,
    ) -> dict[str, Tensor]:
        """Rename, stack and convert published tensors, each of which must be used exactly once.

        `theirs` is emptied, so that stacked or converted tensors do not exist twice. weights_dtype:
        the target dtype (None: unchanged). other: whether the model has a head of an unknown kind,
        whose weights are kept. Raises ModelError with the names that are missing or left over.
        """
        names = Counter(map(self.today, theirs))
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise ModelError(
                f"{twice} is there under an old name and a new one", do="leave one of them"
            )
        published = {self.today(name): theirs.pop(name) for name in list(theirs)}
        # `to_theirs` writes these
        for guard in map(self.guard, (SEQUENCE, *TOKEN_CLASSES)):
            if guard in published and published[guard].numel() == 0:
                del published[guard]
        bare = self._bare(published)
        body = self._body(config, "" if bare else self.prefix)
        heads = self._head(config, head, bare)
        _fill_in([*body, *heads], published)
        missing = [name for mapping in body for name in mapping.theirs if name not in published]
        # The head may be new: a pretrained body has no head yet, or only its pooler. Whatever is
        # present is used.
        there = [
            mapping
            for mapping in [*body, *heads]
            if all(name in published for name in mapping.theirs)
        ]
        holder = DtypeConverter(weights_dtype, published.values())
        taken_up = in_threads(lambda r: _taken(r, published, config, holder), there)
        ours = {
            name: part
            for mapping, parts in zip(there, taken_up, strict=True)
            for name, part in zip(mapping.ours.split(","), parts, strict=True)
        }
        if all(r.zero or r in there for r in heads):
            sizes = parameters(config)
            ours |= {r.ours: torch.zeros(sizes[r.ours]) for r in heads if r.zero and r not in there}
        taken = {name for rules in self.heads.values() for r in rules for name in r.theirs}
        own = [name for name in published if name.startswith("head.") and name not in taken]
        # a head of ours for which the family has no class
        if head is not None and head not in self.heads:
            ours.update({name: published.pop(name) for name in own})
        # a run with a head of another kind that is trained further
        of_run = own if head != "lm" and head in self.heads else []
        beside = [
            name for name in published if other and not bare and not name.startswith(self.prefix)
        ]
        left = [n for n in published if n not in of_run + beside and not self.is_unused(n)]
        if missing or left:
            raise ModelError(
                _difference(missing, left), do="the config and the weights are not of one model"
            )
        _drop_copies([*body, *heads], published, ours)
        # Published weights that we never use keep their names, so that saving loses nothing.
        return ours | {
            EXTRA_PREFIX + name: holder.stack([tensor]) for name, tensor in published.items()
        }

    def to_theirs(
        self,
        ours: Mapping[str, Tensor],
        config: ModelConfig,
        head: str | None,
        other: str | None = None,
    ) -> dict[str, Tensor]:
        """Return our tensors under published names, the inverse of `to_ours`.

        Names without a rule are kept, so that nothing is lost. other: the class of an unknown head
        that was kept.

        A head that the published class cannot express is saved under our names, with an empty
        tensor under the name of that class's output matrix. Without it, loading the folder as that
        class would create a new, random head; the wrong size of the empty tensor prevents that. The
        body alone still loads.
        """
        bare = head is None and not other
        prefix = self.prefix_of(head or self._kind(other))
        theirs: dict[str, Tensor] = {}
        covered: set[str] = set()
        rules = self._body(config, "" if bare else prefix)
        for mapping in [*rules, *self._head(config, head, False)]:
            names = mapping.ours.split(",")
            if all(name in ours for name in names):
                covered.update(names)
                parts = _part(mapping, [ours[name] for name in names], config)
                theirs.update(
                    {
                        name: part.contiguous()
                        for name, part in zip(mapping.theirs, parts, strict=True)
                    }
                )
        # If a body is saved alone, no name has the prefix, including those kept for saving.
        rest = {
            self._replace_prefix(name.removeprefix(EXTRA_PREFIX), "" if bare else prefix): t
            for name, t in ours.items()
            if name not in covered
        }
        own = head is not None and head not in self.heads
        guard = self.guard(head) if own else ""
        return theirs | rest | ({guard: torch.zeros(0)} if guard else {})

    def head_kind(self, pooling: str) -> str:
        """Return the kind of rules for a head with this pooling: those of the published classifier,
        or none ("mean").
        """
        return SEQUENCE if pooling in self.poolings and SEQUENCE in self.heads else pooling

    @property
    def output(self) -> str:
        """Return the name of the published output matrix, or "" if there is none."""
        return next(
            (r.theirs[0] for r in self.heads.get("lm", []) if r.ours == "head.out.weight"), ""
        )

    def guard(self, head: str | None) -> str:
        """Return the name of the output matrix in the published class for such a head, or "" if
        there is no class. Heads of other kinds pool the sequence, so their class is the sequence
        classifier.
        """
        kind = head if head in TOKEN_CLASSES else SEQUENCE
        rules = self.heads.get(str(kind), [])
        named = (r.theirs[0] for r in rules if r.ours == "head.out.weight")
        return next(named, self.outputs.get(str(kind), ""))

    def prefix_of(self, kind: str) -> str:
        """Return the prefix of the body's names in the class of such a head."""
        return self.prefixes.get(kind, self.prefix)

    def _replace_prefix(self, name: str, prefix: str) -> str:
        """Return a published name with the family's prefix replaced by `prefix`."""
        if not self.prefix or not name.startswith(self.prefix):
            return name
        return prefix + name.removeprefix(self.prefix)

    def _kind(self, published: str | None) -> str:
        """Return the kind of head of a class of `transformers`, or "" if it is unknown."""
        return next((kind for kind, name in self.architectures.items() if name == published), "")

    def infer_from_weights(
        self, theirs: Mapping[str, Tensor], config: ModelConfig, classes: Sequence[str] = ()
    ) -> ModelConfig:
        """Return the config corrected by the weights.

        A separate output matrix with other values is not tied, whatever the config says. A token
        classifier without decoder weights is an encoder (T5, whose config describes both sides).
        """
        published = {self.today(name): tensor for name, tensor in theirs.items()}
        if config.decoder_layers and self.architectures.get("token") in classes:
            decoder = {r.theirs[0] for r in self.body if r.ours.startswith("decoder.")}
            starts = tuple(name.partition("{i}")[0] for name in decoder)
            if not any(name.startswith(starts) for name in published):
                config = replace(config, decoder_layers=0)
        if config.tied and self.output in published:
            own = published[self.output]
            for r in self._body(config, "" if self._bare(published) else self.prefix):
                if self.output not in r.tied:
                    continue
                tables = [published[name] for name in (*r.theirs, *r.tied) if name in published]
                if any(own.shape != table.shape or not torch.equal(own, table) for table in tables):
                    return replace(config, tied=False)
        return config

    @property
    def shared_names(self) -> frozenset[str]:
        """Return all published names of tensors that have several names, with and without the
        body's prefix.
        """
        names = {self.output} - {""}
        for r in [*self.body, *(r for rules in self.heads.values() for r in rules)]:
            of_body = ("", self.prefix, *self.prefixes.values())
            prefixes = of_body if r in self.body else ("",)
            if r.tied or r.substitutes or r.ours in TABLES:
                names |= {
                    p + name for p in prefixes for name in (*r.theirs, *r.tied, *r.substitutes)
                }
        return frozenset(names)

    def is_turned(self, name: str) -> bool:
        """Return whether the published matrix is (in, out), as in GPT-2."""
        name = self.today(name)
        for r in [*self.body, *(r for rules in self.heads.values() for r in rules)]:
            for theirs in r.theirs if r.change == "transpose" else ():
                pattern = re.escape(theirs).replace(r"\{i\}", r"\d+")
                if re.fullmatch(f"({re.escape(self.prefix)})?{pattern}", name):
                    return True
        return False

    def body_class(self, config: ModelConfig) -> str:
        """Return the class of `transformers` that loads the model without a head."""
        alone = config.architecture == "encoder" and "encoder" in self.architectures
        return self.architectures["encoder" if alone else "body"]

    def other(self, classes: Sequence[str], head: str | None = None) -> str | None:
        """Return the class whose head has neither the requested kind nor a kind whose weights may
        be skipped, or None; the weights of such a head are kept unchanged.
        """
        skipped = {*self.architectures} - {*TOKEN_CLASSES}
        if head in TOKEN_CLASSES:
            skipped -= {SEQUENCE}
        known = {name for kind, name in self.architectures.items() if kind in {*skipped, head}}
        unknown = [n for n in classes if n not in known and not n.endswith(LM_CLASSES)]
        return next((name for name in unknown if re.search("For|Heads|Encoder", name)), None)

    def has_lm_head(self, config: ModelConfig, classes: Sequence[str]) -> bool:
        """Return whether a model saved as one of these classes of `transformers` scores tokens,
        because it has such a head or needs no weights for one.
        """
        own = [r for r in self._head(config, "lm", False) if not r.zero]
        free = not own and config.architecture != "encoder" and not self.other(classes)
        return free or any(name.endswith(LM_CLASSES) for name in classes)

    def _bare(self, published: Mapping[str, Tensor]) -> bool:
        """Return whether the names are those of a body that was saved alone."""
        return not any(name.startswith(self.prefix) for name in published)

    def _body(self, config: ModelConfig, prefix: str) -> list[Rule]:
        """Return the rules of this config's parameters, one for each layer; prefix: that of the
        published names.
        """
        needed = parameters(config)
        rules = []
        for r in _expand(self.body, config):
            names = [f"body.{name}" for name in r.ours.split(",")]
            if names[0] in needed and (
                r.when is None or bool(getattr(config, r.when[0])) == r.when[1]
            ):
                r = replace(r, ours=",".join(names))
                r = _prefixed(r, prefix) if prefix else r
                tied_to = "decoder.token.weight" if config.decoder_vocab_size else "token.weight"
                if config.tied and self.output and r.ours == f"body.{tied_to}":
                    r = replace(r, tied=(*r.tied, self.output))
                rules.append(r)
        lacking = {name for name in needed if name.startswith("body.")} - {
            n for r in rules for n in r.ours.split(",")
        }
        if lacking:
            raise ModelError(
                f"{self.name} has no place for {sorted(lacking)[0]}",
                do="choose a config it can express",
            )
        return rules

    def rules_of_body(self, config: ModelConfig, prefix: str) -> list[Rule]:
        """Return the rules of this config's parameters; prefix: that of the published names."""
        return self._body(config, prefix)

    def some_to_ours(
        self, theirs: Mapping[str, Tensor], config: ModelConfig, head: str | None
    ) -> dict[str, Tensor]:
        """Apply `to_ours` to a subset of a model's tensors: those that form complete tensors of
        ours.
        """
        rules = [*self._body(config, self.prefix), *self._head(config, head, False)]
        left = dict(theirs)
        holder = DtypeConverter(None, [])
        ours: dict[str, Tensor] = {}
        for r in rules:
            if all(name in left for name in r.theirs):
                parts = _taken(r, left, config, holder)
                ours |= dict(zip(r.ours.split(","), parts, strict=True))
        own = head is not None and head not in self.heads
        return ours | {name: t for name, t in left.items() if own and name.startswith("head.")}

    def is_unused(self, name: str) -> bool:
        """Return whether a published weight is one that we never use."""
        return any(re.search(pattern, name) for pattern in self.unused)

    def rules_of_head(self, config: ModelConfig, head: str) -> list[Rule]:
        """Return the rules of the published head of this kind; empty if it has no class."""
        return self._head(config, head, False)

    def _head(self, config: ModelConfig, head: str | None, bare: bool) -> list[Rule]:
        needed = parameters(config)
        rules = [r for r in self.heads.get(head or "", []) if head != "lm" or r.ours in needed]
        return [_strip(r, self.prefix) for r in rules] if bare else rules

    def today(self, name: str) -> str:
        """Return the current name of a published weight from an old file or another class, as in
        the rules.
        """
        for own in self.prefixes.values():
            if name.startswith(own):
                name = self.prefix + name.removeprefix(own)
        for old, new in self.renames.items():
            if name.endswith(old):
                return name[: -len(old)] + new
        return name


def _prefixed(mapping: Rule, prefix: str) -> Rule:
    """Return the rule with `prefix` before every published name."""
    theirs = tuple(prefix + name for name in mapping.theirs)
    tied = tuple(prefix + name for name in mapping.tied)
    substitutes = tuple(prefix + name for name in mapping.substitutes)
    return replace(mapping, theirs=theirs, tied=tied, substitutes=substitutes)


def _fill_in(rules: Sequence[Rule], published: dict[str, Tensor]) -> None:
    """Move a tensor that the file has under another name to the name that its rule uses."""
    substitutes: dict[str, Tensor] = {}
    for r in rules:
        if not (r.tied or r.substitutes) or r.theirs[0] in published:
            continue
        found = next((name for name in r.tied if name in published), None)
        if found is not None:
            published[r.theirs[0]] = published.pop(found)
            continue
        found = next((name for name in r.substitutes if name in published), None)
        # several rules may need it; each gets a separate tensor, so that they can be trained
        # independently
        if found is not None:
            published[r.theirs[0]] = (
                published[found].clone() if found in substitutes else published[found]
            )
            substitutes[found] = published[found]
    for name in substitutes:
        del published[name]


def _drop_copies(
    rules: Sequence[Rule], left: dict[str, Tensor], ours: Mapping[str, Tensor]
) -> None:
    """Remove further copies of a tensor from `left` once a rule has used one of them.

    Otherwise the copies would be saved unchanged beside the trained tensor. Raises ModelError if
    the copies differ. A copy of the output matrix was compared earlier, to find out whether it is
    tied (`Family.infer_from_weights`).
    """
    for r in rules:
        for name in r.tied:
            if name not in left or r.ours not in ours:
                continue
            copy = left.pop(name)
            kept = ours[r.ours]
            if copy.shape != kept.shape or not torch.equal(copy.to(kept.dtype), kept):
                raise ModelError(
                    f"{name} and {r.theirs[0]} are one tensor in this model, and the file's two"
                    " copies differ",
                    do=(
                        "remove the wrong one from the file, or save the model again where it was"
                        " trained"
                    ),
                )


def _strip(mapping: Rule, prefix: str) -> Rule:
    return replace(mapping, theirs=tuple(name.removeprefix(prefix) for name in mapping.theirs))


def _expand(rules: list[Rule], config: ModelConfig) -> list[Rule]:
    """Repeat each rule for every layer (`{i}`) and expert (`{e}`), and its published tensors for
    every query head (`{h}`) or key head (`{g}`).
    """
    expanded: list[Rule] = []
    for r in rules:
        if "{h}" in r.theirs[0] or "{g}" in r.theirs[0]:
            r = replace(r, theirs=_of_heads(r.theirs[0], config))
        layers = config.decoder_layers if r.ours.startswith("decoder.") else config.n_layers
        if r.change == "experts":
            named = [r.ours.replace("{e}", str(e)) for e in range(config.n_experts)]
            r = replace(r, ours=",".join(named))
        for i in range(layers if "{i}" in r.ours else 1):
            for e in range(config.n_experts if "{e}" in r.ours else 1):
                ours, *theirs = (
                    n.replace("{i}", str(i)).replace("{e}", str(e)) for n in (r.ours, *r.theirs)
                )
                expanded.append(replace(r, ours=ours, theirs=tuple(theirs)))
    return expanded


def _of_heads(name: str, config: ModelConfig) -> tuple[str, ...]:
    count = config.n_heads if "{h}" in name else config.n_kv_heads
    return tuple(name.replace("{h}", str(i)).replace("{g}", str(i)) for i in range(count))


def _difference(missing: list[str], left: list[str]) -> str:
    def few(names: list[str]) -> str:
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    parts = [f"weights missing: {few(missing)}"] if missing else []
    parts += [f"weights left over: {few(left)}"] if left else []
    return "; ".join(parts)

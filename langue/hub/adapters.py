"""Read and write adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

No family has code of its own for adapters: where a published matrix lies in our model follows from
the family's rules (`places`). Every tensor of a file is used exactly once; anything else is an
error.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from langue.errors import ModelError, SettingsError
from langue.files import atomic_file, read_json, write_json
from langue.hub.convert_dtype import DtypeConverter
from langue.hub.family import SEQUENCE, Family, Rule, joined
from langue.hub.snapshot import ADAPTER_CONFIG as CONFIG
from langue.hub.snapshot import ADAPTER_WEIGHTS as WEIGHTS
from langue.hub.snapshot import WEIGHTS as WEIGHT_FILES
from langue.hub.weights import read_safetensors
from langue.model.adapters import OF_INPUTS, PARAMETERS, Method, Patch, Values
from langue.model.config import ModelConfig
from langue.model.language_model import build_on_meta

PREFIX = "base_model.model."  # prefix of the tensor names in a file
ALL = "all-linear"
# PEFT's task type for each kind of head; any other head is saved as an adapter of the body alone
TASK_TYPES = {
    SEQUENCE: "SEQ_CLS",
    "token": "TOKEN_CLS",
    "span": "QUESTION_ANS",
    "lm": "CAUSAL_LM",
}
BODY_TYPE = "FEATURE_EXTRACTION"
SEQ2SEQ_TYPE = "SEQ_2_SEQ_LM"
# PEFT's suffix of an adapter's parameter -> our name of it
_ENDINGS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "ia3_l": "scales",
}
# Config keys that are not supported, and the values with which such a key requests nothing.
_NOTHING: tuple[Any, ...] = (None, False, [], {}, "none", "")
_REFUSED = (
    *("alora_invocation_tokens", "arrow_config", "bias", "layer_replication", "lora_bias"),
    *("megatron_config", "target_parameters", "trainable_token_indices", "use_bdlora"),
    *("use_qalora", "kasa_config", "monteclora_config", "velora_config"),
)
# The values of `init_lora_weights` that leave the base unchanged.
_INITS = (True, False, "gaussian", "orthogonal", "eva", "lora_ga")


@dataclass(frozen=True)
class Slice:
    """A contiguous run of rows of a published matrix: rows `begin` to `end` of our map are its rows
    `order`.
    """

    layer: str
    begin: int
    end: int
    order: Tensor


@dataclass(frozen=True)
class Place:
    """Where a published linear map, (rows, columns) as in nn.Linear, lies in our model."""

    slices: tuple[Slice, ...]
    rows: int
    columns: int
    turned: bool  # whether it is published as (in, out)


@dataclass(frozen=True)
class AdapterConfig:
    """The supported part of an adapter_config.json."""

    method: str  # lora, dora or ia3
    base: str
    revision: str | None = None
    task_type: str | None = None
    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rank_stabilised: bool = False
    targets: str | tuple[str, ...] = ()
    # IA3 only: the maps whose input is scaled
    inputs: str | tuple[str, ...] = ()
    saved: tuple[str, ...] = ()  # modules trained in full
    alphas: Mapping[str, float] = field(default_factory=dict)

    def scale(self, module: str, rank: int) -> float:
        """Return the factor of LoRA's product for a module of the base."""
        alpha = self.alpha
        for pattern, other in self.alphas.items():
            if _found(pattern, module):
                alpha = other
                break
        return alpha / (rank**0.5 if self.rank_stabilised else rank)


@dataclass(frozen=True)
class Adapter:
    """An adapter in the form in which it is attached to a model of ours."""

    folder: Path
    config: AdapterConfig
    patches: tuple[Patch, ...]
    values: tuple[Values, ...]  # of each patch, in the order of our rows
    whole: Mapping[str, Tensor]  # weights that replace the base's, by our names


def read_config(folder: Path) -> AdapterConfig:
    """Read the adapter's config, including which base model it belongs to.

    Raises ModelError if the config is not supported, or if the folder also holds a full model.
    """
    file = folder / CONFIG
    models = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    there = [name for name in models if (folder / name).is_file()]
    if there:
        raise ModelError(
            f"the folder holds a model ({there[0]}) and an adapter ({CONFIG})",
            where=str(folder),
            do=f"move {there[0]} or {CONFIG} away, whichever is not meant",
        )
    said = read_json(file)
    if not isinstance(said, dict):
        raise ModelError("the file is not a JSON object", where=str(file))
    kind = said.get("peft_type")
    if kind not in ("LORA", "IA3"):
        raise ModelError(
            f"peft_type = {kind!r} is not read here", where=str(file), do="known: LORA, IA3"
        )
    base = said.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"the adapter does not say of which model it is: base_model_name_or_path = {base!r}",
            where=str(file),
            do="set it there to the folder, or the Hub name, of that model",
        )
    for key in _REFUSED:
        if said.get(key) not in _NOTHING:
            raise ModelError(
                f"{key} = {said[key]!r} is not read here",
                where=str(file),
                do="merge it where it was trained: merge_and_unload() of peft",
            )
    if said.get("init_lora_weights", True) not in _INITS:
        raise ModelError(
            f"init_lora_weights = {said['init_lora_weights']!r} has changed the base",
            where=str(file),
            do="save it as a plain one where it was trained: path_initial_model_for_weight_"
            "conversion of peft's save_pretrained",
        )
    try:
        return _config_of(said)
    except (TypeError, ValueError, KeyError, AttributeError, re.error) as error:
        raise ModelError(
            f"the config cannot be followed ({type(error).__name__}: {error})", where=str(file)
        ) from error


def _config_of(said: Mapping[str, Any]) -> AdapterConfig:
    lora = said["peft_type"] == "LORA"
    common: dict[str, Any] = {
        "base": said["base_model_name_or_path"],
        "revision": said.get("revision"),
        "task_type": said.get("task_type"),
        "targets": _names(said.get("target_modules")),
        "saved": tuple(map(str, said.get("modules_to_save") or ())),
    }
    if not lora:
        return AdapterConfig(method="ia3", inputs=_names(said.get("feedforward_modules")), **common)
    return AdapterConfig(
        method="dora" if said.get("use_dora") else "lora",
        rank=int(said.get("r", 8)),
        alpha=float(said.get("lora_alpha", 8)),
        dropout=float(said.get("lora_dropout", 0.0)),
        rank_stabilised=bool(said.get("use_rslora")),
        alphas={_tame(key): float(value) for key, value in said.get("alpha_pattern", {}).items()},
        **common,
    )


def _names(said: Any) -> str | tuple[str, ...]:
    return _tame(said) if isinstance(said, str) else tuple(map(str, said or ()))


def _tame(pattern: str) -> str:
    """Return a pattern of module names if it is cheap to match.

    Raises ValueError if it repeats anything except `.*`, or `.*` more than four times, so that
    matching cannot take exponential time.
    """
    repeats = re.sub(r"\.\*", "", pattern)
    if len(pattern) > 500 or pattern.count(".*") > 4 or re.search(r"[*+?{]", repeats):
        raise ValueError(f"the pattern {pattern[:80]!r} is not followed here")
    re.compile(pattern)
    return pattern


def _found(pattern: str, module: str) -> bool:
    """Return whether a key of `alpha_pattern` matches a module, by PEFT's rule."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def matches(targets: str | Sequence[str], module: str) -> bool:
    """Return whether a module is one of the targets, by PEFT's rule.

    targets: a regular expression for the whole name, or a list of names, each of which is the whole
    name or its last components.
    """
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in targets)


@cache
def _linear_maps(config: ModelConfig) -> dict[str, torch.Size]:
    """Return our linear maps and the shapes of their matrices.

    Routers and experts are excluded; `transformers` stores the experts of a layer as one tensor.
    """
    return {
        name: part.weight.shape
        for name, part in build_on_meta(config).named_modules()
        if isinstance(part, nn.Linear)
        and not name.startswith("head.")
        and ".experts." not in name
        and not name.endswith(".router")
    }


def places(family: Family, config: ModelConfig, prefix: str) -> dict[str, Place]:
    """Return the place of each linear map of a body, by published name; prefix: that of these
    names.
    """
    shapes = _linear_maps(config)
    found: dict[str, Place] = {}
    for r in family.rules_of_body(config, prefix):
        layers = [name.removesuffix(".weight") for name in r.ours.split(",")]
        if not r.ours.endswith(".weight") or any(layer not in shapes for layer in layers):
            continue
        found |= _places_of(r, [(layer, *shapes[layer]) for layer in layers], config)
    return found


def _places_of(
    r: Rule, layers: Sequence[tuple[str, int, int]], config: ModelConfig
) -> dict[str, Place]:
    """Return the places of the matrices of one rule.

    layers: the name, rows and columns of each of our maps that the rule covers.
    """
    total = sum(rows for _, rows, _ in layers)
    each = total // len(r.theirs)
    numbers = list(torch.split(torch.arange(total), each))
    # permute row numbers in the same way as `joined` permutes the rows of the matrices
    orders = joined(r, numbers, config, DtypeConverter(None, []))
    made: dict[str, Place] = {}
    for place, name in enumerate(r.theirs):
        slices = []
        for (layer, _, _), order in zip(layers, orders, strict=True):
            own = (order // each == place).nonzero().flatten()
            if len(own):
                begin = int(own[0])
                end = int(own[-1]) + 1
                assert end - begin == len(own), f"the rows of {name} do not stand together"
                slices.append(Slice(layer, begin, end, order[begin:end] - place * each))
        turned = r.change == "transpose"
        made[name.removesuffix(".weight")] = Place(tuple(slices), each, layers[0][2], turned)
    return made


def default_targets(
    family: Family, config: ModelConfig, method: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the default target modules and, for IA3, those of them whose input is scaled.

    LoRA and DoRA: queries and values, which Hu et al. found sufficient and which are PEFT's
    default; if they are published in one matrix, that matrix. IA3: keys, values, and the input of
    the second map of the feed-forward layer.
    """
    known = places(family, config, family.prefix)
    asking = _parts_of(known, ("attention.qkv", "attention.q", "cross.q"), first=True)
    values = _parts_of(known, ("attention.qkv", "attention.v", "cross.kv"), first=False)
    if method != "ia3":
        return _suffixes([*asking, *values], known), ()
    keys = _parts_of(known, ("attention.qkv", "attention.k", "cross.kv"), first=False, number=-2)
    second = [name for name, p in known.items() if p.slices[0].layer.endswith("feedforward.down")]
    inputs = _suffixes(second, known)
    return tuple(dict.fromkeys([*_suffixes([*keys, *values], known), *inputs])), inputs


def _parts_of(
    known: Mapping[str, Place], layers: tuple[str, ...], first: bool, number: int = -1
) -> list[str]:
    """Return, for each of our maps with one of these names, its first published matrix, or the one
    at `number`.
    """
    parts: dict[str, list[str]] = {}
    for name, place in known.items():
        layer = place.slices[0].layer
        if layer.endswith(layers):
            parts.setdefault(layer, []).append(name)
    return [own[0] if first else own[max(number, -len(own))] for own in parts.values()]


def _suffixes(chosen: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Return the shortest name suffixes that select only the chosen modules within a layer.

    A suffix is one component, or two if other modules of the layer end in the same component.
    """
    others = {name for name in known if name not in chosen}
    ends: dict[str, None] = {}
    for name in chosen:
        parts = name.split(".")
        short = parts[-1]
        common = any(other.endswith(f".{short}") for other in others)
        ends[".".join(parts[-2:]) if common else short] = None
    return tuple(ends)


def chosen_modules(
    targets: Sequence[str], known: Mapping[str, Place], where: str = ""
) -> list[str]:
    """Return the modules that match the targets; SettingsError for a target without a match."""
    if ALL in targets:
        return list(known)
    for name in targets:
        if not any(matches((name,), module) for module in known):
            there = sorted({".".join(re.split(r"\.\d+\.", m)[-1:]) for m in known})
            raise SettingsError(
                f"model.lora_targets = {name} is no linear map of the model{where}",
                do=f"it has: {', '.join(there)}; or {ALL}",
            )
    return [module for module in known if matches(targets, module)]


def written_targets(modules: Sequence[str], known: Iterable[str]) -> list[str]:
    """Return targets with which PEFT finds exactly these modules: suffixes, or full names.

    known: all modules that PEFT might find.
    """
    longest = max(name.count(".") for name in modules) + 1 if modules else 0
    for parts in range(1, longest + 1):
        ends = sorted({".".join(name.split(".")[-parts:]) for name in modules})
        numbered = any(part.isdecimal() for end in ends for part in end.split("."))
        if {name for name in known if matches(ends, name)} == set(modules) and not numbered:
            return ends
    return sorted(modules)


def make_patches(
    modules: Sequence[str], known: Mapping[str, Place], config: AdapterConfig
) -> list[Patch]:
    """Return the adapters of these maps, one for each contiguous run of rows.

    Raises SettingsError if the rank is too large for a map.
    """
    patches = []
    for module in modules:
        place = known[module]
        method: Method = config.method  # type: ignore[assignment]
        if method == "ia3" and matches(config.inputs, module):
            method = "ia3_input"
        most = min(place.rows, place.columns)
        if method in ("lora", "dora") and not 1 <= config.rank <= most:
            raise SettingsError(
                f"model.lora_rank = {config.rank} is no rank of {module}, which is {place.rows} x"
                f" {place.columns}",
                do=f"give 1 to {most}",
            )
        low_rank = method in ("lora", "dora")
        patches += [
            Patch(
                layer=part.layer,
                begin=part.begin,
                end=part.end,
                published=module,
                method=method,
                rank=config.rank if low_rank else 0,
                scale=config.scale(module, config.rank) if low_rank else 1.0,
                dropout=config.dropout,
            )
            for part in place.slices
        ]
    return patches


def published_of(
    said: AdapterConfig, tensors: "Tensors", family: Family, published: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the config.json entries for the base with the head of an adapter that PEFT wrote: the
    class, and the names of its outputs; empty if the adapter uses the base's own head.
    """
    head = next((kind for kind, name in TASK_TYPES.items() if name == said.task_type), None)
    if head in (None, "lm") or head not in family.architectures:
        return {}
    made: dict[str, Any] = {"architectures": [family.architectures[str(head)]]}
    outputs = tensors.whole.get(family.guard(head))
    if outputs is not None and len(published.get("id2label") or "12") != len(outputs):
        made["id2label"] = {str(i): f"LABEL_{i}" for i in range(len(outputs))}
    return made


@dataclass(frozen=True)
class Tensors:
    """The contents of an adapter_model.safetensors."""

    adapters: Mapping[str, Mapping[str, Tensor]]  # by published module, then by our parameter
    # replacements for the base's own weights, by published name
    whole: Mapping[str, Tensor]


def read_tensors(folder: Path, family: Family) -> Tensors:
    """Read the tensors of an adapter, and rename them as in the family's rules."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelError(
            f"the folder has {CONFIG} and no {WEIGHTS}",
            where=str(folder),
            do="download or save it again: pickled adapters are not read",
        )
    by_module: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for key, tensor in read_safetensors(file).items():
        if not tensor.ndim or not tensor.is_floating_point():
            raise ModelError(f"{key} is no tensor of weights", where=str(file))
        name = key.removeprefix(PREFIX)
        ending = next((end for end in _ENDINGS if name.endswith(f".{end}")), None)
        if ending is None:
            whole[family.today(name)] = tensor
            continue
        weight = family.today(f"{name.removesuffix(f'.{ending}')}.weight")
        module = weight.removesuffix(".weight")
        by_module.setdefault(module, {})[_ENDINGS[ending]] = tensor
    return Tensors(by_module, whole)


def make_adapter(
    folder: Path,
    said: AdapterConfig,
    tensors: Tensors,
    family: Family,
    config: ModelConfig,
    head: str | None,
) -> Adapter:
    """Return the adapter for a base with this config and head.

    Raises ModelError if a tensor belongs to no map of this base, or has another shape than its map.
    """
    file = folder / WEIGHTS
    known = places(family, config, family.prefix)
    patches: list[Patch] = []
    values: list[Values] = []
    for name, own in tensors.adapters.items():
        # in an adapter of a body alone, names lack the prefix of the others
        module = (
            name if name in known or family.prefix + name not in known else family.prefix + name
        )
        place = known.get(module) or _place_in_head(module, own, family, config, head)
        if place is None and family.is_unused(f"{module}.weight"):
            continue
        if place is None:
            raise _other_base(f"{module} is no linear map of it", file, said)
        for patch, held in _read_module(module, place, own, said, file):
            patches.append(patch)
            values.append(held)
    names = {name for r in family.rules_of_body(config, family.prefix) for name in r.theirs}
    found = {
        family.prefix + name if family.prefix + name in names else name: tensor
        for name, tensor in tensors.whole.items()
    }
    _check_rest(found, file, said, family, config, head)
    whole = family.some_to_ours(found, config, head)
    return Adapter(folder, said, tuple(patches), tuple(values), whole)


def _check_rest(
    whole: Mapping[str, Tensor],
    file: Path,
    said: AdapterConfig,
    family: Family,
    config: ModelConfig,
    head: str | None,
) -> None:
    """Raise ModelError if a fully trained tensor has no place in the model."""
    rules = family.rules_of_body(config, family.prefix)
    rules += family.rules_of_head(config, head) if head else []
    taken = {name for r in rules for name in r.theirs if all(n in whole for n in r.theirs)}
    for name in whole:
        own = name.startswith("head.") and head not in family.heads
        if name not in taken and not own and not family.is_unused(name):
            raise _other_base(f"{name} is no weight of it, or not all of one", file, said)


def _place_in_head(
    module: str,
    tensors: Mapping[str, Tensor],
    family: Family,
    config: ModelConfig,
    head: str | None,
) -> Place | None:
    """Return the place of a linear map of a published head; None for the output matrix, which is
    always trained in full.
    """
    for r in family.rules_of_head(config, head) if head else []:
        layer = r.ours.removesuffix(".weight")
        if r.theirs == (f"{module}.weight",) and layer not in (r.ours, "head.out"):
            rows = next((len(tensors[n]) for n in ("b", "scales") if n in tensors), 0)
            columns = tensors["a"].shape[-1] if "a" in tensors else 0
            return Place((Slice(layer, 0, rows, torch.arange(rows)),), rows, columns, False)
    return None


def _other_base(what: str, file: Path, config: AdapterConfig) -> ModelError:
    return ModelError(
        f"the adapter is of another base than {config.base}: {what}",
        where=str(file),
        do=f"set base_model_name_or_path in {file.parent / CONFIG} to the model that it was"
        " trained on",
    )


def _read_module(
    module: str, place: Place, tensors: Mapping[str, Tensor], config: AdapterConfig, file: Path
) -> list[tuple[Patch, dict[str, Tensor]]]:
    """Return the adapters of one published map, with the values of their parameters."""
    method: Method = config.method  # type: ignore[assignment]
    if "magnitude" in tensors:
        method = "dora"
    if method == "ia3" and matches(config.inputs, module):
        method = "ia3_input"
    wanted = set(PARAMETERS[method])
    if set(tensors) != wanted:
        odd = sorted(set(tensors) ^ wanted)[0]
        raise ModelError(f"{module}: {odd} is missing, or not of {method}", where=str(file))
    rank = len(tensors["a"]) if "a" in tensors else 0
    sizes = {
        "a": (rank, place.columns),
        "b": (place.rows, rank),
        "magnitude": (place.rows,),
        "scales": (place.columns,) if method == "ia3_input" else (place.rows,),
    }
    plain = {name: t.flatten() if name == "scales" else t for name, t in tensors.items()}
    for name, tensor in plain.items():
        if tensor.shape != sizes[name]:
            raise _other_base(
                f"{name} of {module} has shape {[*tensor.shape]}, and it has {[*sizes[name]]}",
                file,
                config,
            )
    made = []
    for part in place.slices:
        scale = config.scale(module, rank) if rank else 1.0
        patch = Patch(part.layer, part.begin, part.end, module, method, rank, scale)
        own = {
            name: tensor.float() if is_of_inputs(method, name) else tensor[part.order].float()
            for name, tensor in plain.items()
        }
        made.append((patch, own))
    return made


def is_of_inputs(method: str, name: str) -> bool:
    """Return whether a parameter acts on the input of a map, so that its rows are not permuted."""
    return name in OF_INPUTS or method == "ia3_input"


def published_tensors(
    patches: Sequence[Patch], values: Sequence[Mapping[str, Tensor]], known: Mapping[str, Place]
) -> dict[str, Tensor]:
    """Return the parameters of adapters under PEFT's names and in the published row order, the
    inverse of `make_adapter`.

    known: the result of `places`, by the names in the patches.
    """
    ends = {"a": "lora_A.weight", "b": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
    made: dict[str, Tensor] = {}
    for patch, own in zip(patches, values, strict=True):
        place = known[patch.published]
        order = next(
            part.order for part in place.slices if (part.layer, part.begin) == _place_of(patch)
        )
        for name, tensor in own.items():
            key = f"{PREFIX}{patch.published}.{ends.get(name, 'ia3_l')}"
            held = tensor.detach().cpu().float()
            if is_of_inputs(patch.method, name):
                made[key] = held[None] if patch.method == "ia3_input" else held
                continue
            rows = made.setdefault(key, torch.zeros(place.rows, *held.shape[1:]))
            rows[order] = held
    return {
        key: t[:, None] if key.endswith("ia3_l") and t.ndim == 1 else t for key, t in made.items()
    }


def _place_of(patch: Patch) -> tuple[str, int]:
    return patch.layer, patch.begin


def write_adapter(
    folder: Path, config: AdapterConfig, tensors: Mapping[str, Tensor], *, turned: bool
) -> None:
    """Write both files in PEFT's format. turned: whether the base stores matrices as (in, out)."""
    said: dict[str, Any] = {
        "auto_mapping": None,
        "base_model_name_or_path": config.base,
        "inference_mode": True,
        "modules_to_save": list(config.saved) or None,
        "peft_type": "IA3" if config.method == "ia3" else "LORA",
        "revision": config.revision,
        "target_modules": list(config.targets),
        "task_type": config.task_type,
        "fan_in_fan_out": turned,
    }
    if config.method == "ia3":
        said |= {"feedforward_modules": list(config.inputs), "init_ia3_weights": True}
    else:
        said |= {
            "alpha_pattern": {},
            "bias": "none",
            "init_lora_weights": True,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "r": config.rank,
            "rank_pattern": {},
            "use_dora": config.method == "dora",
            "use_rslora": config.rank_stabilised,
        }
    write_json(folder / CONFIG, said)
    plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    with atomic_file(folder / WEIGHTS) as temporary:
        save_file(plain, str(temporary), metadata={"format": "pt"})


def digest_of(folder: Path, original: Path | None) -> str:
    """Return the SHA-256 digest of a model's config and weight files, which identifies it."""
    files = [folder / "config.json"] if original is None else [original]
    for patterns in WEIGHT_FILES if original is None else ():
        there = {file for pattern in patterns for file in folder.glob(pattern)}
        files += sorted(there)
        if there:  # only the first format that is present is read
            break
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        whole.update(json.dumps([file.name, found]).encode())
    return whole.hexdigest()

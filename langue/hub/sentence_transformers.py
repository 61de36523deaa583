"""Read and write folders of sentence-transformers, which define how a text becomes one vector.

modules.json lists the steps: the Transformer, which is the folder's own model, the pooling of its
hidden states, and further modules. Both layouts are read, that of version 6 and the older one.
Unknown modules or modes are refused, because a default in their place would give other vectors.
"""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import normalizers
from torch import Tensor, nn
from torch.nn import functional as F

from langue.errors import ModelError
from langue.files import read_json, write_json
from langue.hub.weights import read_weights
from langue.text.tokenizers.tokenizer import Tokenizer

MODULES = "modules.json"
LAYOUT = "3.0.0"  # the version whose layout we write
INSIDE = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")  # a path inside the model folder, never out of it
CONFIG = "config_sentence_transformers.json"
# The settings file of the Transformer, whose name depends on the model type when it was saved.
SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Pooling modes: the names of sentence-transformers -> ours in data/pooling.py, in the order in
# which it concatenates the vectors of several modes.
POOLING = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
LEGACY = {  # flags of the older layout
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True)
class SentenceInput:
    """How a text is prepared for the Transformer."""

    # max_seq_length in tokens; None: determined by the tokenizer and the config
    max_length: int | None
    lower_case: bool
    prompts: dict[str, str]
    default_prompt: str | None


@dataclass(frozen=True)
class SentencePooling:
    """How the hidden states of a text become one vector."""

    # names of data/pooling.py; the vectors of several modes are concatenated
    modes: tuple[str, ...]
    include_prompt: bool  # whether the prompt's tokens are pooled
    steps: nn.Sequential  # the modules after the pooling
    size: int  # dimension of the final vector


class Normalize(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, p=2.0, dim=-1)


class Dense(nn.Module):
    """activation(x W + b), plus x or a linear map of x if `use_residual` is set."""

    def __init__(
        self, linear: nn.Linear, activation: nn.Module, residual: nn.Module | None
    ) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation
        self.residual = residual

    def forward(self, vectors: Tensor) -> Tensor:
        out: Tensor = self.activation(self.linear(vectors))
        return out if self.residual is None else out + self.residual(vectors)


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders that modules.json names, such as "1_Pooling"."""
    if not (folder / MODULES).is_file():
        return []
    return [path for _, path in _modules(folder / MODULES) if path]


def copy_modules(folder: Path, target: Path) -> None:
    """Copy the files of sentence-transformers from `folder`, except the Transformer itself."""
    names = [name for name in (MODULES, CONFIG, *SETTINGS) if (folder / MODULES).is_file()]
    for inside in module_folders(folder):
        (target / inside).mkdir(parents=True, exist_ok=True)
        names += [
            f"{inside}/{name}" for name in ("config.json", "model.safetensors", "pytorch_model.bin")
        ]
    for name in names:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)


def write_sentence_modules(
    folder: Path,
    *,
    size: int,
    mode: str,
    normalize: bool,
    max_length: int,
    lower_case: bool,
    prompts: Mapping[str, str],
    default_prompt: str | None,
    similarity: str,
) -> None:
    """Turn a folder with a Transformer into one of sentence-transformers, in the older layout,
    which old and new versions read.

    size: dimension of the hidden states. mode: a pooling of data/pooling.py. similarity: cosine or
    dot.
    """
    steps = [("", "Transformer"), ("1_Pooling", "Pooling")]
    steps += [("2_Normalize", "Normalize")] if normalize else []
    modules = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for idx, (path, kind) in enumerate(steps)
    ]
    write_json(folder / MODULES, modules)
    for path, _ in steps[1:]:
        (folder / path).mkdir(exist_ok=True)
    flags = {key: POOLING[name] == mode for key, name in LEGACY.items()}
    pooling = {"word_embedding_dimension": size, **flags, "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    if normalize:
        write_json(folder / "2_Normalize" / "config.json", {})
    write_json(folder / SETTINGS[0], {"max_seq_length": max_length, "do_lower_case": lower_case})
    said = {
        "__version__": {"sentence_transformers": LAYOUT},
        "prompts": dict(prompts),
        "default_prompt_name": default_prompt,
        "similarity_fn_name": similarity,
    }
    write_json(folder / CONFIG, said)


def read_sentence_input(folder: Path) -> SentenceInput | None:
    """Read how texts are prepared; None if the folder is not one of sentence-transformers."""
    if not (folder / MODULES).is_file():
        return None
    settings = _object(_settings_file(folder))
    length = settings.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        what = f"max_seq_length = {length!r} is not a number of tokens"
        raise ModelError(what, where=str(_settings_file(folder)))
    prompts, default = _prompts(folder / CONFIG)
    return SentenceInput(length, settings.get("do_lower_case") is True, prompts, default)


def read_sentence_pooling(folder: Path, dim: int) -> SentencePooling | None:
    """Read how hidden states are pooled; None if the folder is not one of sentence-transformers.

    dim: dimension of the model's hidden states. Raises ModelError for an unknown module or mode.
    """
    file = folder / MODULES
    if not file.is_file():
        return None
    model = _object(folder / CONFIG).get("model_type", "SentenceTransformer")
    if model != "SentenceTransformer":
        raise _refused(folder / CONFIG, f"model_type {model!r} does not make one vector of a text")
    _check_transformer(_settings_file(folder))
    modules = _modules(file)
    foreign = [kind for kind, _ in modules if not kind.startswith("sentence_transformers.")]
    if foreign:
        raise _refused(
            file, f"the module {foreign[0]!r} is code of the model's own, which is never run"
        )
    kinds = [kind.rpartition(".")[2] for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or modules[0][1]:
        raise _refused(
            file,
            f"its modules are {', '.join(kinds)}: not the folder's own Transformer, then a Pooling",
        )
    modes, include_prompt = _pooling(folder / modules[1][1] / "config.json", dim)
    size = dim * len(modes)
    steps: list[nn.Module] = []
    for kind, (_, path) in zip(kinds[2:], modules[2:], strict=True):
        step, size = _step(kind, folder / path, size)
        steps.append(step)
    return SentencePooling(modes, include_prompt, nn.Sequential(*steps).requires_grad_(False), size)


def lower_cased(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer with lowercasing as its first step; special tokens are matched before
    that.
    """
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    steps = [normalizers.Lowercase()]
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(steps)
    return Tokenizer(backend, tokenizer.folder, options=tokenizer.options)


def _refused(file: Path, what: str) -> ModelError:
    do = "use hidden(), and pool its states as the model asks, or give pool=... for plain pooling"
    return ModelError(what, where=str(file), do=do)


def _object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one if the file does not exist."""
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=str(file))
    return content


def _modules(file: Path) -> list[tuple[str, str]]:
    """Return (class, path inside the model's folder) of each module."""
    content = read_json(file)
    if not isinstance(content, list):
        raise ModelError("the file is not a list of modules", where=str(file))
    found = []
    for module in content:
        named = module if isinstance(module, dict) else {}
        kind = named.get("type")
        path = named.get("path")
        if not isinstance(kind, str) or not isinstance(path, str):
            raise ModelError("a module has no type or no path", where=str(file))
        if path and INSIDE.fullmatch(path) is None:
            raise ModelError(
                f"a module's path {path!r} is not a folder inside the model's", where=str(file)
            )
        found.append((kind, path))
    return found


def _settings_file(folder: Path) -> Path:
    """Return the first settings file that exists."""
    there = [folder / name for name in SETTINGS if (folder / name).is_file()]
    return there[0] if there else folder / SETTINGS[0]


def _check_transformer(file: Path) -> None:
    settings = _object(file)
    task = settings.get("transformer_task", "feature-extraction")
    output = settings.get("module_output_name", "token_embeddings")
    if (task, output) != ("feature-extraction", "token_embeddings"):
        raise _refused(file, f"its Transformer gives {output!r} of {task!r}, not hidden states")


def _pooling(file: Path, dim: int) -> tuple[tuple[str, ...], bool]:
    """Return the pooling modes, and whether the prompt is pooled too."""
    config = _object(file)
    if "pooling_mode" in config:
        mode = config["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else mode
    else:
        flags = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        unknown = [key for key in flags if key not in LEGACY]
        if unknown:
            raise _refused(file, f"{unknown[0]} is not known")
        modes = [mode for key, mode in LEGACY.items() if key in flags] or ["mean"]
    if not isinstance(modes, list) or not modes:
        raise _refused(file, f"pooling_mode = {modes!r} is not a mode or a list of them")
    for mode in modes:
        if not isinstance(mode, str) or mode not in POOLING:
            raise _refused(file, f"pooling_mode = {mode!r} is not known")
    size = config.get("embedding_dimension", config.get("word_embedding_dimension", dim))
    if size != dim:
        raise ModelError(
            f"it pools states of {size} elements, and the model's have {dim}", where=str(file)
        )
    return tuple(POOLING[mode] for mode in modes), config.get("include_prompt", True) is not False


def _step(kind: str, folder: Path, size: int) -> tuple[nn.Module, int]:
    """Return a module after the pooling, and the dimension of its output."""
    config = _object(folder / "config.json")
    names = {config.get(f"module_{side}_name") for side in ("input", "output")}
    if not names <= {None, "sentence_embedding"}:
        raise _refused(folder, f"its {kind} reads or writes {', '.join(sorted(map(str, names)))}")
    if kind == "Normalize":
        return Normalize(), size
    if kind == "Dropout":  # only active in training
        return nn.Identity(), size
    if kind == "Dense":
        return _dense(config, folder, size)
    if kind == "LayerNorm":
        norm = nn.LayerNorm(size)
        _fill(folder, {"norm.weight": norm.weight, "norm.bias": norm.bias})
        return norm, size
    raise _refused(folder.parent / MODULES, f"its module {kind} is not known")


def _dense(config: Mapping[str, Any], folder: Path, size: int) -> tuple[nn.Module, int]:
    out = config.get("out_features")
    if config.get("in_features") != size or type(out) is not int or out < 1:
        raise ModelError(
            f"its Dense maps {config.get('in_features')} elements to {out}, and is given {size}",
            where=str(folder),
        )
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = (
        ACTIVATIONS.get(named.rpartition(".")[2]) if named.startswith("torch.nn.") else None
    )
    if activation is None:
        raise _refused(folder / "config.json", f"activation_function = {named!r} is not known")
    linear = nn.Linear(size, out, bias=config.get("bias", True) is not False)
    targets = {"linear.weight": linear.weight}
    if linear.bias is not None:
        targets["linear.bias"] = linear.bias
    residual: nn.Module | None = None
    if config.get("use_residual"):
        residual = nn.Identity()
        if size != out:
            residual = nn.Linear(size, out, bias=False)
            targets["residual.weight"] = residual.weight
    _fill(folder, targets)
    return Dense(linear, activation(), residual), out


def _fill(folder: Path, targets: Mapping[str, Tensor]) -> None:
    """Load the weights of a module from its folder, each exactly once."""
    weights = read_weights(folder)
    if weights.keys() != targets.keys():
        raise ModelError(
            f"its weights are {sorted(weights)}, not {sorted(targets)}", where=str(folder)
        )
    with torch.no_grad():
        for name, target in targets.items():
            if weights[name].shape != target.shape:
                shapes = f"{[*weights[name].shape]} and the config asks for {[*target.shape]}"
                raise ModelError(f"{name} has shape {shapes}", where=str(folder))
            target.copy_(weights[name])


def _prompts(file: Path) -> tuple[dict[str, str], str | None]:
    """Return the prompts by name, and the name of the default prompt."""
    config = _object(file)
    saved = config.get("prompts") or {}
    if not isinstance(saved, dict) or not all(
        isinstance(text, str | None) for text in saved.values()
    ):
        raise ModelError("prompts are not texts by their names", where=str(file))
    prompts = {"query": "", "document": ""}
    for name, text in saved.items():
        prompts[name] = text or ""
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(
            f"default_prompt_name = {default!r} is none of its prompts", where=str(file)
        )
    return prompts, default

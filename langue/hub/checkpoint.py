"""Read a Hub name, a folder or a run as our config, weights and tokenizer; save it to a folder.

Weights are safetensors. A `.bin` is read only if `torch.load(weights_only=True)` accepts it, so no
pickle can run code; a config that refers to code (`auto_map`) is refused.
"""

import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from langue.errors import LangueError, ModelError
from langue.files import atomic_file, read_json, refuse_code, write_json
from langue.hub import sentence_transformers
from langue.hub.config_keys import MOST, require
from langue.hub.families.registry import FAMILIES
from langue.hub.family import EXTRA_PREFIX, Family, parameters
from langue.hub.generation_config import (
    FILE,
    GenerationConfig,
    generation_of_config,
    read_generation,
    saved_generation,
)
from langue.hub.snapshot import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    fetch,
    fetch_file,
    refuse_missing_folder,
)
from langue.hub.special_tokens import padding_token, special_ids, write_tokenizer_config
from langue.hub.weights import MXFP4, read_weights
from langue.model.config import ModelConfig
from langue.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from langue.hub.adapters import Adapter
    from langue.hub.quantized import StoredRows
    from langue.model.weight_kinds import AnyWeight

# Prefixes of the config keys that describe heads.
OF_HEADS = ("id2label", "label2id", "problem_type", "classifier_", "summary_")
# Prefix of the body's class in `architectures`, if the head exists in no class of `transformers`.
# AutoModel still reads the body; without the prefix a pipeline would use a class that it finds
# under that name.
OWN_HEAD = "LangueHeadOn"
# the number of tokens that a tokenizer may have beyond the embedding; bart-large-cnn and Gemma 3
# have some that occur in no text
SPARE = 16
# every layer, and every expert of a layer, is built separately; 12,032 is the largest number in a
# supported published model
MOST_LAYERS = 2**15

# Start and end tokens, taken from config.json if generation_config.json has none.
GENERATION = ("eos_token_id", "decoder_start_token_id")
LISTS = ("bad_words_ids", "suppress_tokens")


@dataclass(frozen=True)
class Checkpoint:
    """A published model that has been read."""

    folder: Path
    family: Family
    config: ModelConfig
    task: dict[str, Any] | None  # langue.json, if this is one of our runs
    weights: dict[str, Tensor]  # "body.*" and "head.*"
    tokenizer: Tokenizer
    published: dict[str, Any] = field(default_factory=dict)  # config.json, as in Description
    writes: dict[str, Any] = field(default_factory=dict)  # as in Description
    # quantised matrices, if requested; `weights` has tensors without memory in their places
    stored: "dict[str, AnyWeight]" = field(default_factory=dict)
    # as in Description; the adapter is merged into the weights
    name: str = ""
    original: Path | None = None
    adapter: Path | None = None

    @cached_property
    def generation(self) -> GenerationConfig:
        """Return the generation settings; ModelError if generation_config.json is invalid."""
        vocabulary = self.config.decoder_vocab_size or self.config.vocab_size
        where = str(self.folder / FILE)
        return read_generation(self.writes, self.published, vocabulary, where)

    def generation_in(self, tokenizer: Tokenizer, target: str | None = None) -> GenerationConfig:
        """Return the same with the start token and the forced first token of a tokenizer.

        target: a language, whose tokens are used; None: those of the model's config or, if it has
        none, of the tokenizer.
        """
        config = self.generation
        start = config.start
        first = config.forced_bos
        unsaid = "decoder_start_token_id" not in self.published
        if tokenizer.decoder_start is not None and (target or unsaid):
            start = tokenizer.decoder_start
        has_codes = tokenizer.decoder_start is not None or tokenizer.first_token is not None
        if has_codes and (target or first is None):
            first = tokenizer.first_token
        return replace(config, start=start, forced_bos=first)

    @property
    def ends(self) -> frozenset[int]:
        """Return the tokens that end a text, from the config and the tokenizer."""
        token = self.tokenizer.end
        return self.generation.end | (frozenset() if token is None else frozenset([token]))

    @property
    def pad(self) -> int | None:
        """Return the id of the padding token, or None if neither config nor tokenizer names one."""
        token = self.published.get("pad_token_id")
        if type(token) is int:
            return token
        token = self.tokenizer.padding
        return token if token is not None and token < self.config.vocab_size else None

    @property
    def batch_pad(self) -> int | None:
        """Return the id of the padding token of the saved model; if none is named, that of a
        substitute.
        """
        if self.pad is not None:
            return self.pad
        token = _pad_of(self.tokenizer, self.published)
        return token if token is not None and token < self.config.vocab_size else None

    @property
    def start(self) -> int:
        """Return the first token of an encoder-decoder's target."""
        return self.generation.start


@contextmanager
def naming_causes(*folders: Path) -> Iterator[None]:
    """Replace an error in reading these folders by one that names its cause, if they show one."""
    try:
        yield
    except LangueError as error:
        from langue.hub.causes import pointer_met, refuse_pointer

        met = (pointer_met(str(error.where), folder) for folder in folders)
        pointer = next((file for file in met if file is not None), None)
        if pointer is None:
            raise
        raise refuse_pointer(pointer) from error


def locate(
    name: str | Path,
    revision: str | None = None,
    patterns: Sequence[str] | None = None,
    *,
    weights: bool = True,
) -> Path:
    """Return the local folder of a model: the folder itself, or a snapshot from the Hub. patterns:
    the files to fetch instead of the model. weights: whether the weights are needed too.
    """
    folder = Path(os.path.expanduser(name))  # the home of an unknown user stays as it is written
    if folder.is_dir() or _find_format(folder):
        return folder
    if folder.exists():
        from langue.hub.causes import is_pointer, refuse_pointer

        if is_pointer(folder):
            raise refuse_pointer(folder)
        raise ModelError(
            "a file that is not a model",
            where=str(name),
            do="give a folder, a .gguf or a llama2.c .bin",
        )
    refuse_missing_folder(name)
    if patterns is not None:
        return fetch(str(name), revision, patterns, weights=False)
    found = fetch(str(name), revision, weights=False)
    if (found / ADAPTER_CONFIG).is_file():
        fetch_file(str(name), revision, ADAPTER_WEIGHTS)
        return found
    if weights or not _says_all(found):
        found = fetch(str(name), revision, weights=True)
        from langue.hub.originals import keras

        if keras.find(found):
            fetch_file(str(name), revision, keras.VOCABULARY)
        for inside in sentence_transformers.module_folders(found):
            fetch_file(str(name), revision, f"{inside}/*")
    return found


def _says_all(folder: Path) -> bool:
    """Return whether there is a config.json of `transformers`, so that the model is known without
    its weights.
    """
    return (folder / "config.json").is_file() and "model_type" in _object(folder / "config.json")


@dataclass(frozen=True)
class Description:
    """The description of a model folder, before any weight is read."""

    folder: Path
    published: dict[str, Any]  # config.json
    task: dict[str, Any] | None  # langue.json, if this is one of our runs
    # generation_config.json, or the corresponding keys of config.json
    writes: dict[str, Any] = field(default_factory=dict)
    original: Path | None = None  # the model's file, if it is not in the Hub's format
    reader: "FormatReader | None" = None  # the reader of that format
    name: str = ""  # the name that was requested
    # the folder of an adapter, and the description of its base alone
    adapter: Path | None = None
    base: "Description | None" = None
    # whether this is the text part of a model that also reads images
    of_images: bool = False

    @property
    def told(self) -> Path:
        """Return the requested folder, which for an adapter is the adapter's."""
        return self.folder if self.adapter is None else self.adapter


class FormatReader(Protocol):
    """A module that reads a foreign file format as a checkpoint with the Hub's names.

    weights_dtype: of the tensors (None: that of the file); tensors other than mapped pages of the
    file are created in it.
    """

    def find(self, path: Path) -> Path | None: ...
    def read_config(self, file: Path) -> dict[str, Any]: ...
    def read_weights(self, file: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]: ...
    def read_tokenizer(self, file: Path) -> Tokenizer: ...


def _find_format(path: Path) -> tuple[FormatReader, Path] | None:
    """Return the model file of a foreign format at `path` or in it, and its reader."""
    from langue.hub.originals import (
        gguf_model,
        google_bert,
        keras,
        llama2c,
        marian_nmt,
        openai_gpt2,
    )

    formats: tuple[FormatReader, ...] = (
        llama2c,
        gguf_model,
        google_bert,
        openai_gpt2,
        marian_nmt,
        keras,
    )
    found = ((reader, reader.find(path)) for reader in formats)
    return next(((reader, file) for reader, file in found if file is not None), None)


def describe(name: str | Path, revision: str | None = None, *, weights: bool = True) -> Description:
    """Return the description of a model. weights: whether the weights will be read later, so that
    they are fetched too if the model is on the Hub.
    """
    folder = locate(name, revision, weights=weights)
    with naming_causes(folder):
        return _describe(name, folder, weights)


def _describe(name: str | Path, folder: Path, weights: bool) -> Description:
    if (folder / ADAPTER_CONFIG).is_file():
        return _describe_adapter(str(name), folder, weights)
    foreign = None if _is_of_the_hub(folder) else _find_format(folder)
    if foreign is not None:
        reader, original = foreign
        published = reader.read_config(original)
        told = generation_of_config(published)
        return Description(folder, published, None, told, original, reader, str(name))
    if not (folder / "config.json").is_file():
        raise ModelError(
            "the folder has no config.json", where=str(folder), do="give a model folder or a run"
        )
    published = _object(folder / "config.json")
    refuse_code(published, folder / "config.json")
    of_images = "vision_config" in published
    if of_images:
        from langue.hub.multimodal import text_side

        published = text_side(published)
    file = folder / FILE
    writes = _object(file) if file.is_file() else generation_of_config(published)
    refuse_code(writes, file)
    published |= {key: writes[key] for key in GENERATION if key in writes}
    odd = [key for key in LISTS if not isinstance(writes.get(key), list | None)]
    if not isinstance(published.get("architectures"), list | None):
        odd = ["architectures"]
    if odd:
        raise ModelError(f"config: {odd[0]} is not a list", where=str(folder / "config.json"))
    published = _named(published)
    task = _object(folder / "langue.json") if (folder / "langue.json").is_file() else None
    return Description(folder, published, task, writes, name=str(name), of_images=of_images)


def _describe_adapter(name: str, folder: Path, weights: bool) -> Description:
    """Return the description of an adapter's base, with the adapter's task and head."""
    from langue.hub import adapters

    said = adapters.read_config(folder)
    try:
        base = describe(said.base, said.revision, weights=weights)
    except LangueError as error:
        raise ModelError(
            f"the base of the adapter, {said.base}: {error.what}",
            where=error.where if error.where != said.base else str(folder),
            do=f"set base_model_name_or_path in {folder / ADAPTER_CONFIG} to where it is",
        ) from error
    if base.adapter is not None:
        raise ModelError(
            f"the base of the adapter, {said.base}, is an adapter itself",
            where=str(folder),
            do=f"merge that one first: langue convert {said.base} FOLDER --merge, and set"
            f" base_model_name_or_path in {folder / ADAPTER_CONFIG} to FOLDER",
        )
    task = _object(folder / "langue.json") if (folder / "langue.json").is_file() else None
    published = dict(base.published)
    if task is None:
        family, _ = family_of(base)
        tensors = adapters.read_tensors(folder, family)
        published |= adapters.published_of(said, tensors, family, base.published)
    return replace(base, published=published, task=task, name=name, adapter=folder, base=base)


def _is_of_the_hub(path: Path) -> bool:
    """Return whether the folder has a config.json of `transformers`; Keras has its own kind, beside
    weights with another name.
    """
    if not (path / "config.json").is_file():
        return False
    if not (path / "model.weights.h5").is_file():
        return True
    from langue.hub.originals import keras

    return keras.find(path) is None


def classes_of(published: Mapping[str, Any]) -> list[str]:
    """Return the classes of `transformers` that a config names; for a head of ours, that of its
    body.
    """
    return [str(name).removeprefix(OWN_HEAD) for name in published.get("architectures") or []]


def _object(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=str(file))
    return content


def _named(published: dict[str, Any]) -> dict[str, Any]:
    """Return the config with `model_type`, which in the oldest configs follows from the class."""
    classes = {*classes_of(published)}
    kind = published.get("model_type")
    # only the family that is named, so that the others are not imported
    names = [kind, *FAMILIES] if isinstance(kind, str) and kind in FAMILIES else [*FAMILIES]
    for name in names:
        if classes & {*FAMILIES[name].architectures.values()}:
            return {"model_type": name} | published
    return published


def family_of(described: Description) -> tuple[Family, ModelConfig]:
    """Return the family that a config names, and the config as ModelConfig."""
    kind = described.published.get("model_type")
    where = str(described.folder / "config.json")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ModelError(
            f"model_type {kind!r} is not known", where=where, do=f"known: {', '.join(FAMILIES)}"
        )
    try:
        if described.published.get("quantization_config") is not None:
            from langue.hub.quantized import check_quantization

            check_quantization(described.published)
        config = family.read(described.published)
        # this key would change the mask that the family's class uses
        if config.architecture != "encoder-decoder":
            require(described.published, is_causal=(config.causal, None))
        _check_bounds(config)
    except LangueError as error:
        raise ModelError(error.what, where=error.where or where, do=error.do) from error
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise ModelError(
            f"the config cannot be followed ({type(error).__name__}: {error})", where=where
        ) from error
    return family, config


def _check_bounds(config: ModelConfig) -> None:
    """Raise ModelError if the config has impossible sizes, before anything is built or computed
    from them.
    """
    claims = {name: value for name, value in config.to_dict().items() if type(value) is int}
    claims["heads times their width"] = config.n_heads * config.head_dim
    if config.position.startswith("sinusoidal"):  # a table that is computed, not read from a file
        claims["a sixteenth of width times positions"] = config.dim * config.max_length // 16
    odd = [
        name
        for name, value in config.to_dict().items()
        if type(value) is float and not math.isfinite(value)
    ]
    if odd:
        raise ModelError(f"config: {odd[0]} is not finite")
    wrong = [(name, value) for name, value in claims.items() if value > MOST]
    wrong += [("layers", layers_in(config))] if layers_in(config) > MOST_LAYERS else []
    if wrong:
        raise ModelError(f"config: {wrong[0][0]} = {wrong[0][1]:,} is beyond any model")


def is_quantized(published: Mapping[str, Any]) -> bool:
    """Return whether matrices are quantised to integers, which a model can keep in memory. MXFP4
    does not count, because it is converted to bf16 when it is read.
    """
    said = published.get("quantization_config")
    return said is not None and not (isinstance(said, dict) and said.get("quant_method") == MXFP4)


def layers_in(config: ModelConfig) -> int:
    """Return the number of layers of encoder and decoder, multiplied by the number of experts."""
    return (config.n_layers + config.decoder_layers) * max(1, config.n_experts)


def read_tokenizer(described: Description) -> Tokenizer:
    with naming_causes(described.told, described.folder):
        return _read_tokenizer(described)


def _read_tokenizer(described: Description) -> Tokenizer:
    own = described.adapter
    if own is not None and (own / "tokenizer.json").is_file():
        return Tokenizer.load(own)
    reader = described.reader
    original = described.original
    if reader is None or original is None:
        return Tokenizer.load(described.folder)
    return reader.read_tokenizer(original)


def _read_weights(
    described: Description,
    family: Family,
    weights_dtype: torch.dtype | None,
    rows: "StoredRows | None",
) -> dict[str, Tensor]:
    """Return the published tensors. rows: receives the quantised matrices of the file; None: these
    are read as dense matrices, in fp32 or the given dtype.
    """
    reader = described.reader
    original = described.original
    if reader is not None and original is not None:
        # only the formats with quantised matrices have this function
        read_stored = getattr(reader, "read_stored", None)
        if rows is None or read_stored is None:
            return reader.read_weights(original, weights_dtype)
        kept: dict[str, Tensor] = read_stored(original, rows)
        return kept
    theirs = read_weights(described.folder, weights_dtype, family.shared_names)
    if described.of_images:
        from langue.hub.multimodal import text_weights
        from langue.progress import warn

        theirs, skipped = text_weights(theirs)
        warn(
            f"{described.told}: the text side of a model that reads images too; {skipped:,} weights"
            " for images are skipped, and are not saved again"
        )
    if not is_quantized(described.published):
        if not all(tensor.is_floating_point() for tensor in theirs.values()):
            from langue.hub.mxfp4 import widened
            from langue.hub.quantized import refuse_others

            theirs = widened(theirs)
            refuse_others(theirs)
        return theirs
    from langue.hub.quantized import unpacked

    found = {}
    for name, value in unpacked(theirs).items():
        if isinstance(value, Tensor):
            found[name] = value
        else:
            plain = value.dequantize().to(weights_dtype) if rows is None else rows.numbered(value)
            found[name] = plain.t() if family.is_turned(name) else plain
    return found


def read_checkpoint(
    described: Description,
    head: str | None = None,
    pairs: bool = False,
    weights_dtype: torch.dtype | None = None,
    stored: bool = False,
    widen: bool = False,
) -> Checkpoint:
    """Read a model folder. `head`: the head whose weights are taken if present ("sequence",
    "token", "span", "lm"); `pairs`: whether to read BERT's next-sentence weights; `weights_dtype`:
    that of the weights; `stored`: keep quantised matrices quantised, in the checkpoint's `stored`;
    `widen`: accept any number of tokens beyond the embedding, because rows for them are about to be
    added.
    """
    folder = described.folder
    family_of(described)  # report an unknown family before missing files
    tokenizer = read_tokenizer(described)
    rows = None
    if stored:
        from langue.hub.quantized import StoredRows

        rows = StoredRows()
    with naming_causes(described.told, folder):
        family, config, weights, kept = _read_model(described, head, pairs, weights_dtype, rows)
    if len(tokenizer) > config.vocab_size + SPARE and not widen:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}"
            " embeddings",
            where=str(folder),
            do=(
                "where tokens were added to it, give them rows: langue convert"
                f" {shlex.quote(str(folder))} OUT --widen"
            ),
        )
    told = described.published, described.writes
    made = Checkpoint(
        folder,
        family,
        config,
        described.task,
        weights,
        tokenizer,
        *told,
        stored=kept,
        name=described.name,
        original=described.original,
        adapter=described.adapter,
    )
    if described.adapter is not None:
        _merge_adapter(described, made, head)
    return made


def adapter_of(described: Description, config: ModelConfig, head: str | None) -> "Adapter":
    """Return the adapter of a description; ModelError if it belongs to another base, or the base
    has changed.
    """
    from langue.hub import adapters

    assert described.adapter is not None
    family, _ = family_of(described)
    _check_base(described)
    said = adapters.read_config(described.adapter)
    tensors = adapters.read_tensors(described.adapter, family)
    return adapters.make_adapter(described.adapter, said, tensors, family, config, head)


def _check_base(described: Description) -> None:
    """Raise ModelError if an adapter of ours records its base, and the base has changed since."""
    from langue.hub.adapters import digest_of

    kept = (described.task or {}).get("base")
    if not isinstance(kept, dict) or "sha256" not in kept:
        return
    if kept["sha256"] != digest_of(described.folder, described.original):
        raise ModelError(
            f"the base of the adapter, {described.folder}, has changed since it was trained",
            where=str(described.adapter),
            do="put it back as it was, or set base_model_name_or_path in"
            f" {described.told / ADAPTER_CONFIG} to a copy that is as it was",
        )


def _merge_adapter(described: Description, checkpoint: Checkpoint, head: str | None) -> None:
    """Merge an adapter into the weights of its base; quantised matrices are dequantised first."""
    from langue.model.adapters import merge_into

    adapter = adapter_of(described, checkpoint.config, head)
    weights = checkpoint.weights
    weights |= adapter.whole
    for patch in adapter.patches:
        stored = checkpoint.stored.pop(f"{patch.layer}.weight", None)
        if stored is not None:
            weights[f"{patch.layer}.weight"] = stored.dequantize()
    merge_into(weights, adapter.patches, adapter.values)


def _read_model(
    described: Description,
    head: str | None,
    pairs: bool,
    weights_dtype: torch.dtype | None,
    rows: "StoredRows | None",
) -> "tuple[Family, ModelConfig, dict[str, Tensor], dict[str, AnyWeight]]":
    other = None
    try:
        family, said = family_of(described)
        theirs = _read_weights(described, family, weights_dtype, rows)
        if layers_in(said) > len(theirs):
            raise ModelError(
                f"the config claims {layers_in(said):,} layers, and there are {len(theirs):,}"
                " weights"
            )
        classes = classes_of(described.published)
        config = replace(family.infer_from_weights(theirs, said, classes), pair_head=pairs)
        other = family.other(classes, head)
        weights = family.to_ours(
            theirs, config, None if other else head, weights_dtype, other is not None
        )
        stored = {} if rows is None else _take_stored(weights, rows)
        _check_shapes(weights, config)
    except LangueError as error:
        do = f"{other} is not read here" if other else error.do
        raise ModelError(error.what, where=error.where or str(described.folder), do=do) from error
    return family, config, weights, stored


def _take_stored(weights: dict[str, Tensor], rows: "StoredRows") -> "dict[str, AnyWeight]":
    """Return the quantised matrices that `weights` holds as row numbers, and replace each there by
    a tensor of its shape that takes no memory. Those kept only for saving are dequantised to fp32.
    """
    stored: dict[str, AnyWeight] = {}
    for name, tensor in weights.items():
        if not rows.is_numbered(tensor):
            continue
        weight = rows.taken(tensor)
        if name.startswith(EXTRA_PREFIX):
            weights[name] = weight.dequantize()
        else:
            stored[name] = weight
            weights[name] = torch.zeros(()).expand(weight.shape)
    return stored


def _check_shapes(weights: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Raise ModelError if a shape differs from the config, before a network is built."""
    for name, size in parameters(config).items():
        if name.startswith("body.") and name in weights and weights[name].shape != size:
            raise ModelError(
                f"{name} has shape {[*weights[name].shape]} and the config asks for {[*size]}"
            )


def without_extra(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without those that are kept only for saving."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(EXTRA_PREFIX)}


def load_into(
    module: torch.nn.Module,
    weights: Mapping[str, Tensor],
    *,
    where: str,
    new: str = "",
    copy: bool = True,
    weights_dtype: torch.dtype = torch.float32,
    trained: bool = False,
) -> list[str]:
    """Copy weights into a module after a check of their shapes, and return the names of absent
    parameters. new: prefix of names that may be absent. trained: load only parameters that require
    gradients.

    copy=False: the tensors themselves become the parameters, so that no second copy exists; for a
    module that may be on the meta device and is not trained in place, as the tensors may be mapped
    file pages.
    """
    targets = {
        name: weight
        for name, weight in module.named_parameters()
        if weight.requires_grad or not trained
    }
    wrong = [
        n for n, t in weights.items() if n in targets and tuple(t.shape) != tuple(targets[n].shape)
    ]
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"{name} has shape {list(weights[name].shape)} and the config asks for"
            f" {list(targets[name].shape)}",
            where=where,
        )
    absent = [name for name in targets if name not in weights]
    left = [name for name in weights if name not in targets]
    if left or any(not (new and name.startswith(new)) for name in absent):
        raise ModelError(f"weights missing: {absent[:3]}; left over: {left[:3]}", where=where)
    if not copy:
        wide = {name: targets[name].dtype for name in weights}
        given = {
            n: t.to(weights_dtype if t.ndim > 1 and wide[n] == torch.float32 else wide[n])
            for n, t in weights.items()
        }
        module.load_state_dict(given, strict=False, assign=True)
        return absent
    with torch.no_grad():
        for name, tensor in weights.items():
            targets[name].copy_(tensor)
    return absent


def write_checkpoint(
    folder: Path,
    *,
    family: Family,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    head: str | None = None,
    extra: Mapping[str, Any] | None = None,
    published: Mapping[str, Any] | None = None,
    writes: Mapping[str, Any] | None = None,
    stored: "Mapping[str, AnyWeight] | None" = None,
) -> None:
    """Write config.json, model.safetensors and the tokenizer as `transformers` reads them. `folder`
    must exist. published and writes: as in Description; stored: the quantised matrices, by our
    names.
    """
    published = published or {}
    # An unknown head is saved with its class, so that others read it as before.
    other = family.other(classes_of(published)) if head is None and family.prefix else None
    quantized: dict[str, Any] = {}
    if stored:
        from langue.hub.quantized import StoredRows, pack

        rows = StoredRows()
        numbered = {name: rows.numbered(weight) for name, weight in stored.items()}
        theirs = family.to_theirs({**weights, **numbered}, config, head, other)
        quantized = pack(theirs, rows, family)
    else:
        theirs = family.to_theirs(weights, config, head, other)
    special = special_ids(tokenizer, published)
    body_class = family.body_class(config)
    own_head = head is not None and head not in family.architectures
    stem = OWN_HEAD + body_class if own_head else family.architectures.get(head or "", body_class)
    of_heads = {
        key: value for key, value in published.items() if other and key.startswith(OF_HEADS)
    }
    described = (
        {"model_type": family.name}
        | special
        | of_heads
        | family.write(config)
        | {
            "architectures": [other or stem],
            "torch_dtype": (
                # scales are float16, and would be rounded as bfloat16
                "bfloat16"
                if any(t.dtype == torch.bfloat16 for t in theirs.values()) and not stored
                else "float32"
            ),
            **quantized,
            **(extra or {}),
        }
    )
    write_json(folder / "config.json", described)
    generation = saved_generation(published, writes or {})
    if (
        head == "lm"
        and config.architecture == "decoder"
        and special.get("eos_token_id") is not None
    ):
        generation = special | generation
    if generation and generation.get("pad_token_id") is None:
        generation["pad_token_id"] = _pad_of(tokenizer, generation)
    if generation:
        write_json(folder / FILE, generation)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in theirs.items()}
    # so that, by its umask permissions, other users can read it
    with atomic_file(folder / "model.safetensors") as temporary:
        save_file(plain, str(temporary), metadata={"format": "pt"})
    tokenizer.save(folder)
    write_tokenizer_config(folder, tokenizer, described, config)


def _pad_of(tokenizer: Tokenizer, published: Mapping[str, Any]) -> int | None:
    """Return the id of the token that pads batches if a config names none."""
    name = padding_token(tokenizer, published)
    return None if name is None else tokenizer.backend.token_to_id(name)

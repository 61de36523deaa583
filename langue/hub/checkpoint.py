"""What arrives: a Hub name, a folder or a run.
What leaves: config, weights and tokenizer in our terms; and back to a folder.

Weights are safetensors. A `.bin` is read only as far as `torch.load(weights_only=True)` takes it:
nothing that can run code is ever unpickled, and a config that names code (`auto_map`) is refused.
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

# What configs say of heads.
OF_HEADS = ("id2label", "label2id", "problem_type", "classifier_", "summary_")
# Before a body's class in `architectures`, where the head is one that no class of `transformers`
# has. AutoModel reads the body all the same; a pipeline would fall back on a class that it finds
# under the name that is there.
OWN_HEAD = "LangueHeadOn"
# tokens that a tokenizer may have beyond the embedding, as bart-large-cnn's and Gemma 3's do, for
# no text
SPARE = 16
# each is drawn up apart, and so is every expert of each; 12,032 are the most published here
MOST_LAYERS = 2**15

# What ends and begins a text: config.json says it where generation_config.json does not.
GENERATION = ("eos_token_id", "decoder_start_token_id")
LISTS = ("bad_words_ids", "suppress_tokens")


@dataclass(frozen=True)
class Checkpoint:
    """A published model, read."""

    folder: Path
    family: Family
    config: ModelConfig
    task: dict[str, Any] | None  # langue.json of a run of ours
    weights: dict[str, Tensor]  # "body.*" and "head.*"
    tokenizer: Tokenizer
    published: dict[str, Any] = field(default_factory=dict)  # config.json as it was
    writes: dict[str, Any] = field(default_factory=dict)  # as a Description's
    # matrices as the file has them, where that was asked for; in `weights` tensors of their shapes
    # stand for them
    stored: "dict[str, AnyWeight]" = field(default_factory=dict)
    # as a Description's: what it was asked for by, the file of another format, and the adapter that
    # is worked into the weights
    name: str = ""
    original: Path | None = None
    adapter: Path | None = None

    @cached_property
    def generation(self) -> GenerationConfig:
        """How it generates text; ModelError where its generation_config.json cannot be followed."""
        vocabulary = self.config.decoder_vocab_size or self.config.vocab_size
        where = str(self.folder / FILE)
        return read_generation(self.writes, self.published, vocabulary, where)

    def generation_in(self, tokenizer: Tokenizer, target: str | None = None) -> GenerationConfig:
        """The same, with the tokens that a decoder starts with and writes first: those of the
        language `target`; else what the model's config says, or, where it says nothing, the
        tokenizer's.
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
        """The tokens that end a text: those of its config, and its tokenizer's."""
        token = self.tokenizer.end
        return self.generation.end | (frozenset() if token is None else frozenset([token]))

    @property
    def pad(self) -> int | None:
        """The token that fills up batches elsewhere; a text's end is before it. None where nothing
        says one.
        """
        token = self.published.get("pad_token_id")
        if type(token) is int:
            return token
        token = self.tokenizer.padding
        return token if token is not None and token < self.config.vocab_size else None

    @property
    def batch_pad(self) -> int | None:
        """The token that fills up batches elsewhere once the model is saved: where none is said,
        another stands in.
        """
        if self.pad is not None:
            return self.pad
        token = _pad_of(self.tokenizer, self.published)
        return token if token is not None and token < self.config.vocab_size else None

    @property
    def start(self) -> int:
        """The token that an encoder-decoder's target begins with."""
        return self.generation.start


@contextmanager
def naming_causes(*folders: Path) -> Iterator[None]:
    """Of an error in reading these, where they show what it comes from, that is said."""
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
    """The local folder of a model: itself, or a snapshot of the Hub's. patterns: of the
    files that are fetched in the place of the model; weights: whether those are needed too.
    """
    folder = Path(os.path.expanduser(name))  # `~nobody` stays what it is
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
    """Whether a config.json of the Hub's kind is there, so that no weights need be seen to know
    what the model is.
    """
    return (folder / "config.json").is_file() and "model_type" in _object(folder / "config.json")


@dataclass(frozen=True)
class Description:
    """What a model folder says of itself, before any weight is read."""

    folder: Path
    published: dict[str, Any]  # config.json
    task: dict[str, Any] | None  # langue.json, in a run of ours
    # generation_config.json, or config.json's part
    writes: dict[str, Any] = field(default_factory=dict)
    original: Path | None = None  # the file of a model in a format other than the Hub's
    reader: "FormatReader | None" = None  # what reads it
    name: str = ""  # what it was asked for by
    # the folder of an adapter, of which all else here is what the base says; and that alone
    adapter: Path | None = None
    base: "Description | None" = None
    # whether it is of a model that also reads images, of which this is the text side
    of_images: bool = False

    @property
    def told(self) -> Path:
        """The folder that was asked for: of the adapter where it is one."""
        return self.folder if self.adapter is None else self.adapter


class FormatReader(Protocol):
    """A module that reads a file format of others as a checkpoint of the Hub's names.

    weights_dtype: what tensors are held in (None: what they came in); what is more than the file's
    own pages is held in it from the first.
    """

    def find(self, path: Path) -> Path | None: ...
    def read_config(self, file: Path) -> dict[str, Any]: ...
    def read_weights(self, file: Path, weights_dtype: torch.dtype | None) -> dict[str, Tensor]: ...
    def read_tokenizer(self, file: Path) -> Tokenizer: ...


def _find_format(path: Path) -> tuple[FormatReader, Path] | None:
    """The file that `path` is or that lies in it, and what reads it."""
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
    """weights: whether they will be read, so that they are fetched too where the model is the
    Hub's.
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
    """What an adapter's base says, and the adapter of its task."""
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
    """Whether it has a config.json of the Hub's kind; Keras has one of its own, beside weights of
    another name.
    """
    if not (path / "config.json").is_file():
        return False
    if not (path / "model.weights.h5").is_file():
        return True
    from langue.hub.originals import keras

    return keras.find(path) is None


def classes_of(published: Mapping[str, Any]) -> list[str]:
    """The classes of `transformers` that a config names; of a head of ours, the one of its body."""
    return [str(name).removeprefix(OWN_HEAD) for name in published.get("architectures") or []]


def _object(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=str(file))
    return content


def _named(published: dict[str, Any]) -> dict[str, Any]:
    """The config with its `model_type`, which the oldest ones leave to be read from their class."""
    classes = {*classes_of(published)}
    kind = published.get("model_type")
    # the family that is named first: the others need not be imported
    names = [kind, *FAMILIES] if isinstance(kind, str) and kind in FAMILIES else [*FAMILIES]
    for name in names:
        if classes & {*FAMILIES[name].architectures.values()}:
            return {"model_type": name} | published
    return published


def family_of(described: Description) -> tuple[Family, ModelConfig]:
    """The family that a config names, and the config as ours."""
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
        # a mask that its class would not draw otherwise
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
    """ModelError where the config claims what no model has, before anything is drawn up or computed
    for it.
    """
    claims = {name: value for name, value in config.to_dict().items() if type(value) is int}
    claims["heads times their width"] = config.n_heads * config.head_dim
    if config.position.startswith("sinusoidal"):  # a table that no file holds
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
    """Whether matrices are of whole numbers, which a model can be held in. Those of MXFP4 are not:
    they are widened as they are read.
    """
    said = published.get("quantization_config")
    return said is not None and not (isinstance(said, dict) and said.get("quant_method") == MXFP4)


def layers_in(config: ModelConfig) -> int:
    """Of both sides, and a mixture's counted again for every expert."""
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
    """rows: where the Weights of a file are kept; None: they are read as fp32 matrices, or in the
    dtype that is wanted.
    """
    reader = described.reader
    original = described.original
    if reader is not None and original is not None:
        # of a format that has matrices of whole numbers
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
    """Read a model folder. `head`: which head's weights to take where they are there ("sequence",
    "token", "span", "lm"); `pairs`: those too that say of two parts whether the second follows;
    `weights_dtype`: the precision that they are held in; `stored`: matrices that the file has as
    whole numbers are kept so, in the checkpoint's `stored`; `widen`: its tokenizer may have any
    number of tokens beyond the embedding, which is about to get rows for them.
    """
    folder = described.folder
    family_of(described)  # what is not known at all is said before what its files lack
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
    """The adapter that a description is of; ModelError where it is of another base, or its base is
    not what it was.
    """
    from langue.hub import adapters

    assert described.adapter is not None
    family, _ = family_of(described)
    _check_base(described)
    said = adapters.read_config(described.adapter)
    tensors = adapters.read_tensors(described.adapter, family)
    return adapters.make_adapter(described.adapter, said, tensors, family, config, head)


def _check_base(described: Description) -> None:
    """ModelError where an adapter of ours says what its base was, and it is something else now."""
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
    """Work an adapter into the weights of its base, which are widened where they are held in few
    bits.
    """
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
    """The Weights of matrices that stand as the numbers of their rows, which give way in `weights`
    to tensors of their shapes that take no memory. What no use of ours needs is taken as fp32.
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
    """Before a network of the config's sizes is made for them."""
    for name, size in parameters(config).items():
        if name.startswith("body.") and name in weights and weights[name].shape != size:
            raise ModelError(
                f"{name} has shape {[*weights[name].shape]} and the config asks for {[*size]}"
            )


def without_extra(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without those that are only kept for saving."""
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
    """Put weights into a module, shapes checked. Names starting with `new` may be absent; returns
    those that were. trained: those that are not frozen, and no others.

    copy=False: the tensors themselves become the parameters, so that no second copy is held; for a
    module that may have been drawn up on the meta device, and is not trained in a way that the
    file's mapped pages would mind.
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
    """config.json, model.safetensors and the tokenizer, as `transformers` reads them. `folder` must
    exist. published and writes: a Description's; stored: matrices of whole numbers, under the
    names that `weights` would have them by.
    """
    published = published or {}
    # A head that is not known here goes along with its class, so that others read it as before.
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
                # scales are float16: as bfloat16 they would be rounded
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
    with atomic_file(folder / "model.safetensors") as temporary:  # which others may read, too
        save_file(plain, str(temporary), metadata={"format": "pt"})
    tokenizer.save(folder)
    write_tokenizer_config(folder, tokenizer, described, config)


def _pad_of(tokenizer: Tokenizer, published: Mapping[str, Any]) -> int | None:
    """The token that fills up batches, where a config names none."""
    name = padding_token(tokenizer, published)
    return None if name is None else tokenizer.backend.token_to_id(name)

"""Convert a model in any supported layout to a folder in the Hub's layout, or to a GGUF file."""

from pathlib import Path

import torch

from langue.errors import ModelError, SettingsError
from langue.hub.checkpoint import describe
from langue.hub.originals import gguf_model
from langue.progress import warn
from langue.runs.model import Model, load_plain

FOLDER_TYPES = ("fp32", "bf16")


def convert(
    model: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    revision: str | None = None,
    merge: bool = False,
    widen: bool = False,
) -> Path:
    """Convert a model to a folder that `transformers` reads, or to a GGUF file for llama.cpp.

    model: a Hub name, a folder, a run, or a llama2.c or GGUF file.
    out: the folder to write or, if the name ends in .gguf, the file.
    dtype: of matrices, fp32 (default) or bf16 for a folder; f16 (default), q8_0 or f32 for a GGUF
        file.
    revision: a branch, tag or commit on the Hub.
    merge: merge an adapter into the weights of its base.
    widen: add embedding rows for tokens that were added to the tokenizer, each the mean of all
        rows.

    Returns the path of the output. Raises SettingsError for an unknown dtype, and ModelError if the
    output exists or the format cannot express the model.
    """
    path = Path(out)
    as_file = path.suffix.lower() == gguf_model.SUFFIX
    if dtype is not None and dtype not in (gguf_model.FILE_TYPES if as_file else FOLDER_TYPES):
        known = (
            f"a folder is {' or '.join(FOLDER_TYPES)}, a .gguf {', '.join(gguf_model.FILE_TYPES)}"
        )
        raise SettingsError(
            f"dtype = {dtype!r} is none of what is written here", do=f"known: {known}"
        )
    if as_file and path.exists():
        raise ModelError("the file exists", where=str(path), do="choose another")
    described = describe(model, revision, weights=False)
    if described.adapter is None and merge:
        raise SettingsError(f"{model} is no adapter: there is nothing to merge", do="leave it out")
    if described.adapter is not None and not merge:
        raise ModelError(
            f"{model} is an adapter of {described.folder}, and no model by itself",
            do="work it into the weights of its base with --merge",
        )
    held = ((described.task or {}).get("base") or {}).get("weights")
    if held not in (None, "fp32"):
        warn(
            f"the adapter was trained beside its base in {held}, and is merged into the base as it"
            " was published: what it gives differs by what the base had lost"
        )
    loaded = load_plain(model, revision, "fp32" if as_file else dtype or "fp32", widen)
    if as_file:
        _write_gguf(loaded, path, dtype or "f16")
    else:
        loaded.save(path)
    return path


def _write_gguf(model: Model, path: Path, dtype: str) -> None:
    if model.language is None:
        raise ModelError(
            "the model has no language-model head, and a GGUF file is of one that writes",
            where=str(model.checkpoint.folder),
        )
    weights: dict[str, torch.Tensor] = {f"body.{n}": w for n, w in model.body.named_parameters()}
    gguf_model.save(
        path,
        family=model.checkpoint.family,
        config=model.config,
        weights=weights | dict(model.language.named_parameters()),
        tokenizer=model.tokenizer,
        published=model.checkpoint.published,
        dtype=dtype,
    )

"""What arrives: a model in any layout that loads. What leaves: a folder in the Hub's layout, or a GGUF file."""

from pathlib import Path

import torch

from langue.errors import ModelError, SettingsError
from langue.hub import gguf_models
from langue.verbs.model import Model, load


def convert(model: str | Path, out: str | Path, *, dtype: str | None = None, revision: str | None = None) -> Path:
    """Write `model` (a Hub name, a folder, a run, a llama2.c or GGUF file) to `out`: a folder as `transformers` reads
    it, or, where its name ends in .gguf, a file as llama.cpp does, in `dtype` (f16 unless told otherwise)."""
    path = Path(out)
    as_file = path.suffix.lower() == gguf_models.SUFFIX
    if dtype is not None and not (as_file and dtype in gguf_models.FILE_TYPES):
        raise SettingsError(
            f"dtype = {dtype!r} is not known" if as_file else "dtype is of GGUF files, and a folder is to be written",
            do=f"known: {', '.join(gguf_models.FILE_TYPES)}" if as_file else "let the name end in .gguf",
        )
    if as_file and path.exists():
        raise ModelError("the file exists", where=str(path), do="choose another")
    loaded = load(model, revision)
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
    gguf_models.save(
        path,
        family=model.checkpoint.family,
        config=model.config,
        weights=weights | dict(model.language.named_parameters()),
        tokenizer=model.tokenizer,
        published=model.checkpoint.published,
        dtype=dtype,
    )

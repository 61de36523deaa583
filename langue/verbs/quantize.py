"""Quantise a model's matrices, write it to a folder, and report the loss of quality."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from langue.compress.matrix_errors import matrix_errors
from langue.data.corpus.reader import Corpus
from langue.errors import ModelError, SettingsError
from langue.model.language_model import LanguageModel
from langue.runs.corpora import Pretraining
from langue.runs.judge_language import as_corpus, judged
from langue.runs.model import Model, load_for_folder, load_plain
from langue.runs.notebook import Result
from langue.runs.save import refuse_filled
from langue.runs.show_quantized import print_quantized
from langue.runs.train_tokenizer import as_list
from langue.settings.sections import PRETRAINING, resolve
from langue.tasks import OBJECTIVES
from langue.text.read.documents import Reading

FOLDER_KINDS = ("int8", "int4")
LONGEST = 1024  # tokens of the blocks of text on which the model is evaluated


def quantize(
    model: str | Path,
    out: str | Path,
    *,
    weights: str = "int8",
    data: Any = None,
    columns: Mapping[str, str] | None = None,
    revision: str | None = None,
) -> Result:
    """Quantise the linear maps of a model to int8 or int4, and write it to a folder.

    model: what `load` accepts.
    out: the folder to write.
    weights: int8 or int4.
    data: text on which the perplexity of a decoder is measured before and after.
    columns: our names -> names in the data.
    revision: a branch, tag or commit on the Hub.

    The embeddings, the output matrix and matrices that do not divide into groups of 32 are written
    in bf16. Returns the error of each matrix, the bytes before and after, and the perplexities.
    Raises SettingsError for other weights, and ModelError if the model is already quantised, is an
    encoder and weights is int4, or cannot predict `data`.
    """
    if weights not in FOLDER_KINDS:
        raise SettingsError(
            f"weights = {weights!r} is none of what a folder is quantised to", do="int8 or int4"
        )
    refuse_filled(out)
    after = load_for_folder(model, revision, weights)
    before = load_plain(model, revision)
    whole = before.language or before.network or before.body
    held = after.language or after.network or after.body
    errors = matrix_errors(whole, held)
    names = {error.name for error in errors}
    changed = sum(w.nbytes for n, w in whole.named_parameters() if n[: -len(".weight")] in names)
    kept = sum(weight.nbytes for weight in held.parameters())
    found: dict[str, Any] = {
        "out": str(out),
        "weights": weights,
        "matrices": [asdict(error) for error in errors],
        "bytes_before": changed + kept,
        "bytes_after": sum(error.nbytes for error in errors) + kept,
        "perplexity": None,
    }
    if data is not None:
        _check_predicts(before)
        with as_corpus(
            as_list(data), before.tokenizer, Reading(columns or {}, only="test")
        ) as text:
            found["perplexity"] = {
                "documents": text.n_documents,
                "tokens": text.n_tokens,
                "before": _perplexity(before, text),
                "after": _perplexity(after, text),
            }
    after.save(out)
    return Result(found, print_quantized)


def _check_predicts(model: Model) -> None:
    if model.language is None or model.config.architecture != "decoder":
        raise ModelError(
            f"an {model.config.architecture} has no perplexity"
            if model.language is not None
            else "a model without a language-model head has no perplexity",
            where=str(model.checkpoint.folder),
            do="leave --data out: the errors of the matrices are told all the same",
        )


@torch.no_grad()
def _perplexity(model: Model, text: Corpus) -> float:
    """Return the perplexity of all documents; each token is predicted from those before it in its
    block.
    """
    kind = next(each for each in OBJECTIVES.values() if each.architecture == "decoder")
    length = min(LONGEST, model.config.longest)
    chosen = {"data.seq_len": length, "train.precision": "fp32"}
    settings = resolve(PRETRAINING, kind.tokenizer_defaults, chosen, options=kind.Options)
    objective = kind(model.tokenizer, settings.task)
    prepared = Pretraining(
        task=objective, checkpoint=model.checkpoint, settings=settings, train=text, dev=text
    )
    assert isinstance(model.language, LanguageModel)
    metrics, _, _ = judged(prepared, model.language)
    value = metrics["perplexity"]
    assert isinstance(value, float)
    return value

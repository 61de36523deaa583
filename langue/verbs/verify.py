"""Check that a model loads and computes what its authors published.

This finds the cause if a model loads but generates gibberish. Every weight is used exactly once,
none is left over, and all are finite; the output matrix is tied or not, as the config says; the
tokenizer's ids lie within the embedding, and texts survive encoding and decoding. Tokens and logits
are compared with those of `transformers`, if it is installed, or with those that were stored where
it was.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from langue.errors import LangueError
from langue.files import refuse_existing
from langue.hub.checkpoint import describe, without_extra
from langue.runs.model import Model, load_plain
from langue.runs.notebook import Result
from langue.runs.reference import (
    GOLDEN,
    TOLERANCE,
    answers,
    compare_numbers,
    compare_tokens,
    distance,
    probes,
    refuse_missing,
    store_reference,
    tokens,
)
from langue.runs.show import print_checks

MARKS = 32  # number of a tokenizer's added tokens that are tried


def verify(
    model: str | Path,
    *,
    revision: str | None = None,
    reference: str | Path | None = None,
    store: str | Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Check a model, and return `{"model", "ok", "checks": [{"check", "ok", "detail"}]}`.

    model: a Hub name, folder or run.
    revision: a branch, tag or commit on the Hub.
    reference: a file that `store` wrote for the same model elsewhere, with which this one is
        compared.
    store: a file for the model's tokens and numbers, written if no check fails. force: replace it.

    A check that is impossible here has ok None. Raises ModelError if there is no such model; other
    errors are reported as failed checks.
    """
    checks: list[dict[str, Any]] = []

    def check(name: str, make: Callable[[], tuple[bool | None, str]]) -> None:
        try:
            ok, detail = make()
        except LangueError as error:
            ok = False
            detail = str(error)
        checks.append({"check": name, "ok": ok, "detail": detail})

    refuse_existing(store, force)
    if reference is not None:
        refuse_missing(Path(reference))
    # Without a model there is nothing to check: let the error reach the caller.
    describe(model, revision, weights=False)
    loaded: list[Model] = []

    def loads() -> tuple[bool, str]:
        loaded.append(load_plain(model, revision))
        weights = without_extra(loaded[0].checkpoint.weights)
        return True, f"{len(weights)} weights, each used once"

    check("weights", loads)
    for ready in loaded:
        check("finite", partial(_finite, ready))
        check("tying", partial(_tying, ready))
        check("tokenizer", partial(_tokenizer, ready))
        check("tokenizer's files", partial(_tokenizer_files, ready))
        if reference is not None:
            check("tokens beside the reference", partial(compare_tokens, ready, Path(reference)))
            check("numbers beside the reference", partial(compare_numbers, ready, Path(reference)))
        if ready.checkpoint.adapter is not None:
            detail = "an adapter, whose base alone transformers reads: merge it, and verify that"
            checks.append({"check": "reference", "ok": None, "detail": detail})
        elif (
            find_spec("transformers") is None
            or not (ready.checkpoint.folder / "config.json").is_file()
        ):
            checks.append(
                {
                    "check": "reference",
                    "ok": None,
                    "detail": "transformers is not here, or cannot read it",
                }
            )
        else:
            check("tokens beside transformers", partial(_same_tokens, ready))
            check("logits beside transformers", partial(_same_logits, ready))
    ok = all(each["ok"] is not False for each in checks)
    if store is not None:
        if ok:
            store_reference(loaded[0], Path(store))
        checks.append(
            {
                "check": "stored",
                "ok": ok or None,
                "detail": str(store) if ok else "not, since checks failed",
            }
        )
    return Result({"model": str(model), "ok": ok, "checks": checks}, print_checks)


def _finite(model: Model) -> tuple[bool, str]:
    odd = [
        name
        for name, w in without_extra(model.checkpoint.weights).items()
        if not bool(torch.isfinite(w.float()).all())
    ]
    return (
        not odd,
        f"not finite: {', '.join(odd[:3])}" if odd else "no weight is infinite or not a number",
    )


def _tying(model: Model) -> tuple[bool | None, str]:
    if model.lost_head is not None:
        return False, f"weights of the head missing that {model.lost_head} has"
    if model.language is None:
        what = (
            "a body alone" if model.task is None else f"a body and what it is to {model.task.name}"
        )
        return True, f"{what}, without an output matrix"
    found = "tied to the embedding" if model.config.tied else "a matrix of its own"
    said = model.checkpoint.published.get("tie_word_embeddings", model.config.tied)
    if said != model.config.tied:
        return (
            None,
            f"the config says otherwise, but the file's output is {found}; the file is followed",
        )
    return True, f"the output is {found}, as the config says"


def _tokenizer(model: Model) -> tuple[bool | None, str]:
    ids = tokens(model)
    highest = max(max(each, default=0) for each in ids)
    if highest >= model.config.vocab_size:
        return False, f"token {highest} is beyond the embedding's {model.config.vocab_size} rows"
    vocabulary = model.tokenizer.backend.get_vocab(with_added_tokens=True)
    beyond = [token for token, at in vocabulary.items() if at >= model.config.vocab_size]
    if beyond:
        return (
            None,
            f"{len(beyond):,} of its {len(model.tokenizer):,} tokens, as {min(beyond)}, are beyond"
            f" the embedding's {model.config.vocab_size:,} rows: a text that holds one is an error;"
            " langue convert MODEL OUT --widen gives them rows",
        )
    back = sum(
        model.tokenizer.decode(each).strip() == text.strip()
        for each, text in zip(ids, GOLDEN, strict=True)
    )
    within = (
        f"{len(model.tokenizer):,} tokens, none beyond the embedding's {model.config.vocab_size:,}"
        " rows"
    )
    return True, f"{within}; {back} of {len(GOLDEN)} awkward texts come back letter for letter"


def _tokenizer_files(model: Model) -> tuple[bool | None, str]:
    """Report contradictions between the tokenizer's files; they are no failure, and each says what
    is used.
    """
    notes = model.tokenizer.notes
    return (None, "; ".join(notes)) if notes else (True, "they do not contradict each other")


def _same_tokens(model: Model) -> tuple[bool | None, str]:
    from transformers import AutoTokenizer

    try:
        reference = AutoTokenizer.from_pretrained(model.checkpoint.folder)
        # The tokenizer's own added tokens within a text, which are easily lost.
        texts = [
            *GOLDEN,
            *(f"a {name} b{name}c" for name in sorted(reference.get_added_vocab())[:MARKS]),
        ]
        theirs = [reference(text)["input_ids"] for text in texts]
    except Exception as error:  # any error here is the reference's own
        return None, f"transformers does not read this tokenizer ({type(error).__name__})"
    ours = [encoding.ids for encoding in model.tokenizer.encode_batch(texts)]
    wrong = [text for text, mine, their in zip(texts, ours, theirs, strict=True) if mine != their]
    return (
        not wrong,
        f"{wrong[0]!r} differs" if wrong else f"{len(texts)} awkward texts have the same tokens",
    )


def _same_logits(model: Model) -> tuple[bool | None, str]:
    """Compare our logits of a batch with those of `transformers` for single sequences; hidden
    states if there is no head, or none in `transformers`.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    head = _their_head(model)
    family = model.checkpoint.family
    stem = family.body_class(model.config) if head == "body" else family.architectures[head]
    try:
        reference = (
            getattr(transformers, stem)
            .from_pretrained(model.checkpoint.folder, dtype=torch.float32)
            .eval()
        )
    except Exception as error:  # for example for files of a framework that it no longer reads
        return None, f"transformers does not read this model ({type(error).__name__})"
    both = model.config.architecture == "encoder-decoder" and head == "lm"
    worst = 0.0
    ids = probes(model)
    for mine, each in zip(
        model.hidden(ids) if head == "body" else answers(model), ids, strict=True
    ):
        tensor = torch.tensor([each])
        with torch.no_grad():
            whole = (
                reference.get_encoder() if model.config.decoder_layers and not both else reference
            )
            out = whole(tensor, **({"decoder_input_ids": tensor} if both else {}))
        worst = max(
            worst,
            distance(mine, (out.last_hidden_state if head == "body" else out.logits)[0].numpy()),
        )
    return (
        worst <= TOLERANCE,
        f"relative difference of {'hidden states' if head == 'body' else 'logits'} {worst:.1e}",
    )


def _their_head(model: Model) -> str:
    """Return the kind of the published class that has the model's own head, or "body" if there is
    none.
    """
    if model.task is not None:
        kind = model.task.head_kind(model.checkpoint.family)
        if kind is not None and kind in model.checkpoint.family.heads:
            return kind
    return "body" if model.language is None else "lm"

"""What arrives: a model's name. What leaves: whether it loads and means what was published, check
by check.

The answer to "it loads but speaks gibberish": every weight used once, none left over, all finite,
tied or not as the config says; the tokenizer's tokens within the embedding, and its texts coming
back; and, where `transformers` is installed, its tokens and its logits beside ours; or those that
were stored where it was.
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

MARKS = 32  # of a tokenizer's added tokens, so many are tried


def verify(
    model: str | Path,
    *,
    revision: str | None = None,
    reference: str | Path | None = None,
    store: str | Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """`{"model", "ok", "checks": [{"check", "ok", "detail"}]}`. A check that cannot be made here
    has ok None.

    store: the file that what the model gives is kept in, where no check fails; reference: such a
    file, of the same model elsewhere, which this one is held against. force: replace the file that
    store names.
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
    # Where there is no model, there is nothing to check: the error is the caller's.
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
    """Contradictions are told, and are no fault: what is followed is said with each."""
    notes = model.tokenizer.notes
    return (None, "; ".join(notes)) if notes else (True, "they do not contradict each other")


def _same_tokens(model: Model) -> tuple[bool | None, str]:
    from transformers import AutoTokenizer

    try:
        reference = AutoTokenizer.from_pretrained(model.checkpoint.folder)
        # Its own tokens, as they stand in a text: those that are added are easily lost.
        texts = [
            *GOLDEN,
            *(f"a {name} b{name}c" for name in sorted(reference.get_added_vocab())[:MARKS]),
        ]
        theirs = [reference(text)["input_ids"] for text in texts]
    except Exception as error:  # whatever it raises, it is the reference's own trouble
        return None, f"transformers does not read this tokenizer ({type(error).__name__})"
    ours = [encoding.ids for encoding in model.tokenizer.encode_batch(texts)]
    wrong = [text for text, mine, their in zip(texts, ours, theirs, strict=True) if mine != their]
    return (
        not wrong,
        f"{wrong[0]!r} differs" if wrong else f"{len(texts)} awkward texts have the same tokens",
    )


def _same_logits(model: Model) -> tuple[bool | None, str]:
    """Sequences one at a time there and together here; hidden states where there is no head, or
    none of theirs.
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
    except Exception as error:  # such as for the files of a framework that it no longer reads
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
    """Which of the family's classes gives the numbers of the model's own head; "body" where none
    does.
    """
    if model.task is not None:
        kind = model.task.head_kind(model.checkpoint.family)
        if kind is not None and kind in model.checkpoint.family.heads:
            return kind
    return "body" if model.language is None else "lm"

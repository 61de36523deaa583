"""Evaluation of language models: takes a language model and unseen text; returns how well it
predicts the text, with an n-gram model of the same tokens as the baseline.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from langue.data.corpus.builder import Building
from langue.data.corpus.builder import build as build_corpus
from langue.data.corpus.reader import Corpus, is_corpus
from langue.data.corpus.split import SplitAssignment
from langue.errors import RunError
from langue.evaluation import report
from langue.evaluation.curves import Curves
from langue.evaluation.facts import sections_of_facts
from langue.evaluation.judge import Verdict, began, better_than_baseline
from langue.files import in_use, sha256
from langue.hub.checkpoint import Description, classes_of, family_of, read_checkpoint
from langue.model.language_model import LanguageModel
from langue.progress import bar, say
from langue.runs.corpora import (
    Pretraining,
    given_corpus,
    notes_on_held_out,
    notes_on_text,
    same_tokens,
)
from langue.runs.folder import CORPUS, changed_data
from langue.runs.prepare import Prepared, build
from langue.runs.samples import SHOWN, Samples, samples
from langue.runs.train_tokenizer import as_list, total_size
from langue.runtime import device, precision
from langue.settings.recipe import split_recipe
from langue.settings.sections import PRETRAINING, resolve
from langue.statistics.compare import compare_documents, outcome
from langue.statistics.kneser_ney import baseline
from langue.tasks import OBJECTIVES, OPTIONS
from langue.tasks.judgement import Example, Examples, Highlight, Passage
from langue.tasks.language import DocumentLosses, HeldOutSet, LanguageObjective, scores
from langue.tasks.objective import Metrics
from langue.text.read.documents import Reading, open_texts
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.wording import counted, span

MOST = 20_000_000  # maximum number of tokens from which the n-gram model is counted
# order of the n-grams; vocabularies of at most SMALL tokens, such as characters and bytes, use LONG
ORDER = 5
LONG = 7
SMALL = 512
PIECE = 1024  # maximum chunk length, in tokens, for published models with a longer context


def judge_text(
    prepared: Prepared,
    network: nn.Module,
    log: list[dict[str, Any]],
    seconds: float,
    tokens: int,
) -> tuple[report.Page, Curves]:
    """Evaluate a run on all of its held-out text; tokens: number of tokens seen in training."""
    assert isinstance(prepared, Pretraining) and isinstance(network, LanguageModel)
    metrics, intervals, of_documents = judged(prepared, network)
    few = notes_on_held_out(prepared.train.n_documents, prepared.dev.n_documents)
    content: dict[str, Any] = {
        "split": "dev",
        "examples": prepared.dev.n_documents,
        "metrics": metrics,
        "intervals": intervals,
        "baseline": baseline_of(prepared, of_documents),
        "seconds": round(seconds, 3),
        **_before(log, prepared.facts),
    }
    on_text = notes_on_text(prepared.dev, prepared.task)
    content["notes"] = [*few, *on_text, *notes(prepared, content, tokens)]
    beside = (content["baseline"] or {}).get("metrics", {})
    written = samples(prepared, network)
    curves = Curves(log, baseline=beside, baseline_split="dev")
    page = report.Page(
        title=prepared.facts["title"],
        about={
            **about_run(prepared.facts, curves, seconds),
            "judged on": f"{counted(content['examples'], 'document')} that training has not read",
        },
        verdict=_verdict(content),
        notes=content["notes"],
        summary=content,
        sections=[
            what_it_writes(written, SHOWN[prepared.task.architecture]),
            *sections_of_facts(prepared.facts),
        ],
        settings=prepared.settings.model_dump(),
    )
    return page, curves


def about_run(facts: Mapping[str, Any], curves: Curves, seconds: float) -> dict[str, str]:
    """Return the origin of a run, and which of its steps was kept."""
    about = {"model": facts["model"], "data": facts["data"]}
    if facts["command"]:
        about["command"] = facts["command"]
    about["training"] = f"{counted(curves.last_step(), 'step')} in {span(seconds)}"
    kept = curves.kept_step()
    if kept is not None:
        about["kept"] = f"step {kept:,}, the best on dev"
    return about


def evaluate_text(
    run: Description,
    recipe: Mapping[str, Any],
    *,
    data: Any,
    split: str | None,
    columns: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Evaluate as at the end of training, with the run's objective and chunk length; a published
    model with the objective of its architecture, and chunks of its context length, at most PIECE.

    data: None, a corpus, or text. split: test or None is what was held out (dev if there is no
    other), and all of a text that has no splits.
    """
    began = time.perf_counter()
    split = split or "test"
    named, own, words = split_recipe(recipe)
    kind, length = _objective_of(run)
    if run.task is None and data is None:
        raise RunError(
            "a published model has no text of its own to be judged on",
            where=run.name,
            do="name text that it has not seen with --data",
        )
    settings = resolve(
        PRETRAINING,
        kind.tokenizer_defaults,
        {"data.seq_len": length},
        words,
        options=kind.Options,
        elsewhere=OPTIONS,
    )
    # an adapter is evaluated together with the weights of its base, as in training
    whole = run if run.base is None else run.base
    settings = settings.model_copy(
        update={"model": settings.model.model_copy(update={"adapter": None})}
    )
    checkpoint = read_checkpoint(whole, head="lm", pairs=kind.learns_pairs(settings.task))
    tokenizer = checkpoint.tokenizer
    objective = kind(tokenizer, settings.task, seed=settings.train.seed)
    objective.vocabulary = min(objective.vocabulary, checkpoint.config.vocab_size)

    pieces = (
        []
        if run.task is not None
        else [f"read in pieces of at most {length:,} tokens, each without those before it"]
    )

    def scored(text: Corpus, split: str) -> dict[str, Any]:
        prepared = Pretraining(
            task=objective, checkpoint=checkpoint, settings=settings, train=text, dev=text
        )
        network = build(prepared)
        if run.adapter is not None:
            from langue.runs.adapters import with_adapter

            network = with_adapter(network, run, checkpoint)
        network = network.to(device())
        assert isinstance(network, LanguageModel)
        metrics, intervals, _ = judged(prepared, network)
        few = notes_on_held_out(0, text.n_documents)
        return {
            "split": split,
            "examples": text.n_documents,
            "metrics": metrics,
            "intervals": intervals,
            "notes": [*few, *notes_on_text(text, objective), *pieces],
            "baseline": None,
            "seconds": round(time.perf_counter() - began, 3),
        }

    given = _own_corpus(run.told, named.get("data")) if data is None else data
    if (corpus := given_corpus(given)) is not None:
        split = {"test": "dev"}.get(split, split)
        with in_use(corpus):
            text = Corpus.open(corpus, split)
            same_tokens(text.tokenizer, tokenizer, corpus)
            with bar("reading checksums", 1) as advance:
                text.verify()
                advance(1)
            return scored(text, split)
    reading = Reading.of(settings.data, columns or own, only=split)
    with as_corpus(as_list(data), tokenizer, reading) as text:
        return scored(text, "the text" if split == "test" else split)


def is_language_model(run: Description) -> bool:
    """Return whether a run is evaluated as a language model: a pretraining run, or a published
    model with a language-model head.
    """
    if run.task is not None:
        return "objective" in run.task
    family, config = family_of(run)
    return run.original is not None or family.has_lm_head(config, classes_of(run.published))


def _objective_of(run: Description) -> tuple[type[LanguageObjective], int]:
    """Return the objective of the run, or one for its architecture, and the chunk length in
    tokens.
    """
    if run.task is not None:
        return OBJECTIVES[run.task["objective"]], run.task["data"]["max_length"]
    config = family_of(run)[1]
    fitting = (each for each in OBJECTIVES.values() if each.architecture == config.architecture)
    return next(fitting), min(PIECE, config.longest)


def _own_corpus(run: Path, named: Any) -> Path:
    """Return the corpus that the run was trained on; raise RunError if it is missing or has
    changed.
    """
    given = [each for each in as_list(named) if isinstance(each, str)] if named else []
    looked = [run / "corpus", *(Path(each).absolute() for each in given)]
    folder = next((each for each in looked if is_corpus(each)), None)
    if folder is None:
        raise RunError(
            f"its corpus is not there any more, neither at {' nor at '.join(map(str, looked))}",
            where=str(run),
            do=(
                "judge it from the folder in which it was trained, or name text to judge on with"
                " --data"
            ),
        )
    if changed_data(run, {CORPUS: sha256(folder / "corpus.json")}):
        raise RunError(
            "its corpus is not what it was, so that what is held out today may be what it was"
            " trained on",
            where=str(folder),
            do="put the corpus back, or name text that it has not seen with --data",
        )
    return folder


@contextmanager
def as_corpus(named: list[Any], tokenizer: Tokenizer, reading: Reading) -> Iterator[Corpus]:
    """Tokenize the text, or one split of it, into a temporary corpus."""
    notes: list[str] = []
    texts = open_texts(named, reading, notes)
    for note in notes:
        say(note)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "corpus"
        with bar("text to tokens", total_size(texts)) as advance:
            build_corpus(
                Building(texts, tokenizer, reading, SplitAssignment(fraction=0)),
                out,
                progress=advance,
            )
        yield Corpus.open(out)


def what_it_writes(made: Samples, note: str) -> Examples:
    """Return samples as a section of the report, in which prompts are less prominent than generated
    text.
    """
    rows = [
        Example([Passage(given + written, [Highlight(0, len(given), kind="given")])])
        for given, written in made
    ]
    return Examples("What it writes", (), rows, note=note)


def _verdict(content: Mapping[str, Any]) -> Verdict | None:
    """Return whether the model is better than its n-gram baseline, if the two were compared."""
    sentence = better_than_baseline(content)
    return Verdict(outcome(content["baseline"]["comparison"]), sentence) if sentence else None


def judged(
    prepared: Pretraining, network: LanguageModel
) -> tuple[Metrics, dict[str, Any], DocumentLosses]:
    """Return the metrics on all held-out text, their intervals, and the losses of each document."""
    chosen = prepared.settings
    stream = prepared.task.stream(
        prepared.dev,
        block=chosen.data.seq_len,
        budget=max(chosen.train.batch_tokens, chosen.data.seq_len),
        seed=0,
    )
    held = HeldOutSet(stream)
    dtype = precision(chosen.train.precision)
    found = prepared.task.judge(network, held, device=device(), dtype=dtype)
    return *scores(prepared.task, held, found), found


def _before(log: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the model's metrics before its first step, if some of its weights were new and it was
    evaluated then.
    """
    first = next((line for line in log if line["split"] == "dev" and line["step"] == 0), None)
    if first is None or "new_weights" not in facts:
        return {}
    found = {name: first.get(name) for name in ("loss", "perplexity")}
    return {
        "before": {
            "new_weights": facts["new_weights"],
            **found,
            "uniform_loss": math.log(facts["vocabulary"]),
        }
    }


def notes(prepared: Pretraining, content: dict[str, Any], tokens: int) -> list[str]:
    """Return notes to read before the numbers; tokens: number of tokens seen in training."""
    facts = prepared.facts
    said = [sentence] if (sentence := began(content)) else []
    if (each := tokens / facts["parameters"]) < 5:
        said.append(
            f"The model saw {each:.1f} tokens for each of its parameters; about 20 make the best of"
            " a budget (Hoffmann et al. 2022, arXiv:2203.15556): a smaller model would learn more"
            " in that time."
        )
    times = (
        tokens / facts["tokens_per_epoch"] * max(weight for _, weight, *_ in prepared.train.sources)
    )
    if times > 4:
        said.append(
            f"It read the text {times:.1f} times; beyond four passes repeated text teaches ever"
            " less (Muennighoff et al. 2023, arXiv:2305.16264)."
        )
    baseline = content["baseline"] or {}
    if baseline.get("note"):
        said.append(f"The n-gram model: {baseline['note']}.")
    beside = baseline.get("metrics", {}).get("perplexity")
    own = content["metrics"]["perplexity"]
    if beside is not None and (own is None or beside < own):
        sure = own is None or outcome(baseline["comparison"]) == "worse"
        beaten = "beats it" if sure else "did better on the held-out text"
        said.append(
            f"The n-gram model {beaten}: it has not been trained for long enough, or is not"
            " learning."
        )
    return said


def baseline_of(prepared: Pretraining, of_documents: DocumentLosses) -> dict[str, Any] | None:
    """Return a Kneser-Ney n-gram model of the same tokens, for causal models only, and its
    comparison with the model on the held-out documents.
    """
    if prepared.task.architecture != "decoder":
        return None
    train, dev = (
        _whole(corpus, limit) for corpus, limit in ((prepared.train, MOST), (prepared.dev, 0))
    )
    with bar("baseline: n-grams", 1) as advance:
        end: int = prepared.task.end  # type: ignore[attr-defined]
        size = prepared.config.vocab_size
        order = ORDER if size > SMALL else LONG
        found = baseline(train, dev, vocab_size=size, eos=end, order=order, limit=MOST)
        advance(1)
    bits = (
        found.cross_entropy
        / math.log(2)
        * (len(dev[0]) + len(dev[1]) - 1)
        / max(1, prepared.dev.n_bytes)
    )
    bits += 8 * prepared.dev.lost_bytes / max(1, prepared.dev.n_bytes)
    metrics = {"loss": found.cross_entropy, "perplexity": found.perplexity, "bits_per_byte": bits}
    seen = f"counted on {len(train[0]):,} of {prepared.train.n_tokens:,} tokens"
    note = "; ".join(
        part
        for part in (seen if len(train[0]) < prepared.train.n_tokens else "", found.note)
        if part
    )
    comparison = compare_documents(
        (of_documents.losses, of_documents.counts), (found.document_losses, found.document_counts)
    )
    return {
        "name": found.name,
        "metrics": metrics,
        "seconds": round(found.seconds, 3),
        "note": note,
        "comparison": comparison.as_json() if comparison is not None else None,
    }


def _whole(corpus: Corpus, most: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the tokens of a corpus and the start of each document: all, or, with `most` > 0, at
    most so many tokens from random documents of all sources, the last one truncated.
    """
    lengths = np.asarray(corpus.lengths)
    documents = np.arange(len(lengths))
    if 0 < most < lengths.sum():
        documents = np.random.default_rng(0).permutation(documents)
        ends = np.cumsum(lengths[documents])
        documents = documents[: 1 + int(np.searchsorted(ends, most))]
        ends = np.minimum(ends[: len(documents)], most)
    else:
        ends = np.cumsum(lengths)
    starts = np.concatenate([[0], ends]).astype(np.int64)
    return corpus.tokens(documents, np.zeros(len(documents), np.int64), np.diff(starts)), starts

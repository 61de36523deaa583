"""What arrives: a pretraining run, and its held-out text or other text. What leaves: how well it
predicts it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langue.data.corpus.builder import Building, build
from langue.data.corpus.reader import Corpus, is_corpus
from langue.data.corpus.split import SplitAssignment
from langue.errors import RunError
from langue.files import in_use, read_json, sha256
from langue.hub.checkpoint import Checkpoint, Description, read_checkpoint
from langue.progress import bar, say
from langue.runs.corpora import given_corpus, same_tokens
from langue.runs.held_out import notes_on_held_out, notes_on_text
from langue.runs.judge_language import judged
from langue.runs.prepare import DIGESTS
from langue.runs.prepare_language import Pretraining, new_model
from langue.runs.train_tokenizer import as_list, total_size
from langue.runtime import device
from langue.settings.recipe import split_recipe
from langue.settings.sections import PRETRAINING, Settings, resolve
from langue.tasks import OBJECTIVES, OPTIONS
from langue.tasks.language import LanguageObjective
from langue.text.read.documents import Reading, open_texts
from langue.text.tokenizers.tokenizer import Tokenizer


def evaluate_language(
    run: Description,
    recipe: Mapping[str, Any],
    *,
    data: Any,
    split: str,
    columns: Mapping[str, str] | None,
) -> dict[str, Any]:
    """As at the end of training, with the objective and the pieces of then. data: None, a corpus,
    or text; split: test is what was held out, dev where there is no other, and all of a text that
    is not divided."""
    assert run.task is not None
    began = time.perf_counter()
    named, own, words = split_recipe(recipe)
    name = run.task["objective"]
    kind = OBJECTIVES[name]
    settings = resolve(
        PRETRAINING,
        kind.tokenizer_defaults,
        {"data.seq_len": run.task["data"]["max_length"]},
        words,
        options=kind.Options,
        elsewhere=OPTIONS,
    )
    checkpoint = read_checkpoint(run, head="lm", pairs=kind.learns_pairs(settings.task))
    tokenizer = checkpoint.tokenizer
    objective = kind(tokenizer, settings.task, seed=settings.train.seed)
    objective.vocabulary = min(objective.vocabulary, checkpoint.config.vocab_size)
    given = _own(run.folder, named.get("data")) if data is None else data
    if (corpus := given_corpus(given)) is not None:
        split = {"test": "dev"}.get(split, split)
        with in_use(corpus):
            text = Corpus.open(corpus, split)
            same_tokens(text.tokenizer, tokenizer, corpus)
            with bar("reading checksums", 1) as advance:
                text.verify()
                advance(1)
            return _scores(objective, checkpoint, text, settings, split, began)
    with as_corpus(
        as_list(data), tokenizer, Reading(columns or own, invalid=settings.data.invalid, only=split)
    ) as text:
        return _scores(
            objective, checkpoint, text, settings, "the text" if split == "test" else split, began
        )


def _scores(
    objective: LanguageObjective,
    checkpoint: Checkpoint,
    text: Corpus,
    settings: Settings,
    split: str,
    began: float,
) -> dict[str, Any]:
    family = checkpoint.family
    config = checkpoint.config
    tokenizer = checkpoint.tokenizer
    prepared = Pretraining(objective, family, config, tokenizer, text, text, settings, checkpoint)
    metrics, intervals, _ = judged(prepared, new_model(prepared).to(device()))
    few = notes_on_held_out(0, text.n_documents)
    return {
        "split": split,
        "examples": text.n_documents,
        "metrics": metrics,
        "intervals": intervals,
        "notes": [*few, *notes_on_text(text, objective)],
        "baseline": None,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _own(run: Path, named: Any) -> Path:
    """The corpus that the run was trained on, and that is what it was then."""
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
    kept = run / DIGESTS
    if kept.is_file() and read_json(kept).get("data") != sha256(folder / "corpus.json"):
        raise RunError(
            "its corpus is not what it was, so that what is held out today may be what it was"
            " trained on",
            where=str(folder),
            do="put the corpus back, or name text that it has not seen with --data",
        )
    return folder


@contextmanager
def as_corpus(named: list[Any], tokenizer: Tokenizer, reading: Reading) -> Iterator[Corpus]:
    """The text, or the split of it that is read, as a corpus for the moment."""
    notes: list[str] = []
    texts = open_texts(named, reading, notes)
    for note in notes:
        say(note)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "corpus"
        with bar("text to tokens", total_size(texts)) as advance:
            build(
                Building(texts, tokenizer, reading, SplitAssignment(fraction=0)),
                out,
                progress=advance,
            )
        yield Corpus.open(out)

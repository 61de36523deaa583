"""What arrives: a pretraining run, and its held-out text or other text. What leaves: how well it predicts it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langue.data.corpus import Corpus, is_corpus
from langue.data.divide import Division
from langue.data.shards import Building, build
from langue.errors import RunError
from langue.hub.checkpoint import Checkpoint, Description, read_checkpoint
from langue.runtime import device
from langue.settings import PRETRAINING, TOKENIZERS, Settings, resolve, split_recipe
from langue.tasks import OBJECTIVES
from langue.tasks.language import LanguageObjective
from langue.text.documents import Reading, open_texts
from langue.text.tokenizer import Tokenizer
from langue.verbs.corpora import same_tokens
from langue.verbs.judge_language import judged
from langue.verbs.prepare_language import Pretraining, new_model
from langue.verbs.progress import bar
from langue.verbs.train_tokenizer import as_list, total_size


def evaluate_language(
    run: Description, recipe: Mapping[str, Any], *, data: Any, split: str, columns: Mapping[str, str] | None
) -> dict[str, Any]:
    """As at the end of training, with the objective and the pieces of then. data: None, a corpus, or text, which has
    no splits; split: test is what was held out, dev."""
    assert run.task is not None
    began, split = time.perf_counter(), {"test": "dev"}.get(split, split)
    named, own, words = split_recipe(recipe)
    name = run.task["objective"]
    settings = resolve(PRETRAINING, TOKENIZERS[name], {"data.block": run.task["data"]["max_length"]}, words)
    checkpoint = read_checkpoint(run, head="lm", pairs=settings.task.pairs != "none")
    tokenizer = checkpoint.tokenizer
    objective = OBJECTIVES[name](tokenizer, settings.task, seed=settings.train.seed)
    given = _own(run.folder, named.get("data")) if data is None else data
    if isinstance(given, (str, Path)) and is_corpus(Path(given)):
        text = Corpus.open(Path(given), split)
        same_tokens(text.tokenizer, tokenizer, Path(given))
        return _scores(objective, checkpoint, text, settings, split, began)
    with _tokens(as_list(data), tokenizer, Reading(columns or own, invalid=settings.data.invalid)) as text:
        return _scores(objective, checkpoint, text, settings, "the text", began)


def _scores(
    objective: LanguageObjective, checkpoint: Checkpoint, text: Corpus, settings: Settings, split: str, began: float
) -> dict[str, Any]:
    family, config, tokenizer = checkpoint.family, checkpoint.config, checkpoint.tokenizer
    prepared = Pretraining(objective, family, config, tokenizer, text, text, settings, checkpoint)
    metrics, intervals = judged(prepared, new_model(prepared).to(device()))
    return {
        "split": split,
        "examples": text.n_documents,
        "metrics": metrics,
        "intervals": intervals,
        "baseline": None,
        "seconds": round(time.perf_counter() - began, 3),
    }


def _own(run: Path, named: Any) -> Path:
    """The corpus that the run was trained on."""
    for folder in (run / "corpus", Path(named) if isinstance(named, str) else run):
        if is_corpus(folder):
            return folder
    raise RunError("its corpus is not there any more", where=str(run), do="name text to judge on with --data")


@contextmanager
def _tokens(named: list[Any], tokenizer: Tokenizer, reading: Reading) -> Iterator[Corpus]:
    """All of a text, or its files named dev where there are some, as a corpus for the moment."""
    texts = open_texts(named, reading, [])
    with TemporaryDirectory() as folder:
        out = Path(folder) / "corpus"
        with bar("text to tokens", total_size(texts)) as advance:
            facts = build(Building(texts, tokenizer, reading, Division(fraction=0)), out, progress=advance)
        yield Corpus.open(out, "dev" if "dev" in facts["splits"] else "train")

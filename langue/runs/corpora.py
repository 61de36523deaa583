"""What arrives: what a user named as data. What leaves: a corpus, opened or built, and its
tokenizer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langue.data.corpus.builder import Building, build
from langue.data.corpus.reader import Corpus, is_corpus, vocabulary
from langue.data.corpus.split import SplitAssignment
from langue.errors import DataError
from langue.hub.checkpoint import locate
from langue.progress import bar, say
from langue.runs.prepare import check_rereadable
from langue.runs.train_tokenizer import as_list, train_tokenizer
from langue.runtime import rank
from langue.settings.sections import Settings
from langue.text.read.documents import Reading, open_texts
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.train.parallel import barrier


def corpus_of(
    arguments: Mapping[str, Any],
    own: Tokenizer | None,
    settings: Settings,
    folder: Path,
    check: Callable[[Tokenizer | None], None] = lambda tokenizer: None,
) -> tuple[Corpus, Corpus]:
    """The training and the held-out split. own: the tokenizer of the model that is trained further.
    check: called before the text becomes tokens, and with None before a tokenizer is trained, to
    refuse what work would be lost on.

    Text is tokenised into `folder`/corpus, once: a run that goes on finds it there.
    """
    given = given_corpus(arguments["data"])
    path = given or folder / "corpus"
    there = is_corpus(path)
    if not there and rank() == 0:
        check_rereadable(arguments["data"])  # which a run that goes on has as a corpus
        _build(as_list(arguments["data"]), arguments, own, settings, path, check)
    if not given:
        barrier()
    train = Corpus.open(path, "train")
    dev = Corpus.open(path, "dev")
    if there and rank() == 0:  # what was just written was just summed
        with bar("reading checksums", 2) as advance:
            for corpus in (train, dev):
                corpus.verify()
                advance(1)
    if own is not None:
        same_tokens(train.tokenizer, own, path)
    return train, dev


def given_corpus(data: Any) -> Path | None:
    """The corpus that is named as data, where that is one."""
    named = as_list(data)
    one = len(named) == 1 and isinstance(named[0], (str, Path))
    return Path(named[0]) if one and is_corpus(Path(named[0])) else None


def same_tokens(tokenizer: Tokenizer, own: Tokenizer, where: Path) -> None:
    """DataError where a number would be another token to the model than it was to the one that
    wrote it."""
    theirs, ours = (each.backend.get_vocab(with_added_tokens=True) for each in (tokenizer, own))
    if theirs == ours:
        return
    sizes = f"has {vocabulary(tokenizer):,} tokens and the model {vocabulary(own):,}"
    different = next((token for token in theirs if theirs[token] != ours.get(token)), "")
    alike = f"has as many tokens as the model, but {different!r:.40} is another"
    raise DataError(
        f"the tokenizer of the text {alike if len(theirs) == len(ours) else sizes}",
        where=str(where),
        do=(
            "tokenise the text with the model's own tokenizer: leave out --tokenizer, or build the"
            " corpus again with it"
        ),
    )


def _build(
    named: list[Any],
    arguments: Mapping[str, Any],
    own: Tokenizer | None,
    settings: Settings,
    path: Path,
    check: Callable[[Tokenizer | None], None],
) -> None:
    """The corpus at `path`, with the tokenizer that was named, or the model's, or one trained on
    the text."""
    columns = arguments["columns"] or {}
    notes = list[str]()
    tokenizer = own
    if arguments["tokenizer"] is not None:
        tokenizer = Tokenizer.load(locate(arguments["tokenizer"]))
        if own is not None:
            same_tokens(tokenizer, own, Path(arguments["tokenizer"]))
    elif tokenizer is None:
        made = path.parent / "tokenizer"
        chosen = {
            f"tokenizer.{key}": value for key, value in settings.tokenizer.model_dump().items()
        }
        if not (made / "tokenizer.json").is_file():
            check(None)
            words = {"data.invalid": settings.data.invalid, **chosen}
            notes += train_tokenizer(named, out=made, columns=columns, **words)["notes"]
        tokenizer = Tokenizer.load(made)
    check(tokenizer)
    reading = Reading(columns=columns, invalid=settings.data.invalid)
    texts = open_texts(named, reading, notes)
    with bar("text to tokens", sum(each.size or 0 for each in texts)) as advance:
        division = SplitAssignment.of(settings.data.dev_fraction, settings.data.seed)
        building = Building(texts, tokenizer, reading, division, settings.data.shard_tokens)
        build(building, path, progress=advance, notes=notes)
    for note in dict.fromkeys(notes):
        say(note)

"""Compare the answers of several systems by votes of people or of a model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langue.errors import SettingsError
from langue.progress import say
from langue.runs.notebook import Result
from langue.runs.rating import (
    ASKED,
    Ballot,
    VotesFile,
    items_of,
    judge_pairs,
    order_of,
    read_plain,
    read_votes,
)
from langue.runs.show_votes import print_votes
from langue.statistics import votes as statistics
from langue.verbs.generate import generate, read_lines
from langue.wording import counted

OUTPUTS = (".jsonl", ".json", ".txt")  # suffixes of files of outputs


def rate(
    systems: Sequence[str | Path] | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    rater: str | None = None,
    judge: str | Path | None = None,
    judge_prompt: str | Path | None = None,
    report: str | Path | None = None,
    max_tokens: int | None = None,
    repeat: float = 0.0,
    seed: int = 0,
    port: int = 0,
    show: Callable[[str], None] | None = None,
) -> Result:
    """Collect votes on which system's answers are better, from people or a model, and return a
    report.

    The report is that of `langue.statistics.votes.report`. A web page on this machine shows pairs
    of answers blind, until all are judged.

    systems: files of outputs with a line for each item (JSON with `text` or the like, or plain
        .txt), or models, which answer `data` as `langue generate` does; their answers are kept
        beside `out`.
    data: JSON lines with the prompts.
    out: the file of votes, to which votes are appended; pairs that `rater` has already judged are
        not shown again.
    rater: the name of the person who votes.
    judge: a model that votes instead, on both orders of each pair.
    judge_prompt: a file with the prompt of the judge, which contains {question}, {left} and
        {right}.
    report: a file of votes to report on, without new votes.
    max_tokens: limit of the answers of models.
    repeat: share of the pairs that is shown again at the end with sides exchanged, to measure
        whether a rater is consistent.
    seed: determines the order and sides for each rater.
    port: of the page; 0: any free port.
    show: called with the address of the page.

    Raises SettingsError for arguments that contradict each other or are missing.
    """
    if report is not None:
        if systems or out or judge:
            raise SettingsError(
                "report reads votes alone, and systems, out or judge are given too",
                do="leave them out, or leave report out",
            )
        return Result(statistics.report(read_votes(report)), print_votes)
    named = [str(system) for system in systems or ()]
    if len(named) < 2 or len(set(named)) < len(named):
        raise SettingsError(
            f"rate compares systems, and {counted(len(set(named)), 'system')} is given",
            do="give two or more different files or models",
        )
    if out is None:
        raise SettingsError("there is no file to keep votes in", do="give --out votes.jsonl")
    if judge is not None and rater is not None:
        raise SettingsError("a model as judge is the rater", do="leave --rater out")
    if not 0 <= repeat <= 1:
        raise SettingsError(f"repeat = {repeat} is no share of the pairs", do="give 0.1")
    asked = _asked(judge_prompt, judge)
    lines = None if data is None else _lines(data)
    outputs = {
        name: _outputs(name, number, data, Path(out), max_tokens)
        for number, name in enumerate(named, 1)
    }
    items = items_of(outputs, lines)
    who = str(judge) if judge is not None else rater or "1"
    pairs = order_of(items, named, who, seed, 0.0 if judge is not None else repeat)
    votes = VotesFile(Path(out))
    try:
        if judge is not None:
            from langue.runs.model import load

            judge_pairs(load(judge, dtype="auto"), pairs, who, votes, asked)
        else:
            _vote(Ballot(pairs, who, votes), port, show or _say_address)
        return Result(statistics.report(votes.votes), print_votes)
    finally:
        votes.close()


def _say_address(address: str) -> None:
    say(f"open {address} (Ctrl-C ends)")


def _vote(ballot: Ballot, port: int, show: Callable[[str], None]) -> None:
    from langue.runs.rating_page import serve

    if ballot.equal:
        say(f"{ballot.equal:,} pairs of equal texts are ties, and are not shown")
    if ballot.place:
        say(f"{ballot.place:,} of {ballot.total:,} pairs are judged already")
    if not serve(ballot, port, show):
        say(
            f"{ballot.place:,} of {ballot.total:,} pairs are judged and kept; the same command goes"
            " on"
        )


def _asked(path: str | Path | None, judge: Any) -> str:
    """Return the prompt of the judge."""
    if path is None:
        return ASKED
    if judge is None:
        raise SettingsError("judge_prompt is of a model as judge", do="give --judge MODEL too")
    return read_plain(path)


def _lines(path: str | Path) -> list[Mapping[str, Any]]:
    """Return the lines of a file of JSON lines, or of text."""
    if Path(path).suffix != ".txt":
        return list(read_lines(path))
    content = read_plain(path)
    return [{"text": line} for line in content.removesuffix("\n").split("\n")]


def _outputs(
    name: str, number: int, data: str | Path | None, out: Path, max_tokens: int | None
) -> list[Mapping[str, Any]]:
    """Return the answers of a system, read from its file, or generated now and kept."""
    if Path(name).suffix in OUTPUTS:
        return _lines(name)
    if data is None:
        raise SettingsError(
            f"{name} is a model, and nothing is asked",
            do="give --data FILE: JSON lines with prompt or messages",
        )
    kept = out.with_name(f"{out.stem}-system-{number}.jsonl")
    if kept.is_file():
        say(f"{name}: its answers are in {kept}; take the file away to have them written anew")
    else:
        say(f"{name} answers {data}")
        generate(name, data=data, out=kept, max_tokens=max_tokens)
    return _lines(kept)

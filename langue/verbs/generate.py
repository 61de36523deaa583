"""Generate text from prompts, given directly or in a file, and return each result as soon as it is
known.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from langue.errors import DataError, LangueError
from langue.files import atomic_file, refuse_existing
from langue.progress import bar, say
from langue.runs.generation import detailed, options_of
from langue.runs.model import Model, load
from langue.text.read.standard_input import NAME as STANDARD_INPUT_NAME
from langue.text.read.standard_input import StandardInput
from langue.verbs.prompted_rows import check_one_given

STANDARD_INPUT = "-"
# Number of lines that are read ahead of the first unfinished one: memory does not grow with the
# file, and the batch stays full.
AHEAD = 512
PROMPTS = ("prompt", "messages", "tokens")  # the keys of a line that may hold the prompt


def generate(
    model: str | Path | Model,
    prompts: Sequence[Any] | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
    revision: str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Generate a continuation of each prompt, in order: `{"prompt", "text", "tokens", "logprobs",
    "finish_reason"}`.

    model: a Hub name, folder or run, or a loaded model.
    prompts, or data: the prompts, or a file of JSON lines ("-": standard input). A line has
        `prompt` (a string), `messages` (a conversation) or `tokens` (ids), and may have options of
        its own, which override those given here; its other keys are kept.
    out: a file for the results as JSON lines; the returned list is then empty. force: replace it if
        it exists.
    revision: a branch, tag or commit on the Hub.
    options: as in `Model.generate`.

    A line that fails has `error` instead of an answer, and does not stop the others. The number of
    such lines is reported; if there is an output file, or if all lines fail, the first error is
    raised at the end.
    """
    check_one_given(prompts, data, "prompt")
    refuse_existing(out, force)
    if data is not None and str(data) != STANDARD_INPUT and not Path(data).is_file():
        raise DataError("there is no such file", where=str(data))
    loaded = ready(model, revision)
    source = None if data is None else opened(data)
    if source is None:
        lines: Iterable[Mapping[str, Any]] = [{_key_of(prompt): prompt} for prompt in prompts or ()]
        where = "prompt"
    else:
        lines = read_lines(source)
        where = place_of(source)
    with ExitStack() as stack:
        handle = None
        if out is not None:
            temporary = stack.enter_context(atomic_file(Path(out)))
            handle = stack.enter_context(temporary.open("w", encoding="utf-8"))
        found = []
        failed = Failures(where)
        advance = stack.enter_context(_progress(data, out))
        for answer in answers(loaded, failed.watched(lines), options, waits_of(source)):
            failed.count(answer)
            advance(1)
            if handle is None:
                found.append(answer)
            else:
                handle.write(json.dumps(answer, ensure_ascii=False) + "\n")
    failed.tell(may_raise=out is not None)
    return found


def ready(model: str | Path | Model, revision: str | None, weights: str | None = None) -> Model:
    """Return a model for generation, loaded if necessary; weights: as in `load`."""
    if isinstance(model, Model):
        return model
    if weights is None:
        return load(model, revision, dtype="auto")
    return load(model, revision, weights=weights)


def place_of(source: str | Path | StandardInput) -> str:
    """Return the prefix of a line number in messages about that line."""
    is_input = isinstance(source, StandardInput)
    return f"{STANDARD_INPUT_NAME if is_input else source}, line"


def waits_of(source: Any) -> Callable[[], bool]:
    """Return the `would_wait` argument of `answers`."""
    return source.would_wait if isinstance(source, StandardInput) else lambda: False


def _progress(data: str | Path | None, out: str | Path | None) -> Any:
    """Return a progress bar for the lines of a file whose answers are written to another, else a
    dummy.
    """
    if out is None or data is None or str(data) == STANDARD_INPUT:
        return nullcontext(lambda count: None)
    with open(data, "rb") as handle:
        total = sum(1 for line in handle if line.strip())
    return bar("writing", total)


class Failures:
    """Counts the lines that fail, and keeps the first error."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.total = 0
        self.failed = 0
        self.seen = 0
        self.first: DataError | None = None

    def watched(self, lines: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yield the lines, and count them."""
        for line in lines:
            self.total += 1
            yield line

    def count(self, answer: Mapping[str, Any]) -> None:
        """Record the next answer, in the order of the lines."""
        self.seen += 1
        if "error" in answer:
            self.failed += 1
            if self.first is None:
                self.first = DataError(answer["error"], where=f"{self.where} {self.seen}")

    def tell(self, may_raise: bool) -> None:
        """Report the number of failures; raise the first as DataError."""
        if self.first is None:
            return
        if self.total > 1:
            say(f"{self.failed:,} of {self.total:,} prompts have an error in place of an answer")
        if may_raise or self.failed == self.total:
            raise self.first


def answers(
    model: Model,
    lines: Iterable[Mapping[str, Any]],
    options: Mapping[str, Any],
    would_wait: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Yield each line with its answer, in order, as soon as it and those before it are known.

    would_wait: returns whether reading the next line would block; generation then continues with
    the lines that were read already.
    """
    given = dict(options)
    drafting = {name: given.pop(name) for name in ("draft", "draft_tokens") if name in given}
    engine = model.engine(**drafting)
    source = iter(lines)
    waiting: list[tuple[dict[str, Any], int | None]] = []  # (line, id of its request), in order
    is_open = True
    while is_open or waiting:
        while is_open and len(waiting) < AHEAD and not (waiting and would_wait()):
            line = next(source, None)
            if line is None:
                is_open = False
                break
            waiting.append(_submitted(engine, line, given))
        ended = {delta.id for delta in engine.step() if delta.finish_reason is not None}
        if not ended and waiting and waiting[0][1] is not None:
            continue
        while waiting:
            kept, id = waiting[0]
            if id is None:
                yield kept
            else:
                answer = engine.peek(id)
                if answer.finish_reason is None:
                    break
                engine.collect(id)
                yield _answered(kept, answer)
            waiting.pop(0)


def _submitted(
    engine: Any, line: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], int | None]:
    """Submit a line; return its other keys and the request's id, or the line with its error and
    None.
    """
    try:
        key, prompt, own, kept = _parts(line)
        id = engine.submit(prompt, **{**options, **own})
    except LangueError as error:
        return {**line, "error": str(error)}, None
    return {key: prompt, **kept}, id


def _answered(kept: dict[str, Any], answer: Any) -> dict[str, Any]:
    if answer.error is not None:
        return {**kept, "error": str(answer.error)}
    return {**kept, **detailed(answer)}


def _parts(line: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any], dict[str, Any]]:
    """Return the prompt's key, the prompt, the line's own options, and all other keys."""
    given = [key for key in PROMPTS if key in line]
    if len(given) != 1:
        what = "has none" if not given else f"has {' and '.join(given)}"
        raise DataError(f"a line {what} of prompt, messages and tokens", do="give one of them")
    own = {}
    kept = {}
    for key, value in line.items():
        if key in given:
            continue
        if _is_option(key):
            own[key] = value
        else:
            kept[key] = value
    return given[0], line[given[0]], own, kept


def _is_option(name: str) -> bool:
    try:
        options_of({name: None})
    except LangueError:
        return False
    return True


def _key_of(prompt: Any) -> str:
    if isinstance(prompt, str):
        return "prompt"
    return "messages" if prompt and isinstance(prompt[0], Mapping) else "tokens"


def read_lines(data: str | Path | StandardInput) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in a file of JSON lines, or on standard input, as they arrive."""
    where = STANDARD_INPUT_NAME if isinstance(data, StandardInput) else str(data)
    with ExitStack() as stack:
        if isinstance(data, StandardInput):
            lines: Iterable[tuple[int, str]] = data
        else:
            try:
                lines = enumerate(stack.enter_context(open(data, encoding="utf-8-sig")), 1)
            except OSError as error:
                raise DataError(error.strerror or str(error), where=where) from error
        for number, text in lines:
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except ValueError as error:
                raise DataError(f"not JSON: {error}", where=f"{where}, line {number}") from error
            if not isinstance(line, dict):
                raise DataError(
                    "not a JSON object",
                    where=f"{where}, line {number}",
                    do='write {"prompt": "..."} on each line',
                )
            yield line


def opened(data: str | Path) -> str | Path | StandardInput:
    """Return the input for `read_lines`; "-" is standard input."""
    return StandardInput(blank=False) if str(data) == STANDARD_INPUT else data

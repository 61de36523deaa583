"""The command line: each command calls one verb, prints its result and sets the exit code.

Heavy modules are imported only when a command runs, so that help is instant.
"""

import atexit
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn

import typer

from langue import __version__
from langue.cli.chat import chat
from langue.cli.convert import convert
from langue.cli.evaluate import evaluate
from langue.cli.finetune import finetune
from langue.cli.generate import generate
from langue.cli.inspect import inspect
from langue.cli.inspect_data import inspect_data
from langue.cli.mine_negatives import mine_negatives
from langue.cli.plan import plan
from langue.cli.predict import predict
from langue.cli.pretrain import pretrain
from langue.cli.preview import preview
from langue.cli.prompted import extract, fill_mask, rank, zero_shot
from langue.cli.quantize import quantize
from langue.cli.quickstart import quickstart
from langue.cli.rate import rate
from langue.cli.serve import serve
from langue.cli.settings import settings
from langue.cli.tokenize import tokenize
from langue.cli.train_tokenizer import train_tokenizer
from langue.cli.tune import tune
from langue.cli.verify import verify
from langue.errors import AlreadyReported, LangueError, LangueWarning
from langue.files import FULL
from langue.runtime import rank as process_rank
from langue.runtime import world_size

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Start with [bold]langue quickstart[/]. The help of each command shows examples:"
        " [bold]langue finetune --help[/]. The environment variable [bold]LANGUE_DEVICE[/]"
        " selects the device: cpu, cuda or mps."
    ),
)
data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Inspect text and prepare it for training.",
)
tokenizer = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Train a tokenizer.")
compress = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Make a model smaller.")

# A mistyped option reaches the verb as a word, which then names the nearest setting or option.
_LENIENT = {"ignore_unknown_options": True}
app.command(rich_help_panel="Start")(quickstart)
app.command(rich_help_panel="Train")(plan)
app.command(rich_help_panel="Train", context_settings=_LENIENT)(pretrain)
app.command(rich_help_panel="Train", context_settings=_LENIENT)(finetune)
app.command(rich_help_panel="Train", context_settings=_LENIENT)(tune)
app.add_typer(data, name="data", rich_help_panel="Train")
data.command(context_settings=_LENIENT)(preview)
data.command("inspect", context_settings=_LENIENT)(inspect_data)
data.command(context_settings=_LENIENT)(tokenize)
data.command("mine")(mine_negatives)
app.add_typer(tokenizer, name="tokenizer", rich_help_panel="Train")
tokenizer.command("train", context_settings=_LENIENT)(train_tokenizer)
app.command(rich_help_panel="Train")(settings)
app.command(rich_help_panel="Use")(evaluate)
app.command(rich_help_panel="Use")(predict)
app.command(rich_help_panel="Use")(generate)
app.command(rich_help_panel="Use")(chat)
app.command(rich_help_panel="Use")(rank)
app.command(rich_help_panel="Use")(zero_shot)
app.command(rich_help_panel="Use")(extract)
app.command(rich_help_panel="Use")(fill_mask)
app.command(rich_help_panel="Use")(rate)
app.command(rich_help_panel="Use")(serve)
app.command(rich_help_panel="Models")(inspect)
app.command(rich_help_panel="Models")(verify)
app.command(rich_help_panel="Models")(convert)
app.add_typer(compress, name="compress", rich_help_panel="Models")
compress.command()(quantize)


def _version(requested: bool) -> None:
    if requested:
        print(f"langue {__version__}")
        raise typer.Exit


@app.callback()
def _langue(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Text in, a language model in use."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit. A user's error is one line on stderr; `--debug` shows where it came
    from.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # a terminal that knows fewer letters is no reason to stop
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run(words)
    try:
        sys.stdout.flush()
    # the reader (`| head`) has what it wanted: silent, with the code that Typer gives it
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    if world_size() > 1:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End a worker of torchrun without the interpreter's own end, which now and then aborted one
    whose work was done (`terminate called without an active exception`, docs/LOG.md), and torchrun
    took the run for a failed one.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(words: list[str]) -> int:
    try:
        with _as_one(), _warnings_as_lines():
            code = app(words, prog_name="langue", standalone_mode=False)
    except Exception as error:
        if "--debug" in words:
            raise
        return _explain(error, words)
    if code == 130 and process_rank() == 0:
        print("langue: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _as_one() -> Iterator[None]:
    """Several processes (torchrun) as if they were one: the first speaks, and an error is told
    once.
    """
    if world_size() == 1:
        yield
        return
    from langue.train.parallel import processes

    with processes(), open(os.devnull, "w") as nowhere, contextlib.ExitStack() as muted:
        if process_rank():
            muted.enter_context(contextlib.redirect_stdout(nowhere))
            muted.enter_context(contextlib.redirect_stderr(nowhere))
        yield


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Each of our warnings as one line on stderr, without the place in the code that it comes
    from.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", LangueWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, LangueWarning):
                print(f"langue: warning: {_one_line(message)}", file=sys.stderr)
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _scarce(error: Exception) -> str:
    """What the machine had too little of, where that is what stopped the command: no defect of
    anyone's.
    """
    said = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said:
        return (
            "memory is used up; lower train.batch_tokens or data.seq_len, or set"
            " train.activation_checkpointing=true"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.filename or 'a file'}: cannot be written: {error.strerror}; free space"
    return ""


def _one_line(error: Exception | str) -> str:
    """What it says; the name of a file may hold anything."""
    return str(error).replace("\n", "\\n").replace("\r", "\\r")


def _command_of(words: Sequence[str]) -> str:
    """The command that words begin with, as far as they name one."""
    groups = [group.name for group in app.registered_groups]
    named = words[: 2 if words and words[0] in groups else 1]
    return " ".join(["langue", *(word for word in named if not word.startswith("-"))])


def _explain(error: Exception, words: Sequence[str]) -> int:
    """One line on stderr for whatever stopped the command, and its exit code."""
    if isinstance(error, AlreadyReported):
        return error.exit_code
    if isinstance(error, LangueError):
        print(f"langue: error: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    if scarce := _scarce(error):
        print(f"langue: error: {scarce}; what was complete before is kept", file=sys.stderr)
        return 2
    if isinstance(error, PermissionError):
        where = f"{error.filename}: " if error.filename else ""
        print(
            f"langue: error: {where}{error.strerror}; look at whose it is, or choose another",
            file=sys.stderr,
        )
        return 2
    # The parser's own errors; their classes have moved between versions of Typer, their shape has
    # not.
    if hasattr(error, "format_message"):
        message = error.format_message()
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(message)
            return 0
        path = context.command_path if context else _command_of(words)
        remedy = "" if message.endswith("?") else f"; see {path} --help"
        print(f"langue: error: {message.rstrip('.')}{remedy}", file=sys.stderr)
        return 2
    print(
        f"langue: internal error: {type(error).__name__}: {' '.join(str(error).split())}; "
        "this is a defect of langue: run again with --debug and report what it prints",
        file=sys.stderr,
    )
    return 1

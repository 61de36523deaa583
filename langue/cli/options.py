"""Options that several commands share, and how their values are parsed."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from langue.errors import SettingsError


def _tasks(begun: str) -> list[str]:
    """What --task may be, for the shell's completion."""
    from langue.tasks import TASKS

    return [name for name in TASKS if name.startswith(begun)]


def _settings(begun: str) -> list[str]:
    """The settings that all tasks have, for the shell's completion: those of a task are known once
    PyTorch is imported, which is too slow here.
    """
    from langue.settings.sections import known

    return [f"{key}=" for key in known() if key.startswith(begun)]


LIKE = 0.85  # from which likeness on a word is taken for a mistyped option; 1 is alike

Task = Annotated[
    str | None,
    typer.Option(
        help="The task; an unknown name lists them all.",
        autocompletion=_tasks,
        show_default=False,
    ),
]
PretrainedModel = Annotated[
    str | None, typer.Option("--model", help="A Hub name, a folder or a run.", show_default=False)
]
Named = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A Hub name, a folder, a run, or a .gguf or llama2.c file."
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="A branch, tag or commit on the Hub.", show_default=False)
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="A file, a folder with train, dev and test files or with one subfolder of"
        " texts per label, or a Hub name.",
        show_default=False,
    ),
]
_SPLIT = {"metavar": "FILE", "show_default": False}
Train = Annotated[
    str | None, typer.Option("--train", help="The training data, in place of --data.", **_SPLIT)
]
Dev = Annotated[
    str | None,
    typer.Option(
        "--dev", help="With --train: the data for choosing the best checkpoint.", **_SPLIT
    ),
]
Test = Annotated[
    str | None,
    typer.Option("--test", help="With --train: the data for the final evaluation.", **_SPLIT),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        help="The data's column for each of ours: text=review,label=sentiment. If a file"
        " has no header, columns are given by number: tags=2.",
        metavar="OURS=THEIRS,...",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="A TOML file with settings, such as the recipe.toml of a run.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out exactly where it stopped.")
]
BatchTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="The number of tokens per batch. Default: chosen for the device.",
        show_default=False,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda or mps. Default: the environment variable LANGUE_DEVICE, or the"
        " best device of this machine.",
        show_default=False,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print no progress and no notes, only warnings and errors.")
]
KeepCheckpoints = Annotated[
    bool,
    typer.Option(
        "--keep-checkpoints",
        help="Keep the checkpoints of the finished run, so that --resume with more"
        " train.epochs can train longer. They take three times the size of the"
        " model.",
    ),
]
Dash = Annotated[
    str | None,
    typer.Argument(
        metavar="[-]",
        help="Read standard input line by line, as --data - does.",
        show_default=False,
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SECTION.KEY=VALUE",
        help="Settings. `langue settings` lists them all.",
        autocompletion=_settings,
        show_default=False,
    ),
]


def data_of(dash: str | None, data: str | None) -> str | None:
    """What --data says, or "-" where that stands alone."""
    if dash is None:
        return data
    if dash != "-":
        raise SettingsError(
            f"{dash!r} is no option", do="write --data FILE, or - for standard input"
        )
    if data not in (None, "-"):
        raise SettingsError(f"- and --data {data} are given together", do="give one of them")
    return dash


def data_or_splits(
    data: str | None, train: str | None, dev: str | None, test: str | None
) -> str | dict[str, str] | None:
    """What --data says, or each split that is named apart."""
    given = {"train": train, "dev": dev, "test": test}
    splits = {split: name for split, name in given.items() if name is not None}
    if not splits:
        return data
    if data is not None or train is None:
        first = f"--{next(iter(splits))}"
        if data is not None:
            raise SettingsError(f"{first}: --data is given too", do="leave one of them out")
        raise SettingsError(
            f"{first}: --train is not given", do=f"give --train, or leave {first} out"
        )
    return splits


def harmless(text: str) -> str:
    """A text that a model or a user wrote, without what would steer the terminal."""
    from langue.evaluation.cells import visible

    return visible(text.replace("\r\n", "\n"))


def parse_columns(given: Sequence[str] | None) -> dict[str, str] | None:
    """`["text=review,label=sentiment"]` as a dict; the option may also be repeated."""
    if not given:
        return None
    columns: dict[str, str] = {}
    words: list[str] = []
    for part in (part for each in given for part in each.split(",")):
        if words and part.strip() and "=" not in part:  # a name of theirs that holds a comma
            words[-1] += f",{part}"
        else:
            words.append(part)
    for word in words:
        ours, equals, theirs = (part.strip() for part in word.partition("="))
        if not (equals and ours and theirs):
            raise SettingsError(
                f"--columns {word!r} is not ours=theirs",
                do="write --columns text=review,label=sentiment",
            )
        if ours in columns:
            raise SettingsError(f"--columns names {ours!r} twice", do="name each of ours once")
        columns[ours] = theirs
    return columns


def parse_settings(words: Sequence[str] | None, context: typer.Context) -> dict[str, Any]:
    """Trailing words as settings. `--key value` and `--key=value` are taken too, since other tools
    write them so.
    """
    from langue.settings.aliases import ours_of
    from langue.settings.sections import known, parse_words

    joined: list[str] = []
    # without their section they are refused by name, later
    names = {setting.partition(".")[2] for setting in known()}
    for word in words or ():
        if (
            joined
            and joined[-1].startswith("--")
            and "=" not in joined[-1]
            and not word.startswith("--")
        ):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    for word in joined:
        key = word.partition("=")[0]
        name = key.lstrip("-").replace("-", "_")
        if not key.startswith("-") or "." in key or ours_of(key) or name in names:
            continue
        # the names of tasks' settings are known once all that tasks need is imported
        near = _nearest(key, context, LIKE)
        if not near and name in _names_of_tasks():
            continue
        near = near or _nearest(key, context, 0.6)
        do = f"did you mean {near[0]}?" if near else f"see {context.command_path} --help"
        raise SettingsError(f"no such option: {key}", do=do)
    return dict(parse_words(joined))


def _names_of_tasks() -> set[str]:
    """The settings that tasks and objectives declare, without their section."""
    from langue.settings.sections import known
    from langue.tasks import OPTIONS

    return {setting.partition(".")[2] for setting in known(*OPTIONS.values())}


def _nearest(key: str, context: typer.Context, cutoff: float) -> list[str]:
    """The option of a command that is most like a word, where one is; 1 is alike."""
    options = [
        option
        for parameter in context.command.params
        for option in parameter.opts
        if option.startswith("--")
    ]
    return difflib.get_close_matches(key, options, 1, cutoff)

"""Arguments of which some name sources of text and others are settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from langue.cli.options import parse_settings
from langue.errors import SettingsError

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE... [SECTION.KEY=VALUE]",
        help="Files, folders or Hub names, optionally as NAME@WEIGHT; then settings.",
        show_default=False,
    ),
]
Document = Annotated[
    str,
    typer.Option(
        help="What a document is in a .txt file: the whole file, text between blank"
        " lines, or a line."
    ),
]
Dedup = Annotated[bool, typer.Option("--dedup", help="Drop duplicate documents.")]


def apart(words: Sequence[str] | None, context: typer.Context) -> tuple[list[str], dict[str, Any]]:
    """A word is a setting where it has an equals sign, or is an option of none, and no file is
    called so.
    """
    sources: list[str] = []
    others: list[str] = []
    for word in words or ():
        follows = bool(others) and others[-1].startswith("--") and "=" not in others[-1]
        is_setting = (
            follows
            or word.startswith("-")
            or ("=" in word and not Path(word.rpartition("@")[0] or word).exists())
        )
        (others if is_setting else sources).append(word)
    settings = parse_settings(others, context)
    if not sources:
        raise SettingsError("no source was named", do="name files, folders or Hub data sets")
    return sources, settings


def check_document(document: str) -> Any:
    if document not in ("file", "blank", "line"):
        raise SettingsError(
            f"--document {document!r} is not known", do="choose file, blank or line"
        )
    return document

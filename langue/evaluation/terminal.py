"""Prints sections of a report to a terminal; characters in texts and labels that could control the
terminal are replaced.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from langue.evaluation.cells import bars, format_cell, number_columns, visible
from langue.evaluation.highlights import SIGNS, excerpt
from langue.tasks.judgement import Cell, Examples, Matrix, Passage, Section, Table

MOST_ROWS = 12  # maximum number of rows of a table
MOST_LABELS = 10  # of a matrix; for a larger one, its largest counts are listed
FEW_LABELS = 4  # with more labels, the columns of a matrix are numbered
MOST_EXAMPLES = 3
PASSAGE = 200  # maximum length of a text
LABEL = 40
BAR = 30  # width of a full bar in blocks
STYLES = {
    "plain": "cyan",
    "right": "green",
    "wrong": "red",
    "missed": "yellow underline",
    "given": "dim",
}


def print_sections(console: Console, sections: Sequence[Section]) -> None:
    """Print tables, matrices and examples; plots of points appear on HTML pages only."""
    for section in sections:
        if isinstance(section, Matrix) and max(len(section.rows), 1) > MOST_LABELS:
            section = section.largest(MOST_ROWS)
        if isinstance(section, Table) and section.rows:
            print_table(console, section)
        elif isinstance(section, Matrix) and section.rows:
            _print_matrix(console, section)
        elif isinstance(section, Examples) and section.rows:
            _print_examples(console, section)


def print_table(console: Console, section: Table) -> None:
    """Print a table; bars are in a separate column."""
    grid = _grid(section.title)
    numbers = number_columns(section.rows, len(section.columns))
    for name, number in zip(section.columns, numbers, strict=True):
        grid.add_column(_label(name), justify="right" if number else "left")
    if section.bar is not None:
        grid.add_column()
    grid.show_header = any(section.columns)
    shown = section.rows[:MOST_ROWS]
    for row, filled in zip(shown, bars(section), strict=False):
        cells = [_cell(cell, index in section.shares) for index, cell in enumerate(row)]
        if section.bar is not None:
            cells.append(Text("█" * round(BAR * (filled or 0.0)), "blue"))
        grid.add_row(*cells)
    console.print(grid)
    if len(section.rows) > len(shown):
        console.print(Text(f"and {len(section.rows) - len(shown):,} more", "dim"))
    _print_note(console, section.note)


def _print_matrix(console: Console, section: Matrix) -> None:
    """Print a matrix; if it has many columns, they are numbered, and the row labels explain the
    numbers.
    """
    few = len(section.columns) <= FEW_LABELS or not section.is_square
    numbers = [str(1 + index) for index in range(len(section.columns))]
    rows = list(section.rows)
    if not few:
        rows = [f"{number} {label}" for number, label in zip(numbers, rows, strict=True)]
    grid = _grid(section.title)
    grid.add_column(_label(f"{section.rows_are} \\ {section.columns_are}"), no_wrap=True)
    for name in section.columns if few else numbers:
        grid.add_column(_label(name), justify="right")
    for row, counts in enumerate(section.counts):
        cells = [
            Text(f"{count:,}", _heat(section, row, column)) for column, count in enumerate(counts)
        ]
        grid.add_row(_label(rows[row]), *cells)
    console.print(grid)
    _print_note(console, section.note)


def _heat(section: Matrix, row: int, column: int) -> str:
    """Return the style of a count: green on the diagonal, bold red if it is a large share of its
    row.
    """
    count = section.counts[row][column]
    if not count:
        return "dim"
    if not section.is_square:
        return ""
    if row == column:
        return "bold green"
    return "bold red" if 5 * count > sum(section.counts[row]) else "red"


def _print_examples(console: Console, section: Examples) -> None:
    console.print()
    console.print(Text(visible(section.title), "italic"))
    _print_note(console, section.note)
    for row in section.rows[:MOST_EXAMPLES]:
        for passage in row.passages:
            console.print(_passage(passage))
        line = Text("  ")
        for index, (name, cell) in enumerate(zip(section.columns, row.cells, strict=True)):
            line.append(f"{'' if index == 0 else ' · '}{visible(name)} ", "dim")
            line.append_text(_cell(cell, index in section.shares))
        if row.cells:
            console.print(line)


def _passage(passage: Passage) -> Text:
    """Return a text as one paragraph with coloured highlights, each labelled where it ends."""
    shown = excerpt(passage, PASSAGE)
    line = Text("… " if shown.before else "")
    for segment in shown.segments:
        style = " ".join(STYLES[kind] for kind in segment.kinds)
        line.append(" ".join(visible(segment.text).split("\n")), style)
        for each in segment.ending:
            named = f"[{SIGNS.get(each.kind, '')}{visible(each.label)}]"
            line.append(named, f"bold {STYLES[each.kind]}")
    left = shown.after
    line.append(f" … ({left:,} more characters)" if left else "", "dim")
    return line


def _grid(title: str) -> Grid:
    return Grid(
        box=None,
        header_style="bold",
        padding=(0, 2, 0, 0),
        title=Text.assemble("\n", _label(title)) if title else None,
        title_justify="left",
    )


def _label(words: str) -> Text:
    line = visible(" ".join(words.split()))
    return Text(line if len(line) <= LABEL else f"{line[: LABEL - 1]}…")


def _cell(cell: Cell, share: bool) -> Text:
    return _label(cell) if isinstance(cell, str) else Text(format_cell(cell, share))


def _print_note(console: Console, note: str) -> None:
    if note:
        console.print(Text(visible(note), "dim"))

"""Sections in a terminal: what a page shows, in words and colours, and nothing that steers it."""

import io

from rich.console import Console

from langue.evaluation.terminal import print_sections
from langue.tasks.judgement import Example, Examples, Highlight, Matrix, Passage, Points, Table

STEERING = "\x1b[31mred\x07\x9b2J\r[bold]x[/bold] \u202eمرحبا \ud800"


def printed(*sections, colours: bool = False) -> str:
    file = io.StringIO()
    system = "standard" if colours else None
    console = Console(file=file, width=100, force_terminal=colours, color_system=system)
    print_sections(console, sections)
    return file.getvalue()


def test_nothing_steers_the_terminal():
    labels = [STEERING, "b"]
    shown = printed(
        Table(STEERING, (STEERING, "n"), [(STEERING, 3)], note=STEERING),
        Matrix(STEERING, labels, labels, [[1, 2], [3, 4]], note=STEERING),
        Matrix(STEERING, labels * 9, labels * 9, [[1] * 18] * 18),
        Examples(
            STEERING,
            (STEERING,),
            [Example([Passage(STEERING, [Highlight(2, 9, STEERING, "wrong")])], (STEERING,))],
            note=STEERING,
        ),
    )
    assert not set(shown) & set("\x1b\x07\x9b\r\ud800")
    assert shown.count("[bold]x[/bold]") >= 8 and shown.encode("utf-8")


def test_tables_and_matrices():
    rows = [("neg", 0.5, 3), ("pos", None, 12345)]
    table = Table("By label", ("label", "F1", "examples"), rows, shares=(1,), bar=1)
    lines = [line.split() for line in printed(table).splitlines() if line.strip()]
    assert lines[1:] == [
        ["label", "F1", "examples"],
        ["neg", "50.00%", "3", "█" * 15],
        ["pos", "–", "12,345"],
    ]
    two = Matrix("Confusions", ["a", "b"], ["a", "b"], [[1, 2], [0, 40]])
    lines = [line.split() for line in printed(two).splitlines() if line.strip()]
    assert lines[1:] == [["true", "\\", "predicted", "a", "b"], ["a", "1", "2"], ["b", "0", "40"]]
    labels = [f"label {i}" for i in range(7)]
    seven = printed(Matrix("Confusions", labels, labels, [[i] * 7 for i in range(7)]))
    assert "7 label 6" in seven and "predicted" in seven
    many = [f"label {i}" for i in range(30)]
    assert "Commonest confusions" in printed(Matrix("Confusions", many, many, [[1] * 30] * 30))
    long = Table("t", ("n",), [(i,) for i in range(40)])
    assert "and 28 more" in printed(long)
    assert printed(Table("t", ("a",), ()), Points("p", "x", "y", [(0, 0)])) == ""


def test_highlights_have_colours_and_names():
    text = "Ada met\nBabbage in London" + " and so on" * 40
    found = [
        Highlight(0, 3, "PER", "right"),
        Highlight(8, 15, "ORG", "wrong"),
        Highlight(4, 15, "PER", "missed"),
    ]
    section = Examples("Mistakes", ("F1",), [Example([Passage(text, found)], (0.5,))], shares=(0,))
    plain = " ".join(printed(section).split())
    assert "Ada[✓PER] met Babbage[✗ORG][○PER] in London" in plain
    assert "more characters)" in plain and "F1 50.00%" in plain
    assert "\x1b[32mAda" in printed(section, colours=True)

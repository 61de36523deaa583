"""The report: everything on one page, nothing fetched, nothing executed, whatever the texts
hold."""

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from json import dumps

import pytest

from langue.evaluation import report
from langue.evaluation.curves import Curves
from langue.evaluation.highlights import excerpt
from langue.evaluation.judge import Verdict
from langue.evaluation.scores import scores_of
from langue.tasks.judgement import (
    Example,
    Examples,
    Highlight,
    Matrix,
    Passage,
    Points,
    Table,
)

RENDERS = True  # figures are rendered: tests/conftest.py

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ page.title }}{% raw %}\x00\x1b[31m"
    "\u202e 酒店 مرحبا 😀 \ud800"
)
VOID = {"meta", "img", "wbr"}
LABELS = [HOSTILE, "b", "c", "d", "e", "f"]


class Reader(HTMLParser):
    """Notes tags and attributes, and fails where tags do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.words = ""
        self.marked: list[tuple[str, str]] = []  # class and text of each highlighted stretch
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "mark":
            self.marked.append((dict(attrs)["class"], ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "mark":
            kind, words = self.marked.pop()
            self.marked.append((kind, words + data))
        if self.open and self.open[-1] != "style":
            self.words += data


def render(*sections, **more) -> Reader:
    return Reader(report.render(report.Page(title=HOSTILE, sections=sections, **more)))


def table(**more) -> Table:
    rows = [(HOSTILE, 0.5, 3), ("b", None, 1234567), ("c", 0.25, 0)]
    return Table(**{"title": HOSTILE, "columns": (HOSTILE, "share", "count"), "rows": rows} | more)


def matrix(labels) -> Matrix:
    n = len(labels)
    counts = [[(3 * i + j) % 7 for j in range(n)] for i in range(n)]
    return Matrix("Confusion matrix", labels, labels, counts, note=HOSTILE)


SECTIONS = {
    "table": table(shares=(1,), bar=1, note=HOSTILE),
    "matrix": matrix(LABELS),
    "wide matrix": matrix([f"{HOSTILE}{i}" for i in range(40)]),
    "points": Points(
        HOSTILE, HOSTILE, HOSTILE, [(0.5, 0.4), (0.9, 1.0)], [3, 0], HOSTILE, True, True, True
    ),
    "examples": Examples(
        HOSTILE,
        (HOSTILE, "confidence"),
        [Example([Passage(HOSTILE), Passage("pair")], (HOSTILE, 0.9))],
        texts_are=HOSTILE,
        shares=(1,),
        note=HOSTILE,
    ),
    "highlights": Examples(
        HOSTILE,
        (),
        [
            Example([Passage(HOSTILE, [Highlight(3, 30, HOSTILE, "right"), Highlight(8, 50)])]),
            Example([Passage(HOSTILE, [Highlight(0, len(HOSTILE), HOSTILE, "wrong")])]),
        ],
    ),
}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_hostile_texts_stay_texts(section):
    summary = {
        "split": HOSTILE,
        "examples": 3,
        "metrics": {"f1": 0.5, "mse": 2.0, "accuracy": None},
        "positive": HOSTILE,
        "intervals": {"f1": [0.4, 0.6]},
        "baseline": {"name": HOSTILE, "metrics": {"f1": 0.4}, "seconds": 1.0},
        "seconds": 2.0,
    }
    page = render(
        section,
        facts=[HOSTILE],
        about={HOSTILE: HOSTILE, "command": HOSTILE},
        verdict=Verdict("same", HOSTILE),
        notes=[HOSTILE, HOSTILE],
        summary=summary,
        primary="f1",
        curves=Curves([]).panels(),
        settings={"train": {"lr": 3e-5, HOSTILE: HOSTILE}, "names": [HOSTILE], "none": None},
    )
    assert "script" not in page.tags and page.tags.count("img") == 2
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:image/png;base64,")
        if name == "style":
            assert re.fullmatch(r"[a-z:.%;0-9(), -]+", value), value
    assert "<script>alert(1)</script>" in page.words and "{{ page.title }}{% raw %}" in page.words
    assert page.words.count("<li>") == 0 and page.tags.count("li") == 1  # one note, told once
    assert "default-src 'none'" in page.text
    assert not re.search("[\x00\x1b\ud800]|https?://", page.text)
    assert page.text.encode("utf-8")
    assert dumps(asdict(section))


def test_texts_cannot_turn_what_stands_around_them():
    """A text in a right-to-left script, or with a mark that turns the order, is set apart."""
    arabic = "\u202eمرحبا"
    section = Table("t", ("label", "F1"), [(arabic, 0.5)])
    found = Highlight(0, 3, arabic, "right")
    page = render(section, Examples("e", (), [Example([Passage(arabic, [found])])]), facts=[arabic])
    for opening in ("<span><bdi>", '<bdi class="label">', '<bdi class="tag right">✓ '):
        assert f"{opening}{arabic}</bdi>" in page.text
    assert page.tags.count("div") == 1 and ("dir", "auto") in page.attributes
    assert page.text.count("unicode-bidi: isolate") == 3


def test_it_shows_what_it_was_given():
    page = render(
        table(shares=(1,), bar=1),
        summary={
            "split": "test",
            "examples": 3,
            "metrics": {"accuracy": 0.9, "f1": 0.8, "f1_micro": 0.9, "mcc": None},
            "positive": "pos",
            "intervals": {"accuracy": [0.85, 0.95], "f1": None},
            "baseline": {"name": "bigrams", "metrics": {"accuracy": 0.7}, "seconds": 2.0},
        },
        primary="accuracy",
        repeated=["f1_micro"],
        verdict=Verdict("better", "Better than its baseline."),
        settings={"train": {"lr": 3e-5}},
    )
    for words in (
        "95% interval",
        "85.00% to 95.00%",
        "baseline: bigrams",
        "F1 of pos",
        "1,234,567",
    ):
        assert words in page.words, words
    assert "train.lr" in page.words and "3e-05" in page.words and "micro" not in page.words
    assert "Better than its baseline" in page.words and "50.00%" in page.words
    assert ("style", "width:50.0%") in page.attributes and (
        "class",
        "verdict better",
    ) in page.attributes
    assert page.words.count("–") == 4  # MCC, two of the baseline and a cell
    assert '<tr class="main"><td>accuracy</td>' in page.text and "nan" not in page.words.lower()


def test_metrics_of_a_hundred_lie_on_the_scale_that_ends_at_one():
    summary = {
        "split": "test",
        "metrics": {"bleu": 30.0, "f1": 0.9, "margin": 7.0},
        "intervals": {"bleu": [20.0, 40.0]},
        "baseline": {"name": "the source", "metrics": {"bleu": 10.0, "margin": 0.5}},
    }
    scores = scores_of(summary, "bleu")
    bleu, f1, margin = scores.rows
    assert scores.low == 0.0 and bleu.value == "30.00"
    assert (bleu.track.at, bleu.track.start, bleu.track.baseline) == (30.0, 20.0, 10.0)
    assert f1.track.at == 90.0 and margin.track is None  # a margin has no end


def test_a_run_says_where_it_comes_from():
    about = {"command": "langue finetune --data 'a b'", "kept": "step 3, the best on dev"}
    page = render(table(), about=about)
    assert page.tags.count("dt") == 2 and "step 3, the best on dev" in page.words
    assert re.sub("<[^>]+>", "", page.text).count("langue finetune --data &#39;a b&#39;") == 1


def test_the_least_that_a_report_needs():
    nothing = (table(rows=()), matrix([]), Points("p", "x", "y", ()), Examples("e", (), ()))
    page = render(*nothing)
    assert "section" not in page.tags and page.tags.count("h1") == 1


def test_points_are_drawn_where_they_lie():
    points = [(i / 10, 1 - i / 10) for i in range(11)]
    page = render(Points("Predicted against true", "true", "predicted", points, diagonal=True))
    assert page.tags.count("circle") == 11 and "polyline" not in page.tags
    assert "stroke-dasharray" in page.text
    free = render(Points("c", "k", "recall", [(1, 0.1), (100, 0.9)], joined=True))
    assert free.tags.count("polyline") == 1 and "stroke-dasharray" not in free.text
    assert {"20", "0.2"} <= set(free.words.split())  # each axis has a scale of its own
    one = render(Points("c", "x", "y", [(2.0, 2.0)], [7], "answers"))
    assert "7 answers: x 2, y 2" in one.words
    nan = float("nan")
    some = render(Points("c", "x", "y", [(0, nan), (1, 2), (float("inf"), 0)], [1, 2, 3]))
    assert some.tags.count("circle") == 1 and "no numbers: 2." in some.words
    undefined = render(table(rows=[("a", nan, 1), ("b", 0.5, 2)], shares=(1,), bar=1))
    assert "nan" not in undefined.text and undefined.text.count('class="bar"') == 1


def test_a_matrix_that_does_not_fit_becomes_its_largest_counts():
    labels = [f"label {i}" for i in range(40)]
    page = render(matrix(labels))
    assert "Commonest confusions" in page.words and "Confusion matrix" not in page.words
    assert page.tags.count("tr") == 16
    counts = [[9, 2, 0], [5, 1, 0], [0, 0, 3]]
    most = Matrix("m", "abc", "abc", counts).largest(2)
    assert list(most.rows) == [("b", "a", 5, 5 / 6), ("a", "b", 2, 2 / 11)]
    other = Matrix("Transitions", "abc", "xyz", counts, "from", "to")
    assert other.largest(1).rows[0] == ("a", "x", 9, 9 / 11) and not other.is_square
    assert "var(--wrong)" not in render(other).text and "var(--wrong)" in render(matrix("abc")).text


def test_small_sections_that_follow_each_other_stand_side_by_side():
    small = matrix(["a", "b"])
    plot = Points("p", "x", "y", [(0, 0)])
    assert render(small, plot, table()).text.count('class="two"') == 1
    assert render(small, table(), plot).text.count('class="two"') == 0
    assert render(matrix(LABELS), plot).text.count('class="two"') == 0


def test_long_texts_are_cut_and_the_cut_is_told():
    long = Examples("e", (), [Example([Passage("x" * 100_000)])])
    assert "(97,000 more characters)" in render(long).words
    many = table(rows=[("l" * 500, 1.0, 1)])
    assert "(420 more characters)" in render(many).words


# --- highlights ---


def test_entities_are_highlighted_in_their_text():
    text = "Ada <b>Lovelace</b> met Babbage in London."
    found = Passage(
        text,
        [
            Highlight(0, 19, "PER", "right"),
            Highlight(24, 31, "ORG", "wrong"),
            Highlight(24, 31, "PER", "missed"),
            Highlight(35, 41, "LOC"),
        ],
    )
    page = render(Examples("e", (), [Example([found])]))
    legend = page.marked[:4]
    assert [kind for kind, _ in legend] == ["right", "wrong", "missed", "plain"]
    assert page.marked[4:] == [
        ("right", "Ada <b>Lovelace</b>"),
        ("wrong missed", "Babbage"),
        ("plain", "London"),
    ]
    assert "Ada <b>Lovelace</b>✓ PER met Babbage✗ ORG○ PER in London LOC." in page.words
    assert ("title", "ORG: predicted, not true; PER: true, not predicted") in page.attributes


def test_highlights_may_overlap_and_nest():
    text = "abcdefghij"
    spans = [
        Highlight(0, 6, "x", "wrong"),
        Highlight(3, 9, "y", "missed"),
        Highlight(4, 5, "z", "wrong"),
    ]
    shown = excerpt(Passage(text, spans), 100)
    assert [(each.text, each.kinds) for each in shown.segments] == [
        ("abc", ("wrong",)),
        ("d", ("wrong", "missed")),
        ("e", ("wrong", "missed")),
        ("f", ("wrong", "missed")),
        ("ghi", ("missed",)),
        ("j", ()),
    ]
    assert [[one.label for one in each.ending] for each in shown.segments] == [
        [],
        [],
        ["z"],
        ["x"],
        ["y"],
        [],
    ]


@pytest.mark.parametrize("seed", range(20))
def test_segments_are_the_text_and_each_character_has_its_highlights(seed):
    import random

    draw = random.Random(seed)
    text = "".join(draw.choice("ab<&\u202e\x00\u05d0\U0001f600") for _ in range(40))
    spans = []
    for number in range(draw.randrange(12)):
        start = draw.randrange(41)
        end = draw.randrange(start, 44)  # beyond the text, or empty, at times
        kind = draw.choice(("plain", "right", "wrong", "missed", "given"))
        spans.append(Highlight(start, end, str(number), kind))
    limit = draw.choice((1000, 25))
    shown = excerpt(Passage(text, spans), limit)
    words = "".join(each.text for each in shown.segments)
    first = shown.before
    assert text[first : first + len(words)] == words
    assert (
        first + len(words) + shown.after == len(text) and len(words) <= max(limit, 0) or limit > 40
    )
    place = first
    for each in shown.segments:
        for character in range(place, place + len(each.text)):
            covering = {span.kind for span in spans if span.start <= character < span.end}
            assert set(each.kinds) == covering
        place += len(each.text)
    tags = sorted(one.label for each in shown.segments for one in each.ending)
    assert len(tags) + shown.unseen == len(spans) and len(set(tags)) == len(tags)


def test_an_answer_deep_in_its_context_is_shown():
    context = "x" * 400_000 + "the answer" + "y" * 90_000
    answer = Highlight(400_000, 400_010, "", "right")
    far = Highlight(489_000, 489_001, "", "missed")
    page = render(Examples("e", (), [Example([Passage(context, [answer, far])])]))
    assert ("right", "the answer") in page.marked and len(page.text) < 40_000
    assert "(399,700 characters before) …" in page.words
    assert "(87,310 more characters)" in page.words
    assert "(1 highlight is not in the part that is shown)" in page.words


def test_what_a_model_was_given_is_told_from_what_it_wrote():
    made = Passage("Once upon a time", [Highlight(0, 4, kind="given")])
    page = render(Examples("What it writes", (), [Example([made])]))
    assert page.marked == [("given", "Once")] and "Once upon a time" in page.words


def test_sections_are_frozen():
    with pytest.raises(AttributeError):
        table().title = "other"
    assert replace(table(), title="other").title == "other"

"""Floor 5. What arrives: a run's judgement and everything around it. What leaves: report.html,
whole without a network.

Labels and texts are hostile until escaped: everything shown goes through `_text`, and the page
forbids itself scripts.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from langue import files
from langue.evaluation import plots
from langue.evaluation.judge import (
    LOWER_IS_BETTER,
    MAIN_METRIC,
    OF_POSITIVE,
    Judgement,
    format_metric,
    metric_label,
    verdict,
)

SIDE = 4  # labels: a larger confusion matrix gets the width of the page
MAX_LABELS = 20  # in a confusion matrix; beyond, the commonest confusions are listed
MAX_PASSAGE = 3000  # characters shown of one text
# no place in a page; shown as U+FFFD
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def write(path: str | Path, context: Mapping[str, Any]) -> None:
    """Write the report of `context`.

    Its keys: `title`, `model`, `task` (classify, multilabel, regress), `metrics_json`, `judgement`,
    and, where there are any, `mistakes` (of `judge.mistakes`), `curves_png` (a path), `settings`,
    `preview` (facts by name), `notes`.
    """
    judgement: Judgement = context["judgement"]
    summary: Mapping[str, Any] = context["metrics_json"]
    parts = [
        _head(context, summary),
        _notes([*judgement.notes, *context.get("notes", ())]),
        _metrics(context["task"], summary),
        _curves(context.get("curves_png")),
        _two(
            _confusion(judgement),
            _calibration(judgement) or _scatter(judgement),
            side=len(judgement.per_class) <= SIDE,
        ),
        _per_class(judgement),
        _mistakes(context["task"], context.get("mistakes") or ()),
        _facts("The data", context.get("preview") or {}),
        _settings(context.get("settings") or {}),
    ]
    _write(path, context["title"], parts)


def write_language(path: str | Path, context: Mapping[str, Any]) -> None:
    """The report of a pretrained model.

    Keys of `context`: `title`, `metrics_json`, `curves_png`, `settings`, `preview`, `notes`, and
    `samples`: what the model was given and what it made of it, as pairs; `samples_are`: what these
    are.
    """
    summary: Mapping[str, Any] = context["metrics_json"]
    plural = "" if summary["examples"] == 1 else "s"
    byline = (
        f"{summary['examples']:,} document{plural} of {_text(summary['split'])} ·"
        f" {summary['seconds']:,.1f} s"
    )
    samples = "".join(
        '<p class="passage"><span'
        f' class="quiet">{_text(given, MAX_PASSAGE)}</span>{_text(made, MAX_PASSAGE)}</p>'
        for given, made in context.get("samples", ())
    )
    told = f'<p class="quiet">{_text(context.get("samples_are", ""))}</p>'
    parts = [
        f'<h1>{_text(context["title"])}</h1>\n<p class="byline">{byline}</p>',
        _notes(list(context.get("notes", ()))),
        _metrics("language", summary),
        _curves(context.get("curves_png")),
        _card("What it writes", told + samples if samples else ""),
        _facts(
            "The run",
            {name.replace("_", " "): fact for name, fact in (context.get("preview") or {}).items()},
        ),
        _settings(context.get("settings") or {}),
    ]
    _write(path, context["title"], parts)


def _write(path: str | Path, title: str, parts: Iterable[str]) -> None:
    template = Template(
        resources.files("langue.evaluation").joinpath("report.html").read_text("utf-8")
    )
    page = template.substitute(title=_text(title), body="\n".join(part for part in parts if part))
    files.write_text(Path(path), page)


def _text(value: Any, limit: int | None = None) -> str:
    """Any value as text that can do nothing but be read."""
    plain = str(value)
    if limit is not None and len(plain) > limit:
        plain = f"{plain[:limit]} … ({len(plain) - limit:,} more characters)"
    return html.escape(_UNSEEN.sub("\ufffd", plain))


def _label(value: Any) -> str:
    return f'<bdi class="label">{_text(value, 80)}</bdi>'


def _card(title: str, content: str) -> str:
    return f'<section class="card"><h2>{title}</h2>\n{content}\n</section>' if content else ""


def _two(left: str, right: str, side: bool) -> str:
    return f'<div class="two">{left}{right}</div>' if left and right and side else left + right


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table>'


def _head(context: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    found = verdict(context["task"], summary)
    facts = [
        f"model {_text(context['model'])}",
        f"task {_text(context['task'])}",
        f"{summary['examples']:,} examples of {_text(summary['split'])}",
        f"trained in {summary['seconds']:,.1f} s",
    ]
    byline = "".join(f"<span>{fact}</span>" for fact in facts)
    return (
        f'<h1>{_text(context["title"])}</h1>\n<p class="byline">{byline}</p>\n'
        f'<p class="verdict {found.outcome}">{_text(found.sentence)}</p>'
    )


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(note)}</li>" for note in dict.fromkeys(notes))
    return _card("Read this first", f'<ul class="notes">{items}</ul>' if items else "")


def _metrics(task: str, summary: Mapping[str, Any]) -> str:
    """The metrics with their intervals, each beside the baseline's."""
    baseline = summary.get("baseline") or {}
    main = summary.get("main_metric") or MAIN_METRIC.get(task, "perplexity")
    theirs: Mapping[str, float | None] = baseline.get("metrics") or {}
    shown = {
        name: value
        for name, value in summary["metrics"].items()
        if not (task == "classify" and name == "f1_micro")
    }
    low = _least(shown, summary["intervals"], theirs)
    rising = any(name not in LOWER_IS_BETTER for name in shown)
    rows = []
    for name, value in shown.items():
        interval = summary["intervals"].get(name)
        span = (
            f"{format_metric(name, interval[0])} to {format_metric(name, interval[1])}"
            if interval
            else ""
        )
        what = metric_label(name)
        if name in OF_POSITIVE and "positive" in summary:
            what += f" of {_label(summary['positive'])}"
        elif name in LOWER_IS_BETTER:
            what += ' <span class="quiet">(lower is better)</span>'
        cells = [
            what,
            format_metric(name, value),
            *([f'<span class="quiet">{span}</span>'] if summary["intervals"] else []),
        ]
        if baseline:
            cells.append(format_metric(name, theirs.get(name)))
        if rising:
            plain = value is None or name in LOWER_IS_BETTER
            cells.append("" if plain else _track(value, interval, theirs.get(name), low))
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr class="{"main" if name == main else ""}">{row}</tr>')
    scale = f'<span class="scale"><span>{low:.2g}</span><span>1</span></span>'
    head = ["", "this model", *(["95% interval"] if summary["intervals"] else [])]
    head += [*(["baseline"] if baseline else []), *([scale] if rising else [])]
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    legend = '<span class="key"></span> this model and its interval &ensp; ' if rising else ""
    if baseline:
        legend += (
            f'<span class="key baseline"></span> baseline: {_text(baseline["name"])}, '
            f"trained and tested on the same texts in {baseline['seconds']:,.1f} s"
        )
    return _card("How good it is", f'{table}\n<p class="quiet">{legend}</p>')


def _least(
    metrics: Mapping[str, Any], intervals: Mapping[str, Any], theirs: Mapping[str, Any]
) -> float:
    """Where the scale shared by all metrics begins, so that near numbers can be told apart: a round
    one below all."""
    rising = [name for name in metrics if name not in LOWER_IS_BETTER]
    found = [
        number
        for name in rising
        for number in (metrics[name], theirs.get(name), *(intervals.get(name) or ()))
    ]
    return max(
        -1.0, math.floor(10 * min((n for n in found if n is not None), default=0.0) - 0.5) / 10
    )


def _track(value: float, interval: Sequence[float] | None, other: float | None, low: float) -> str:
    """A line from `low` to 1 with the model, its interval and the baseline on it."""

    def at(number: float) -> float:
        return 100 * (number - low) / (1 - low)

    band = ""
    if interval:
        low_end = at(interval[0])
        width = at(interval[1]) - low_end
        band = f'<i style="left:{low_end:.2f}%;width:{width:.2f}%"></i>'
    mark = f'<u style="left:{at(other):.2f}%"></u>' if other is not None else ""
    return f'<span class="track">{band}{mark}<b style="left:{at(value):.2f}%"></b></span>'


def _curves(path: str | Path | None) -> str:
    if path is None or not Path(path).is_file():
        return ""
    data = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    image = (
        '<img class="curves" alt="Loss and quality over the steps of training"'
        f' src="data:image/png;base64,{data}">'
    )
    return _card("How training went", image)


def _confusion(judgement: Judgement) -> str:
    counts = judgement.confusion
    if counts is None:
        return ""
    labels = list(judgement.per_class)
    if len(labels) > MAX_LABELS:
        return _confusions(counts, labels)
    rows = []
    for i, row in enumerate(counts):
        total = max(1, sum(row))
        true = _text(labels[i], 80)
        cells = "".join(_cell(count, total, i == j, true) for j, count in enumerate(row))
        rows.append(f"<tr><th>{_label(labels[i])}</th>{cells}</tr>")
    head = "".join(f"<th>{_label(label)}</th>" for label in labels)
    turned = " turned" if len(labels) > SIDE else ""
    table = f'<table class="confusion{turned}"><thead><tr><th></th>{head}</tr></thead>'
    table += f"<tbody>{''.join(rows)}</tbody></table>"
    return _card(
        "Confusion matrix",
        f'{table}\n<p class="quiet">Rows are true, columns predicted; colour is the share of the'
        " row.</p>",
    )


def _cell(count: int, total: int, right: bool, true: str) -> str:
    """A cell of the confusion matrix; total: examples of its row, whose label is `true`."""
    share = count / total
    colour = "heat" if right else "wrong"
    style = f"background:rgba(var(--{colour}),{0.85 * share:.3f})"
    title = f"{100 * share:.1f}% of true {true}"
    return f'<td style="{style}" title="{title}">{count:,}</td>'


def _confusions(counts: list[list[int]], labels: list[str]) -> str:
    """The commonest confusions, where a matrix would not fit the page."""
    wrong = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
    worst = sorted(wrong, key=lambda one: (-one[0], one[1:]))[:15]
    rows = [
        (_label(labels[i]), _label(labels[j]), f"{n:,}", f"{100 * n / sum(counts[i]):.1f}%")
        for n, i, j in worst
    ]
    return _card(
        "Commonest confusions",
        _table(["true", "predicted", "times", "of the true"], rows) if rows else "",
    )


def _calibration(judgement: Judgement) -> str:
    if not judgement.calibration:
        return ""
    told = (
        '<p class="quiet">Of the answers given with some confidence, how many are right. On the'
        " diagonal they agree; below it the model is too sure of itself. The size of a point is the"
        " number of its answers.</p>"
    )
    return _card("Calibration", plots.calibration(judgement.calibration) + told)


def _scatter(judgement: Judgement) -> str:
    if not judgement.points:
        return ""
    count = len(judgement.points)
    told = (
        f"{count:,} of {judgement.examples:,} examples, drawn at random"
        if count < judgement.examples
        else "Every example"
    )
    note = f'<p class="quiet">{told}; on the diagonal the prediction is exact.</p>'
    return _card("Predicted against true", plots.scatter(judgement.points) + note)


def _per_class(judgement: Judgement) -> str:
    rows = []
    for label, values in judgement.per_class.items():
        bar = f'<span class="bar"><i style="width:{100 * values["f1"]:.1f}%"></i></span>'
        shares = [format_metric(name, values[name]) for name in ("precision", "recall", "f1")]
        rows.append(
            (_label(label), shares[0], shares[1], shares[2] + bar, f"{values['support']:,.0f}")
        )
    return _card(
        "By label", _table(["", "precision", "recall", "F1", "examples"], rows) if rows else ""
    )


def _mistakes(task: str, mistakes: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for mistake in mistakes:
        texts = [mistake["text"], *([mistake["pair"]] if "pair" in mistake else [])]
        passages = "".join(
            f'<div class="passage" dir="auto">{_text(text, MAX_PASSAGE)}</div>' for text in texts
        )
        score = f"{mistake['score']:.3f}" if task == "regress" else f"{100 * mistake['score']:.1f}%"
        shown = [_label(mistake["label"]), _label(mistake["predicted"]), score]
        cells = "".join(f"<td>{each}</td>" for each in shown)
        rows.append(f'<tr><td class="text">{passages}</td>{cells}</tr>')
    last = "error" if task == "regress" else "confidence"
    head = f'<tr><th class="text">text</th><th>true</th><th>predicted</th><th>{last}</th></tr>'
    told = (
        '<p class="quiet">The surest of its wrong answers first: a good place to look for wrong'
        " labels, too.</p>"
    )
    if task == "regress":
        told = (
            '<p class="quiet">The largest errors first: a good place to look for wrong scores,'
            " too.</p>"
        )
    table = (
        f'{told}<table class="mistakes"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return _card("Worst mistakes", table if rows else "")


def _facts(title: str, facts: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{_text(name)}</dt><dd>{_fact(value)}</dd>" for name, value in facts.items()
    )
    return _card(title, f'<dl class="facts">{items}</dl>' if items else "")


def _fact(value: Any) -> str:
    """One fact: a number, a text, a list, or counts by name, which get bars."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, Mapping):
        most = max((n for n in value.values() if isinstance(n, int | float)), default=0)
        return "<br>".join(
            (
                f"{_label(name)} {_fact(n)}"
                + (
                    f'<span class="bar"><i style="width:{100 * n / most:.1f}%"></i></span>'
                    if most
                    else ""
                )
                if isinstance(n, int | float) and n >= 0
                else f"{_label(name)}: {_fact(n)}"
            )
            for name, n in value.items()
        )
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "<br>".join(_fact(one) for one in value) or "–"
    return f'<bdi dir="auto">{_text(value, MAX_PASSAGE)}</bdi>'


def _settings(settings: Mapping[str, Any]) -> str:
    """Settings as `section.key`, however they are nested."""

    def flat(prefix: str, branch: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
        for name, value in branch.items():
            if isinstance(value, Mapping):
                yield from flat(f"{prefix}{name}.", value)
            else:
                yield f"{prefix}{name}", value

    items = "".join(
        f"<dt><code>{_text(name)}</code></dt><dd><code>{_text(value)}</code></dd>"
        for name, value in flat("", settings)
    )
    if not items:
        return ""
    return (
        f'<details class="card"><summary>Settings</summary><dl class="facts">{items}</dl></details>'
    )

"""Floor 5. What arrives: the facts of a text. What leaves: a page that shows them, whole without a
network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from langue import files
from langue.evaluation.report import _card, _facts, _label, _notes, _table, _text


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Texts are hostile until escaped: everything shown goes through `_text`, and the page forbids
    itself scripts."""
    parts = [
        f'<h1>{_text(facts["name"])}</h1>\n<p class="byline">{_text(_sizes(facts))}</p>',
        _notes(facts["notes"]),
        *(_lengths(lengths) for lengths in _all_lengths(facts)),
        _shares("Scripts", facts["scripts"], "characters"),
        _shares("Languages, as script and common words suggest", facts["languages"], "documents"),
        _facts("Copies", _copies(facts)),
        _examples("Documents drawn at random", [{"text": text} for text in facts["samples"]]),
        _examples("The longest", facts["longest"]),
        _examples("The shortest", facts["shortest"]),
    ]
    template = Template(
        resources.files("langue.evaluation").joinpath("report.html").read_text("utf-8")
    )
    body = "\n".join(part for part in parts if part)
    files.write_text(path, template.substitute(title=_text(facts["name"]), body=body))


def _all_lengths(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [facts[name] for name in ("token_lengths", "lengths") if facts.get(name)]


def _sizes(facts: Mapping[str, Any]) -> str:
    counts = [
        f"{facts[name]:,} {name}"
        for name in ("documents", "tokens", "characters")
        if facts.get(name) is not None
    ]
    return " · ".join([*counts, f"language: {facts['language']} (guessed by script and words)"])


def _copies(facts: Mapping[str, Any]) -> dict[str, Any]:
    found = facts["duplicates"]
    return {
        "exact copies of another document": found["exact"],
        f"near copies, among the first {found['near_among']:,}": found["near"],
    }


def _bar(count: int, most: int) -> str:
    return f'<span class="bar"><i style="width:{100 * count / max(1, most):.1f}%"></i></span>'


def _lengths(lengths: Mapping[str, Any]) -> str:
    most = max((each["documents"] for each in lengths["histogram"]), default=0)
    rows = [
        (
            f"{each['from']:,} to {each['to']:,}",
            f"{each['documents']:,}{_bar(each['documents'], most)}",
        )
        for each in lengths["histogram"]
    ]
    told = ", ".join(
        f"{name} {lengths[name]:,}"
        for name in ("shortest", "median", "mean", "p90", "p99", "longest")
    )
    table = _table([lengths["unit"], "documents"], rows)
    return _card(
        f"How long they are, in {lengths['unit']}",
        f'{table}<p class="quiet">{told}</p>' if rows else "",
    )


def _shares(title: str, counts: Mapping[str, int], what: str) -> str:
    total = sum(counts.values())
    rows = [
        (_label(name), f"{count:,}", f"{count / total:.2%}{_bar(count, total)}")
        for name, count in counts.items()
        if total
    ]
    return _card(title, _table(["", what, "share"], rows) if rows else "")


def _examples(title: str, examples: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            f'<div class="passage" dir="auto">{_text(each["text"])}</div>',
            f"{each['characters']:,}" if "characters" in each else "",
        )
        for each in examples
    ]
    body = "".join(
        f'<tr><td class="text">{text}</td><td>{length}</td></tr>' for text, length in rows
    )
    return _card(title, f'<table class="mistakes"><tbody>{body}</tbody></table>' if rows else "")

"""What arrives: what a verb returned. What leaves: it printed, for people through Rich, for
programs as JSON."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from langue.cli.show_text import print_notes

if TYPE_CHECKING:
    from langue.runs.corpora import Pretraining
    from langue.runs.prepare import Finetuning


def print_json(content: Any) -> None:
    wide = (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")
    print(json.dumps(content, ensure_ascii=not wide, indent=2))


def preview_printer(as_json: bool) -> "Callable[[Finetuning], None]":
    """What a training verb calls before it trains. Programs that read stdout get only the result
    there."""
    from langue.verbs.preview import show

    return lambda prepared: show(prepared, Console(stderr=as_json))


def print_metrics(content: Mapping[str, Any]) -> None:
    """metrics.json as a table, the baseline beside, and the verdict."""
    from langue.evaluation.judge import verdict

    console = Console()
    console.print(_scores(content, "example"))
    judged = verdict(content)
    colour = {"better": "bold green", "worse": "bold red"}.get(judged.outcome, "bold yellow")
    console.print(Text(judged.sentence, style=colour))
    print_notes(console, content.get("notes", []))
    if content["split"] == "dev":
        console.print(
            Text(
                "dev chose the best step, so these scores flatter: judge on texts set apart as"
                " test",
                "yellow",
            )
        )
    if "threshold" in content:
        console.print(
            Text(
                f"a label is given from a probability of {content['threshold']:.4g} on (chosen on"
                " dev)"
            )
        )
    seen = content.get("seen", {})
    if seen.get("exact") or seen.get("near"):
        console.print(
            Text(
                f"! of these {seen['of']:,} texts {seen['exact']:,} stand in the run's training"
                f" data exactly and {seen['near']:,} nearly; what was learnt by heart counts here"
                " as skill",
                "yellow",
            )
        )


def print_pretraining(prepared: "Pretraining", as_json: bool) -> None:
    """What will be trained, before it is: some of the first batch, its tokens coloured by what
    carries loss; sizes."""
    from langue.progress import span
    from langue.runs.corpora import first_pieces
    from langue.runs.judge_language import listed

    console = Console(stderr=as_json)
    facts = prepared.facts
    for tokens in first_pieces(prepared):
        line = Text(overflow="fold")
        for word, predicted in tokens:
            line.append(word, style="green" if predicted else "dim")
        console.print(line)
    console.print("[green]green[/]: what is predicted · [dim]dim: only read[/]\n", highlight=False)
    rows = {
        "model": (
            f"{facts['family']}, {facts['layers']} layers of {facts['width']}, {facts['heads']}"
            f" heads, {facts['parameters']:,} parameters"
        ),
        **(
            {"new": f"{listed(facts['new_weights'])}, which the model lacks"}
            if "new_weights" in facts
            else {}
        ),
        "text": (
            f"{facts['documents']:,} documents, {facts['tokens']:,} tokens of"
            f" {facts['vocabulary']:,}, {facts['bytes'] / max(1, facts['tokens']):.2f} bytes each"
        ),
        "held out": f"{facts['dev_documents']:,} documents, {facts['dev_tokens']:,} tokens",
        "steps": (
            f"{facts['steps']:,} of {facts['tokens_per_step']:,} tokens, chunks of at most"
            f" {facts['block']:,}; {facts['passes']:.2g} epochs of {facts['tokens_per_epoch']:,}"
            f" tokens, {facts['tokens_per_parameter']:.2g} tokens a parameter"
        ),
        "time": f"about {span(facts['seconds_estimated'])} on this machine in {facts['precision']}",
    }
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        grid.add_row(Text(name, "bold"), value)
    console.print(grid)
    print_notes(console, facts["notes"])


def print_language(content: Mapping[str, Any]) -> None:
    """metrics.json of a pretrained model, the n-gram baseline beside."""
    from langue.runs.judge_language import began, better_than_baseline

    console = Console()
    console.print(_scores(content, "document"))
    for sentence in (better_than_baseline(content), began(content)):
        if sentence:
            print(sentence)
    print_notes(console, content.get("notes", []))


def _scores(content: Mapping[str, Any], noun: str) -> Table:
    """The metrics, their intervals where there are some, the baseline's beside."""
    from langue.evaluation.cells import visible
    from langue.evaluation.judge import format_metric, named

    baseline = content.get("baseline") or {}
    intervals = content["intervals"]
    plural = "" if content["examples"] == 1 else "s"
    grid = Table(
        title=f"{content['examples']:,} {noun}{plural} of {content['split']}", title_justify="left"
    )
    heads = [
        "metric",
        "model",
        *(["95% interval"] if intervals else []),
        *([baseline["name"]] if baseline else []),
    ]
    for name in heads:
        grid.add_column(str(name), justify="left" if name == "metric" else "right")
    for name, value in content["metrics"].items():
        # a label may look like markup
        row: list[Text | str] = [Text(visible(named(name, content))), format_metric(name, value)]
        row += (
            [" – ".join(format_metric(name, end) for end in intervals.get(name) or ())]
            if intervals
            else []
        )
        grid.add_row(
            *row, *([format_metric(name, baseline["metrics"].get(name))] if baseline else [])
        )
    return grid


def print_predictions(texts: list[str], results: list[Any]) -> None:
    """One row a prediction: what is predicted, how sure, and the beginning of the text."""
    # of a text without a label, or without anything in it
    empty = {"label": "–", "score": math.nan}
    rows = [
        (result if isinstance(result, list) else [result or empty]) or [empty] for result in results
    ]
    widest = max((len(_said(each)) for row in rows for each in row), default=1)
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    # Where it gets narrow, the text is cut and not what was said of it.
    grid.add_column(no_wrap=True, min_width=min(widest, 30))
    grid.add_column(no_wrap=True, min_width=5)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for text, row in zip(texts, rows, strict=True):
        for position, each in enumerate(row):
            shown = " ".join(text.split()) if position == 0 else ""
            sure = each.get("score", math.nan)
            score = "" if math.isnan(sure) else f"{sure:.3f}"
            grid.add_row(Text(_said(each), "bold"), score, Text(shown))
    Console().print(grid)


def _said(prediction: Mapping[str, Any]) -> str:
    """The words of a prediction: a label, or a type and the words that are of it."""
    return " ".join(value for value in prediction.values() if isinstance(value, str)) or "–"


def print_checks(outcome: Mapping[str, Any]) -> None:
    """One row a check of `langue verify`."""
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    marks = {
        True: Text("ok", "bold green"),
        False: Text("failed", "bold red"),
        None: Text("not made", "yellow"),
    }
    for check in outcome["checks"]:
        grid.add_row(marks[check["ok"]], check["check"], Text(check["detail"]))
    Console().print(grid)


def print_model(facts: Mapping[str, Any]) -> None:
    """The facts of `langue inspect`: a tree, then what it can do and takes."""
    console = Console()
    memory = facts["memory"]
    console.print(_branch(facts["tree"], None))
    context = "any length" if facts["context"] is None else f"{facts['context']:,} tokens"
    rows = {
        "family": f"{facts['family']}, {facts['architecture']}",
        **(
            {"task": f"{task['name']}: {', '.join(task['labels'])}"}
            if (task := facts["task"])
            else {}
        ),
        "built of": "; ".join(facts["axes"]),
        "parameters": (
            f"{facts['parameters']:,} ({_size(facts['bytes']['fp32'])} in fp32, "
            f"{_size(facts['bytes']['bf16'])} in bf16)"
        ),
        "context": context,
        **_tokenizer_rows(facts["tokenizer"]),
        "uses": ", ".join(facts["uses"]),
        "memory": (
            f"{_size(memory['inference'])} to use, {_size(memory['training'])} to train, "
            f"with one text of {memory['length']:,} tokens"
        ),
    }
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        grid.add_row(Text(name, "bold"), Text(value))  # labels may look like markup
    console.print(grid)


def _tokenizer_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """What a tokenizer is, line by line."""
    rows = {"tokenizer": f"{facts['kind']}, {facts['tokens']:,} tokens"}
    if facts["special"]:
        rows["special"] = ", ".join(f"{role} {token}" for role, token in facts["special"].items())
    if facts["languages"]:
        rows["languages"] = ", ".join(facts["languages"])
    if facts["notes"]:
        rows["note"] = "\n".join(facts["notes"])
    return rows


def _branch(part: Mapping[str, Any], tree: Tree | None) -> Tree:
    shape = " x ".join(map(str, part.get("shape", [])))
    times = f" ({part['times']} alike, each)" if "times" in part else ""
    # Of a vector, the shape is the count.
    count = "" if len(part.get("shape", [])) == 1 else f"  {part['parameters']:,}"
    size = f"  {_size(part['bytes'])}"
    label = Text.assemble(
        (part["name"], "bold"), times, f"  {shape}" if shape else "", (count, "dim"), (size, "dim")
    )
    grown = Tree(label) if tree is None else tree.add(label)
    for child in part.get("parts", []):
        _branch(child, grown)
    return grown


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000
    return f"{count:.3g} TB"

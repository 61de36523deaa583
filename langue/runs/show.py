"""Display of results: takes what a verb returned; prints it for people with Rich, or for programs
as JSON.

Prepared runs and models use this to display themselves in notebooks, so they are typed as `Any`
here: a `Finetuning`, a `Pretraining`, a `Model`.
"""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from langue.wording import counted, estimate

if TYPE_CHECKING:
    from langue.data.batch import Examples
    from langue.runs.notebook import Result
    from langue.text.tokenizers.tokenizer import Tokenizer

EXAMPLES = 3  # training examples in a preview
SHOWN_TOKENS = 60  # tokens shown of each
MOST_NAMES = 8  # labels in the description of a model
OTHERS = 2  # further sequences of an example, if it has several answers


def print_json(content: Any) -> None:
    wide = (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")
    print(json.dumps(content, ensure_ascii=not wide, indent=2))


def print_result(result: "Result", as_json: bool) -> None:
    """What a verb returned, as JSON or as tables."""
    if as_json:
        print_json(result)
    else:
        result.print(Console())


def preview_printer(as_json: bool) -> Callable[[Any], None]:
    """Return the function that a training verb calls before training; with JSON output, the preview
    goes to stderr.
    """
    return lambda prepared: prepared.print(Console(stderr=as_json))


def print_preview(prepared: Any, console: Console) -> None:
    """Print what will be trained on rows: examples with their tokens, the splits, truncation,
    duplicates, batches, steps and time.
    """
    facts = prepared.facts
    panels = [
        _example(prepared, row) for row in range(min(EXAMPLES, len(prepared.encoded["train"])))
    ]
    legend = Text(
        "green: what carries the loss · dim: special tokens · plain: what the model reads",
        style="italic",
    )
    console.print(
        Panel(
            Group(*panels, legend),
            title=Text(f"what will be trained: {facts['task']} on {facts['origin']}"),
        )
    )
    console.print(_splits(facts))
    for remark in prepared.task.remarks():
        console.print(Text(f"· {remark}"))
    trained = [f"trained: {facts['trained']}"] if "trained" in facts else []
    for note in [*trained, *facts["notes"]]:
        console.print(Text(f"· {note}"))
    for split, found in facts["duplicates"].items():
        if found["exact"] or found["near"]:
            share = (found["exact"] + found["near"]) / found["of"]
            console.print(
                f"[yellow]! {split}: of {counted(found['of'], 'text')} {found['exact']:,} stand in"
                f" train exactly and {found['near']:,} nearly ({share:.1%}); what was learnt by"
                " heart will count there as skill[/]"
            )
        else:
            console.print(f"· no {split} text stands in train, exactly or nearly")
    console.print(
        f"· {counted(facts['steps'], 'step')}, {facts['steps_per_epoch']:,} an epoch, mean"
        f" {facts['mean_tokens']:.0f} tokens, {facts['precision']}:"
        f" {estimate(facts['seconds_estimated'])} on this machine"
    )


def _example(prepared: Any, row: int) -> Text:
    """Return one training example: its tokens as the model gets them, and what carries the loss,
    which is some of these tokens if tokens are predicted, else the target after them.
    """
    encoded = prepared.encoded["train"]
    writes = prepared.task.has_language_head
    tokenizer = prepared.checkpoint.tokenizer
    first, *more = encoded.sequences_of(row).tolist()
    line = Text(overflow="fold")
    if encoded.decoder is not None:
        _append_tokens(line, _tokens_of(encoded.examples, first, False), tokenizer)
        line.append("→ ", style="bold")
        targets = _tokens_of(encoded.decoder, first, True)[1:]
        _append_tokens(line, targets, tokenizer.target)
    else:
        _append_tokens(line, _tokens_of(encoded.examples, first, writes), tokenizer)
    if writes:
        for other in more[:OTHERS]:
            line.append("| ", style="bold")
            _append_tokens(line, _tokens_of(encoded.examples, other, writes), tokenizer)
        more = more[OTHERS:]
    if more:
        line.append(f"+ {counted(len(more), 'more sequence')} ", style="dim italic")
    if not writes:
        line.append(f"→ {prepared.task.show_target(encoded.golds[row])}", style="bold green")
    sides = [encoded.examples] + ([encoded.decoder] if encoded.decoder is not None else [])
    if cut := sum(int(side.cut[[first, *more]].sum()) for side in sides):
        line.append(f"  ({counted(cut, 'token')} cut)", style="yellow")
    return line


def _tokens_of(examples: "Examples", row: int, follows: bool) -> list[tuple[int, bool]]:
    """Return the tokens of a sequence, each with whether it carries loss.

    follows: a token's label is the next token; otherwise it is a target of its own.
    """
    part = slice(examples.starts[row], examples.starts[row + 1])
    ids = examples.tokens[part].tolist()
    if examples.labels is None:
        return [(token, False) for token in ids]
    labels = examples.labels[part].tolist()
    learnt = [label >= 0 for label in labels]
    if not follows:
        return list(zip(ids, learnt, strict=True))
    # the last predicted token is no input, and occurs only among the labels
    last = [labels[-1]] if learnt[-1] else []
    return list(zip([*ids, *last], [False, *learnt], strict=False))


def _append_tokens(line: Text, tokens: list[tuple[int, bool]], tokenizer: "Tokenizer") -> None:
    special = {
        index
        for index, token in tokenizer.backend.get_added_tokens_decoder().items()
        if token.special
    }
    half = SHOWN_TOKENS // 2
    gone = len(tokens) - SHOWN_TOKENS
    for place, (token, learnt) in enumerate(tokens):
        if gone > 0 and half <= place < len(tokens) - half:
            if place == half:
                line.append(f"… {gone:,} more … ", style="dim italic")
            continue
        style = "dim" if token in special else ""
        if learnt:
            style = "green"
        line.append(tokenizer.shown(token), style=style)


def _splits(facts: Mapping[str, Any]) -> Table:
    from langue.evaluation.cells import format_cell

    grid = Table(box=None, header_style="bold", padding=(0, 2))
    for name in ("split", "examples", "tokens", "longest", "cut", "balance"):
        grid.add_column(name, justify="left" if name in ("split", "balance") else "right")
    for name, split in facts["splits"].items():
        balance = list(split["balance"].items())
        # counts are sorted, largest first
        if all(isinstance(number, int) for _, number in balance):
            balance.sort(key=lambda pair: -pair[1])
        words = ", ".join(f"{label} {format_cell(count)}" for label, count in balance[:6])
        words += f" … {len(balance) - 6} more" if len(balance) > 6 else ""
        cut = counted(split["cut_examples"], "text") if split["cut_examples"] else "none"
        grid.add_row(
            name,
            f"{split['examples']:,}",
            f"{split['tokens']:,}",
            str(split["longest"]),
            cut,
            Text(words),
        )
    return grid


def print_run(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print metrics.json of any run: of labelled rows, of text, or of repeated runs."""
    if "runs" in content:
        from langue.evaluation.repeats import sections_of_repeats
        from langue.evaluation.terminal import print_sections

        print_sections(console or Console(), sections_of_repeats(content))
    elif "perplexity" in content["metrics"]:
        print_language(content, console)
    else:
        print_metrics(content, console)


def print_metrics(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print metrics.json as a table with the baseline, and the verdict."""
    from langue.evaluation.judge import verdict

    console = console or Console()
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
    whose = {"seen": "the run's", "other_seen": "the other run's"}
    for key, owner in whose.items():
        seen = content.get(key, {})
        if seen.get("exact") or seen.get("near"):
            console.print(
                Text(
                    f"! of {counted(seen['of'], 'text')} {seen['exact']:,} stand in {owner}"
                    f" training data exactly and {seen['near']:,} nearly; what was learnt by heart"
                    " counts here as skill",
                    "yellow",
                )
            )


def print_pretraining(
    prepared: Any, pieces: list[list[tuple[str, bool]]], console: Console
) -> None:
    """Print what will be trained on text: parts of the first batch, with tokens coloured by whether
    they carry loss, and sizes.

    pieces: tokens, each with whether it carries loss.
    """
    from langue.evaluation.judge import listed

    facts = prepared.facts
    for tokens in pieces:
        line = Text(overflow="fold")
        for word, predicted in tokens:
            line.append(word, style="green" if predicted else "dim")
        console.print(line)
    console.print("[green]green[/]: what is predicted · [dim]dim: only read[/]\n", highlight=False)
    rows = {
        "model": (
            f"{facts['family']}, {counted(facts['layers'], 'layer')} of {facts['width']},"
            f" {counted(facts['heads'], 'head')}, {facts['parameters']:,} parameters"
        ),
        **(
            {"new": f"{listed(facts['new_weights'])}, which the model lacks"}
            if "new_weights" in facts
            else {}
        ),
        **({"trained": facts["trained"]} if "trained" in facts else {}),
        "text": (
            f"{counted(facts['documents'], 'document')}, {counted(facts['tokens'], 'token')} of"
            f" {facts['vocabulary']:,}, {facts['bytes'] / max(1, facts['tokens']):.2f} bytes each"
        ),
        "held out": (
            f"{counted(facts['dev_documents'], 'document')},"
            f" {counted(facts['dev_tokens'], 'token')}"
        ),
        "steps": (
            f"{facts['steps']:,} of {counted(facts['tokens_per_step'], 'token')}, chunks of at most"
            f" {facts['block']:,}; {facts['passes']:.2g} epochs of {facts['tokens_per_epoch']:,}"
            f" tokens, {facts['tokens_per_parameter']:.2g} tokens a parameter"
        ),
        "time": (f"{estimate(facts['seconds_estimated'])} on this machine in {facts['precision']}"),
    }
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        grid.add_row(Text(name, "bold"), value)
    console.print(grid)
    print_notes(console, facts["notes"])


def print_language(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print metrics.json of a pretrained model, with the n-gram baseline."""
    from langue.evaluation.judge import began, better_than_baseline

    console = console or Console()
    console.print(_scores(content, "document"))
    for sentence in (better_than_baseline(content), began(content)):
        if sentence:
            console.print(Text(sentence), soft_wrap=True)
    print_notes(console, content.get("notes", []))


def print_task(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the result of a task file, and what its numbers depend on."""
    console = console or Console()
    console.print(_scores(content, "row"))
    how = ("few_shot", "target_delimiter", "prefix_token", "max_length", "stride", "dtype")
    said = [f"{name} {content[name]!r}" for name in how if name in content]
    console.print(Text(f"{content['task']}, {content['output_type']}: {', '.join(said)}"))
    print_notes(console, content["notes"])


def model_facts(model: Any) -> dict[str, str]:
    """Return what a loaded model is, in a few words each."""
    config = model.config
    parameters = sum(weight.numel() for weight in model.body.parameters())
    held = model.weights or str(model.dtype).removeprefix("torch.")
    facts = {
        "name": model.checkpoint.name or str(model.checkpoint.folder),
        "family": f"{model.checkpoint.family.name}, {config.n_layers} layers of {config.dim:,}",
        "body": f"{parameters:,} parameters",
        "in": f"{held} on {model.device}",
    }
    if model.task is not None:
        names = model.task.output_names()
        more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
        labels = f": {', '.join(names[:MOST_NAMES])}{more}" if names else ""
        facts["task"] = f"{model.task.name}{labels}"
    if model.adapter is not None:
        facts["adapter"] = model.adapter
    return facts


def print_pairs(rows: Mapping[str, str], console: Console) -> None:
    """Print names and values, which may contain markup."""
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        grid.add_row(Text(name, "bold"), Text(value))
    console.print(grid)


def print_notes(console: Console, notes: list[str]) -> None:
    from langue.evaluation.cells import visible

    for note in notes:
        console.print(Text(f"· {visible(note)}"))


def _scores(content: Mapping[str, Any], noun: str) -> Table:
    """Return a table of the metrics, with their intervals and the baseline if there are any."""
    from langue.evaluation.cells import visible
    from langue.evaluation.judge import format_metric, named

    baseline = content.get("baseline") or {}
    intervals = content["intervals"]
    title = f"{counted(content['examples'], noun)} of {content['split']}"
    grid = Table(title=title, title_justify="left")
    heads = [
        "metric",
        "model",
        *(["95% interval"] if intervals else []),
        *([baseline["name"]] if baseline else []),
    ]
    for name in heads:
        grid.add_column(str(name), justify="left" if name == "metric" else "right")
    for name, value in content["metrics"].items():
        # a label may contain markup
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
    """Print one row for each prediction: what is predicted, the score, and the beginning of the
    text.
    """
    # for texts without a label, and empty texts
    empty = {"label": "–", "score": math.nan}
    rows = []
    widest = 1
    for result in results:
        row = result if isinstance(result, list) else [result or empty]
        row = row or [empty]
        rows.append(row)
        widest = max(widest, *(len(_said(each)) for each in row))
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    # In a narrow terminal the text is cut, not the prediction.
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


def print_stopped(facts: Mapping[str, Any], console: Console) -> None:
    """Print how far a stopped run has come, and how to resume it."""
    rows = {"run": f"{facts['run']}, which has not come to its end"}
    train = facts["train"]
    dev = facts["dev"]
    if train is not None:
        goal = facts["max_steps"] or facts["epochs"]
        unit = "steps" if facts["max_steps"] else "epochs"
        rows["made"] = f"{train['step']:,} steps, epoch {train['epoch']:.3g} (of {goal:g} {unit})"
        rows["train"] = _line(train)
    if dev is not None:
        rows["dev"] = f"{_line(dev)} at step {dev['step']:,}"
    newest = facts["checkpoint"]
    rows["checkpoint"] = "none: it begins anew" if newest is None else f"step {newest:,}"
    rows["go on"] = facts["resume"]
    print_pairs(rows, console)


def _line(line: Mapping[str, Any]) -> str:
    """Return the measurements in a line of log.jsonl."""
    counts = ("split", "step", "epoch", "examples", "tokens", "seconds", "samples", "lr")
    measured = {
        name: value
        for name, value in line.items()
        if name not in counts and isinstance(value, int | float)
    }
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


def print_turns(turns: Sequence[tuple[str, str]], console: Console) -> None:
    """Print the questions and answers of a conversation."""
    from langue.evaluation.cells import visible

    for question, answer in turns:
        console.print(Text(f"> {visible(question)}", "bold"))
        console.print(Text(visible(answer)))


def print_ranked(given: list[str], answers: list[list[tuple[str, float]]]) -> None:
    """Print each text with its ranked answers and their scores."""
    console = Console()
    for text, rows in zip(given, answers, strict=True):
        grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for said, score in rows:
            shown = f"{score:.4f}" if score >= 0.001 or score == 0 else f"{score:.1e}"
            grid.add_row(shown, Text(said, "bold"))
        console.print(Text(text, "dim"))
        console.print(grid)


def _said(prediction: Mapping[str, Any]) -> str:
    """Return the words of a prediction: a label, or an entity type and its words; of a vector, its
    first elements.
    """
    vectors = [value for value in prediction.values() if isinstance(value, list)]
    if vectors:
        return f"{' '.join(f'{each:.3f}' for each in vectors[0][:3])} … ({len(vectors[0])} numbers)"
    return " ".join(value for value in prediction.values() if isinstance(value, str)) or "–"


def print_checks(outcome: Mapping[str, Any], console: Console | None = None) -> None:
    """Print one row for each check of `langue verify`."""
    grid = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    marks = {
        True: Text("ok", "bold green"),
        False: Text("failed", "bold red"),
        None: Text("not made", "yellow"),
    }
    for check in outcome["checks"]:
        grid.add_row(marks[check["ok"]], check["check"], Text(check["detail"]))
    (console or Console()).print(grid)


def print_model(facts: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the facts of `langue inspect`: a tree of the modules, then what the model can do and
    needs.
    """
    console = console or Console()
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
        **_adapter_row(facts["adapter"]),
        "context": context,
        **_tokenizer_rows(facts["tokenizer"]),
        "uses": ", ".join(facts["uses"]),
        "memory": (
            f"{_size(memory['inference'])} to use, {_size(memory['training'])} to train, "
            f"with one text of {memory['length']:,} tokens"
        ),
    }
    print_pairs(rows, console)


def _adapter_row(adapter: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what was trained on the base, if the model is an adapter."""
    if adapter is None:
        return {}
    return {
        "adapter": (
            f"{adapter['method']} of {adapter['maps']} linear maps of {adapter['base']};"
            f" {adapter['trained']:,} weights were trained"
        )
    }


def _tokenizer_rows(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts about a tokenizer, line by line."""
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
    # The shape of a vector is its count.
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
    """Return a number of bytes in readable form."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000
    return f"{count:.3g} TB"

"""Reads a task file in the format of `lm-evaluation-harness` (YAML or JSON) as a `TaskFile`, or
reports in one line what is wrong with it.

The file is untrusted: it is parsed without constructing objects, its templates run in a sandbox,
and `!function`, which refers to Python code, is rejected.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langue.errors import DataError
from langue.files import unreadable

MOST = 1_000_000  # maximum size of a task file in bytes
INCLUDES = 10  # maximum length of a chain of includes
OUTPUT_TYPES = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
METRICS = {
    "multiple_choice": (
        *("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"),
        *("f1", "mcc", "brier_score"),
    ),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "generate_until": ("exact_match", "bleu", "chrf"),
}
USUAL_METRICS = METRICS | {  # if the file names none
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
}
AGGREGATIONS = {
    **dict.fromkeys(("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"), "mean"),
    "f1": "f1",
    "mcc": "matthews_corrcoef",
    "brier_score": "brier_score",
    "perplexity": "perplexity",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
    "bits_per_byte": "bits_per_byte",
    "bleu": "bleu",
    "chrf": "chrf",
}
# keys of a metric that do not affect the numbers of a single task
SILENT_IN_METRICS = ("metric", "aggregation", "higher_is_better", "hf_evaluate", "weight_by_size")
SAMPLERS = ("default", "first_n")
# keys that describe a task and do not affect its numbers
_SILENT = (
    "tag group group_alias task_alias metadata should_decontaminate unsafe_code"
    " doc_to_decontamination_query"
)
SILENT = set(_SILENT.split())
# keys that contain code, or refer to data other than text
REFUSED = {
    **dict.fromkeys(
        ("custom_dataset", "process_docs", "process_results", "class"), "it is Python code"
    ),
    "use_prompt": "it is a prompt of another library",
    "doc_to_image": "images are not read",
    "doc_to_audio": "sound is not read",
}
REMEDY = "prepare the rows, name them with --data, and take the key out of the file"


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


Kind = tuple[Callable[[Any], bool], str]
STRING: Kind = (lambda value: isinstance(value, str), "a string")
COUNT: Kind = (lambda value: type(value) is int and value >= 0, "a number from 0 on")
OBJECT: Kind = (lambda value: isinstance(value, dict), "an object of keys and values")
OBJECTS: Kind = (_objects, "a list of objects")
TEXT: Kind = (lambda value: isinstance(value, str | int), "a template, or a column's name")
TARGET: Kind = (
    lambda value: isinstance(value, str | int) or _strings(value),
    "a template, a column's name, or the number of a choice",
)
CHOICES: Kind = (
    lambda value: isinstance(value, str | dict) or _strings(value),
    "a list of strings, a template, or a column's name",
)
KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        (
            *("task", "dataset_path", "dataset_name", "description", "target_delimiter"),
            *("fewshot_delimiter", "gen_prefix", "output_type", "include"),
            *("training_split", "validation_split", "test_split", "fewshot_split"),
        ),
        STRING,
    ),
    "dataset_kwargs": OBJECT,
    "doc_to_text": TEXT,
    "doc_to_target": TARGET,
    "doc_to_choice": CHOICES,
    "fewshot_config": OBJECT,
    "num_fewshot": COUNT,
    "repeats": (lambda value: type(value) is int and value >= 1, "a number from 1 on"),
    "metric_list": OBJECTS,
    "filter_list": OBJECTS,
    "generation_kwargs": OBJECT,
}
OF_FEWSHOT: dict[str, Kind] = {
    **{name: KINDS[name] for name in ("doc_to_text", "doc_to_target", "doc_to_choice")},
    **dict.fromkeys(
        ("sampler", "split", "gen_prefix", "fewshot_delimiter", "target_delimiter"), STRING
    ),
    "samples": OBJECTS,
    "fewshot_indices": (
        lambda value: isinstance(value, list) and all(type(each) is int for each in value),
        "a list of row numbers from 0",
    ),
}


@dataclass(frozen=True)
class FewShot:
    """The format of the few-shot examples; defaults are those of the question itself."""

    doc_to_text: str | int
    doc_to_target: Any
    # None: doc_to_target gives the text of the answer itself
    doc_to_choice: Any = None
    gen_prefix: str | None = None
    target_delimiter: str = " "
    delimiter: str = "\n\n"  # after each example
    sampler: str = "default"
    split: str | None = None
    samples: list[dict[str, Any]] | None = None
    indices: list[int] | None = None


@dataclass(frozen=True)
class Metric:
    name: str
    aggregation: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Filters:
    """The steps that process an answer before it is compared."""

    name: str
    steps: list[dict[str, Any]]


@dataclass(frozen=True)
class TaskFile:
    """The requests to a model and the scoring of its answers; the names are those of the file."""

    file: str
    task: str
    output_type: str
    doc_to_text: str | int
    doc_to_target: Any
    doc_to_choice: Any
    fewshot: FewShot
    metrics: list[Metric]
    filters: list[Filters] | None
    description: str = ""
    target_delimiter: str = " "
    gen_prefix: str | None = None
    num_fewshot: int = 0
    repeats: int = 1
    generation: dict[str, Any] = field(default_factory=dict)
    dataset_path: str | None = None
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] = field(default_factory=dict)
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    silent: list[str] = field(default_factory=list)  # accepted keys that have no effect


def read_task_file(path: str | Path) -> TaskFile:
    """Read a task file; raise DataError if it is invalid or uses an unsupported feature."""
    file = Path(path)
    where = str(path)
    content = _included(file, INCLUDES)
    if isinstance(content.get("task"), list) or "aggregate_metric_list" in content:
        raise DataError(
            "the file names a group of tasks", where=where, do="name the file of one of its tasks"
        )
    _check_keys(content, where)
    kind = content.get("output_type", "generate_until")
    if kind not in OUTPUT_TYPES:
        raise DataError(
            f"output_type {kind!r} is not known", where=where, do=f"use {', '.join(OUTPUT_TYPES)}"
        )
    if "doc_to_target" not in content:
        raise DataError(
            "doc_to_target is missing", where=where, do="say what is right: a column or a template"
        )
    if kind == "multiple_choice" and "doc_to_choice" not in content:
        raise DataError(
            "doc_to_choice is missing", where=where, do="name the column or write the choices"
        )
    given = content.get("fewshot_config") or {}
    return TaskFile(
        file=where,
        task=content.get("task", file.stem),
        output_type=kind,
        doc_to_text=content.get("doc_to_text", ""),
        doc_to_target=content["doc_to_target"],
        doc_to_choice=content.get("doc_to_choice"),
        fewshot=_fewshot(content, given, where),
        metrics=_metrics(content, kind, where),
        filters=_filters(content, where),
        generation=content.get("generation_kwargs") or {},
        silent=sorted(SILENT & content.keys()),
        **{
            name: content[name]
            for name in (
                *("description", "target_delimiter", "gen_prefix", "num_fewshot", "repeats"),
                *("dataset_path", "dataset_name", "dataset_kwargs"),
                *("training_split", "validation_split", "test_split"),
            )
            if name in content
        },
    )


def _included(file: Path, left: int) -> dict[str, Any]:
    """Return the keys of a file merged over those of the file it includes; keys that are null are
    dropped.
    """
    content = _parsed(file)
    base = content.pop("include", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise DataError("include names no file", where=str(file), do="write include: FILE")
    if not left:
        raise DataError(
            f"more than {INCLUDES} files include each other", where=str(file), do="include fewer"
        )
    return _included(file.parent / base, left - 1) | content


def _parsed(file: Path) -> dict[str, Any]:
    where = str(file)
    try:
        if file.stat().st_size > MOST:
            raise DataError(f"is larger than {MOST:,} bytes", where=where, do="name a task file")
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise DataError("there is no such file", where=where, do="name a task file") from None
    except IsADirectoryError:
        raise DataError("is a folder", where=where, do="name one of its files") from None
    except UnicodeDecodeError:
        raise DataError("is not UTF-8", where=where, do="write it as UTF-8") from None
    except OSError as error:
        raise unreadable(error, file, DataError) from None
    content = _json(text, where) if file.suffix == ".json" else _yaml(text, where)
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise DataError(
            "is no task: it holds no keys and values", where=where, do="write task: NAME"
        )
    return {name: value for name, value in content.items() if value is not None}


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON: {error}", where=where, do="correct it") from None


def _yaml(text: str, where: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Loads plain values; tags that would construct objects are rejected."""

    def refuse(loader: Any, suffix: str, node: Any) -> None:
        line = node.start_mark.line + 1
        value = node.value if isinstance(node.value, str) else ""
        what = f"{node.tag} {value}".strip()
        raise DataError(
            f"{what} is Python code, which is not run", where=f"{where}, line {line}", do=REMEDY
        )

    Loader.add_multi_constructor("!", refuse)
    Loader.add_multi_constructor("tag:yaml.org,2002:python/", refuse)
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DataError(f"is no YAML: {what}", where=where + line, do="correct it") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"is no usable YAML: {error}", where=where, do="correct it") from None


def _check_keys(content: Mapping[str, Any], where: str) -> None:
    for name, value in content.items():
        if name in REFUSED:
            raise DataError(f"{name} is not followed: {REFUSED[name]}", where=where, do=REMEDY)
        if name == "unsafe_code" and value:
            raise DataError("unsafe_code is not run", where=where, do=REMEDY)
    _check_kinds(content, KINDS, SILENT, where)


def _check_kinds(
    content: Mapping[str, Any], kinds: Mapping[str, Kind], silent: set[str], where: str
) -> None:
    known = [*kinds, *silent]
    for name, value in content.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            do = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(kinds))}"
            raise DataError(f"the key {name!r} is not known", where=where, do=do)
        if name in kinds and not kinds[name][0](value):
            raise DataError(
                f"{name} = {value!r} is not {kinds[name][1]}", where=where, do="write one"
            )


def _fewshot(content: Mapping[str, Any], given: Mapping[str, Any], where: str) -> FewShot:
    if "process_docs" in given:
        raise DataError(
            "fewshot_config.process_docs is not followed: it is Python code", where=where, do=REMEDY
        )
    given = {name: value for name, value in given.items() if value is not None}
    _check_kinds(given, OF_FEWSHOT, set(), f"{where}: fewshot_config")
    sampler = given.get("sampler", "default")
    if sampler not in SAMPLERS:
        raise DataError(
            f"fewshot_config.sampler {sampler!r} is not known",
            where=where,
            do=f"use {' or '.join(SAMPLERS)}",
        )
    whole = {**content, **given}
    return FewShot(
        doc_to_text=whole.get("doc_to_text", ""),
        doc_to_target=whole["doc_to_target"],
        doc_to_choice=whole.get("doc_to_choice"),
        gen_prefix=whole.get("gen_prefix"),
        target_delimiter=whole.get("target_delimiter", " "),
        delimiter=whole.get("fewshot_delimiter", "\n\n"),
        sampler=sampler,
        split=given.get("split", content.get("fewshot_split")),
        samples=given.get("samples"),
        indices=given.get("fewshot_indices"),
    )


def _metrics(content: Mapping[str, Any], kind: str, where: str) -> list[Metric]:
    from langue.evaluation.answer_filters import check_patterns
    from langue.statistics.translation import check_installed

    known = METRICS[kind]
    made = []
    for entry in content.get("metric_list") or [{"metric": name} for name in USUAL_METRICS[kind]]:
        name = entry.get("metric")
        if name not in known:
            raise DataError(
                f"the metric {name!r} is not known for output_type {kind}",
                where=where,
                do=f"use {', '.join(known)}",
            )
        options = {key: value for key, value in entry.items() if key not in SILENT_IN_METRICS}
        allowed = ("regexes_to_ignore", "ignore_case", "ignore_punctuation", "ignore_numbers")
        taken = allowed if name == "exact_match" and kind == "generate_until" else ()
        if wrong := [key for key in options if key not in taken]:
            raise DataError(
                f"the metric {name} does not take {wrong[0]}",
                where=where,
                do=f"it takes {', '.join(taken) or 'aggregation and higher_is_better alone'}",
            )
        if not all(isinstance(options.get(key, False), bool) for key in allowed[1:]):
            raise DataError(
                "ignore_case, ignore_punctuation or ignore_numbers is neither true nor false",
                where=where,
                do="write true or false",
            )
        check_patterns(options.get("regexes_to_ignore") or [], where)
        if name in ("bleu", "chrf"):
            check_installed()
        own = AGGREGATIONS[name]
        if entry.get("aggregation", own) != own:
            raise DataError(
                f"the metric {name} cannot be aggregated by {entry['aggregation']!r}",
                where=where,
                do=f"write aggregation: {own}",
            )
        made.append(Metric(name, own, options))
    return made


def _filters(content: Mapping[str, Any], where: str) -> list[Filters] | None:
    from langue.evaluation.answer_filters import check_step

    if "filter_list" not in content:
        return None
    made = []
    for entry in content["filter_list"]:
        steps = entry.get("filter")
        if not isinstance(entry.get("name"), str) or not _objects(steps) or not steps:
            raise DataError(
                "an entry of filter_list has no name, or no filter",
                where=where,
                do="write name: NAME and filter: [{function: take_first}]",
            )
        for step in steps:
            check_step(step, where)
        made.append(Filters(entry["name"], steps))
    return made

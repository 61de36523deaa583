"""What arrives: a task, a pretrained model, labelled data and settings. What leaves: a run
directory, judged."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from langue.errors import RunError, SettingsError
from langue.files import atomic_folder, clear, read_json, write_json, write_text
from langue.hub.checkpoint import load_into, without_extra
from langue.model.heads import TaskModel
from langue.model.transformer import set_dropout
from langue.runs.prepare import (
    DIGESTS,
    Prepared,
    at_work,
    check_output_outside_inputs,
    check_rereadable,
    check_resumable,
    data_fingerprint,
    first_changed_split,
    prepare,
    run_folder,
    task_class,
)
from langue.runs.save import write_task_checkpoint
from langue.runtime import check_compiler, device, precision, rank
from langue.settings.recipe import read_recipe, split_recipe, write_recipe
from langue.settings.sections import ONLY_PRETRAINING, Settings, refuse_others, resolve
from langue.tasks import DEFAULT_TASK, OPTIONS, TASKS
from langue.train.embedding_rows import trim_embedding
from langue.train.parallel import barrier, processes
from langue.train.trainer import Trainer

if TYPE_CHECKING:
    from langue.runs.model import Model

# What arguments must be: recipes and Python let them be anything.
NAMED: dict[str, tuple[Any, str]] = {
    "task": (str, f"one name, as {DEFAULT_TASK}"),
    "model": ((str, Path), "one Hub name or folder"),
    "columns": ((Mapping, type(None)), 'ours and theirs, as {"text": "review"}'),
}


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    metrics: dict[str, Any]  # the content of metrics.json
    facts: dict[str, Any]  # what was shown before training

    def load(self) -> "Model":
        from langue.runs.model import load

        return load(self.folder)


@processes()
def finetune(
    task: str | None = None,
    *,
    model: str | Path | None = None,
    data: Any = None,
    out: str | Path,
    columns: Mapping[str, str] | None = None,
    recipe: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    show: Callable[[Prepared], None] | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a pretrained encoder or decoder on labelled text and judge it.

    task: one of `langue.tasks.TASKS`. model: Hub name or folder. data: file, folder, Hub
    name, or rows. columns: ours -> theirs, `{"text": "review"}`. recipe: a TOML file with the same
    keys. settings: `section.key` values such as `**{"train.lr": 3e-5}`, or with two underscores,
    `train__lr=3e-5`. show: called with what was prepared, before training. Of the embedding the
    rows in use are trained (train/embedding_rows.py). Raises LangueError for anything the user can
    mend. Processes that torchrun started train together; the first writes, shows and judges.
    """
    words = {key.replace("__", "."): value for key, value in settings.items()}
    given = {"task": task, "model": model, "data": data, "columns": columns}
    folder, resume = run_folder(out, force=force, resume=resume)
    layers = [read_recipe(Path(recipe))] if recipe else []
    if resume:  # what is given now is laid over the run's own, but for what that has settled
        layers = [read_recipe(folder / "recipe.toml"), *map(_without_settled, layers)]
        words = _without_settled(words)
    arguments, chosen = resolve_call(layers, given, words)
    if chosen.train.compile:
        check_compiler()
    if force and not resume:
        check_output_outside_inputs(folder, (arguments["model"], arguments["data"]))
    barrier()  # all have looked at the folder before the first changes it
    with at_work(folder):
        if resume:
            check_resumable(folder, write_recipe(arguments, chosen))
        prepared = prepare(
            arguments["task"],
            model=arguments["model"],
            data=arguments["data"],
            columns=arguments["columns"],
            settings=chosen,
            resumes_without_best=resume and chosen.train.best is None,
        )
        if show is not None and rank() == 0:
            show(prepared)
        network = build(prepared, prepared.settings)
        if resume or rank() == 0:
            _open_folder(folder, arguments, prepared.settings, prepared, resume)
        _train(folder, prepared, network, resume)
        barrier()
    return Run(folder, read_json(folder / "metrics.json"), prepared.facts)


def _train(folder: Path, prepared: Prepared, network: TaskModel, resume: bool) -> None:
    """Train, settle what is settled on dev, write the model and judge it."""
    from langue.verbs.evaluate import judge_run

    began = time.perf_counter()
    chosen = prepared.settings
    train = prepared.encoded["train"]
    dev = prepared.encoded.get("dev")
    batches = prepared.task.batches(train, chosen.train)
    with trim_embedding(network.body, train.examples, None if dev is None else dev.examples):
        trainer = Trainer(network, prepared.task, batches, dev, chosen.train, folder)
        progress = trainer.run(resume)
    if rank() == 0:
        _settle_on_dev(prepared, network)
        write_run(folder, prepared, network, chosen)
        seconds = max(progress.seconds, time.perf_counter() - began)
        judge_run(folder, prepared, network, chosen, seconds=seconds)


def _settle_on_dev(prepared: Prepared, network: TaskModel) -> None:
    """What the task settles on dev once training is over, as the threshold of several labels."""
    dev = prepared.encoded.get("dev")
    if dev is None or not prepared.task.settles_on_dev:
        return
    kind = precision(prepared.settings.train.precision)
    predictions, _ = prepared.task.apply(network, dev, device=device(), dtype=kind)
    prepared.task.settle_on_dev(dev.golds, predictions)


def _without_settled(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a layer but for those left to a run that has settled them already."""
    settled = _settled()
    return {key: value for key, value in layer.items() if value not in settled.get(key, ())}


@cache
def _settled() -> dict[str, tuple[Any, ...]]:
    """Settings that leave something to the run, and the values that do: its recipe then says what
    it has chosen."""
    found: dict[str, tuple[Any, ...]] = {"train.best": (None, "none", "None")}
    for kind in TASKS.values():
        for name, values in kind.settled_options.items():
            found[f"task.{name}"] = values
    return found


def resolve_call(
    layers: list[dict[str, Any]], given: Mapping[str, Any], words: Mapping[str, Any]
) -> tuple[dict[str, Any], Settings]:
    """Recipes and what was given directly, as arguments and settings; the latter wins."""
    arguments: dict[str, Any] = {"task": DEFAULT_TASK, "model": None, "data": None, "columns": None}
    flat: list[dict[str, Any]] = []
    for layer in layers:
        named, columns, rest = split_recipe(layer)
        arguments |= named | ({"columns": columns} if columns else {})
        flat.append(rest)
    arguments |= {key: value for key, value in given.items() if value is not None}
    for key in ("model", "data"):
        if arguments[key] is None:
            raise SettingsError(
                f"no {key} was named", do=f'give --{key}, or a recipe with [{key}] name = "..."'
            )
    for key, (kind, wanted) in NAMED.items():
        if not isinstance(arguments[key], kind):
            raise SettingsError(f"{key} = {arguments[key]!r} cannot be used", do=f"give {wanted}")
    check_rereadable(arguments["data"])
    options = task_class(arguments["task"]).Options
    chosen = resolve(*flat, words, options=options, others=ONLY_PRETRAINING, elsewhere=OPTIONS)
    refuse_others(chosen, Settings(), ONLY_PRETRAINING, "pretraining")
    return arguments, chosen


def _open_folder(
    folder: Path, arguments: Mapping[str, Any], settings: Settings, prepared: Prepared, resume: bool
) -> None:
    """Write what the run is, in the place of what `force` replaces; on resume check that its data
    is what it was."""
    if resume:
        if other := first_changed_split(folder, prepared.task, prepared.as_read):
            raise RunError(
                f"the {other} data is not what it was when the run began",
                where=str(folder),
                do="put the data back, or start a new run",
            )
        return
    # before anything goes: it may say that a name cannot be written
    recipe = write_recipe(arguments, settings)
    if folder.exists():
        clear(folder)
    write_text(folder / "recipe.toml", recipe)
    write_json(folder / DIGESTS, data_fingerprint(prepared.task, prepared.as_read))


def build(prepared: Prepared, settings: Settings) -> TaskModel:
    """The task model with the published weights, a new head where there is none for this task, and
    dropout as set."""
    config = prepared.checkpoint.config
    task = prepared.task
    torch.manual_seed(settings.train.seed)
    network = task.network(config, settings.train.seed, prepared.checkpoint.batch_pad)
    weights = without_extra(prepared.checkpoint.weights)
    saved = prepared.checkpoint.task
    same = saved is not None and task.has_outputs_of(saved)
    held = {name for name, _ in network.named_parameters()}
    of_labels = tuple(f"head.{name}" for name in network.head.of_labels)
    # Of what was learnt of the labels only what is of the same ones goes on, as far as the head has
    # a place for it.
    weights = {
        name: tensor
        for name, tensor in weights.items()
        if not name.startswith(of_labels) or same and name in held
    }
    load_into(
        network,
        task.rescale_head(weights, back=True),
        where=str(prepared.checkpoint.folder),
        new="head.",
    )
    set_dropout(network.body, settings.model.dropout, settings.model.attention_dropout)
    return network


def write_run(folder: Path, prepared: Prepared, network: TaskModel, settings: Settings) -> None:
    """The finished model at the root of the run: loadable by langue, and by `transformers` where it
    has the head."""
    with atomic_folder(folder / "final") as temporary:
        weights = prepared.task.rescale_head(dict(network.named_parameters()))
        pairs = (
            prepared.source.train is not None and "pair" in prepared.source.train.rows.column_names
        )
        write_task_checkpoint(
            temporary, prepared.checkpoint, prepared.task, weights, settings.data, pairs
        )
    for file in sorted((folder / "final").iterdir()):
        file.replace(folder / file.name)
    (folder / "final").rmdir()

"""Execution of a training command, from its arguments to a finished run.

All tasks and pretraining objectives share this sequence: data is read, split and tokenized
(`prepare`), a model is built (`build`), trained, written and evaluated.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from langue.errors import LangueError, ModelError, RunError, SettingsError
from langue.files import (
    atomic_folder,
    in_use,
    read_json,
    replace_on_success,
    write_json,
    write_text,
)
from langue.model.transformer import Transformer
from langue.progress import say
from langue.runs.arguments import (
    Call,
    Command,
    command_line,
    resolve_call,
    without_settled,
)
from langue.runs.folder import (
    DIGESTS,
    METRICS,
    RECIPE,
    at_work,
    changed_data,
    check_output_outside_inputs,
    check_resumable,
    drop_checkpoints,
    is_finished,
    leave_nothing,
    run_folder,
)
from langue.runs.prepare import PREPARED, Prepared, build, prepare
from langue.runtime import check_compiler, device, precision, rank
from langue.settings.recipe import display_name, read_recipe, short_name, write_recipe
from langue.tasks.task import Task
from langue.train.embedding_rows import trim_embedding
from langue.train.parallel import barrier
from langue.train.trainer import Trainer, Watch

if TYPE_CHECKING:
    from langue.runs.model import Model

CURVES = "curves.png"
WATCHED = 1  # samples of a language model at each evaluation


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run; a notebook shows its metrics, the verdict and its curves."""

    folder: Path
    metrics: dict[str, Any]  # the content of metrics.json; empty if it was not evaluated
    facts: dict[str, Any]  # the facts shown before training
    # best score on dev by the metric that selects the checkpoint; higher is better
    score: float | None = None

    def load(self) -> "Model":
        from langue.runs.model import load

        return load(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}{_summary(self.metrics)})"

    def _repr_html_(self) -> str:
        from langue.runs.notebook import as_html, image_html
        from langue.runs.show import print_run

        shown = as_html(lambda console: print_run(self.metrics, console)) if self.metrics else ""
        return f"<p>{escape(repr(self))}</p>{shown}{image_html(self.folder / CURVES)}"


def _summary(metrics: Mapping[str, Any]) -> str:
    """Return the main metric of metrics.json in words; "" if the run was not evaluated."""
    main = metrics.get("main_metric")
    value = metrics.get("metrics", {}).get(main)
    if value is None:
        return ""
    return f", {main} {value:.4g} on {metrics['split']}"


def execute(
    command: Command,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    out: str | Path,
    recipe: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    keep_checkpoints: bool = False,
    show: Callable[[Any], None] | None = None,
    watch: Watch | None = None,
    judge: bool = True,
) -> Run:
    """Run a training command, up to the evaluation of the finished model.

    given: the arguments of the command. settings: keys are `section.key`, or use two underscores.
    show: called with the `Prepared` before training. watch: as in `Trainer`. judge: False postpones
    the evaluation to a resume. keep_checkpoints: keep the training state, three times the size of
    the model, so that an evaluated run can be trained longer. Processes started by torchrun train
    together; the first one writes, shows and evaluates.
    """
    folder, resume = run_folder(out, force=force, resume=resume)
    words = {key.replace("__", "."): value for key, value in settings.items()}
    layer = {} if recipe is None else read_recipe(Path(recipe))
    # arguments override the run's own recipe, except for what the run has already decided
    if resume:
        layer = read_recipe(folder / RECIPE) | without_settled(command, layer)
        words = without_settled(command, words)
    call = resolve_call(command, layer, given, words)
    data = PREPARED[call.kind.learns_from]
    data.check(call)
    if call.settings.train.compile:
        check_compiler()
    if force and not resume:
        check_output_outside_inputs(folder, call.reads())
    barrier()  # all processes have checked the folder before the first one changes it
    with ExitStack() as locks:  # until the run ends
        for read in data.given_folders(call):
            locks.enter_context(in_use(read))
        with replace_on_success(folder, force and not resume and rank() == 0):
            locks.enter_context(at_work(folder))
            _begin(folder, call, resume)
            with _cleaned_up_on_error(folder):
                prepared = prepare(call, folder, resume=resume)
                prepared.facts |= _origin(command, call, out)
                for read in prepared.folders:
                    locks.enter_context(in_use(read))
                if show is not None and rank() == 0:
                    show(prepared)
                network = build(prepared)
        _record_inputs(folder, call, prepared, resume)
        if resume and is_finished(folder):
            say(f"{folder}: the run is finished, and nothing is left to do")
            return Run(folder, read_json(folder / METRICS), prepared.facts)
        score = _train(folder, prepared, network, resume, watch, judge)
        if judge and not keep_checkpoints and rank() == 0:
            drop_checkpoints(folder)
        barrier()
    metrics = read_json(folder / METRICS) if judge else {}
    return Run(folder, metrics, prepared.facts, score)


def _origin(command: Command, call: Call, out: str | Path) -> dict[str, str]:
    """Return what a report says about the origin of a run."""
    data = call.arguments["data"]
    model = call.arguments["model"]
    return {
        "title": f"{call.kind.name}: {short_name(data)}",
        "data": display_name(data),
        "model": "new" if model is None else str(model),
        "command": command_line(command, call, out),
    }


@contextmanager
def _cleaned_up_on_error(folder: Path) -> Iterator[None]:
    """Remove the run's folder if an error that the user can fix occurs before training has
    started.
    """
    try:
        yield
    except LangueError as error:
        leave_nothing(folder, everything=isinstance(error, (SettingsError, ModelError)))
        raise


def _begin(folder: Path, call: Call, resume: bool) -> None:
    """Check on resume that the recipe is the same. A run that builds something from its data in its
    folder writes its recipe now, so that it can be resumed.
    """
    written = write_recipe(call.arguments, call.settings)
    if resume:
        check_resumable(folder, written)
    elif call.kind.learns_from == "documents" and rank() == 0:
        write_text(folder / RECIPE, written)
    barrier()


def _record_inputs(folder: Path, call: Call, prepared: Prepared, resume: bool) -> None:
    """Record what the run is made of; on resume, check that its data has not changed."""
    kept = folder / DIGESTS
    if resume and kept.parent.exists():
        if other := changed_data(folder, prepared.fingerprint()):
            raise RunError(
                f"the {other} is not what it was when the run began",
                where=str(folder),
                do="put the data back, or start a new run",
            )
    elif rank() == 0:
        write_text(folder / RECIPE, write_recipe(call.arguments, prepared.settings))
        write_json(kept, prepared.fingerprint())
    barrier()


def _train(
    folder: Path,
    prepared: Prepared,
    network: nn.Module,
    resume: bool,
    watch: Watch | None,
    judge: bool,
) -> float | None:
    """Train, choose thresholds on dev, write the model and evaluate it; return the best score on
    dev.
    """
    from langue.runs.judge import judge_run

    began = time.perf_counter()
    settings = prepared.settings
    task = prepared.task
    batches = task.batches(prepared.train, settings)
    dev = task.held_out(prepared.dev, settings)
    with rows_in_use(prepared, network):
        watched = _trainer_options(prepared)
        trainer = Trainer(
            network, task, batches, dev, settings.train, folder, watch=watch, **watched
        )
        progress = trainer.run(resume)
    if rank() == 0:
        task.settle(network, dev, device=device(), dtype=precision(settings.train.precision))
        write_run(folder, prepared, network)
    if judge and rank() == 0:
        seconds = max(progress.seconds, time.perf_counter() - began)
        judge_run(folder, prepared, network, seconds, progress.tokens)
    barrier()
    return progress.best


def rows_in_use(prepared: Prepared, network: nn.Module) -> AbstractContextManager[None]:
    """Restrict training to the embedding rows whose tokens occur in the texts, if these are
    known.
    """
    texts = prepared.examples_of_training
    body: Transformer = network.body  # type: ignore[assignment]
    trained = isinstance(body.token, nn.Embedding) and body.token.weight.requires_grad
    return trim_embedding(body, *texts) if texts and trained else nullcontext()


def _trainer_options(prepared: Prepared) -> dict[str, Any]:
    """Return the options of `Trainer` for what is shown and stored during training."""
    if isinstance(prepared.task, Task):
        return {"look_first": prepared.task.looks_first}
    from langue.hardware import peak
    from langue.runs.samples import samples

    return {
        "peak": peak(precision(prepared.settings.train.precision)),
        "sample": lambda model: samples(prepared, model, WATCHED),  # type: ignore[arg-type]
        "look_first": "new_weights" in prepared.facts,
    }


def write_run(folder: Path, prepared: Prepared, network: nn.Module) -> None:
    """Write the finished model to the root of the run."""
    with atomic_folder(folder / "final") as temporary:
        prepared.write(temporary, dict(network.named_parameters()))
    for file in sorted((folder / "final").iterdir()):
        target = folder / file.name
        if file.is_dir() and target.is_dir():  # a folder cannot replace one that is not empty
            shutil.rmtree(target)
        file.replace(target)
    (folder / "final").rmdir()

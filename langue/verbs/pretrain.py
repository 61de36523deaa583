"""What arrives: an objective, text or a corpus, and settings. What leaves: a run directory with a
language model."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from langue.errors import LangueError, ModelError, RunError, SettingsError
from langue.files import (
    atomic_folder,
    clear,
    in_use,
    read_json,
    replace_on_success,
    sha256,
    write_json,
    write_text,
)
from langue.hardware import peak
from langue.hub.checkpoint import write_checkpoint
from langue.model.language_model import LanguageModel
from langue.runs.corpora import given_corpus
from langue.runs.judge_language import judge_language
from langue.runs.model import Model, load
from langue.runs.prepare import (
    DIGESTS,
    at_work,
    check_output_outside_inputs,
    check_resumable,
    run_folder,
)
from langue.runs.prepare_language import (
    AXES,
    MANY,
    Pretraining,
    new_model,
    prepare_language,
    stream_of,
)
from langue.runs.samples import samples
from langue.runtime import check_compiler, precision, rank
from langue.settings.recipe import read_recipe, split_recipe, write_recipe
from langue.settings.sections import (
    FINETUNING,
    OF_BUILDING,
    OF_TRAINING_TOKENIZERS,
    PRETRAINING,
    Settings,
    refuse_others,
    resolve,
)
from langue.tasks import DEFAULT_OBJECTIVE, OBJECTIVES, OPTIONS
from langue.tasks.language import HeldOutSet
from langue.tasks.objective import check_best
from langue.train.parallel import barrier, processes
from langue.train.trainer import Trainer

WATCHED = 1  # samples at each evaluation


@dataclass(frozen=True)
class Pretrained:
    """A finished run."""

    folder: Path
    metrics: dict[str, Any]  # the content of metrics.json
    facts: dict[str, Any]

    def load(self) -> Model:
        return load(self.folder)


@processes()
def pretrain(
    objective: str | None = None,
    *,
    data: Any = None,
    out: str | Path,
    model: str | Path | None = None,
    tokenizer: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    recipe: str | Path | None = None,
    force: bool = False,
    resume: bool = False,
    show: Callable[[Pretraining], None] | None = None,
    **settings: Any,
) -> Pretrained:
    """Train a language model on text and judge it on text held out.

    objective: causal (the default), masked or denoise. data: a corpus folder (`langue data
    tokenize`), or text: files, folders, Hub names, each `NAME@WEIGHT` where they are mixed. model:
    train this one further; else a new one is made as `model.preset`, `model.size` and the axes of
    `model.*` say. tokenizer: a folder; else the model's, else one is trained on the data as
    `tokenizer.*` says. recipe, settings: as in `finetune`. Raises LangueError for what the user can
    mend.
    """
    folder, resume = run_folder(out, force=force, resume=resume)
    words = {key.replace("__", "."): value for key, value in settings.items()}
    given = {
        "objective": objective,
        "data": data,
        "model": model,
        "tokenizer": tokenizer,
        "columns": columns,
    }
    own = read_recipe(folder / "recipe.toml") if resume else {}
    arguments, chosen = _resolved(own | (read_recipe(Path(recipe)) if recipe else {}), given, words)
    if chosen.train.compile:
        check_compiler()
    if force and not resume:
        check_output_outside_inputs(folder, _reads(arguments))
    barrier()  # all have looked at the folder before the first changes it
    with ExitStack() as locks:  # until the run ends
        if (corpus := given_corpus(arguments["data"])) is not None:
            locks.enter_context(in_use(corpus))
        with replace_on_success(folder, force and not resume and rank() == 0):
            locks.enter_context(at_work(folder))
            _open(folder, write_recipe(arguments, chosen), resume)
            try:
                prepared = prepare_language(arguments, chosen, folder)
            except LangueError as error:
                _leave_nothing(folder, isinstance(error, (SettingsError, ModelError)))
                raise
        locks.enter_context(in_use(prepared.train.folder))
        _same_data(folder, prepared, resume)
        if show is not None and rank() == 0:
            show(prepared)
        _train(folder, prepared, resume)
    return Pretrained(folder, read_json(folder / "metrics.json"), prepared.facts)


def _train(folder: Path, prepared: Pretraining, resume: bool) -> None:
    """Train, write the model, judge it."""
    network = new_model(prepared)
    chosen = prepared.settings
    train, dev = (stream_of(prepared, corpus) for corpus in (prepared.train, prepared.dev))
    began = time.perf_counter()
    held = HeldOutSet(dev, chosen.data.dev_tokens)
    trainer = Trainer(
        *(network, prepared.objective, train, held, chosen.train, folder),
        peak=peak(precision(chosen.train.precision)),
        sample=lambda model: samples(prepared, model, WATCHED),
        look_first="new_weights" in prepared.facts,
    )
    progress = trainer.run(resume)
    if rank() == 0:
        _write(folder, prepared, network)
        seconds = max(progress.seconds, time.perf_counter() - began)
        judge_language(folder, prepared, network, seconds, progress.tokens)
    barrier()


def _reads(arguments: Mapping[str, Any]) -> Iterator[Any]:
    """What the run is made of, as far as it has names."""
    yield from (arguments["model"], arguments["tokenizer"])
    data = arguments["data"]
    for each in data if isinstance(data, (list, tuple)) else [data]:
        yield each
        if isinstance(each, str) and each.rpartition("@")[0]:
            yield each.rpartition("@")[0]


def _open(folder: Path, written: str, resume: bool) -> None:
    """The run directory with its recipe; or on resume, the check that the recipe is the same."""
    if resume:
        check_resumable(folder, written)
    elif rank() == 0:
        write_text(folder / "recipe.toml", written)
    barrier()


def _leave_nothing(folder: Path, settings: bool) -> None:
    """Where nothing was made yet, the same command mended should find no run that it would have to
    replace; where settings are to be mended, and so none that could go on, a tokenizer and a corpus
    are nothing."""
    nothing = {"recipe.toml", "tokenizer", "corpus"} if settings else {"recipe.toml"}
    if rank() == 0 and {file.name for file in folder.iterdir()} <= nothing:
        clear(folder)
        if not folder.is_symlink():
            folder.rmdir()


def _resolved(
    layer: Mapping[str, Any], given: Mapping[str, Any], words: Mapping[str, Any]
) -> tuple[dict[str, Any], Settings]:
    named, columns, rest = split_recipe(layer)
    arguments: dict[str, Any] = {
        "objective": DEFAULT_OBJECTIVE,
        "data": None,
        "model": None,
        "tokenizer": None,
    }
    arguments |= {"columns": columns or None} | named
    arguments |= {key: value for key, value in given.items() if value is not None}
    if arguments["data"] is None:
        raise SettingsError("no data was named", do="give --data: text, or a corpus folder")
    if arguments["objective"] not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise SettingsError(
            f"the objective {arguments['objective']!r} is not known", do=f"known: {known}"
        )
    kind = OBJECTIVES[arguments["objective"]]
    usual = (PRETRAINING, kind.tokenizer_defaults)
    settle = partial(resolve, options=kind.Options, others=FINETUNING, elsewhere=OPTIONS)
    chosen = settle(*usual, rest, words)
    if chosen.train.max_steps:  # so many steps are so many steps, whatever the passes they take
        chosen = settle(*usual, {"train.epochs": MANY}, rest, words)
    elif rest.get("train.epochs") == MANY:  # as a recipe of so many steps has it
        chosen = settle(
            *usual, {key: value for key, value in rest.items() if key != "train.epochs"}, words
        )
    _without_effect(arguments, chosen, settle(*usual))
    return arguments, chosen


def _without_effect(arguments: Mapping[str, Any], chosen: Settings, usual: Settings) -> None:
    """SettingsError at what would be accepted and do nothing."""
    refuse_others(chosen, usual, FINETUNING, "fine-tuning")
    if chosen.train.best is not None:
        check_best(chosen.train.best, (), "pretraining, which chooses by the loss")
    corpus = given_corpus(arguments["data"])
    if corpus is not None:
        refuse_others(
            chosen, usual, OF_BUILDING, "text that becomes a corpus, and this data is one"
        )
        for name in ("tokenizer", "columns"):
            if arguments[name] is not None:
                what = f"--{name} is of text, and a corpus is tokens already"
                raise SettingsError(what, where=str(corpus), do="leave it out")
    if corpus is not None or arguments["model"] is not None or arguments["tokenizer"] is not None:
        refuse_others(
            chosen, usual, OF_TRAINING_TOKENIZERS, "a tokenizer that is trained, and there is one"
        )
    if arguments["model"] is not None:
        for name in ("preset", "size", *AXES):
            if getattr(chosen.model, name) is not None and not name.endswith("dropout"):
                raise SettingsError(
                    f"model.{name} is of a new model, and --model names one that exists",
                    do="leave one of them out",
                )


def _same_data(folder: Path, prepared: Pretraining, resume: bool) -> None:
    """Keep what the corpus was, or on resume check that it still is that."""
    identity = {"data": sha256(prepared.train.folder / "corpus.json")}
    kept = folder / DIGESTS
    if resume and kept.is_file() and read_json(kept) != identity:
        raise RunError(
            "the corpus is not what it was when the run began", where=str(prepared.train.folder)
        )
    if rank() == 0:
        write_json(kept, identity)


def _write(folder: Path, prepared: Pretraining, network: LanguageModel) -> None:
    """The finished model at the root of the run."""
    objective = prepared.objective
    special = prepared.objective.special
    # What began and ended its texts: a tokenizer such as BERT's has [CLS] and [SEP] in their place.
    ids = {"bos_token_id": getattr(objective, "begin", special.bos), "pad_token_id": special.pad}
    ids["eos_token_id"] = getattr(objective, "end", special.eos)
    if prepared.config.decoder_layers:
        ids["decoder_start_token_id"] = getattr(objective, "start", None)
    with atomic_folder(folder / "final") as temporary:
        write_checkpoint(
            temporary,
            family=prepared.family,
            config=prepared.config,
            weights=dict(network.named_parameters()),
            tokenizer=prepared.tokenizer,
            head="lm",
            published=ids | (prepared.checkpoint.published if prepared.checkpoint else {}),
            writes=prepared.checkpoint.writes if prepared.checkpoint else None,
        )
        kept = {"max_length": prepared.settings.data.seq_len, "truncation": "head"}
        write_json(temporary / "langue.json", {"objective": prepared.objective.name, "data": kept})
    for file in sorted((folder / "final").iterdir()):
        file.replace(folder / file.name)
    (folder / "final").rmdir()

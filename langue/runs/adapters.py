"""Adapter training and PEFT folders: takes a model to train and the settings of its adapters;
returns the model, frozen, with adapters on its weights, and writes a finished run as a folder that
PEFT can read.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from langue.errors import ModelError, SettingsError
from langue.hub.adapters import (
    BODY_TYPE,
    PREFIX,
    SEQ2SEQ_TYPE,
    TASK_TYPES,
    Adapter,
    AdapterConfig,
    Place,
    chosen_modules,
    default_targets,
    digest_of,
    make_patches,
    places,
    published_tensors,
    write_adapter,
    written_targets,
)
from langue.hub.checkpoint import (
    Checkpoint,
    Description,
    adapter_of,
    describe,
    load_into,
    read_tokenizer,
)
from langue.hub.family import TOKEN_CLASSES
from langue.hub.snapshot import ADAPTER_CONFIG as CONFIG
from langue.hub.snapshot import ADAPTER_WEIGHTS as WEIGHTS
from langue.hub.special_tokens import write_tokenizer_config
from langue.model.adapters import (
    PARAMETERS,
    Patch,
    Values,
    freeze,
    new_values,
    with_adapters,
    with_parameters,
)
from langue.model.adapters import with_gradients as let_gradients_through
from langue.model.heads import TaskModel
from langue.model.language_model import LanguageModel, on_meta_device
from langue.model.transformer import Transformer
from langue.model.weight_linear import device_of, with_weights
from langue.runs.parts import Parts
from langue.runs.save import head_of, task_of
from langue.runtime import world_size
from langue.settings.sections import ModelSettings, Settings
from langue.tasks.objective import Objective
from langue.tasks.task import Task

# The PEFT class that loads the folder, by its task_type; those in COUNTING must be given the number
# of labels.
PEFT_CLASSES = {
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    SEQ2SEQ_TYPE: "AutoPeftModelForSeq2SeqLM",
    BODY_TYPE: "AutoPeftModelForFeatureExtraction",
}
COUNTING = (PEFT_CLASSES["SEQ_CLS"], PEFT_CLASSES["TOKEN_CLS"])
RANK = 8  # default rank of LoRA


@dataclass(frozen=True)
class Plan:
    """The adapters that a run trains, under published names with the body's prefix."""

    config: AdapterConfig
    patches: tuple[Patch, ...]
    modules: tuple[str, ...]
    known: Mapping[str, Place]


def plan(checkpoint: Checkpoint, chosen: ModelSettings) -> Plan:
    """Return the adapters to train; raise SettingsError if a target is no linear map of the model,
    or a rank is invalid.
    """
    family = checkpoint.family
    known = places(family, checkpoint.config, family.prefix)
    method = str(chosen.adapter)
    targets, inputs = default_targets(family, checkpoint.config, method)
    modules = chosen_modules(chosen.lora_targets or targets, known)
    if method == "ia3" and chosen.lora_targets:
        second = [name for name in modules if _is_second(known[name])]
        inputs = tuple(second)
    rank = RANK if chosen.lora_rank is None else chosen.lora_rank
    config = AdapterConfig(
        method=method,
        base="",
        rank=rank,
        alpha=2.0 * rank if chosen.lora_alpha is None else chosen.lora_alpha,
        dropout=chosen.lora_dropout or 0.0,
        rank_stabilised=bool(chosen.rslora),
        inputs=inputs,
    )
    return Plan(config, tuple(make_patches(modules, known, config)), tuple(modules), known)


def _is_second(place: Place) -> bool:
    """Return whether it is the second map of a feed-forward block, whose input IA3 scales."""
    return place.slices[0].layer.endswith("feedforward.down")


def check(checkpoint: Checkpoint, settings: Settings) -> None:
    """Raise SettingsError or ModelError for settings or models that adapters do not support."""
    if settings.model.freeze:
        raise SettingsError(
            "model.freeze does nothing beside model.adapter, which freezes the whole body",
            do="leave model.freeze out",
        )
    if checkpoint.adapter:
        raise ModelError(
            f"{checkpoint.name} is an adapter already, of {checkpoint.folder}",
            do=f"merge it first: langue convert {checkpoint.name} FOLDER --merge, and train FOLDER",
        )
    if world_size() > 1 and settings.train.parallel in ("fsdp", "tp"):
        raise SettingsError(
            f"train.parallel = {settings.train.parallel} divides weights, and those beside adapters"
            " are not trained",
            do="leave train.parallel out",
        )
    plan(checkpoint, settings.model)


def trained_weights(task: Objective, checkpoint: Checkpoint, chosen: ModelSettings) -> str:
    """Describe how many weights are trained, and of how many."""
    planned = plan(checkpoint, chosen)
    with on_meta_device():
        network = task.network(checkpoint.config, pad=checkpoint.batch_pad)
    in_adapters = sum(_count(patch, planned) for patch in planned.patches)
    in_head = 0
    if not isinstance(network, LanguageModel):
        named = network.named_parameters()
        in_head = sum(weight.numel() for name, weight in named if name.startswith("head."))
    whole = sum(weight.numel() for weight in network.parameters()) + in_adapters
    head = f", and {in_head:,} of the head" if in_head else ""
    return (
        f"{in_adapters:,} of {chosen.adapter} beside {len(planned.modules)} linear"
        f" maps{head}: {in_adapters + in_head:,} of {whole:,} weights"
    )


def describe_peft_support(task: Task, checkpoint: Checkpoint, chosen: ModelSettings) -> str:
    """Describe in a sentence or two what PEFT users get from the saved folder."""
    head = task.head_kind(checkpoint.family)
    kind = PEFT_CLASSES[_task_type(checkpoint, head)]
    outputs = len(task.output_names())
    more = f", num_labels={outputs}" if kind in COUNTING and outputs not in (0, 2) else ""
    said = f"peft: {kind}.from_pretrained(FOLDER{more}) gives the same logits"
    if kind == PEFT_CLASSES[BODY_TYPE]:
        said = f"peft: {kind} gives the same states, and the head stays langue's"
    if checkpoint.original is not None:
        said = "peft: it cannot read the base, which is in another format: langue convert it first"
    if chosen.base_weights not in (None, "fp32"):
        said += f", but for what the base loses in {chosen.base_weights}"
    return f"{said}. langue convert FOLDER OUT --merge makes a model of it that needs no peft."


def _count(patch: Patch, planned: Plan) -> int:
    """Return the number of parameters of an adapter; those shared by all patches of a matrix count
    with the first patch.
    """
    place = planned.known[patch.published]
    first = place.slices[0].layer == patch.layer and place.slices[0].begin == patch.begin
    rows = patch.end - patch.begin
    of_inputs = place.columns if first else 0
    counts = {"a": patch.rank * of_inputs, "b": patch.rank * rows, "magnitude": rows}
    counts["scales"] = of_inputs if patch.method == "ia3_input" else rows
    return sum(counts[name] for name in PARAMETERS[patch.method])


def adapt(network: nn.Module, checkpoint: Checkpoint, settings: Settings) -> nn.Module:
    """Return the network with a frozen body and adapters; a task head is trained in full, a
    language-model head is frozen.
    """
    chosen = settings.model
    before = checkpoint.family.read(checkpoint.published).vocab_size
    if checkpoint.config.vocab_size != before:
        raise SettingsError(
            f"the embedding has grown from {before:,} to {checkpoint.config.vocab_size:,} tokens,"
            " and beside adapters it is neither trained nor saved",
            do="leave model.adapter out, or name a model whose tokenizer has these tokens",
        )
    planned = plan(checkpoint, chosen)
    body: Transformer = network.body  # type: ignore[assignment]
    freeze(body)
    if isinstance(network, LanguageModel):
        freeze(network.head)
    if chosen.base_weights is not None:
        held = let_gradients_through(with_weights(body, chosen.base_weights))
        if isinstance(network, LanguageModel):  # whose token embedding is also the output matrix
            keep_tables(held, body)
        network.body = held
    matrices = {
        name: part.weight for name, part in network.named_modules() if hasattr(part, "weight")
    }
    values = new_values(planned.patches, matrices, settings.train.seed)
    return with_adapters(network, planned.patches, values)


def keep_tables(held: Transformer, plain: Transformer) -> None:
    """Put the token embeddings of another body in place of a body's own."""
    held.token = plain.token
    if held.decoder is not None and plain.decoder is not None:
        held.decoder.token = plain.decoder.token


def values_of(patches: Sequence[Patch], weights: Mapping[str, Tensor]) -> list[Values]:
    """Return the adapters' tensors from a network's weights; tensors that two patches share are
    stored under the name of one of them.
    """
    numbers: dict[str, int] = {}
    found: list[dict[str, Tensor]] = []
    shared: dict[tuple[str, str], Tensor] = {}
    for patch in sorted(patches, key=lambda p: (p.layer, p.begin)):
        number = numbers.setdefault(patch.layer, 0)
        numbers[patch.layer] += 1
        for name in PARAMETERS[patch.method]:
            key = f"{patch.layer}.parts.{number}.{name}"
            if key in weights:
                shared[patch.published, f"{patch.layer} {patch.begin} {name}"] = weights[key]
                shared.setdefault((patch.published, name), weights[key])
    for patch in patches:
        own = f"{patch.layer} {patch.begin} "
        found.append(
            {
                name: shared.get((patch.published, own + name), shared[patch.published, name])
                for name in PARAMETERS[patch.method]
            }
        )
    return list(found)


def write_adapter_files(
    folder: Path,
    checkpoint: Checkpoint,
    chosen: ModelSettings,
    head: str | None,
    weights: Mapping[str, Tensor],
) -> dict[str, Any]:
    """Write both files of an adapter, and the tokenizer; return what langue.json stores about the
    base.

    weights: of the network, in the form in which they are saved.
    """
    planned = plan(checkpoint, chosen)
    family = checkpoint.family
    task_type = _task_type(checkpoint, head)
    prefix = "" if task_type == BODY_TYPE else family.prefix_of(str(head))

    def renamed(name: str) -> str:
        """Return a module's name in the class that loads the folder."""
        return prefix + name.removeprefix(family.prefix)

    known = {renamed(name): place for name, place in planned.known.items()}
    patches = [replace(patch, published=renamed(patch.published)) for patch in planned.patches]
    tensors = published_tensors(patches, values_of(planned.patches, weights), known)
    own_head = {n: w for n, w in weights.items() if n.startswith("head.") and head != "lm"}
    in_head = family.to_theirs(own_head, checkpoint.config, head)
    in_head = {name: tensor for name, tensor in in_head.items() if tensor.numel()}
    tensors |= {PREFIX + name: tensor.detach().cpu().float() for name, tensor in in_head.items()}
    modules = [renamed(name) for name in planned.modules]
    inputs = [p.published for p in patches if p.method == "ia3_input"]
    head_modules = []
    for rule in chain.from_iterable(family.heads.values()):
        head_modules += [name.rpartition(".")[0] for name in rule.theirs]
    config = replace(
        planned.config,
        base=_base_of(checkpoint),
        revision=chosen.revision,
        task_type=task_type,
        targets=tuple(written_targets(modules, [*known, *head_modules])),
        inputs=tuple(written_targets(inputs, modules)),
        saved=() if task_type == BODY_TYPE else tuple(_saved(in_head, prefix)),
    )
    if not set(config.inputs) <= set(config.targets):  # otherwise PEFT rejects the config
        config = replace(config, targets=tuple(modules), inputs=tuple(inputs))
    turned = any(planned.known[name].turned for name in planned.modules)
    write_adapter(folder, config, tensors, turned=turned)
    checkpoint.tokenizer.save(folder)
    write_tokenizer_config(folder, checkpoint.tokenizer, checkpoint.published, checkpoint.config)
    kept: dict[str, Any] = {"sha256": digest_of(checkpoint.folder, checkpoint.original)}
    return kept | ({} if chosen.base_weights is None else {"weights": chosen.base_weights})


def _base_of(checkpoint: Checkpoint) -> str:
    """Return the base as others can find it: an absolute path, or its name on the Hub."""
    path = Path(checkpoint.name).expanduser()
    return str(path.resolve()) if path.exists() else checkpoint.name


def _task_type(checkpoint: Checkpoint, head: str | None) -> str:
    if head == "lm" and checkpoint.config.architecture == "encoder-decoder":
        return SEQ2SEQ_TYPE
    if head == "lm" and checkpoint.config.architecture == "encoder":
        return BODY_TYPE
    known = head in checkpoint.family.heads or head in TOKEN_CLASSES
    return TASK_TYPES.get(str(head), BODY_TYPE) if known else BODY_TYPE


def _saved(names: Iterable[str], prefix: str) -> list[str]:
    """Return the head's modules that PEFT saves in full: the outermost ones, or those inside the
    body.
    """
    found: dict[str, None] = {}
    for name in names:
        if name.startswith("head.crf."):  # which belongs to no published class
            continue
        inside = prefix and name.startswith(prefix)
        found[name.rpartition(".")[0] if inside else name.partition(".")[0]] = None
    return list(found)


def with_adapter(network: nn.Module, described: Description, checkpoint: Checkpoint) -> nn.Module:
    """Return a base's language model with the adapter of a description."""
    adapter = adapter_of(described, checkpoint.config, "lm")
    made = with_adapters(network, adapter.patches, adapter.values)
    return with_parameters(made, adapter.whole)


def parts_with_adapter(base: Parts, folder: str | Path) -> Parts:
    """Return a loaded base with an adapter and its head: new modules around the same weights."""
    described = describe(folder)
    if described.adapter is None:
        raise ModelError(
            f"no adapter: there is no {CONFIG}", where=str(folder), do="load it by itself"
        )
    checkpoint = base.checkpoint
    task = task_of(described)
    head = "lm" if task is None else head_of(task, described)
    adapter = adapter_of(replace(described, folder=checkpoint.folder), checkpoint.config, head)
    own = replace(
        checkpoint,
        task=described.task,
        published=described.published,
        tokenizer=read_tokenizer(described),
        adapter=described.adapter,
    )
    network: nn.Module | None = None
    language: Any = None
    speaks = task is None or task.has_language_head
    if speaks:
        language = base.language
        whole: nn.Module = base.body if language is None else language
    else:
        assert task is not None
        whole = _with_head(base, task, checkpoint, adapter)
    prefix = "body." if whole is base.body else ""
    kept = [
        (replace(patch, layer=patch.layer.removeprefix(prefix)), values)
        for patch, values in zip(adapter.patches, adapter.values, strict=True)
    ]
    made = with_adapters(whole, [patch for patch, _ in kept], [values for _, values in kept])
    replaced = {
        name.removeprefix(prefix): w
        for name, w in adapter.whole.items()
        if not name.startswith("head.") or speaks
    }
    made = with_parameters(made, replaced)
    made.eval()
    if speaks:
        language = None if language is None else made
        body = made if language is None else made.body
        network = None if task is None else language
    else:
        network = made
        body = made.body
    return Parts(own, body, task, network, language)  # type: ignore[arg-type]


def _with_head(base: Parts, task: Task, checkpoint: Checkpoint, adapter: Adapter) -> nn.Module:
    """Return the task's network on the base's body, with the adapter's head, or the base's own if
    the adapter has none.
    """
    with on_meta_device():
        network = task.network(checkpoint.config, pad=checkpoint.pad)
    assert isinstance(network, TaskModel)
    head = network.head
    names = dict(head.named_parameters())
    given = {
        name.removeprefix("head."): tensor
        for name, tensor in adapter.whole.items()
        if name.startswith("head.")
    }
    if base.network is not None:
        own = dict(base.network.head.named_parameters())  # type: ignore[union-attr]
        given = {name: w.detach() for name, w in own.items() if name in names} | given
    load_into(head, given, where=str(adapter.folder), copy=False)
    head.to(device_of(base.body))
    network.body = base.body
    return network


def copy_adapter(checkpoint: Checkpoint, out: Path) -> None:
    """Copy the files of a loaded adapter unchanged."""
    assert checkpoint.adapter is not None
    for name in (CONFIG, WEIGHTS, "langue.json"):
        if (checkpoint.adapter / name).is_file():
            shutil.copyfile(checkpoint.adapter / name, out / name)
    checkpoint.tokenizer.save(out)
    write_tokenizer_config(out, checkpoint.tokenizer, checkpoint.published, checkpoint.config)

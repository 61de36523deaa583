"""Merge `section.key = value` settings from defaults, a TOML recipe and the command line, and
validate them.

The result is one `Settings`, in which every key is known and every value has the right type and
range. Later sources win: defaults < recipe < command line. The error for an unknown key names the
nearest known one or, for a key of another library, ours.
"""

import codecs
import difflib
import re
from collections.abc import Collection, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    create_model,
)

from langue.errors import SettingsError
from langue.settings.aliases import RENAMED, ours_of
from langue.settings.recipe import ARGUMENTS

_NONE: Mapping[str, Any] = MappingProxyType({})
Share = Annotated[float, Field(ge=0, lt=1)]
SHORTEST = 4  # smallest allowed `data.max_length`, in tokens


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


def _encoding(name: str | None) -> str | None:
    """Return the name of a text encoding if Python knows it; ValueError otherwise."""
    if name is None:
        return None
    try:
        is_of_text = codecs.lookup(name)._is_text_encoding
    except LookupError:
        is_of_text = False
    if not is_of_text:
        raise ValueError("no encoding is called so; some are gb18030, windows-1252, utf-16le")
    return name


class DataSettings(Section):
    seq_len: int = Field(
        default=256,
        ge=2,
        description="length of a pretraining sequence in tokens; longer documents are split",
    )
    dev_tokens: int = Field(
        default=262_144,
        ge=0,
        description="maximum number of held-out tokens for evaluations during pretraining; 0: all",
    )
    max_length: int = Field(
        default=512,
        ge=SHORTEST,
        description="maximum number of tokens per text, special tokens included; longer texts"
        " are truncated",
    )
    truncation: Literal["head-tail", "head", "tail"] = Field(
        default="head-tail",
        description="which part of a longer text is kept; head-tail keeps a quarter from the"
        " start and the rest from the end",
    )
    dev_fraction: float | None = Field(
        default=0.1,
        gt=0,
        lt=1,
        description=(
            "fraction of train that becomes dev if there is none; none: 0.1, in"
            " pretraining 0.01 of the documents, or 0.1 of a single one"
        ),
    )
    test_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="fraction of the data that becomes test if there are no splits",
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        description="number of folds of the training rows, one of which is test; none: no"
        " cross-validation",
    )
    fold: int | None = Field(
        default=None, ge=1, description="the fold that is test, from 1; --folds runs all of them"
    )
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="fraction of the training rows to use; none: all",
    )
    dev_max: int = Field(
        default=2000, ge=1, description="maximum number of examples taken from train for dev"
    )
    invalid: Literal["error", "drop"] = Field(
        default="error", description="what to do with an unusable row: stop, or drop and count it"
    )
    conflicts: Literal["keep", "drop"] | None = Field(
        default=None,
        description="training rows whose text occurs with different labels: keep or drop; none:"
        " keep",
    )
    decimal_comma: bool | None = Field(
        default=None,
        description=(
            "read 1,5 as one and a half in scores; none: if semicolons separate the columns"
        ),
    )
    encoding: Annotated[str | None, AfterValidator(_encoding)] = Field(
        default=None,
        description=(
            "encoding of files that are not UTF-8, such as gb18030 or windows-1252;"
            " none: such files are an error that lists the likely encodings"
        ),
    )
    duplicates: bool = Field(
        default=True, description="look for exact and near duplicates between train and test"
    )
    source_language: str | None = Field(
        default=None,
        description=(
            "language of the texts, as a code of a multilingual model; none: the"
            " tokenizer's default"
        ),
    )
    target_language: str | None = Field(
        default=None,
        description="language that a multilingual model generates, as its code; none: the"
        " default of its tokenizer and config",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the automatic split")
    shard_tokens: int = Field(
        default=1 << 26, ge=1, description="number of tokens per file of a corpus"
    )

    @classmethod
    def of_run(cls, saved: Mapping[str, Any]) -> Self:
        """Return the settings in a run's langue.json, under current or former names."""
        return cls(
            **{
                RENAMED.get(f"data.{key}", key).removeprefix("data."): value
                for key, value in saved.items()
            }
        )


class TokenizerSettings(Section):
    kind: Literal["bpe", "wordpiece", "unigram", "characters", "bytes"] = Field(
        default="bpe",
        description="kind of tokenizer to train; bpe is byte-level and can encode any text",
    )
    vocab_size: int = Field(
        default=8192, ge=2, le=1 << 24, description="vocabulary size, special tokens included"
    )
    min_frequency: int = Field(
        default=2, ge=0, description="minimum frequency of a token in the text"
    )
    lower: bool = Field(default=False, description="lowercase the text")
    accents: bool = Field(default=True, description="keep accents; false: strip them")
    normalise: Literal["none", "nfc", "nfkc"] = Field(
        default="none",
        description=("Unicode normalisation of the text; none: decoding gives back the exact text"),
    )
    digits: bool = Field(default=False, description="make each digit a token of its own")
    chinese: bool = Field(
        default=True, description="wordpiece: treat each Chinese character as a word"
    )
    special: tuple[str, ...] = Field(
        default=(), description="additional special tokens, such as <|user|>,<|model|>"
    )
    sentinels: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="number of sentinel tokens <extra_id_0>, <extra_id_1>, ..., which denoising"
        " needs",
    )
    sample: int | None = Field(
        default=None,
        ge=0,
        description=(
            "number of characters of each source to train on; 0: all; none: 50 million,"
            " or 10 million for unigram, which is slow"
        ),
    )


class ModelSettings(Section):
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="hidden dropout in training; none: as in the model's config",
    )
    attention_dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="attention dropout in training; none: as in the model's config",
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a Hub model")
    adapter: Literal["lora", "dora", "ia3"] | None = Field(
        default=None,
        description=(
            "train an adapter of this kind with the model frozen, and save only the"
            " adapter; none: train all weights"
        ),
    )
    lora_rank: int | None = Field(default=None, ge=1, description="rank of LoRA and DoRA; none: 8")
    lora_alpha: float | None = Field(
        default=None,
        gt=0,
        description="LoRA's scale is lora_alpha / lora_rank; none: twice the rank",
    )
    lora_targets: tuple[str, ...] | None = Field(
        default=None,
        description=(
            "the linear layers with adapters, by the ends of their published names,"
            " such as q_proj,v_proj; all-linear: all; none: queries and values, and for"
            " ia3 keys, values and the input of the feed-forward's second layer"
        ),
    )
    lora_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="dropout before LoRA's matrices; none: 0"
    )
    rslora: bool | None = Field(
        default=None,
        description="rank-stabilised LoRA: the scale is lora_alpha / sqrt(lora_rank)",
    )
    freeze: tuple[str, ...] | None = Field(
        default=None,
        description=(
            "frozen parts: embeddings, layers such as 0-5 or 3, or body, which is"
            " everything but the head"
        ),
    )
    base_weights: Literal["fp32", "bf16", "int8", "int4"] | None = Field(
        default=None,
        description=(
            "number type of the frozen matrices, as in langue.load(weights=...); int8"
            " and int4 are QLoRA"
        ),
    )
    preset: str | None = Field(
        default=None,
        description=(
            "architecture of a new model: langue, gpt2, llama, bert, t5, or a published size of one"
        ),
    )
    size: str | None = Field(
        default=None,
        description="number of parameters of a new model, such as 10M, from which depth, width"
        " and heads follow",
    )
    dim: int | None = Field(
        default=None, ge=1, description="width; this and the settings below change the preset"
    )
    n_layers: int | None = Field(
        default=None, ge=1, description="number of layers, in an encoder-decoder of each side"
    )
    n_heads: int | None = Field(default=None, ge=1, description="number of attention heads")
    kv_heads: int | None = Field(
        default=None, ge=1, description="number of key-value heads, a divisor of n_heads"
    )
    ffn_dim: int | None = Field(default=None, ge=1, description="inner width of the feed-forward")
    activation: Literal["gelu", "gelu_tanh", "relu", "silu", "relu_squared"] | None = Field(
        default=None, description="activation of the feed-forward"
    )
    gated: bool | None = Field(default=None, description="gated feed-forward, such as SwiGLU")
    tied: bool | None = Field(default=None, description="tie the output matrix to the embedding")
    bias: bool | None = Field(default=None, description="biases in the linear layers")
    qk_norm: bool | None = Field(default=None, description="normalise queries and keys")
    logit_cap: float | None = Field(
        default=None, ge=0, description="cap of the logits, c tanh(logit / c); 0: none"
    )
    rotary_base: float | None = Field(
        default=None, gt=0, description="base of the rotary position embedding"
    )


class TrainSettings(Section):
    epochs: float = Field(default=3.0, gt=0, description="number of epochs")
    max_steps: int = Field(default=0, ge=0, description="maximum number of steps; 0: no limit")
    # the minimum depends on the texts: see `check_budget` and, in pretraining, `check_sizes`
    batch_tokens: int = Field(default=8192, description="maximum number of tokens per batch")
    batch_examples: int = Field(
        default=32,
        ge=0,
        description="maximum number of examples per batch; 0: limited only by tokens",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="number of batches whose gradients are accumulated for one step",
    )
    lr: float = Field(
        default=1e-4,
        gt=0,
        description="peak learning rate; its default is 0.001 for a new model and for lora and"
        " dora, and 0.003 for ia3",
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="learning rate of a layer relative to the layer above it",
    )
    weight_decay: float = Field(
        default=0.01, ge=0, description="decoupled weight decay of the weight matrices"
    )
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="AdamW's betas")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon")
    clip: float = Field(default=1.0, ge=0, description="maximum gradient norm; 0: no clipping")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw",
        description=(
            "muon: orthogonalised momentum for the weight matrices of the blocks, AdamW"
            " for the other parameters"
        ),
    )
    momentum: float = Field(default=0.95, ge=0, lt=1, description="momentum of Muon")
    muon_scale: float = Field(
        default=1.0, gt=0, description="Muon's learning rate relative to train.lr"
    )
    schedule: Literal["linear", "cosine", "wsd", "constant"] = Field(
        default="linear",
        description="schedule of the learning rate after warm-up; wsd: constant, then a linear"
        " decay",
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="fraction of the steps used for warm-up"
    )
    decay: float = Field(
        default=0.2, gt=0, le=1, description="fraction of the steps in which wsd decays"
    )
    min_lr_ratio: float = Field(
        default=0.0, ge=0, le=1, description="final learning rate as a fraction of the peak"
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of an exponential moving average of the weights, which is evaluated"
        " and saved; 0: none",
    )
    z_loss: float = Field(
        default=0.0,
        ge=0,
        description="weight of the z-loss, log(Z)^2, which keeps the logits of a language model"
        " small",
    )
    ramp_steps: int = Field(
        default=0,
        ge=0,
        description=(
            "number of steps over which the pretraining batch grows from an eighth of"
            " batch_tokens to its full size"
        ),
    )
    activation_checkpointing: bool = Field(
        default=False,
        description=(
            "recompute each block in the backward pass instead of storing its"
            " activations, which saves memory"
        ),
    )
    compile: bool = Field(
        default=False,
        description=(
            "compile blocks and loss with torch.compile: a slow start, then faster (5"
            " to 10% on a CPU)"
        ),
    )
    parallel: Literal["auto", "ddp", "fsdp", "tp"] = Field(
        default="auto",
        description=(
            "distribution over several processes: each holds the whole model (ddp, the"
            " default), a shard of the weights (fsdp), or some heads and columns of"
            " every block (tp)"
        ),
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        default="stop",
        description=(
            "what to do if the loss of a step is not finite or a spike: stop, or skip the update"
        ),
    )
    spike: float = Field(
        default=0.0,
        ge=0,
        description="a loss this number of standard deviations above the last 100 is a spike;"
        " 0: never",
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="number type of the computation; auto: bf16 if the hardware supports it",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**63,
        description="random seed of the data order, dropout and new weights",
    )
    evaluate_every: int = Field(
        default=0, ge=0, description="number of steps between evaluations on dev; 0: four per epoch"
    )
    checkpoint_every: int = Field(
        default=0,
        ge=0,
        description="number of steps between checkpoints for resuming; 0: every epoch, and four"
        " per run",
    )
    log_every: int = Field(
        default=1, ge=1, description="number of steps between lines of log.jsonl"
    )
    tracker: Literal["none", "tensorboard", "wandb"] = Field(
        default="none",
        description="experiment tracker that also receives the lines of log.jsonl; it needs the"
        " extra of its name",
    )
    best: str | None = Field(
        default=None,
        description=(
            "metric on dev by which the best checkpoint is chosen: loss, or a metric of"
            " the task such as accuracy or f1_macro, which then is also the main metric"
            " of the run; none: the task's default, in pretraining the loss"
        ),
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="number of evaluations without improvement after which training stops"
        " early; 0: never",
    )


OF_ADAPTERS = (
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "lora_dropout",
    "rslora",
    "base_weights",
)
# settings that do not only concern new models
OF_ALL_MODELS = ("dropout", "attention_dropout", "revision", "freeze", "adapter", *OF_ADAPTERS)
# Peak learning rates for adapters, about ten times those for all weights ("LoRA without regret",
# Schulman et al. 2025); that of IA3 is from Liu et al.
ADAPTER_RATES = {"lora": 1e-3, "dora": 1e-3, "ia3": 3e-3}
NEW_MODEL_RATE = 1e-3  # peak learning rate of a model with random initial weights


class Settings(Section):
    data: DataSettings = DataSettings()
    task: SerializeAsAny[Section] = Section()  # declared by the task or objective (`with_task`)
    model: ModelSettings = ModelSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    train: TrainSettings = TrainSettings()


# Defaults of pretraining that differ from those of fine-tuning.
PRETRAINING: dict[str, Any] = {
    "data.dev_fraction": None,
    "train.epochs": 1.0,
    "train.batch_tokens": 16_384,
    "train.batch_examples": 0,
    "train.lr": 1e-3,
    "train.betas": (0.9, 0.95),
    "train.weight_decay": 0.1,
    "train.warmup": 0.02,
    "train.schedule": "cosine",
    "train.min_lr_ratio": 0.1,
}
# Settings that only apply to fine-tuning -> their counterparts in pretraining, and below
# (ONLY_PRETRAINING) the reverse.
FINETUNING = {
    "train.batch_examples": "train.batch_tokens",
    "data.max_length": "data.seq_len",
    "data.dev_max": "data.dev_tokens",
    "data.test_fraction": "data.dev_fraction",
    "task.dropout": "model.dropout",
    **dict.fromkeys(
        [
            "data.folds",
            "data.fold",
            "data.share",
            "data.conflicts",
            "data.decimal_comma",
            "data.truncation",
            "data.duplicates",
            "data.source_language",
            "data.target_language",
        ],
        "",
    ),
}
# Settings for training a tokenizer, for reading text, and for building a corpus.
OF_TRAINING_TOKENIZERS = [f"tokenizer.{name}" for name in TokenizerSettings.model_fields]
OF_READING = ["data.encoding", "data.invalid"]
OF_BUILDING = ["data.dev_fraction", *OF_READING, "data.seed", "data.shard_tokens"]
OF_NEW_MODELS = [
    *OF_TRAINING_TOKENIZERS,
    *(f"model.{name}" for name in ModelSettings.model_fields if name not in OF_ALL_MODELS),
]
ONLY_PRETRAINING = {
    "data.seq_len": "data.max_length",
    "data.dev_tokens": "data.dev_max",
    "data.shard_tokens": "",
    **dict.fromkeys(["train.z_loss", "train.ramp_steps", *OF_NEW_MODELS], ""),
}


@cache
def with_task(options: type[Section]) -> type[Settings]:
    """Return `Settings` with these options of a task or an objective as its section `task`."""
    made: type[Settings] = create_model("Settings", __base__=Settings, task=(options, options()))
    return made


def known(*options: type[Section]) -> dict[str, Any]:
    """Return every key, `section.key`, with its pydantic field (type, default, description).

    options: those that tasks declare; if several declare a key, the first one's field is returned.
    """
    fields: dict[str, Any] = {}
    for section, of in Settings.model_fields.items():
        for part in options if section == "task" else (of.annotation,):
            for key, field in part.model_fields.items():  # type: ignore[union-attr]
                fields.setdefault(f"{section}.{key}", field)
    return fields


def refuse_others(
    chosen: Settings, usual: Settings, others: Mapping[str, str] | list[str], of: str
) -> None:
    """Raise SettingsError for a setting that would be accepted and have no effect.

    others: such settings, optionally with their counterparts here. of: what they are settings of.
    """
    for key, here in (
        others.items() if isinstance(others, Mapping) else ((key, "") for key in others)
    ):
        section, name = key.split(".")
        value, unset = (getattr(getattr(each, section), name, None) for each in (chosen, usual))
        if value != unset and not _was_unset(value, unset):
            raise _without_effect(key, of, here)


def _without_effect(key: str, of: str, here: str) -> SettingsError:
    return SettingsError(
        f"{key} is of {of}, and does nothing here",
        do=f"here it is {here}" if here else "leave it out",
    )


def _was_unset(value: Any, unset: Any) -> bool:
    """Return whether a value is how older recipes expressed a default that is None now."""
    return value is False and unset is None


def resolve_for(
    reads: Collection[str],
    words: Mapping[str, Any],
    usual: Mapping[str, Any] = _NONE,
    elsewhere: Mapping[str, type[Section]] = _NONE,
) -> Settings:
    """Resolve settings for a command that uses only those in `reads`; SettingsError for others.

    words: settings by key; in Python also with two underscores.
    """
    chosen = resolve(
        usual,
        {key.replace("__", "."): value for key, value in words.items()},
        elsewhere=elsewhere,
    )
    refuse_others(
        chosen, resolve(usual), [key for key in known() if key not in reads], "other verbs"
    )
    return chosen


def resolve(
    *layers: Mapping[str, Any],
    options: type[Section] = Section,
    others: Mapping[str, str] = _NONE,
    elsewhere: Mapping[str, type[Section]] = _NONE,
) -> Settings:
    """Merge flat `{"train.lr": 3e-5}` layers, later ones winning, and validate them.

    Strings are converted to the type of the setting. options: the `task.*` settings of the current
    task or objective. elsewhere: those of other tasks, by their owner ("the task classify"): one
    that is not at its default raises a SettingsError that names the owner, and one at its default,
    as in recipes of earlier versions, is ignored. others: settings that have no effect here ->
    their counterparts; they are never suggested for an unknown key.
    """
    nested: dict[str, dict[str, Any]] = {}
    fields = known(options)
    foreign = {key for key in known(*elsewhere.values()) if key not in fields}
    for key, value in ((RENAMED.get(k, k), v) for layer in layers for k, v in layer.items()):
        if key in foreign:
            _refuse_foreign(key, value, elsewhere, others.get(key, ""))
            continue
        if key not in fields:
            passive = dict.fromkeys(foreign, "") | dict(others)
            raise SettingsError(
                f"unknown setting {key!r}", do=_nearest(key, [*fields, *foreign], passive)
            )
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = _read_value(value, fields[key])
    try:
        return with_task(options).model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        raise SettingsError(
            f"{key} = {first['input']!r}: {first['msg']}", do=f"{key} is: {fields[key].description}"
        ) from None


def check_early(words: Mapping[str, Any], others: Mapping[str, str]) -> None:
    """Raise SettingsError for errors that do not depend on the task: a misspelt key, or an invalid
    value.

    `task.*` keys, and keys that resemble nothing here, are left to the task. others: as in
    `resolve`.
    """
    fields = known()
    read: dict[str, Any] = {}
    for key, value in ((RENAMED.get(key, key), value) for key, value in words.items()):
        if key in fields:
            read[key] = value
        elif not key.startswith("task.") and not (ours_of(key) or "").startswith("task."):
            near = difflib.get_close_matches(key, fields, 1, 0.8)
            if near or ours_of(key):
                do = _nearest(key, list(fields), others)
                raise SettingsError(f"unknown setting {key!r}", do=do)
    resolve(read, others=others)


def _read_value(value: Any, field: Any) -> Any:
    """Return a written value in the form that pydantic accepts for a field."""
    verbatim = bool(field.json_schema_extra)  # a label may be called "none"
    if not isinstance(value, str) or verbatim:
        return value
    if value.lower() in ("none", "null") and "None" in str(field.annotation):
        return None
    if "tuple" in str(field.annotation):
        # Brackets around several values delimit a list; around a single one, as in [USER], they
        # belong to it.
        listed = re.fullmatch(r"[\[(](|[^\[\]()]*,[^\[\]()]*)[\])]", value.strip())
        value = listed[1] if listed else value
        return [part.strip() for part in value.split(",")] if value else []
    return value


def _refuse_foreign(
    key: str, value: Any, elsewhere: Mapping[str, type[Section]], here: str
) -> None:
    """Raise SettingsError for a setting of other tasks or objectives that is not at its default."""
    name = key.partition(".")[2]
    owners = {of: options for of, options in elsewhere.items() if name in options.model_fields}
    for options in owners.values():
        field = options.model_fields[name]
        try:
            read = getattr(options.model_validate({name: _read_value(value, field)}), name)
        except ValidationError:
            break
        if read == field.default or _was_unset(read, field.default):
            return
    raise _without_effect(key, " and ".join(owners), here)


def _nearest(key: str, keys: list[str], others: Mapping[str, str]) -> str:
    key = key.replace("-", "_")
    for name, word in ARGUMENTS.items():
        if key in (name, word):
            return (
                f"it is an argument, not a setting: --{name}, in Python {name}=, in a recipe {word}"
            )
    ours = ours_of(key) or next((k for k in others if k.split(".")[1] == key.split(".")[-1]), None)
    if ours:
        ours = others.get(ours, ours)
        return f"here it is {ours}" if ours else "it does nothing here: leave it out"
    keys = [k for k in keys if k not in others]
    tails = {k.split(".")[1]: k for k in keys}
    close = difflib.get_close_matches(key, keys, 1, 0.5) or [
        tails[t] for t in difflib.get_close_matches(key.split(".")[-1], list(tails), 1, 0.6)
    ]
    return f"did you mean {close[0]}?" if close else "`langue settings` lists them"


def parse_words(words: list[str]) -> dict[str, str]:
    """Parse `["train.lr=3e-5", ...]`, settings as written in a command."""
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise SettingsError(f"{word!r} is not a setting", do="write it as section.key=value")
        pairs[key.strip().lstrip("-")] = value.strip()
    return pairs

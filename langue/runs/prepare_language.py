"""What arrives: an objective, text or a corpus, and settings.
What leaves: everything that pretraining needs, and the facts to see first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from langue.data.corpus.reader import Corpus, vocabulary
from langue.data.corpus.stream import Stream, check_sizes
from langue.errors import SettingsError
from langue.hardware import matmul_rate
from langue.hub.checkpoint import Checkpoint, describe, load_into, read_checkpoint, without_extra
from langue.hub.family import Family, parameters
from langue.hub.presets import count, preset
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel, init_weights
from langue.model.transformer import set_dropout
from langue.runs.corpora import corpus_of, given_corpus
from langue.runs.held_out import notes_on_held_out, notes_on_text
from langue.runtime import precision
from langue.settings.sections import Settings, TrainSettings
from langue.tasks import OBJECTIVES
from langue.tasks.language import LanguageObjective
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.train.throughput import body_flops, head_flops

FEWEST = 100  # tokens that a vocabulary may come to have
COUNTED = 256  # documents whose first pieces say what a token costs
MANY = 1e6  # passes: as many as `train.max_steps` asks for
AXES = (
    *(
        "dim",
        "n_layers",
        "n_heads",
        "kv_heads",
        "ffn_dim",
        "activation",
        "gated",
        "tied",
        "bias",
        "qk_norm",
    ),
    *("logit_cap", "rotary_base", "dropout", "attention_dropout"),
)


@dataclass
class Pretraining:
    """Everything that training needs, and the facts to see first."""

    objective: LanguageObjective
    family: Family
    config: ModelConfig
    tokenizer: Tokenizer
    train: Corpus
    dev: Corpus
    settings: Settings
    checkpoint: Checkpoint | None = None  # the model that is trained further
    facts: dict[str, Any] = field(default_factory=dict)


def prepare_language(arguments: Mapping[str, Any], settings: Settings, folder: Path) -> Pretraining:
    """Tokenizer, corpus and model, found or made; what is made is kept in the run."""
    kind = OBJECTIVES[arguments["objective"]]
    checkpoint = None
    if arguments["model"] is not None:
        described = describe(arguments["model"], settings.model.revision)
        checkpoint = read_checkpoint(described, head="lm", pairs=kind.learns_pairs(settings.task))
    own = None if checkpoint is None else checkpoint.tokenizer

    def check(tokenizer: Tokenizer | None) -> None:
        check_sizes(
            kind.overhead_for(settings.task), settings.data.seq_len, settings.train.batch_tokens
        )
        if tokenizer is not None:
            _made(arguments["objective"], tokenizer, checkpoint, settings)
        else:
            kind.fits(settings.task, settings.data.seq_len, settings.tokenizer.sentinels)
            _possible(arguments["objective"], settings)

    train, dev = corpus_of(arguments, own, settings, folder, check)
    kind.check_documents(settings.task, train.n_documents)
    tokenizer = train.tokenizer if own is None else own
    objective, family, config = _made(arguments["objective"], tokenizer, checkpoint, settings)
    prepared = Pretraining(objective, family, config, tokenizer, train, dev, settings, checkpoint)
    prepared.facts = _facts(prepared, arguments)
    return prepared


def _made(
    name: str, tokenizer: Tokenizer, checkpoint: Checkpoint | None, settings: Settings
) -> tuple[LanguageObjective, Family, ModelConfig]:
    """The objective and the model's shape, or what is wrong with them: for neither is any text
    needed."""
    objective = OBJECTIVES[name](
        tokenizer, settings.task, z_loss=settings.train.z_loss, seed=settings.train.seed
    )
    objective.fits(settings.task, settings.data.seq_len, len(objective.special.sentinels))
    family, config = _shape(name, vocabulary(tokenizer), checkpoint, settings)
    # some models have fewer, by a spare token
    objective.vocabulary = min(objective.vocabulary, config.vocab_size)
    return objective, family, config


def _possible(objective: str, settings: Settings) -> None:
    """What is wrong with the model's shape, whatever becomes of the tokenizer: how many tokens it
    will have, the text says, and no size is refused that some number of them has."""
    errors = []
    for vocab_size in np.geomspace(settings.tokenizer.vocab_size, FEWEST, 17).astype(int).tolist():
        try:
            _shape(objective, vocab_size, None, settings)
            return
        except SettingsError as error:
            errors.append(error)
    raise errors[0]


def _shape(
    objective: str, vocab_size: int, checkpoint: Checkpoint | None, settings: Settings
) -> tuple[Family, ModelConfig]:
    block = settings.data.seq_len
    if checkpoint is not None:
        family = checkpoint.family
        config = checkpoint.config
    else:
        axes = {
            axis: value for axis in AXES if (value := getattr(settings.model, axis)) is not None
        }
        name = settings.model.preset or OBJECTIVES[objective].preset
        family, config = preset(name, vocab_size, block, size=settings.model.size, axes=axes)
    OBJECTIVES[objective].suits(config)
    if OBJECTIVES[objective].learns_pairs(settings.task):
        config = _with_pairs(family, config)
    if block > config.longest:
        raise SettingsError(
            f"data.seq_len = {block} is more than the {config.longest} tokens of the model",
            do=f"set data.seq_len to at most {config.longest}",
        )
    return family, config


def _with_pairs(family: Family, config: ModelConfig) -> ModelConfig:
    """With the head that says whether a second part follows."""
    published = any(r.ours == "head.pairs.weight" for r in family.heads.get("lm", ()))
    if not published or config.n_segments < 2:
        raise SettingsError(
            f"task.pairs needs a model that tells two parts apart, which {family.name} does not",
            do="choose model.preset=bert-tiny .. bert-base, or task.pairs=none",
        )
    return replace(config, pair_head=True)


def stream_of(prepared: Pretraining, corpus: Corpus) -> Stream:
    chosen = prepared.settings
    return prepared.objective.stream(
        corpus,
        block=chosen.data.seq_len,
        budget=chosen.train.batch_tokens,
        seed=chosen.train.seed,
        ramp=chosen.train.ramp_steps * chosen.train.accumulate,
    )


def _facts(prepared: Pretraining, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What one should see before paying."""
    chosen = prepared.settings.train
    train = prepared.train
    config = prepared.config
    step = chosen.batch_tokens * chosen.accumulate
    stream = stream_of(prepared, train)
    tokens = stream.expected()
    a_pass = max(1, math.ceil(tokens / step))
    steps = _steps(stream, a_pass, chosen)
    passes = stream.tokens_in(steps * chosen.accumulate) / (a_pass * step)
    seen = passes * tokens  # of which the last batch of an epoch has fewer
    block = prepared.settings.data.seq_len
    flops = _flops_a_token(prepared, stream) * seen
    new = _new_parts(prepared.checkpoint, config)
    return {
        "objective": prepared.objective.name,
        "data": str(arguments["data"]),
        "family": prepared.family.name,
        "layers": config.n_layers,
        "width": config.dim,
        "heads": config.n_heads,
        "parameters": count(config),
        **({"new_weights": new} if new else {}),
        "vocabulary": config.vocab_size,
        "documents": train.n_documents,
        "tokens": train.n_tokens,
        "bytes": train.n_bytes,
        "dev_documents": prepared.dev.n_documents,
        "dev_tokens": prepared.dev.n_tokens,
        "block": block,
        "tokens_per_step": step,
        "steps": steps,
        "tokens_per_epoch": tokens,
        "passes": passes,
        "tokens_per_parameter": seen / count(config),
        "flops": flops,
        "seconds_estimated": flops / (0.5 * matmul_rate(precision(chosen.precision))),
        "precision": str(precision(chosen.precision)).removeprefix("torch."),
        "notes": notes_on_data(prepared, arguments["data"]),
    }


def notes_on_data(prepared: Pretraining, data: Any) -> list[str]:
    """What one should know of the text before paying: how little is held out, how much of it is
    unknown."""
    train = prepared.train
    dev = prepared.dev
    given = given_corpus(data) is not None
    remedy = "langue data tokenize with" if given else "setting"
    return notes_on_held_out(train.n_documents, dev.n_documents, remedy) + notes_on_text(
        train, prepared.objective, "training"
    )


def _new_parts(checkpoint: Checkpoint | None, config: ModelConfig) -> list[str]:
    """The weights of the language-model head that the model to be trained further lacks."""
    if checkpoint is None:
        return []
    return [
        name
        for name in parameters(config)
        if name.startswith("head.") and name not in checkpoint.weights
    ]


def _flops_a_token(prepared: Pretraining, stream: Stream) -> float:
    """Operations of forward and backward for one token of the budget, counted over pieces of some
    documents: what is predicted of them, what passes an encoder and what a decoder, is the
    objective's to say."""
    sizes = prepared.train.lengths
    # of which the last is not empty
    documents = np.append(np.arange(min(COUNTED, len(sizes))), sizes.argmax())
    lengths = np.minimum(
        sizes[documents] + stream.overhead.document, stream.block - stream.overhead.chunk
    )
    nothing = np.zeros_like(lengths)
    rows = np.stack([documents, nothing, lengths, nothing], axis=1)[lengths > 0]
    batch = stream.batch(rows, 0, torch.device("cpu"))
    labels = prepared.objective.predicted(batch).labels
    assert labels is not None
    forward = body_flops(prepared.config, batch) + head_flops(prepared.config) * len(labels)
    return 3 * forward / int((rows[:, 2] + stream.overhead.chunk).sum())


def _steps(stream: Stream, a_pass: int, chosen: TrainSettings) -> int:
    """Steps of the run, of which an epoch takes so many where none is smaller than the others."""
    if chosen.epochs >= MANY:
        return chosen.max_steps
    full = max(1, round(a_pass * chosen.epochs)) * chosen.accumulate * chosen.batch_tokens
    steps = math.ceil(stream.batches_for(full) / chosen.accumulate)
    return min(steps, chosen.max_steps) if chosen.max_steps else steps


def first_pieces(
    prepared: Pretraining, pieces: int = 2, most: int = 60
) -> list[list[tuple[str, bool]]]:
    """The tokens of the first batch's longest pieces, each with whether it carries loss: what is
    predicted at a token stands after it where each predicts the next, and in its place where it was
    hidden."""
    stream = stream_of(prepared, prepared.train)
    rows = stream.plan(0)[0]
    rows = rows[np.argsort(-rows[:, 2], kind="stable")[:pieces]]
    batch = stream.batch(rows, 0, torch.device("cpu"))
    side = prepared.objective.predicted(batch)
    tokenizer = prepared.tokenizer
    assert side.labels is not None
    carries = torch.zeros(side.n_tokens, dtype=torch.bool)
    carries[slice(None) if side.places is None else side.places] = True
    shown = []
    for a, b in zip(side.starts[:-1].tolist(), side.starts[1:].tolist(), strict=True):
        tokens = side.tokens[a : min(b, a + most)].tolist()
        words = [
            tokenizer.decode([token], skip_special=False).replace("\n", "⏎").strip()
            for token in tokens
        ]
        shown.append(list(zip([f"{word} " for word in words], carries[a:b].tolist(), strict=False)))
    return shown


def new_model(prepared: Pretraining) -> LanguageModel:
    """The model to train: fresh, or with the weights of the one that is trained further."""
    torch.manual_seed(prepared.settings.train.seed)
    model = LanguageModel(prepared.config)
    init_weights(model, prepared.settings.train.seed)
    if prepared.checkpoint is not None:
        load_into(
            model,
            without_extra(prepared.checkpoint.weights),
            where=str(prepared.checkpoint.folder),
            new="head.",
        )
        set_dropout(
            model.body, prepared.settings.model.dropout, prepared.settings.model.attention_dropout
        )
    return model

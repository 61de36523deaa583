"""BERT (Devlin et al. 2018, arXiv:1810.04805): a post-norm encoder with learned positions, two
segments and exact GELU. ERNIE (Sun et al. 2019, arXiv:1904.09223) is the same architecture; from
ERNIE 2.0 on it has an additional task embedding.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, require, take
from langue.hub.family import Family, Rule, classes, rule
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    norm_eps=("layer_norm_eps", 1e-12),
    activation=("hidden_act", "gelu"),
    n_segments=("type_vocab_size", 2),
    dropout=("hidden_dropout_prob", 0.1),
    attention_dropout=("attention_probs_dropout_prob", 0.1),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
)


def read(config: Config) -> ModelConfig:
    require(config, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    require(config, embedding_size=take(config, "hidden_size"))
    axes = _NAMES.read(config)
    return ModelConfig(
        **axes, head_transform=True, head_activation=axes["activation"], head_bias=True
    )


def read_ernie(config: Config) -> ModelConfig:
    tasks = config.get("task_type_vocab_size", 3) if config.get("use_task_id", False) else 0
    return replace(read(config), n_tasks=tasks)


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config)


def write_ernie(config: ModelConfig) -> dict[str, Any]:
    tasks = {"task_type_vocab_size": config.n_tasks} if config.n_tasks else {}
    return write(config) | tasks | {"use_task_id": config.n_tasks > 0}


_LAYER = "encoder.layer.{i}."


def _family(name: str, stem: str) -> Family:
    return Family(
        name=name,
        prefix=f"{name}.",
        read=read,
        write=write,
        architectures=classes(stem, "ForMaskedLM"),
        body=[
            Rule("token.weight", ("embeddings.word_embeddings.weight",)),
            Rule("position.weight", ("embeddings.position_embeddings.weight",)),
            Rule("segment.weight", ("embeddings.token_type_embeddings.weight",)),
            *rule("embedding_norm", "embeddings.LayerNorm"),
            *rule(
                "blocks.{i}.attention.qkv",
                *(f"{_LAYER}attention.self.{part}" for part in ("query", "key", "value")),
            ),
            *rule("blocks.{i}.attention.out", _LAYER + "attention.output.dense"),
            *rule("blocks.{i}.attention_norm", _LAYER + "attention.output.LayerNorm"),
            *rule("blocks.{i}.feedforward.up", _LAYER + "intermediate.dense"),
            *rule("blocks.{i}.feedforward.down", _LAYER + "output.dense"),
            *rule("blocks.{i}.feedforward_norm", _LAYER + "output.LayerNorm"),
        ],
        heads={
            "sequence": [
                *rule("head.pooler", f"{name}.pooler.dense"),
                *rule("head.out", "classifier"),
            ],
            "lm": [
                *rule("head.dense", "cls.predictions.transform.dense"),
                *rule("head.norm", "cls.predictions.transform.LayerNorm"),
                Rule("head.out.weight", ("cls.predictions.decoder.weight",)),
                Rule(
                    "head.bias", ("cls.predictions.bias",), tied=("cls.predictions.decoder.bias",)
                ),
                *rule("head.pooler", f"{name}.pooler.dense"),
                *rule("head.pairs", "cls.seq_relationship"),
            ],
        },
        renames={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
        unused=(
            r"embeddings\.position_ids$",
            r"(^|\.)pooler\.dense\.",
            r"^cls\.",
            r"^classifier\.",
        ),
    )


BERT = _family("bert", "Bert")
_TASKS = Rule("task.weight", ("embeddings.task_type_embeddings.weight",))
_ERNIE = _family("ernie", "Ernie")
ERNIE = replace(_ERNIE, read=read_ernie, write=write_ernie, body=[*_ERNIE.body, _TASKS])

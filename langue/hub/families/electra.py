"""ELECTRA (Clark et al. 2020, arXiv:2003.10555): BERT with a factorised embedding; the generator
has a masked-LM head.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import bert
from langue.hub.family import Family, Rule, classes, rule
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    dim = take(config, "hidden_size")
    base = bert.read({key: value for key, value in config.items() if key != "embedding_size"})
    size = config.get("embedding_size", 128)
    return replace(
        base,
        embedding_dim=0 if size == dim else size,
        head_activation="gelu",
        pooler_activation="gelu",
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return bert.write(config) | {"embedding_size": config.embedding_dim or config.dim}


ELECTRA = Family(
    name="electra",
    prefix="electra.",
    read=read,
    write=write,
    architectures=classes("Electra", "ForMaskedLM"),
    body=[*bert.BERT.body, *rule("widen", "embeddings_project")],
    heads={
        "sequence": [
            *rule("head.pooler", "classifier.dense"),
            *rule("head.out", "classifier.out_proj"),
        ],
        "lm": [
            *rule("head.dense", "generator_predictions.dense"),
            *rule("head.norm", "generator_predictions.LayerNorm"),
            Rule("head.out.weight", ("generator_lm_head.weight",)),
            Rule("head.bias", ("generator_lm_head.bias",)),
        ],
    },
    renames=bert.BERT.renames,
    unused=(r"embeddings\.position_ids$", r"^(generator|discriminator)_", r"^classifier\."),
)

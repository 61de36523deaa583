"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-R (Conneau et al. 2019, arXiv:1911.02116) and
CamemBERT: BERT with positions that begin after the padding token's id, and another naming of the
masked-LM head. The text model of data2vec (Baevski et al. 2022, arXiv:2202.03555) is the same.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import Config, take
from langue.hub.families import bert
from langue.hub.family import Family, Rule, classes, rule
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    base = bert.read(config)
    # Token 0 of a text uses the row after the padding token's id, a convention of fairseq.
    offset = take({"pad_token_id": 1} | dict(config), "pad_token_id") + 1
    return replace(
        base, position_offset=offset, max_length=base.max_length - offset, head_activation="gelu"
    )


def write(config: ModelConfig) -> dict[str, Any]:
    positions = config.max_length + config.position_offset
    return bert.write(config) | {
        "max_position_embeddings": positions,
        "pad_token_id": config.position_offset - 1,
    }


def _family(name: str, stem: str, prefix: str = "roberta.") -> Family:
    return Family(
        name=name,
        prefix=prefix,
        read=read,
        write=write,
        architectures=classes(stem, "ForMaskedLM"),
        body=bert.BERT.body,
        heads={
            "sequence": [
                *rule("head.pooler", "classifier.dense"),
                *rule("head.out", "classifier.out_proj"),
            ],
            "lm": [
                *rule("head.dense", "lm_head.dense"),
                *rule("head.norm", "lm_head.layer_norm"),
                Rule("head.out.weight", ("lm_head.decoder.weight",)),
                Rule("head.bias", ("lm_head.bias",), tied=("lm_head.decoder.bias",)),
            ],
        },
        renames=bert.BERT.renames,
        unused=(
            r"embeddings\.position_ids$",
            r"(^|\.)pooler\.dense\.",
            r"^lm_head\.",
            r"^classifier\.",
        ),
    )


ROBERTA = _family("roberta", "Roberta")
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta")
CAMEMBERT = _family("camembert", "Camembert")
DATA2VEC_TEXT = _family("data2vec-text", "Data2VecText", prefix="data2vec_text.")

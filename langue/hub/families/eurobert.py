"""EuroBERT (Boizard et al. 2025, arXiv:2503.05500): Llama with bidirectional attention, trained as
a masked language model.
"""

from dataclasses import replace

from langue.hub.config_keys import Config, require
from langue.hub.families import llama
from langue.hub.family import Rule, classes, rule
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    named = config.get("architectures") or []
    if any(str(name).endswith("ForSequenceClassification") for name in named):
        require({"classifier_pooling": "late"} | dict(config), classifier_pooling="bos")
    return llama.read(
        {"rms_norm_eps": 1e-5} | dict(config),
        causal=False,
        head_bias=config.get("mlp_bias", False),
        pooler_activation="gelu",
    )


EUROBERT = replace(
    llama.make("eurobert", "EuroBert", read, llama.write_llama),
    architectures=classes("EuroBert", "ForMaskedLM"),
    heads={
        "sequence": [*rule("head.pooler", "dense"), *rule("head.out", "classifier")],
        "lm": [
            Rule("head.out.weight", ("lm_head.weight",)),
            Rule("head.bias", ("lm_head.bias",)),
        ],
    },
    # of the two other poolings, one averages the outputs, and one has a map after the average
    poolings={"first": {"classifier_pooling": "bos"}},
    unused=(r"rotary_emb\.inv_freq$", r"^(lm_head|dense|classifier)\."),
)

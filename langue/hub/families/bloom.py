"""BLOOM (Scao et al. 2022, arXiv:2211.05100): a causal decoder with a norm after its embedding and
without position embeddings; attention scores decrease linearly with distance, with a fixed slope
for each head (ALiBi).
"""

from typing import Any

from langue.hub.config_keys import Config, Names, own_names, require
from langue.hub.family import DECODING, Family, Rule, classes, rule
from langue.model.config import ModelConfig

# config names that Falcon also uses
USUAL: dict[str, Any] = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "norm_eps": ("layer_norm_epsilon", 1e-5),
    "dropout": ("hidden_dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "init_std": ("initializer_range", 0.02),
    "tied": ("tie_word_embeddings", True),
}
_NAMES = Names(**USUAL, n_layers="n_layer", n_heads="n_head", max_length=("seq_length", 2048))
_ALIASES = {
    "n_embed": "hidden_size",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}


def read(config: Config) -> ModelConfig:
    config = own_names(config, _ALIASES)
    require(config, apply_residual_connection_post_layernorm=False)
    if config.get("slow_but_exact"):  # without it, pretraining_tp changes nothing
        require(config, pretraining_tp=1)
    axes = _NAMES.read(config)
    return ModelConfig(
        **axes,
        ffn_dim=4 * axes["dim"],
        norm_place="pre",
        position="alibi",
        activation="gelu_tanh",
        causal=True,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config)


LAYER = "h.{i}."
QKV = LAYER + "self_attention.query_key_value"
# weight names that Falcon also uses
EMBEDDING = Rule("token.weight", ("word_embeddings.weight",))
MAPS = [
    *rule("blocks.{i}.attention.qkv", QKV, change="heads"),
    *rule("blocks.{i}.attention.out", LAYER + "self_attention.dense"),
    *rule("blocks.{i}.feedforward.up", LAYER + "mlp.dense_h_to_4h"),
    *rule("blocks.{i}.feedforward.down", LAYER + "mlp.dense_4h_to_h"),
    *rule("final_norm", "ln_f"),
]
ATTENTION_NORM = LAYER + "input_layernorm"
FEEDFORWARD_NORM = LAYER + "post_attention_layernorm"

BLOOM = Family(
    name="bloom",
    prefix="transformer.",
    read=read,
    write=write,
    architectures=classes("Bloom", "ForCausalLM"),
    body=[
        EMBEDDING,
        *rule("embedding_norm", "word_embeddings_layernorm"),
        *rule("blocks.{i}.attention_norm", ATTENTION_NORM),
        *rule("blocks.{i}.feedforward_norm", FEEDFORWARD_NORM),
        *MAPS,
    ],
    heads=DECODING,
    poolings={"last": {}},
    unused=(r"^(lm_head|score)\.weight$",),
)

"""Nomic's BERT (Nussbaum et al. 2024, arXiv:2402.01613): BERT with rotary positions, a gated
feed-forward, and no biases except in norms.
"""

from dataclasses import replace
from typing import Any

from langue.hub.config_keys import USUAL, Config, Names, own_names, require
from langue.hub.families import bert
from langue.hub.family import Rule, classes, rule
from langue.hub.rope import read_rope, write_rope_keys
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    norm_eps=("layer_norm_eps", 1e-12),
    activation=("hidden_act", "silu"),
    n_segments=("type_vocab_size", 2),
    dropout=("hidden_dropout_prob", 0.0),
    attention_dropout=("attention_probs_dropout_prob", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", True),
)

# config names of the first releases, which came with their own code
_ALIASES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}


def read(config: Config) -> ModelConfig:
    config = own_names(config, _ALIASES)
    require(config, prenorm=False, parallel_block=False, use_rms_norm=(None, False))
    require(config, qkv_proj_bias=False, mlp_fc1_bias=False, mlp_fc2_bias=False)
    require(config, activation_function="swiglu", rotary_emb_fraction=1.0)
    require(config, rotary_emb_interleaved=False, rotary_emb_scale_base=None)
    axes = _NAMES.read(config, gated=True, bias=False, norm_bias=True, head_transform=True)
    width = config.get("head_dim") or axes["dim"] // axes["n_heads"]
    axes |= read_rope(config, head_dim=width, base=1000.0)
    # in configs of the first releases
    if (stretched := config.get("rotary_scaling_factor")) is not None:
        require(axes, rotary_scaling="none")
        trained = config.get("max_trained_positions") or 2048
        axes |= {"rotary_scaling": "dynamic", "rotary_factor": float(stretched)}
        axes["rotary_length"] = trained
    return ModelConfig(**axes, head_width=width, head_activation=axes["activation"], head_bias=True)


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config) | {"head_dim": config.head_dim} | write_rope_keys(config)


_LAYER = "encoder.layers.{i}."

NOMIC_BERT = replace(
    bert.BERT,
    name="nomic_bert",
    prefix="nomic_bert.",
    read=read,
    write=write,
    architectures=classes("NomicBert", "ForMaskedLM"),
    # the names on the Hub; `transformers` renames them when it loads and saves
    body=[
        Rule("token.weight", ("embeddings.word_embeddings.weight",)),
        Rule("segment.weight", ("embeddings.token_type_embeddings.weight",)),
        *rule("embedding_norm", "emb_ln"),
        *rule("blocks.{i}.attention.qkv", _LAYER + "attn.Wqkv"),
        *rule("blocks.{i}.attention.out", _LAYER + "attn.out_proj"),
        *rule("blocks.{i}.attention_norm", _LAYER + "norm1"),
        *rule("blocks.{i}.feedforward.up", _LAYER + "mlp.fc11"),
        *rule("blocks.{i}.feedforward.gate", _LAYER + "mlp.fc12"),
        *rule("blocks.{i}.feedforward.down", _LAYER + "mlp.fc2"),
        *rule("blocks.{i}.feedforward_norm", _LAYER + "norm2"),
    ],
    heads={
        "sequence": [
            *rule("head.pooler", "nomic_bert.pooler.dense"),
            *rule("head.out", "classifier"),
        ],
        "lm": [
            *rule("head.dense", "cls.predictions.transform.dense"),
            *rule("head.norm", "cls.predictions.transform.layer_norm"),
            Rule("head.out.weight", ("cls.predictions.decoder.weight",)),
            Rule("head.bias", ("cls.predictions.bias",), tied=("cls.predictions.decoder.bias",)),
        ],
    },
)

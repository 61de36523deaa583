"""GPT-NeoX (Black et al. 2022, arXiv:2204.06745) and Pythia: causal decoders with parallel
attention and feed-forward, and rotary positions on a part of each head.
"""

from typing import Any

from langue.hub.config_keys import USUAL, Config, Names
from langue.hub.family import Family, Rule, classes, rule
from langue.hub.rope import read_rope, write_partial_rope_keys
from langue.model.config import ModelConfig

_NAMES = Names(
    **USUAL,
    norm_eps=("layer_norm_eps", 1e-5),
    activation=("hidden_act", "gelu"),
    parallel=("use_parallel_residual", True),
    qkv_bias=("attention_bias", True),
    dropout=("hidden_dropout", 0.0),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", False),
)


def read(config: Config) -> ModelConfig:
    axes = _NAMES.read(config)
    base = config.get("rotary_emb_base", 10_000.0)
    part = config.get("rotary_pct", 0.25)
    axes |= read_rope(config, head_dim=axes["dim"] // axes["n_heads"], base=base, part=part)
    return ModelConfig(
        **axes, out_bias=axes["qkv_bias"], norm_place="pre", causal=True, embedding_norm=False
    )


def write(config: ModelConfig) -> dict[str, Any]:
    ropes = write_partial_rope_keys(config)
    before = {"rotary_pct": ropes["partial_rotary_factor"], "rotary_emb_base": config.rotary_base}
    return _NAMES.write(config) | {"attention_bias": config.has_bias("qkv")} | ropes | before


GPT_NEOX = Family(
    name="gpt_neox",
    prefix="gpt_neox.",
    read=read,
    write=write,
    architectures=classes("GPTNeoX", "ForCausalLM"),
    body=[
        Rule("token.weight", ("embed_in.weight",)),
        *rule("blocks.{i}.attention_norm", "layers.{i}.input_layernorm"),
        *rule("blocks.{i}.attention.qkv", "layers.{i}.attention.query_key_value", change="heads"),
        *rule("blocks.{i}.attention.out", "layers.{i}.attention.dense"),
        *rule("blocks.{i}.feedforward_norm", "layers.{i}.post_attention_layernorm"),
        *rule("blocks.{i}.feedforward.up", "layers.{i}.mlp.dense_h_to_4h"),
        *rule("blocks.{i}.feedforward.down", "layers.{i}.mlp.dense_4h_to_h"),
        *rule("final_norm", "final_layer_norm"),
    ],
    heads={
        "sequence": [Rule("head.out.weight", ("score.weight",))],
        "lm": [Rule("head.out.weight", ("embed_out.weight",))],
    },
    poolings={"last": {}},
    unused=(
        r"\.attention\.(masked_)?bias$",
        r"rotary_emb\.inv_freq$",
        r"^(embed_out|score)\.weight$",
    ),
)

"""GPT-J (Wang and Komatsuzaki 2021): a causal decoder with parallel attention and feed-forward
after one norm, and interleaved rotary positions on a part of each head.
"""

from typing import Any

from langue.hub.config_keys import Config, Names, own_names
from langue.hub.families.gpt2 import ALIASES
from langue.hub.family import DECODING, LM_WITH_BIAS, Family, Rule, classes, rule
from langue.model.config import ModelConfig

_NAMES = Names(
    vocab_size="vocab_size",
    dim="n_embd",
    n_layers="n_layer",
    n_heads="n_head",
    max_length="n_positions",
    activation=("activation_function", "gelu_new"),
    norm_eps=("layer_norm_epsilon", 1e-5),
    dropout=("resid_pdrop", 0.0),
    attention_dropout=("attn_pdrop", 0.0),
    init_std=("initializer_range", 0.02),
    tied=("tie_word_embeddings", False),
)


def read(config: Config) -> ModelConfig:
    axes = _NAMES.read(own_names(config, ALIASES), norm_place="pre", embedding_norm=False)
    turned = config.get("rotary_dim", 64)
    return ModelConfig(
        **axes,
        ffn_dim=config.get("n_inner") or 4 * axes["dim"],
        position="rotary",
        rotary_dim=0 if turned is None else turned,
        rotary_length=axes["max_length"],
        parallel=True,
        shared_norm=True,
        qkv_bias=False,
        out_bias=False,
        head_bias=True,
        causal=True,
    )


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config) | {
        "n_inner": config.ffn_dim,
        "rotary_dim": config.n_rotary_dims,
        "embd_pdrop": config.dropout,
    }


_PARTS = [f"h.{{i}}.attn.{part}_proj" for part in "qkv"]

GPTJ = Family(
    name="gptj",
    prefix="transformer.",
    read=read,
    write=write,
    architectures=classes("GPTJ", "ForCausalLM"),
    body=[
        Rule("token.weight", ("wte.weight",)),
        *rule("blocks.{i}.attention_norm", "h.{i}.ln_1"),
        *rule("blocks.{i}.attention.qkv", *_PARTS, change="interleaved"),
        *rule("blocks.{i}.attention.out", "h.{i}.attn.out_proj"),
        *rule("blocks.{i}.feedforward.up", "h.{i}.mlp.fc_in"),
        *rule("blocks.{i}.feedforward.down", "h.{i}.mlp.fc_out"),
        *rule("final_norm", "ln_f"),
    ],
    heads=DECODING | {"lm": LM_WITH_BIAS},
    poolings={"last": {}},
    unused=(r"\.attn\.(masked_)?bias$", r"^(lm_head|score)\."),
)

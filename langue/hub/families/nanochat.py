"""nanochat (Karpathy 2025, github.com/karpathy/nanochat): a decoder with the changes that proved
useful in the speedruns of GPT-2 training: norms without weights, normalised queries and keys,
squared ReLU, capped logits (Jordan et al. 2024, github.com/KellerJordan/modded-nanogpt). `langue
pretrain` uses it for small budgets.
"""

from typing import Any

from langue.errors import ModelError
from langue.hub.config_keys import Config, read_activation
from langue.hub.families import llama
from langue.hub.family import Family, Rule, rule
from langue.model.config import ModelConfig


def read(config: Config) -> ModelConfig:
    made = llama.read(
        config,
        norm="rms_plain",
        qk_norm=True,
        embedding_norm=True,
        activation=read_activation(config, "hidden_act", "relu2"),
        gated=False,
        ffn_bias=False,
        logit_cap=config.get("final_logit_softcapping", 15.0) or 0.0,
    )
    # the published model normalises after the rotation, which cancels YaRN's amplitude
    if made.rotary_scaling == "yarn":
        raise ModelError("config: rope_type = 'yarn' is not supported for this family")
    return made


def write(config: ModelConfig) -> dict[str, Any]:
    own = {
        "attention_bias": config.has_bias("qkv"),
        "final_logit_softcapping": config.logit_cap or None,
    }
    return llama.write(config) | own


_ATTENTION = "blocks.{i}.attention."
_QKV = [f"layers.{{i}}.self_attn.{part}_proj" for part in "qkv"]

NANOCHAT = Family(
    name="nanochat",
    prefix="model.",
    read=read,
    write=write,
    architectures={"body": "NanoChatModel", "lm": "NanoChatForCausalLM"},
    body=[
        Rule("token.weight", ("embed_tokens.weight",)),
        *rule(_ATTENTION + "qkv", *_QKV, change="reversed"),
        *rule(_ATTENTION + "q", _QKV[0], change="reversed"),
        *rule(_ATTENTION + "k", _QKV[1], change="reversed"),
        *rule(_ATTENTION + "v", _QKV[2]),
        *rule(_ATTENTION + "out", "layers.{i}.self_attn.o_proj"),
        Rule("blocks.{i}.feedforward.up.weight", ("layers.{i}.mlp.fc1.weight",)),
        Rule("blocks.{i}.feedforward.down.weight", ("layers.{i}.mlp.fc2.weight",)),
    ],
    heads={"lm": [Rule("head.out.weight", ("lm_head.weight",))]},
    unused=(r"rotary_emb\.inv_freq$", r"^lm_head\.weight$"),
)

"""BART (Lewis et al. 2019, arXiv:1910.13461), a post-norm encoder-decoder close to the original
Transformer, and mBART (Liu et al. 2020, arXiv:2001.08210), which is pre-norm.

The Marian, Pegasus and M2M-100 families differ from these only in axes.
"""

import math
from collections.abc import Callable
from typing import Any

from langue.hub.config_keys import Config, Names, own_names
from langue.hub.family import Family, Rule, rule
from langue.model.config import ModelConfig

_NAMES = Names(
    vocab_size="vocab_size",
    dim="d_model",
    n_layers="encoder_layers",
    n_heads="encoder_attention_heads",
    ffn_dim="encoder_ffn_dim",
    decoder_layers="decoder_layers",
    decoder_heads="decoder_attention_heads",
    decoder_ffn_dim="decoder_ffn_dim",
    max_length="max_position_embeddings",
    activation=("activation_function", "gelu"),
    dropout=("dropout", 0.1),
    attention_dropout=("attention_dropout", 0.0),
    init_std=("init_std", 0.02),
    tied=("tie_word_embeddings", True),
)


_ALIASES = {
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "num_hidden_layers": "encoder_layers",
}


def read(config: Config, decoder_vocab_size: int = 0, **axes: Any) -> ModelConfig:
    """Read the config; axes: those in which a family differs from BART."""
    config = own_names(config, _ALIASES)
    named = _NAMES.read(config)
    return ModelConfig(
        **named,
        **{"head_bias": True} | axes,
        norm_eps=1e-5,
        embedding_scale=math.sqrt(named["dim"]) if config.get("scale_embedding", False) else 1.0,
        # If untied, there are three tables: the encoder's and the decoder's embedding and the
        # output matrix.
        decoder_vocab_size=decoder_vocab_size or (0 if named["tied"] else named["vocab_size"]),
    )


def read_bart(config: Config) -> ModelConfig:
    return read(config, position_offset=2)


def read_mbart(config: Config) -> ModelConfig:
    return read(config, position_offset=2, norm_place="pre")


def write(config: ModelConfig) -> dict[str, Any]:
    return _NAMES.write(config) | {
        "decoder_attention_heads": config.decoder_heads or config.n_heads,
        "decoder_ffn_dim": config.decoder_ffn_dim or config.ffn_dim,
        "scale_embedding": config.embedding_scale != 1.0,
        "is_encoder_decoder": True,
    }


def _side(ours: str, theirs: str) -> list[Rule]:
    block = ours + "blocks.{i}."
    layer = theirs + "layers.{i}."
    return [
        Rule(ours + "position.weight", (theirs + "embed_positions.weight",)),
        *rule(ours + "embedding_norm", theirs + "layernorm_embedding"),
        *rule(block + "attention.qkv", *(f"{layer}self_attn.{part}_proj" for part in "qkv")),
        *rule(block + "attention.out", layer + "self_attn.out_proj"),
        *rule(block + "attention_norm", layer + "self_attn_layer_norm"),
        *rule(block + "cross.q", layer + "encoder_attn.q_proj"),
        *rule(block + "cross.kv", *(f"{layer}encoder_attn.{part}_proj" for part in "kv")),
        *rule(block + "cross.out", layer + "encoder_attn.out_proj"),
        *rule(block + "cross_norm", layer + "encoder_attn_layer_norm"),
        *rule(block + "feedforward.up", layer + "fc1"),
        *rule(block + "feedforward.down", layer + "fc2"),
        *rule(block + "feedforward_norm", layer + "final_layer_norm"),
        *rule(ours + "final_norm", theirs + "layer_norm"),
    ]


_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


# The classes with these weights read the decoder's states, which none of our heads does.
OUTPUTS = {"sequence": "classification_head.out_proj.weight", "span": "qa_outputs.weight"}


def make(
    name: str,
    architectures: dict[str, str],
    read: Callable[[Config], ModelConfig],
    write: Callable[[ModelConfig], dict[str, Any]] = write,
    outputs: dict[str, str] | None = None,
) -> Family:
    """Return a family with these rules."""
    return Family(
        name=name,
        prefix="model.",
        read=read,
        write=write,
        architectures=architectures,
        body=[
            Rule(
                "token.weight", ("shared.weight",), when=("decoder_vocab_size", False), tied=_TABLES
            ),
            # Untied, there are three tables. Even then, transformers 4 saved the one that encoder
            # and decoder share.
            Rule(
                "token.weight",
                _TABLES[:1],
                when=("decoder_vocab_size", True),
                substitutes=("shared.weight",),
            ),
            Rule("decoder.token.weight", _TABLES[1:], substitutes=("shared.weight",)),
            *_side("", "encoder."),
            *_side("decoder.", "decoder."),
        ],
        heads={
            "lm": [
                Rule("head.out.weight", ("lm_head.weight",)),
                Rule("head.bias", ("final_logits_bias",), change="row", zero=True),
            ]
        },
        outputs=OUTPUTS if outputs is None else outputs,
        unused=(
            r"^lm_head\.weight$",
            r"^final_logits_bias$",
            r"(^|\.)shared\.weight$",
            r"coder\.embed_(tokens|positions)\.weight$",
            r"^classification_head\.",
        ),
    )


BART = make("bart", {"body": "BartModel", "lm": "BartForConditionalGeneration"}, read_bart)
MBART = make("mbart", {"body": "MBartModel", "lm": "MBartForConditionalGeneration"}, read_mbart)

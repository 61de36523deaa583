"""BART (Lewis et al. 2019, arXiv:1910.13461), mBART (Liu et al. 2020, arXiv:2001.08210) and Marian (Junczys-Dowmunt et
al. 2018, arXiv:1804.00344): encoder-decoders near the one first published. BART and Marian have norms after each
sublayer, mBART before; Marian's positions are sinusoidal and its two vocabularies may differ."""

import math
from collections.abc import Callable
from typing import Any

from langue.hub.family import Config, Family, Rule, read_activation, rule, take, write_activation
from langue.model.config import ModelConfig


def _read(config: Config, **axes: Any) -> ModelConfig:
    dim = take(config, "d_model")
    return ModelConfig(
        vocab_size=take(config, "vocab_size"),
        dim=dim,
        n_layers=take(config, "encoder_layers"),
        n_heads=take(config, "encoder_attention_heads"),
        ffn_dim=take(config, "encoder_ffn_dim"),
        decoder_layers=take(config, "decoder_layers"),
        decoder_heads=take(config, "decoder_attention_heads"),
        decoder_ffn_dim=take(config, "decoder_ffn_dim"),
        max_length=take(config, "max_position_embeddings"),
        norm_eps=1e-5,
        activation=read_activation(config, "activation_function", "gelu"),
        embedding_scale=math.sqrt(dim) if config.get("scale_embedding", False) else 1.0,
        dropout=config.get("dropout", 0.1),
        attention_dropout=config.get("attention_dropout", 0.0),
        init_std=config.get("init_std", 0.02),
        tied=config.get("tie_word_embeddings", True),
        head_bias=True,
        # Untied, the three tables are apart: what encoder and decoder read with, and the output matrix.
        decoder_vocab_size=axes.pop("decoder_vocab_size", 0)
        or (0 if config.get("tie_word_embeddings", True) else take(config, "vocab_size")),
        **axes,
    )


def read_bart(config: Config) -> ModelConfig:
    return _read(config, position_offset=2)


def read_mbart(config: Config) -> ModelConfig:
    return _read(config, position_offset=2, norm_place="pre")


def read_marian(config: Config) -> ModelConfig:
    own = 0 if config.get("share_encoder_decoder_embeddings", True) else config.get("decoder_vocab_size")
    return _read(
        config,
        position="sinusoidal_halves",
        embedding_norm=False,
        decoder_vocab_size=take(config, "vocab_size") if own is None else own,
    )


def write_bart(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.dim,
        "encoder_layers": config.n_layers,
        "encoder_attention_heads": config.n_heads,
        "encoder_ffn_dim": config.ffn_dim,
        "decoder_layers": config.decoder_layers,
        "decoder_attention_heads": config.decoder_heads or config.n_heads,
        "decoder_ffn_dim": config.decoder_ffn_dim or config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "activation_function": write_activation(config.activation),
        "scale_embedding": config.embedding_scale != 1.0,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "init_std": config.init_std,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tied,
    }


def write_marian(config: ModelConfig) -> dict[str, Any]:
    return write_bart(config) | {
        "share_encoder_decoder_embeddings": not config.decoder_vocab_size
        or (config.decoder_vocab_size == config.vocab_size and not config.tied),  # tied, two tables are two
        "decoder_vocab_size": config.decoder_vocab_size or config.vocab_size,
    }


def _side(ours: str, theirs: str) -> list[Rule]:
    block, layer = ours + "blocks.{i}.", theirs + "layers.{i}."
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


def _family(
    name: str,
    body: str,
    lm: str,
    read: Callable[[Config], ModelConfig],
    write: Callable[[ModelConfig], dict[str, Any]] = write_bart,
) -> Family:
    return Family(
        name=name,
        prefix="model.",
        read=read,
        write=write,
        architectures={"body": body, "lm": lm},
        body=[
            Rule("token.weight", ("shared.weight",), when=lambda c: not c.decoder_vocab_size),
            Rule("token.weight", ("encoder.embed_tokens.weight",), when=lambda c: c.decoder_vocab_size > 0),
            Rule("decoder.token.weight", ("decoder.embed_tokens.weight",)),
            *_side("", "encoder."),
            *_side("decoder.", "decoder."),
        ],
        heads={
            "lm": [
                Rule("head.out.weight", ("lm_head.weight",)),
                Rule("head.bias", ("final_logits_bias",), change="row", zero=True),
            ]
        },
        unused=(
            r"^lm_head\.weight$",
            r"^final_logits_bias$",
            r"(^|\.)shared\.weight$",
            r"coder\.embed_(tokens|positions)\.weight$",
            r"^classification_head\.",
        ),
    )


BART = _family("bart", "BartModel", "BartForConditionalGeneration", read_bart)
MBART = _family("mbart", "MBartModel", "MBartForConditionalGeneration", read_mbart)
MARIAN = _family("marian", "MarianModel", "MarianMTModel", read_marian, write_marian)

"""The classes of each family in `transformers`, and configs drawn by seed with non-default values
of every option."""

import random

import transformers

VOCABULARY = 61


def _bertlike(draw, heads):
    return {
        "hidden_size": heads * draw.choice([4, 8]),
        "num_hidden_layers": draw.choice([1, 2, 3]),
        "num_attention_heads": heads,
        "intermediate_size": draw.choice([20, 40]),
        "max_position_embeddings": draw.choice([48, 64]),
    }


def _encoder(draw, **more):
    return _bertlike(draw, draw.choice([1, 2, 4])) | {
        "type_vocab_size": draw.choice([1, 2]),
        "layer_norm_eps": draw.choice([1e-12, 1e-5, 1e-3]),
        "hidden_act": draw.choice(["gelu", "gelu_new", "relu", "silu"]),
        **more,
    }


def _distilbert(draw):
    heads = draw.choice([1, 2, 4])
    return {
        "dim": heads * draw.choice([4, 8]),
        "n_layers": draw.choice([1, 2]),
        "n_heads": heads,
        "hidden_dim": draw.choice([20, 40]),
        "max_position_embeddings": draw.choice([48, 64]),
        "activation": draw.choice(["gelu", "relu"]),
    }


def _modernbert(draw):
    kept = _bertlike(draw, draw.choice([1, 2, 4]))
    return kept | {
        "num_hidden_layers": 4,
        "norm_eps": draw.choice([1e-5, 1e-3]),
        "norm_bias": draw.choice([True, False]),
        "attention_bias": draw.choice([True, False]),
        "mlp_bias": draw.choice([True, False]),
        "classifier_bias": draw.choice([True, False]),
        "decoder_bias": draw.choice([True, False]),
        "local_attention": draw.choice([4, 8]),
        "hidden_activation": draw.choice(["gelu", "silu"]),
        "global_attn_every_n_layers": draw.choice([2, 3]),
    }


def _gpt(draw):
    heads = draw.choice([1, 2, 4])
    return {
        "n_embd": heads * draw.choice([4, 8]),
        "n_layer": draw.choice([1, 2, 3]),
        "n_head": heads,
        "n_positions": draw.choice([48, 64]),
        "layer_norm_epsilon": draw.choice([1e-5, 1e-3]),
    }


def _gpt2(draw):
    return _gpt(draw) | {
        "n_inner": draw.choice([None, 20, 40]),
        "activation_function": draw.choice(["gelu_new", "relu", "gelu"]),
        "scale_attn_weights": draw.choice([True, False]),
        "scale_attn_by_inverse_layer_idx": draw.choice([True, False]),
        "reorder_and_upcast_attn": draw.choice([True, False]),
        "tie_word_embeddings": draw.choice([True, False]),
    }


def _rope(draw, share=None):
    """Draw rotary positions with one of the published scalings; the context is extended beyond 16
    tokens."""
    rope = draw.choice(
        [
            {"rope_type": "default"},
            {"rope_type": "linear", "factor": 2.0},
            {"rope_type": "dynamic", "factor": 2.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
                "beta_fast": 4,
                "beta_slow": 2,
            },
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ]
    )
    partial = {} if share is None else {"partial_rotary_factor": share}
    return {"rope_theta": draw.choice([10_000.0, 500.0])} | rope | partial


def _neox(draw):
    return _bertlike(draw, draw.choice([1, 2, 4])) | {
        "layer_norm_eps": draw.choice([1e-5, 1e-3]),
        "hidden_act": draw.choice(["gelu", "gelu_new"]),
        "use_parallel_residual": draw.choice([True, False]),
        "attention_bias": draw.choice([True, False]),
        "tie_word_embeddings": draw.choice([True, False]),
        "hidden_size": 32,
        "num_attention_heads": draw.choice([2, 4]),
        "max_position_embeddings": 24,
        "rope_parameters": _rope(draw, share=draw.choice([0.5, 1.0])),
    }


def _bloom(draw):
    heads = draw.choice([1, 2, 3, 4, 6])  # the slopes beyond a power of two are computed separately
    sizes = {
        "hidden_size": heads * draw.choice([4, 8]),
        "n_layer": draw.choice([1, 2, 3]),
        "n_head": heads,
    }
    return sizes | {
        "layer_norm_epsilon": draw.choice([1e-5, 1e-3]),
        "tie_word_embeddings": draw.choice([True, False]),
    }


def _llama(draw, **more):
    heads = draw.choice([2, 4])
    return _bertlike(draw, heads) | {
        "num_key_value_heads": draw.choice([1, 2, heads]),
        "head_dim": draw.choice([8, 12]),
        "rms_norm_eps": draw.choice([1e-6, 1e-3]),
        "tie_word_embeddings": draw.choice([True, False]),
        # exceeded by the longest test sequence, so that `dynamic` has an effect
        "max_position_embeddings": 24,
        "rope_parameters": _rope(draw),
        **more,
    }


def _llama_own(draw):
    biases = {"attention_bias": draw.choice([True, False]), "mlp_bias": draw.choice([True, False])}
    return _llama(draw, **biases)


def _qwen(draw, **more):
    windows = {
        "use_sliding_window": draw.choice([True, False]),
        "sliding_window": 5,
        "max_window_layers": 1,
    }
    return _llama(draw, **windows, **more)


def _qwen2(draw):
    kept = _qwen(draw)
    del kept["head_dim"]  # Qwen2 has no head_dim option
    return kept


def _gemma(draw, **more):
    return _llama(
        draw,
        head_dim=8,
        num_hidden_layers=4,
        query_pre_attn_scalar=draw.choice([8, 20]),
        sliding_window=draw.choice([4, 7]),
        attention_bias=draw.choice([True, False]),
        **more,
    )


def _gemma2(draw):
    caps = {
        "attn_logit_softcapping": draw.choice([2.0, None]),
        "final_logit_softcapping": draw.choice([3.0, None]),
    }
    return _gemma(draw, **caps)


def _gemma3(draw):
    ropes = {
        "full_attention": _rope(draw),
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
    }
    # the reference looks for `truncate` in the wrong place
    if ropes["full_attention"]["rope_type"] == "yarn":
        ropes["full_attention"] = {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0}
    kept = _gemma(
        draw, rope_parameters=ropes, layer_types=["sliding_attention", "full_attention"] * 2
    )
    return kept


def _moe(draw, **more):
    return _llama(draw, num_experts_per_tok=draw.choice([1, 2]), **more)


def _nanochat(draw):
    kept = _llama(
        draw, attention_bias=draw.choice([True, False]), hidden_act=draw.choice(["relu2", "silu"])
    )
    # the reference normalises after rotation, which removes YaRN's amplitude; langue refuses such
    # configs
    kept["rope_parameters"] = {"rope_type": "default", "rope_theta": draw.choice([10_000.0, 500.0])}
    return kept | {"final_logit_softcapping": draw.choice([15.0, 2.0, None])}


def _mixtral(draw):
    return _moe(draw, num_local_experts=draw.choice([3, 4]), sliding_window=draw.choice([None, 6]))


def _qwen_moe(draw, **more):
    sizes = {"moe_intermediate_size": draw.choice([12, 20]), "num_experts": draw.choice([3, 4])}
    return _moe(draw, norm_topk_prob=draw.choice([True, False]), **sizes, **more)


def _qwen2_moe(draw):
    kept = _qwen_moe(draw, shared_expert_intermediate_size=10, qkv_bias=draw.choice([True, False]))
    del kept["head_dim"]
    return kept


def _qwen3_moe(draw):
    return _qwen_moe(draw, attention_bias=draw.choice([True, False]))


def _gpt_oss(draw):
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    rope |= {"truncate": draw.choice([True, False]), "beta_fast": draw.choice([32.0, 4.0])}
    return _moe(
        draw,
        num_local_experts=draw.choice([3, 4]),
        # so that some values exceed the limit, and some do not
        swiglu_limit=draw.choice([0.3, 1.0]),
        sliding_window=draw.choice([3, 6]),
        num_hidden_layers=draw.choice([2, 3]),
        attention_bias=draw.choice([True, False]),
        rope_parameters={"rope_theta": 500.0} | rope,
    )


def _t5(draw):
    return {
        "d_model": draw.choice([16, 24]),
        "d_kv": draw.choice([4, 6]),
        "d_ff": draw.choice([20, 40]),
        "num_layers": draw.choice([1, 2]),
        "num_decoder_layers": draw.choice([1, 2, 3]),
        "num_heads": draw.choice([2, 4]),
        "relative_attention_num_buckets": draw.choice([8, 32]),
        "relative_attention_max_distance": draw.choice([20, 128]),
        "layer_norm_epsilon": draw.choice([1e-6, 1e-3]),
        "feed_forward_proj": draw.choice(["relu", "gated-gelu", "gated-silu"]),
        "tie_word_embeddings": draw.choice([True, False]),
        "decoder_start_token_id": 0,
    }


def _bart(draw):
    return {
        "d_model": 16,
        "encoder_layers": draw.choice([1, 2]),
        "decoder_layers": draw.choice([1, 2, 3]),
        "encoder_attention_heads": draw.choice([2, 4]),
        "decoder_attention_heads": draw.choice([2, 4]),
        "encoder_ffn_dim": draw.choice([20, 40]),
        "decoder_ffn_dim": draw.choice([20, 40]),
        "max_position_embeddings": draw.choice([48, 64]),
        "activation_function": draw.choice(["gelu", "relu", "silu"]),
        "scale_embedding": draw.choice([True, False]),
        "tie_word_embeddings": draw.choice([True, True, False]),
        "decoder_start_token_id": 2,
    }


def _marian(draw):
    own = draw.choice(
        [{}, {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": VOCABULARY + 4}]
    )
    return _bart(draw) | own


def _opt(draw):
    heads = draw.choice([1, 2, 4])
    width = heads * draw.choice([4, 8])
    return {
        "hidden_size": width,
        "word_embed_proj_dim": draw.choice([width, width, 12]),
        "num_hidden_layers": draw.choice([1, 2, 3]),
        "num_attention_heads": heads,
        "ffn_dim": draw.choice([20, 40]),
        "max_position_embeddings": draw.choice([48, 64]),
        "activation_function": draw.choice(["relu", "gelu"]),
        "do_layer_norm_before": draw.choice([True, True, False]),
        "_remove_final_layer_norm": draw.choice([True, False, False]),
        "enable_bias": draw.choice([True, False]),
        "tie_word_embeddings": draw.choice([True, False]),
    }


def _gpt_neo(draw):
    heads = draw.choice([1, 2, 4])
    return {
        "hidden_size": heads * draw.choice([4, 8]),
        "num_layers": 3,
        "num_heads": heads,
        "attention_types": draw.choice(
            [[[["global", "local", "local"], 1]], [[["global"], 1], [["local"], 2]]]
        ),
        "intermediate_size": draw.choice([None, 20, 40]),
        "max_position_embeddings": draw.choice([48, 64]),
        "window_size": draw.choice([3, 6]),
        "activation_function": draw.choice(["gelu_new", "relu", "gelu"]),
        "layer_norm_epsilon": draw.choice([1e-5, 1e-3]),
        "tie_word_embeddings": draw.choice([True, False]),
    }


def _seed_oss(draw):
    return _llama_own(draw) | {"attention_out_bias": draw.choice([True, False])}


def _stablelm(draw):
    kept = _llama(draw, use_qkv_bias=draw.choice([True, False]))
    kept["use_parallel_residual"] = draw.choice([True, False])
    kept["qk_layernorm"] = draw.choice([True, False])
    del kept["head_dim"]
    part = draw.choice([0.25, 0.5, 1.0])
    return kept | {
        "hidden_size": 64,
        "layer_norm_eps": draw.choice([1e-5, 1e-3]),
        "rope_parameters": _rope(draw, share=part),
    }


def _phi3(draw):
    turned = {"rope_type": "default", "partial_rotary_factor": draw.choice([0.5, 1.0])}
    return _llama(
        draw,
        sliding_window=draw.choice([None, 6]),
        rope_parameters=turned | {"rope_theta": draw.choice([10_000.0, 500.0])},
    )


def _longrope(draw):
    """Draw a longrope config whose original length some test sequences exceed and others do not."""
    kept = _phi3(draw) | {"hidden_size": 32, "original_max_position_embeddings": 10}
    del kept["head_dim"]  # its class requires factors for hidden_size / num_attention_heads
    rope = kept["rope_parameters"]
    pairs = int(32 // kept["num_attention_heads"] * rope["partial_rotary_factor"]) // 2
    own = {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
        "long_factor": [2.0 + 3.0 * i for i in range(pairs)],
    }
    return kept | {"rope_parameters": rope | own | draw.choice([{}, {"attention_factor": 1.3}])}


def _granite(draw):
    return _llama_own(draw) | {
        "embedding_multiplier": draw.choice([1.0, 3.0]),
        "attention_multiplier": draw.choice([1.0, 0.2]),
        "residual_multiplier": draw.choice([1.0, 0.4]),
        "logits_scaling": draw.choice([1.0, 3.0]),
    }


def _smollm3(draw):
    return _llama_own(draw) | {
        "num_hidden_layers": 3,
        "no_rope_layers": draw.choice([None, [0, 1, 1]]),
        "no_rope_layer_interval": draw.choice([2, 3]),
        "use_sliding_window": draw.choice([True, False]),
        "sliding_window": 5,
    }


def _olmo2(draw):
    kept = _llama(draw, attention_bias=draw.choice([True, False]))
    del kept["head_dim"]
    return kept


def _olmo3(draw):
    rope = _rope(draw)
    # the reference looks for `truncate` in the wrong place
    if rope["rope_type"] == "yarn":
        rope = {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0}
    local = {"rope_type": "default", "rope_theta": draw.choice([300.0, 500.0])}
    return _olmo2(draw) | {
        "num_hidden_layers": 4,
        "sliding_window": draw.choice([4, 7]),
        "rope_parameters": {"full_attention": rope, "sliding_attention": local},
    }


def _mpnet(draw):
    kept = _encoder(draw)
    del kept["type_vocab_size"]
    return kept


def _nomic_bert(draw):
    rope = _rope(draw)
    if rope["rope_type"] == "dynamic":  # the reference keeps the longest length so far
        rope = {"rope_type": "default", "rope_theta": 300.0}
    shorter = {"max_position_embeddings": 32, "hidden_act": draw.choice(["silu", "gelu"])}
    return _encoder(draw, rope_parameters=rope) | shorter


def _albert(draw):
    own = {"num_hidden_layers": 3, "num_hidden_groups": draw.choice([1, 1, 2, 3])}
    return _encoder(draw, embedding_size=draw.choice([6, 10])) | own


def _deberta(draw):
    kept = _deberta_v2(draw)
    for key in ("position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size"):
        kept.pop(key, None)
    return kept


def _deberta_v2(draw):
    terms = draw.choice([["c2p", "p2c"], ["c2p", "p2c"], ["c2p"], ["p2c"], []])
    relative = {
        "relative_attention": bool(terms),
        "pos_att_type": terms,
        # near distances have separate embeddings and far ones share them, or all are separate up to
        # a limit
        "position_buckets": draw.choice([4, 6, 16, -1]),
        "max_relative_positions": draw.choice([-1, 12, 24]),
        "norm_rel_ebd": draw.choice(["layer_norm", "none"]) if terms else "none",
        "share_att_key": draw.choice([True, False]),
        "position_biased_input": draw.choice([True, False]),
    }
    convolution = draw.choice([{}, {"conv_kernel_size": 3, "conv_act": "gelu"}])
    return _encoder(draw, **relative, **convolution) | {
        "type_vocab_size": draw.choice([0, 2]),
        "layer_norm_eps": draw.choice([1e-7, 1e-3]),
        "pooler_hidden_act": draw.choice(["gelu", "tanh"]),
    }


def _m2m100(draw):
    return _bart(draw) | {"pad_token_id": draw.choice([0, 1])}


def _ernie(draw):
    return _encoder(draw, use_task_id=draw.choice([True, False]), task_type_vocab_size=4)


def _gemma1(draw):
    acts = ["gelu", "gelu_pytorch_tanh", "silu"]
    biases = {"attention_bias": draw.choice([True, False])}
    return _llama(draw, **biases, hidden_act=draw.choice(acts))


def _gptj(draw):
    kept = _gpt(draw) | {"n_head": 2, "n_embd": draw.choice([16, 32])}
    return kept | {
        "n_inner": draw.choice([None, 20, 40]),
        "activation_function": draw.choice(["gelu_new", "relu", "gelu"]),
        "rotary_dim": draw.choice([2, 4, 8]),
        "tie_word_embeddings": draw.choice([True, False]),
    }


def _phi(draw):
    kept = _llama(draw, qk_layernorm=draw.choice([True, False]))
    del kept["head_dim"], kept["rms_norm_eps"]
    return kept | {
        "hidden_size": 32,
        "layer_norm_eps": draw.choice([1e-5, 1e-3]),
        "hidden_act": draw.choice(["gelu_new", "relu"]),
        "rope_parameters": _rope(draw, share=draw.choice([0.5, 1.0])),
    }


def _falcon(draw):
    kept = _bertlike(draw, 4) | {"ffn_hidden_size": draw.choice([None, 20])}
    del kept["intermediate_size"]
    layouts = [
        {"multi_query": True, "parallel_attn": draw.choice([True, False])},
        {"multi_query": False, "parallel_attn": draw.choice([True, False])},
        {"new_decoder_architecture": True, "num_kv_heads": draw.choice([1, 2, 4])},
        {
            "new_decoder_architecture": True,
            "num_kv_heads": draw.choice([1, 2, 4]),
            "num_ln_in_parallel_attn": 1,
        },
    ]
    return kept | {
        **draw.choice(layouts),
        "bias": draw.choice([True, False]),
        "layer_norm_epsilon": draw.choice([1e-5, 1e-3]),
        "activation": draw.choice(["gelu", "relu"]),
        "tie_word_embeddings": draw.choice([True, False]),
        "max_position_embeddings": 24,
        "rope_parameters": _rope(draw),
    }


def _cohere(draw, **more):
    kept = _llama(draw, attention_bias=draw.choice([True, False]), **more)
    del kept["head_dim"], kept["rms_norm_eps"]
    return kept | {
        "layer_norm_eps": draw.choice([1e-5, 1e-3]),
        "logit_scale": draw.choice([0.0625, 1.0, 2.0]),
    }


def _cohere2(draw):
    return _cohere(draw, num_hidden_layers=4, sliding_window=draw.choice([4, 7]))


def _glm(draw):
    share = draw.choice([0.5, 1.0])
    return _llama(
        draw,
        head_dim=8,
        attention_bias=draw.choice([True, False]),
        rope_parameters=_rope(draw, share=share),
    )


def _ministral(draw):
    return _llama(
        draw,
        num_hidden_layers=2,
        layer_types=draw.choice([None, ["sliding_attention", "full_attention"]]),
        sliding_window=draw.choice([4, 7]),
    )


def _ministral3(draw):
    """Draw a config whose scaling by position begins at 10 tokens."""
    rope = draw.choice(
        [{"rope_type": "default"}, {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}]
    )
    own = {"rope_theta": 500.0, "original_max_position_embeddings": 10}
    own["llama_4_scaling_beta"] = draw.choice([0.1, 0.5])
    return _llama(draw, sliding_window=draw.choice([None, 6]), rope_parameters=rope | own)


def _bigcode(draw):
    return _gpt2(draw) | {"multi_query": draw.choice([True, False])}


def _ernie4_5(draw):
    return _llama(draw, use_bias=draw.choice([True, False]))


def _exaone4(draw):
    kept = _llama(draw, num_hidden_layers=4)
    windows = {
        "sliding_window": draw.choice([4, None]),
        "sliding_window_pattern": draw.choice([2, 4]),
    }
    if windows["sliding_window"] is None:  # its class divides by the pattern otherwise
        windows["layer_types"] = ["full_attention"] * 4
    return kept | windows


# model_type -> (config class of the reference, its class with a language-model head, function that
# draws the values)
REFERENCES = {
    "bert": ("BertConfig", "BertForMaskedLM", _encoder),
    "ernie": ("ErnieConfig", "ErnieForMaskedLM", _ernie),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", _encoder),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", _encoder),
    "camembert": ("CamembertConfig", "CamembertForMaskedLM", _encoder),
    "data2vec-text": ("Data2VecTextConfig", "Data2VecTextForMaskedLM", _encoder),
    "mpnet": ("MPNetConfig", "MPNetForMaskedLM", _mpnet),
    "albert": ("AlbertConfig", "AlbertForMaskedLM", _albert),
    "nomic_bert": ("NomicBertConfig", "NomicBertForMaskedLM", _nomic_bert),
    "deberta": ("DebertaConfig", "DebertaForMaskedLM", _deberta),
    "deberta-v2": ("DebertaV2Config", "DebertaV2ForMaskedLM", _deberta_v2),
    "distilbert": ("DistilBertConfig", "DistilBertForMaskedLM", _distilbert),
    "electra": (
        "ElectraConfig",
        "ElectraForMaskedLM",
        lambda draw: _encoder(draw, embedding_size=draw.choice([6, 10])),
    ),
    "modernbert": ("ModernBertConfig", "ModernBertForMaskedLM", _modernbert),
    "eurobert": ("EuroBertConfig", "EuroBertForMaskedLM", _llama_own),
    "openai-gpt": (
        "OpenAIGPTConfig",
        "OpenAIGPTLMHeadModel",
        lambda draw: _gpt(draw) | {"afn": draw.choice(["gelu", "relu"])},
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _gpt2),
    "gpt_neo": ("GPTNeoConfig", "GPTNeoForCausalLM", _gpt_neo),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _neox),
    "gpt_bigcode": ("GPTBigCodeConfig", "GPTBigCodeForCausalLM", _bigcode),
    "opt": ("OPTConfig", "OPTForCausalLM", _opt),
    "bloom": ("BloomConfig", "BloomForCausalLM", _bloom),
    "gptj": ("GPTJConfig", "GPTJForCausalLM", _gptj),
    "phi": ("PhiConfig", "PhiForCausalLM", _phi),
    "falcon": ("FalconConfig", "FalconForCausalLM", _falcon),
    "starcoder2": (
        "Starcoder2Config",
        "Starcoder2ForCausalLM",
        lambda draw: (
            _bertlike(draw, 4)
            | {
                "num_key_value_heads": draw.choice([1, 2, 4]),
                "use_bias": draw.choice([True, False]),
                "norm_epsilon": draw.choice([1e-5, 1e-3]),
                "sliding_window": draw.choice([None, 5]),
                "tie_word_embeddings": draw.choice([True, False]),
                "rope_parameters": _rope(draw),
            }
        ),
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _llama_own),
    "mistral": (
        "MistralConfig",
        "MistralForCausalLM",
        lambda d: _llama(d, sliding_window=d.choice([None, 6])),
    ),
    "ministral": ("MinistralConfig", "MinistralForCausalLM", _ministral),
    "ministral3": ("Ministral3Config", "Ministral3ForCausalLM", _ministral3),
    "helium": (
        "HeliumConfig",
        "HeliumForCausalLM",
        # its output projection has as many inputs as outputs
        lambda draw: (
            _llama_own(draw) | {"hidden_size": 32, "num_attention_heads": 4, "head_dim": 8}
        ),
    ),
    "ernie4_5": ("Ernie4_5Config", "Ernie4_5ForCausalLM", _ernie4_5),
    "arcee": (
        "ArceeConfig",
        "ArceeForCausalLM",
        lambda draw: _llama_own(draw) | {"hidden_act": draw.choice(["relu2", "silu"])},
    ),
    "seed_oss": ("SeedOssConfig", "SeedOssForCausalLM", _seed_oss),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _qwen2),
    "qwen3": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        lambda draw: _qwen(draw, attention_bias=draw.choice([True, False])),
    ),
    "nanochat": ("NanoChatConfig", "NanoChatForCausalLM", _nanochat),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM", _smollm3),
    "granite": ("GraniteConfig", "GraniteForCausalLM", _granite),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", _olmo2),
    "olmo3": ("Olmo3Config", "Olmo3ForCausalLM", _olmo3),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _phi3),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", _stablelm),
    "cohere": ("CohereConfig", "CohereForCausalLM", _cohere),
    "cohere2": ("Cohere2Config", "Cohere2ForCausalLM", _cohere2),
    "glm": ("GlmConfig", "GlmForCausalLM", _glm),
    "glm4": ("Glm4Config", "Glm4ForCausalLM", _glm),
    "exaone4": ("Exaone4Config", "Exaone4ForCausalLM", _exaone4),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", _mixtral),
    "qwen2_moe": ("Qwen2MoeConfig", "Qwen2MoeForCausalLM", _qwen2_moe),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", _qwen3_moe),
    "gpt_oss": ("GptOssConfig", "GptOssForCausalLM", _gpt_oss),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _gemma1),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _gemma2),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM", _gemma3),
    "t5": ("T5Config", "T5ForConditionalGeneration", _t5),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", _t5),
    "umt5": ("UMT5Config", "UMT5ForConditionalGeneration", _t5),
    "bart": ("BartConfig", "BartForConditionalGeneration", _bart),
    "mbart": ("MBartConfig", "MBartForConditionalGeneration", _bart),
    "pegasus": ("PegasusConfig", "PegasusForConditionalGeneration", _bart),
    "m2m_100": ("M2M100Config", "M2M100ForConditionalGeneration", _m2m100),
    "marian": ("MarianConfig", "MarianMTModel", _marian),
}


# Options of some published models that the draws above leave out, because the reference computes a
# batch differently from single texts, or lacks them in classes with other heads.
VARIANTS = {
    "phi3, longrope": ("Phi3Config", "Phi3ForCausalLM", _longrope),
}


# families from fairseq, whose positions begin after the id of the padding token
PADDED_BY_ONE = ("roberta", "xlm-roberta", "camembert", "data2vec-text", "mpnet")


def draw_config(name, seed):
    """Return a config of the reference with eager attention (its slow and plain implementation)."""
    kind, _, values = (REFERENCES | VARIANTS)[name]
    specials = {
        "pad_token_id": 1 if name in PADDED_BY_ONE else 0,
        "bos_token_id": 1,
    }
    specials |= {"eos_token_id": 2, "sep_token_id": 2, "cls_token_id": 1}
    drawn = {"vocab_size": VOCABULARY, **specials, **values(random.Random(f"{name}-{seed}"))}
    return getattr(transformers, kind)(**drawn, attn_implementation="eager")


def draw_model(name, seed, std=0.2):
    """Return a reference model in which no weight, bias or norm has its default value."""
    return scattered(
        lambda: getattr(transformers, (REFERENCES | VARIANTS)[name][1])(draw_config(name, seed)),
        seed,
        std,
    )


def scattered(make, seed, std=0.2):
    """Return the result of `make` with all weights drawn at random."""
    import torch

    torch.manual_seed(seed)
    model = make().eval()
    for weight in model.parameters():
        if not weight.requires_grad:
            continue  # sinusoidal positions
        if weight.ndim == 1:
            weight.data.add_(std * torch.randn(weight.shape))
        else:
            weight.data.copy_(std * torch.randn(weight.shape))
    for buffer in (b for n, b in model.named_buffers() if n == "final_logits_bias"):
        buffer.copy_(0.2 * torch.randn(buffer.shape))
    return model

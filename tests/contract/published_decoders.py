"""Published decoders of many families at tiny sizes: the keys and values of config.json, and how
the names in the file differ from the reference's."""

# fmt: off
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
USUAL = SIZES | {"intermediate_size": 40, "max_position_embeddings": 64}
STARCODER2 = USUAL | {
    "attention_dropout": 0.1, "bos_token_id": 0, "embedding_dropout": 0.1, "eos_token_id": 0,
    "hidden_act": "gelu_pytorch_tanh", "initializer_range": 0.018042, "mlp_type": "default",
    "norm_epsilon": 1e-05, "norm_type": "layer_norm", "num_key_value_heads": 2,
    "residual_dropout": 0.1, "rope_theta": 999999.4420358813, "sliding_window": 6,
    "use_bias": True, "use_cache": True,
}
GPTJ = {
    "activation_function": "gelu_new", "attn_pdrop": 0.0, "bos_token_id": 60, "embd_pdrop": 0.0,
    "eos_token_id": 60, "gradient_checkpointing": False, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "n_embd": 32, "n_head": 2, "n_inner": None, "n_layer": 2,
    "n_positions": 64, "resid_pdrop": 0.0, "rotary": True, "rotary_dim": 8,
    "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "tie_word_embeddings": False, "tokenizer_class": "GPT2Tokenizer", "use_cache": True,
}
PHI2 = USUAL | {
    "attention_dropout": 0.0, "bos_token_id": 60, "embd_pdrop": 0.0, "eos_token_id": 60,
    "hidden_act": "gelu_new", "initializer_range": 0.02, "layer_norm_eps": 1e-05,
    "num_attention_heads": 2, "num_key_value_heads": None, "partial_rotary_factor": 0.5,
    "qk_layernorm": False, "resid_pdrop": 0.1, "rope_scaling": None, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "use_cache": True,
}
FALCON7 = SIZES | {
    "alibi": False, "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0,
    "bias": False, "bos_token_id": 11, "eos_token_id": 11, "hidden_dropout": 0.0,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "multi_query": True,
    "new_decoder_architecture": False, "num_kv_heads": 4, "parallel_attn": True, "use_cache": True,
}
FALCON40 = FALCON7 | {
    "multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 2,
}
COMMAND_R = USUAL | {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 5, "eos_token_id": 6,
    "hidden_act": "silu", "initializer_range": 0.02, "layer_norm_eps": 1e-05, "logit_scale": 0.0625,
    "model_max_length": 131072, "num_key_value_heads": 4, "pad_token_id": 0, "pretraining_tp": 1,
    "rope_theta": 8000000.0, "use_cache": True, "use_qk_norm": False,
}
COMMAND_R7B = COMMAND_R | {
    "cache_implementation": "hybrid", "head_dim": 8, "logit_scale": 0.25, "num_hidden_layers": 4,
    "num_key_value_heads": 2, "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj", "rope_scaling": None, "rope_theta": 50000,
    "rotary_pct": 1.0, "sliding_window": 6, "sliding_window_pattern": 4,
    "use_embedding_sharing": True, "use_gated_activation": True, "use_parallel_block": True,
    "use_parallel_embedding": False,
}
GLM4 = USUAL | {
    "attention_bias": True, "attention_dropout": 0.0, "eos_token_id": [2, 3, 4], "head_dim": 8,
    "hidden_act": "silu", "initializer_range": 0.02, "num_key_value_heads": 2, "pad_token_id": 2,
    "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "use_cache": True,
}
EXAONE4 = USUAL | {
    "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": 8,
    "hidden_act": "silu", "initializer_range": 0.02, "num_hidden_layers": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "rms_norm_eps": 1e-05, "rope_theta": 1000000,
    "rope_scaling": {
        "factor": 16.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8, "rope_type": "llama3",
    },
    "layer_types": [*["sliding_attention"] * 3, "full_attention"],
    "sliding_window": 6, "sliding_window_pattern": "LLLG", "tie_word_embeddings": False,
    "use_cache": True,
}
PHI3 = USUAL | {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "embd_pdrop": 0.0,
    "eos_token_id": 60, "hidden_act": "silu", "initializer_range": 0.02, "num_key_value_heads": 4,
    "original_max_position_embeddings": 8, "pad_token_id": 60, "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 262144,
    "rope_scaling": {
        "long_factor": [1.05, 2.1, 30.5, 60.25], "short_factor": [1.0, 1.02, 1.04, 1.1],
        "type": "longrope",
    },
    "tie_word_embeddings": False, "use_cache": True,
}
PHI4_MINI = PHI3 | {
    "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False,
    "num_attention_heads": 2, "num_key_value_heads": 1, "partial_rotary_factor": 0.75,
    "rope_scaling": {
        "long_factor": [1.0, 1.1, 1.5, 2.0, 14.5, 60.0], "short_factor": [1.0] * 6,
        "type": "longrope",
    },
    "tie_word_embeddings": True,
}
OPT350 = {
    "_remove_final_layer_norm": False, "activation_dropout": 0.0, "activation_function": "relu",
    "attention_dropout": 0.0, "bos_token_id": 2, "do_layer_norm_before": False, "dropout": 0.1,
    "eos_token_id": 2, "ffn_dim": 40, "hidden_size": 32, "init_std": 0.02, "layerdrop": 0.0,
    "max_position_embeddings": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
    "pad_token_id": 1, "prefix": "</s>", "use_cache": True, "word_embed_proj_dim": 16,
}
STARCODER = GPTJ | {
    "activation_function": "gelu_pytorch_tanh", "attention_softmax_in_fp32": True,
    "inference_runner": 0, "max_batch_size": None, "max_sequence_length": None,
    "multi_query": True, "n_inner": 40, "pad_key_length": True, "pre_allocate_kv_cache": False,
    "scale_attention_softmax_in_fp32": True, "summary_use_proj": True,
    "tie_word_embeddings": True, "validate_runner_input": True,
}
MINISTRAL3 = USUAL | {
    "attention_dropout": 0.0, "head_dim": 8, "hidden_act": "silu", "initializer_range": 0.02,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "sliding_window": None,
    "rope_parameters": {
        "beta_fast": 32.0, "beta_slow": 1.0, "factor": 16.0, "llama_4_scaling_beta": 0.1,
        "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 8,
        "rope_theta": 1000000.0, "rope_type": "yarn", "type": "yarn",
    },
    "tie_word_embeddings": False, "use_cache": True,
}
STABLELM_12B = USUAL | {
    "bos_token_id": 60, "eos_token_id": 60, "hidden_act": "silu", "hidden_dropout": 0.0,
    "initializer_range": 0.02, "layer_norm_eps": 1e-05, "norm_eps": 1e-05,
    "num_key_value_heads": 2, "partial_rotary_factor": 0.25, "qk_layernorm": True,
    "rope_theta": 10000, "tie_word_embeddings": False, "use_cache": True,
    "use_parallel_residual": True, "use_qkv_bias": False,
}
# fmt: on

# name -> (model_type, config, class of the reference)
DECODERS = {
    "starcoder2-3b": ("starcoder2", STARCODER2, "Starcoder2ForCausalLM"),
    "gpt-j-6b": ("gptj", GPTJ, "GPTJForCausalLM"),
    "opt-350m": ("opt", OPT350, "OPTForCausalLM"),
    "starcoder": ("gpt_bigcode", STARCODER, "GPTBigCodeForCausalLM"),
    "Ministral-3-3B": ("ministral3", MINISTRAL3, "Ministral3ForCausalLM"),
    "stablelm-2-12b": ("stablelm", STABLELM_12B, "StableLmForCausalLM"),
    "phi-2": ("phi", PHI2, "PhiForCausalLM"),
    "falcon-7b": ("falcon", FALCON7, "FalconForCausalLM"),
    "falcon-40b": ("falcon", FALCON40, "FalconForCausalLM"),
    "c4ai-command-r-v01": ("cohere", COMMAND_R, "CohereForCausalLM"),
    "c4ai-command-r7b": ("cohere2", COMMAND_R7B, "Cohere2ForCausalLM"),
    "glm-4-9b": ("glm", GLM4, "GlmForCausalLM"),
    "GLM-4-9B-0414": ("glm4", GLM4, "Glm4ForCausalLM"),
    "Phi-3-mini-128k": ("phi3", PHI3, "Phi3ForCausalLM"),
    "Phi-4-mini": ("phi3", PHI4_MINI, "Phi3ForCausalLM"),
    "EXAONE-4.0-32B": ("exaone4", EXAONE4, "Exaone4ForCausalLM"),
}

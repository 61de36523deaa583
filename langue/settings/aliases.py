"""The names of our settings in other libraries (transformers, nanoGPT, Megatron, T5 and others), so
that a user who writes such a name is told ours.
"""

# Accepted alternative names of settings: shorter ones, and those in older recipes and runs.
RENAMED = {
    "train.steps": "train.max_steps",
    "data.block": "data.seq_len",
    "data.cut": "data.truncation",
    "train.final": "train.min_lr_ratio",
    "train.recompute": "train.activation_checkpointing",
    "train.unfit": "train.on_nonfinite",
}

_ELSEWHERE = {
    "data.seq_len": (
        "block_size context_length context_size max_position_embeddings max_positions n_ctx"
        " n_positions seq_length sequence_length"
    ),
    "data.max_length": "max_len max_seq_len max_seq_length model_max_length",
    "data.dev_fraction": (
        "dev_split eval_fraction val_fraction val_split valid_fraction validation_fraction "
        "validation_split validation_split_percentage"
    ),
    "data.dev_max": "max_eval_samples max_val_samples",
    "data.dev_tokens": "eval_iters eval_tokens val_tokens",
    "data.seed": "data_seed split_seed",
    "tokenizer.kind": "tokenizer_type",
    "tokenizer.vocab_size": "model_vocab_size n_vocab padded_vocab_size vocab vocab_size",
    "tokenizer.min_frequency": "min_count min_freq",
    "tokenizer.lower": "do_lower_case lowercase",
    "tokenizer.accents": "strip_accents",
    "tokenizer.chinese": "handle_chinese_chars tokenize_chinese_chars",
    "tokenizer.special": "additional_special_tokens special_tokens user_defined_symbols",
    "tokenizer.sentinels": "extra_ids",
    "task.pooling": "classifier_pooling pooling_mode",
    "task.label_smoothing": "label_smoothing_factor",
    "task.dropout": "cls_dropout classifier_dropout",
    "task.mask_ratio": "mask_prob masked_lm_prob masking_ratio mlm_prob mlm_probability",
    "task.whole_words": "do_whole_word_mask whole_word_mask whole_word_masking wwm",
    "task.pairs": "next_sentence_prediction nsp sentence_order_prediction sop",
    "task.noise_ratio": "corruption_rate noise_density",
    "task.noise_span": "mean_noise_span_length mean_span_length",
    "model.dropout": "dropout_rate embd_pdrop hidden_dropout hidden_dropout_prob resid_pdrop",
    "model.attention_dropout": "attention_probs_dropout_prob attn_dropout attn_pdrop",
    "model.adapter": "adapter finetuning_type peft peft_type",
    "model.lora_rank": "lora_r r rank",
    "model.lora_alpha": "alpha",
    "model.lora_targets": "lora_target lora_target_modules target_modules",
    "model.rslora": "use_rslora",
    "model.freeze": "freeze_layers frozen_layers num_layer_trainable unfrozen_parameters",
    "model.base_weights": "load_in_4bit load_in_8bit quantization_bit",
    "model.preset": "arch architecture model_type",
    "model.size": "model_size n_params num_parameters",
    "model.dim": "d_model embed_dim embedding_dim hidden_dim hidden_size model_dim n_embd width",
    "model.n_layers": "depth n_layer num_hidden_layers num_layers",
    "model.n_heads": "attention_heads n_head num_attention_heads num_heads",
    "model.kv_heads": "n_head_kv n_kv_head n_kv_heads num_key_value_heads num_query_groups",
    "model.ffn_dim": "d_ff d_inner ffn_hidden_size intermediate_size mlp_dim n_inner",
    "model.activation": "act_fn activation_function dense_act_fn hidden_act hidden_activation",
    "model.gated": "glu swiglu",
    "model.tied": "share_embeddings tie_embeddings tie_weights tie_word_embeddings",
    "model.bias": "attention_bias mlp_bias use_bias",
    "model.qk_norm": "qk_layernorm use_qk_norm",
    "model.logit_cap": "final_logit_softcapping logit_softcap logits_soft_cap",
    "model.rotary_base": "rope_base rope_theta rotary_emb_base",
    "train.epochs": "max_epochs n_epochs num_epochs num_train_epochs",
    "train.max_steps": (
        "max_iters max_steps max_train_steps num_train_steps num_training_steps total_steps"
        " train_iters train_steps"
    ),
    "train.batch_tokens": "max_tokens tokens_per_batch total_batch_size",
    "train.batch_examples": (
        "batch_size global_batch_size micro_batch_size per_device_train_batch_size train_batch_size"
    ),
    "train.accumulate": (
        "accumulate_grad_batches accumulation_steps grad_accum gradient_accumulation_steps"
    ),
    "train.lr": "learning_rate max_lr peak_lr",
    "train.layer_decay": "layerwise_lr_decay llrd",
    "train.weight_decay": "wd weight_decay",
    "train.betas": "adam_beta1 adam_beta2 adam_betas beta1 beta2",
    "train.eps": "adam_eps adam_epsilon",
    "train.clip": "clip_grad clip_norm grad_clip gradient_clip_val max_grad_norm",
    "train.optimizer": "optim",
    "train.schedule": "lr_decay_style lr_scheduler lr_scheduler_type",
    "train.warmup": "lr_warmup_iters warmup_iters warmup_ratio warmup_steps",
    "train.min_lr_ratio": "min_lr",
    "train.ema": "ema_decay",
    "train.ramp_steps": "rampup_batch_size",
    "train.activation_checkpointing": "gradient_checkpointing",
    "train.compile": "torch_compile",
    "train.precision": "amp bf16 dtype fp16 mixed_precision",
    "train.evaluate_every": "eval_every eval_interval eval_steps val_check_interval",
    "train.checkpoint_every": "checkpoint_interval save_every save_interval save_steps",
    "train.log_every": "log_interval logging_steps",
    "train.seed": "manual_seed random_seed rng_seed seed",
    "train.tracker": "report_to",
    "train.best": "metric_for_best_model",
    "train.patience": "early_stopping_patience",
}
SETTING_ALIASES = {name: ours for ours, names in _ELSEWHERE.items() for name in names.split()}


def ours_of(key: str) -> str | None:
    """Return our key for that of another library, written with or without a section, as
    `--block-size` or `block_size`; None if there is none.
    """
    name = key.lstrip("-").replace("-", "_")
    return SETTING_ALIASES.get(name) or SETTING_ALIASES.get(name.split(".")[-1])

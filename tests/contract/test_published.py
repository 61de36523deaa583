"""Tiny folders in the layout of the Hub: config.json as written by transformers 4 and before, with
the names, buffers and duplicates in the published files. They load and give the reference's
numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from langue.errors import ModelError
from langue.hub.checkpoint import Description, family_of
from langue.hub.families.registry import FAMILIES
from langue.hub.family import parameters
from langue.runs.model import load
from langue.verbs.inspect import inspect

transformers = pytest.importorskip("transformers")

from tests.contract.published_decoders import DECODERS  # noqa: E402
from tests.contract.references import REFERENCES, VOCABULARY, draw_config, scattered  # noqa: E402
from tests.contract.test_families import close, save, saved, sequences, theirs  # noqa: E402

# fmt: off
BERT = {
    "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": 16, "initializer_range": 0.02,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 64, "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0, "position_embedding_type": "absolute", "transformers_version": "4.6.0.dev0",
    "type_vocab_size": 2, "use_cache": True,
}
LLAMA = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": [2, 3],
    "hidden_act": "silu", "hidden_size": 16, "initializer_range": 0.02, "intermediate_size": 40,
    "max_position_embeddings": 64, "num_attention_heads": 4, "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": True,
}
LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
    "rope_type": "llama3",
}
GPT_OSS_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
GPT_OSS_ROPE = {
    "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0, "original_max_position_embeddings": 8,
    "rope_type": "yarn", "truncate": False,
}
QWEN2 = LLAMA | {"max_window_layers": 1, "use_sliding_window": False, "sliding_window": 4,
    "rope_theta": 1000000.0}
GEMMA = LLAMA | {
    "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh", "cache_implementation": "hybrid",
    "rope_theta": 10000.0,
    "query_pre_attn_scalar": 8, "sliding_window": 4, "num_hidden_layers": 4,
    "torch_dtype": "float32",
}
GPT2 = {
    "activation_function": "gelu_new", "attn_pdrop": 0.1, "bos_token_id": 60, "embd_pdrop": 0.1,
    "eos_token_id": 60,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-5, "n_ctx": 64, "n_embd": 16, "n_head": 2,
    "n_layer": 2,
    "n_positions": 64, "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}
NEOX = {
    "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu", "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 40, "layer_norm_eps": 1e-5, "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2, "rotary_emb_base": 10000, "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_parallel_residual": True, "torch_dtype": "float16",
}
T5 = {
    "d_ff": 40, "d_kv": 8, "d_model": 16, "decoder_start_token_id": 0, "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-6,
    "n_positions": 512,
    "num_heads": 2, "num_layers": 2, "output_past": True, "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
}
BART = {
    "activation_dropout": 0.1, "activation_function": "gelu", "add_bias_logits": False,
    "add_final_layer_norm": False,
    "attention_dropout": 0.1, "bos_token_id": 0, "classifier_dropout": 0.0, "d_model": 16,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 40, "decoder_layerdrop": 0.0,
    "decoder_layers": 2,
    "decoder_start_token_id": 2, "dropout": 0.1, "encoder_attention_heads": 2,
    "encoder_ffn_dim": 40,
    "encoder_layers": 2, "eos_token_id": 2, "forced_eos_token_id": 2, "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_position_embeddings": 64, "normalize_before": False, "normalize_embedding": True,
    "num_hidden_layers": 2,
    "pad_token_id": 1, "scale_embedding": False,
}
DEBERTA = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 16, "initializer_range": 0.02, "intermediate_size": 40, "layer_norm_eps": 1e-7,
    "max_position_embeddings": 64, "max_relative_positions": -1, "num_attention_heads": 2,
    "num_hidden_layers": 2, "pad_token_id": 0, "padding_idx": 0, "pooler_dropout": 0,
    "pooler_hidden_act": "gelu", "pooler_hidden_size": 16, "pos_att_type": "c2p|p2c",
    "position_biased_input": False, "relative_attention": True, "type_vocab_size": 0,
}
DEBERTA_V3 = DEBERTA | {"norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p",
    "position_buckets": 8, "share_att_key": True}
MODERNBERT = {
    "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
    "classifier_activation": "gelu",
    "classifier_bias": False, "classifier_dropout": 0.0, "classifier_pooling": "mean",
    "cls_token_id": 1,
    "decoder_bias": True, "deterministic_flash_attn": False, "embedding_dropout": 0.0,
    "eos_token_id": 2,
    "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "hidden_activation": "gelu",
    "hidden_size": 16,
    "initializer_cutoff_factor": 2.0, "initializer_range": 0.02, "intermediate_size": 24,
    "layer_norm_eps": 1e-5,
    "local_attention": 8, "local_rope_theta": 10000.0, "max_position_embeddings": 64,
    "mlp_bias": False,
    "mlp_dropout": 0.0, "norm_bias": False, "norm_eps": 1e-5, "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "pad_token_id": 3, "position_embedding_type": "absolute", "reference_compile": False,
    "sep_token_id": 2,
    "sparse_pred_ignore_index": -100, "sparse_prediction": False, "torch_dtype": "float32",
}
# fmt: on


def ends(**changes):
    """Rename the endings of names to those in the file."""

    def renamed(weights):
        out = {}
        for name, tensor in weights.items():
            for today, old in changes.items():
                today = today.replace("__", ".")
                name = name.removesuffix(today) + old if name.endswith(today) else name
            out[name] = tensor
        return out

    return renamed


def beside(**shapes):
    """Add further tensors; `__` stands for a dot."""
    return lambda weights: (
        weights | {n.replace("__", "."): torch.zeros(shape) for n, shape in shapes.items()}
    )


def bare(prefix):
    return lambda weights: {name.removeprefix(prefix): tensor for name, tensor in weights.items()}


def copies(source, *names):
    return lambda weights: weights | {name: weights[source].clone() for name in names}


def without(*names):
    return lambda weights: {name: tensor for name, tensor in weights.items() if name not in names}


def masks(pattern):
    """Add the causal mask and its value, which GPT-2 and GPT-NeoX once saved with every layer."""
    own = {"bias": torch.ones(1, 1, 64, 64).tril(), "masked_bias": torch.tensor(-1e4)}
    return lambda weights: (
        weights
        | {
            f"{pattern.format(i)}.{kind}": tensor.clone()
            for i in range(2)
            for kind, tensor in own.items()
        }
    )


def layers(pattern, shape, count=2):
    return lambda weights: weights | {pattern.format(i): torch.zeros(shape) for i in range(count)}


OLD_NORMS = ends(LayerNorm__weight="LayerNorm.gamma", LayerNorm__bias="LayerNorm.beta")
POSITIONS = torch.arange(64)[None]
# name -> (model_type, config, class of the reference, functions that change its names to those of
# the file)
PUBLISHED = {
    "bert-base-uncased": (
        *("bert", BERT, "BertForMaskedLM", OLD_NORMS),
        beside(
            cls__seq_relationship__weight=(2, 16),
            cls__seq_relationship__bias=2,
            bert__pooler__dense__bias=16,
        ),
    ),
    "a BERT without model_type": (None, BERT, "BertForMaskedLM", OLD_NORMS),
    "all-MiniLM-L6-v2": (
        *("bert", BERT, "BertModel"),
        lambda weights: weights | {"embeddings.position_ids": POSITIONS},
    ),
    "roberta-base": (
        *(
            "roberta",
            BERT | {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1},
        ),
        "RobertaForMaskedLM",
        copies("lm_head.bias", "lm_head.decoder.bias"),
        lambda weights: weights | {"roberta.embeddings.position_ids": torch.arange(66)[None]},
    ),
    "distilbert-base-uncased": (
        "distilbert",
        {
            **{
                "activation": "gelu",
                "attention_dropout": 0.1,
                "dim": 16,
                "dropout": 0.1,
                "hidden_dim": 40,
            },
            **{
                "initializer_range": 0.02,
                "max_position_embeddings": 64,
                "n_heads": 2,
                "n_layers": 2,
            },
            **{
                "pad_token_id": 0,
                "sinusoidal_pos_embds": False,
                "tie_weights_": True,
                "qa_dropout": 0.1,
            },
        },
        "DistilBertForMaskedLM",
        copies("distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
    ),
    "electra-small-discriminator": (
        *(
            "electra",
            BERT | {"embedding_size": 8, "summary_type": "first", "summary_use_proj": True},
        ),
        "ElectraForPreTraining",
    ),
    "ModernBERT-base": ("modernbert", MODERNBERT, "ModernBertForMaskedLM"),
    "gpt2": (
        "gpt2",
        GPT2,
        "GPT2LMHeadModel",
        bare("transformer."),
        masks("h.{}.attn"),
        without("lm_head.weight"),
    ),
    "DialoGPT": (
        *("gpt2", GPT2, "GPT2LMHeadModel", masks("transformer.h.{}.attn")),
        copies("transformer.wte.weight", "lm_head.weight"),
    ),
    "pythia-70m": (
        *("gpt_neox", NEOX, "GPTNeoXForCausalLM", masks("gpt_neox.layers.{}.attention")),
        layers("gpt_neox.layers.{}.attention.rotary_emb.inv_freq", 2),
    ),
    "Llama-2": (
        *(
            "llama",
            {k: v for k, v in LLAMA.items() if k not in ("rope_theta", "num_key_value_heads")},
        ),
        "LlamaForCausalLM",
        layers("model.layers.{}.self_attn.rotary_emb.inv_freq", 2, 3),
    ),
    "Llama-3": ("llama", LLAMA, "LlamaForCausalLM"),
    "Llama-3.1": ("llama", LLAMA | {"rope_scaling": LLAMA3}, "LlamaForCausalLM"),
    "a Llama stretched": (
        "llama",
        LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}},
        "LlamaForCausalLM",
    ),
    "SmolLM2": (
        *(
            "llama",
            LLAMA
            | {
                "tie_word_embeddings": True,
                "rope_interleaved": False,
                "is_llama_config": True,
            },
        ),
        "LlamaForCausalLM",
    ),
    "Mistral-7B-v0.1": (
        "mistral",
        LLAMA | {"sliding_window": 5, "rope_theta": 10000.0},
        "MistralForCausalLM",
    ),
    "Mistral-7B-v0.3": (
        "mistral",
        LLAMA | {"sliding_window": None, "head_dim": 8},
        "MistralForCausalLM",
    ),
    "Mixtral-8x7B": (
        *(
            "mixtral",
            LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        ),
        "MixtralForCausalLM",
    ),
    "gpt-oss-20b": (
        "gpt_oss",
        LLAMA
        | {"attention_bias": True, "experts_per_token": 2, "num_experts_per_tok": 2, "head_dim": 8}
        | {"initial_context_length": 8, "layer_types": GPT_OSS_LAYERS, "num_local_experts": 4}
        | {"output_router_logits": False, "router_aux_loss_coef": 0.9, "sliding_window": 4}
        | {"rope_theta": 150000, "swiglu_limit": 7.0, "rope_scaling": GPT_OSS_ROPE},
        "GptOssForCausalLM",
    ),
    "Qwen2-0.5B": (
        *("qwen2", QWEN2 | {"tie_word_embeddings": True}, "Qwen2ForCausalLM"),
        copies("model.embed_tokens.weight", "lm_head.weight"),
    ),
    "Qwen2.5 with YaRN": (
        "qwen2",
        QWEN2
        | {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
        "Qwen2ForCausalLM",
    ),
    "Qwen2 with windows": ("qwen2", QWEN2 | {"use_sliding_window": True}, "Qwen2ForCausalLM"),
    "Qwen3-0.6B": (
        *(
            "qwen3",
            QWEN2 | {"head_dim": 8, "sliding_window": None, "tie_word_embeddings": True},
            "Qwen3ForCausalLM",
        ),
        copies("model.embed_tokens.weight", "lm_head.weight"),
    ),
    "deberta-base": ("deberta", DEBERTA, "DebertaForMaskedLM"),
    "deberta-v2-xlarge": (
        "deberta-v2",
        DEBERTA_V3 | {"conv_kernel_size": 3, "conv_act": "gelu", "attention_head_size": 8},
        "DebertaV2ForMaskedLM",
    ),
    # its masked-LM head has different names, and there is a head of ELECTRA beside it
    "deberta-v3-base": (
        "deberta-v2",
        DEBERTA_V3 | {"legacy": False},
        "DebertaV2ForMaskedLM",
        beside(
            deberta__embeddings__position_embeddings__weight=(64, 16),
            deberta__embeddings__position_ids=(1, 64),
            mask_predictions__dense__weight=(16, 16),
            mask_predictions__classifier__weight=(1, 16),
        ),
    ),
    "gemma-2-2b": (
        "gemma2",
        GEMMA
        | {
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
        },
        "Gemma2ForCausalLM",
    ),
    "gemma-3-1b": (
        "gemma3_text",
        GEMMA
        | {
            "rope_local_base_freq": 10000,
            "rope_theta": 1000000,
            "sliding_window_pattern": 2,
            "rope_scaling": None,
        }
        | {
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "tie_word_embeddings": True,
        },
        "Gemma3ForCausalLM",
    ),
    "t5-small": (
        *("t5", T5, "T5ForConditionalGeneration"),
        copies("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
        beside(
            decoder__block__0__layer__1__EncDecAttention__relative_attention_bias__weight=(32, 2)
        ),
    ),
    "flan-t5-small": (
        *(
            "t5",
            T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
            "T5ForConditionalGeneration",
        ),
        copies("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    ),
    "mt5-small": (
        "mt5",
        T5
        | {
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "tokenizer_class": "T5Tokenizer",
        },
        "MT5ForConditionalGeneration",
    ),
    "bart-base": (
        "bart",
        BART,
        "BartForConditionalGeneration",
        bare("model."),
        without("final_logits_bias"),
    ),
    "bart-large-cnn": (
        *(
            "bart",
            BART | {"forced_bos_token_id": 0, "num_beams": 4},
            "BartForConditionalGeneration",
        ),
        copies("model.shared.weight", "model.decoder.embed_tokens.weight"),
        without("model.shared.weight"),
    ),
    "mbart-large-cc25": (
        "mbart",
        BART | {"scale_embedding": True, "normalize_before": True, "add_final_layer_norm": True},
        "MBartForConditionalGeneration",
    ),
    "opus-mt-en-de": (
        "marian",
        BART
        | {
            "activation_function": "swish",
            "scale_embedding": True,
            "static_position_embeddings": True,
        }
        | {
            "decoder_start_token_id": 60,
            "pad_token_id": 60,
            "bad_words_ids": [[60]],
            "num_beams": 6,
        },
        "MarianMTModel",
        copies(
            "model.shared.weight",
            "model.encoder.embed_tokens.weight",
            "model.decoder.embed_tokens.weight",
        ),
        lambda weights: weights | {"model.encoder.embed_positions.weight": torch.ones(64, 16)},
    ),
    **DECODERS,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_gives_the_published_numbers(tmp_path, name):
    kind, said, stem, *changes = PUBLISHED[name]
    config = {"architectures": [stem], "vocab_size": VOCABULARY, **said} | (
        {"model_type": kind} if kind else {}
    )
    made = getattr(transformers, stem)
    reference = scattered(lambda: made(made.config_class(**config, attn_implementation="eager")), 0)
    folder = save(tmp_path / "m", reference)
    weights = load_file(folder / "model.safetensors")
    for change in changes:
        weights = change(weights)
    if hasattr(reference, "final_logits_bias") and "final_logits_bias" not in weights:
        reference.final_logits_bias.zero_()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = load(folder)
    ids = sequences(0)
    both = (ids, sequences(1)) if reference.config.is_encoder_decoder else (ids,)
    with torch.no_grad():
        if model.language is None:
            body = getattr(reference, reference.base_model_prefix, reference)
            expected = [body(torch.tensor([each])).last_hidden_state[0] for each in ids]
        else:
            expected = list(theirs(reference, *both))
    ours = numbers(model, both)
    assert all(close(mine, each.numpy()) for mine, each in zip(ours, expected, strict=True))
    assert ("logits" in inspect(folder)["uses"]) == (model.language is not None)
    model.save(tmp_path / "again")  # other tensors of the file are kept
    kept = load_file(tmp_path / "again" / "model.safetensors")
    assert not {n for n in weights if "position_ids" in n or "seq_relationship" in n} - kept.keys()
    # a modified table is saved as it is, without the copy of the file
    model.body.token.weight.data.mul_(1.5)
    model.save(tmp_path / "changed")
    for mine, other in zip(
        numbers(model, both), numbers(load(tmp_path / "changed"), both), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


def numbers(model, ids):
    return model.hidden(ids[0]) if model.language is None else model.logits(*ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_config_leaves_out_is_the_references_default(name):
    whole = getattr(transformers, REFERENCES[name][0])().to_dict()
    ours = FAMILIES[name].read(whole)
    for key in whole:
        try:
            assert FAMILIES[name].read({k: v for k, v in whole.items() if k != key}) == ours, key
        except ModelError as error:
            assert "is missing" in str(error), key


def test_a_nomic_bert_that_is_stretched_turns_as_the_reference_says(tmp_path):
    """`rotary_scaling_factor` of the first releases, as in their own code: frequencies depend on
    the length of a text beyond `max_trained_positions`, as with `dynamic`."""
    made = transformers.NomicBertForMaskedLM
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 10, "vocab_size": VOCABULARY}
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 300.0}
    config = made.config_class(**sizes, rope_parameters=rope, attn_implementation="eager")
    reference = scattered(lambda: made(config), 0)
    folder = save(tmp_path / "m", reference)
    said = json.loads((folder / "config.json").read_text())
    said.pop("rope_theta", None)
    del said["rope_parameters"]
    old = {"rotary_scaling_factor": 2, "max_trained_positions": 10, "rotary_emb_base": 300}
    (folder / "config.json").write_text(json.dumps(said | old | {"max_position_embeddings": 64}))
    ids = sequences(0, (5, 12, 30))
    with torch.no_grad():
        for mine, expected in zip(load(folder).logits(ids), theirs(reference, ids), strict=True):
            assert close(mine, expected.numpy())


@pytest.mark.parametrize("older", ["su", "yarn"])
def test_older_names_of_longrope(older):
    kind, said, _ = DECODERS["Phi-3-mini-128k"]
    said = said | {"vocab_size": VOCABULARY}
    old = said | {"rope_scaling": said["rope_scaling"] | {"type": older}}
    assert FAMILIES[kind].read(old) == FAMILIES[kind].read(said)


ROPES = [
    {"rope_type": kind, "factor": factor}
    for kind in ("yarn", "linear", "dynamic", ["x"])
    for factor in (0, -1, "x")
]
ODD = [
    None,
    True,
    0,
    -1,
    1,
    3,
    2**23,
    2**40,
    2**70,
    0.5,
    1e308,
    math.inf,
    math.nan,
    "x",
    "gelu",
    [],
    [1],
    {},
    *ROPES,
]
MORE = [
    "rope_scaling",
    "rope_theta",
    "layer_types",
    "sliding_window",
    "num_key_value_heads",
    "head_dim",
]


@pytest.mark.parametrize("name", FAMILIES)
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_values_are_refused_or_followed(tmp_path, name, data):
    config = json.loads(draw_config(name, 0).to_json_string(use_diff=False))
    for key in data.draw(st.lists(st.sampled_from([*config, *MORE]), min_size=1, max_size=2)):
        config[key] = data.draw(st.sampled_from(ODD))
    try:
        parameters(family_of(Description(tmp_path, config, None))[1])
    except ModelError as error:
        assert "\n" not in str(error)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc/self/maps to ask")
@pytest.mark.parametrize("shared", [True, False])
def test_where_heads_share_keys_the_matrices_are_the_files_own(tmp_path, shared):
    """Nothing is stacked, so nothing is copied: all processes that load the file share its
    pages."""
    made = transformers.LlamaForCausalLM
    config = LLAMA | {"num_key_value_heads": 2 if shared else 4, "vocab_size": VOCABULARY}
    folder = save(tmp_path / "m", made(made.config_class(**config)).float())
    language = load(folder).language
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = [line[0].split("-") for line in lines if line[-1] == str(folder / "model.safetensors")]
    places = {name: w.data_ptr() for name, w in language.named_parameters() if w.ndim > 1}
    copied = {
        name
        for name, at in places.items()
        if not any(int(a, 16) <= at < int(b, 16) for a, b in mapped)
    }
    assert copied == {name for name in places if "qkv" in name}
    assert bool(copied) != shared


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"rope_scaling": {"type": "su", "factor": 2.0}}, "rope_type = 'su'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ({"rope_scaling": "linear"}, "cannot be followed"),
        ({"num_attention_heads": 0}, "cannot be followed"),
        ({"num_hidden_layers": 10**9}, "beyond any model"),
        ({"num_hidden_layers": 30_000}, "30,000 layers, and there are"),
        ({"vocab_size": 2**40}, "beyond any model"),
        ({"head_dim": 2**62}, "beyond any model"),
        ({"hidden_size": 2**23, "architectures": ["LlamaForSequenceClassification"]}, "has shape"),
        ({"model_type": ["llama"]}, "is not known"),
    ],
)
def test_what_a_config_must_not_claim(tmp_path, change, word):
    made = transformers.LlamaForCausalLM
    folder = save(tmp_path / "m", made(made.config_class(**LLAMA, vocab_size=VOCABULARY)))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "vocab_size": VOCABULARY} | LLAMA | change)
    )
    with pytest.raises(ModelError, match=word):
        load(folder)


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_shared_table_whose_copy_is_none(tmp_path, name, side):
    """The reference reads the copy, so it must not be ignored silently."""
    folder = saved(tmp_path / "m", name, 0)
    weights = load_file(folder / "model.safetensors")
    shared = next(key for key in weights if key.endswith("shared.weight"))
    copy = shared.replace("shared", f"{side}.embed_tokens")
    save_file(
        weights | {copy: weights[shared].clone()}, folder / "model.safetensors", {"format": "pt"}
    )
    load(folder)
    save_file(weights | {copy: 3 * weights[shared]}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="the file.s two copies differ"):
        load(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.bool, torch.int64, torch.float8_e4m3fn])
@pytest.mark.parametrize("part", ["q_proj", "o_proj"])
@pytest.mark.parametrize("shared", [2, 4])
def test_weights_that_are_no_plain_numbers(tmp_path, kind, part, shared):
    made = transformers.LlamaForCausalLM
    config = made.config_class(**LLAMA | {"num_key_value_heads": shared, "vocab_size": VOCABULARY})
    folder = save(tmp_path / "m", made(config).float())
    weights = load_file(folder / "model.safetensors")
    name = f"model.layers.0.self_attn.{part}.weight"
    save_file(
        weights | {name: weights[name].to(kind)}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match=f"{name} is of .*, which no weight is read from"):
        load(folder)


def test_one_weight_under_two_names(tmp_path):
    made = transformers.BertModel
    folder = save(tmp_path / "m", made(made.config_class(**BERT, vocab_size=VOCABULARY)))
    weights = load_file(folder / "model.safetensors")
    twice = weights | {"embeddings.LayerNorm.gamma": 3 * weights["embeddings.LayerNorm.weight"]}
    save_file(twice, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="under an old name and a new one"):
        load(folder)


def test_two_vocabularies_have_two_bounds(tmp_path):
    from langue.verbs.verify import verify

    words = {
        "vocab_size": VOCABULARY,
        "decoder_vocab_size": 40,
        "share_encoder_decoder_embeddings": False,
    }
    sizes = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
    }
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 3}
    made = transformers.MarianMTModel
    folder = save(tmp_path / "m", made(made.config_class(**words, **sizes, **heads, **special)))
    model = load(folder)
    assert model.logits([[1, VOCABULARY - 1]], [[39, 5]])[0].shape == (2, 40)
    with pytest.raises(ModelError, match="0 to 39"):
        model.logits([[1, 2]], [[40, 5]])
    assert all(
        check["ok"] is not False for check in verify(folder)["checks"] if "logits" in check["check"]
    )


def test_no_texts_are_no_answers(tmp_path):
    made = transformers.LlamaForCausalLM
    model = load(save(tmp_path / "m", made(made.config_class(**LLAMA, vocab_size=VOCABULARY))))
    assert model.hidden([]) == [] and model.encode([]).shape == (0, 16)

"""Tiny decoders of the published kinds for tests, with random weights and tokenizers."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from langue.hub.checkpoint import write_checkpoint
from langue.hub.families.registry import FAMILIES
from langue.model.language_model import LanguageModel
from langue.model.transformer import initialise
from langue.text.tokenizers.sentencepiece import merges_of
from langue.text.tokenizers.tokenizer import Tokenizer
from tests.tiny_tokenizer import byte_tokenizer

VOCABULARY = 272
_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_LLAMA},
    "llama, tied": {
        "model_type": "llama",
        **_LLAMA,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
    },
    "llama, biases and wide heads": {
        **{"model_type": "llama", **_LLAMA, "head_dim": 32},
        **{"attention_bias": True, "mlp_bias": True},
    },
    "llama, stretched": {
        "model_type": "llama",
        **_LLAMA,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "llama 3": {
        **{"model_type": "llama", **_LLAMA},
        "rope_parameters": {**_LLAMA3, "original_max_position_embeddings": 64},
    },
    "mistral": {"model_type": "mistral", **_LLAMA, "sliding_window": 48},
    "qwen2": {"model_type": "qwen2", **_LLAMA, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **_LLAMA, "head_dim": 32},
    "gpt2": {
        **{"model_type": "gpt2", "vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4},
        **{"n_positions": 64, "n_inner": 160, "bos_token_id": 0, "eos_token_id": 0},
    },
}


def tiny_decoder(
    folder: Path, name: str, tokenizer: Tokenizer | None = None, seed: int = 0, **more: Any
) -> Path:
    """Write a folder in the layout of the Hub."""
    published = CONFIGS[name] | more
    family = FAMILIES[published["model_type"]]
    config = family.read(published)
    model = LanguageModel(config)
    initialise(model, 0.15, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    # biases and norms too, so that a missing or swapped one is noticed
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.data.add_(0.2 * torch.randn(weight.shape, generator=generator))
    folder.mkdir(parents=True)
    write_checkpoint(
        folder,
        family=family,
        config=config,
        weights=dict(model.named_parameters()),
        tokenizer=tokenizer or byte_tokenizer(),
        head="lm",
        published=published,
    )
    return folder


def sentencepiece_tokenizer(prefix: bool = True) -> Tokenizer:
    """Return a tokenizer like that of Llama 2: pieces with scores, byte fallback, <s> before each
    text."""
    words = ["▁t", "he", "▁the", "▁a", "in", "▁b", "ll", "▁ba", "▁ball", "er"]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz.,"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words, *letters]
    scores = {word: -float(index) for index, word in enumerate(words)} | dict.fromkeys(
        letters, -99.0
    )
    backend = tokenizers.Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)},
            merges_of(scores),
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    steps = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    backend.add_special_tokens([AddedToken(piece, special=True) for piece in pieces[:3]])
    return Tokenizer(backend)


TEXT = "The ball's 1234 is   in the\n\nweb, and the 56 others: naïve, 北京, don't\tWE'RE 🙂 there."


def trained_tokenizer(cut: Any, whole: bool = False) -> Tokenizer:
    """Return a byte-level BPE with `cut` as pre-tokenizer."""
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=whole))
    backend.pre_tokenizer = cut
    backend.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY + 40,
        special_tokens=["<|endoftext|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 5, trainer)
    return Tokenizer(backend)

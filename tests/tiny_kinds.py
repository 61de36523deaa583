"""A tiny folder of each architecture, whose matrices can be quantized in groups of 32."""

from pathlib import Path

from langue.hub.checkpoint import write_checkpoint
from langue.hub.families.registry import FAMILIES
from langue.model.language_model import LanguageModel
from langue.model.transformer import initialise
from tests.tiny_decoder import CONFIGS, VOCABULARY, tiny_decoder
from tests.tiny_tokenizer import byte_tokenizer

OTHERS = {
    "bert": {
        **{"model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 64},
        **{"intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
        **{"max_position_embeddings": 64, "pad_token_id": 0},
    },
    "t5": {
        **{"model_type": "t5", "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 96},
        **{"num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "eos_token_id": 0},
    },
    "t5, gated": {
        **{"model_type": "t5", "vocab_size": VOCABULARY, "d_model": 64, "d_kv": 16, "d_ff": 96},
        **{"num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "eos_token_id": 0},
        **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    },
}
KINDS_OF_MODELS = (*OTHERS, *CONFIGS)


def tiny_model(folder: Path, name: str) -> Path:
    """Write a folder in the layout of the Hub, with a language-model head and random weights."""
    if name in CONFIGS:
        return tiny_decoder(folder, name)
    published = OTHERS[name]
    family = FAMILIES[str(published["model_type"])]
    config = family.read(published)
    model = LanguageModel(config)
    initialise(model, 0.05, 0)
    folder.mkdir(parents=True)
    write_checkpoint(
        folder,
        family=family,
        config=config,
        weights=dict(model.named_parameters()),
        tokenizer=byte_tokenizer(),
        head="lm",
        published=published,
    )
    return folder

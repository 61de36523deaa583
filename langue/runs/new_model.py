"""Creation of models: takes the settings of a new model, and texts; returns its shape, and a
tokenizer trained on the texts.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from langue.errors import SettingsError
from langue.hub.checkpoint import Checkpoint
from langue.hub.family import Family
from langue.hub.presets import preset
from langue.hub.special_tokens import special_ids as named_ids
from langue.model.config import ModelConfig
from langue.progress import bar
from langue.runtime import rank
from langue.settings.sections import Settings
from langue.text.tokenizers.special import special_ids
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.training import check, train
from langue.train.parallel import barrier

# Settings of a new model's shape.
AXES = (
    "dim",
    "n_layers",
    "n_heads",
    "kv_heads",
    "ffn_dim",
    "activation",
    "gated",
    "tied",
    "bias",
    "qk_norm",
    "logit_cap",
    "rotary_base",
    "dropout",
    "attention_dropout",
)
TOKENIZER = "tokenizer"  # folder of a run with the tokenizer that it trains


def shape_of_new_model(
    usual: str, vocab_size: int, longest: int, settings: Settings
) -> tuple[Family, ModelConfig]:
    """Return the family and config that the settings describe.

    usual: the preset if none is named.
    """
    chosen = settings.model
    axes = {axis: value for axis in AXES if (value := getattr(chosen, axis)) is not None}
    return preset(chosen.preset or usual, vocab_size, longest, size=chosen.size, axes=axes)


def new_checkpoint(
    usual: str, texts: Sequence[str], folder: Path, settings: Settings, notes: list[str]
) -> Checkpoint:
    """Return a model without weights, and a tokenizer trained on the texts, which is stored in the
    folder and reused by a resumed run.
    """
    made = folder / TOKENIZER
    if rank() == 0 and not (made / "tokenizer.json").is_file():
        check(settings.tokenizer)
        with bar("training a tokenizer", 1) as advance:
            train(texts, settings.tokenizer, made, notes)
            advance(1)
    barrier()
    tokenizer = Tokenizer.load(made)
    size = tokenizer.backend.get_vocab_size(with_added_tokens=True)
    longest = settings.data.max_length
    family, config = shape_of_new_model(usual, size, longest, settings)
    if longest > config.longest:
        raise SettingsError(
            f"data.max_length = {longest} is more than the {config.longest} tokens of the model",
            do=f"set data.max_length to at most {config.longest}",
        )
    ids = named_ids(tokenizer, {})
    special = special_ids(tokenizer)
    ids["eos_token_id"] = special.need("eos", "sep")
    if config.decoder_layers:
        ids["decoder_start_token_id"] = special.need("pad", "bos")
    return replace(Checkpoint(Path(), family, config, None, {}, tokenizer), published=ids)

"""A byte-level tokenizer for tests."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from langue.text.tokenizers.tokenizer import Tokenizer


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer with one token for each byte and a single merge, enough to see what is
    merged."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<|endoftext|>", *alphabet, "th"])}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(backend)

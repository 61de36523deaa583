"""The cases of the contract tests of pretraining objectives: settings with which a tiny model
memorises eight documents, and the class of `transformers` that loads the run. Every registered
objective needs an entry here."""

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from tests.tiny import BAD, GOOD, PLAIN

SHAPE = {
    "model.dim": 32,
    "model.n_layers": 2,
    "model.n_heads": 4,
    "model.ffn_dim": 48,
    "model.dropout": 0.0,
    "model.attention_dropout": 0.0,
    "train.precision": "fp32",
    "data.seq_len": 32,
    "train.batch_tokens": 256,
}


@dataclass(frozen=True)
class Case:
    """One way to use an objective."""

    objective: str
    loader: str  # the class of `transformers` that loads the finished run
    # irreducible loss of a document in nats: nothing tells which of the eight it is
    unavoidable: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    logits: str = "logits"  # the name of the token logits in the class's output
    steps: int = 2  # number of training steps
    by_heart: bool = False  # whether these are enough to memorise eight documents


CASES = {
    "causal": Case(
        "causal", "AutoModelForCausalLM", unavoidable=math.log(8), steps=150, by_heart=True
    ),
    "masked": Case("masked", "AutoModelForMaskedLM", steps=400, by_heart=True),
    "masked words": Case("masked", "AutoModelForMaskedLM", settings={"task.whole_words": True}),
    "masked, next": Case(
        "masked", "BertForPreTraining", settings={"task.pairs": "next"}, logits="prediction_logits"
    ),
    "masked, order": Case(
        "masked", "BertForPreTraining", settings={"task.pairs": "order"}, logits="prediction_logits"
    ),
    "denoise": Case("denoise", "AutoModelForSeq2SeqLM", steps=100, by_heart=True),
}

# An invalid line of a JSON Lines file, and a word of the error message.
MALFORMED = [
    ('{"text": 5}', "text"),
    ('{"words": "the film"}', "text"),
    ('{"text": "the film', "JSON"),
]


def documents(n: int) -> list[str]:
    """Return different texts of different lengths, with words of one token and words of two."""
    generator = random.Random(3)
    words = [*GOOD, *BAD, *PLAIN, "films", "nights", "actors"]
    return [" ".join(generator.choices(words, k=8 + index % 5)) for index in range(n)]


def word_tokenizer(folder: Path) -> Path:
    """Write a tokenizer of words and their endings, with every special token that an objective may
    need."""
    folder.mkdir(parents=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<|endoftext|>"]
    special += [f"<extra_id_{index}>" for index in range(12)]
    words = [*special, *GOOD, *BAD, *PLAIN, "##s"]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(special)
    backend.save(str(folder / "tokenizer.json"))
    return folder

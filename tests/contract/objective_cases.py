"""What the battery of pretraining objectives needs to know of each: settings with which a tiny
model learns eight documents by heart, and the class of `transformers` that reads the run. An
objective that is registered needs an entry here."""

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
    loader: str  # the class of `transformers` for the finished run
    # nats of a document that no model can save: which of the eight it is, where nothing tells
    unavoidable: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    logits: str = "logits"  # what the class calls the scores of tokens
    steps: int = 2  # of training
    by_heart: bool = False  # whether these are enough to learn eight documents by heart


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

# A line of a text in JSON that is none, and what the message says of it.
MALFORMED = [
    ('{"text": 5}', "text"),
    ('{"words": "the film"}', "text"),
    ('{"text": "the film', "JSON"),
]


def documents(n: int) -> list[str]:
    """Different texts of different lengths, of words that are one token and words that are two."""
    generator = random.Random(3)
    words = [*GOOD, *BAD, *PLAIN, "films", "nights", "actors"]
    return [" ".join(generator.choices(words, k=8 + index % 5)) for index in range(n)]


def word_tokenizer(folder: Path) -> Path:
    """Words and their endings, with every special token that an objective may need."""
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

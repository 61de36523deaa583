"""A tiny BERT for tests, and labelled texts that it can learn."""

import json
import random
from pathlib import Path
from typing import Any

import torch

from langue.hub.checkpoint import write_checkpoint
from langue.hub.families.bert import BERT
from langue.model.config import ModelConfig
from langue.model.transformer import Transformer, initialise
from langue.text.tokenizers.tokenizer import Tokenizer

GOOD = ["good", "great", "lovely", "fine", "superb", "bright", "warm"]
BAD = ["bad", "awful", "dull", "poor", "grim", "weak", "cold"]
PLAIN = [
    "the",
    "a",
    "film",
    "plot",
    "it",
    "was",
    "with",
    "and",
    "scene",
    "actor",
    "story",
    "night",
    "day",
    "very",
    "long",
    "short",
    "music",
]
# settings for a training of a few steps
SHORT = {"train.epochs": 1, "train.batch_examples": 16, "train.lr": 1e-3}
CONFIG = ModelConfig(
    vocab_size=200, dim=32, n_layers=2, n_heads=4, ffn_dim=48, max_length=64, n_segments=2
)


def tiny_bert(folder: Path, config: ModelConfig = CONFIG, seed: int = 0) -> Path:
    """Write a BERT folder in the layout of the Hub, with random weights and a WordPiece vocabulary
    of the words above."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLAIN]
    words += [chr(c) for c in range(97, 123) if chr(c) not in words] + [
        f"##{chr(c)}" for c in range(97, 123)
    ]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}), "utf-8"
    )
    model = Transformer(config)
    initialise(model, 0.1, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for weight in model.parameters():  # biases and norms too, so that a missing one is noticed
        if weight.ndim == 1:
            weight.data.add_(0.1 * torch.randn(weight.shape, generator=generator))
    write_checkpoint(
        folder,
        family=BERT,
        config=config,
        weights={f"body.{name}": weight for name, weight in model.named_parameters()},
        tokenizer=Tokenizer.load(folder),
    )
    return folder


def reviews(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return texts of very different lengths, labelled by the kind of the positive or negative
    words in them."""
    random_ = random.Random(seed)
    rows = []
    for index in range(count):
        label = "pos" if index % 2 else "neg"
        words = random_.choices(PLAIN, k=random_.randint(2, 40)) + random_.choices(
            GOOD if label == "pos" else BAD, k=3
        )
        random_.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path

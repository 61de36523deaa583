"""A training run for a process of its own, for tests that kill it."""

from pathlib import Path

import numpy as np
import torch

from langue.data.batch import Examples
from langue.data.encoded import Encoded
from langue.data.loader import Split
from langue.files import atomic_folder
from langue.model.config import ModelConfig
from langue.settings.sections import TrainSettings
from langue.tasks.classify import Classify
from langue.train.state import save_weights
from langue.train.trainer import Trainer
from tests.tiny import CONFIG

SETTINGS = TrainSettings(
    epochs=3,
    lr=3e-3,
    batch_tokens=256,
    batch_examples=6,
    accumulate=2,
    checkpoint_every=2,
    evaluate_every=4,
    patience=0,
)


def examples(count: int, seed: int) -> Examples:
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 40, count)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = random.integers(5, CONFIG.vocab_size, starts[-1]).astype(np.int32)
    return Examples(tokens, starts, None, np.zeros(count, np.int32), random.integers(0, 2, count))


def held_out(count: int, seed: int) -> Encoded:
    """Such examples, encoded as `evaluate` takes them."""
    made = examples(count, seed)
    return Encoded.of(made, made.targets)


def trainer(
    folder: Path, settings: TrainSettings = SETTINGS, config: ModelConfig = CONFIG
) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(5)
    task = Classify(["neg", "pos"], Classify.Options(label_smoothing=0.1))
    model = task.network(config, seed=1)
    return Trainer(
        model, task, Split(examples(120, 0), settings), held_out(24, 1), settings, folder
    )


def train(folder: Path) -> None:
    """Train to the end, from the last checkpoint where there is one, and save the weights."""
    torch.set_num_threads(1)
    run = trainer(folder)
    run.run(resume=True)
    with atomic_folder(folder / "done") as done:
        save_weights(done, run.model)

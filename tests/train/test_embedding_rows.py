"""Training the rows of an embedding that the texts hold is training all of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from langue.data.batch import Examples, gather
from langue.data.encoded import Encoded
from langue.data.loader import Split
from langue.model.heads import TaskModel
from langue.settings.sections import TrainSettings
from langue.tasks.classify import Classify
from langue.train.embedding_rows import trim_embedding
from langue.train.trainer import Trainer
from tests.tiny import CONFIG
from tests.train.child import examples

STEP = 3  # of the tokens of the model every so many-th stands in a text


def sparse(split: Examples) -> Examples:
    """The same texts with fewer different tokens."""
    return replace(split, tokens=split.tokens // STEP * STEP)


def model() -> TaskModel:
    torch.manual_seed(5)
    return Classify(["neg", "pos"], Classify.Options()).network(CONFIG, seed=1)


def held_out(made: Examples) -> Encoded:
    return Encoded.of(made, made.targets)


def train(network: TaskModel, folder: Path, **settings: object) -> None:
    chosen = TrainSettings(
        epochs=2, lr=3e-3, batch_examples=6, evaluate_every=4, checkpoint_every=5, **settings
    )  # type: ignore[arg-type]
    task = Classify(["neg", "pos"], Classify.Options())
    folder.mkdir()
    Trainer(
        network,
        task,
        Split(sparse(examples(60, 0)), chosen),
        held_out(sparse(examples(24, 1))),
        chosen,
        folder,
    ).run()


@pytest.fixture
def splits() -> list[Examples]:
    return [sparse(examples(60, 0)), sparse(examples(24, 1))]


def test_the_weights_are_those_of_training_all_rows(splits: list[Examples], tmp_path: Path) -> None:
    ours = model()
    theirs = model()
    with trim_embedding(ours.body, *splits):
        train(ours, tmp_path / "ours", weight_decay=0.0)
    train(theirs, tmp_path / "theirs", weight_decay=0.0)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        # Adam divides by the root of a sum of squares: the last bit of a small gradient may be some
        # of the rate.
        torch.testing.assert_close(
            a, b, atol=1e-5, rtol=1e-4, msg=lambda said, name=name: f"{name}: {said}"
        )


def test_rows_in_no_text_stay_as_they_were(splits: list[Examples], tmp_path: Path) -> None:
    network = model()
    before = model().body.token
    assert before is not None
    with trim_embedding(network.body, *splits):
        assert network.body.token is not None
        assert len(network.body.token.weight) < CONFIG.vocab_size / 2
        train(network, tmp_path / "run", weight_decay=0.1)
    used = np.union1d(np.unique(splits[0].tokens), np.unique(splits[1].tokens))
    other = np.setdiff1d(np.arange(1, CONFIG.vocab_size), used)
    assert network.body.token is not None and len(other)
    after = network.body.token.weight
    assert after.shape == before.weight.shape
    assert torch.equal(after[other], before.weight[other])
    assert (
        (after[np.unique(splits[0].tokens)] != before.weight[np.unique(splits[0].tokens)])
        .any(1)
        .all()
    )


def test_afterwards_any_text_is_read(splits: list[Examples], tmp_path: Path) -> None:
    network = model()
    all_tokens = examples(10, 2)
    with torch.no_grad():
        before = network.eval()(gather(all_tokens, np.arange(10)))
        with trim_embedding(network.body, *splits):
            inside = network(gather(splits[0], np.arange(10)))
            with pytest.raises(IndexError):
                network(gather(all_tokens, np.arange(10)))
        assert torch.equal(network(gather(all_tokens, np.arange(10))), before)
        assert torch.equal(network(gather(splits[0], np.arange(10))), inside)
    assert [name for name, _ in network.named_parameters()] == [
        name for name, _ in model().named_parameters()
    ]


def test_what_is_stopped_leaves_the_table_as_it_was(splits: list[Examples]) -> None:
    network = model()
    before = model()
    with pytest.raises(KeyboardInterrupt), trim_embedding(network.body, *splits):
        raise KeyboardInterrupt
    for ours, theirs in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_where_every_row_is_in_use_nothing_changes() -> None:
    network = model()
    table = network.body.token
    every = replace(examples(1, 0), tokens=np.arange(CONFIG.vocab_size, dtype=np.int32))
    with trim_embedding(network.body, every):
        assert network.body.token is table


def test_what_a_batch_is_filled_up_with_has_a_row(splits: list[Examples]) -> None:
    """In bf16 on processors some rows more are computed, of token 0, which need not stand in any
    text."""
    split = replace(splits[0], tokens=np.maximum(splits[0].tokens, STEP))
    network = model().eval()
    batch = gather(split, np.arange(40))
    assert batch.n_tokens % 32 and batch.n_tokens > 256 and not (batch.tokens == 0).any()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = network(batch)
        with trim_embedding(network.body, split):
            assert torch.equal(network(batch), before)

"""Inference gives one answer, whatever the number of cores that give it."""

import numpy as np
import pytest
import torch

from langue.data.batch import Batch
from langue.errors import ModelError
from langue.runs.model import load
from langue.tasks.task import infer
from tests.tiny import reviews, tiny_bert


@pytest.fixture
def cores():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_many_cores_say_what_one_does(tmp_path, cores):
    model = load(tiny_bert(tmp_path / "model"))
    texts = [row["text"] * (1 + index % 5) for index, row in enumerate(reviews(200, seed=1))]
    cores(1)
    alone = model.encode(texts)
    cores(3)
    together = model.encode(texts)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    assert torch.get_num_threads() == 3


def test_batches_are_many_enough_for_every_core_and_cover_all_rows_once(tmp_path, cores):
    model = load(tiny_bert(tmp_path / "model"))
    examples = model._examples([row["text"] for row in reviews(300, seed=1)])
    cores(2)
    found = list(infer(len, examples, torch.device("cpu"), torch.float32))
    assert len(found) >= 4
    assert sorted(np.concatenate([batch.rows for batch, _ in found])) == list(range(300))
    assert all(len(batch) == size for batch, size in found)


def test_an_error_in_one_batch_is_raised_where_it_is_asked_for(tmp_path, cores):
    examples = load(tiny_bert(tmp_path / "model"))._examples(
        [row["text"] for row in reviews(300, seed=1)]
    )
    cores(2)

    def refuse(batch: Batch) -> None:
        raise ModelError("not this one")

    with pytest.raises(ModelError, match="not this one"):
        list(infer(refuse, examples, torch.device("cpu"), torch.float32))

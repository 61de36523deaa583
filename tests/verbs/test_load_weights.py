"""`load(weights=)`: a model of each architecture in use, its matrices in another kind."""

import numpy as np
import pytest
import torch

import langue
from langue.errors import ModelError, SettingsError
from langue.model.weight_kinds import KINDS
from langue.model.weight_linear import held_weights
from tests.tiny import SHORT, reviews, tiny_bert, write_jsonl
from tests.tiny_kinds import KINDS_OF_MODELS, tiny_model

TEXTS = ["The ball is there.", "It was a long night, and the day was short."]
# The relative error of hidden states and logits that two layers of random weights make of that of
# the matrices; that they are exactly those of the rounded numbers, tests/model/ asks.
OFF = {"fp32": 1e-6, "bf16": 0.02, "int8": 0.05, "int4": 0.45}


def relative(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", KINDS_OF_MODELS)
def test_a_model_is_in_use_as_ever(tmp_path, name, kind):
    folder = tiny_model(tmp_path / "m", name)
    plain = langue.load(folder)
    if name == "bert" and kind == "int4":
        with pytest.raises(ModelError, match="an encoder is not held in int4.*use int8"):
            langue.load(folder, weights=kind)
        return
    model = langue.load(folder, weights=kind)
    assert model.weights == kind and plain.weights is None
    assert kind in {weight.kind for weight in held_weights(model.language).values()}
    for found, exact in zip(model.hidden(TEXTS), plain.hidden(TEXTS), strict=True):
        assert found.shape == exact.shape and relative(found, exact) < OFF[kind]
    given = (TEXTS, TEXTS[::-1]) if name.startswith("t5") else (TEXTS,)
    for found, exact in zip(model.logits(*given), plain.logits(*given), strict=True):
        assert found.shape == exact.shape and relative(found, exact) < OFF[kind]
    if name == "bert":
        with pytest.raises(ModelError, match="encoder"):
            model.generate(TEXTS)
        return
    written = model.generate(TEXTS, max_tokens=5)
    assert len(written) == 2
    if kind == "fp32":
        assert written == plain.generate(TEXTS, max_tokens=5)


def test_a_body_alone_embeds(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    exact = langue.load(folder).encode(TEXTS)
    found = langue.load(folder, weights="int8").encode(TEXTS)
    assert relative(found, exact) < OFF["int8"]
    first = langue.load(folder, weights="int8").encode(TEXTS, pool="first")
    assert relative(first, langue.load(folder).encode(TEXTS, pool="first")) < OFF["int8"]


def test_a_run_predicts(tmp_path):
    data = write_jsonl(tmp_path / "reviews.jsonl", reviews(60))
    folder = tiny_bert(tmp_path / "m")
    langue.finetune(model=folder, data=data, out=tmp_path / "run", **SHORT)
    texts = [row["text"] for row in reviews(8, seed=1)]
    plain = langue.load(tmp_path / "run")
    model = langue.load(tmp_path / "run", weights="int8")
    assert relative(model.logits(texts), plain.logits(texts)) < 0.05
    assert {"label", "score"} == {*model.predict(texts)[0]}
    # the head is as it was
    assert torch.equal(model.network.head.out.weight, plain.network.head.out.weight)


def test_bad_wishes(tmp_path):
    folder = tiny_model(tmp_path / "m", "llama")
    with pytest.raises(SettingsError, match="weights = 'int2' is not known; give fp32, bf16"):
        langue.load(folder, weights="int2")
    with pytest.raises(SettingsError, match="both say what the matrices are held in"):
        langue.load(folder, dtype="bf16", weights="int8")


def test_a_weight_that_is_no_number_is_named(tmp_path):
    folder = tiny_model(tmp_path / "m", "llama")
    plain = langue.load(folder)
    with torch.no_grad():
        plain.body.blocks[1].feedforward.up.weight[3, 3] = torch.inf
    plain.save(tmp_path / "bad")
    with pytest.raises(ModelError, match=r"bad: .*feedforward\.up\.weight: a weight of inf"):
        langue.load(tmp_path / "bad", weights="int4")

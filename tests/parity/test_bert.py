"""BERT against `transformers`, both ways, with configs drawn per seed: the published model's
numbers."""

import json
import random

import numpy as np
import pytest
import torch

from langue.hub.checkpoint import describe, load_into, read_checkpoint, without_extra
from langue.model.transformer import Transformer
from langue.runs.model import load
from tests.tiny import tiny_bert

transformers = pytest.importorskip("transformers")


def reference_config(seed):
    """Non-default values on every axis, drawn from the seed."""
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 4])
    return transformers.BertConfig(
        vocab_size=200,
        hidden_size=heads * draw.choice([4, 8]),
        num_hidden_layers=draw.choice([1, 2, 3]),
        num_attention_heads=heads,
        intermediate_size=draw.choice([20, 40]),
        max_position_embeddings=draw.choice([40, 64]),
        type_vocab_size=draw.choice([2, 3]),
        layer_norm_eps=draw.choice([1e-12, 1e-5, 1e-3]),
        hidden_act=draw.choice(["gelu", "gelu_new", "relu", "silu"]),
        hidden_dropout_prob=draw.choice([0.0, 0.2]),
        initializer_range=0.2,
    )


def save_reference(folder, model):
    for weight in model.parameters():
        if weight.ndim == 1:
            weight.data.normal_(0.0, 0.3)
    tiny_bert(folder)  # for the tokenizer
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    model.eval().save_pretrained(folder)
    return model


def sequences(seed):
    # Not token 0: the reference gives the padding token's embedding no gradient, and here nothing
    # is padding.
    draw = random.Random(seed)
    return [[draw.randrange(1, 200) for _ in range(length)] for length in (1, 7, 7, 33, 12)]


@pytest.mark.parametrize("seed", range(4))
def test_hidden_states_of_a_ragged_batch_equal_one_at_a_time(tmp_path, seed):
    torch.manual_seed(seed)
    reference = save_reference(tmp_path / "m", transformers.BertModel(reference_config(seed)))
    model = load(tmp_path / "m")
    for ids, ours in zip(sequences(seed), model.hidden(sequences(seed)), strict=True):
        with torch.no_grad():
            theirs = reference(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.parametrize("seed", range(2))
def test_gradients_of_every_weight(tmp_path, seed):
    torch.manual_seed(seed)
    config = reference_config(seed + 10)
    config._attn_implementation = "eager"
    reference = save_reference(
        tmp_path / "m", transformers.BertModel(config, add_pooling_layer=False)
    )
    checkpoint = read_checkpoint(describe(tmp_path / "m"))
    body = Transformer(checkpoint.config)
    load_into(
        body,
        {n.removeprefix("body."): w for n, w in without_extra(checkpoint.weights).items()},
        where="",
    )
    model = load(tmp_path / "m")
    examples = model._examples(sequences(seed))
    from langue.data.batch import gather

    batch = gather(examples, np.arange(len(examples)))
    body.eval()
    weight = torch.randn(body.config.dim)
    (body(*batch.inputs) @ weight).square().sum().backward()
    for ids in sequences(seed):
        (
            reference(input_ids=torch.tensor([ids])).last_hidden_state[0] @ weight
        ).square().sum().backward()
    ours = {
        f"body.{n}": w.grad if w.grad is not None else torch.zeros_like(w)
        for n, w in body.named_parameters()
    }
    theirs = checkpoint.family.to_theirs(ours, checkpoint.config, None)
    for name, parameter in reference.named_parameters():
        expected = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        scale = max(
            float(expected.norm()),
            1e-3 * float(reference.embeddings.word_embeddings.weight.grad.norm()),
        )
        assert float((theirs[name] - expected).norm()) <= 1e-4 * scale, name


def test_pairs_carry_their_segments(tmp_path):
    reference = save_reference(tmp_path / "m", transformers.BertModel(reference_config(3)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    model = load(tmp_path / "m")
    pairs = [("the film was good", "a very long story"), ("bad plot", "the music")]
    for (first, second), ours in zip(pairs, model.hidden(pairs), strict=True):
        with torch.no_grad():
            theirs = (
                reference(**tokenizer(first, second, return_tensors="pt"))
                .last_hidden_state[0]
                .numpy()
            )
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


def test_saving_keeps_every_tensor_to_the_bit(tmp_path):
    reference = save_reference(tmp_path / "m", transformers.BertModel(reference_config(1)))
    load(tmp_path / "m").save(tmp_path / "again")
    again = transformers.BertModel.from_pretrained(tmp_path / "again")
    before = reference.state_dict()
    after = again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.config.to_dict().items() >= {"hidden_act": reference.config.hidden_act}.items()


@pytest.mark.parametrize(
    "problem", ["single_label_classification", "multi_label_classification", "regression"]
)
def test_published_classifiers_load_and_save_with_their_logits(tmp_path, problem):
    config = reference_config(5)
    config.num_labels = 1 if problem == "regression" else 3
    config.problem_type = problem
    reference = save_reference(tmp_path / "m", transformers.BertForSequenceClassification(config))
    model = load(tmp_path / "m")
    texts = ["the film was good", "a very dull story and a bad actor", "warm"]
    ours = model.logits(texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")

    def logits(network):
        with torch.no_grad():
            return np.concatenate(
                [network(**tokenizer(t, return_tensors="pt")).logits.numpy() for t in texts]
            )

    np.testing.assert_allclose(ours, logits(reference), atol=1e-5)
    model.save(tmp_path / "again")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "again"
    ).eval()
    np.testing.assert_allclose(ours, logits(again), atol=1e-5)
    np.testing.assert_array_equal(ours, load(tmp_path / "again").logits(texts))


def test_predictions_have_the_shape_of_the_pipelines(tmp_path):
    config = reference_config(6)
    config.id2label = {0: "neg", 1: "pos"}
    config.label2id = {"neg": 0, "pos": 1}
    save_reference(tmp_path / "m", transformers.BertForSequenceClassification(config))
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "m"), device="cpu")
    texts = ["the film was good", "a dull story"]
    for ours, theirs in zip(load(tmp_path / "m").predict(texts), pipe(texts), strict=True):
        assert ours["label"] == theirs["label"] and ours["score"] == pytest.approx(
            theirs["score"], abs=1e-5
        )
    for ours, theirs in zip(
        load(tmp_path / "m").predict(texts, top=None), pipe(texts, top_k=None), strict=True
    ):
        assert [each["label"] for each in ours] == [each["label"] for each in theirs]


def test_old_names_of_the_layer_norm(tmp_path):
    """google-bert/bert-base-uncased still stores gamma and beta."""
    from safetensors.torch import load_file, save_file

    save_reference(tmp_path / "m", transformers.BertModel(reference_config(2)))
    before = load(tmp_path / "m").hidden(["the film"])
    file = tmp_path / "m" / "model.safetensors"
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for n, t in load_file(file).items()
    }
    save_file(old, file)
    np.testing.assert_array_equal(before[0], load(tmp_path / "m").hidden(["the film"])[0])


@pytest.mark.parametrize(
    "key, value",
    [
        ("hidden_act", "swishish"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("hidden_size", "x"),
    ],
)
def test_configs_that_change_the_mathematics_are_refused(tmp_path, key, value):
    from langue.errors import ModelError

    tiny_bert(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ModelError, match=key):
        load(tmp_path / "m")

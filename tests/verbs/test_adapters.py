"""Runs that train adapters: what they keep, how they go on, and what is refused."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import langue
from langue.cli import run as command
from langue.errors import LangueWarning, ModelError, SettingsError
from langue.hub.checkpoint import describe, read_checkpoint
from langue.runs.adapters import adapt
from langue.runs.arguments import FINETUNE, resolve_call
from langue.runs.prepare import build, prepare
from langue.settings.sections import Settings
from langue.train.trainer import Trainer
from tests.contract.task_rows import CASES
from tests.contract.test_tasks import interrupted
from tests.tiny import SHORT, reviews, tiny_bert, write_jsonl
from tests.tiny_decoder import tiny_decoder

LORA = {**SHORT, "model.adapter": "lora", "train.lr": 0.01, "task.pooling": "first"}
TEXTS = [row["text"] for row in reviews(6, seed=1)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", reviews(60))


@pytest.fixture(scope="module")
def trained(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "lora"
    langue.finetune("classify", model=model, data=data, out=out, keep_checkpoints=True, **LORA)
    return out


def test_a_run_keeps_what_it_trained_and_no_more(trained, model):
    assert not (trained / "model.safetensors").exists()
    held = load_file(trained / "adapter_model.safetensors")
    assert {key.split(".")[-2] for key in held if "lora" in key} == {"lora_A", "lora_B"}
    newest = max(trained.glob("checkpoints/step-*"))
    kept = load_file(newest / "model.safetensors")
    assert kept and all(".parts." in key or key.startswith("head.") for key in kept)
    assert sum(t.numel() for t in kept.values()) == sum(t.numel() for t in held.values())
    said = langue.inspect(trained)
    assert said["adapter"]["trained"] == sum(t.numel() for t in held.values())
    whole = langue.inspect(model)
    # a gradient and two moments of each weight that is frozen, in fp32
    frozen = whole["parameters"] - said["adapter"]["trained"]
    saved = whole["memory"]["training"] - said["memory"]["training"]
    assert 10 * frozen < saved < 13 * frozen


def test_what_it_was_judged_by_is_what_it_gives(trained):
    metrics = json.loads((trained / "metrics.json").read_text())["metrics"]
    assert langue.evaluate(trained)["metrics"] == metrics


def test_adapters_are_switched_by_name(trained, model, data, tmp_path):
    other = tmp_path / "other"
    settings = {**LORA, "model.adapter": "ia3", "train.seed": 3, "task.pooling": "mean"}
    langue.finetune("classify", model=model, data=data, out=other, **settings)
    loaded = langue.load(trained)
    alone = loaded.logits(TEXTS)
    base_states = loaded.hidden(TEXTS)[0]
    loaded.add_adapter(other, "second")
    assert loaded.adapters == ["default", "second"] and loaded.adapter == "default"
    loaded.use_adapter("second")
    np.testing.assert_array_equal(loaded.logits(TEXTS), langue.load(other).logits(TEXTS))
    loaded.use_adapter(None)
    np.testing.assert_array_equal(loaded.hidden(TEXTS)[0], langue.load(model).hidden(TEXTS)[0])
    loaded.use_adapter("default")
    np.testing.assert_array_equal(loaded.logits(TEXTS), alone)
    np.testing.assert_array_equal(loaded.hidden(TEXTS)[0], base_states)
    with pytest.raises(ModelError, match="no adapter 'third'; known: 'default', 'second'"):
        loaded.use_adapter("third")
    with pytest.raises(ModelError, match="already"):
        loaded.add_adapter(other, "second")
    with pytest.raises(ModelError, match="no adapter"):
        loaded.add_adapter(model, "base")
    # one copy of the weights, whatever adapter is in use
    shared = {w.data_ptr() for w in loaded._parts[None].body.parameters()}
    for name in loaded.adapters:
        held = dict(loaded._parts[name].body.named_parameters())
        own = [n for n, w in held.items() if w.data_ptr() not in shared]
        assert own and all(".parts." in n for n in own)


def test_saved_and_merged(trained, tmp_path, capsys):
    loaded = langue.load(trained)
    loaded.save(tmp_path / "copy")
    np.testing.assert_array_equal(
        langue.load(tmp_path / "copy").logits(TEXTS), loaded.logits(TEXTS)
    )
    assert command(["convert", str(trained), str(tmp_path / "merged"), "--merge"]) == 0
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    merged = langue.load(tmp_path / "merged")
    assert np.abs(merged.logits(TEXTS) - loaded.logits(TEXTS)).max() < 1e-5
    assert merged.predict(TEXTS)[0]["label"] == loaded.predict(TEXTS)[0]["label"]
    assert command(["convert", str(trained), str(tmp_path / "no")]) == 2
    assert "--merge" in capsys.readouterr().err
    assert command(["convert", str(tmp_path / "merged"), str(tmp_path / "no"), "--merge"]) == 2


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.model == "encoder"])
def test_every_task_trains_adapters_and_loads_again(name, model, tmp_path):
    case = CASES[name]
    rows = write_jsonl(tmp_path / "train.jsonl", case.rows(24))
    settings = {**SHORT, "model.adapter": "lora", **case.settings}
    run = langue.finetune(case.task, model=model, data=rows, out=tmp_path / "run", **settings)
    kept = run.metrics["metrics"]
    found = langue.evaluate(tmp_path / "run")["metrics"]
    assert found == kept


def run_of(call, folder):
    prepared = prepare(call)
    network = build(prepared)
    source = prepared.task.batches(prepared.train, prepared.settings)
    return Trainer(network, prepared.task, source, prepared.dev, prepared.settings.train, folder)


@pytest.mark.parametrize("settings", [{"model.lora_dropout": 0.2}, {"model.adapter": "dora"}])
def test_a_killed_run_goes_on_exactly(settings, model, data, tmp_path):
    words = {**LORA, "train.epochs": 3, "train.checkpoint_every": 3, **settings}
    call = resolve_call(FINETUNE, {}, {"model": model, "data": data}, words)
    whole = run_of(call, tmp_path / "whole")
    whole.run()
    stopped = run_of(call, tmp_path / "stopped")
    stopped.objective.forward = partial(interrupted, stopped.objective.forward, [5])
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = run_of(call, tmp_path / "stopped")
    resumed.run(resume=True)
    began = dict(run_of(call, tmp_path / "other").model.named_parameters())
    moved = 0
    pairs = zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True)
    for (name, expected), found in pairs:
        assert torch.equal(expected, found)
        moved += not torch.equal(expected, began[name])
        assert expected.requires_grad or torch.equal(expected, began[name])
    assert moved > 4


@pytest.mark.parametrize("held", ["int8", "int4"])
def test_an_adapter_beside_a_base_in_few_bits(held, model, data, tmp_path):
    out = tmp_path / "run"
    run = langue.finetune(
        "classify", model=model, data=data, out=out, **LORA, **{"model.base_weights": held}
    )
    loaded = langue.load(out)
    assert loaded.weights == held
    assert langue.evaluate(out)["metrics"] == run.metrics["metrics"]
    plain = langue.load(out, weights="fp32").logits(TEXTS)
    assert 0 < np.abs(loaded.logits(TEXTS) - plain).max() < 1
    with pytest.warns(LangueWarning, match=f"trained beside its base in {held}"):
        langue.convert(out, tmp_path / "merged", merge=True)
    merged = langue.load(tmp_path / "merged").logits(TEXTS)
    assert np.abs(merged - plain).max() < 1e-5


def test_a_base_that_has_grown_is_refused(model):
    checkpoint = read_checkpoint(describe(model))
    config = replace(checkpoint.config, vocab_size=checkpoint.config.vocab_size + 1)
    with pytest.raises(SettingsError, match="has grown from 200 to 201 tokens"):
        adapt(nn.Linear(1, 1), replace(checkpoint, config=config), Settings())


def test_a_decoder_and_parts_that_are_frozen(data, tmp_path):
    base = tiny_decoder(tmp_path / "base", "llama, tied")
    out = tmp_path / "run"
    settings = {**SHORT, "model.freeze": "embeddings,0"}
    langue.finetune("classify", model=base, data=data, out=out, keep_checkpoints=True, **settings)
    before = load_file(base / "model.safetensors")
    after = load_file(out / "model.safetensors")
    same = {name for name in before if name in after and torch.equal(before[name], after[name])}
    assert "model.embed_tokens.weight" in same
    assert {n for n in before if ".layers.0." in n} <= same
    assert not {n for n in before if ".layers.1." in n and "proj" in n} & same
    kept = load_file(max(out.glob("checkpoints/step-*")) / "model.safetensors")
    assert not [name for name in kept if ".blocks.0." in name or ".token." in name]


WRONG = [
    ({"model.lora_targets": "q_proj"}, "q_proj is no linear map of the model; it has: .*query"),
    ({"model.lora_rank": 33}, "lora_rank = 33 is no rank of .*query, which is 32 x 32"),
    ({"model.freeze": "embeddings"}, "does nothing beside model.adapter"),
    ({"model.adapter": None, "model.lora_rank": 4}, "lora_rank is of model.adapter"),
    ({"model.adapter": "prefix"}, "model.adapter = 'prefix'"),
    ({"model.adapter": None, "model.freeze": "0-7"}, "0-7 is no part of the model"),
    ({"model.lora_rank": 0}, "model.lora_rank"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_settings_that_cannot_be(settings, said, model, data, tmp_path):
    with pytest.raises(SettingsError, match=said):
        langue.finetune("classify", model=model, data=data, out=tmp_path / "run", **LORA | settings)
    assert not (tmp_path / "run").exists()


def test_a_preview_refuses_parts_that_the_model_lacks(model, data):
    with pytest.raises(SettingsError, match="0-7 is no part of the model"):
        langue.preview("classify", model=model, data=data, **{"model.freeze": ("0-7",)})


def test_targets_may_be_what_the_error_names(model, data, tmp_path):
    """Its advice works word for word."""
    settings = {**LORA, "model.lora_targets": "attention.self.query,output.dense"}
    run = langue.finetune("classify", model=model, data=data, out=tmp_path / "run", **settings)
    assert "6 linear maps" in run.facts["trained"]


def test_a_base_that_has_changed_is_told(data, tmp_path):
    base = tiny_bert(tmp_path / "base")
    run = tmp_path / "run"
    langue.finetune("classify", model=base, data=data, out=run, **LORA)
    expected = langue.load(run).logits(TEXTS)
    shutil.copytree(base, tmp_path / "copy")
    tensors = load_file(base / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="has changed since it was trained") as told:
        langue.load(run)
    assert str(tmp_path / "run" / "adapter_config.json") in str(told.value)
    # as it says
    config = json.loads((run / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "copy")
    (run / "adapter_config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(langue.load(run).logits(TEXTS), expected)
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(ModelError, match="the base of the adapter, .*copy: no such model folder"):
        langue.load(run)


def test_an_adapter_of_an_adapter_is_merged_first(trained, data, tmp_path):
    with pytest.raises(ModelError, match="is an adapter already.*--merge"):
        langue.finetune("classify", model=trained, data=data, out=tmp_path / "run", **LORA)
    # all its weights may be trained further
    settings = {**SHORT, "task.pooling": "first"}
    langue.finetune("classify", model=trained, data=data, out=tmp_path / "run", **settings)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_with_a_model_and_an_adapter_is_refused(trained, model, tmp_path):
    shutil.copytree(trained, tmp_path / "both")
    shutil.copy(model / "model.safetensors", tmp_path / "both")
    with pytest.raises(ModelError, match="holds a model .* and an adapter"):
        langue.load(tmp_path / "both")


@pytest.mark.parametrize("held", [None, "int8"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_task_that_writes(kind, held, tmp_path):
    base = tiny_decoder(tmp_path / "base", kind)
    texts = [row["text"] for row in reviews(30)]
    rows = [{"source": text[:20], "target": text[:8]} for text in texts]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    settings = {**SHORT, "model.adapter": "lora", "model.base_weights": held}
    out = tmp_path / "run"
    run = langue.finetune("seq2seq", model=base, data=data, out=out, **settings)
    assert langue.evaluate(out)["metrics"] == run.metrics["metrics"]
    loaded = langue.load(out)
    assert loaded.weights == held and loaded.predict(["the film"])
    loaded.use_adapter(None)
    assert loaded.task is None


def test_a_language_model_with_an_adapter(tmp_path):
    base = tiny_decoder(tmp_path / "base", "llama")
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(["the ball is in the web and the others are there"] * 100))
    settings = {
        **{"model.adapter": "lora", "model.lora_targets": "all-linear", "train.max_steps": 4},
        **{"data.seq_len": 32, "train.batch_tokens": 256, "data.dev_fraction": 0.2},
    }
    run = langue.pretrain(model=base, data=text, out=tmp_path / "run", **settings)
    assert langue.evaluate(tmp_path / "run")["metrics"] == run.metrics["metrics"]
    loaded = langue.load(tmp_path / "run")
    said = loaded.generate(["the ball"], max_tokens=6)
    langue.convert(tmp_path / "run", tmp_path / "merged", merge=True)
    assert langue.load(tmp_path / "merged").generate(["the ball"], max_tokens=6) == said
    loaded.use_adapter(None)
    assert (
        loaded.logits(["the ball"])[0].tolist()
        == langue.load(base).logits(["the ball"])[0].tolist()
    )
    with pytest.raises(SettingsError, match="name it with --model"):
        langue.pretrain(data=text, out=tmp_path / "new", **settings)

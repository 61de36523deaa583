"""Adapters beside PEFT's own: what it writes gives the same logits here, and what is written here
gives the same there."""

import json
import re

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import langue
from langue import load
from langue.errors import ModelError
from langue.hub.adapters import default_targets
from langue.hub.families.registry import FAMILIES
from langue.verbs.convert import convert
from tests.contract.references import REFERENCES, draw_config
from tests.contract.task_rows import CASES
from tests.contract.test_families import (
    CLASSIFIERS,
    close,
    draw_classifier,
    inputs,
    save,
    saved,
    theirs,
)
from tests.tiny import SHORT, reviews, tiny_bert, write_jsonl

peft = pytest.importorskip("peft")

METHODS = {
    "lora": lambda: peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear"),
    "rslora": lambda: peft.LoraConfig(
        r=2, lora_alpha=5, target_modules="all-linear", use_rslora=True
    ),
    "dora": lambda: peft.LoraConfig(r=2, target_modules="all-linear", use_dora=True),
}


# transformers 5 calls its modules otherwise than its files do; ours are the files' names, which are
# those of the code that was published with it
RENAMED = {"nomic_bert"}


def scattered(model, seed=0):
    """With adapters that change what it gives."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name or "ia3_" in name:
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return model.eval()


def with_adapter(tmp_path, name, config):
    """PEFT's model on one of this family, and the folders of the base and of the adapter."""
    base = saved(tmp_path / "base", name, 0)
    made = getattr(transformers, REFERENCES[name][1])
    return on_base(base, made.from_pretrained(base, attn_implementation="eager"), config)


def on_base(base, reference, config):
    """The same on a model that was read from this folder."""
    adapted = scattered(peft.get_peft_model(reference, config))
    adapted.save_pretrained(base.parent / "adapter")
    return adapted, base, base.parent / "adapter"


def check_language_model(adapted, base, folder):
    model = load(folder)
    ids = [each[-2:] for each in inputs(model, 1)]  # the longest
    with torch.no_grad():
        expected = [each.numpy() for each in theirs(adapted, *ids)]
    assert all(map(close, model.logits(*ids), expected))
    plain = load(base).logits(*ids)
    assert not close(plain[-1], expected[-1])
    model.use_adapter(None)
    assert all(np.array_equal(a, b) for a, b in zip(model.logits(*ids), plain, strict=True))
    convert(folder, folder.parent / "merged", merge=True)
    assert all(map(close, load(folder.parent / "merged").logits(*ids), expected))


ADAPTED = [
    (name, method)
    for name in FAMILIES
    for method in METHODS
    if name not in RENAMED and (method != "rslora" or name in ("bert", "gpt2"))
]


@pytest.mark.parametrize(("name", "method"), ADAPTED)
def test_adapters_on_all_linear_layers_of_every_family(tmp_path, name, method):
    config = METHODS[method]()
    # where PEFT adapts the experts too, which are no maps
    if name in ("mixtral", "qwen3_moe", "gpt_oss"):
        config.target_modules = ["q_proj", "k_proj", "v_proj", "o_proj"]
    check_language_model(*with_adapter(tmp_path, name, config))


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "gpt2", "gpt_neox", "bloom", "llama", "mistral", "t5", "bart"]
)
def test_ia3_of_what_peft_takes_by_default(tmp_path, name):
    check_language_model(*with_adapter(tmp_path, name, peft.IA3Config()))


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name not in RENAMED])
def test_a_classifier_that_peft_trained(tmp_path, name):
    """Its head is saved as a whole; the base has none of its own, or another one."""
    pooling = next(iter(FAMILIES[name].poolings))
    reference = draw_classifier(name, pooling)
    config = peft.LoraConfig(r=2, task_type="SEQ_CLS", target_modules=attention_of(reference))
    base = save(tmp_path / "base", reference)
    read = type(reference).from_pretrained(base, attn_implementation="eager")
    adapted, _, _ = on_base(base, read, config)
    for key, weight in adapted.named_parameters():
        if "modules_to_save" in key:
            weight.data += 0.1
    adapted.save_pretrained(tmp_path / "adapter")
    ids = [[5, 6, 7], [8, 9, 10, 11]]
    with torch.no_grad():
        expected = [adapted(input_ids=torch.tensor([each])).logits[0].numpy() for each in ids]
    model = load(tmp_path / "adapter")
    assert close(model.logits(ids), np.stack(expected))
    assert not close(load(base).logits(ids), np.stack(expected))


def attention_of(reference):
    family = FAMILIES[reference.config.model_type]
    return list(default_targets(family, family.read(reference.config.to_dict()), "lora")[0])


def ends(names):
    return {name.rpartition("mlp.")[2] for name in names}


def test_defaults_are_those_of_peft():
    from peft.utils import constants

    lora = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    ia3 = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    inputs_of = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    seen = 0
    for name, family in FAMILIES.items():
        config = family.read(draw_config(name, 0).to_dict())
        if name in lora:
            ours = set(default_targets(family, config, "lora")[0])
            # PEFT adapts the feed-forward of Phi too, and of no other model in its table.
            assert ours == set(lora[name]) - ({"fc1", "fc2"} if name == "phi" else set()), name
            seen += 1
        if name in ("bert", "roberta", "gpt2", "bloom", "gpt_neox", "llama", "mistral", "t5"):
            targets, scaled = default_targets(family, config, "ia3")
            assert ends(targets) == ends(ia3[name]) and ends(scaled) == ends(inputs_of[name]), name
    assert seen > 10


RUNS = {
    "lora": {"model.adapter": "lora"},
    "rslora, all maps": {
        **{"model.adapter": "lora", "model.rslora": True, "model.lora_targets": "all-linear"},
        **{"model.lora_rank": 4, "model.lora_dropout": 0.1},
    },
    "dora": {"model.adapter": "dora", "model.lora_targets": "dense,query"},
    "ia3": {"model.adapter": "ia3"},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_opens_with_peft(tmp_path, name):
    base = tiny_bert(tmp_path / "bert")
    data = write_jsonl(tmp_path / "train.jsonl", reviews(40))
    run = tmp_path / "run"
    settings = {**SHORT, "train.epochs": 3, "task.pooling": "first", **RUNS[name]}
    langue.finetune("classify", model=base, data=data, out=run, **settings)
    model = load(run)
    texts = [row["text"] for row in reviews(6, seed=1)]
    opened = peft.AutoPeftModelForSequenceClassification.from_pretrained(run).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = opened(**batch).logits.numpy()
    assert np.abs(model.logits(texts) - expected).max() < 1e-5
    names = {key for key in load_file(run / "adapter_model.safetensors")}
    opened.save_pretrained(tmp_path / "again")
    assert names == set(load_file(tmp_path / "again" / "adapter_model.safetensors"))
    model.use_adapter(None)
    assert model.task is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [("tag", {}), ("extract", {}), ("regress", {"task.pooling": "first"})],
)
def test_a_run_of_other_tasks_opens_with_peft_as_it_says(tmp_path, name, settings):
    base = tiny_bert(tmp_path / "bert")
    data = write_jsonl(tmp_path / "train.jsonl", CASES[name].rows(24))
    run = tmp_path / "run"
    words = {**SHORT, **CASES[name].settings, **settings, "model.adapter": "lora"}
    said = langue.finetune(name, model=base, data=data, out=run, **words).facts["transformers"]
    kind, labels = re.search(
        r"(\w+)\.from_pretrained\(FOLDER(?:, num_labels=(\d+))?\)", said
    ).groups()
    more = {"num_labels": int(labels)} if labels else {}
    opened = getattr(peft, kind).from_pretrained(run, **more).eval()
    model = load(run)
    ids = [[2, 7, 9, 11, 3], [2, 20, 3]]
    for each, ours in zip(ids, model.logits(ids), strict=True):
        with torch.no_grad():
            out = opened(input_ids=torch.tensor([each]))
        theirs_ = (
            out.logits[0]
            if "logits" in out
            else torch.stack([out.start_logits[0], out.end_logits[0]], dim=-1)
        )
        assert np.abs(ours - theirs_.numpy()).max() < 1e-5


def test_three_labels_open_with_peft(tmp_path):
    base = tiny_bert(tmp_path / "bert")
    rows = [row | {"label": "abc"[i % 3]} for i, row in enumerate(reviews(30))]
    data = write_jsonl(tmp_path / "train.jsonl", rows)
    run = tmp_path / "run"
    words = {**SHORT, "task.pooling": "first", "model.adapter": "dora"}
    said = langue.finetune("classify", model=base, data=data, out=run, **words).facts
    assert (
        "AutoPeftModelForSequenceClassification.from_pretrained(FOLDER, num_labels=3)"
        in (said["transformers"])
    )
    opened = peft.AutoPeftModelForSequenceClassification.from_pretrained(run, num_labels=3).eval()
    ids = [2, 7, 9, 11, 3]
    with torch.no_grad():
        expected = opened(input_ids=torch.tensor([ids])).logits.numpy()
    assert np.abs(load(run).logits([ids]) - expected).max() < 1e-5


def test_a_head_that_no_class_has_opens_as_a_body(tmp_path):
    base = tiny_bert(tmp_path / "bert")
    data = write_jsonl(tmp_path / "train.jsonl", reviews(40))
    run = tmp_path / "run"
    settings = {**SHORT, "task.pooling": "mean", "model.adapter": "lora"}
    langue.finetune("classify", model=base, data=data, out=run, **settings)
    opened = peft.AutoPeftModelForFeatureExtraction.from_pretrained(run).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    model = load(run)
    texts = ["it was good", "a dull plot and a poor scene"]
    for text, ours in zip(texts, model.hidden(texts), strict=True):
        with torch.no_grad():
            states = opened(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert np.abs(ours - states.numpy()).max() < 1e-5
    with pytest.raises(ValueError, match="FeatureExtraction"):
        peft.AutoPeftModelForSequenceClassification.from_pretrained(run)


@pytest.mark.parametrize(
    ("name", "key", "value", "said"),
    [
        ("another kind", "peft_type", "PREFIX_TUNING", "is not read here"),
        ("biases", "bias", "all", "is not read here"),
        ("no base", "base_model_name_or_path", None, "does not say of which model"),
        ("a pattern without end", "alpha_pattern", {"(a+)+$": 3}, "is not followed here"),
        ("no pattern", "alpha_pattern", {"(": 3}, "cannot be followed"),
        ("no number", "lora_alpha", "many", "cannot be followed"),
        ("a changed base", "init_lora_weights", "pissa", "has changed the base"),
    ],
)
def test_what_is_not_read_is_one_line(tmp_path, name, key, value, said):
    _, _, folder = with_adapter(tmp_path, "bert", METHODS["lora"]())
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ModelError, match=said):
        load(folder)


def test_patterns_of_ranks_and_scales(tmp_path):
    config = peft.LoraConfig(
        r=2,
        lora_alpha=4,
        target_modules=["query", "value"],
        rank_pattern={"value": 3},
        alpha_pattern={".*layer.0.attention.self.query": 9},
    )
    check_language_model(*with_adapter(tmp_path, "bert", config))


def test_an_adapter_of_another_base_is_refused(tmp_path):
    _, _, folder = with_adapter(tmp_path, "bert", METHODS["lora"]())
    other = saved(tmp_path / "other", "bert", 3)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(other)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="of another base"):
        load(folder)


def test_a_tensor_that_is_of_nothing_is_an_error(tmp_path):
    _, _, folder = with_adapter(tmp_path, "bert", METHODS["lora"]())
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    some = next(key for key in tensors if key.endswith("lora_B.weight"))
    wrong = {key: t for key, t in tensors.items() if key != some}
    save_file(wrong, file, {"format": "pt"})
    with pytest.raises(ModelError, match="b is missing"):
        load(folder)
    save_file(tensors | {"base_model.model.bert.nobody.weight": torch.ones(2)}, file)
    with pytest.raises(ModelError, match="nobody.weight is no weight of it"):
        load(folder)

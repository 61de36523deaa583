"""What we write, opened elsewhere: by the Auto classes, pipelines and collator of `transformers`, and, where it is a
causal model, by the loader of lm-evaluation-harness. They give our numbers, in batches, or refuse with a message."""

import json

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, processors

from langue.data.batch import gather
from langue.generate.sample import examples_of
from langue.hub.checkpoint import describe, load_into, read_checkpoint, usable
from langue.hub.families import FAMILIES
from langue.settings import DataSettings, TaskSettings
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.tasks.task import TaskModel
from langue.text.vocabulary import QWEN2, by_words
from langue.verbs.convert import convert
from langue.verbs.model import load
from langue.verbs.save import head_of, write_task_checkpoint
from tests.contract import references
from tests.contract.references import draw_model
from tests.contract.test_families import CLASSIFIERS, POOLINGS, close

TEXTS = ["the cat", "a longer text than", "cat and dog"]
CONTROLS = ["<a>", "<b>", "<c>", "<d>"]  # which are special for what the config says, not for what they are called
every_family = pytest.mark.parametrize("name", FAMILIES)
AUTO = {
    "decoder": transformers.AutoModelForCausalLM,
    "encoder": transformers.AutoModelForMaskedLM,
    "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
}


def write_tokenizer(folder, name):
    """Bytes, a word after the other, and no word about what is special; as Qwen2's class would cut them for Qwen2."""
    tokens = [*CONTROLS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [("t", "h")]))
    qwen = name == "qwen2"  # whose class version 5 of transformers takes, whatever a folder says
    backend.pre_tokenizer = by_words(QWEN2) if qwen else pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.normalizer = tokenizers.normalizers.NFC() if qwen else None
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.add_special_tokens(CONTROLS)
    backend.save(str(folder / "tokenizer.json"))
    return len(tokens)


def published(folder, name, monkeypatch, pads=True):
    """A folder of the family whose config alone says which tokens are special. pads: whether it has one for padding."""
    folder.mkdir()
    monkeypatch.setattr(references, "VOCABULARY", write_tokenizer(folder, name))
    draw_model(name, 0).save_pretrained(folder)
    if not pads:
        for file in (folder / "config.json", folder / "generation_config.json"):
            if file.is_file():
                file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": None}))
    return folder


def ids_of(tokenizer):
    return {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}


def assert_special_tokens_agree(folder):
    """The tokenizer, the config and what is generated with name the same tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    files = [config]
    if (folder / "generation_config.json").is_file():
        files.append(transformers.GenerationConfig.from_pretrained(folder))
    for role, index in ids_of(tokenizer).items():
        assert index is not None, role
        for each in files:
            told = getattr(each, f"{role}_token_id")
            assert told is None or index == told or index in (told if isinstance(told, list) else []), (role, each)
    if config.architectures[0].endswith(("CausalLM", "LMHeadModel")):
        assert files[-1].pad_token_id == tokenizer.pad_token_id
    return tokenizer


@every_family
@pytest.mark.parametrize("pads", [True, False])
def test_a_converted_model_opens_in_batches(tmp_path, monkeypatch, name, pads):
    if not pads and name in ("roberta", "xlm-roberta", "camembert"):  # whose positions begin after the padding's number
        pads = True
    model = load(convert(published(tmp_path / "m", name, monkeypatch, pads), tmp_path / "out"))
    folder = tmp_path / "out"
    tokenizer = assert_special_tokens_agree(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<b>", "<c>")
    assert [each.ids for each in model.tokenizer.encode_batch(TEXTS)] == tokenizer(TEXTS)["input_ids"]
    tokenizer.padding_side = "right"
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    body = transformers.AutoModel.from_pretrained(folder).eval()
    whole = AUTO[model.config.architecture].from_pretrained(folder).eval()
    with torch.no_grad():
        if model.config.architecture == "encoder-decoder":
            states = body.get_encoder()(**batch).last_hidden_state
            logits = whole(**batch, decoder_input_ids=batch["input_ids"][:, :4]).logits
            ours = model.logits(TEXTS_IDS(model), [each[:4] for each in TEXTS_IDS(model)])
        else:
            states = body(**batch).last_hidden_state
            logits = whole(**batch).logits
            ours = model.logits(TEXTS)
    for row, hidden in enumerate(model.hidden(TEXTS)):
        np.testing.assert_allclose(states[row, : len(hidden)].numpy(), hidden, atol=2e-4, rtol=2e-4)
        np.testing.assert_allclose(logits[row, : len(ours[row])].numpy(), ours[row], atol=5e-4, rtol=5e-4)


def TEXTS_IDS(model):
    return [each.ids for each in model.tokenizer.encode_batch(TEXTS)]


def loglikelihoods(folder, requests):
    """As lm-evaluation-harness computes them, given nothing but the folder."""
    harness = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=2)
    instances = [Instance("loglikelihood", {}, request, i) for i, request in enumerate(requests)]
    return [score for score, _ in harness.loglikelihood(instances, disable_tqdm=True)]


def our_loglikelihood(model, context, continuation):
    """The same from our logits; an empty context is the token that texts begin with."""
    encode = model.tokenizer.backend.encode
    begin = model.tokenizer.backend.token_to_id("<b>")
    before = encode(context, add_special_tokens=False).ids if context else [begin]
    whole = encode(context + continuation, add_special_tokens=False).ids if context else before + encode(
        continuation, add_special_tokens=False
    ).ids
    logits = torch.from_numpy(model.logits([whole[:-1]])[0]).log_softmax(-1)
    return sum(float(logits[i - 1, whole[i]]) for i in range(len(before), len(whole)))


REQUESTS = [("the cat", " and dog"), ("a", " longer text"), ("", "cat")]
DECODERS = [name for name, family in FAMILIES.items() if any("CausalLM" in c or "LMHead" in c for c in family.architectures.values())]


@pytest.mark.parametrize("name", DECODERS)
def test_lm_evaluation_harness_scores_a_converted_decoder_as_we_do(tmp_path, monkeypatch, name):
    model = load(convert(published(tmp_path / "m", name, monkeypatch, pads=False), tmp_path / "out"))
    ours = [our_loglikelihood(model, *request) for request in REQUESTS]
    np.testing.assert_allclose(loglikelihoods(tmp_path / "out", REQUESTS), ours, rtol=1e-3)


def run_of(folder, run, pooling, task):
    """A run of a task whose head is new, none of its weights at its default."""
    task.settings = TaskSettings(pooling=pooling)
    described = describe(folder)
    checkpoint = read_checkpoint(described, head_of(task, described))
    network = TaskModel(checkpoint.config, task, seed=1, pad=checkpoint.batch_pad).eval()
    load_into(network, usable(checkpoint.weights), where=str(folder), new="head.")
    for weight in network.head.parameters():
        weight.data.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)))
    run.mkdir()
    write_task_checkpoint(run, checkpoint, task, dict(network.named_parameters()), DataSettings(), pairs=False)
    return network


@pytest.mark.parametrize("name, pooling", POOLINGS)
@pytest.mark.parametrize("pads", [True, False])
def test_a_run_passes_the_pipeline_and_the_collator_in_batches(tmp_path, monkeypatch, name, pooling, pads):
    if not pads and name in ("roberta", "xlm-roberta", "camembert"):
        pads = True
    folder = published(tmp_path / "m", name, monkeypatch, pads)
    run_of(folder, tmp_path / "run", pooling, Classify(["x", "y", "z"], TaskSettings()))
    model = load(tmp_path / "run")
    tokenizer = assert_special_tokens_agree(tmp_path / "run")
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "run"), batch_size=3, device="cpu")
    found = classify(TEXTS, top_k=None)
    for theirs, ours in zip(found, model.predict(TEXTS, top=None), strict=True):
        assert [each["label"] for each in theirs] == [each["label"] for each in ours]
        np.testing.assert_allclose([e["score"] for e in theirs], [e["score"] for e in ours], atol=1e-4)
    batch = transformers.DataCollatorWithPadding(tokenizer)([tokenizer(text) for text in TEXTS])
    with torch.no_grad():
        logits = classify.model(**batch).logits.numpy()
    np.testing.assert_allclose(logits, model.logits(TEXTS), atol=2e-4, rtol=1e-3)


@every_family
@pytest.mark.parametrize("task", [Classify(["x", "y"], TaskSettings()), Regress(TaskSettings())])
def test_a_head_that_no_class_has_is_refused_there_and_its_body_is_not(tmp_path, monkeypatch, name, task):
    """By AutoModelForSequenceClassification and the pipeline, which would answer with a random head."""
    folder = published(tmp_path / "m", name, monkeypatch)
    pooling = "mean" if "mean" not in FAMILIES[name].poolings else "last"
    network = run_of(folder, tmp_path / "run", pooling, task)
    with pytest.raises((RuntimeError, ValueError), match="size|state dictionary|Unrecognized configuration class"):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    with pytest.raises((RuntimeError, ValueError)):
        transformers.pipeline("text-classification", model=str(tmp_path / "run"))
    model = load(tmp_path / "run")
    ids = TEXTS_IDS(model)
    with torch.no_grad():
        batch = gather(examples_of(ids), np.arange(len(ids)))
        outputs = network(batch).numpy()
    np.testing.assert_allclose(model.logits(ids)[batch.rows], outputs, atol=1e-5, rtol=1e-4)
    body = transformers.AutoModel.from_pretrained(tmp_path / "run").eval()
    encode = body.get_encoder() if body.config.is_encoder_decoder else body
    with torch.no_grad():
        for mine, each in zip(model.hidden(ids), ids, strict=True):
            assert close(mine, encode(torch.tensor([each])).last_hidden_state[0].numpy())
    model.save(tmp_path / "again")  # and so is what is saved of it
    with pytest.raises((RuntimeError, ValueError)):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    # A run that was written before has the body's names alone, and no empty tensor.
    weights = load_file(tmp_path / "run" / "model.safetensors")
    prefix = FAMILIES[name].prefix
    old = {key.removeprefix(prefix): weight for key, weight in weights.items() if weight.numel()}
    save_file(old, tmp_path / "run" / "model.safetensors", {"format": "pt"})
    np.testing.assert_allclose(load(tmp_path / "run").logits(ids), model.logits(ids), atol=1e-6)


def test_no_family_with_a_published_classifier_is_forgotten():
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES

    assert {name for name in FAMILIES if name in NAMES} == {name for name, f in FAMILIES.items() if f._guard}
    assert {*CLASSIFIERS} <= {*NAMES}

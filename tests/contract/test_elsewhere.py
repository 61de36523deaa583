"""Models saved by langue, opened by other libraries: by the Auto classes, pipelines and collator of
`transformers`, and causal models by the loader of lm-evaluation-harness. They give langue's
numbers, in batches, or refuse with a message."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, processors

from langue.data.batch import examples_of, gather
from langue.hub.checkpoint import describe, load_into, read_checkpoint, without_extra
from langue.hub.families.registry import FAMILIES
from langue.runs.model import load
from langue.runs.save import head_of, write_task_checkpoint
from langue.settings.sections import DataSettings
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.text.tokenizers.vocabulary import QWEN2, by_words
from langue.verbs.convert import convert
from langue.verbs.pretrain import pretrain
from tests.contract import references
from tests.contract.references import draw_model
from tests.contract.test_families import CLASSIFIERS, close

DECODING = ("CausalLM", "LMHeadModel")
TEXTS = ["the cat", "a longer text than", "cat and dog"]
# special because the config says so, not because of their names
CONTROLS = ["<a>", "<b>", "<c>", "<d>"]
DECODERS = [
    name for name, family in FAMILIES.items() if family.architectures["lm"].endswith(DECODING)
]


def _opened_by():
    """Return the result of `opened_by` of docs/generate.py, so that the table of docs/families.md
    is tested here."""
    file = Path(__file__).parents[2] / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", file)
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return {name: generate.opened_by(family) for name, family in FAMILIES.items()}


OPENED = _opened_by()
DECODERS = [name for name in FAMILIES if OPENED[name]["harness"]]


def write_tokenizer(folder, name):
    """Write a byte-level tokenizer that does not declare which tokens are special, pre-tokenized
    like Qwen2's class for Qwen2."""
    tokens = [*CONTROLS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    backend = tokenizers.Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, [("t", "h")])
    )
    # version 5 of transformers always uses its class, whatever a folder says
    qwen = name == "qwen2"
    backend.pre_tokenizer = (
        by_words(QWEN2) if qwen else pre_tokenizers.ByteLevel(add_prefix_space=False)
    )
    backend.normalizer = tokenizers.normalizers.NFC() if qwen else None
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.add_special_tokens(CONTROLS)
    backend.save(str(folder / "tokenizer.json"))
    return len(tokens)


@cache
def _published_files(name):
    with TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        folder = Path(made)
        patch.setattr(references, "VOCABULARY", write_tokenizer(folder, name))
        draw_model(name, 0).save_pretrained(folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def published(folder, name, pads=True):
    """Write a folder of the family in which only the config says which tokens are special; pads:
    whether there is a padding token."""
    folder.mkdir()
    for file, content in _published_files(name).items():
        (folder / file).write_bytes(content)
    if not pads:
        for file in (folder / "config.json", folder / "generation_config.json"):
            if file.is_file():
                file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token_id": None}))
    return folder


def ids_of(tokenizer):
    return {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}


def token_ids(model):
    return [each.ids for each in model.tokenizer.encode_batch(TEXTS)]


def assert_special_tokens_agree(folder):
    """Assert that the tokenizer, the config and the generation config name the same tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    files = [config]
    if (folder / "generation_config.json").is_file():
        files.append(transformers.GenerationConfig.from_pretrained(folder))
    for role, index in ids_of(tokenizer).items():
        if role != "pad" and not config.architectures[0].endswith(DECODING):
            continue
        assert index is not None, role
        for each in files:
            told = getattr(each, f"{role}_token_id")
            assert (
                told is None or index == told or index in (told if isinstance(told, list) else [])
            ), (role, each)
    if config.architectures[0].endswith(DECODING):
        assert files[-1].pad_token_id == tokenizer.pad_token_id
    return tokenizer


# Most published decoders have no padding token, and other models have one.
PADS = [(name, name not in DECODERS) for name in FAMILIES] + [("gpt2", True), ("bert", False)]


@pytest.mark.parametrize("name, pads", PADS)
def test_a_converted_model_opens_in_batches(tmp_path, name, pads):
    """Given only the folder, lm-evaluation-harness also scores it as langue does."""
    folder = convert(published(tmp_path / "m", name, pads), tmp_path / "out")
    tokenizer = assert_it_opens_in_batches(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<b>", "<c>")
    if name in DECODERS:
        assert_the_harness_scores_as_we_do(folder, tokenizer)


def assert_it_opens_in_batches(folder):
    """Assert that the Auto classes of its body and its language model give langue's tokens and
    numbers."""
    model = load(folder)
    tokenizer = assert_special_tokens_agree(folder)
    assert [each.ids for each in model.tokenizer.encode_batch(TEXTS)] == tokenizer(TEXTS)[
        "input_ids"
    ]
    tokenizer.padding_side = "right"
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    classes = [
        getattr(transformers, each) for each in OPENED[model.checkpoint.family.name]["classes"]
    ]
    body, whole = (each.from_pretrained(folder).eval() for each in classes)
    with torch.no_grad():
        if model.config.architecture == "encoder-decoder":
            states = body.get_encoder()(**batch).last_hidden_state
            logits = whole(**batch, decoder_input_ids=batch["input_ids"][:, :4]).logits
            ids = token_ids(model)
            ours = model.logits(ids, [each[:4] for each in ids])
        else:
            states = body(**batch).last_hidden_state
            logits = whole(**batch).logits
            ours = model.logits(TEXTS)
    for row, hidden in enumerate(model.hidden(TEXTS)):
        np.testing.assert_allclose(states[row, : len(hidden)].numpy(), hidden, atol=2e-4, rtol=2e-4)
        np.testing.assert_allclose(
            logits[row, : len(ours[row])].numpy(), ours[row], atol=5e-4, rtol=5e-4
        )
    return tokenizer


def loglikelihoods(folder, requests):
    """Return the results of lm-evaluation-harness, given only the folder."""
    harness = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=2)
    instances = [Instance("loglikelihood", {}, request, i) for i, request in enumerate(requests)]
    return [score for score, _ in harness.loglikelihood(instances, disable_tqdm=True)]


def our_loglikelihood(model, begin, context, continuation):
    """Return the same from langue's logits; begin: the token that texts begin with, used as an
    empty context."""
    encode = model.tokenizer.backend.encode
    before = encode(context, add_special_tokens=False).ids if context else [begin]
    whole = (
        encode(context + continuation, add_special_tokens=False).ids
        if context
        else before + encode(continuation, add_special_tokens=False).ids
    )
    logits = torch.from_numpy(model.logits([whole[:-1]])[0]).log_softmax(-1)
    return sum(float(logits[i - 1, whole[i]]) for i in range(len(before), len(whole)))


def assert_the_harness_scores_as_we_do(folder, tokenizer):
    model = load(folder)
    requests = [("the cat", " and dog"), ("a", " longer text"), ("", "cat")]
    ours = [our_loglikelihood(model, tokenizer.bos_token_id, *request) for request in requests]
    np.testing.assert_allclose(loglikelihoods(folder, requests), ours, rtol=1e-3)


RUNS_OF = [("causal", "langue"), ("causal", "gpt2"), ("masked", "bert"), ("denoise", "t5")]


@pytest.mark.parametrize("objective, preset", RUNS_OF)
def test_a_pretrained_run_opens_in_batches(tmp_path, objective, preset):
    sizes = {
        "model.dim": 32,
        "model.n_layers": 1,
        "model.n_heads": 2,
        "data.seq_len": 32,
        "model.preset": preset,
    }
    steps = {"train.max_steps": 1, "train.batch_tokens": 128, "tokenizer.vocab_size": 300}
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{' '.join(TEXTS)} {i} of these" for i in range(40)))
    run = pretrain(objective, data=text, out=tmp_path / "run", **sizes, **steps)
    tokenizer = assert_it_opens_in_batches(run.folder)
    if objective == "causal":
        assert_the_harness_scores_as_we_do(run.folder, tokenizer)


def run_of(folder, run, pooling, task):
    """Write a run of a task with a new head, none of whose weights has its default value."""
    task.settings = Classify.Options(pooling=pooling)
    described = describe(folder)
    checkpoint = read_checkpoint(described, head_of(task, described))
    network = task.network(checkpoint.config, seed=1, pad=checkpoint.batch_pad).eval()
    load_into(network, without_extra(checkpoint.weights), where=str(folder), new="head.")
    for weight in network.head.parameters():
        weight.data.add_(
            0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
        )
    run.mkdir()
    write_task_checkpoint(
        run, checkpoint, task, dict(network.named_parameters()), DataSettings(), pairs=False
    )
    return network


RUNS = [(name, pooling, pads) for name, pads in PADS for pooling in OPENED[name]["poolings"]]


@pytest.mark.parametrize("name, pooling, pads", RUNS)
def test_a_run_passes_the_pipeline_and_the_collator_in_batches(tmp_path, name, pooling, pads):
    folder = published(tmp_path / "m", name, pads)
    run_of(folder, tmp_path / "run", pooling, Classify(["x", "y", "z"], Classify.Options()))
    model = load(tmp_path / "run")
    tokenizer = assert_special_tokens_agree(tmp_path / "run")
    classify = transformers.pipeline(
        "text-classification", model=str(tmp_path / "run"), batch_size=3, device="cpu"
    )
    found = classify(TEXTS, top_k=None)
    for theirs, ours in zip(found, model.predict(TEXTS, top=None), strict=True):
        assert [each["label"] for each in theirs] == [each["label"] for each in ours]
        np.testing.assert_allclose(
            [e["score"] for e in theirs], [e["score"] for e in ours], atol=1e-4
        )
    batch = transformers.DataCollatorWithPadding(tokenizer)([tokenizer(text) for text in TEXTS])
    with torch.no_grad():
        logits = classify.model(**batch).logits.numpy()
    np.testing.assert_allclose(logits, model.logits(TEXTS), atol=2e-4, rtol=1e-3)


REFUSAL = "size|state dictionary|Unrecognized configuration class"
TASKS = {
    "classify": Classify(["x", "y"], Classify.Options()),
    "regress": Regress(Regress.Options()),
}


@pytest.mark.parametrize(
    "name, task", [*((name, "classify") for name in FAMILIES), ("bert", "regress")]
)
def test_a_head_that_no_class_has_is_refused_there_and_its_body_is_not(tmp_path, name, task):
    """AutoModelForSequenceClassification and the pipeline refuse it; otherwise they would predict
    with a random head."""
    folder = published(tmp_path / "m", name)
    *others, pooling = OPENED[name]["refused"]
    for other in others:
        run_of(folder, tmp_path / other, other, TASKS[task])
        with pytest.raises((RuntimeError, ValueError), match=REFUSAL):
            transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / other)
    network = run_of(folder, tmp_path / "run", pooling, TASKS[task])
    with pytest.raises((RuntimeError, ValueError), match=REFUSAL):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    with pytest.raises((RuntimeError, ValueError)):
        transformers.pipeline("text-classification", model=str(tmp_path / "run"))
    model = load(tmp_path / "run")
    ids = token_ids(model)
    with torch.no_grad():
        batch = gather(examples_of(ids), np.arange(len(ids)))
        outputs = network(batch).numpy()
    np.testing.assert_allclose(model.logits(ids)[batch.rows], outputs, atol=1e-5, rtol=1e-4)
    body = transformers.AutoModel.from_pretrained(tmp_path / "run").eval()
    encode = body.get_encoder() if body.config.is_encoder_decoder else body
    with torch.no_grad():
        for mine, each in zip(model.hidden(ids), ids, strict=True):
            assert close(mine, encode(torch.tensor([each])).last_hidden_state[0].numpy())
    model.save(tmp_path / "again")  # the model saved again is refused too
    with pytest.raises((RuntimeError, ValueError)):
        transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    # A run written by an earlier version has only the names of the body, and no empty tensor.
    weights = load_file(tmp_path / "run" / "model.safetensors")
    prefix = FAMILIES[name].prefix
    old = {key.removeprefix(prefix): weight for key, weight in weights.items() if weight.numel()}
    save_file(old, tmp_path / "run" / "model.safetensors", {"format": "pt"})
    np.testing.assert_allclose(load(tmp_path / "run").logits(ids), model.logits(ids), atol=1e-6)


def test_no_family_with_a_published_classifier_is_forgotten():
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES,
    )

    assert {name for name in FAMILIES if name in NAMES} == {
        name for name, f in FAMILIES.items() if f.guard("sequence")
    }
    assert {name for name in FAMILIES if OPENED[name]["poolings"]} == {*CLASSIFIERS} <= {*NAMES}

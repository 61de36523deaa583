"""Folders whose files contradict each other, or have a head of an unsupported kind."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import langue
from langue.errors import ModelError
from langue.hub.checkpoint import describe, read_checkpoint
from langue.runs.model import load
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.verbs.inspect import inspect

transformers = pytest.importorskip("transformers")

from tests.contract.references import draw_config, scattered  # noqa: E402
from tests.contract.test_families import close, save, saved, sequences, theirs  # noqa: E402
from tests.tiny import tiny_bert  # noqa: E402
from tests.tiny_decoder import tiny_decoder  # noqa: E402

HEADS = {
    "BertForQuestionAnswering": "bert",
    "BertForTokenClassification": "bert",
    "BertForNextSentencePrediction": "bert",
    "RobertaForTokenClassification": "roberta",
    "DistilBertForTokenClassification": "distilbert",
    "ElectraForPreTraining": "electra",
    "ModernBertForTokenClassification": "modernbert",
    "LlamaForTokenClassification": "llama",
    "LlamaForQuestionAnswering": "llama",
    "GPT2ForTokenClassification": "gpt2",
    "GPT2DoubleHeadsModel": "gpt2",
    "BartForSequenceClassification": "bart",
    "MBartForSequenceClassification": "mbart",
}


@pytest.mark.parametrize("stem", HEADS)
def test_a_head_of_another_kind_goes_along(tmp_path, stem):
    """langue uses its body, and the saved folder is that of the reference, including the head."""
    config = draw_config(HEADS[stem], 1)
    config.num_labels = 2 if stem.endswith("ForQuestionAnswering") else 5
    made = getattr(transformers, stem)
    reference = scattered(lambda: made(config), 0)
    folder = save(tmp_path / "m", reference)
    model = load(folder)
    tasks = {"ForTokenClassification": "tag", "ForQuestionAnswering": "extract"}
    task = next((tasks[ending] for ending in tasks if stem.endswith(ending)), None)
    assert (model.task.name if model.task else None) == task
    uses = {*inspect(folder)["uses"]}
    assert model.language is None
    assert uses & {"logits", "generate", "predict"} == ({"logits", "predict"} if task else set())
    if not model.config.decoder_layers:
        body = getattr(reference, reference.base_model_prefix)
        for mine, ids in zip(model.hidden(sequences(0)), sequences(0), strict=True):
            with torch.no_grad():
                assert close(mine, body(torch.tensor([ids])).last_hidden_state[0].numpy())
    model.save(tmp_path / "again")
    before = reference.state_dict()
    after = made.from_pretrained(tmp_path / "again").state_dict()
    assert before.keys() == after.keys() and all(
        torch.equal(before[key], after[key]) for key in before
    )
    # A model trained from it gets a new head, even if names are the same.
    checkpoint = read_checkpoint(describe(folder), head="sequence")
    assert not [name for name in checkpoint.weights if name.startswith("head.")]


def test_what_is_not_read_is_said_by_name(tmp_path):
    folder = save(tmp_path / "m", transformers.T5ForQuestionAnswering(draw_config("t5", 0)))
    with pytest.raises(ModelError, match="T5ForQuestionAnswering is not read here"):
        load(folder)


@pytest.mark.parametrize(("name", "stem"), [("t5", "T5EncoderModel"), ("mt5", "MT5EncoderModel")])
def test_an_encoder_alone(tmp_path, name, stem):
    made = getattr(transformers, stem)
    reference = scattered(lambda: made(draw_config(name, 2)), 0)
    folder = save(tmp_path / "m", reference)
    model = load(folder)
    assert model.config.architecture == "encoder" and model.language is None
    assert inspect(folder)["uses"] == ["hidden", "encode", "finetune"]
    for mine, ids in zip(model.hidden(sequences(0)), sequences(0), strict=True):
        with torch.no_grad():
            assert close(mine, reference(torch.tensor([ids])).last_hidden_state[0].numpy())
    assert [
        c["ok"]
        for c in langue.verify(folder)["checks"]
        if c["check"] == "logits beside transformers"
    ] == [True]
    model.save(tmp_path / "again")
    before = reference.state_dict()
    after = made.from_pretrained(tmp_path / "again").state_dict()
    assert before.keys() == after.keys() and all(
        torch.equal(before[key], after[key]) for key in before
    )


def changed(folder, file="config.json", **values):
    said = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps(said | values))
    return folder


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
CONFLICTS = {
    "a mask that looks ahead": ("llama", {"is_causal": False}, "is_causal = false"),
    "of GPT-2 too": ("gpt2", {"is_causal": False}, "is_causal = false"),
    "an encoder's": ("bert", {"is_causal": True}, "is_causal = true"),
    "two ropes": (
        "qwen2",
        {"rope_scaling": YARN},
        "rope_parameters and rope_scaling are both there",
    ),
    "a rope without scale": (
        "llama",
        {"rope_parameters": {"rope_type": "linear"}},
        "factor = None",
    ),
    "a part that turns": (
        "llama",
        {"rope_parameters": {"partial_rotary_factor": 0.5}},
        "partial_rotary_factor = 0.5",
    ),
    "windows stretched": ("modernbert", {"rope_scaling": YARN}, "rope_scaling"),
    "two activations": (
        "t5",
        {"feed_forward_proj": "relu", "dense_act_fn": "silu"},
        "dense_act_fn",
    ),
    "sums in slices": (
        "bloom",
        {"slow_but_exact": True, "pretraining_tp": 2},
        "pretraining_tp = 2",
    ),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_a_config_that_says_otherwise_is_refused(tmp_path, case):
    name, values, says = CONFLICTS[case]
    folder = saved(tmp_path / "m", name, 0)
    load(folder)
    with pytest.raises(ModelError, match=says):
        load(changed(folder, **values))


def test_yarn_without_a_factor_is_told_by_its_lengths(tmp_path):
    folder = saved(tmp_path / "m", "llama", 0)
    rope = YARN | {"factor": None, "rope_theta": 10000.0}
    changed(folder, rope_parameters=rope, max_position_embeddings=96)
    reference = transformers.LlamaForCausalLM.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        expected = list(theirs(reference, sequences(0)))
    assert all(
        close(mine, each.numpy())
        for mine, each in zip(load(folder).logits(sequences(0)), expected, strict=True)
    )


def test_a_tokenizer_with_a_token_that_no_text_has(tmp_path):
    """As in bart-large-cnn and Gemma 3: it loads, and the token is refused where it occurs."""
    folder = tiny_bert(tmp_path / "m")
    rows = load(folder).config.vocab_size
    words = (folder / "vocab.txt").read_text().splitlines()
    words += [f"unused{n}" for n in range(rows - len(words))] + ["beyond"]
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    model = load(folder)
    assert len(model.tokenizer) == rows + 1 and model.encode(["a film"]).shape == (
        1,
        model.config.dim,
    )
    with pytest.raises(
        ModelError, match=f"'beyond' the number {rows}; the model has {rows} tokens"
    ):
        model.encode(["a beyond"])


def test_tokens_that_files_beside_tokenizer_json_add(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    Tokenizer.load(folder).save(folder)
    size = len(Tokenizer.load(folder))
    entry = {
        "content": "<here>",
        "special": False,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
    }
    changed(
        folder,
        "tokenizer_config.json",
        added_tokens_decoder={str(size): entry},
        mask_token="<hidden>",
    )
    found = Tokenizer.load(folder).backend
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    for text in ("a <here> film", "a<here>film", "the <hidden> film"):
        assert found.encode(text).ids == reference(text)["input_ids"]
    assert (found.token_to_id("<here>"), found.token_to_id("<hidden>")) == (size, size + 1)
    changed(folder, "tokenizer_config.json", added_tokens_decoder={str(size + 7): entry})
    with pytest.raises(ModelError, match=f"'<here>' is to be token {size + 7} and is {size}"):
        Tokenizer.load(folder)


def test_how_bert_normalises_is_its_config_s_to_say(tmp_path):
    folder = tiny_bert(tmp_path / "m")
    Tokenizer.load(folder).save(folder)
    for values in ({"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}):
        changed(folder, "tokenizer_config.json", tokenizer_class="BertTokenizer", **values)
        reference = transformers.AutoTokenizer.from_pretrained(folder)
        for text in ("A Film", "ünd a FILM", "电影film"):
            assert (
                Tokenizer.load(folder).backend.encode(text).ids == reference(text)["input_ids"]
            ), text


def test_verify_tries_the_tokens_that_are_a_models_own(tmp_path, monkeypatch):
    folder = tiny_bert(tmp_path / "m")
    Tokenizer.load(folder).save(folder)
    entry = {
        "content": "<here>",
        "special": False,
        "normalized": False,
        "lstrip": False,
        "rstrip": False,
    }
    changed(
        folder,
        "tokenizer_config.json",
        added_tokens_decoder={str(len(Tokenizer.load(folder))): entry},
    )

    def beside():
        (found,) = [
            c for c in langue.verify(folder)["checks"] if c["check"] == "tokens beside transformers"
        ]
        return found

    assert beside()["ok"]
    monkeypatch.setattr("langue.text.tokenizers.declared.declare", lambda *_, **__: [])
    assert beside()["ok"] is False and "<here>" in beside()["detail"]


def test_a_gguf_answers_by_its_own_template(tmp_path):
    folder = tiny_decoder(tmp_path / "m", "llama")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }} {% endfor %}"
    )
    langue.convert(folder, tmp_path / "m.gguf", dtype="f32")
    talk = [{"role": "user", "content": "a b"}]
    assert (
        load(tmp_path / "m.gguf").tokenizer.chat(talk)
        == load(folder).tokenizer.chat(talk)
        == "a b "
    )


def test_weights_of_a_fp32_pickle_are_converted_as_they_are_read(tmp_path):
    folder = saved(tmp_path / "m", "llama", 0)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    expected = load(folder, dtype="bf16").logits(sequences(0))
    (folder / "model.safetensors").unlink()
    for mine, other in zip(load(folder, dtype="bf16").logits(sequences(0)), expected, strict=True):
        np.testing.assert_array_equal(mine, other)

"""A real published decoder, stories260K in llama2.c's format: its greedy text comes out word for
word."""

import os
import struct
from pathlib import Path

import pytest

from langue.errors import ModelError
from langue.runs.model import load

FOLDER = (
    Path(os.environ.get("LANGUE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "stories260K"
)
TEXT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high"
)
IDS = [403, 407, 261, 378, 432, 383, 286, 261, 376, 298]
here = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"no {FOLDER}: set LANGUE_DATA to the folder that has it"
)


@here
def test_the_greedy_text_word_for_word():
    model = load(FOLDER)
    (ids,) = model.generate([[1]], max_tokens=120)
    assert ids[: len(IDS)] == IDS
    assert model.tokenizer.decode(ids).startswith(TEXT)
    assert model.generate([""], max_tokens=90)[0] in model.tokenizer.decode(ids)
    (rest,) = model.generate(["Once upon a time, there was a"], max_tokens=20)
    assert TEXT.split("there was a")[1].strip().startswith(rest.strip()[:20])
    assert load(FOLDER / "stories260K.bin").generate([[1]], max_tokens=10)[0] == IDS


@here
def test_its_tokenizer_takes_back_what_it_wrote():
    tokenizer = load(FOLDER).tokenizer
    for text in (TEXT, "Tim's dog\nran 3 km…", "naïve 日本 👍"):
        (encoding,) = tokenizer.encode_batch([text])
        assert encoding.ids[0] == 1 and tokenizer.decode(encoding.ids) == text


@here
def test_as_a_llama_it_means_the_same_to_others(tmp_path):
    transformers = pytest.importorskip("transformers")
    import torch

    model = load(FOLDER)
    model.save(tmp_path / "llama")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llama").eval()
    (ours,) = model.logits([[1, *IDS]])
    with torch.no_grad():
        expected = reference(torch.tensor([[1, *IDS]])).logits[0].numpy()
    assert abs(ours - expected).max() < 1e-4
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "llama")("Once upon a time")[
        "input_ids"
    ]
    assert tokens == [1, *IDS[:5]][: len(tokens)]
    # Given nothing but the folder, lm-evaluation-harness scores it: bos, eos and padding have
    # names.
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=str(tmp_path / "llama"), device="cpu", dtype="float32", batch_size=2)
    named = harness.tokenizer
    assert (named.bos_token, named.eos_token, named.pad_token) == ("<s>", "</s>", "</s>")
    asked = [
        Instance("loglikelihood", {}, ("", TEXT), 0),
        Instance("loglikelihood", {}, ("Once upon", " a time"), 1),
    ]
    scores = harness.loglikelihood(asked, disable_tqdm=True)
    (whole,) = model.logits([TEXT])
    ids = model.tokenizer.encode_batch([TEXT])[0].ids
    logs = torch.from_numpy(whole).log_softmax(-1)
    assert scores[0][0] == pytest.approx(
        sum(float(logs[i, ids[i + 1]]) for i in range(len(ids) - 1)), rel=1e-4
    )
    assert scores[1][1]  # the greedy continuation
    assert load(tmp_path / "llama").generate([[1]], max_tokens=10)[0] == IDS


@here
def test_what_temperature_and_its_limits_do():
    model = load(FOLDER)
    first = model.generate([[1], [1, 403]], max_tokens=12, temperature=1.0, seed=1)
    assert first == model.generate([[1], [1, 403]], max_tokens=12, temperature=1.0, seed=1)
    assert first != model.generate([[1], [1, 403]], max_tokens=12, temperature=1.0, seed=2)
    assert model.generate([[1]], max_tokens=10, temperature=1.0, top_k=1) == [IDS]
    assert model.generate([[1]], max_tokens=10, temperature=1.0, top_p=1e-6) == [IDS]
    with pytest.raises(ModelError, match="top_p"):
        model.generate([[1]], top_p=0.0)


@pytest.mark.parametrize(
    "header",
    [
        (64, 172, 5, 8, 4, 512, 1 << 30),
        (1 << 30, 1 << 30, 1 << 30, 8, 4, 512, 512),
        (0,) * 7,
        (-1,) * 7,
        (),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header):
    (tmp_path / "m.bin").write_bytes(struct.pack(f"<{len(header)}i", *header) + b"\0" * 100)
    (tmp_path / "tok.bin").write_bytes(b"\0" * 40)
    with pytest.raises(ModelError):
        load(tmp_path)

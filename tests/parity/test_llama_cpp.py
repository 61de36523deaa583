"""Files that langue writes, run by llama.cpp: the same scores, the same tokens, the published text
word for word.

llama-cpp-python is compiled when it is installed, which takes minutes and a C++ compiler, so it is
no development dependency: `make test` skips these, and `make test-gguf`, which `.ci/run` calls,
compiles it and runs them all.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import langue
from langue.formats import gguf
from langue.hub.originals.gguf_tokenizer import RULES, from_metadata
from tests.tiny_decoder import (
    CONFIGS,
    TEXT,
    sentencepiece_tokenizer,
    tiny_decoder,
    trained_tokenizer,
)

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed: make test-gguf"
)

IDS = [0, 31, 200, 7, 7, 90, 258, 17, 3, 120, 55, 81, 201, 34, 5]
# llama.cpp keeps keys and values, and rounds what it multiplies
MOST = {"f32": 2e-3, "f16": 1e-2, "q8_0": 1e-1}
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    " One day, she saw a big, red ball. She wanted to play with it, but it was too high"
)


def opened(path, **more):
    return llama_cpp.Llama(
        str(path), n_ctx=more.pop("n_ctx", 64), n_threads=1, verbose=False, **more
    )


@pytest.mark.parametrize("dtype", MOST)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_scores(tmp_path, name, dtype):
    folder = tiny_decoder(tmp_path / "m", name)
    langue.convert(folder, tmp_path / "m.gguf", dtype=dtype)
    theirs = opened(tmp_path / "m.gguf", n_ctx=32, logits_all=True)
    theirs.eval(IDS)
    ours = langue.load(folder).logits([IDS])[0]
    scores = np.asarray(theirs.scores[: len(IDS)])
    assert scores.shape == ours.shape
    off = np.linalg.norm(scores - ours) / np.linalg.norm(ours)
    print(f"{name} {dtype}: {off:.2e}")
    assert off < MOST[dtype]


@pytest.mark.parametrize("dtype", MOST)
def test_the_published_text_word_for_word(tmp_path, shared_data, dtype):
    langue.convert(shared_data("stories260K"), tmp_path / "story.gguf", dtype=dtype)
    model = opened(tmp_path / "story.gguf", n_ctx=512)
    assert model("", max_tokens=74, temperature=0.0)["choices"][0]["text"].strip().startswith(STORY)
    beginning = "Once upon a time, there was a little girl"  # its tokens, too, are llama.cpp's own
    said = model(beginning, max_tokens=60, temperature=0.0)["choices"][0]["text"]
    assert (beginning + said).startswith(STORY)


def test_the_same_pieces(tmp_path, shared_data):
    ours = langue.load(shared_data("stories260K"))
    langue.convert(shared_data("stories260K"), tmp_path / "story.gguf")
    theirs = opened(tmp_path / "story.gguf")
    for text in (TEXT, "Once upon a time", " two  spaces", "a\nb"):
        assert (
            theirs.tokenize(text.encode(), add_bos=True) == ours.tokenizer.backend.encode(text).ids
        )


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_cuts_alike(tmp_path, prefix):
    tokenizer = sentencepiece_tokenizer(prefix)
    folder = tiny_decoder(
        tmp_path / "m", "llama", tokenizer, bos_token_id=1, eos_token_id=2, vocab_size=300
    )
    langue.convert(folder, tmp_path / "m.gguf")
    theirs = opened(tmp_path / "m.gguf")
    assert theirs.token_bos() == 1 and theirs.token_eos() == 2
    assert theirs.tokenize(TEXT.encode(), add_bos=True) == tokenizer.backend.encode(TEXT).ids


@pytest.mark.parametrize("rule", RULES)
def test_byte_level_cuts_alike(tmp_path, rule):
    make, whole = RULES[rule]
    tokenizer = trained_tokenizer(make(), whole)
    folder = tiny_decoder(tmp_path / "m", "gpt2", tokenizer, vocab_size=320, eos_token_id=1)
    langue.convert(folder, tmp_path / "m.gguf")
    theirs = opened(tmp_path / "m.gguf")
    assert theirs.tokenize(TEXT.encode(), add_bos=True) == tokenizer.backend.encode(TEXT).ids
    marked = "the<|im_end|> ball"
    assert (
        theirs.tokenize(marked.encode(), add_bos=True, special=True)
        == tokenizer.backend.encode(marked).ids
    )
    assert theirs.token_eos() == 1


@pytest.mark.parametrize(
    "name",
    [
        "llama-spm",
        "llama-bpe",
        "gpt-2",
        "qwen2",
        "phi-3",
        "starcoder",
        "refact",
        "command-r",
        "mpt",
    ],
)
def test_published_vocabularies(name):
    """llama.cpp's own test vectors: vocabularies as they were published, texts, and the ids that
    each must give."""
    if "LLAMA_CPP" not in os.environ:
        pytest.skip(
            "LLAMA_CPP does not name llama.cpp's source, which has the vocabularies: make test-gguf"
        )
    file = Path(os.environ["LLAMA_CPP"]) / "models" / f"ggml-vocab-{name}.gguf"
    tokenizer = from_metadata(gguf.read(file).metadata, str(file))
    texts = (
        file.with_name(file.name + ".inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    )
    wanted = [
        [int(i) for i in line.split()]
        for line in file.with_name(file.name + ".out").read_text().splitlines()
    ]
    assert [
        tokenizer.backend.encode(text, add_special_tokens=False).ids for text in texts
    ] == wanted

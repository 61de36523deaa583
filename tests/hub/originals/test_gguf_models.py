"""Models to GGUF and back, files that others wrote, and what is refused."""

import json
import time

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

import langue
from langue.cli import run
from langue.errors import LangueError, ModelError, SettingsError
from langue.formats import gguf
from langue.hub.originals.gguf_tokenizer import (
    LLAMA3,
    QWEN2,
    RULES,
    Vocabulary,
    from_metadata,
    to_metadata,
)
from langue.text.tokenizers.tokenizer import Tokenizer
from tests.tiny import tiny_bert
from tests.tiny_decoder import (
    CONFIGS,
    TEXT,
    VOCABULARY,
    sentencepiece_tokenizer,
    tiny_decoder,
    trained_tokenizer,
)

IDS = [[5, 9, 200, 31, 7], [3]]


@pytest.mark.parametrize("name", CONFIGS)
def test_there_and_back_bit_for_bit(tmp_path, name):
    folder = tiny_decoder(tmp_path / "m", name)
    langue.convert(folder, tmp_path / "m.gguf", dtype="f32")
    langue.convert(tmp_path / "m.gguf", tmp_path / "again")
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    ours = langue.load(folder)
    again = langue.load(tmp_path / "again")
    for mine, theirs in zip(ours.logits(IDS), again.logits(IDS), strict=True):
        assert np.array_equal(mine, theirs)
    assert again.tokenizer.backend.encode(TEXT).ids == ours.tokenizer.backend.encode(TEXT).ids
    assert again.checkpoint.ends == ours.checkpoint.ends == {0}


@pytest.mark.parametrize(("dtype", "most"), [("f16", 2e-3), ("q8_0", 5e-2)])
def test_narrower_numbers(tmp_path, dtype, most):
    folder = tiny_decoder(tmp_path / "m", "qwen2")
    langue.convert(folder, tmp_path / "m.gguf", dtype=dtype)
    ours, narrow = (langue.load(each).logits(IDS)[0] for each in (folder, tmp_path / "m.gguf"))
    assert 0 < np.linalg.norm(narrow - ours) < most * np.linalg.norm(ours)
    kinds = {name: stored.kind for name, stored in gguf.read(tmp_path / "m.gguf").tensors.items()}
    assert kinds["blk.0.attn_q.weight"] == dtype.upper()
    assert kinds["blk.0.attn_q.bias"] == kinds["output_norm.weight"] == "F32"


def test_the_command_line(tmp_path, capsys):
    folder = tiny_decoder(tmp_path / "m", "llama")
    file = tmp_path / "m.gguf"
    assert run(["convert", str(folder), str(file), "--dtype", "q8_0"]) == 0
    assert run(["inspect", str(file), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (facts["family"], facts["context"], facts["tokenizer"]["tokens"]) == ("llama", 64, 258)
    assert "generate" in facts["uses"]
    assert run(["generate", str(file), "--prompt", "the", "--max-tokens", "3"]) == 0
    capsys.readouterr()
    assert run(["convert", str(folder), str(file)]) == 2 and "exists" in capsys.readouterr().err
    assert run(["convert", str(folder), str(tmp_path / "n.gguf"), "--dtype", "q4_k"]) == 2
    assert "q8_0" in capsys.readouterr().err
    assert run(["convert", str(folder), str(tmp_path / "n"), "--dtype", "f16"]) == 2
    assert ".gguf" in capsys.readouterr().err


def test_python_says_the_same(tmp_path):
    with pytest.raises(SettingsError, match="q4_k"):
        langue.convert(tmp_path, tmp_path / "m.gguf", dtype="q4_k")
    with pytest.raises(ModelError, match="no language-model head"):
        langue.convert(tiny_bert(tmp_path / "bert"), tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("name", "more", "word"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation"),
        ("gpt2", {"scale_attn_weights": False}, "attention_scale"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rotary"),
        ("llama", {"hidden_act": "gelu"}, "activation"),
        ("llama", {"model_type": "nanochat"}, "--preset llama"),
    ],
)
def test_what_a_file_cannot_say_is_refused(tmp_path, name, more, word):
    folder = tiny_decoder(tmp_path / "m", name, **more)
    with pytest.raises(ModelError, match=word):
        langue.convert(folder, tmp_path / "m.gguf")


def test_a_file_that_another_program_wrote(tmp_path):
    """By the format's own package, with what llama.cpp's converter says and langue's does not."""
    package = pytest.importorskip("gguf")
    folder = tiny_decoder(tmp_path / "m", "qwen2")
    theirs = load_file(folder / "model.safetensors")
    ours = langue.load(folder)
    writer = package.GGUFWriter(tmp_path / "m.gguf", "qwen2", endianess=package.GGUFEndian.LITTLE)
    writer.add_custom_alignment(64)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_float64("general.some.number", 1.5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = sorted(ours.tokenizer.backend.get_vocab().items(), key=lambda item: item[1])
    writer.add_token_list(
        [token for token, _ in tokens] + [f"[PAD{i}]" for i in range(258, VOCABULARY)]
    )
    writer.add_token_types([3] + [1] * 257 + [5] * (VOCABULARY - 258))
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages }}")
    table = package.get_tensor_name_map(package.MODEL_ARCH.QWEN2, 2)
    for name, tensor in theirs.items():
        writer.add_tensor(table.get_name(name, (".weight", ".bias")), tensor.numpy())
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    read = langue.load(tmp_path / "m.gguf")
    assert np.array_equal(read.logits(IDS)[0], ours.logits(IDS)[0])
    assert len(read.tokenizer) == 258  # the padding of the table is none of the tokenizer's
    assert read.tokenizer.backend.encode(TEXT).ids == ours.tokenizer.backend.encode(TEXT).ids
    read.save(tmp_path / "again")
    assert (
        json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["chat_template"]
        == "{{ messages }}"
    )
    langue.convert(tmp_path / "again", tmp_path / "third.gguf")
    assert (
        gguf.read(tmp_path / "third.gguf").metadata["tokenizer.chat_template"] == "{{ messages }}"
    )


def round_trip(tokenizer, published=None):
    metadata = to_metadata(tokenizer, published or {"eos_token_id": 0}, len(tokenizer) + 5)
    return metadata, from_metadata(metadata, "m.gguf")


@pytest.mark.parametrize("name", RULES)
def test_byte_level_tokenizers(name):
    make, whole = RULES[name]
    tokenizer = trained_tokenizer(make(), whole)
    metadata, again = round_trip(tokenizer)
    assert metadata["tokenizer.ggml.pre"] == name
    text = TEXT + "<|im_end|> the ball"
    assert again.backend.encode(text).ids == tokenizer.backend.encode(text).ids
    assert again.decode(again.backend.encode(TEXT).ids) == TEXT
    assert metadata["tokenizer.ggml.token_type"][:2].tolist() == [3, 3]


def test_published_patterns_are_known():
    """Llama 3's and Qwen2's tokenizer.json as published."""
    for name, pattern in (("llama-bpe", LLAMA3), ("qwen2", QWEN2)):
        cut = {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": False,
                    "use_regex": False,
                },
            ],
        }
        said = json.loads(trained_tokenizer(RULES[name][0](), name == "llama-bpe").backend.to_str())
        backend = tokenizers.Tokenizer.from_str(
            json.dumps(said | {"pre_tokenizer": cut, "normalizer": {"type": "NFC"}})
        )
        assert round_trip(Tokenizer(backend))[0]["tokenizer.ggml.pre"] == name


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_tokenizers(prefix):
    tokenizer = sentencepiece_tokenizer(prefix)
    metadata, again = round_trip(tokenizer, {"bos_token_id": 1, "eos_token_id": [1, 2]})
    kept = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    assert (kept["model"], kept["add_space_prefix"], kept["add_bos_token"]) == (
        "llama",
        prefix,
        True,
    )
    assert (kept["bos_token_id"], kept["eos_token_id"], kept["eot_token_id"]) == (1, 2, 1)
    assert kept["token_type"][:4].tolist() == [2, 3, 3, 6]
    for text in (TEXT, "the ball in the  ballin. 北", ""):
        assert again.backend.encode(text).ids == tokenizer.backend.encode(text).ids
        assert again.decode(again.backend.encode(text).ids) == tokenizer.decode(
            tokenizer.backend.encode(text).ids
        )


def other(cut=None, normal=None, model=None):
    backend = tokenizers.Tokenizer(model or models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    backend.pre_tokenizer = cut or pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if normal is not None:
        backend.normalizer = normal
    return Tokenizer(backend)


def merged_otherwise():
    tokenizer = sentencepiece_tokenizer()
    said = json.loads(tokenizer.backend.to_str())
    said["model"]["merges"] = said["model"]["merges"][1:]
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(said)))


REFUSED = {
    "another cut": (lambda: other(pre_tokenizers.Split(Regex(r"\s"), "isolated")), "cuts words"),
    "a space before": (
        lambda: other(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "cuts words",
    ),
    "no cut": (lambda: other(pre_tokenizers.ByteLevel(False, use_regex=False)), "cuts words"),
    "lower case": (lambda: other(normal=normalizers.Lowercase()), "Lowercase"),
    "unigrams": (lambda: other(model=models.Unigram([("a", 0.0)], 0, False)), "Unigram"),
    "other merges": (merged_otherwise, "merges"),
}


@pytest.mark.parametrize(("make", "word"), REFUSED.values(), ids=REFUSED)
def test_tokenizers_that_a_file_cannot_say(make, word):
    with pytest.raises(ModelError, match=word):
        round_trip(make())


def test_a_model_without_an_end_is_refused():
    with pytest.raises(ModelError, match="end a text"):
        to_metadata(other(), {}, 3)


KEY = "tokenizer.ggml."
BYTES = {
    KEY + "model": "gpt2",
    KEY + "pre": "gpt-2",
    KEY + "tokens": ["a", "b", "ab"],
    KEY + "merges": ["a b"],
}
PIECES = {KEY + "model": "llama", KEY + "tokens": ["a", "b"], KEY + "scores": np.zeros(2, "<f4")}
BAD_TOKENIZERS = {
    "none": {},
    "another kind": BYTES | {KEY + "model": "bert"},
    "another cut": BYTES | {KEY + "pre": "tekken"},
    "no cut": {key: value for key, value in BYTES.items() if key != KEY + "pre"},
    "a token twice": BYTES | {KEY + "tokens": ["a", "a"]},
    "tokens that are numbers": BYTES | {KEY + "tokens": np.zeros(3)},
    "a merge of no tokens": BYTES | {KEY + "merges": ["a c"]},
    "a merge of one": BYTES | {KEY + "merges": ["ab"]},
    "too few types": BYTES | {KEY + "token_type": np.zeros(2, "<i4")},
    "no scores": {key: value for key, value in PIECES.items() if key != KEY + "scores"},
    "scores that are none": PIECES | {KEY + "scores": np.full(2, np.nan, "<f4")},
    "an endless piece": PIECES | {KEY + "tokens": ["a", "b" * 100_000]},
}


@pytest.mark.parametrize("metadata", BAD_TOKENIZERS.values(), ids=BAD_TOKENIZERS)
def test_hostile_tokenizers(metadata):
    with pytest.raises(ModelError, match=r"m\.gguf"):
        from_metadata(metadata, "m.gguf")


@pytest.mark.timed
def test_more_merges_than_anyone_has():
    """Pieces of one letter, each a join of any two shorter ones: merges grow as the square of the
    file."""
    tokens = [
        letter * length
        for letter in map(chr, range(0x4E00, 0x4E00 + 40))
        for length in range(1, 500)
    ]
    began = time.perf_counter()
    with pytest.raises(ModelError, match="cuts"):
        from_metadata(
            PIECES | {KEY + "tokens": tokens, KEY + "scores": np.zeros(len(tokens), "<f4")}, "m"
        )
    assert time.perf_counter() - began < 2


some_tokens = st.lists(st.text(max_size=3), max_size=6)


@settings(max_examples=200, deadline=2000)
@given(
    st.sampled_from(["llama", "gpt2"]),
    some_tokens,
    st.lists(st.text("ab Ġ▁", max_size=5), max_size=4),
    st.lists(st.integers(-1, 8), max_size=6),
    st.lists(st.floats(width=32), max_size=6),
    st.lists(
        st.one_of(st.integers(-3, 9), st.booleans(), st.text(max_size=2)), min_size=4, max_size=4
    ),
)
def test_no_vocabulary_does_harm(model, tokens, merges, types, scores, ids):
    names = ("bos_token_id", "eos_token_id", "unknown_token_id", "add_bos_token")
    metadata = {
        KEY + "model": model,
        KEY + "pre": "gpt-2",
        KEY + "tokens": tokens,
        KEY + "merges": merges,
    }
    metadata |= {
        KEY + "scores": np.asarray(scores, "<f4"),
        **{KEY + name: i for name, i in zip(names, ids, strict=True)},
    }
    metadata |= {KEY + "token_type": np.asarray(types, "<i4")} if types else {}
    try:
        tokenizer = from_metadata(metadata, "m.gguf")
        tokenizer.decode(tokenizer.backend.encode(TEXT).ids)
    except ModelError as error:
        assert str(error).startswith("m.gguf")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    langue.convert(tiny_decoder(folder / "m", "llama"), folder / "m.gguf")
    return (folder / "m.gguf").read_bytes()


@settings(
    max_examples=60, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), min_size=1, max_size=3))
def test_no_change_of_a_model_does_harm(tmp_path, small, changes):
    """Bytes of the header changed: the model loads, or is refused by an error of ours."""
    data = bytearray(small)
    for at, byte in changes:
        data[at] = byte
    (tmp_path / "m.gguf").write_bytes(bytes(data))
    try:
        langue.load(tmp_path / "m.gguf")
    except LangueError as error:
        assert "m.gguf" in str(error)


def test_ids_beyond_the_vocabulary_are_nobodys():
    said = Vocabulary(
        BYTES | {KEY + "eos_token_id": 3, KEY + "bos_token_id": 2**31, KEY + "eot_token_id": True},
        "m",
    )
    assert said.special() == {}


CHANGES = {
    "more layers than tensors": ({"llama.block_count": 10**6}, "layers"),
    "a width of terabytes": ({"llama.feed_forward_length": 2**31}, "feed_forward_length"),
    "no heads": ({"llama.attention.head_count": 0}, "head_count"),
    "a number in words": ({"llama.context_length": "long"}, "not one number"),
    "no sizes": ({"llama.embedding_length": None}, "missing"),
    "another width": ({"llama.embedding_length": 128}, "has shape|rows|unequal"),
    "another architecture": ({"general.architecture": "mamba"}, "mamba"),
    "experts": ({"llama.expert_count": 8}, "experts"),
    "yarn": ({"llama.rope.scaling.type": "yarn"}, "yarn"),
    "an epsilon that is none": (
        {"llama.attention.layer_norm_rms_epsilon": float("nan")},
        "epsilon",
    ),
}


@pytest.mark.parametrize(("changes", "word"), CHANGES.values(), ids=CHANGES)
def test_metadata_that_lies(tmp_path, changes, word):
    langue.convert(tiny_decoder(tmp_path / "m", "llama"), tmp_path / "m.gguf", dtype="f32")
    found = gguf.read(tmp_path / "m.gguf")
    metadata = {
        key: value for key, value in (found.metadata | changes).items() if value is not None
    }
    tensors = [
        gguf.Given(name, each.kind, each.shape, lambda name=name: found.tensor(name))
        for name, each in found.tensors.items()
    ]
    gguf.write(tmp_path / "bad.gguf", metadata, tensors)
    with pytest.raises(ModelError, match=word):
        langue.load(tmp_path / "bad.gguf")


def test_frequencies_of_nobody_are_refused(tmp_path):
    langue.convert(tiny_decoder(tmp_path / "m", "llama 3"), tmp_path / "m.gguf", dtype="f32")
    found = gguf.read(tmp_path / "m.gguf")
    given = [
        gguf.Given(n, t.kind, t.shape, lambda n=n: found.tensor(n) + ("rope_freqs" in n))
        for n, t in found.tensors.items()
    ]
    gguf.write(tmp_path / "bad.gguf", found.metadata, given)
    with pytest.raises(ModelError, match="frequencies"):
        langue.load(tmp_path / "bad.gguf")


def test_the_stories(tmp_path, shared_data):
    """A real model, through each width, says what is published."""
    known = [403, 407, 261, 378, 432, 383, 286, 261, 376, 298]
    for dtype in ("f32", "f16", "q8_0"):
        langue.convert(shared_data("stories260K"), tmp_path / f"{dtype}.gguf", dtype=dtype)
        assert langue.load(tmp_path / f"{dtype}.gguf").generate([[1]], max_tokens=10) == [known]

"""Releases in other frameworks' files, read without them: the numbers are those of `transformers`'
model of the same weights. The files are written here, by the formats' own rules;
`fixtures/tensorflow` is one that TensorFlow wrote."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import langue
from langue.errors import LangueError, ModelError
from langue.formats import msgpack, tensorflow

transformers = pytest.importorskip("transformers")
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "good", "film", "##s", "the"]
IDS = [[5, 6, 7], [8, 9, 10, 5, 6, 7, 8]]
FIXTURES = Path(__file__).parent / "fixtures"


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def block(entries):
    """A table's block with every key written whole, and its trailer."""
    body = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in entries)
    body += struct.pack("<II", 0, 1)
    return body, body + b"\0" + struct.pack(
        "<I", tensorflow._masked(tensorflow._crc32c(body + b"\0"))
    )


def write_bundle(stem, tensors, apart=True):
    """A TensorFlow checkpoint of float32 tensors; or all claim the first one's place."""
    data = b""
    entries = [(b"", b"\x08\x01\x1a\x02\x08\x01")]
    for name, array in sorted(tensors.items()):
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        shape = b"".join(
            b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in array.shape)
        )
        place = varint(len(data) if apart else 0)
        entry = (
            b"\x08\x01\x12"
            + varint(len(shape))
            + shape
            + b"\x20"
            + place
            + b"\x28"
            + varint(len(raw))
        )
        entries.append((name.encode(), entry))
        data = data + raw if apart else raw
    body, whole = block(entries)
    meta, meta_whole = block([])
    index, index_whole = block([(b"zz", varint(0) + varint(len(body)))])
    footer = (
        varint(len(whole))
        + varint(len(meta))
        + varint(len(whole + meta_whole))
        + varint(len(index))
    )
    footer = footer.ljust(40, b"\0") + struct.pack("<Q", tensorflow.MAGIC)
    stem.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{stem}.index").write_bytes(whole + meta_whole + index_whole + footer)
    Path(f"{stem}.data-00000-of-00001").write_bytes(data)


def random_weights(model):
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn_like(weight))
    return model.eval()


def bert():
    config = transformers.BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    return random_weights(transformers.BertForPreTraining(config))


def google_names(model):
    """transformers' tensors under Google's names, with what its optimiser leaves there."""
    for name, weight in model.state_dict().items():
        if name.endswith(("position_ids", "decoder.weight", "decoder.bias")):
            continue
        theirs = name.replace("layer.", "layer_").replace(".", "/")
        array = weight.numpy()
        if "embeddings/" in theirs and theirs.endswith("_embeddings/weight"):
            theirs = theirs.removesuffix("/weight")
        elif "LayerNorm" in theirs:
            theirs = theirs.replace("weight", "gamma").replace("bias", "beta")
        elif "seq_relationship" in theirs:
            theirs = theirs.replace("seq_relationship/", "seq_relationship/output_")
            theirs = theirs.replace("output_weight", "output_weights")
        elif theirs == "cls/predictions/bias":
            theirs = "cls/predictions/output_bias"
        elif theirs.endswith("weight"):
            theirs = theirs.removesuffix("weight") + "kernel"
            array = array.T
        yield theirs, array
        yield f"{theirs}/adam_m", np.zeros_like(array)


def expect(model, folder, logits):
    loaded = langue.load(folder)
    for ours, ids in zip(loaded.logits(IDS), IDS, strict=True):
        with torch.no_grad():
            theirs = logits(model(torch.tensor([ids])))[0].numpy()
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
    return loaded


def test_googles_bert(tmp_path):
    model = bert()
    folder = tmp_path / "uncased"
    write_bundle(
        folder / "bert_model.ckpt", dict(google_names(model)) | {"global_step": np.zeros(())}
    )
    said = {
        k: getattr(model.config, k)
        for k in ("vocab_size", "hidden_size", "num_hidden_layers", "type_vocab_size")
    }
    said |= {
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
    }
    (folder / "bert_config.json").write_text(json.dumps(said))
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    loaded = expect(model, folder, lambda out: out.prediction_logits)
    assert [
        loaded.tokenizer.token(i) for i in loaded.tokenizer.encode_batch(["Good FILMS"])[0].ids
    ] == [*("[CLS]", "good", "film", "##s", "[SEP]")]
    langue.convert(folder, tmp_path / "hub")
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hub").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            again(torch.tensor([IDS[1]])).logits,
            model(torch.tensor([IDS[1]])).prediction_logits,
            rtol=1e-5,
            atol=1e-5,
        )
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "hub")("Good FILMS")[
        "input_ids"
    ] == [2, 7, 8, 9, 3]


def test_openais_gpt2(tmp_path):
    config = transformers.GPT2Config(vocab_size=257, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    model = random_weights(transformers.GPT2LMHeadModel(config))
    folder = tmp_path / "117M"
    tensors = {}
    for name, weight in model.transformer.state_dict().items():
        theirs = (
            "model/" + name.replace("h.", "h", 1).replace(".", "/")
            if name.startswith("h.")
            else f"model/{name}"
        )
        theirs = theirs.replace(".", "/")
        kind = "g" if "ln_" in theirs else "w"
        theirs = theirs.removesuffix("/weight") if "wte" in theirs or "wpe" in theirs else theirs
        theirs = theirs.replace("/weight", f"/{kind}").replace("/bias", "/b")
        array = weight.numpy()
        tensors[theirs] = array[None] if theirs.endswith("/w") else array
    write_bundle(folder / "model.ckpt", tensors)
    sizes = {"n_vocab": 257, "n_ctx": 32, "n_embd": 16, "n_head": 2, "n_layer": 2}
    (folder / "hparams.json").write_text(json.dumps(sizes))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    (folder / "encoder.json").write_text(
        json.dumps({c: i for i, c in enumerate([*alphabet, "<|endoftext|>"])})
    )
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"\n')
    loaded = expect(model, folder, lambda out: out.logits)
    assert loaded.checkpoint.ends == {256}
    assert (
        loaded.tokenizer.decode(loaded.tokenizer.encode_batch(["naïve café"])[0].ids)
        == "naïve café"
    )


def test_t5_of_mesh_tensorflow(tmp_path):
    config = transformers.T5Config(
        vocab_size=11,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    model = random_weights(transformers.T5ForConditionalGeneration(config))
    tensors = {}
    for name, weight in model.state_dict().items():
        if name.startswith(("lm_head", "encoder.embed", "decoder.embed")):
            continue
        parts = name.removesuffix(".weight").split(".")
        path = [
            f"{parts[i - 1]}_{int(part):03d}" if part.isdigit() else part
            for i, part in enumerate(parts)
        ]
        path = [
            p for i, p in enumerate(path) if not (p in ("block", "layer") and i + 1 < len(path))
        ]
        kind = "embedding" if name == "shared.weight" else "scale" if "norm" in name else ""
        kind = "kernel" if "DenseReluDense" in name else kind
        array = weight.numpy() if weight.ndim < 2 or kind == "embedding" else weight.numpy().T
        tensors["/".join([*path, *([kind] if kind else [])])] = array
    tensors |= {"global_step": np.zeros(()), "shared/embedding_slot_vr": np.zeros(3)}
    write_bundle(tmp_path / "t5" / "model.ckpt-1000000", tensors)
    model.config.save_pretrained(tmp_path / "t5")
    backend = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(VOCAB)}, unk_token="[UNK]")
    )
    backend.save(str(tmp_path / "t5" / "tokenizer.json"))
    ours = langue.load(tmp_path / "t5").logits(IDS, IDS)
    for mine, ids in zip(ours, IDS, strict=True):
        with torch.no_grad():
            theirs = (
                model(torch.tensor([ids]), decoder_input_ids=torch.tensor([ids])).logits[0].numpy()
            )
        assert np.linalg.norm(mine - theirs) <= 1e-5 * np.linalg.norm(theirs)


def flax_bytes(model):
    """As flax.serialization writes a nested dict of arrays."""
    packer = pytest.importorskip("msgpack")
    tree = {}
    for name, array in google_names(model):
        if name.endswith("adam_m"):
            continue
        theirs = (
            name.replace("layer_", "layer/")
            .replace("/gamma", "/scale")
            .replace("LayerNorm/beta", "LayerNorm/bias")
        )
        theirs = theirs.replace("cls/predictions/output_bias", "cls/predictions/bias")
        if theirs.endswith("_embeddings"):
            theirs += "/embedding"
        if "seq_relationship" in theirs:
            array = array.T if array.ndim == 2 else array
            theirs = theirs.replace("output_weights", "kernel").replace("output_bias", "bias")
        branch = tree
        (*path, last) = theirs.split("/")
        for part in path:
            branch = branch.setdefault(part, {})
        inside = packer.packb(
            (array.shape, "float32", np.ascontiguousarray(array, "<f4").tobytes()),
            use_bin_type=True,
        )
        branch[last] = packer.ExtType(1, inside)
    return packer.packb(tree, use_bin_type=True)


def test_flax_bert(tmp_path):
    model = bert()
    model.config.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    (tmp_path / "flax_model.msgpack").write_bytes(flax_bytes(model))
    expect(model, tmp_path, lambda out: out.prediction_logits)


def test_a_file_that_tensorflow_wrote():
    """tf.compat.v1.train.Saver of TensorFlow 2 over a/kernel (3, 4), a/bias (4,), global_step and
    300 scalars."""
    found = tensorflow.read(FIXTURES / "tensorflow.index")
    np.testing.assert_array_equal(found["a/kernel"], np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(found["a/bias"], np.asarray([0.5, -1, 2, 3], np.float32))
    assert found["global_step"].item() == 7
    # several blocks, keys that share prefixes
    assert len([name for name in found if name.startswith("many/")]) == 300


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_index_is_refused_or_read_right(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("tf")
    tensors = {f"layer_{i}/kernel": np.full((2, 3), float(i), np.float32) for i in range(4)}
    write_bundle(folder / "x", tensors)
    raw = bytearray((folder / "x.index").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (folder / "x.index").write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    try:
        found = tensorflow.read(folder / "x.index")
    except ModelError:
        return
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        n: a.tolist() for n, a in tensors.items()
    }


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_as_msgpack_end_in_an_error_or_arrays(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("flax") / "flax_model.msgpack"
    path.write_bytes(raw)
    try:
        assert isinstance(msgpack.read(path), dict)
    except LangueError as error:
        assert "Flax" in str(error)


def test_hostile_bundles_are_refused(tmp_path):
    write_bundle(tmp_path / "x", {"w": np.zeros((2, 2))})
    (tmp_path / "x.data-00000-of-00001").write_bytes(b"\0" * 15)
    with pytest.raises(ModelError, match="lies outside of the data"):
        tensorflow.read(tmp_path / "x.index")
    (tmp_path / "x.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match="lies outside of the data"):
        tensorflow.read(tmp_path / "x.index")
    write_bundle(tmp_path / "y", {name: np.zeros((2, 2)) for name in "abc"}, apart=False)
    with pytest.raises(ModelError, match="overlap"):
        tensorflow.read(tmp_path / "y.index")
    within = b"\x01"
    for _ in range(2000):  # arrays whose shapes are arrays
        within = b"\xc9" + struct.pack(">I", len(within) + 1) + b"\x01\x93" + within
    for deep in (b"\x91" * 100_000 + b"\x01", within):
        (tmp_path / "deep.msgpack").write_bytes(deep)
        with pytest.raises(ModelError, match="nested too deeply"):
            msgpack.read(tmp_path / "deep.msgpack")
    (tmp_path / "large.msgpack").write_bytes(b"\xdf\xff\xff\xff\xff")
    with pytest.raises(ModelError, match="larger than the file"):
        msgpack.read(tmp_path / "large.msgpack")

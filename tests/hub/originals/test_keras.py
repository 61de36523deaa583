"""BERT out of Keras's files, read without TensorFlow, Keras or h5py. `fixtures/kerashub.tar.xz` is
a preset that KerasHub 0.32 wrote on TensorFlow 2.21, with what its model makes of a text; the
others are written here, with h5py."""

import json
import lzma
import re
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import langue
from langue.errors import LangueError, ModelError
from langue.formats import hdf5
from tests.hub.originals.test_originals import VOCAB, bert, expect

h5py = pytest.importorskip("h5py")
transformers = pytest.importorskip("transformers")
FIXTURE = Path(__file__).parent / "fixtures" / "kerashub.tar.xz"


@pytest.fixture
def preset(tmp_path):
    with lzma.open(FIXTURE) as packed, tarfile.open(fileobj=packed) as archive:
        archive.extractall(tmp_path / "preset", filter="data")
    return tmp_path / "preset"


def test_a_preset_of_kerashub_gives_its_numbers(preset, tmp_path):
    expected = json.loads((preset / "expected.json").read_text())
    model = langue.load(preset)
    hidden = np.asarray(expected["hidden"])
    [ours] = model.hidden([expected["ids"]])
    assert np.linalg.norm(ours - hidden) <= 1e-5 * np.linalg.norm(hidden)
    [encoded] = model.tokenizer.encode_batch([expected["text"]])
    assert encoded.ids == [VOCAB.index("[CLS]"), *expected["tokens"], VOCAB.index("[SEP]")]
    langue.convert(preset, tmp_path / "hub")
    again = transformers.AutoModel.from_pretrained(tmp_path / "hub").eval()
    with torch.no_grad():
        theirs = again(torch.tensor([expected["ids"]])).last_hidden_state[0].numpy()
    assert np.linalg.norm(theirs - hidden) <= 1e-5 * np.linalg.norm(hidden)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"registered_name": "keras_hub>GPT2Backbone"}, "GPT2Backbone is not read"),
        ({"config": {"num_layers": 2}}, "'dropout' is not what a BertBackbone has, or is missing"),
        ({"config": {"norm_first": True}}, "'norm_first' is not what a BertBackbone has"),
    ],
)
def test_what_a_preset_says_otherwise_is_refused(preset, change, message):
    said = json.loads((preset / "config.json").read_text())
    if "norm_first" in change.get("config", {}):
        change = {"config": said["config"] | change["config"]}
    (preset / "config.json").write_text(json.dumps(said | change))
    with pytest.raises(ModelError, match=message):
        langue.load(preset)


def test_an_array_that_no_bert_has_is_refused(preset):
    with h5py.File(preset / "model.weights.h5", "a") as file:
        file["optimizer/vars/0"] = np.zeros(())
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, "uint32")
        file["layers/conv1d/vars/0"] = np.zeros((2, 2), "f4")
    with pytest.raises(ModelError, match="layers/conv1d/vars/0 is not an array of a BERT"):
        langue.load(preset)


def keras_names(model):
    """transformers' tensors under the names that its TensorFlow classes had, up to version 4."""
    for name, weight in model.state_dict().items():
        if name.endswith(("position_ids", "decoder.weight", "decoder.bias")):
            continue
        *path, last = re.sub(r"layer\.(\d)", r"layer@\1", name).split(".")
        array = weight.numpy()
        whole = ".".join(path)
        if path[-1] in ("position_embeddings", "token_type_embeddings"):
            last = "embeddings"
        elif "LayerNorm" in whole:
            last = {"weight": "gamma", "bias": "beta"}[last]
        elif last == "weight" and "embeddings" not in whole:
            last = "kernel"
            array = array.T
        path[0] = {
            "bert": "bert",
            "cls": "nsp___cls" if "seq_relationship" in name else "mlm___cls",
        }[path[0]]
        yield (
            f"{path[0]}/tf_bert_for_pre_training/{'/'.join(path)}/{last}:0".replace("@", "_._"),
            array,
        )


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_a_tf_model_of_transformers_4(tmp_path, version):
    model = bert()
    model.config.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    with h5py.File(tmp_path / "tf_model.h5", "w", libver=version) as file:
        file.attrs["backend"] = "tensorflow"
        file.create_group("top_level_model_weights")
        for name, array in keras_names(model):
            file[name] = np.ascontiguousarray(array)
    expect(model, tmp_path, lambda out: out.prediction_logits)


@pytest.mark.parametrize("version", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32"]
)
def test_arrays_of_all_types_and_shapes(tmp_path, version, dtype):
    rng = np.random.default_rng(0)
    shapes = {"a": (), "b/c": (3,), "b/d/e": (2, 3, 4), "b/d/empty": (0, 4)}
    arrays = {
        name: np.abs(10 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()
    }
    arrays |= {
        f"many/{n:03}": np.asarray([n], dtype) for n in range(120 if "int8" in dtype else 300)
    }
    with h5py.File(tmp_path / "x.h5", "w", libver=version) as file:
        for name, array in arrays.items():
            file[name] = array
        file["b"].attrs["said"] = "and not read"
    found = None
    try:
        found = hdf5.read(tmp_path / "x.h5")
    # a group of hundreds keeps its names elsewhere, in the newer versions
    except ModelError as error:
        assert version != "earliest" and "a heap, which is not read" in str(error)
        with h5py.File(tmp_path / "x.h5", "a") as file:
            del file["many"]
        arrays = {name: array for name, array in arrays.items() if not name.startswith("many/")}
        found = hdf5.read(tmp_path / "x.h5")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_what_is_not_read_is_said(tmp_path):
    def written(name, fill):
        with h5py.File(tmp_path / name, "w") as file:
            fill(file)
        return tmp_path / name

    table = np.zeros((8, 8), "f4")
    with pytest.raises(ModelError, match="w is stored in chunks"):
        hdf5.read(written("chunks.h5", lambda f: f.create_dataset("w", data=table, chunks=(4, 4))))
    with pytest.raises(ModelError, match="w is compressed"):
        hdf5.read(
            written("packed.h5", lambda f: f.create_dataset("w", data=table, compression="gzip"))
        )
    with pytest.raises(ModelError, match="w holds no little-endian numbers"):
        hdf5.read(written("big.h5", lambda f: f.create_dataset("w", data=table.astype(">f4"))))
    with pytest.raises(ModelError, match="w lies in another file"):
        hdf5.read(
            written(
                "outside.h5",
                lambda f: f.create_dataset("w", (8,), "f4", external=[("/etc/passwd", 0, 32)]),
            )
        )
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "text.h5").write_text("version https://git-lfs.github.com/spec/v1\n" * 9)
    for name in ("empty.h5", "text.h5"):
        with pytest.raises(ModelError, match="not an HDF5 file as Keras writes it"):
            hdf5.read(tmp_path / name)


@pytest.fixture(scope="module", params=["earliest", "latest"])
def small(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("hdf5") / "small.h5"
    with h5py.File(path, "w", libver=request.param) as file:
        for layer in range(3):
            file[f"layers/dense_{layer}/vars/0"] = np.full((2, 3), layer, "f4")
    return path


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_in_bounds(small, data):
    raw = bytearray(small.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    damaged = small.with_name("damaged.h5")
    damaged.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    try:
        found = hdf5.read(damaged)
    except LangueError:
        return
    assert sum(tensor.nbytes for tensor in found.values()) <= len(raw)


def test_arrays_that_overlap_are_refused(tmp_path):
    """A small file, read many times over, would fill the memory."""
    path = tmp_path / "twice.h5"
    with h5py.File(path, "w") as file:
        first, second = (
            file.create_dataset(name, data=np.ones(4000, "f4")).id.get_offset() for name in "ab"
        )
    raw = path.read_bytes().replace(struct.pack("<Q", second), struct.pack("<Q", first))
    path.write_bytes(raw[:second])
    with pytest.raises(ModelError, match="overlap"):
        hdf5.read(path)

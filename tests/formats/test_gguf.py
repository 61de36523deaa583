"""GGUF as a container: what is written is read, by us and by the format's own package, and no bytes
do harm."""

import struct
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langue.errors import ModelError
from langue.formats import gguf

VALUES = {
    "general.architecture": "llama",
    "a.flag": True,
    "a.count": 7,
    "a.share": 0.25,
    "a.texts": ["one", "", "zwölf"],
    "a.numbers": np.asarray([1, -2, 3], "<i4"),
    "a.scores": np.asarray([0.5, -1.5], "<f4"),
}


def given_of(name, kind, tensor):
    return gguf.Given(name, kind, tuple(tensor.shape), lambda: tensor)


def written(path):
    generator = torch.Generator().manual_seed(0)
    tensors = {f"t{i}": torch.randn(3 + i, 64, generator=generator) for i in range(3)} | {
        "v": torch.arange(5.0)
    }
    kinds = {"t0": "F32", "t1": "F16", "t2": "Q8_0", "v": "F32"}
    gguf.write(
        path, VALUES, [given_of(name, kinds[name], tensor) for name, tensor in tensors.items()]
    )
    return tensors


def test_what_is_written_is_read(tmp_path):
    tensors = written(tmp_path / "m.gguf")
    found = gguf.read(tmp_path / "m.gguf")
    assert {
        k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.metadata.items()
    } == {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in VALUES.items()}
    for name in ("t0", "v"):
        assert torch.equal(found.tensor(name), tensors[name])
    assert torch.equal(found.tensor("t1"), tensors["t1"].half())
    scale = tensors["t2"].view(-1, 32).abs().max(1).values / 127
    off = (found.tensor("t2") - tensors["t2"]).view(-1, 32).abs().max(1).values
    # half a step, and the scale's own rounding
    assert (off <= 0.51 * scale + 127 * scale * 2**-11).all()


def test_q8_0_is_that_of_the_formats_own_package():
    quants = pytest.importorskip("gguf.quants")
    kind = pytest.importorskip("gguf").GGMLQuantizationType.Q8_0
    draw = np.random.default_rng(0)
    for scale in (1e-30, 1e-3, 1.0, 5e4):
        numbers = (draw.standard_normal((7, 96)) * scale).astype(np.float32)
        numbers[0, :32] = 0
        numbers[1, :4] = [127, 0.5, -0.5, 63.5]
        theirs = quants.quantize(numbers, kind)
        assert gguf.quantise(numbers) == theirs.tobytes()
        raw = torch.frombuffer(bytearray(gguf.quantise(numbers)), dtype=torch.uint8)
        ours = gguf.unpack("Q8_0", raw).dequantised().view(7, 96)
        assert np.array_equal(ours, quants.dequantize(theirs, kind))


@pytest.mark.parametrize("name", gguf.BLOCK_KINDS)
def test_blocks_are_those_of_the_formats_own_package(name):
    """Any bytes, but for the float16 scales, which are finite."""
    quants = pytest.importorskip("gguf.quants")
    kind = pytest.importorskip("gguf").GGMLQuantizationType[name]
    size = {"Q8_0": 34, "Q4_0": 18, "Q4_K": 144, "Q6_K": 210}[name]
    draw = np.random.default_rng(0)
    raw = draw.integers(0, 256, (50, size), np.uint8)
    scales = draw.standard_normal((50, 2)).astype("<f2").view(np.uint8)
    places = {"Q4_K": slice(0, 4), "Q6_K": slice(208, 210)}
    wide = scales if name == "Q4_K" else scales[:, :2]
    raw[:, places.get(name, slice(0, 2))] = wide
    ours = gguf.unpack(name, torch.from_numpy(raw.reshape(-1))).dequantised()
    theirs = quants.dequantize(raw, kind)
    # Q6_K: they multiply the scale by the number in another order than the scales by each other
    assert np.allclose(ours.view(theirs.shape), theirs, rtol=1e-6, atol=1e-6)


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    for kind, value in (("F16", 1e5), ("F16", float("nan")), ("Q8_0", 1e8), ("Q8_0", float("inf"))):
        with pytest.raises(ModelError, match="cannot hold"):
            gguf.write(tmp_path / "m.gguf", {}, [given_of("t", kind, torch.full((1, 32), value))])
    assert not list(tmp_path.iterdir())  # nothing half written is left


def test_the_formats_own_reader_reads_it(tmp_path):
    package = pytest.importorskip("gguf")
    tensors = written(tmp_path / "m.gguf")
    reader = package.GGUFReader(tmp_path / "m.gguf")
    assert reader.get_field("general.architecture").contents() == "llama"
    assert reader.get_field("a.texts").contents() == VALUES["a.texts"]
    assert reader.get_field("a.numbers").contents() == [1, -2, 3]
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    assert theirs.keys() == tensors.keys()
    assert np.array_equal(theirs["t0"].data, tensors["t0"].numpy())
    assert theirs["t2"].tensor_type.name == "Q8_0" and theirs["t2"].shape.tolist() == [64, 5]


def test_bf16_and_kinds_that_are_only_known(tmp_path):
    package = pytest.importorskip("gguf")
    writer = package.GGUFWriter(tmp_path / "m.gguf", "llama")
    numbers = torch.randn(2, 256)
    raw = numbers.bfloat16().view(torch.uint8).numpy()
    writer.add_tensor("b", raw, raw_dtype=package.GGMLQuantizationType.BF16)
    packed = np.zeros((2, 176), np.uint8)
    writer.add_tensor("k", packed, raw_dtype=package.GGMLQuantizationType.Q5_K)
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    found = gguf.read(tmp_path / "m.gguf")
    assert torch.equal(found.tensor("b"), numbers.bfloat16())
    with pytest.raises(ModelError, match="Q5_K"):
        found.tensor("k")


def text(words):
    return struct.pack("<Q", len(words)) + words.encode()


def info(name, sizes=(4,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def file_of(values=(), infos=(), data=64, n_values=None, n_tensors=None, version=3):
    counts = (
        len(infos) if n_tensors is None else n_tensors,
        len(values) if n_values is None else n_values,
    )
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(values) + b"".join(infos)
    return header + b"\0" * (-len(header) % 32) + b"\1" * data


NUMBER = text("n") + struct.pack("<II", 4, 1)
BAD = {
    "nothing": b"",
    "its name alone": b"GGUF",
    "another format": b"GGML" + bytes(60),
    "version 1": file_of(version=1),
    "the other order of bytes": file_of(version=3 << 24),
    "tensors without end": file_of(n_tensors=2**63),
    "more tensors than there are": file_of([NUMBER], [info("t")], n_tensors=3),
    "values without end": file_of(n_values=2**60),
    "a text of terabytes": file_of([text("k") + struct.pack("<IQ", 8, 2**42)]),
    "a list of terabytes": file_of([text("k") + struct.pack("<IIQ", 9, 4, 2**42)]),
    "a list whose bytes wrap": file_of([text("k") + struct.pack("<IIQ", 9, 10, 2**61)]),
    "texts without end": file_of([text("k") + struct.pack("<IIQ", 9, 8, 2**61)]),
    "a text in a list that is cut": file_of(
        [text("k") + struct.pack("<IIQ", 9, 8, 2) + text("a") + struct.pack("<Q", 99)]
    ),
    "a list that ends within a length": file_of(
        [text("k") + struct.pack("<IIQ", 9, 8, 8) + text("abc")], data=0
    )
    + bytes(5),
    "a text in a list that is none": file_of(
        [text("k") + struct.pack("<IIQQ", 9, 8, 1, 2) + b"\xff\xfe"]
    ),
    "lists of lists": file_of([text("k") + struct.pack("<IIQ", 9, 9, 1)]),
    "a value of no type": file_of([text("k") + struct.pack("<IQ", 13, 0)]),
    "a text that is none": file_of([text("k") + struct.pack("<IQ", 8, 2) + b"\xff\xfe"]),
    "a value twice": file_of([NUMBER, NUMBER]),
    "a tensor twice": file_of(infos=[info("t"), info("t", offset=32)]),
    "beyond the end": file_of(infos=[info("t", (17,))]),
    "a place beyond the end": file_of(infos=[info("t", offset=2**62)]),
    "overlap": file_of(infos=[info("t", (16,)), info("u", offset=32)]),
    "no place of its own": file_of(infos=[info("t"), info("u")]),
    "unaligned": file_of(infos=[info("t", offset=4)]),
    "an alignment of three": file_of([text("general.alignment") + struct.pack("<II", 4, 3)]),
    "no alignment": file_of([text("general.alignment") + struct.pack("<II", 4, 0)]),
    "an alignment in words": file_of(
        [text("general.alignment") + struct.pack("<I", 8) + text("32")]
    ),
    "a shape that wraps": file_of(infos=[info("t", (2**32, 2**32))]),
    "a shape of nothing": file_of(infos=[info("t", (0, 4))]),
    "no dimensions": file_of(infos=[info("t", ())]),
    "dimensions without end": file_of(infos=[text("t") + struct.pack("<I", 2**31)]),
    "an unknown type": file_of(infos=[info("t", kind=77)]),
    "a type that is gone": file_of(infos=[info("t", kind=4)]),
    "blocks that are not whole": file_of(infos=[info("t", (33,), kind=8)]),
    "terabytes of a known type": file_of(infos=[info("t", (2**40,), kind=12)]),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.timed
def test_rules_of_the_format(tmp_path, data):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    began = time.perf_counter()
    with pytest.raises(ModelError, match=r"m\.gguf"):
        gguf.read(path)
    assert time.perf_counter() - began < 1


def test_a_good_file(tmp_path):
    (tmp_path / "m.gguf").write_bytes(
        file_of([NUMBER], [info("t", (4, 2)), info("u", (8,), offset=32)])
    )
    assert gguf.read(tmp_path / "m.gguf").tensor("t").shape == (2, 4)


@settings(
    max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 500),
)
def test_no_bytes_do_harm(tmp_path, changes, end):
    """A file with bytes changed and its end cut off: read whole, or refused in one line."""
    whole = file_of(
        [NUMBER, text("k") + struct.pack("<IIQ", 9, 8, 2) + text("ab") + text("c")],
        [
            info("t", (4, 2)),
            info("u", (32,), kind=8, offset=32),
            info("w", (8,), kind=1, offset=96),
        ],
        data=128,
    )
    data = bytearray(whole)
    for at, byte in changes:
        data[at % len(data)] = byte
    (tmp_path / "m.gguf").write_bytes(bytes(data[: max(end, 1)]))
    try:
        found = gguf.read(tmp_path / "m.gguf")
        for name in found.tensors:
            assert found.tensor(name).numel() < 10_000
    except ModelError as error:
        assert "\n" not in str(error)

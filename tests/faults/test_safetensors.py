"""Hostile safetensors: the rules of the format's audit hold, and no bytes crash the reader or cost
it memory."""

import json
import struct
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from langue.errors import ModelError
from langue.hub.weights import check_safetensors, read_safetensors, read_weights

GOOD = {"a": ("F32", [2, 3], (0, 24)), "b": ("I64", [1], (24, 32))}


def file_of(path, entries, data=32, length=None):
    header = json.dumps(
        {n: {"dtype": d, "shape": s, "data_offsets": list(o)} for n, (d, s, o) in entries.items()}
    ).encode()
    path.write_bytes(
        struct.pack("<Q", len(header) if length is None else length) + header + b"\1" * data
    )
    return path


def test_a_good_file(tmp_path):
    weights = read_safetensors(file_of(tmp_path / "m.safetensors", GOOD))
    assert {name: tuple(t.shape) for name, t in weights.items()} == {"a": (2, 3), "b": (1,)}
    empty = file_of(tmp_path / "e.safetensors", {"none": ("F32", [0, 4], (0, 0))}, data=0)
    assert read_safetensors(empty)["none"].shape == (0, 4)


BAD = {
    "overlap": {"a": GOOD["a"], "b": ("I64", [1], (20, 28))},
    "hole": {"a": GOOD["a"], "b": ("I64", [1], (25, 33))},
    "starts late": {"a": ("F32", [2, 3], (8, 32))},
    "beyond the end": {"a": GOOD["a"], "b": ("I64", [2], (24, 40))},
    "backwards": {"a": ("F32", [2, 3], (24, 0)), "b": GOOD["b"]},
    "terabytes": {"a": ("F32", [1 << 40, 1 << 20], (0, 1 << 62))},
    "a shape that wraps": {"a": ("F32", [1 << 32, 1 << 32], (0, 0)), "b": ("U8", [32], (0, 32))},
    "a negative size": {"a": ("F32", [-2, -3], (0, 24)), "b": GOOD["b"]},
    "a size that is true": {"a": ("U8", [True], (0, 1)), "b": ("U8", [31], (1, 32))},
    "an unknown type": {"a": ("F31", [2, 3], (0, 24)), "b": GOOD["b"]},
    "bytes that belong to none": {"a": GOOD["a"]},
}


@pytest.mark.parametrize("entries", BAD.values(), ids=BAD)
def test_rules_of_the_format(tmp_path, entries):
    with pytest.raises(ModelError):
        read_safetensors(file_of(tmp_path / "m.safetensors", entries))


@pytest.mark.parametrize("length", [0, 1, 10**4, 10**8 + 1, 2**40, 2**63, 2**64 - 1])
@pytest.mark.timed
def test_a_header_length_that_lies(tmp_path, length):
    begin = time.perf_counter()
    with pytest.raises(ModelError):
        read_safetensors(file_of(tmp_path / "m.safetensors", GOOD, length=length))
    assert time.perf_counter() - begin < 1


def test_a_header_of_nesting_and_one_of_duplicates(tmp_path):
    file = tmp_path / "m.safetensors"
    for header in (
        b'{"a":' * 200_000,
        b"[" * 200_000,
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}',
    ):
        file.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ModelError):
            read_safetensors(file)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4
    )
)
def test_any_damage_is_refused_or_changes_data_alone(tmp_path, damage):
    whole = bytearray(save({"a": torch.ones(2, 3), "b": torch.arange(5)}))
    for place, part in damage:
        place %= len(whole)
        whole[place : place + len(part)] = part
    file = tmp_path / "m.safetensors"
    file.write_bytes(whole)
    try:
        weights = read_safetensors(file)
    except ModelError:
        return
    assert sum(t.numel() * t.element_size() for t in weights.values()) <= len(whole)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "X"]) | JSON,
        "shape": JSON,
        "data_offsets": JSON | st.just([0, 8]),
    }
)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(st.text(max_size=5), ENTRY | JSON, max_size=4) | JSON, st.binary(max_size=16)
)
def test_any_header_is_refused_or_right(tmp_path, header, data):
    encoded = json.dumps(header).encode()
    file = tmp_path / "m.safetensors"
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    try:
        check_safetensors(file)
    except (ValueError, RecursionError):
        return
    try:
        read_safetensors(file)  # what we let through, the library may still refuse, in our words
    except ModelError:
        return


SHARDS = {
    "outside": {"a": "../m.safetensors"},
    "absolute": {"a": "/etc/passwd"},
    "a folder": {"a": ".."},
    "a pickle": {"a": "pytorch_model.bin"},
    "no name": {"a": ""},
    "a null byte": {"a": "m\0.safetensors"},
    "absent": {"a": "n.safetensors"},
    "another weight": {"z": "m.safetensors"},
    "not text": {"a": 3},
    "not a map": ["a"],
    "nothing": None,
}


@pytest.mark.parametrize("places", SHARDS.values(), ids=SHARDS)
def test_shard_indexes(tmp_path, places):
    folder = tmp_path / "model"
    folder.mkdir()
    for where in (folder, tmp_path):
        file_of(where / "m.safetensors", GOOD)
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ModelError):
        read_weights(folder)
    index.write_text(json.dumps({"weight_map": {"a": "m.safetensors", "b": "m.safetensors"}}))
    assert set(read_weights(folder)) == {"a", "b"}

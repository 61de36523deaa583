"""Small files that would fill the memory or take hours, refused at once."""

import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from langue.errors import ModelError
from langue.formats import hdf5, msgpack, tensorflow
from langue.hub.checkpoint import describe, family_of
from langue.hub.weights import read_safetensors, read_weights
from langue.text.tokenizers import sentencepiece
from tests.text.tokenizers.test_sentencepiece import proto, varint

MANY = 40_000


def table(block, handles):
    """A LevelDB table of one data block, which the index names by these (offset, size)."""

    def closed(data):
        return (
            data + b"\0" + struct.pack("<I", tensorflow._masked(tensorflow._crc32c(data + b"\0")))
        )

    out = closed(block)
    entries = [
        (struct.pack(">I", n), varint(offset) + varint(size))
        for n, (offset, size) in enumerate(handles)
    ]
    index = b"".join(
        varint(0) + varint(len(k)) + varint(len(h)) + k + h for k, h in entries
    ) + struct.pack("<I", 0)
    foot = varint(0) + varint(0) + varint(len(out)) + varint(len(index))
    return out + closed(index) + foot.ljust(40, b"\0") + struct.pack("<Q", tensorflow.MAGIC)


def long_prefix(path):
    """A name that all others begin with."""
    first = varint(0) + varint(MANY) + varint(0) + b"k" * MANY
    block = first + b"".join(
        varint(MANY) + varint(3) + varint(0) + struct.pack(">I", n)[1:] for n in range(MANY)
    )
    (path / "m.index").write_bytes(table(block + struct.pack("<I", 0), [(0, len(block) + 4)]))
    tensorflow.read(path / "m.index")


def one_block_again_and_again(path):
    block = b"\0" * MANY + struct.pack("<I", 0xFFFFFF)
    (path / "m.index").write_bytes(table(block, [(0, len(block))] * 2000))
    tensorflow.read(path / "m.index")


def deep_groups(path):
    """Groups in groups, each with a neighbour that waits."""

    def link(name, address):
        body = bytes([1, 1]) + struct.pack("<H", len(name)) + name + struct.pack("<Q", address)
        return bytes([hdf5.LINK]) + struct.pack("<H", len(body)) + b"\0" + body

    data = bytearray(
        hdf5.MAGIC + bytes([2, 8, 8, 0]) + struct.pack("<QQQQ", 0, 2**64 - 1, 0, 48) + b"\0" * 4
    )
    size = 10 + len(link(b"a", 0)) + len(link(b"x" * 1000, 0)) + 4
    for n in range(1000):
        links = link(b"a", 10**9 + n) + link(b"x" * 1000, 48 + (n + 1) * size)
        data += b"OHDR" + bytes([2, 2]) + struct.pack("<I", len(links)) + links + b"\0" * 4
    (path / "m.h5").write_bytes(data)
    hdf5.read(path / "m.h5")


def many_dimensions(path):
    shape = ",".join(["1"] * MANY * 10)
    header = f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,4]}}}}'.encode()
    (path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    read_safetensors(path / "m.safetensors")


def flax(path, content):
    (path / "m.msgpack").write_bytes(b"\x81\xa1a" + content)
    msgpack.read(path / "m.msgpack")


def many_dimensions_of_flax(path):
    shape = b"\xdd" + struct.pack(">I", MANY) + (b"\xcf" + b"\x7f" * 8) * MANY
    inside = b"\x93" + shape + b"\xa7float32" + b"\xc4\x04" + b"\0" * 4
    flax(path, b"\xc9" + struct.pack(">I", len(inside)) + b"\x01" + inside)


def many_empty_maps(path):
    flax(path, b"\xdd" + struct.pack(">I", 5_000_000) + b"\x80" * 5_000_000)


def a_long_piece(path):
    bpe = proto([("<unk>", 0.0, 2), ("a" * MANY * 10, 0.0, 1)], model=sentencepiece.BPE)
    (path / "tokenizer.model").write_bytes(bpe)
    sentencepiece.load(path / "tokenizer.model", {})


CASES = [
    *(
        long_prefix,
        one_block_again_and_again,
        deep_groups,
        many_dimensions,
        many_dimensions_of_flax,
    ),
    *(many_empty_maps, a_long_piece),
]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_what_would_grow_is_refused(tmp_path, make):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(ModelError) as error:
        make(tmp_path)
    assert len(str(error.value)) < 1000 and "\n" not in str(error.value)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # kilobytes


def test_a_name_of_any_length_is_cut_in_what_is_said(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "bert", "hidden_act": "' + "x" * 10**6 + '"}'
    )
    with pytest.raises(ModelError) as error:
        family_of(describe(tmp_path))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_tensors_without_numbers_of_their_own(tmp_path, tensor):
    torch.save({"a": tensor}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="a tensor is sparse, or has no values"):
        read_weights(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc/self/maps to ask")
def test_an_archive_is_mapped(tmp_path):
    torch.save({"a": torch.arange(2.0**20)}, tmp_path / "pytorch_model.bin")
    tensor = read_weights(tmp_path)["a"]
    lines = Path("/proc/self/maps").read_text().splitlines()
    maps = [line.split() for line in lines if line.endswith("pytorch_model.bin")]
    ends = [[int(end, 16) for end in each[0].split("-")] for each in maps]
    assert any(begin <= tensor.data_ptr() < end for begin, end in ends)
    np.testing.assert_array_equal(tensor.numpy()[:3], [0, 1, 2])

"""Weights of other formats come straight in the precision that is wanted: the same numbers, and
nothing held twice."""

from pathlib import Path

import pytest
import torch

import langue
from langue.formats import gguf
from langue.formats.mapped import fill, map_file, numbers
from langue.hub.convert_dtype import pairs_apart
from tests import forked
from tests.tiny_decoder import tiny_decoder

WANTED = [None, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("begin", [0, 4, 3])
def test_numbers_of_a_file_are_its_pages_or_are_copied_in_the_precision_wanted(
    tmp_path, wanted, begin
):
    whole = torch.randn(301, 700)  # several pieces
    (tmp_path / "m").write_bytes(bytes(begin) + whole.numpy().tobytes())
    read = numbers(map_file(tmp_path / "m"), begin, torch.float32, whole.shape, wanted)
    kind = torch.float32 if wanted is None or begin % 4 == 0 else wanted
    assert read.dtype == kind and torch.equal(read, whole.to(kind))


def test_a_vector_is_none_under_another_shape(tmp_path):
    (tmp_path / "m").write_bytes(b"_" + torch.arange(6.0).numpy().tobytes())
    data = map_file(tmp_path / "m")
    for shape in ((6,), (1, 6), (6, 1)):
        assert numbers(data, 1, torch.float32, shape, torch.bfloat16).dtype == torch.float32
    assert numbers(data, 1, torch.float32, (3, 2), torch.bfloat16).dtype == torch.bfloat16
    assert numbers(data, 1, torch.int32, (3, 2), torch.bfloat16).dtype == torch.int32
    assert numbers(data, 1, torch.float32, (0, 3), torch.bfloat16).shape == (0, 3)
    with pytest.raises(ValueError):
        numbers(data, 1, torch.float32, (0, 2**63), None)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(12, 5), (12,), (4, 5)])
def test_rotary_pairs_that_are_neighbours_come_half_a_head_apart(wanted, kind, shape):
    whole = torch.randn(shape).to(kind)
    apart = whole.view(2, -1, 2, *shape[1:]).transpose(1, 2).reshape(shape)
    apart = apart.to(wanted) if wanted is not None and len(shape) > 1 else apart
    read = pairs_apart(whole, 2, wanted)
    assert read.dtype == apart.dtype and torch.equal(read, apart)


@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_q8_0_is_decoded_piece_by_piece_into_the_precision_wanted(tmp_path, monkeypatch, wanted):
    given = {"matrix": torch.randn(300, 1024), "vector": torch.randn(64)}
    written = [
        gguf.Given(name, "Q8_0", tuple(each.shape), lambda each=each: each)
        for name, each in given.items()
    ]
    gguf.write(tmp_path / "m.gguf", {}, written)
    found = gguf.read(tmp_path / "m.gguf")
    most = 2**18
    sizes = []
    expected = {name: found.tensor(name) for name in given}
    decode = gguf.unpack

    def counted(kind, raw):
        sizes.append(raw.nbytes)
        return decode(kind, raw)

    monkeypatch.setattr(gguf, "unpack", counted)
    matrix, vector = (found.tensor(name, wanted) for name in given)
    assert matrix.dtype == wanted and torch.equal(matrix, expected["matrix"].to(wanted))
    assert vector.dtype == torch.float32 and torch.equal(vector, expected["vector"])
    assert len(sizes) == 3 and max(sizes) <= most


def test_pieces_of_any_size_fill_a_tensor():
    whole = torch.randn(7, 9)
    filled = fill(whole.shape, torch.float32, torch.bfloat16, whole.view(-1).split(10))
    assert torch.equal(filled, whole.bfloat16())


CHILD = """
import os, sys
from pathlib import Path
from langue.runs.model import load
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # every core converts a piece of its own
load(sys.argv[1])  # all that a load imports, and the memory that it leaves behind
def told(name):
    lines = (line for line in open("/proc/self/status") if line.startswith(name))
    return int(next(lines).split()[1]) * 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = told("VmRSS")
model = load(sys.argv[2], dtype=sys.argv[3])
print(told("VmHWM") - before, sum(w.nbytes for w in model.language.parameters()))
"""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """100 MB as bf16, of which neither the tokenizer nor the heap is much."""
    folder = tmp_path_factory.mktemp("decoder")
    sizes = {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
    }
    tiny_decoder(folder / "m", "llama", **sizes, num_key_value_heads=8)
    tiny_decoder(folder / "small", "llama")
    return folder


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="no peak of a part of a process's life to ask",
)
@pytest.mark.parametrize("stored", ["q8_0", "f16", "f32"])
def test_a_load_holds_little_more_than_the_model(decoder, stored):
    file = decoder / f"{stored}.gguf"
    langue.convert(decoder / "m", file, dtype=stored)
    done = forked.run_script(CHILD, str(decoder / "small"), str(file), "bf16")
    assert done.returncode == 0, done.stderr
    peak, model = map(int, done.stdout.split())
    file.unlink()
    assert model > 95e6 and peak < 1.1 * model

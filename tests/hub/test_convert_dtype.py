"""Published tensors, stacked and converted as they are read, and what of them is given back
meanwhile."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from langue.hub import convert_dtype, family
from langue.hub.convert_dtype import DtypeConverter
from langue.hub.families.registry import FAMILIES
from langue.hub.weights import read_safetensors


@pytest.mark.parametrize("wanted", [None, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_parts_are_stacked_in_the_precision_wanted(monkeypatch, wanted, chunk):
    monkeypatch.setattr(convert_dtype, "CHUNK_BYTES", chunk)
    parts = [
        torch.randn(3, 5),
        torch.randn(7, 5).bfloat16(),
        torch.randn(5, 4).t(),
        torch.randn(0, 5),
    ]
    whole = torch.cat([part.float() for part in parts]).to(wanted or torch.float32)
    stacked = DtypeConverter(wanted, parts).stack(parts)
    assert stacked.dtype == whole.dtype and torch.equal(stacked, whole)


def test_one_part_of_the_precision_wanted_is_itself_and_vectors_and_numbers_are_not_converted():
    matrix = torch.randn(4, 3)
    vector = torch.randn(3)
    numbers = torch.arange(6).view(2, 3)
    holder = DtypeConverter(torch.float32, [])
    assert holder.stack([matrix]) is matrix
    holder = DtypeConverter(torch.bfloat16, [])
    assert holder.stack([vector]) is vector and holder.stack([numbers]) is numbers
    assert holder.stack([vector, vector]).dtype == torch.float32


def test_what_others_read_is_not_given_back():
    """Memory of no file is zeroes where it was given back."""
    one, transposed, tied, inside = (torch.randn(4096, 64) for _ in range(4))
    whole = {
        "one": one.clone(),
        "transposed": transposed.clone(),
        "tied": tied.clone(),
        "inside": inside.clone(),
    }
    published = [one, transposed, tied, tied, inside]
    holder = DtypeConverter(torch.bfloat16, published)
    for tensor in (one, transposed.t(), tied):
        holder.stack([tensor])
    holder.done([inside], [inside.t()])
    assert torch.equal(tied, whole["tied"]) and torch.equal(inside, whole["inside"])
    # so that the test can fail
    assert not torch.equal(one, whole["one"]) and not torch.equal(transposed, whole["transposed"])


class Made(TorchDispatchMode):
    """The numbers that are made room for."""

    def __init__(self):
        super().__init__()
        self.numbers = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("empty", "clone", "_to_copy", "new_empty", "cat"):
            self.numbers.append(made.numel())
        return made


@pytest.mark.parametrize("wanted", [None, torch.bfloat16])
def test_heads_are_put_in_their_order_by_one_copy(wanted):
    sizes = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
    config = FAMILIES["gpt_neox"].read(
        sizes | {"num_attention_heads": 2, "max_position_embeddings": 8}
    )
    rule = next(r for r in FAMILIES["gpt_neox"].body if r.change == "heads")
    for part in (torch.randn(48, 16), torch.randn(48)):
        expected = part.view(2, 3, 8, *part.shape[1:]).transpose(0, 1).reshape(part.shape)
        with Made() as made:
            (joined,) = family.joined(rule, [part], config, DtypeConverter(wanted, [part]))
        kind = wanted if wanted is not None and part.ndim > 1 else part.dtype
        assert joined.dtype == kind and torch.equal(joined, expected.to(kind))
        assert made.numbers == [part.numel()]


def resident_of(file: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    maps = re.split(
        r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE
    )
    ours = [each for each in maps if str(file) in each.partition("\n")[0]]
    return sum(int(re.search(r"^Rss:\s+(\d+)", each, re.MULTILINE)[1]) * 1024 for each in ours)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc/self/smaps to ask")
@pytest.mark.parametrize("wanted", [None, torch.bfloat16])
def test_of_a_mapped_file_nothing_is_held_beside_the_copy(tmp_path, wanted):
    names = ("a", "b")
    save_file({name: torch.randn(2**20, 8) for name in names}, tmp_path / "m.safetensors")
    stored = read_safetensors(tmp_path / "m.safetensors")
    parts = [stored[name] for name in names]
    DtypeConverter(wanted, parts).stack(parts)
    assert resident_of(tmp_path / "m.safetensors") < 2**21
    float(sum(part.sum() for part in parts))
    assert resident_of(tmp_path / "m.safetensors") > 2**25  # so that the test can fail

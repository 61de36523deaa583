"""Read a folder's weight files, which may be malicious, into tensors under their published names.

No pickle that can run code is ever loaded. A safetensors file is checked by the rules from the
security audit of the format before anything in it is used: the header has at most 100 MB and fits
the file, every name occurs once, every tensor has exactly the bytes that its shape requires, and
there are no overlaps and no holes.
"""

import json
import math
import struct
import warnings
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from langue.errors import ModelError
from langue.files import read_json, unreadable

# A command to show to users, never run here: it writes all tensors of a folder's pickles, whatever
# else these contain, to one file.
CONVERT = (
    'python -c "import glob, torch; from safetensors.torch import save_file; '
    "save_file({k: v.contiguous().clone() for f in glob.glob('pytorch_model*.bin') "
    "for k, v in torch.load(f, weights_only=False).items() if torch.is_tensor(v)}, "
    "'model.safetensors', {'format': 'pt'})\""
)
MXFP4 = "mxfp4"  # the name of the method of `langue.hub.mxfp4` in configs
MOST_HEADER = 100_000_000  # bytes
MOST_DIMENSIONS = 16
_BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
}
_BITS |= {"U16": 16, "U32": 32, "U64": 64, "F8_E4M3": 8, "F8_E5M2": 8}
# dtypes of the format that we do not read
_UNREAD = ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64")
UNQUANTISED = "take the model as it was before its numbers were made fewer bits, in bf16 or fp32"
Reader = Callable[[Path], dict[str, Tensor]]


def read_weights(
    folder: Path, weights_dtype: torch.dtype | None = None, shared: Collection[str] = ()
) -> dict[str, Tensor]:
    """Return all tensors of a folder under the names of `transformers`.

    The first format found is read: safetensors, a clean `.bin` (each as one file, or shards with an
    index), Flax, Keras, or T5's TensorFlow checkpoint. Safetensors are memory-mapped, so they are
    read from disk when used. shared: names of tensors with several names, of which an index and its
    files may list different ones.
    """
    readers: dict[str, Reader] = {
        "model.safetensors": read_safetensors,
        "pytorch_model.bin": _read_bin,
    }
    for name, read in readers.items():
        if (folder / name).is_file():
            return read(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json", Path(name).suffix, read, shared)
    from langue.formats import hdf5, msgpack, tensorflow
    from langue.hub.originals import flax, keras

    if (folder / "flax_model.msgpack").is_file():
        return flax.from_flax(msgpack.read(folder / "flax_model.msgpack", weights_dtype))
    if (folder / "tf_model.h5").is_file():
        return keras.from_tf(hdf5.read(folder / "tf_model.h5", weights_dtype))
    if (index := tensorflow.find(folder)) is not None:
        return flax.from_mesh(tensorflow.read(index, weights_dtype))
    raise ModelError(
        "the folder has no model.safetensors", where=str(folder), do="give a model folder or a run"
    )


def _read_shards(
    index: Path, suffix: str, read: Reader, shared: Collection[str]
) -> dict[str, Tensor]:
    """Read each tensor from the file that the index names for it; files and index must agree,
    except on `shared`.
    """
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelError("the index has no weight_map of names to files", where=str(index))
    files = sorted(set(places.values()))
    if any(Path(name).name != name or not name.endswith(suffix) for name in files):
        raise ModelError("the index names a file outside the folder", where=str(index))
    lost = [name for name in files if not (index.parent / name).is_file()]
    if lost:
        raise ModelError(
            f"{len(lost)} of the {len(files)} files that the index names are not there: {lost[0]}",
            where=str(index),
            do=f"put {', '.join(lost[:3])} beside it, or fetch the model again",
        )
    weights: dict[str, Tensor] = {}
    for file in files:
        shard = read(index.parent / file)
        expected = {name for name, place in places.items() if place == file}
        # Tensors that the index does not list are left to the family, to use or refuse. A listed
        # tensor that is missing may be present under another of its names.
        odd = {name for name in expected - shard.keys() if name not in shared}
        odd |= {name for name in shard.keys() - expected if name in places}
        if odd:
            raise ModelError(f"{file} and the index do not agree on {min(odd)!r}", where=str(index))
        again = next(
            (
                name
                for name in shard
                if name in weights and not torch.equal(weights[name], shard[name])
            ),
            None,
        )
        if again is not None:
            raise ModelError(
                f"two files have {again!r}, which the index does not list, and differ",
                where=str(index),
            )
        weights.update(shard)
    return weights


def read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        check_safetensors(file)
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (it is no dict)
    except PermissionError as error:  # whether the file is damaged or not
        raise unreadable(error, file, ModelError) from None
    except ModelError as error:
        raise ModelError(error.what, where=str(file), do=error.do) from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"not a whole safetensors file: {error}",
            where=str(file),
            do="download or save it again",
        ) from error


def check_safetensors(file: Path) -> None:
    """Raise ValueError if the file violates a rule of the format; tensor data is not read."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        begin = handle.read(8)
        if len(begin) < 8:
            raise ValueError("it ends before its header")
        (length,) = struct.unpack("<Q", begin)
        if length > min(MOST_HEADER, size - 8):
            raise ValueError(f"its header claims {length:,} bytes")
        header = json.loads(handle.read(length), object_pairs_hook=_each_once)
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    spans = sorted(_span(name, entry) for name, entry in header.items() if name != "__metadata__")
    end = 0
    for first, last, name in spans:
        if first != end:
            raise ValueError(f"{'overlap' if first < end else 'hole'} before {name!r}")
        end = last
    if end != size - 8 - length:
        raise ValueError(f"its tensors take {end:,} bytes and it has {size - 8 - length:,}")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("its header names something twice")
    return dict(pairs)


def _span(name: str, entry: Any) -> tuple[int, int, str]:
    """Return the first and last byte offset of a tensor and its name, after a check of shape and
    dtype.

    Raises ModelError for a dtype that is not read.
    """
    if isinstance(entry, dict) and entry.get("dtype") in _UNREAD:
        raise ModelError(f"{name!r} is of {entry['dtype']}, which is not read", do=UNQUANTISED)
    try:
        shape = entry["shape"]
        (first, last) = entry["data_offsets"]
        bits = _BITS[entry["dtype"]]
    except (TypeError, KeyError, ValueError):
        raise ValueError(f"the entry of {name!r} is not one of a tensor") from None
    if (
        not isinstance(shape, list)
        or len(shape) > MOST_DIMENSIONS
        or not all(type(n) is int and 0 <= n < 2**63 for n in [*shape, first, last])
    ):
        raise ValueError(f"{name!r} has a size that is not a count, or too many")
    if (last - first) * 8 != math.prod(shape) * bits:
        raise ValueError(
            f"{name!r} has {last - first:,} bytes for shape {shape} of {entry['dtype']}"
        )
    return first, last, name


def _read_bin(file: Path) -> dict[str, Tensor]:
    try:
        if zipfile.is_zipfile(file):
            # like torch's own files, entries must be uncompressed, since compressed ones could
            # expand without limit
            with zipfile.ZipFile(file) as archive:
                if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                    raise ValueError("it is compressed")
        # Memory-mapped if it is an archive, so that converted tensors do not exist twice.
        with warnings.catch_warnings():
            # a warning about an older protocol: the file is read, or refused below
            warnings.simplefilter("ignore", UserWarning)
            loaded = torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
            )
    except PermissionError as error:
        raise unreadable(error, file, ModelError) from None
    except Exception as error:  # whatever the restricted unpickler raises, the file is refused
        raise ModelError(
            "this pickle is refused: it holds more than plain tensors, or is damaged",
            where=str(file),
            do=(
                "where you trust it with your machine, whose code it may run, convert it there:"
                f" {CONVERT}"
            ),
        ) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(tensor, Tensor) for tensor in loaded.values()
    ):
        raise ModelError("the file is not a state dict", where=str(file))
    if any(
        tensor.layout != torch.strided or tensor.device.type != "cpu" for tensor in loaded.values()
    ):
        raise ModelError(
            "a tensor is sparse, or has no values", where=str(file), do="save it as safetensors"
        )
    # A view with stride 0 could claim terabytes.
    if any(tensor.nbytes > tensor.untyped_storage().nbytes() for tensor in loaded.values()):
        raise ModelError("a tensor has more numbers than the file", where=str(file))
    return loaded

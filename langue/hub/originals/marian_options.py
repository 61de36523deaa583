"""Read and check the options and vocabularies of a Marian release.

They are YAML files beside the .npz, or an array inside it, and may be malicious. Options are texts
by name, which are checked if they affect the computation; vocabularies are ids by name.
"""

import re
from pathlib import Path
from typing import Any

from langue.errors import ModelError
from langue.formats import npz

OPTIONS = "special:model.yml"
MOST_YAML = 64 * 2**20  # bytes
OFF = ("", "false")
# Options that affect the computation, with the values that our Marian implements. Dropout (d) only
# matters in training.
KNOWN: dict[str, tuple[str, ...]] = {
    "type": ("transformer",),
    "right-left": OFF,
    "ulr": OFF,
    "factors-dim-emb": ("0",),
    "lemma-dim-emb": ("0",),
    "lemma-dependency": OFF,
    "input-types": ("", "sequence sequence"),
    # Marian's gelu is x sigmoid(1.702 x), unlike anyone else's
    "transformer-ffn-activation": ("swish", "relu"),
    "transformer-ffn-depth": ("2",),
    "transformer-decoder-ffn-depth": ("0", "2"),
    "transformer-no-projection": OFF,
    "transformer-pool": OFF,
    "transformer-preprocess": ("", "d"),
    "transformer-postprocess": ("dan", "an"),
    "transformer-postprocess-emb": ("", "d"),
    "transformer-postprocess-top": ("", "d"),
    "transformer-train-positions": OFF,
    "transformer-train-position-embeddings": OFF,
    "transformer-decoder-autoreg": ("self-attention",),
    "transformer-tied-layers": ("",),
}
# Options of training, initialisation or alignment, or of kinds of layers that are refused above.
INERT = re.compile(
    r"transformer-(heads|dim-ffn|decoder-dim-ffn|dropout.*|depth-scaling|guided-alignment-layer|.*aan.*|rnn-projection)"
)
Flat = dict[str, str | list[str]]


def options_of(file: Path) -> Flat:
    """Return the options of the architecture; those that affect the computation are checked."""
    inside = npz.read(file, OPTIONS).get(OPTIONS)
    options = _beside(file) if inside is None else _parse(inside.tobytes().rstrip(b"\0"), file)
    for key, value in options.items():
        said = " ".join(words(value)).lower()
        if key in KNOWN and ("" if said in ("~", "null") else said) not in KNOWN[key]:
            raise ModelError(f"the option {key} = {said!r} is not supported", where=str(file))
        if key not in KNOWN and key.startswith("transformer-") and not INERT.fullmatch(key):
            raise ModelError(f"the option {key} = {said!r} is not known", where=str(file))
    if "type" not in options:
        raise ModelError(
            "the options of the architecture are missing",
            where=str(file),
            do=f"put {file.name}.yml here",
        )
    return options


def _beside(file: Path) -> Flat:
    """Return the options in files beside the weights; more specific files override others."""
    others = sorted(file.parent.glob("*.npz.yml"))
    special = [file.with_name(file.name + end) for end in (".decoder.yml", ".yml")]
    paths = [file.parent / "decoder.yml", *(others if len(others) == 1 else []), *special]
    return {
        key: value for path in paths if path.is_file() for key, value in read_yaml(path).items()
    }


def tables_of(options: Flat) -> tuple[tuple[str, str], bool, bool]:
    """Return the names of the two embeddings, whether they are one table, and whether the output
    matrix is tied to the target's.
    """
    every, source, output = (
        options.get(f"tied-embeddings{end}") == "true" for end in ("-all", "-src", "")
    )
    names = ("Wemb", "Wemb") if every or source else ("encoder_Wemb", "decoder_Wemb")
    return names, every or source, every or output


def count(options: Flat, key: str, file: Path) -> int:
    size = _number(options.get(key))
    if not size:
        raise ModelError(f"the option {key} = {options.get(key)!r} is not a size", where=str(file))
    return size


def _number(value: Any) -> int | None:
    plain = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    return int(value) if plain else None


def words(value: Any) -> list[str]:
    """Return the entries of a list, or a single word as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def read_yaml(path: Path) -> Flat:
    if path.stat().st_size > MOST_YAML:
        raise ModelError(f"a .yml of {path.stat().st_size:,} bytes", where=str(path))
    return _parse(path.read_bytes(), path)


def _parse(data: bytes, path: Path) -> Flat:
    """Parse a mapping from names to texts or lists of texts.

    Texts are not interpreted, so that `no` and `1e5` stay texts. The parser's events are read one
    by one, because a nested document could be so deep that building its tree crashes the process.
    """
    import yaml  # a dependency of huggingface_hub

    content: Flat = {}
    key: str | None = None
    depth = 0
    try:
        for event in yaml.parse(data, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
            if getattr(event, "anchor", None) is not None:
                raise ValueError("anchors and aliases are not Marian's")
            if isinstance(event, yaml.CollectionStartEvent):
                inner = (
                    depth == 1 and key is not None and isinstance(event, yaml.SequenceStartEvent)
                )
                if not inner and (depth or isinstance(event, yaml.SequenceStartEvent)):
                    raise ValueError("it is not a mapping of names to texts and lists")
                if inner and key is not None:
                    content[key] = []
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth = depth - 1
                key = None
            elif isinstance(event, yaml.ScalarEvent):
                key = _take(content, key, event.value, depth)
    except (yaml.YAMLError, ValueError) as error:
        raise ModelError(
            f"not options or names in YAML: {' '.join(str(error).split())[:200]}", where=str(path)
        ) from error
    return content


def _take(content: Flat, key: str | None, value: str, depth: int) -> str | None:
    """Store a text where it belongs, and return the key that is current afterwards."""
    if depth == 1 and key is None:
        if value in content:
            raise ValueError(f"{value!r} is there twice")
        return value
    if depth != 1 and depth != 2 or key is None:
        raise ValueError("it is not a mapping")
    if depth == 1:
        content[key] = value
        return None
    content[key].append(value)  # type: ignore[union-attr]
    return key


def vocabularies(file: Path) -> list[dict[str, int]]:
    """Return the ids by name of source and target vocabulary, which may be the same file."""
    folder = file.parent
    paths = [folder / Path(name).name for name in words(_beside(file).get("vocabs"))]
    if len(paths) != 2 or not all(path.is_file() for path in paths):
        found = sorted(folder.glob("*vocab.yml"))
        sides = [
            [path for path in found if path.name.endswith(f"{end}.vocab.yml")]
            for end in ("src", "trg")
        ]
        paths = found * 2 if len(found) == 1 else [*sides[0], *sides[1]]
    if len(paths) != 2 or any(path.suffix not in (".yml", ".yaml", ".json") for path in paths):
        raise ModelError(
            "the release has no *vocab.yml, or several",
            where=str(folder),
            do="name two in decoder.yml",
        )
    read: dict[Path, dict[str, int]] = {}
    for path in set(paths):
        numbers = {name: _number(value) for name, value in read_yaml(path).items()}
        read[path] = {name: number for name, number in numbers.items() if number is not None}
        if len(read[path]) != len(numbers):
            raise ModelError(f"{min(numbers.keys() - read[path])!r} has no number", where=str(path))
    return [dict(read[path]) for path in paths]

"""Map the keys of published configs to the axes of `ModelConfig`, and back.

A key that only has another name is a line in a family's table (`Names`), which is used in both
directions.
"""

import json
from collections.abc import Mapping
from typing import Any

from langue.errors import ModelError
from langue.model.config import ModelConfig

Config = Mapping[str, Any]
MOST = 2**24  # upper limit of every count in a config, such as context length or vocabulary
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "relu2": "relu_squared",
    "tanh": "tanh",
}


class Names:
    """A table of our axis = their key, or (key, default) if a config may omit the key."""

    def __init__(self, **names: str | tuple[str, Any]) -> None:
        self.names = names

    def read(self, config: Config, **axes: Any) -> dict[str, Any]:
        """Return the axes of the table, and the given axes, which are fixed for the family.

        Raises ModelError for a key without a default that is missing or is not a count.
        """
        for ours, theirs in self.names.items():
            if isinstance(theirs, str):
                axes[ours] = take(config, theirs)
            else:
                axes[ours] = (
                    read_activation(config, *theirs)
                    if _is_activation(ours)
                    else config.get(*theirs)
                )
        return axes

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Return the published keys, the inverse of `read`."""
        keys = {
            ours: theirs if isinstance(theirs, str) else theirs[0]
            for ours, theirs in self.names.items()
        }
        values = {key: getattr(config, ours) for ours, key in keys.items()}
        return values | {
            key: write_activation(values[key]) for ours, key in keys.items() if _is_activation(ours)
        }


USUAL = {  # the names of the sizes in most configs since BERT
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "max_length": "max_position_embeddings",
}


def own_names(config: Config, aliases: Mapping[str, str]) -> Config:
    """Return the config under the names that the family's own configs use.

    aliases: other name -> own name, like `attribute_map` of the published config classes. Raises
    ModelError if a config has different values under both names: which of them the published
    classes use depends on their version.
    """
    renamed = dict(config)
    for alias, own in aliases.items():
        value = renamed.pop(alias, None)
        if value is None:
            continue
        if renamed.get(own, value) != value:
            raise ModelError(
                f"config: {own} = {renamed[own]!r} and {alias} = {value!r} are two names of one"
                " value",
                do=f"remove the wrong one of the two from config.json; {own} is the usual name",
            )
        renamed[own] = value
    return renamed


def _is_activation(axis: str) -> bool:
    return axis.endswith("activation")


def require(config: Config, **expected: Any) -> None:
    """Raise ModelError for values that the family's rules cannot express."""
    for key, known in expected.items():
        choices = known if isinstance(known, tuple) else (known,)
        if key in config and config[key] not in choices:
            raise ModelError(
                f"config: {key} = {json.dumps(config[key], default=str)} is not supported for this"
                " family",
                do=f"supported: {', '.join(map(str, choices))}",
            )


def take(config: Config, key: str, kind: type = int) -> Any:
    """Return a required value of a config."""
    if key not in config:
        raise ModelError(f"config: {key} is missing")
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ModelError(f"config: {key} = {value!r} is not of type {kind.__name__}")
    if isinstance(value, int) and value > MOST:
        raise ModelError(f"config: {key} = {value:,} is beyond any model")
    return value


def read_activation(config: Config, key: str, default: str) -> Any:
    """Return our name of a published activation; ModelError for an unknown one."""
    require(config, **{key: tuple(ACTIVATIONS)})
    return ACTIVATIONS[config.get(key, default)]


def write_activation(ours: str) -> str:
    published = {"gelu_tanh": "gelu_new", "gelu_quick": "quick_gelu", "relu_squared": "relu2"}
    return published.get(ours, ours)

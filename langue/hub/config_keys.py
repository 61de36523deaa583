"""What arrives: a published config. What leaves: its values as axes of `ModelConfig`; and back
again.

What a config has under another name, and nothing else is to be said of, is a line of a family's
table (`Names`), which is read both ways.
"""

import json
from collections.abc import Mapping
from typing import Any

from langue.errors import ModelError
from langue.model.config import ModelConfig

Config = Mapping[str, Any]
MOST = 2**24  # of anything that a config counts: a context, a vocabulary
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
    """A table: our axis = their key, or (key, value) with the value that a config stands for which
    lacks the key.
    """

    def __init__(self, **names: str | tuple[str, Any]) -> None:
        self.names = names

    def read(self, config: Config, **axes: Any) -> dict[str, Any]:
        """The axes of the table beside those given, which the family has whatever its configs say.
        ModelError for a key without a default that is missing or is not a count.
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
        """The inverse of `read`."""
        keys = {
            ours: theirs if isinstance(theirs, str) else theirs[0]
            for ours, theirs in self.names.items()
        }
        values = {key: getattr(config, ours) for ours, key in keys.items()}
        return values | {
            key: write_activation(values[key]) for ours, key in keys.items() if _is_activation(ours)
        }


USUAL = {  # what most configs since BERT's call the sizes
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "max_length": "max_position_embeddings",
}


def own_names(config: Config, aliases: Mapping[str, str]) -> Config:
    """The config under the names that the family's own configs use.

    aliases: other name -> own name, as `attribute_map` of the published config classes has it.
    ModelError where a config gives one value under both names and the two differ: the published
    classes follow one or the other, depending on their version.
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
    """Refuse values that change the mathematics in a way this family's rules do not express."""
    for key, known in expected.items():
        choices = known if isinstance(known, tuple) else (known,)
        if key in config and config[key] not in choices:
            raise ModelError(
                f"config: {key} = {json.dumps(config[key], default=str)} is not supported for this"
                " family",
                do=f"supported: {', '.join(map(str, choices))}",
            )


def take(config: Config, key: str, kind: type = int) -> Any:
    """A value that a config must have."""
    if key not in config:
        raise ModelError(f"config: {key} is missing")
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ModelError(f"config: {key} = {value!r} is not of type {kind.__name__}")
    if isinstance(value, int) and value > MOST:
        raise ModelError(f"config: {key} = {value:,} is beyond any model")
    return value


def read_activation(config: Config, key: str, default: str) -> Any:
    """The published name of an activation as ours; ModelError for one that is not known."""
    require(config, **{key: tuple(ACTIVATIONS)})
    return ACTIVATIONS[config.get(key, default)]


def write_activation(ours: str) -> str:
    published = {"gelu_tanh": "gelu_new", "gelu_quick": "quick_gelu", "relu_squared": "relu2"}
    return published.get(ours, ours)

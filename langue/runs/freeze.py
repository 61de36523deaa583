"""Freezing: takes a model to train, and the parts of it to freeze."""

import re

from torch import nn

from langue.errors import SettingsError
from langue.train.optimizer import depth

EMBEDDINGS = "embeddings"
BODY = "body"


def freeze_parts(network: nn.Module, parts: tuple[str, ...], n_layers: int) -> None:
    """Freeze the parts named by `model.freeze`; layer numbers refer to both encoder and decoder.

    Raises SettingsError if a part does not exist, or nothing is left to train.
    """
    depths = frozen_depths(parts, n_layers)
    for name, weight in network.named_parameters():
        inside = BODY in parts and name.startswith("body.")
        if inside or depth(name, n_layers) in depths:
            weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in network.parameters()):
        raise SettingsError(
            f"model.freeze = {','.join(parts)} leaves nothing to train", do="freeze less"
        )


def frozen_depths(parts: tuple[str, ...], n_layers: int) -> set[int]:
    """Return the depths of the named parts, as the optimizer counts them: 0 for the embeddings, i +
    1 for layer i.
    """
    depths: set[int] = set()
    for part in parts:
        if part == EMBEDDINGS:
            depths.add(0)
            continue
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first = int(found[1]) if found else 0
        last = int(found[2] or found[1]) if found else 0
        if part != BODY and (not found or not first <= last < n_layers):
            raise SettingsError(
                f"model.freeze = {part} is no part of the model",
                do=f"give {EMBEDDINGS}, {BODY}, or layers of 0-{n_layers - 1}",
            )
        if found:
            depths |= set(range(first + 1, last + 2))
    return depths

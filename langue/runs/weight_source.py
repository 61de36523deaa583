"""Resolution of what to load: takes the name of a model, and the formats of its matrices; returns
what to read and how, before any weight is read, with a key that models with the same base share.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from langue.errors import SettingsError
from langue.hub.checkpoint import Description, describe, family_of, is_quantized
from langue.model.weight_kinds import check_weight_kind
from langue.runs.weight_plan import STORED
from langue.runtime import precision
from langue.tasks import TASKS


@dataclass(frozen=True)
class WeightSource:
    """A described model, the format of its matrix products, and the format in which matrices are
    held.
    """

    described: Description
    kind: torch.dtype
    held: str | None
    table: str | None  # as in `WeightPlan`

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder, if the model is an adapter."""
        return self.described.told if self.described.base is not None else None

    @property
    def base(self) -> Description:
        """The base of an adapter; otherwise the model itself."""
        return self.described.base or self.described

    @property
    def key(self) -> tuple[str, ...]:
        """A key that is equal for models which share all weights except those of adapters."""
        file = self.base.original or self.base.folder
        return str(file.resolve()), str(self.kind), str(self.held), str(self.table)


def source_of(
    name: str | Path, revision: str | None, dtype: str, weights: str | None
) -> WeightSource:
    """Return the source for the arguments of `load`; raise SettingsError or ModelError if they are
    invalid.
    """
    # integers are multiplied with fp32 states, so "auto" does not ask the hardware
    kind = precision("fp32" if dtype == "auto" and weights is not None else dtype)
    if weights is not None and kind != torch.float32:
        raise SettingsError(
            f"dtype = {dtype} and weights = {weights} both say what the matrices are held in",
            do="leave one of them out",
        )
    if weights not in (None, STORED):
        check_weight_kind(weights)
    described = describe(name, revision)
    family_of(described)
    of_adapter = described.base is not None
    if of_adapter and weights is None and dtype in ("fp32", "auto"):
        weights = ((described.task or {}).get("base") or {}).get("weights")
        kind = torch.float32 if weights is not None else kind
    if weights is None and dtype in ("fp32", "auto") and is_quantized(described.published):
        weights = STORED
        kind = torch.float32
    task = str((described.task or {}).get("task"))
    of_language = of_adapter and task in TASKS and TASKS[task].has_language_head
    table = "fp32" if of_language and weights not in (None, STORED) else None
    return WeightSource(described, kind, weights, table)

"""What arrives: the name of a model, and what its matrices are to be held in. What leaves: what is
to be read, and how, before any weight is; models that share a base are known by it.
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
    """A described model, what its matrices are multiplied in, and what they are held in."""

    described: Description
    kind: torch.dtype
    held: str | None
    table: str | None  # as in `WeightPlan`

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter that it is."""
        return self.described.told if self.described.base is not None else None

    @property
    def base(self) -> Description:
        """Of an adapter: the model that it is beside; else the model itself."""
        return self.described.base or self.described

    @property
    def key(self) -> tuple[str, ...]:
        """The same of all whose weights, but for those of adapters, are the same tensors."""
        file = self.base.original or self.base.folder
        return str(file.resolve()), str(self.kind), str(self.held), str(self.table)


def source_of(
    name: str | Path, revision: str | None, dtype: str, weights: str | None
) -> WeightSource:
    """As `load` has these. SettingsError or ModelError where they cannot be followed."""
    # whole numbers are multiplied with states in fp32: to ask the hardware is to be answered so
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

"""What the field does with a model, one file a task. `TASKS` and `OBJECTIVES` name them."""

from typing import TYPE_CHECKING

from langue.registry import Registry

if TYPE_CHECKING:
    from langue.tasks.language import LanguageObjective
    from langue.tasks.task import Task

TASKS: "Registry[type[Task]]" = Registry(
    {"classify": "tasks.classify:Classify", "regress": "tasks.regress:Regress"}
)
OBJECTIVES: "Registry[type[LanguageObjective]]" = Registry(
    {
        "causal": "tasks.causal:Causal",
        "masked": "tasks.masked:Masked",
        "denoise": "tasks.denoise:Denoise",
    }
)

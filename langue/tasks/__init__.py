"""What the field does with a model, one file a task. `TASKS` and `OBJECTIVES` name them."""

from langue.tasks.causal import Causal
from langue.tasks.classify import Classify
from langue.tasks.denoise import Denoise
from langue.tasks.language import LanguageObjective
from langue.tasks.masked import Masked
from langue.tasks.regress import Regress
from langue.tasks.task import Task

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classify, Regress)}
OBJECTIVES: dict[str, type[LanguageObjective]] = {
    each.name: each for each in (Causal, Masked, Denoise)
}

"""What the field does with a model, one file a task. `TASKS` and `OBJECTIVES` name them: a task
enters langue by standing in this list."""

from langue.settings.sections import Section
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
DEFAULT_TASK = Classify.name
DEFAULT_OBJECTIVE = Causal.name

# The `task.*` settings of all, by what they are of.
OPTIONS: dict[str, type[Section]] = {
    **{f"the task {name}": task.Options for name, task in TASKS.items()},
    **{f"the objective {name}": each.Options for name, each in OBJECTIVES.items()},
}

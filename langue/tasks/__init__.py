"""What the field does with a model, one file a task. `TASKS` names them."""

from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from langue.tasks.task import Task

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classify, Regress)}

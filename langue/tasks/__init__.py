"""Registry of the tasks and pretraining objectives, each of which is one file of this folder.

A task is part of langue once it is listed here.
"""

from typing import TYPE_CHECKING

from langue.registry import Registry

if TYPE_CHECKING:
    from langue.settings.sections import Section
    from langue.tasks.language import LanguageObjective
    from langue.tasks.task import Task

_TASKS = {
    "classify": "tasks.classify:Classify",
    "regress": "tasks.regress:Regress",
    "tag": "tasks.tag:Tag",
    "extract": "tasks.extract:Extract",
    "seq2seq": "tasks.seq2seq:Seq2Seq",
    "embed": "tasks.embed:Embed",
    "chat": "tasks.chat:Chat",
    "preference": "tasks.preference:Preference",
}
_OBJECTIVES = {
    "causal": "tasks.causal:Causal",
    "masked": "tasks.masked:Masked",
    "denoise": "tasks.denoise:Denoise",
}
TASKS: "Registry[type[Task]]" = Registry(_TASKS)
OBJECTIVES: "Registry[type[LanguageObjective]]" = Registry(_OBJECTIVES)
DEFAULT_TASK = "classify"
DEFAULT_OBJECTIVE = "causal"
# The task of each scikit-learn estimator in `langue.estimators`.
ESTIMATED = {"TextClassifier": "classify", "TextRegressor": "regress", "Tagger": "tag"}

# The `task.*` settings of every task and objective.
OPTIONS: "Registry[type[Section]]" = Registry(
    {
        **{f"the task {name}": f"{place}.Options" for name, place in _TASKS.items()},
        **{f"the objective {name}": f"{place}.Options" for name, place in _OBJECTIVES.items()},
    }
)

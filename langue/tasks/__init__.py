"""What the field does with a model, one file a task. `TASKS` and `OBJECTIVES` name them: a task
enters langue by standing in this list.
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
# What scikit-learn's estimators of `langue.estimators` are trained for.
ESTIMATED = {"TextClassifier": "classify", "TextRegressor": "regress", "Tagger": "tag"}

# The `task.*` settings of all, by what they are of.
OPTIONS: "Registry[type[Section]]" = Registry(
    {
        **{f"the task {name}": f"{place}.Options" for name, place in _TASKS.items()},
        **{f"the objective {name}": f"{place}.Options" for name, place in _OBJECTIVES.items()},
    }
)

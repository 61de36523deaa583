"""What arrives: nothing. What leaves: every key that a recipe or a command may set."""

from typing import Any, Literal, get_args, get_origin

from langue.settings.sections import PRETRAINING, known
from langue.tasks import OPTIONS


def settings() -> dict[str, dict[str, Any]]:
    """`{"train.lr": {"default", "description", "choices"}, ...}`, in the order of the sections;
    `pretrain` where pretraining has another default, `others` by the tasks that have another.
    """
    rows: dict[str, dict[str, Any]] = {}
    for key, field in known(*OPTIONS.values()).items():
        choices = (
            list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []
        )
        rows[key] = {"default": field.default, "description": field.description, "choices": choices}
        others = {}
        for owner, options in OPTIONS.items():
            own = options.model_fields.get(key.removeprefix("task."))
            if key.startswith("task.") and own is not None and own.default != field.default:
                others[owner.split()[-1]] = own.default
        rows[key] |= {"others": others} if others else {}
        rows[key] |= {"pretrain": PRETRAINING[key]} if key in PRETRAINING else {}
    return rows

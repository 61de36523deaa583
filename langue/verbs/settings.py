"""List every key that a recipe or a command may set."""

from typing import Any, Literal, get_args, get_origin

from langue.settings.sections import PRETRAINING, known
from langue.tasks import OPTIONS


def settings() -> dict[str, dict[str, Any]]:
    """Return `{"train.lr": {"default", "description", "choices"}, ...}`, in the order of sections.

    `pretrain` holds the default of pretraining if it differs, and `others` the differing defaults
    of tasks.
    """
    rows: dict[str, dict[str, Any]] = {}
    for key, field in known(*OPTIONS.values()).items():
        row: dict[str, Any] = {}
        row["default"] = field.default
        row["description"] = field.description
        row["choices"] = _choices(field.annotation)
        others = _other_defaults(key, field.default)
        if others:
            row["others"] = others
        if key in PRETRAINING:
            row["pretrain"] = PRETRAINING[key]
        rows[key] = row
    return rows


def _choices(annotation: Any) -> list[Any]:
    is_choice = get_origin(annotation) is Literal
    return list(get_args(annotation)) if is_choice else []


def _other_defaults(key: str, default: Any) -> dict[str, Any]:
    """Return task -> default of a `task.*` key, for tasks whose default differs."""
    if not key.startswith("task."):
        return {}
    name = key.removeprefix("task.")
    found = {}
    for owner, options in OPTIONS.items():
        own = options.model_fields.get(name)
        if own is not None and own.default != default:
            task = owner.split()[-1]
            found[task] = own.default
    return found

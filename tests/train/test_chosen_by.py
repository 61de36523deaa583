"""What the checkpoint that is kept is best in: `train.best`, which patience follows too."""

import pytest

from langue.errors import SettingsError
from langue.tasks.classify import Classify
from langue.tasks.regress import Regress
from tests.train.child import SETTINGS, trainer

SEVERAL = Classify.Options(multi_label=True)
BALANCED = Classify.Options(class_weights="balanced")
BOTH = Classify.Options(multi_label=True, class_weights="balanced")
TASKS = [
    (Classify(["a", "b"], Classify.Options()), "accuracy", "accuracy"),
    (Classify(["a", "b", "c"], BALANCED), "f1_macro", "accuracy"),
    (Classify(["a", "b"], SEVERAL), "f1_micro", "f1_micro"),
    (Classify(["a", "b"], BOTH), "f1_macro", "f1_micro"),
    (Regress(Regress.Options()), "pearson", "pearson"),
]


@pytest.mark.parametrize(("task", "default", "before"), TASKS)
def test_every_metric_of_a_task_may_be_chosen_by_and_no_other(task, default, before):
    # as runs did that began before there was the setting
    assert (task.best, task.primary_metric) == (before, before)
    task.choose_by(None)
    assert (task.best, task.primary_metric) == (default, default)
    for name in task.metric_names():
        task.choose_by(name)
        assert (task.best, task.primary_metric) == (name, name)
    task.choose_by("loss")
    assert (task.best, task.primary_metric) == ("loss", name)
    for name in ("f2", "perplexity", ""):
        with pytest.raises(
            SettingsError,
            match=f"train.best = '{name}' is no metric of the task {task.name}; .*known:",
        ):
            task.choose_by(name)


# What four evaluations find: each is the best in something.
FOUND = [
    {"loss": 0.6, "accuracy": 0.90, "f1_macro": 0.539, "calibration_error": 0.3, "mcc": None},
    {"loss": 0.5, "accuracy": 0.85, "f1_macro": 0.735, "calibration_error": 0.2, "mcc": -0.5},
    {"loss": 0.4, "accuracy": 0.80, "f1_macro": 0.700, "calibration_error": 0.4, "mcc": -0.5},
    {"loss": 0.7, "accuracy": 0.80, "f1_macro": 0.700, "calibration_error": 0.1, "mcc": -0.6},
    {"loss": 0.8, "accuracy": 0.70, "f1_macro": 0.600, "calibration_error": 0.5, "mcc": -0.9},
]


@pytest.mark.parametrize(
    ("best", "kept", "last"),
    [
        ("accuracy", 1, 3),
        ("f1_macro", 2, 4),
        ("loss", 3, 5),
        ("calibration_error", 4, 5),
        ("mcc", 3, 5),  # undefined is worse than any; of equal ones that with the lower loss
    ],
)
def test_the_best_checkpoint_and_patience_follow_it(tmp_path, monkeypatch, best, kept, last):
    settings = SETTINGS.model_copy(
        update={"evaluate_every": 1, "max_steps": 5, "patience": 2, "checkpoint_every": 9}
    )
    run = trainer(tmp_path, settings)
    run.objective.choose_by(best)
    found = iter(FOUND)

    def evaluate(*_, **__):
        metrics = dict(next(found))
        return metrics, metrics.pop("loss")

    monkeypatch.setattr(run.objective, "evaluate", evaluate)
    progress = run.run()
    assert (progress.best_step, progress.step) == (kept, last)
    assert (tmp_path / "checkpoints" / f"best-{kept:08d}").is_dir()

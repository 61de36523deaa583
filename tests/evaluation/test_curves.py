"""Curves: a picture for every log that a run can leave, and no global state."""

import math
import subprocess
import sys
from io import BytesIO

import pytest
from matplotlib.image import imread

from langue.evaluation import curves

RENDERS = True  # figures are rendered: tests/conftest.py

RUN = [
    {"split": "train", "step": s, "epoch": s / 50, "loss": 1 / s, "lr": 1e-4} for s in range(1, 101)
]
RUN += [
    {"split": "dev", "step": s, "epoch": s / 50, "loss": 0.5, "accuracy": s / 200}
    for s in (50, 100)
]


PRETRAINING = [
    {"split": split, "step": s, "epoch": s / 50, "loss": 9 / s, "perplexity": math.exp(9 / s)}
    for s in range(1, 101)
    for split in ("train", "dev")
]


@pytest.mark.parametrize(
    "log",
    [
        RUN,
        PRETRAINING,
        RUN[:1],
        [],
        [
            {"split": "train", "step": 1, "epoch": 0.1, "loss": math.nan},
            {"split": "dev", "step": 1, "accuracy": None},
        ],
        [{"split": "dev", "step": 3, "epoch": 40.0, "loss": 1.0, "spearman": 0.4, "pearson": 0.2}],
        [{"split": "train", "step": 1, "loss": 1.0, "accuracy": 0.5}],
    ],
    ids=["run", "pretraining", "one step", "empty", "undefined", "scores", "train only"],
)
def test_every_log_gives_a_picture(log, tmp_path):
    curves.Curves(log).write(tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png").shape[:2] == (660, 1650)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    for panel in curves.Curves(log).panels():
        assert imread(BytesIO(panel)).shape[:2] == (836, 946)


def test_the_same_log_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        curves.Curves(RUN).write(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_points_are_sorted_and_finite():
    log = [
        {"split": "dev", "step": s, "loss": v}
        for s, v in ((3, 1.0), (1, 2.0), (2, math.inf), (4, None))
    ]
    assert curves._points(log, "dev", "loss") == [(1.0, 2.0), (3.0, 1.0)]


def test_smoothing_is_centred():
    line = [(float(i), float(i)) for i in range(100)]
    assert curves._smooth(line)[50] == (50.0, 50.0)
    assert curves._smooth(line[:10]) == line[:10]
    assert [step for step, _ in curves._smooth(line)] == [step for step, _ in line]


def test_the_right_half_shows_what_the_best_step_is_chosen_by():
    from langue.tasks.classify import Classify
    from langue.tasks.regress import Regress

    dev = {"split": "dev", "accuracy": 1, "f1_macro": 1, "f1_micro": 1, "pearson": 1, "spearman": 1}
    several = Classify.Options(multi_label=True)
    for task in (
        Classify(["a"], several),
        Classify(["a", "b"], Classify.Options()),
        Regress(Regress.Options()),
    ):
        assert (
            curves._quality([dev, {"split": "train", task.primary_metric: 1}, dev])
            == task.primary_metric
        )
    assert {Classify(["a"], several).primary_metric, Regress(Regress.Options()).primary_metric} == {
        "f1_micro",
        "pearson",
    }
    assert curves._quality([]) == "accuracy"


def test_of_equal_steps_the_one_that_is_kept_is_ringed():
    points = [(5.0, 0.7), (10.0, 0.74), (15.0, 0.74), (20.0, 0.74)]
    assert curves._best(
        points, lower=False, losses={5.0: 0.1, 10.0: 0.63, 15.0: 0.62, 20.0: 0.62}
    ) == (15.0, 0.74)
    assert curves._best(points, lower=False, losses={}) == (10.0, 0.74)
    assert curves._best(points, lower=True, losses={}) == (5.0, 0.7)


def test_the_kept_step():
    dev = [
        {"split": "dev", "step": step, "loss": loss, "accuracy": accuracy}
        for step, loss, accuracy in ((1, 0.3, 0.5), (2, 0.4, 0.9), (3, 0.35, 0.9))
    ]
    assert curves.Curves(dev, quality="accuracy").kept_step() == 3
    assert curves.Curves(dev, quality="accuracy", by_loss=True).kept_step() == 1
    assert curves.Curves(dev, quality="perplexity").kept_step() is None


def test_each_half_for_a_page():
    panels = curves.Curves(RUN, baseline={"accuracy": 0.1}).panels()
    assert [panel[:4] for panel in panels] == [b"\x89PNG"] * 2 and panels[0] != panels[1]
    assert panels[1] != curves.Curves(RUN).panels()[1]  # the baseline is a line
    assert panels[0] == curves.Curves(RUN).panels()[0]
    assert panels[0] != curves.Curves(RUN, baseline={"loss": 0.7}).panels()[0]


def test_ends_of_passes():
    assert curves._pass_ends(RUN) == [50.0, 100.0]
    assert curves._pass_ends([{"step": 7, "epoch": 2.0}]) == [7.0, 7.0]


def test_pyplot_is_left_alone(tmp_path):
    code = (
        "import sys; from langue.evaluation import curves; curves.Curves([]).write("
        f"{str(tmp_path / 'c.png')!r}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

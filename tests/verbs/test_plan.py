"""A plan's figures by hand, and what it says to what cannot be planned."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import langue
from langue.cli import run
from langue.errors import SettingsError
from langue.hub.checkpoint import describe, family_of
from langue.hub.family import parameters
from langue.hub.presets import preset
from langue.planning.memory import FULL, Layout, Sizes, memory
from langue.planning.timing import flops_per_token
from langue.verbs.plan import _budget, count_parameters
from tests.tiny import CONFIG, tiny_bert
from tests.tiny_decoder import tiny_decoder


def gpt2(**more):
    given = {
        "preset": "gpt2",
        "vocabulary": 50257,
        "tokens": "10B",
        "hardware": "h100",
        "devices": 8,
    }
    return langue.plan(**{**given, **more})


def test_gpt2_on_ten_billion_tokens():
    found = gpt2()
    assert found["model"]["parameters"] == 124_439_808
    assert found["training"]["flops_6nd"] == pytest.approx(6 * 124_439_808 * 10e9)
    assert (found["training"]["batch_tokens"], found["training"]["steps"]) == (1 << 19, 19_074)
    # 12 layers of 12 D^2 and the output matrix, twice forward; scores and their mixing of 1,024
    # tokens; times three.
    flops = 3 * (2 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 4 * 768 * 1024)
    assert flops_per_token(preset("gpt2", 50257, 1024)[1], 1024) == flops
    seconds = 10e9 * flops / (8 * 989.4e12 * 0.4)
    assert found["cost"]["days"] == pytest.approx(seconds / 86_400)
    assert found["cost"]["kwh"] == pytest.approx(8 * 0.7 * seconds / 3600 * 1.56)
    assert found["layout"]["name"] == "data parallel 8" and found["layout"]["in_langue"]
    assert found["memory"]["total"] < 0.9 * found["memory"]["device"]
    json.dumps(found)


def test_a_stated_utilisation_is_taken_as_it_is():
    found = gpt2(mfu=0.5, devices=1024, batch_tokens="4M", pue=1.0)
    assert found["hardware"]["mfu"] == 0.5 and found["hardware"]["mfu_from"] == "given"
    assert not any("assumption" in line for line in found["assumed"])
    assert gpt2(devices=1024, batch_tokens="4M")["hardware"]["mfu"] < 0.4


@pytest.mark.parametrize("name", ["gpt2", "langue", "bert-tiny", "llama-135m", "t5-small"])
def test_parameters_are_those_of_the_whole_model(name):
    assert_counted(preset(name, 1000, 64)[1])


@pytest.mark.parametrize("groups", [1, 3])
def test_a_block_that_several_layers_apply_is_counted_once(groups):
    """ALBERT's, which is held once, and of which FSDP gathers one."""
    config = replace(preset("bert-base", 1000, 64)[1], layer_groups=groups)
    assert_counted(config)
    sizes = count_parameters(config)
    whole = memory(config, sizes, 64, Layout(), FULL, None)
    assert whole.weights == FULL * sizes.total
    sharded = memory(config, sizes, 64, Layout(data=4, sharded=True), FULL, None)
    assert sharded.gathered == FULL * (3 * sizes.blocks / groups + 2 * sizes.outside)


def assert_counted(config):
    total = sum(math.prod(shape) for shape in parameters(config).values())
    blocks = sum(
        math.prod(shape) for part, shape in parameters(config).items() if ".blocks." in part
    )
    found = count_parameters(config)
    assert (found.total, found.blocks) == (total, blocks)


def test_a_budget_of_operations_is_spent_on_the_best_size():
    found = langue.plan(budget="1e21", hardware="a100", devices=64)
    assert found["model"]["parameters"] == pytest.approx((1e21 / 120) ** 0.5, rel=0.05)
    assert found["training"]["flops_6nd"] == pytest.approx(1e21, rel=1e-6)
    assert [law["tokens_per_parameter"] for law in found["optimal"]["laws"]][0] == pytest.approx(20)
    given = langue.plan(budget=1e21, size="1B", hardware="a100", devices=64)
    assert given["training"]["tokens"] * 6 * given["model"]["parameters"] == pytest.approx(
        1e21, rel=1e-6
    )


def test_a_budget_of_time_is_spent_to_the_second():
    found = langue.plan(budget="8 h100 for 3 days")
    assert (found["hardware"]["name"], found["hardware"]["devices"]) == ("h100", 8)
    assert found["cost"]["days"] == pytest.approx(3, rel=1e-6)
    assert 15 < found["training"]["tokens_per_parameter"] < 25


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "nothing to plan"),
        ({"size": "1B", "hardware": "h1000"}, "did you mean h100"),
        ({"size": "ten"}, "not a number"),
        ({"size": "1B", "tokens": "many"}, "not a number"),
        ({"budget": "soon"}, "'soon' is not understood"),
        ({"budget": "8 h100 for 0 days"}, "is nothing"),
        ({"budget": "8 h100 for 3 days", "devices": 2}, "names hardware and devices already"),
        ({"budget": "0 h100 for 1 day"}, "0 devices"),
        ({"budget": "999999999 h100 for 1 day"}, "999,999,999 devices are not possible"),
        ({"budget": f"{'9' * 5000} h100 for 1 day"}, "not understood"),
        ({"budget": "8 h100 for . days"}, "not understood"),
        ({"size": "1B", "vocabulary": 0, "hardware": "h100"}, "a vocabulary of 0"),
        ({"size": "1B", "length": 10**9, "hardware": "h100"}, "do not fit any model"),
        ({"size": "1B", "length": 10**7, "hardware": "h100"}, "do not fit"),
        ({"budget": "nan"}, "not understood"),
        ({"budget": "1e21", "size": "1B", "tokens": "1B"}, "all given"),
        ({"size": "1B", "model": "x"}, "leave --size and --preset out"),
        ({"size": "1B", "devices": 0, "hardware": "h100"}, "0 devices"),
        ({"size": "1B", "mfu": 40, "hardware": "h100"}, "mfu = 40"),
        ({"size": "1B", "pue": 0.5, "hardware": "h100"}, "pue = 0.5"),
        ({"size": "1B", "length": 1, "hardware": "h100"}, "nothing to predict"),
        ({"size": "1B", "batch_tokens": 100, "hardware": "h100"}, "no sequence of 1,024"),
        ({"size": "405B", "hardware": "h100", "devices": 8}, "would hold it: give --devices"),
    ],
)
def test_what_cannot_be_planned_is_said(words, said):
    with pytest.raises(SettingsError, match=said):
        langue.plan(**words)


def test_steps_are_timed_on_this_machine():
    found = langue.plan(
        preset="gpt2", vocabulary=256, length=64, tokens="1M", size="300K", measure=True
    )
    timed = found["measured"]
    assert timed["mfu"] > 0 and timed["tokens_per_second"] > 0
    assert found["hardware"]["mfu_from"] == "measured here" and found["hardware"]["measured"]
    assert found["cost"]["kwh"] is None  # nobody knows what this machine draws
    # What is timed is the model itself where it is so small; nothing goes faster than the peak,
    # however noisy.
    assert timed["parameters"] == pytest.approx(found["model"]["parameters"], rel=0.02)
    reached = timed["tokens_per_second"] * min(1.0, 1 / timed["mfu"])
    assert found["cost"]["tokens_per_second"] == pytest.approx(reached)


def test_a_model_that_exists_is_planned_for(tmp_path):
    folder = tiny_bert(tmp_path / "bert")
    found = langue.plan(model=folder, tokens="1M", hardware="rtx3090")
    assert (found["model"]["preset"], found["model"]["width"], found["model"]["length"]) == (
        "bert",
        32,
        64,
    )
    with pytest.raises(SettingsError, match="takes 64 tokens, not 128; give --length 64"):
        langue.plan(model=folder, length=128, hardware="rtx3090")
    with pytest.raises(SettingsError, match="--vocabulary is of a new model"):
        langue.plan(model=folder, vocabulary=100, hardware="rtx3090")


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30),
        st.from_regex(r"[0-9]{1,30} [a-z0-9]{1,6} for [0-9.]{1,8} (hour|day|week)s?"),
    )
)
def test_whatever_is_written_as_a_budget_is_read_or_refused(budget):
    try:
        flops, seconds, name, devices = _budget(budget, "here", None)
    except SettingsError:
        return
    assert (flops > 0) != (seconds > 0) and name and devices >= 0


def test_the_command_prints_for_people_and_for_programs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [
        "plan",
        "--preset",
        "llama",
        "--size",
        "70B",
        "--tokens",
        "1.4T",
        "--hardware",
        "H100",
        "--devices",
        "1024",
    ]
    assert run([*words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["model"]["parameters"] == pytest.approx(70e9, rel=0.01)
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "1.4T tokens (20 a parameter)" in shown and "on paper only" in shown and "MWh" in shown


def test_inspect_reckons_memory_as_a_plan_does(tmp_path):
    """By part, too: a body alone has no logits, and keeps no keys and values."""
    folder = tiny_decoder(tmp_path / "decoder", "llama")
    config = family_of(describe(folder))[1]
    found = langue.inspect(folder, length=48)["memory"]
    sizes = count_parameters(config)
    parts = memory(config, sizes, 48, Layout(), FULL, None)
    assert parts.logits > 0
    assert found["training"] == round(parts.total)
    # two layers of two heads of 16, keys and values
    assert found["inference"] == 4 * sizes.total + 4 * 2 * 2 * 2 * 16 * 48

    body = langue.inspect(tiny_bert(tmp_path / "bert"), length=48)
    total = body["parameters"]
    parts = memory(CONFIG, Sizes(total, total), 48, Layout(), FULL, None, of_language=False)
    assert parts.logits == 0.0
    assert body["memory"]["training"] == round(parts.total)
    assert body["memory"]["inference"] == 4 * total

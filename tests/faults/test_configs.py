"""Hostile and damaged folders at the command line, and configs fuzzed: one line, exit code 2,
bounded time."""

import json
import math
import shutil
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langue.cli import run
from langue.errors import LangueError
from langue.hub.checkpoint import describe
from langue.runs.model import load
from langue.verbs.inspect import inspect
from tests.tiny import tiny_bert


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("whole") / "m")


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "m")


def edit(model, **changes):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    return model


def written(model, name, content):
    (model / name).write_bytes(content)
    return model


BAD = {
    "no such folder": (lambda m: m / "nowhere", "no such model folder"),
    "a file": (lambda m: written(m, "a.txt", b"hi") / "a.txt", "a file that is not a model"),
    "an empty folder": (lambda m: (m / "empty").mkdir() or m / "empty", "has no config.json"),
    "a GGUF cut short": (
        lambda m: written(m, "a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 2, 4)) / "a.gguf",
        "not a whole GGUF",
    ),
    "a config cut short": (
        lambda m: written(m, "config.json", b'{"model_type": "bert",'),
        "line 1: not JSON",
    ),
    "a config of nesting": (lambda m: written(m, "config.json", b"[" * 10**6), "not JSON"),
    "a config of a gigabyte": (lambda m: sparse(m, "config.json"), "beyond"),
    "a list": (lambda m: written(m, "config.json", b"[]"), "not a JSON object"),
    "lists that are none": (lambda m: edit(m, architectures=5), "architectures is not a list"),
    "words to ban": (
        lambda m: written(m, "generation_config.json", b'{"bad_words_ids": 5}'),
        "is not a list",
    ),
    "10^9 layers": (lambda m: edit(m, num_hidden_layers=10**9), "beyond any model"),
    "more layers than weights": (
        lambda m: edit(m, num_hidden_layers=10**4),
        "10,000 layers, and there are",
    ),
    "a terabyte": (lambda m: edit(m, vocab_size=2**20, hidden_size=2**20), "has shape"),
    "a terabyte, of a classifier": (
        lambda m: edit(
            m, vocab_size=2**20, hidden_size=2**20, architectures=["BertForSequenceClassification"]
        ),
        "has shape",
    ),
    "a number that is none": (lambda m: edit(m, layer_norm_eps=math.nan), "is not finite"),
    "a norm's eps below zero": (
        lambda m: edit(m, layer_norm_eps=-1.0),
        "norm_eps = -1.0 is below zero",
    ),
    "twice of everything dropped": (
        lambda m: edit(m, hidden_dropout_prob=2),
        "dropout = 2 is not a probability",
    ),
    "labels that are none": (
        lambda m: edit(m, architectures=["BertForSequenceClassification"], id2label={"x": "y"}),
        "the task cannot be followed",
    ),
    "a run's task": (
        lambda m: written(m, "langue.json", b'{"task": ["classify"]}'),
        "is not known",
    ),
    "a pretraining's data": (
        lambda m: written(m, "langue.json", b'{"objective": 1, "data": [1]}'),
        "the task cannot be followed",
    ),
    "a run's labels": (
        lambda m: written(m, "langue.json", b'{"task": "classify"}'),
        "the task cannot be followed",
    ),
}


def sparse(model, name):
    with (model / name).open("ab") as handle:
        handle.truncate(2**30)
    return model


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_one_line(model, tmp_path, capsys, case):
    make, says = BAD[case]
    path = make(model)
    assert run(["convert", str(path), str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("langue: error: ") and "\n" not in line and says in line
    assert not (tmp_path / "out").exists()
    # one is for a check that failed, of a folder that is a model's
    assert run(["verify", str(path)]) in (1, 2)
    assert "internal error" not in capsys.readouterr().err


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["bert", "gpt2", "LABEL", "last"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["0", "1", "x"]), inner, max_size=3)
    ),
)
KEYS = [
    "architectures",
    "id2label",
    "problem_type",
    "eos_token_id",
    "pad_token_id",
    "bad_words_ids",
    "auto_map",
]


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_config_is_refused_or_followed(model, whole, data):
    config = json.loads((whole / "config.json").read_text())
    classes = st.just(["BertForSequenceClassification"])
    for key in data.draw(st.lists(st.sampled_from([*config, *KEYS]), min_size=1, max_size=3)):
        config[key] = data.draw(JSON | classes if key == "architectures" else JSON)
    (model / "config.json").write_text(json.dumps(config))
    for verb in (inspect, load, lambda folder: load(folder).checkpoint.ends):
        try:
            verb(model)
        except LangueError as error:
            assert "\n" not in str(error)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub of one repository, whose files appear as they are asked for; what is asked for is
    kept."""
    from fnmatch import fnmatch

    import huggingface_hub

    source = tiny_bert(tmp_path / "source")
    cache = tmp_path / "cache"
    asked = []
    for name in (
        "pytorch_model.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "consolidated.safetensors",
    ):
        (source / name).write_bytes(b"?")

    def snapshot_download(name, allow_patterns, **_):
        cache.mkdir(exist_ok=True)
        for file in source.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                asked.append(file.name)
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_of_the_hub_only_one_frameworks_weights_are_fetched(hub):
    assert describe("some/bert", weights=False).published["model_type"] == "bert"
    assert not [name for name in hub if name.startswith("model")] and "config.json" in hub
    assert load("some/bert").config.dim == 32
    assert "model.safetensors" in hub
    assert not [
        name for name in hub if name.endswith((".bin", ".h5", ".msgpack")) or "consolidated" in name
    ]


def answers():
    from huggingface_hub import errors

    class Response:
        status_code = 404
        headers = {}
        text = ""
        request = None
        url = ""

    for kind, says in (
        (errors.GatedRepoError, "the model is gated; ask for access"),
        (errors.RepositoryNotFoundError, "a private model needs HF_TOKEN"),
        (errors.RevisionNotFoundError, "the Hub has no revision 'v9' of it"),
    ):
        yield pytest.param(
            lambda kind=kind: kind("no\nsuch", response=Response()), says, id=kind.__name__
        )
    yield pytest.param(
        lambda: errors.LocalEntryNotFoundError("gone"),
        "in the Hub's cache at revision 'v9'",
        id="local",
    )
    yield pytest.param(
        lambda: OSError("broken\npipe"), "to be had from the Hub (OSError)", id="OSError"
    )


@pytest.mark.parametrize(("error", "says"), [*answers()])
def test_what_the_hub_says_is_one_line(monkeypatch, capsys, error, says):
    import huggingface_hub

    def snapshot_download(*_, **__):
        raise error()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    for verb in ("inspect", "verify"):
        assert run([verb, "some/model", "--revision", "v9"]) == 2
        line = capsys.readouterr().err.strip()
        assert line.startswith("langue: error: some/model: ") and "\n" not in line and says in line


def test_a_part_that_others_fetched_is_used_out_of_reach_of_the_hub(monkeypatch, whole):
    import huggingface_hub
    from huggingface_hub import errors

    class Incomplete(errors.LocalEntryNotFoundError):
        snapshot_path = str(whole)

    def snapshot_download(*_, **__):
        raise Incomplete("vocab.json is missing")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load("some/bert").config.dim == 32

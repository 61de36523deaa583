"""Each remedy for a model folder or an adapter that cannot be used is obeyed word for word, and
then it can. What is run, set and moved is read from the message (test_causes.py has more)."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import langue
from langue.cli import run
from langue.errors import LangueError
from tests.tiny import CONFIG, SHORT, reviews, tiny_bert, write_jsonl

TEXTS = ["a good film", "the plot was dull and long"]
LORA = {**SHORT, "train.max_steps": 2, "model.adapter": "lora", "data.dev_fraction": 0.2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A base, and an adapter of it."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_jsonl(folder / "a.jsonl", reviews(40))
    langue.finetune(
        "classify", model=tiny_bert(folder / "base"), data=data, out=folder / "run", **LORA
    )
    return folder


@pytest.fixture
def there(trained, tmp_path, monkeypatch):
    """Copies of both, whose base is the copy."""
    folder = shutil.copytree(trained, tmp_path / "there")
    say(folder / "run" / "adapter_config.json", base_model_name_or_path=str(folder / "base"))
    monkeypatch.chdir(folder)
    return folder


def say(file: Path, **entries) -> None:
    """Set entries of a JSON file; those that are None are taken out."""
    content = json.loads(file.read_text()) | entries
    kept = {key: value for key, value in content.items() if value is not None}
    file.write_text(json.dumps(kept))


def refused(folder) -> LangueError:
    with pytest.raises(LangueError) as caught:
        langue.load(folder)
    return caught.value


def states(folder):
    return langue.load(folder).hidden(TEXTS)[0]


def command_in(message: str, **meant: str) -> list[str]:
    """The words of the command of langue in a message, capitals replaced by what they stand for."""
    words = shlex.split(re.search(r"langue (.*?)(?:, and|$)", message)[1])
    return [meant.get(word, word) for word in words]


def set_as_said(message: str, value: Path) -> None:
    key, file = re.search(r"set (\w+) in (\S+) to", message).groups()
    say(Path(file), **{key: str(value)})


def test_a_pickle_that_is_trusted(there, monkeypatch):
    base = there / "base"
    before = states(base)
    weights = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    torch.save(weights | {"made": Path("by hand")}, base / "pytorch_model.bin")
    said = str(refused(base))
    program, option, code = shlex.split(said.partition("convert it there: ")[2])
    assert (program, option) == ("python", "-c")
    monkeypatch.chdir(base)
    exec(code, {})
    np.testing.assert_array_equal(states(base), before)


def test_a_tokenizer_that_is_missing(there):
    base = there / "base"
    before = states(base)
    vocabulary = (base / "vocab.txt").read_bytes()
    for name in ("tokenizer.json", "vocab.txt"):
        (base / name).unlink()
    assert "put its tokenizer.json, vocab.txt," in refused(base).do
    (base / "vocab.txt").write_bytes(vocabulary)
    np.testing.assert_array_equal(states(base), before)


def test_a_folder_with_a_model_and_an_adapter(there):
    before = states(there / "run")
    shutil.copy(there / "base" / "model.safetensors", there / "run")
    away = re.search(r"move (\S+) or (\S+) away", refused(there / "run").do)
    (there / "run" / away[1]).rename(there / away[1])
    np.testing.assert_array_equal(states(there / "run"), before)


@pytest.mark.parametrize("kind", ["moved", "of another shape", "changed", "not named"])
def test_the_base_of_an_adapter(there, kind):
    before = states(there / "run")
    file = there / "run" / "adapter_config.json"
    kept = shutil.copytree(there / "base", there / "kept")
    if kind == "moved":
        shutil.rmtree(there / "base")
    elif kind == "of another shape":
        say(there / "run" / "langue.json", base=None)
        shutil.rmtree(there / "base")
        tiny_bert(there / "base", replace(CONFIG, dim=16))
    elif kind == "changed":
        weights = load_file(kept / "model.safetensors")
        name = min(weights)
        save_file(weights | {name: weights[name] + 1}, there / "base" / "model.safetensors")
    else:
        say(file, base_model_name_or_path=None)
    said = refused(there / "run")
    if kind == "not named":
        assert said.do.startswith("set it there to the folder") and said.where == str(file)
        say(file, base_model_name_or_path=str(kept))
    else:
        set_as_said(said.do, kept)
    np.testing.assert_array_equal(states(there / "run"), before)


def test_an_adapter_that_is_a_base(there):
    """Merged first, as the message says, it is one: to train on, and of another adapter."""
    before = states(there / "run")
    with pytest.raises(LangueError, match="merge it first") as caught:
        langue.finetune("classify", model=there / "run", data="a.jsonl", out="new", **LORA)
    assert run(command_in(caught.value.do, FOLDER="merged")) == 0
    np.testing.assert_allclose(states("merged"), before, atol=1e-5)
    langue.finetune("classify", model="merged", data="a.jsonl", out="new", **LORA)
    shutil.copytree("run", "other")
    say(there / "other" / "adapter_config.json", base_model_name_or_path=str(there / "run"))
    say(there / "other" / "langue.json", base=None)
    said = refused("other")
    assert run(command_in(said.do, FOLDER="again")) == 0
    set_as_said(said.do, there / "again")
    states("other")


def test_an_adapter_is_no_model_by_itself(there, capsys):
    assert run(["convert", "run", "whole"]) == 2
    option = re.search(r"with (--\w+)", capsys.readouterr().err)[1]
    assert run(["convert", "run", "whole", option]) == 0
    np.testing.assert_allclose(states("whole"), states("run"), atol=1e-5)

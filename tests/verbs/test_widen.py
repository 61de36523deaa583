"""Tokens that were added to a tokenizer and lack rows of the embedding are told, and get some."""

import json
import re
import shlex

import pytest
import torch

from langue.cli import run as command
from langue.errors import ModelError
from langue.runs.model import load
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.verbs.verify import verify
from tests.tiny import CONFIG, tiny_bert


def grown(folder, count):
    """A model whose tokenizer others gave so many tokens, past the end of the embedding."""
    tiny_bert(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    known = len(Tokenizer.load(folder))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for number in range(CONFIG.vocab_size - known + count):
        token = {"id": known + number, "content": f"<new{number}>", "special": True}
        content["added_tokens"].append(token | flags)
    file.write_text(json.dumps(content), "utf-8")
    return folder


def test_tokens_beyond_the_embedding_are_told_and_get_rows(tmp_path, capsys, monkeypatch):
    folder = grown(tmp_path / "model", 40)
    with pytest.raises(ModelError, match="240 tokens and the model 200 embeddings") as caught:
        load(folder)
    words = re.search(r"langue (convert .* --widen)", caught.value.do)[1]
    monkeypatch.chdir(tmp_path)
    assert command(shlex.split(words)) == 0, capsys.readouterr().err
    wide = load(tmp_path / "OUT")
    assert wide.config.vocab_size == 240
    plain = load(tiny_bert(tmp_path / "plain"))
    said = ["a good film", "bad"]
    for ours, theirs in zip(wide.hidden(said), plain.hidden(said), strict=True):
        torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs))
    assert len(wide.hidden(["a <new159> film"])) == 1
    with pytest.raises(ModelError, match="has its row of the embedding; leave --widen out"):
        command(["convert", str(tmp_path / "OUT"), str(tmp_path / "more"), "--widen", "--debug"])


def test_verify_does_not_say_that_none_is_beyond(tmp_path):
    checks = {each["check"]: each for each in verify(grown(tmp_path / "few", 2))["checks"]}
    said = checks["tokenizer"]
    assert said["ok"] is None and "2 of its 202 tokens, as <new" in said["detail"]

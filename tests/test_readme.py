"""The READMEs: equal in both languages, and every command in them works."""

import csv
import random
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from langue.cli import run
from tests.tiny import reviews, tiny_bert, write_jsonl

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREPARED_BY_CI = ("make quickstart", "make test", "make lint", "pip install .")


def commands(text: str) -> list[str]:
    """The lines of the blocks for a shell, continued ones as one."""
    blocks = [block for kind, block in BLOCK.findall(text) if kind == "bash"]
    return re.sub(r"\\\n\s*", "", "".join(blocks)).splitlines()


def shape(text: str) -> list[str]:
    """What must be the same in every language: the order of headings, blocks, lists and tables, and
    their code."""
    parts = []
    for line in BLOCK.sub(lambda found: f"block {hash(found.group(2))}", text).splitlines():
        if match := re.match(r"#+ |- |\|(?=-)|block .*", line):
            parts.append(match.group())
        elif line.startswith("| "):
            parts.append(" ".join(re.findall(r"`[^`]+`", line.split("|")[1])))
    return parts


def test_both_languages_are_equal() -> None:
    assert BLOCK.findall(ENGLISH) == BLOCK.findall(CHINESE)
    assert shape(ENGLISH) == shape(CHINESE)
    assert set(re.findall(r"`([^`\n]+)`", ENGLISH)) == set(re.findall(r"`([^`\n]+)`", CHINESE))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", ENGLISH + CHINESE):
        assert (ROOT / target).is_file(), target


def test_what_a_fresh_machine_runs_is_run_by_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    for command in commands(ENGLISH):
        if not command.startswith("langue "):
            assert command in PREPARED_BY_CI, command
            words = command.split()
            assert re.search(rf"^.*{words[0]}\b.* {re.escape(words[-1])}$", script, re.MULTILINE), (
                command
            )


CLOZE = """\
task: cloze
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: choices
doc_to_target: answer
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the README's files; the Hub's model and data set are small
    stand-ins."""
    import datasets
    import huggingface_hub

    published = tiny_bert(tmp_path / "published")

    def snapshot_download(name: str, **_: Any) -> str:
        assert name == "sentence-transformers/all-MiniLM-L6-v2"
        return str(published)

    def load_dataset(name: str, *args: Any, **options: Any) -> Any:
        if name != "stanfordnlp/imdb":
            return real(name, *args, **options)
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
        )
        splits = {"train": reviews(60, seed=1), "test": reviews(40, seed=2)}
        return datasets.DatasetDict(
            {
                split: datasets.Dataset.from_list(rows, features=features)
                for split, rows in splits.items()
            }
        )

    real = datasets.load_dataset
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "reviews" / "train.jsonl", reviews(60))
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "review", "sentiment"])
        writer.writerows(
            [index, row["text"], row["label"]] for index, row in enumerate(reviews(60))
        )
    words = [
        "Once",
        "upon",
        "a",
        "time",
        "there",
        "was",
        "a",
        "little",
        "girl",
        "who",
        "loved",
        "to",
        "play",
        "outside",
        "in",
        "the",
        "park",
        "with",
        "her",
        "big",
        "red",
        "ball",
    ]
    draw = random.Random(0)
    lines = [" ".join(draw.choice(words) for _ in range(12)) + "." for _ in range(120)]
    (tmp_path / "books.txt").write_text("\n".join(lines), "utf-8")
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": "Once"}, {"prompt": "There was"}])
    pairs = [{"source": f"the {each} film", "target": f"der {each} Film"} for each in words]
    write_jsonl(tmp_path / "pairs.jsonl", pairs * 2)
    scored = [{"text": each, "pair": f"a {each}", "score": n % 6} for n, each in enumerate(words)]
    write_jsonl(tmp_path / "similar.jsonl", scored * 2)
    (tmp_path / "keys.txt").write_text("a-key-of-many-letters\n", "utf-8")
    talk = [{"role": "user", "content": "Once"}, {"role": "assistant", "content": "upon a time"}]
    write_jsonl(tmp_path / "talks.jsonl", [{"messages": talk}] * 40)
    pair = {"prompt": "Once", "chosen": " upon a time", "rejected": " ball"}
    write_jsonl(tmp_path / "preferred.jsonl", [pair] * 40)
    asked = [{"prompt": "Once upon a", "choices": ["time", "ball"], "answer": 0}]
    write_jsonl(tmp_path / "cloze.jsonl", asked)
    (tmp_path / "cloze.yaml").write_text(CLOZE, "utf-8")
    return tmp_path


def serve(words: list[str]) -> None:
    """The server as a process: it answers who has a key, and ends when it is told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "langue", *words, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    headers = {"Authorization": "Bearer a-key-of-many-letters"}
    try:
        for _ in range(600):
            try:
                models = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers).json()
                break
            except httpx.TransportError:
                assert server.poll() is None, server.stderr and server.stderr.read()
                time.sleep(0.1)
        assert [each["id"] for each in models["data"]] == ["chat", "reviews"]
    finally:
        server.terminate()
    assert server.wait(60) == 0


# Beside what a command says: batches of as few tokens as take a test no minute. The sizes of models
# and the numbers of steps are the README's.
BESIDE = {"pretrain": ["train.batch_tokens=512"]}


def test_every_command_works(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(ENGLISH):
        if command.startswith("langue serve"):
            serve(shlex.split(command)[1:])
        elif command.startswith("langue "):
            verb, *words = shlex.split(command)[1:]
            code = run([verb, *words, *BESIDE.get(verb, []), "--debug"])
            assert code == 0, (command, capsys.readouterr().err)
    for name in ("imdb", "folder", "reviews"):
        listed = re.findall(r"`([^`]+)`", ENGLISH.split("## A run")[1].split("\n## ")[0])
        for file in (
            file for file in listed if not file.startswith(("langue finetune", "-", "transformers"))
        ):
            assert (desk / "runs" / name / file).exists(), file
    assert len((desk / "predicted.jsonl").read_text("utf-8").splitlines()) == 60
    assert len((desk / "answers.jsonl").read_text("utf-8").splitlines()) == 2
    for block in python_blocks(of_generation=True):
        exec(compile(block, "README.md", "exec"), {})


def python_blocks(of_generation: bool) -> list[str]:
    """Those that use the run of pretraining, or the others."""
    blocks = [block for kind, block in BLOCK.findall(ENGLISH) if kind == "python"]
    return [block for block in blocks if ("runs/small" in block) == of_generation]


def test_the_python_example_works(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in python_blocks(of_generation=False):
        exec(compile(block, "README.md", "exec"), {})
    accuracy, best, every = capsys.readouterr().out.splitlines()[-3:]
    assert 0 <= float(accuracy) <= 1
    assert set(eval(best)[0]) == {"label", "score"}
    assert {each["label"] for each in eval(every)[0]} == {"neg", "pos"}

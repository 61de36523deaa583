"""Each remedy for bad data is obeyed word for word, and the command then works.

The rows that are wrong are those of every task (tests/contract/task_rows.py), and the files below.
What is obeyed is read from the message alone.
"""

import gzip
import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from langue.cli import run
from langue.errors import LangueError
from tests.contract.task_rows import CASES
from tests.contract.test_tasks import model_of
from tests.tiny import reviews, tiny_bert

ROWS = 40  # of a file, of which some are held out
LINE = 6  # on which the wrong row stands
NEW = [
    *("model.dim=32", "model.n_layers=2", "model.n_heads=2", "model.ffn_dim=64"),
    *("tokenizer.vocab_size=300", "tokenizer.min_frequency=0"),
]
LONG = "a film that was good and very long, with a plot, a night and much music"


@dataclass(frozen=True)
class Fault:
    """Files that cannot be used as they are, and the words that name them."""

    files: dict[str, bytes]
    words: list[str]
    model: str = "encoder"
    ways: int = 1  # to mend it that the message names, at the least


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def of_reviews(first: str, second: str, form: str = "{text}\t{label}\n") -> str:
    rows = [{"text": row["text"], "label": row["label"]} for row in reviews(ROWS)]
    return f"{first}\t{second}\n" + "".join(form.format(**row) for row in rows)


def column_of_lines(name: str) -> bytes:
    return "".join(row[name] + "\n" for row in CASES["seq2seq"].rows(ROWS)).encode()


def with_wrong_row(name: str, number: int) -> Fault:
    case = CASES[name]
    rows = case.rows(ROWS)
    rows.insert(LINE - 1, case.malformed[number][0])
    settings = {key: value for key, value in case.settings.items() if "epochs" not in key}
    words = [f"{key}={json.dumps(value).strip(chr(34))}" for key, value in settings.items()]
    return Fault(
        {"a.jsonl": lines(rows)},
        ["--task", case.task, "--data", "a.jsonl", *words],
        case.model,
    )


def wrong_label(label: object, others: list[object] = ("pos", "neg")) -> bytes:
    rows = [{"text": f"{LONG} {n}", "label": others[n % len(others)]} for n in range(ROWS)]
    rows.insert(LINE - 1, {"text": LONG, "label": label})
    return lines(rows)


RUSSIAN = "Фильм был действительно очень хорошим, но концовка могла бы быть лучше."
SPLIT = {"train.jsonl": lines(reviews(ROWS)), "dev.jsonl": lines(reviews(9))}
FILES = {
    "columns of other names": Fault(
        {"a.tsv": of_reviews("sentence", "target").encode()}, ["--data", "a.tsv"]
    ),
    "a name with a comma": Fault(
        {"a.tsv": of_reviews("Review, all", "label").encode()}, ["--data", "a.tsv"]
    ),
    "no header": Fault(
        {"a.tsv": of_reviews("neg", LONG, "{label}\t{text}\n").encode()}, ["--data", "a.tsv"]
    ),
    "GBK": Fault(
        {
            "a.tsv": of_reviews("text", "label", "{text} 这部电影真的很好看\t{label}\n").encode(
                "gbk"
            )
        },
        ["--data", "a.tsv"],
        ways=2,
    ),
    "KOI8": Fault(
        {"a.tsv": of_reviews("text", "label", f"{{text}} {RUSSIAN}\t{{label}}\n").encode("koi8-r")},
        ["--data", "a.tsv"],
        ways=4,
    ),
    "UTF-16 without its mark": Fault(
        {"a.tsv": of_reviews("text", "label").encode("utf-16-le")}, ["--data", "a.tsv"], ways=2
    ),
    "labels in another file": Fault(
        {
            "x.txt": "".join(row["text"] + "\n" for row in reviews(ROWS)).encode(),
            "LABELS.txt": "".join(row["label"] + "\n" for row in reviews(ROWS)).encode(),
        },
        ["--data", "x.txt"],
    ),
    "parallel files": Fault(
        {"train.en": column_of_lines("source"), "train.de": column_of_lines("target")},
        ["--task", "seq2seq", "--data", ".", *NEW],
        "new",
        ways=2,
    ),
    "parallel files of another name": Fault(
        {"both.source": column_of_lines("source"), "both.target": column_of_lines("target")},
        ["--task", "seq2seq", "--data", ".", *NEW],
        "new",
    ),
    "compressed under another name": Fault(
        {"a.jsonl": gzip.compress(lines(reviews(ROWS)))}, ["--data", "a.jsonl"]
    ),
    "a name that is nearly one": Fault(SPLIT, ["--data", "trian.jsonl"]),
    "a line that is no JSON": Fault(
        {"a.jsonl": lines(reviews(9)) + b'{"text": "cut\n' + lines(reviews(ROWS))},
        ["--data", "a.jsonl"],
    ),
    "an empty text": Fault(
        {"a.jsonl": wrong_label("pos").replace(f'"{LONG}"'.encode(), b'" "')},
        ["--data", "a.jsonl"],
        ways=2,
    ),
    "several labels": Fault(
        {"a.jsonl": wrong_label(["pos", "neg"], [["pos"], ["neg"]])}, ["--data", "a.jsonl"]
    ),
    "labels with bars": Fault({"a.jsonl": wrong_label("pos|neg")}, ["--data", "a.jsonl"], ways=2),
    "numbers of a point that is a comma": Fault(
        {"a.jsonl": lines([{"text": f"{LONG} {n}", "score": f"{n},5"} for n in range(9, 50)])},
        ["--task", "regress", "--data", "a.jsonl"],
    ),
    "a label that was not seen": Fault(
        {"train.jsonl": lines(reviews(ROWS)), "test.jsonl": wrong_label("meh")},
        ["--data", "."],
        ways=2,
    ),
    "a label that is spelt otherwise": Fault(
        {"train.jsonl": lines(reviews(ROWS)), "test.jsonl": wrong_label("Pos ")},
        ["--data", "."],
        ways=3,
    ),
    "a fold without folds": Fault(SPLIT, ["--data", "train.jsonl", "data.fold=1"]),
    "texts in languages": Fault(
        {
            "a.jsonl": lines(
                [
                    {"translation": {"en": row["source"], "de": row["target"]}}
                    for row in CASES["seq2seq"].rows(ROWS)
                ]
            )
        },
        ["--task", "seq2seq", "--data", "a.jsonl", "--columns", "source=fr,target=de", *NEW],
        "new",
    ),
    "more labels than people have": Fault(
        {"a.jsonl": lines([{"text": f"{LONG} {n}", "label": n} for n in range(150)])},
        ["--data", "a.jsonl"],
    ),
}
WRONG_ROWS = {
    f"{name}: {says}": (name, number)
    for name, case in CASES.items()
    for number, (_, says) in enumerate(case.malformed)
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


def words_of(message: str) -> list[list[str]]:
    """The options and settings that a message offers, each as words of the command line."""
    found = []
    for option in re.findall(r"(?:--(?:columns|task) (?:'[^']*'|[^\s;)]+) ?)+", message):
        found.append([each.rstrip(",") for each in shlex.split(option)])
    named = re.findall(r"\b(?:data|task)\.\w+=[\w.|-]+(?: data\.\w+=\w+)?", message)
    return found + [each.split() for each in named]


def ways_of(message: str, do: str) -> list[tuple[str, list[str]]]:
    """(a command of the shell, words that are added) for each way that a message names."""
    if paste := re.search(r"paste .*? > (\S+?),", do):
        words = [word for each in words_of(do) for word in each]
        return [(paste[0].rstrip(","), ["--data", paste[1].rstrip(","), *words])]
    ways = []
    if convert := re.search(r"iconv .* > (\S+)", do):
        names = re.findall(r"([\w-]+) \([^()]*\)", do)
        for name in names:
            shell = convert[0].replace("ENCODING", name)
            ways += [(shell, ["--data", convert[1]]), ("", [f"data.encoding={name}"])]
        return ways
    if suffix := re.search(r"let its name end in (\.\w+)", do):
        ways.append((f"mv a.jsonl a.jsonl{suffix[1]}", ["--data", f"a.jsonl{suffix[1]}"]))
    if named := re.search(r"(--data \S+) reads", do):
        ways.append(("", shlex.split(named[1])))
    if near := re.search(r"did you mean (\S+?)( or .*)?\?", do):
        ways.append(("", ["--data", near[1]]))
    place = re.search(r"(\S+), line (\d+)", message)
    if place and re.search(r"\b(take|remove)\b.*\b(out|line|of them)\b", do):
        ways.append((f"sed -i {place[2]}d {shlex.quote(place[1])}", []))
    return ways + [("", words) for words in words_of(do) if "NAME" not in " ".join(words)]


def say(capsys) -> str:
    return capsys.readouterr().err


def obeyed(fault: Fault, model: Path | None, monkeypatch, tmp_path, capsys) -> int:
    """Obey each way that the error of a fault names; returns how many there are."""
    command = ["data", "preview", *fault.words]
    command += [] if model is None else ["--model", str(model)]
    folder = tmp_path / "0"
    _write(fault, folder, monkeypatch)
    with pytest.raises(LangueError) as caught:
        run([*command, "--debug"])
    capsys.readouterr()
    ways = ways_of(str(caught.value), caught.value.do)
    worked = []
    for number, (shell, words) in enumerate(ways, start=1):
        _write(fault, tmp_path / str(number), monkeypatch)
        if shell:
            subprocess.run(["bash", "-c", shell], check=True)
        code = run(_replaced(command, words))
        said = say(capsys)
        if "data.encoding" not in caught.value.do:  # else one of those offered is right
            assert code == 0, (caught.value, shell, words, said)
        worked.append(code == 0)
    assert any(worked) or not ways, caught.value
    return len(ways)


def _write(fault: Fault, folder: Path, monkeypatch) -> None:
    folder.mkdir()
    for name, content in fault.files.items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(folder)


def _replaced(command: list[str], words: list[str]) -> list[str]:
    """The command with words added; an option that it has already is changed."""
    kept = list(command)
    if words and words[0] in kept:
        at = kept.index(words[0])
        del kept[at : at + 2]
    if words and "." in words[0]:
        keys = [word.partition("=")[0] + "=" for word in words]
        kept = [each for each in kept if not each.startswith(tuple(keys))]
    return [*kept, *words]


@pytest.mark.parametrize("name", FILES)
def test_remedies_for_files(name, tiny, tmp_path, monkeypatch, capsys):
    fault = FILES[name]
    model = None if fault.model == "new" else tiny
    assert obeyed(fault, model, monkeypatch, tmp_path, capsys) >= fault.ways


@pytest.mark.parametrize("name", WRONG_ROWS)
def test_remedies_for_rows(name, tiny, tmp_path, monkeypatch, capsys):
    fault = with_wrong_row(*WRONG_ROWS[name])
    model = model_of(CASES[WRONG_ROWS[name][0]], tiny)
    # at the least it is left out by hand or by data.invalid=drop
    assert obeyed(fault, model, monkeypatch, tmp_path, capsys) >= 1

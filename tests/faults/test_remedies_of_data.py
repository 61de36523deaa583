"""Each remedy for a file of data that cannot be read is obeyed word for word, and the file is then
read (test_remedies.py has those of rows that can be read and not used)."""

import json

import pytest

from langue.cli import run
from tests.contract.task_rows import CASES
from tests.faults.obeying import Case, named, obey
from tests.tiny import reviews, tiny_bert
from tests.tiny_decoder import tiny_decoder

SPANS = r"write them as \[(\{.*\}), \.\.\.\]"
ANSWERS = r"write them as \[\{"
TURNS = r"write it as \[\{"
MARKED = {"text": "a good film", "spans": [{"start": 2, "end": 6, "label": "POS"}]}
TALK = '{"messages": [{"role": "user", "content": "a"}, '
REPLY = '{"role": "assistant", "content": "b"}'
ROWS = {  # what follows the row that is wrong
    "classify": reviews(20),
    "classify, several": CASES["classify several"].rows(20),
    "classify, several in a text": [row | {"label": "pos|neg"} for row in reviews(20)],
    "tag": CASES["tag"].rows(20),
    "tag, spans": [MARKED] * 20,
    "extract": CASES["extract"].rows(20),
    "extract, or nothing": CASES["extract or nothing"].rows(20),
    "regress": CASES["regress"].rows(20),
    "embed": CASES["embed scored pairs"].rows(20),
    "embed, negatives": CASES["embed negatives"].rows(20),
    "chat": CASES["chat"].rows(20),
    "preference": CASES["preference"].rows(20),
}
WORD = '{"tokens": ["a"], "tags": '
FILM = '{"text": "film", "spans": '
SPAN = f'{FILM}[{{"start": 0, "end": 4, "label": '
STUDIO = '"annotations": [{"result": [{"value": {"labels": ["A"], "text": "film", "start": '
WHO = '{"question": "who", "context": "film", "answers": '
PART = '{"type": "text", "text": "a"}'
NEGATIVE = '"negative_1": "c", "negative_2": '
LINES = {  # by task, the row that is wrong
    "tag": [
        ('{"tokens": «"film"», "tags": ["O"]}', r'write them as (\["EU"), ', '["film"]'),
        ('{"tokens": [«{"a": 1}»], "tags": ["O"]}', r'write them as \[("EU")'),
        (f'{WORD}[«""»]}}', "(O) for none", '"O"'),
        (f'{WORD}[«"POS"»]}}', "write all entities as B-TYPE", '"B-POS"'),
    ],
    "tag, spans": [
        (f"{FILM}[«3»]}}", SPANS, '{"start": 0, "end": 4, "label": "ORG"}'),
        (f"{FILM}«3»}}", SPANS, "[]"),
        (f"{FILM}«null»}}", r"give a list, (\[\]) where"),
        (f'{FILM}[{{"start": 0, "end": «0», "label": "A"}}]}}', "the one behind the last", "4"),
        (f'{FILM}[{{"start": «"f"», "end": 4, "label": "A"}}]}}', r"of a character, from (\d)"),
        (f'{FILM}[{{"start": 0, "end": «9», "label": "A"}}]}}', "count the characters", "4"),
        (f'{FILM}[{{"start": «1», "end": 4, "label": "A"}}]}}', "cover whole words", "0"),
        (f'{FILM}{{"start": [0], "end": [4], "label": ["A"«, "B"»]}}}}', "write them as"),
        (f'{SPAN}«""»}}]}}', '"label": ("ORG")'),
        (f"{SPAN}«[]»}}]}}", '"label": ("ORG")'),
        (f'{SPAN}"A"}}«, {{"start": 0, "end": 4, "label": "B"}}»]}}', "keep one of them"),
        ('{"tokenized_text": ["a", "film"], "ner": [«3»]}', r"write it as (\[.*\])"),
        ('{"tokenized_text": ["a", "b"], "ner": [[0, «2», "A"]]}', "the last one included", "1"),
        (
            '{"data": {"«a»": "film", "b": "x"}, "annotations": [{"result": []}]}',
            r'call it "(\w+)"',
        ),
        (
            '{"data": {"text": "film"}, "annotations": [{"result": []}«, {"result": []}»]}',
            "keep one of them",
        ),
        (
            f'{{"data": {{"text": "\U0001f600 film"}}, {STUDIO}«3, "end": 7»}}}}]}}]}}',
            "an emoji as one",
            '2, "end": 6',
        ),
    ],
    "extract": [
        (f"{WHO}«3»}}", ANSWERS, '["film"]'),
        (f'{WHO}[{{"text": «3»}}]}}', ANSWERS, '"film"'),
        (f'{WHO}{{"text": ["film"«, "a"»], "start": [0]}}}}', ANSWERS, ""),
    ],
    "extract, or nothing": [
        (f'{WHO}[«"film"»], "is_impossible": true}}', "take one of them out"),
        (f"{WHO}«null»}}", r"or (\[\]) where"),
    ],
    "chat": [
        ('{"messages": «3»}', TURNS, f"{TALK[13:]}{REPLY}]"),
        ('{"messages": «"a film"»}', r"write them as \[\{", f"{TALK[13:]}{REPLY}]"),
        (f"{TALK}«3», {REPLY}]}}", TURNS, REPLY),
        (f'{TALK}{{«"x": 1», "content": "b"}}, {REPLY}]}}', r'\{("role": "user"), '),
        (f'{TALK}{{"role": "user", "content": «{{"a": 1}}»}}, {REPLY}]}}', r'"content": (".*?")'),
        (
            f'{TALK}{{"role": "user", "content": [{PART}«, {{"type": "image"}}»]}}, {REPLY}]}}',
            "take it out",
        ),
        (f'{TALK}{REPLY}], "tools": «3»}}', r"write them as \[", "[]"),
        ('{"messages": {"role": ["user", "assistant"], "content": ["a"«»]}}', TURNS, ', "b"'),
        (f'{TALK}{{"role": "«narrator»", "content": "b"}}, {REPLY}]}}', "known are .*(user)"),
        ('{"messages": [«»' + f"{REPLY}]}}", "put the user's message before it", TALK[14:]),
        (f"{TALK[:-2]}«»]}}", "add one", f", {REPLY}"),
    ],
    "classify": [
        ('{"text": «["a"]», "label": "pos"}', "write it as a string", '"a"'),
        ('{"text": "a", "label": «{"a": 1}»}', "give every row the same kind", '"pos"'),
        ('{"text": "a", "label": «null»}', "fill it in", '"pos"'),
        ("«{'text': 'a'}»", r'such as (\{"text".*\});', '{"text": "a", "label": "pos"}'),
        ('«["a", "pos"]»', r'write it as \{"text"', '{"text": "a", "label": "pos"}'),
        ("«" + "[" * 9999 + "»", "remove the line"),
    ],
    "classify, several in a text": [
        ('{"text": "a", "label": «"[\'pos\', \'neg\']"»}', "write them as a|b", '"pos|neg"'),
    ],
    "classify, several": [
        ('{"text": "a", "label": [«["pos"]»]}', r'all of them as words: \["a"', '"pos"'),
    ],
    "regress": [('{"text": "a", "score": «"much"»}', "correct it", "2")],
    "embed": [
        ('{"text": "a", "pair": "b", "score": «-5»}', r"give scores from 0 .* to (1)"),
        ('{"text": "a", "pair": «""», "score": 0.5}', "correct it|fill it in", '"b"'),
    ],
    "embed, negatives": [
        (f'{{"text": "a", "pair": "b", {NEGATIVE}«"b"»}}', "correct it", '"d"'),
        (f'{{"text": "«c»", "pair": "b", {NEGATIVE}"d"}}', "correct it", "a"),
    ],
    "preference": [
        ('{"prompt": "a", "chosen": "b", "rejected": «"b"»}', "correct one of them", '"c"'),
        ('{"prompt": "a", "chosen": «" "», "rejected": "c"}', "fill it in", '"b"'),
    ],
}
PLAIN = "a,pos\nb,neg\n" * 8
RECORD = '{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}'
RECORDS = ", ".join([RECORD] * 8)
ASKED = '{"question": "who", "id": "1", "answers": [{"text": "film", "answer_start": 2}]}'
SQUAD = '{"context": "a film", "qas": [' + ", ".join([ASKED] * 12) + "]}"
CONLL = "good B-POS\nfilm O\n\n" * 12
FILES = {  # by the file's name and its task, all that it holds
    ("a.csv", "classify"): [
        (f"text,label\n«a, b»,pos\n{PLAIN}", "put quotation marks around fields", '"a, b"'),
        (f'text,label\n"a «"»b",pos\n{PLAIN}', r"inside a quoted field twice: (\S+)"),
        (
            f"text,label,«label»\n{PLAIN}".replace("s\n", "s,x\n").replace("g\n", "g,x\n"),
            "give each column its own name",
            "other",
        ),
    ],
    ("a.json", "classify"): [
        (f"[{RECORDS}«,»]", "one record a line goes into a .jsonl file"),
        ("«3»", r'write \[\{"text": "\.\.\."', f"[{RECORDS}]"),
    ],
    ("a.json", "extract"): [
        (f'{{"data": [{{"paragraphs": «{SQUAD}»}}]}}', "as SQuAD does: data", f"[{SQUAD}]"),
        (
            f'{{"data": [{{"paragraphs": [{SQUAD}, {{"«text»": "a", "qas": []}}]}}]}}',
            r"paragraphs, (\w+), qas",
        ),
    ],
    ("a.conll", "tag"): [
        (f"a O\nfilm«» \n\n{CONLL}", "write a token and its tag", " O"),
        (f"# columns: form «»\na O\n\n{CONLL}", "name every column", "tag"),
        (f"a\tO\n«»\tO\n\n{CONLL}".replace(" ", "\t"), "write the token first", "a"),
    ],
    ("a.jsonl", "classify"): [("«»", "fill it", f"{RECORD}\n".replace("}, ", "}\n") * 8)],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_bert(folder / "bert")
    tiny_decoder(folder / "decoder", "gpt2", n_positions=512)
    return folder


def preview(task: str, file: str, models, capsys) -> str:
    """The error of looking at a file, if there is one."""
    name, _, kind = task.partition(", ")
    model = models / ("decoder" if name in ("chat", "preference") else "bert")
    several = ["task.multi_label=true"] if kind.startswith("several") else []
    code = run(["data", "preview", "--task", name, "--model", str(model), "--data", file, *several])
    said = capsys.readouterr().err.strip()
    assert code in (0, 2), said
    return said.splitlines()[-1] if code else ""


@pytest.mark.parametrize(
    ("task", "case"),
    [(task, case) for task, cases in LINES.items() for case in cases],
    ids=lambda part: part if isinstance(part, str) else named(part)[:60],
)
def test_remedies_of_lines(task: str, case: Case, models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rest = "".join(json.dumps(row) + "\n" for row in ROWS[task])

    def attempt(line: str) -> str:
        (tmp_path / "a.jsonl").write_text(f"{line}\n{rest}")
        return preview(task, "a.jsonl", models, capsys)

    obey(case, attempt)


@pytest.mark.parametrize(
    ("name", "task", "case"),
    [(*where, case) for where, cases in FILES.items() for case in cases],
    ids=lambda part: part if isinstance(part, str) else named(part)[:60],
)
def test_remedies_of_files(name, task, case: Case, models, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def attempt(content: str) -> str:
        (tmp_path / name).write_text(content)
        return preview(task, name, models, capsys)

    obey(case, attempt)

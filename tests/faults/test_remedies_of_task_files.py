"""Each remedy for a task file that cannot be followed is obeyed word for word, and the evaluation
then works."""

import pytest

from langue.cli import run
from tests.faults.obeying import Case, named, obey
from tests.tiny import write_jsonl
from tests.tiny_decoder import tiny_decoder

NEAR = r"did you mean (\S+?)\?"
CHOICE = (
    'output_type: multiple_choice\ndoc_to_text: "{{text}}"\ndoc_to_target: number\n'
    "doc_to_choice: [bad, good]\n"
)
BARE = "output_type: loglikelihood\ndoc_to_text: text\n"
WRITE = "output_type: generate_until\ndoc_to_text: text\ndoc_to_target: label\n"
SHORT = f"{WRITE}generation_kwargs: {{max_gen_toks: 2}}\n"
FILTER = f"{SHORT}filter_list: [{{name: a, filter: [{{function: "
ROW = "the row has (?:.*, )?"
OUT = "take the key out of the file"

KEYS = [
    (f"{CHOICE}«num_fewshots»: 1", NEAR),
    (f"{CHOICE}«zzz»: {{}}", r"known are (\w+)"),
    (f"{CHOICE}num_fewshot: «two»", r"is not a number from (\d) on; write one"),
    (f"{CHOICE}dataset_kwargs: «a»", "is not an object of keys and values; write one", "{}"),
    (CHOICE.replace("multiple_choice", "«choices»"), r"use (\w+)"),
    (CHOICE.replace("doc_to_target: number", "«»"), "what is right: a column", "doc_to_target: 1"),
    (
        CHOICE.replace("doc_to_choice: [bad, good]", "«»"),
        "write the choices",
        "doc_to_choice: [bad, good]",
    ),
    (f"{CHOICE}«process_docs: !function utils.process_docs»", OUT),
    (f"{CHOICE}«use_prompt: promptsource»", OUT),
    (f"{CHOICE}«unsafe_code: true»", OUT),
    (f"{CHOICE}fewshot_config: {{«process_docs: utils»}}", OUT),
    (f"{CHOICE}fewshot_config: {{sampler: «best»}}", r"use (\w+)"),
    (f"{CHOICE}include: «[1]»", "write include: FILE", "base.yaml"),
    (f"{CHOICE}«include: task.yaml»", "include fewer"),
    (f"{CHOICE}description: «'»", "is no YAML: .*; correct it", "''"),
    ("«- a list»", "write task: NAME", f"task: reviews\n{CHOICE}"),
    ("«task: [a, b]»", "name the file of one of its tasks", "include: base.yaml"),
]
METRICS = [
    (f"{CHOICE}metric_list: [{{metric: «rouge»}}]", r"use (\w+)"),
    (
        f"{CHOICE}metric_list: [{{metric: acc«, ignore_case: true»}}]",
        "it takes aggregation and higher_is_better alone",
    ),
    (f"{SHORT}metric_list: [{{metric: exact_match, ignore_case: «yess»}}]", "write (true)"),
    (f"{CHOICE}metric_list: [{{metric: acc, aggregation: «max»}}]", r"write aggregation: (\w+)"),
    (
        f"{SHORT}metric_list: [{{metric: exact_match, regexes_to_ignore: «a»}}]",
        "write a list of patterns",
        "[a]",
    ),
    (
        f"{SHORT}metric_list: [{{metric: exact_match, regexes_to_ignore: [«'('»]}}]",
        "is no regular expression: .*; correct it",
        "'a'",
    ),
]
FILTERS = [
    (
        f"{SHORT}filter_list: [{{«fliter: []»}}]",
        r"write name: NAME and filter: \[\{function: take_first\}\]",
        "name: NAME, filter: [{function: take_first}]",
    ),
    (f"{FILTER}«regexp»}}]}}]", r"use (\w+)"),
    (f"{FILTER}take_first«, k: 2»}}]}}]", "it takes nothing"),
    (f"{FILTER}take_first_k«»}}]}}]", "write (k: 1)", ", k: 1"),
    (f"{FILTER}map, «default_value: a»}}]}}]", r"write (mapping_dict: \{A: B\})"),
    (f"{FILTER}regex, regex_pattern: a, group_select: «one»}}]}}]", r"write group_select: (\d)"),
    (f"{FILTER}regex, regex_pattern: «'('»}}]}}]", "correct it", "a"),
    (f"«repeats: 1\n»{FILTER}take_first_k, k: 2}}]}}]", "write (repeats: 2)", "repeats: 2\n"),
]
WRITING = [
    (f"{WRITE}generation_kwargs: {{«maxtokens»: 4}}", "use .*(max_gen_toks)"),
    (f"{WRITE}generation_kwargs: {{max_gen_toks: «0»}}", r"write max_gen_toks: (\d+)"),
    (f"{WRITE}generation_kwargs: {{max_gen_toks: 2, temperature: «hot»}}", "write a number", "1"),
    (f"{WRITE}generation_kwargs: {{max_gen_toks: 2, num_beams: «0»}}", r"write (\d)"),
    (f"{WRITE}generation_kwargs: {{max_gen_toks: «64»}}", "lower max_gen_toks", "63"),
]
PROMPTS = [
    (CHOICE.replace("{{text}}", "{{«textt»}}"), f"{ROW}(text)"),
    (CHOICE.replace('"{{text}}"', "«several»"), f"correct doc_to_text; {ROW}(text)"),
    (CHOICE.replace("[bad, good]", "«label»"), f"correct doc_to_choice; {ROW}(several)"),
    (f"{BARE}doc_to_target: «number»", f"correct doc_to_target; {ROW}(label)"),
    (
        f"{BARE}doc_to_target: label\ndoc_to_choice: [a, b]\n".replace("text: text", "text: «0»"),
        f"correct doc_to_text; {ROW}(text)",
    ),
    (f"{SHORT}doc_to_choice: [a, b]\n".replace("label", "«7»"), r"number choices from (\d)"),
    (f"{BARE}doc_to_target: «empty»", "give a text that adds something", "label"),
    (
        "output_type: «loglikelihood»\ndoc_to_text: text\ndoc_to_target: long",
        r"output_type: (\w+)",
    ),
    (f"{CHOICE}num_fewshot: 1\nfewshot_config: {{fewshot_indices: [0, «99»]}}", "rows from 0", "1"),
    (f"{CHOICE}num_fewshot: «99»", "a lower --few-shot", "1"),
]
TARGET = f"{BARE}doc_to_target: label"
ALIKE = f"{CHOICE}num_fewshot: 1"
ROWS = [  # the task, and what is wrong with its data
    (TARGET, ('{"text": «null», "label": "a"}', "fill it in", '"film"')),
    (
        ALIKE,
        (
            '{"text": "a", "number": 0}\n{"text": "«a»", "number": 0}',
            "give more rows",
            'b", "number": 1}\n{"text": "c',
        ),
    ),
]
EVALUATE = "evaluate dec --task-file"
COMMANDS = [
    (f"{EVALUATE} «gone.yaml» --data rows.jsonl", "name a task file", "base.yaml"),
    (f"{EVALUATE} «tasks» --data rows.jsonl", "name one of its files", "tasks/a.yaml"),
    (f"{EVALUATE} «large.yaml» --data rows.jsonl", "name a task file", "base.yaml"),
    (f"{EVALUATE} base.yaml «»", "name it with (--data) FILE", "--data rows.jsonl"),
    (f"{EVALUATE} base.yaml --data rows.jsonl --columns text=«txt»", r"the columns are (\w+)"),
    (f"{EVALUATE} base.yaml --data rows.jsonl --few-shot «99»", "a lower --few-shot", "1"),
    (f"{EVALUATE} base.yaml --data rows.jsonl «--split test»", "leave --split out"),
    (f"{EVALUATE} base.yaml --data rows.jsonl «dec»", "leave --task-file or the second run out"),
    ("evaluate dec --data rows.jsonl «--few-shot 1»", "or leave it out"),
    ("evaluate dec --data rows.jsonl --limit 2 «»", "(--task-file)", "--task-file base.yaml"),
]
DATA = [  # keys that name data, without --data
    (
        f"{CHOICE}dataset_path: json\n«»",
        r"write dataset_kwargs: \{data_files: \{test: FILE\}\}",
        "dataset_kwargs: {data_files: {test: rows.jsonl}}",
    ),
    (f"{CHOICE}dataset_kwargs: {{data_files: «3»}}", "name files", "rows.jsonl"),
    (f"{CHOICE}dataset_path: split\ntest_split: «none»", r"there are (?:\w+, )*(\w+)"),
    (f"{CHOICE}dataset_path: trains\n«»", r"write (test_split: )NAME", "test_split: train"),
]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with a model and rows."""
    folder = tmp_path_factory.mktemp("there")
    tiny_decoder(folder / "dec", "gpt2")
    rows = [
        {"empty": "", "label": "ab"[n % 2], "long": "word " * 40, "number": n % 2}
        | {"several": ["a", "b"], "text": f"film {n}"}
        for n in range(4)
    ]
    for name in ("rows", "split/train", "split/test", "trains/train"):
        write_jsonl(folder / f"{name}.jsonl", rows)
    (folder / "tasks").mkdir()
    for name in ("base.yaml", "tasks/a.yaml"):
        (folder / name).write_text(CHOICE)
    (folder / "large.yaml").write_text("# " + "x" * 1_000_000)
    return folder


@pytest.fixture
def attempt(there, monkeypatch, capsys):
    """Runs a command, and says its error."""
    monkeypatch.chdir(there)

    def evaluate(command: str) -> str:
        code = run([*command.split(), "--quiet"])
        said = capsys.readouterr().err.strip()
        assert code in (0, 2), said
        return said.splitlines()[-1] if code else ""

    return evaluate


@pytest.mark.parametrize("case", KEYS + METRICS + FILTERS + WRITING + PROMPTS, ids=named)
def test_remedies_of_task_files(case: Case, there, attempt):
    def follow(content: str) -> str:
        (there / "task.yaml").write_text(content)
        return attempt("evaluate dec --task-file task.yaml --data rows.jsonl")

    obey(case, follow)


@pytest.mark.parametrize("case", DATA, ids=named)
def test_remedies_of_their_data(case: Case, there, attempt):
    def follow(content: str) -> str:
        (there / "task.yaml").write_text(content)
        return attempt("evaluate dec --task-file task.yaml")

    obey(case, follow)


@pytest.mark.parametrize(("task", "case"), ROWS, ids=["a value is missing", "rows are alike"])
def test_remedies_of_their_rows(task, case, there, attempt):
    (there / "task.yaml").write_text(task)

    def follow(content: str) -> str:
        (there / "own.jsonl").write_text(content + "\n")
        return attempt("evaluate dec --task-file task.yaml --data own.jsonl")

    obey(case, follow)


@pytest.mark.parametrize("case", COMMANDS, ids=named)
def test_remedies_of_options_beside_them(case: Case, attempt):
    obey(case, attempt)

"""Language models are judged by task files: from the command to the numbers."""

import gzip
import json
import math

import pytest

import langue
from langue.cli import run as command
from langue.errors import DataError, LangueError, SettingsError
from langue.runs import shared_prefix
from tests.runs.test_prompted import ids, slow, slow_last
from tests.tiny import write_jsonl
from tests.tiny_decoder import tiny_decoder

ROWS = [
    {"text": "the hall", "label": 0},
    {"text": "a web", "label": 1},
    {"text": "the other ball", "label": 1},
    {"text": "in there", "label": 0},
]
CHOOSE = """
task: reviews
output_type: multiple_choice
doc_to_text: "{{text}} is"
doc_to_target: label
doc_to_choice: [bad, very good]
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_mutual_info}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_decoder(tmp_path_factory.mktemp("decoders") / "m", "gpt2")


@pytest.fixture(scope="module")
def model(folder):
    return langue.load(folder)


def evaluated(folder, tmp_path, text, rows=ROWS, **options):
    file = tmp_path / "task.yaml"
    file.write_text(text, "utf-8")
    return langue.evaluate(folder, task_file=file, data=rows, **options)


def test_choices_are_judged_by_likelihood(folder, model, tmp_path):
    found = evaluated(folder, tmp_path, CHOOSE, samples=tmp_path / "s.jsonl")
    right = {"acc": 0, "acc_norm": 0, "acc_mutual_info": 0}
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    for row, line in zip(ROWS, lines, strict=True):
        context = ids(model, f"{row['text']} is")
        each = [slow(model, context, ids(model, " " + c)) for c in ("bad", "very good")]
        alone = [slow(model, [0], ids(model, " " + c)) for c in ("bad", "very good")]
        assert line["logprobs"] == pytest.approx(each, abs=1e-4)
        assert line["without_context"] == pytest.approx(alone, abs=1e-4)
        right["acc"] += (each[1] > each[0]) == row["label"]
        right["acc_norm"] += (each[1] / 9 > each[0] / 3) == row["label"]
        right["acc_mutual_info"] += (each[1] - alone[1] > each[0] - alone[0]) == row["label"]
    assert found["metrics"] == {name: count / 4 for name, count in right.items()}
    assert (found["examples"], found["few_shot"], found["target_delimiter"]) == (4, 0, " ")


def test_examples_stand_before_the_question(folder, tmp_path):
    text = CHOOSE + "fewshot_config: {samples: [{text: so, label: 1}, {text: such, label: 0}]}\n"
    evaluated(folder, tmp_path, text, few_shot=1, limit=2, samples=tmp_path / "s.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    shown = [line["requests"][0][0].partition("\n\n")[0] for line in lines]
    assert set(shown) <= {"so is very good", "such is bad"}
    assert lines[0]["requests"][1] == [f"{shown[0]}\n\nthe hall is", " very good"]


def test_the_last_word_and_a_whole_text(folder, model, tmp_path):
    text = 'output_type: loglikelihood\ndoc_to_text: "{{text}}"\ndoc_to_target: "{{\' the\'}}"\n'
    found = evaluated(folder, tmp_path, text)
    each = [slow(model, ids(model, row["text"]), ids(model, " the")) for row in ROWS]
    assert found["metrics"]["perplexity"] == pytest.approx(math.exp(-sum(each) / 4), rel=1e-4)

    long = [{"text": "the ball is in the web " * 6}, {"text": "a"}]
    whole = "output_type: loglikelihood_rolling\ndoc_to_target: text\n"
    found = evaluated(folder, tmp_path, whole, rows=long)
    total = 0.0
    for row in long:
        tokens = ids(model, row["text"])
        for begin in range(0, len(tokens), 64):
            part = tokens[begin : begin + 64]
            before = tokens[begin + len(part) - 65 : begin] if begin else [0]
            total += slow_last(model, before, part)
    size = sum(len(row["text"]) for row in long)
    assert found["metrics"]["bits_per_byte"] == pytest.approx(-total / size / math.log(2), rel=1e-5)
    assert found["stride"] == 64


def test_what_is_written_is_filtered_and_compared(folder, model, tmp_path):
    (free,) = model.generate(["the hall is"], max_tokens=6)
    text = f"""
output_type: generate_until
doc_to_text: "{{{{text}}}} is"
doc_to_target: {json.dumps(free)}
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 6}}
filter_list:
  - {{name: plain, filter: [{{function: take_first}}]}}
  - {{name: upper, filter: [{{function: uppercase}}, {{function: take_first}}]}}
"""
    found = evaluated(folder, tmp_path, text, rows=ROWS[:1], samples=tmp_path / "s.jsonl")
    assert found["metrics"]["exact_match,plain"] == 1.0
    line = json.loads((tmp_path / "s.jsonl").read_text())
    assert line["written"] == free and line["answer"]["upper"] == free.upper()


def test_a_common_beginning_is_read_once_and_changes_nothing(model, monkeypatch):
    prompt = "the ball is in the hall of the web, and"
    choices = ["a", "the web is there", "the wall", "no other hall"]
    pairs = [(prompt, " " + choice) for choice in choices]
    scorer = model.likelihoods
    requests = scorer.encode_pairs(pairs)
    groups = shared_prefix.groups_of(scorer._ask_decoder(requests).inputs, 2048)
    assert [(len(group.rows), group.shared) for group in groups] == [(3, 32)]
    together = scorer.score(requests)
    monkeypatch.setattr(shared_prefix, "WORTH", 2.0)
    assert shared_prefix.groups_of(scorer._ask_decoder(requests).inputs, 2048) == []
    for one, other in zip(together, scorer.score(requests), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert one.greedy == other.greedy
    for request, found in zip(requests, together, strict=True):
        expected = slow(model, request.context, request.tokens)
        assert found.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["mistral", "qwen3"])
def test_beginnings_are_shared_in_other_families(tmp_path, kind):
    scorer = langue.load(tiny_decoder(tmp_path / "m", kind)).likelihoods
    prompt = "the ball is in the hall of the web, and"
    pairs = [(prompt, " a wall"), (prompt, " a web"), (prompt[:36], " so it goes")]
    requests = scorer.encode_pairs(pairs)
    assert shared_prefix.groups_of(scorer._ask_decoder(requests).inputs, 2048)
    for request, found in zip(requests, scorer.score(requests), strict=True):
        (alone,) = scorer.score([request])
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-4)


def test_files_are_found_beside_the_task_file(folder, tmp_path, capsys):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    text = CHOOSE + "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\n"
    text += "test_split: test\n"
    (tmp_path / "task.yaml").write_text(text)
    words = ["evaluate", str(folder), "--task-file", str(tmp_path / "task.yaml"), "--json"]
    assert command([*words, "--out", str(tmp_path / "o.json")]) == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content["metrics"]) == {"acc", "acc_norm", "acc_mutual_info"}
    assert json.loads((tmp_path / "o.json").read_text()) == content
    assert command([*words[:-1], "--limit", "2"]) == 0
    assert "multiple_choice: few_shot 0" in capsys.readouterr().out


def test_columns_may_be_called_otherwise(folder, tmp_path):
    rows = [{"sentence": row["text"], "label": row["label"]} for row in ROWS]
    renamed = evaluated(folder, tmp_path, CHOOSE, rows, columns={"text": "sentence"})
    assert renamed["metrics"] == evaluated(folder, tmp_path, CHOOSE)["metrics"]
    with pytest.raises(DataError, match="--columns names 'words', and the columns are"):
        evaluated(folder, tmp_path, CHOOSE, rows, columns={"text": "words"})


def test_what_cannot_be_asked_is_told(folder, tmp_path):
    def message(text=CHOOSE, rows=ROWS, **options):
        with pytest.raises(LangueError) as error:
            evaluated(folder, tmp_path, text, rows, **options)
        return str(error.value)

    assert "names no data; name it with --data FILE" in message(rows=None)
    assert "4 examples are to be shown of 4 rows" in message(few_shot=4)
    missing = message(rows=[*ROWS, {"text": None, "label": 0}, {"label": 1}])
    assert "row 6" in missing and "the row has label" in missing
    assert "generation_kwargs: topp is not known" in message(
        "output_type: generate_until\ndoc_to_target: text\ngeneration_kwargs: {topp: 1}"
    )
    assert "leaves no room for a prompt, of 64 tokens" in message(
        "output_type: generate_until\ndoc_to_target: text\ngeneration_kwargs: {max_gen_toks: 64}"
    )
    write_jsonl(tmp_path / "data" / "train.jsonl", ROWS)
    named = message(CHOOSE + "test_split: test\n", str(tmp_path / "data"))
    assert "there is no split 'test'; there are train" in named


def test_a_right_answer_that_is_no_choice_is_counted(folder, tmp_path):
    found = evaluated(folder, tmp_path, CHOOSE, [*ROWS, {"text": "so", "label": 7}])
    assert (
        "of 1 rows the right answer is none of the choices; they count as wrong" in (found["notes"])
    )


def test_options_of_task_files_need_one(folder):
    with pytest.raises(SettingsError, match="limit is of task files; give one with --task-file"):
        langue.evaluate(folder, limit=3)


# --- the reference's figures, measured once ---


def test_stories_on_blimp_as_lm_eval_has_it(shared_data, tmp_path):
    """Every tenth pair, the first 1,000: lm-eval 0.4.13 has 0.5480 and 0.5030."""
    with gzip.open(shared_data("blimp") / "test.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for number, line in enumerate(file) if number % 10 == 0][:1000]
    text = 'output_type: multiple_choice\ndoc_to_target: 0\ndoc_to_choice: "{{[good, bad]}}"\n'
    stories = shared_data("stories260K") / "stories260K.bin"
    found = evaluated(stories, tmp_path, text, rows)
    assert found["metrics"] == {"acc": 0.548, "acc_norm": 0.503}


@pytest.mark.slow
def test_stories_on_lambada_as_lm_eval_has_it(shared_data, tmp_path):
    """The first 500: lm-eval 0.4.13 has 0.0080 and 18,541,650."""
    text = "output_type: loglikelihood\n"
    text += """doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"\n"""
    text += """doc_to_target: "{{' ' + text.split(' ')[-1]}}"\n"""
    stories = shared_data("stories260K") / "stories260K.bin"
    data = shared_data("lambada") / "test.jsonl.gz"
    found = evaluated(stories, tmp_path, text, data, limit=500)
    assert found["metrics"]["acc"] == 0.008
    assert found["metrics"]["perplexity"] == pytest.approx(18_541_650.1954, rel=1e-6)

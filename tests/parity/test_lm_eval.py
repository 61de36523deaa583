"""Task files are asked and judged as `lm-evaluation-harness` does, to the last example."""

import json

import pytest

import langue
from tests.tiny import write_jsonl
from tests.tiny_decoder import sentencepiece_tokenizer, tiny_decoder

pytestmark = pytest.mark.slow  # the reference takes seconds to be imported

WORDS = ["the ball", "a web", "in the hall", "other  balls", "then there", "all of it", "be", "er"]
TASKS = {
    "choices": """
output_type: multiple_choice
doc_to_text: ""
doc_to_target: 0
doc_to_choice: "{{[good, bad]}}"
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}, {metric: acc_mutual_info}]
""",
    "examples": """
output_type: multiple_choice
training_split: train
fewshot_split: train
num_fewshot: 2
description: "Say what.\\n\\n"
doc_to_text: "Q: {{text}} "
doc_to_target: label
doc_to_choice: [bad, very good]
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: brier_score}, {metric: f1}]
""",
    "begun": """
output_type: multiple_choice
fewshot_split: test
num_fewshot: 1
gen_prefix: "It was"
fewshot_delimiter: "\\n"
doc_to_text: "{{text|regex_replace('ball', 'hall')}} "
doc_to_target: "{{label}}"
doc_to_choice: [bad, good]
metric_list: [{metric: acc}, {metric: mcc}]
""",
    "inputs": """
output_type: multiple_choice
doc_to_text: "{{label}}"
doc_to_target: text
doc_to_choice: "{{[good, bad]}}"
metric_list: [{metric: acc}]
""",
    "last": """
output_type: loglikelihood
doc_to_text: "{{good}}"
doc_to_target: "{{' ' + text.split(' ')[-1]}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "whole": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{(good + ' ') * 9}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "written": """
output_type: generate_until
fewshot_split: train
fewshot_config: {sampler: first_n}
num_fewshot: 1
doc_to_text: "{{text}} so"
doc_to_target: good
generation_kwargs: {until: ["b", "\\n"], max_gen_toks: 12, do_sample: false}
filter_list:
  - name: plain
    filter: [{function: take_first}]
  - name: letter
    filter: [{function: regex, regex_pattern: "([a-z])"}, {function: lowercase},
             {function: take_first}]
metric_list: [{metric: exact_match, ignore_case: true, ignore_punctuation: true}]
""",
    "translated": """
output_type: generate_until
doc_to_text: "{{text}} so"
doc_to_target: "the {{good}} of it"
generation_kwargs: {until: ["zz"], max_gen_toks: 24}
metric_list: [{metric: bleu}, {metric: chrf}]
""",
}


def rows(count, shift):
    made = []
    for i in range(count):
        one = WORDS[(i + shift) % 8]
        other = WORDS[(3 * i + 1) % 8]
        row = {"text": f"{one} {other}", "good": f"{other} is {one}", "bad": f"{one} are {i}"}
        made.append(row | {"label": (i + shift) % 2})
    return made


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A folder, and its model in the reference."""
    from lm_eval.models.huggingface import HFLM

    folder = tmp_path_factory.mktemp("lm") / "m"
    tokenizer = sentencepiece_tokenizer()
    more = {"bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(tokenizer)}
    tiny_decoder(folder, "llama", tokenizer, max_position_embeddings=96, **more)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
            }
        )
    )
    return folder, HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3)


@pytest.mark.parametrize("name", TASKS)
def test_numbers_requests_and_answers_are_the_references(reference, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import lm_eval
    from lm_eval.tasks import TaskManager

    folder, model = reference
    files = {
        "test": str(write_jsonl(tmp_path / "test.jsonl", rows(12, 0))),
        "train": str(write_jsonl(tmp_path / "train.jsonl", rows(9, 5))),
    }
    file = tmp_path / "tasks" / "own.yaml"
    file.parent.mkdir()
    data = f"dataset_path: json\ndataset_kwargs: {json.dumps({'data_files': files})}\n"
    file.write_text(f"task: own\ntest_split: test\n{data}{TASKS[name]}")
    theirs = lm_eval.simple_evaluate(
        model=model,
        tasks=["own"],
        task_manager=TaskManager(include_path=str(file.parent), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    ours = langue.evaluate(folder, task_file=file, samples=tmp_path / "s.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    for sample in theirs["samples"]["own"]:
        line = lines[sample["doc_id"]]
        size = len(line["requests"])
        asked = [list(each) for each in sample["arguments"]][:size]
        if "generate_until" in TASKS[name]:
            assert line["requests"][0][0] == asked[0][0]
            assert line["written"] == sample["resps"][0][0]
            answer = line["answer"] if name == "translated" else line["answer"][sample["filter"]]
            assert answer == sample["filtered_resps"][0]
            continue
        if name == "whole":
            assert line["requests"][0][1:] == asked[0]
            found = [each[0] if isinstance(each, list) else each for each in sample["resps"]]
        else:
            assert line["requests"] == asked
            found = [each[0][0] for each in sample["resps"]][:size]
        assert line["logprobs"] == pytest.approx([float(each) for each in found], abs=2e-4)
    figures = {}
    for key, value in theirs["results"]["own"].items():
        metric, _, filtered = key.partition(",")
        if filtered and not metric.endswith("_stderr"):
            figures[metric if filtered == "none" else key] = value
    assert ours["metrics"] == pytest.approx({k: float(v) for k, v in figures.items()}, rel=1e-5)

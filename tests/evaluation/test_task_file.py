"""Task files ask what they say, character for character, and a bad one gives one line."""

import math

import numpy as np
import pytest

from langue.errors import DataError
from langue.evaluation.answer_filters import exact_match, filtered
from langue.evaluation.task_file import read_task_file
from langue.evaluation.task_prompts import Prompts, Question, Row, Shots
from langue.evaluation.task_scores import of_choices, of_whole, of_written, shown_names, summarise

BASE = """
task: reviews
output_type: multiple_choice
doc_to_text: "Review: {{text}}\\nIt was"
doc_to_target: label
doc_to_choice: [bad, good]
"""

WRITTEN = "output_type: generate_until\ndoc_to_target: text\n"


def task(tmp_path, text=BASE, name="task.yaml"):
    file = tmp_path / name
    file.write_text(text, "utf-8")
    return read_task_file(file)


def row(**values):
    return Row(values, "reviews.jsonl, line 1")


def ask(given, doc, shots=()):
    return Prompts(given, list(doc.values)).question(doc, list(shots))


def test_a_question_after_examples_is_this_text(tmp_path):
    given = task(
        tmp_path, BASE + 'description: "Judge films.\\n\\n"\nfewshot_delimiter: "\\n--\\n"'
    )
    doc = row(text="A delight.", label=1)
    shots = [row(text="Dull.", label=0), row(text="Fine.", label=1)]
    question = ask(given, doc, shots)
    before = (
        "Judge films.\n\n"
        "Review: Dull.\nIt was bad\n--\n"
        "Review: Fine.\nIt was good\n--\n"
        "Review: A delight.\nIt was"
    )
    assert question.requests == [(before, " bad"), (before, " good")]
    assert question.gold == 1


def test_the_target_delimiter_stands_before_a_choice_even_after_nothing(tmp_path):
    pairs = "output_type: multiple_choice\ndoc_to_target: 0\n"
    pairs += 'doc_to_choice: "{{[good, bad]}}"\n'
    doc = row(good="He is's.", bad='She "are".')
    assert ask(task(tmp_path, pairs), doc).requests == [("", " He is's."), ("", ' She "are".')]
    plain = task(tmp_path, pairs + 'target_delimiter: ""')
    assert ask(plain, doc).requests[0] == ("", "He is's.")


def test_an_answer_may_be_begun(tmp_path):
    given = task(tmp_path, BASE.replace("\\nIt was", "") + 'gen_prefix: "It was"')
    doc = row(text="A delight.", label=1)
    question = ask(given, doc, [row(text="Dull. ", label=0)])
    expected = "Review: Dull. It was bad\n\nReview: A delight. It was"
    assert question.requests[1] == (expected, " good")


def test_a_number_as_the_question_lets_choices_differ_in_it(tmp_path):
    text = "output_type: multiple_choice\ndoc_to_text: answer\ndoc_to_target: ending\n"
    text += 'doc_to_choice: "{{[first, second]}}"\n'
    doc = row(answer=1, ending="it fell", first="The cup was full, so", second="I let go, so")
    question = ask(task(tmp_path, text), doc)
    ends = [("The cup was full, so", " it fell"), ("I let go, so", " it fell")]
    assert question.requests == ends and question.gold == 1


def test_the_last_word_is_what_the_template_parts(tmp_path):
    text = "output_type: loglikelihood\n"
    text += """doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"\n"""
    text += """doc_to_target: "{{' ' + text.split(' ')[-1]}}"\n"""
    question = ask(task(tmp_path, text), row(text="I don't care about signs"))
    assert question.requests == [("I don't care about", " signs")]


def test_templates_may_replace_by_patterns(tmp_path):
    text = BASE.replace("{{text}}", "{{text|regex_replace('[0-9]+', '#')}}")
    question = ask(task(tmp_path, text), row(text="10 of 12", label=0))
    assert question.requests[0][0] == "Review: # of #\nIt was"


def test_json_and_included_files_are_read(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE + "num_fewshot: 2\n")
    given = task(tmp_path, '{"include": "base.yaml", "task": "own"}', "t.json")
    assert (given.task, given.num_fewshot, given.doc_to_choice) == ("own", 2, ["bad", "good"])


def test_examples_are_drawn_as_the_reference_draws_them(tmp_path):
    """`random.Random(1234).sample`, anew for each question, one more where the pool has it."""
    pool = [row(text=str(i), label=0) for i in range(9)]
    shots = Shots(task(tmp_path), pool, 3, same=False)
    assert [int(each.values["text"]) for each in shots.draw(pool[0])] == [7, 1, 0]
    assert [int(each.values["text"]) for each in shots.draw(pool[0])] == [1, 0, 5]
    shots = Shots(task(tmp_path), pool, 3, same=True)
    assert pool[7] not in shots.draw(pool[7])
    first = task(tmp_path, BASE + "fewshot_config: {sampler: first_n}")
    assert Shots(first, pool, 2, same=True).draw(pool[0]) == pool[1:3]
    with pytest.raises(DataError, match="9 examples are to be shown of 9 rows"):
        Shots(task(tmp_path), pool, 9, same=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: a\nprocess_docs: !function utils.f\n", "line 2: !function utils.f is Python code"),
        ("a: !!python/object/apply:os.system [ls]\n", "is Python code, which is not run"),
        ("task: [a, b]\n", "names a group of tasks"),
        ("- a\n", "holds no keys and values"),
        ("task: 'a\n", "is no YAML"),
        (BASE + "doc_to_txt: a\n", "'doc_to_txt' is not known; did you mean doc_to_text?"),
        (BASE + "doc_to_image: a\n", "doc_to_image is not followed: images are not read"),
        (BASE + "num_fewshot: many\n", "num_fewshot = 'many' is not a number from 0 on"),
        (BASE.replace("multiple_choice", "chat"), "output_type 'chat' is not known"),
        ("output_type: loglikelihood\n", "doc_to_target is missing"),
        ("output_type: multiple_choice\ndoc_to_target: a\n", "doc_to_choice is missing"),
        (BASE + "metric_list: [{metric: bleu}]\n", "'bleu' is not known for output_type"),
        (BASE + "repeats: 0\n", "repeats = 0 is not a number from 1 on"),
        (
            WRITTEN + "metric_list: [{metric: exact_match, regexes_to_ignore: ['[']}]\n",
            "'[' is no regular expression",
        ),
        (
            WRITTEN + "metric_list: [{metric: exact_match, ignore_case: 'yes'}]\n",
            "is neither true nor false",
        ),
        (BASE + "metric_list: [{metric: acc, aggregation: median}]\n", "write aggregation: mean"),
        (BASE + "metric_list: [{metric: acc, ignore_case: true}]\n", "does not take ignore_case"),
        (BASE + "filter_list: [{name: a, filter: [{function: b}]}]\n", "filter 'b' is not known"),
        (
            BASE + "filter_list: [{name: a, filter: [{function: regex, regex_pattern: '('}]}]\n",
            "is no regular expression",
        ),
        (BASE + "fewshot_config: {sampler: odd}\n", "sampler 'odd' is not known"),
        (BASE + "include: there.yaml\n", "there.yaml: there is no such file"),
        (BASE + "include: task.yaml\n", "include each other"),
        (BASE + "unsafe_code: true\n", "unsafe_code is not run"),
    ],
)
def test_a_bad_file_gives_one_line(tmp_path, text, said):
    with pytest.raises(DataError) as error:
        task(tmp_path, text)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("{{text}}", "{{texts}}"), "'texts' is undefined; correct it; the row has label, text"),
        (("{{text}}", "{{text.__class__.__mro__}}"), "unsafe"),
        (("{{text}}", "{{text * 10000000}}"), "too large"),
        (("{{text}}", "{% for a in range(90000) %}{{text * 50}}{% endfor %}"), "4,000,000"),
        (("[bad, good]", '"{{text}}"'), "doc_to_choice gives 'It.', which is not a list of texts"),
        (("[bad, good]", '"{{[bad, good]}}"'), "'[Undefined, Undefined]', which is not a list"),
    ],
)
def test_a_template_that_cannot_be_followed_is_told_with_its_row(tmp_path, change, said):
    given = task(tmp_path, BASE.replace(*change))
    with pytest.raises(DataError) as error:
        ask(given, row(text="It.", label=1))
    assert said in str(error.value) and "reviews.jsonl, line 1" in str(error.value)


def test_answers_are_filtered_step_by_step():
    steps = [
        {"function": "regex", "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1},
        {"function": "take_first"},
    ]
    assert filtered(["so 5 and 12.50", "7"], steps, {}) == ["12.50"]
    assert filtered(["none"], steps, {}) == ["[invalid]"]
    vote = [{"function": "lowercase"}, {"function": "majority_vote"}]
    assert filtered(["A", "b", "a"], vote, {}) == ["a"]
    choices = {"choices": ["Guilty", "Guilty of Romance"]}
    by_letter = [{"function": "multi_choice_regex", "regex_pattern": r"(\([A-Z]\))"}]
    assert filtered(["It is (B)."], by_letter, choices) == ["(B)"]
    assert filtered(["Guilty of Romance"], by_letter, choices) == ["(B)"]
    assert filtered(["answer: A"], by_letter, choices) == ["(A)"]
    table = [{"function": "map", "mapping_dict": {"x": "1"}, "default_value": "0"}]
    assert filtered(["x", "y"], table, {}) == ["1", "0"]


def test_texts_match_but_for_what_is_ignored():
    assert not exact_match("Yes.", "yes")
    assert exact_match("Yes.", "yes", ignore_case=True, ignore_punctuation=True)
    assert exact_match("$1,000", "1000", regexes_to_ignore=[",", r"\$"])
    assert exact_match("a1", "a2", ignore_numbers=True)


def test_a_choice_is_chosen_by_each_metric_in_its_own_way():
    question = Question([], 1, row(), ["no", "naïve", "maybe so"])
    values = of_choices(question, [-4.0, -5.0, -7.0], [False, True, False], [-1.0, -9.0, -9.0])
    # a character: 2, 1, 0.875; a byte: 2, 0.83, 0.875; beyond by itself: -3, 4, 2
    assert (values["acc"], values["acc_norm"], values["acc_bytes"]) == (0.0, 0.0, 1.0)
    assert (values["acc_mutual_info"], values["exact_match"]) == (1.0, 1.0)
    tied = of_choices(Question([], 1, row(), ["a", "b"]), [-1.0, -1.0], [True, True])
    assert tied["acc"] == 0.0  # the first of equals
    several = of_choices(
        Question([], [0, 2], row(), ["a", "b", "c"]), [-1.0, -2.0, -3.0], [False] * 3
    )
    assert several["acc"] == 1.0
    named = of_choices(Question([], "b", row(), ["a", "b"]), [-2.0, -1.0], [False] * 2)
    assert named["acc"] == 1.0
    absent = of_choices(Question([], 7, row(), ["a", "b"]), [-2.0, -1.0], [False] * 2)
    assert absent["acc"] == 0.0 and absent["gold"] == -100


def test_perplexities_are_of_all_rows_together(tmp_path):
    text = "output_type: loglikelihood_rolling\ndoc_to_target: text\n"
    given = task(tmp_path, text)
    rows = [of_whole("a b c", -6.0), of_whole("naïve", -4.0)]
    metrics, errors, _ = summarise(given, rows, shown_names(given))
    assert metrics["word_perplexity"] == pytest.approx(math.exp(10 / 4))
    assert metrics["byte_perplexity"] == pytest.approx(math.exp(10 / 11))
    assert metrics["bits_per_byte"] == pytest.approx(10 / 11 / math.log(2))
    assert all(error is not None and error > 0 for error in errors.values())


def test_a_means_standard_error_is_the_samples(tmp_path):
    given = task(tmp_path)
    right = [1.0, 0.0, 0.0, 1.0, 1.0]
    rows = [{"acc": each, "acc_norm": each} for each in right]
    metrics, errors, intervals = summarise(given, rows, shown_names(given))
    assert metrics["acc"] == pytest.approx(0.6)
    assert errors["acc"] == pytest.approx(np.std(right, ddof=1) / math.sqrt(5))
    low, high = intervals["acc"]
    assert 0.14 < low < 0.15 and 0.94 < high < 0.95  # Clopper and Pearson, 3 of 5


def test_translations_are_scored_as_sacrebleu_does(tmp_path):
    import sacrebleu

    given = task(tmp_path, WRITTEN + "metric_list: [{metric: bleu}, {metric: chrf}]\n")
    written = ["the cat sat on the mat .", "a dog ran in the long street"]
    golds = ["the cat sat on a mat .", "the dog ran in the long street"]
    rows = []
    for answer, gold in zip(written, golds, strict=True):
        rows.append({each.name: of_written(each, answer, gold) for each in given.metrics})
    metrics, _, _ = summarise(given, rows, shown_names(given))
    assert metrics["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [golds]).score)
    assert metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, [golds]).score)


def test_values_may_lie_deep_in_a_row(tmp_path):
    """As ARC has them, by the reference's own file."""
    text = """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices.label.index(answerKey)}}"
doc_to_choice: "{{choices.text}}"
"""
    choices = {"text": ["water", "it's air"], "label": ["A", "B"]}
    question = ask(task(tmp_path, text), row(question="Which?", choices=choices, answerKey="B"))
    assert question.requests[1] == ("Question: Which?\nAnswer:", " it's air")
    assert question.gold == 1

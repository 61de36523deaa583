"""Answers are ranked by what the formula says, each read by itself."""

import math

import numpy as np
import pytest
import torch
import transformers

import langue
from langue.errors import DataError, LangueWarning, ModelError
from langue.runs.likelihood import Continuation, rolling_windows
from tests.runs.test_fill_mask import SIZES, wordpiece
from tests.tiny_decoder import sentencepiece_tokenizer, tiny_decoder

PROMPT = "the ball is in"
CHOICES = ["the web", "a hall", "the", "there, of all places"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_decoder(tmp_path_factory.mktemp("decoders") / "m", "gpt2")


@pytest.fixture(scope="module")
def model(folder):
    return langue.load(folder)


def slow(model, context, continuation):
    """The sum of log-probabilities by one forward pass of the whole."""
    logits = model.logits([[*context, *continuation]])[0].astype(np.float64)
    total = 0.0
    for place, token in enumerate(continuation, len(context) - 1):
        row = logits[place] - logits[place].max()
        total += row[token] - math.log(np.exp(row).sum())
    return total


def ids(model, text):
    return model.tokenizer.encode_batch([text])[0].ids


def test_choices_are_ranked_by_their_log_likelihood(model):
    found = model.rank(PROMPT, CHOICES)
    expected = {c: slow(model, ids(model, PROMPT), ids(model, " " + c)) for c in CHOICES}
    assert [each["choice"] for each in found] == sorted(CHOICES, key=lambda c: -expected[c])
    for each in found:
        assert each["logprob"] == pytest.approx(expected[each["choice"]], abs=1e-4)
        assert each["tokens"] == len(ids(model, " " + each["choice"]))
    raised = np.exp([expected[each["choice"]] for each in found])
    assert [each["score"] for each in found] == pytest.approx(raised / raised.sum(), abs=1e-6)


@pytest.mark.parametrize("normalize", ["tokens", "characters", "bytes"])
def test_likelihoods_are_divided_by_lengths(model, normalize):
    choices = ["naïve", "the web of lies", "é"]
    sizes = {
        "tokens": [len(ids(model, " " + c)) for c in choices],
        "characters": [5, 15, 1],
        "bytes": [6, 15, 2],
    }[normalize]
    each = [slow(model, ids(model, PROMPT), ids(model, " " + c)) for c in choices]
    scores = np.exp(np.asarray(each) / sizes)
    found = {
        row["choice"]: row["score"] for row in model.rank(PROMPT, choices, normalize=normalize)
    }
    assert [found[c] for c in choices] == pytest.approx(scores / scores.sum(), abs=1e-5)


def test_a_neutral_prompt_takes_off_what_choices_are_worth_by_themselves(model):
    neutral = ["the", "a web"]
    given = np.exp([slow(model, ids(model, PROMPT), ids(model, " " + c)) for c in CHOICES])
    given /= given.sum()
    by_itself = []
    for text in neutral:
        row = np.exp([slow(model, ids(model, text), ids(model, " " + c)) for c in CHOICES])
        by_itself.append(row / row.sum())
    expected = given / np.mean(by_itself, 0)
    found = {row["choice"]: row["score"] for row in model.rank(PROMPT, CHOICES, neutral=neutral)}
    assert [found[c] for c in CHOICES] == pytest.approx(expected / expected.sum(), abs=1e-5)


def test_several_prompts_and_choices_of_their_own(model):
    alone = [model.rank(PROMPT, CHOICES[:2]), model.rank("the", CHOICES[1:])]
    both = model.rank([PROMPT, "the"], [CHOICES[:2], CHOICES[1:]])
    for one, other in zip(alone, both, strict=True):
        for each, same in zip(one, other, strict=True):
            assert each == pytest.approx(same, abs=1e-6)
    assert len(model.rank([PROMPT, "the"], CHOICES)[1]) == len(CHOICES)


def test_after_nothing_a_text_is_read_after_the_token_that_begins_one(model):
    (found,) = model.rank("", ["the web"])
    assert found["logprob"] == pytest.approx(slow(model, [0], ids(model, "the web")), abs=1e-4)


def test_blanks_at_the_end_of_a_prompt_are_the_choices(model):
    spaced = model.rank(PROMPT + " ", CHOICES)
    plain = model.rank(PROMPT, CHOICES)
    assert [each["logprob"] for each in spaced] == pytest.approx(
        [each["logprob"] for each in plain], abs=1e-5
    )


def test_a_tokenizer_that_begins_texts_does_so_once(tmp_path):
    tokenizer = sentencepiece_tokenizer()
    folder = tiny_decoder(tmp_path / "m", "llama", tokenizer, vocab_size=len(tokenizer))
    model = langue.load(folder)
    whole = ids(model, "the ball the")
    before = ids(model, "the ball")
    assert before[0] == 1 and whole[: len(before)] == before
    (found,) = model.rank("the ball", ["the"])
    expected = slow(model, before, whole[len(before) :])
    assert found["logprob"] == pytest.approx(expected, abs=1e-4)


def test_what_begins_another_is_read_once_and_scored_the_same(model):
    pairs = [(PROMPT, " the"), (PROMPT, " the web"), (PROMPT, " the web"), (PROMPT, " a")]
    scorer = model.likelihoods
    requests = scorer.encode_pairs(pairs)
    asked = scorer._ask_decoder(requests)
    assert len(asked.inputs) == 1  # what a's only token is read from begins the others
    together = scorer.score(requests)
    for request, found in zip(requests, together, strict=True):
        expected = slow(model, request.context, request.tokens)
        assert found.logprob == pytest.approx(expected, abs=1e-4)
    logits = model.logits([[*requests[3].context]])[0]
    assert together[3].greedy == (int(logits[-1].argmax()) == requests[3].tokens[0])


def test_scores_do_not_depend_on_the_others(model):
    pairs = [(PROMPT[:size], " " + choice) for size in range(3, 14) for choice in CHOICES]
    scorer = model.likelihoods
    together = scorer.score(scorer.encode_pairs(pairs))
    for pair, found in zip(pairs, together, strict=True):
        (alone,) = scorer.score(scorer.encode_pairs([pair]))
        assert alone.logprob == pytest.approx(found.logprob, abs=1e-5)
        assert alone.greedy == found.greedy


def test_a_context_that_is_too_long_loses_its_beginning_and_that_is_told(model):
    long = "ab" * 60
    with pytest.warns(LangueWarning, match="1 prompts with their answers are longer than 64"):
        (found,) = model.rank(long, ["cd"])
    tokens = ids(model, " cd")
    kept = ids(model, long)[len(tokens) - 65 :]
    assert found["logprob"] == pytest.approx(slow_last(model, kept, tokens), abs=1e-4)


def slow_last(model, context, continuation):
    """As `slow`, of one token more than the model has positions: the last is not read."""
    logits = model.logits([[*context, *continuation][:-1]])[0].astype(np.float64)
    rows = logits[len(context) - 1 :]
    normal = rows - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True))
    normal -= rows.max(1, keepdims=True)
    return sum(row[token] for row, token in zip(normal, continuation, strict=True))


def test_windows_hold_each_token_once():
    """As `get_rolling_token_windows` with `context_len=1` and `make_disjoint_window`."""
    made = rolling_windows(list(range(1, 12)), 0, 4)
    assert made == [
        Continuation([0], [1, 2, 3, 4]),
        Continuation([4], [5, 6, 7, 8]),
        Continuation([7, 8], [9, 10, 11]),
    ]
    assert rolling_windows([], 0, 4) == []
    assert rolling_windows([5], 0, 4) == [Continuation([0], [5])]


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5") / "m"
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(vocab_size=24, decoder_start_token_id=0, **sizes)
    reference = transformers.T5ForConditionalGeneration(config).eval()
    reference.save_pretrained(folder)
    wordpiece().save_pretrained(folder)
    return langue.load(folder), reference


def test_an_encoder_decoder_ranks_targets_of_a_source(translator):
    model, reference = translator
    sources = ["the film was good", "a plot"]
    choices = ["bad", "very good", "the film and the plot"]
    ranked = model.rank(sources, choices)
    for source, found in zip(sources, ranked, strict=True):
        read = torch.tensor([ids(model, source)])
        for each in found:
            tokens = model.tokenizer.encode_batch([each["choice"]], special=False)[0].ids
            with torch.no_grad():
                logits = reference(input_ids=read, labels=torch.tensor([tokens])).logits[0]
            expected = logits.log_softmax(-1)[range(len(tokens)), tokens].sum().item()
            assert each["logprob"] == pytest.approx(expected, abs=1e-4)


def test_what_cannot_be_ranked_is_told(model, tmp_path):
    for choices, words in (([], "none"), ([""], "not texts"), ("a", "one string")):
        with pytest.raises(ModelError, match=words):
            model.rank(PROMPT, choices)
    with pytest.raises(ModelError, match="1 list of choices and 2 prompts"):
        model.rank(["a", "b"], [["c"]])
    with pytest.raises(ModelError, match="is not known; use one of: none"):
        model.rank(PROMPT, CHOICES, normalize="words")
    with pytest.raises(DataError, match="no tokens of its own"):
        model.likelihoods.encode_pairs([(PROMPT, "")])


# --- labels without training ---


def test_labels_are_ranked_after_examples(model):
    text = "the web"
    template = "{text}\nIt is {}."
    examples = [("a ball", "good"), ("a wall", "bad")]
    (found,) = model.zero_shot([text], ["good", "bad"], template=template, examples=examples)
    prompt = "a ball\nIt is good.\n\na wall\nIt is bad.\n\nthe web\nIt is"
    ranked = model.rank(prompt, ["good.", "bad."])
    assert found["sequence"] == text
    assert found["labels"] == [each["choice"][:-1] for each in ranked]
    assert found["scores"] == pytest.approx([each["score"] for each in ranked], abs=1e-6)


def test_labels_are_calibrated_by_texts_without_content(model):
    (found,) = model.zero_shot(["the web"], ["good", "bad"], calibrate=True)
    neutral = [f"{text}\nThis example is" for text in ("N/A", "", "[MASK]")]
    ranked = model.rank("the web\nThis example is", ["good.", "bad."], neutral=neutral)
    assert found["scores"] == pytest.approx([each["score"] for each in ranked], abs=1e-6)


@pytest.fixture(scope="module")
def nli(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nli") / "m"
    names = {0: "contradiction", 1: "neutral", 2: "entailment"}
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=17, id2label=names, label2id={name: i for i, name in names.items()}, **SIZES
    )
    made = transformers.BertForSequenceClassification(config)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    made.save_pretrained(folder)
    wordpiece().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("several", [True, False])
def test_a_model_of_entailment_labels_as_the_pipeline_does(nli, several):
    pipe = transformers.pipeline("zero-shot-classification", str(nli), device="cpu")
    texts = ["the film was very good", "a bad plot"]
    labels = ["good", "bad", "the plot"]
    template = "the film was {}."
    more = {"hypothesis_template": template, "multi_label": several}
    theirs = pipe(texts, labels, **more)
    ours = langue.load(nli).zero_shot(texts, labels, template=template, multi_label=several)
    for one, other in zip(ours, theirs, strict=True):
        assert one["sequence"] == other["sequence"] and one["labels"] == other["labels"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)


def test_what_cannot_be_labelled_is_told(model, nli):
    with pytest.raises(ModelError, match="no place for the label"):
        model.zero_shot(["the"], ["good"], template="It is so.")
    with pytest.raises(ModelError, match="one label a text"):
        model.zero_shot(["the"], ["good"], multi_label=True)
    with pytest.raises(ModelError, match="given twice"):
        model.zero_shot(["the"], ["good", "good"])
    with pytest.raises(ModelError, match="for language models"):
        langue.load(nli).zero_shot(["the"], ["good"], calibrate=True)
    with pytest.raises(ModelError, match="no sentence about a label"):
        langue.load(nli).zero_shot(["the"], ["good"], template="{text} is {}")

"""Words that are longer than a library's limit: found, cut, counted, and never unknown for their
length."""

import random
import re
import signal
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from langue.settings.sections import resolve
from langue.text.tokenizers import training
from langue.text.tokenizers.long_words import LongWords, long_runs
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.training import WORDPIECE_LIMIT, train

SCRIPTS = {  # that write no spaces, or few: first and last of some of their letters
    "Thai": (0x0E01, 0x0E2E),
    "Lao": (0x0E81, 0x0E82),
    "Tibetan": (0x0F40, 0x0F47),
    "Burmese": (0x1000, 0x1021),
    "Khmer": (0x1780, 0x17A2),
    "Han": (0x4E00, 0x4E40),
    "Japanese": (0x3041, 0x3096),
}


def clauses(script: str) -> list[str]:
    """Text whose clauses, between two spaces, are of 20 to 400 letters."""
    drawn = random.Random(0)
    first, last = SCRIPTS[script]
    words = ["".join(chr(drawn.randint(first, last)) for _ in range(3)) for _ in range(40)]
    return [
        " ".join("".join(drawn.choices(words, k=k // 3)) for k in (20, 90, 150, 400))
        for _ in range(12)
    ]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b" * 7, " ", "  \n", "\t" * 5, "c" * 20]), max_size=20),
    st.integers(1, 12),
)
def test_long_runs_are_those_that_a_look_at_all_characters_finds(parts, limit):
    text = "".join(parts)
    wanted = [
        found.span()
        for found in re.finditer(r"\s+|\S+", text)
        if found.end() - found.start() > limit
    ]
    assert list(long_runs(text, limit)) == wanted


@pytest.mark.parametrize(
    ("cut", "words", "characters"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), 3, 25 + 11 + 33),  # spaces are words too
        (pre_tokenizers.Metaspace(), 3, 25 + 11 + 11),
        (pre_tokenizers.BertPreTokenizer(), 1, 25),  # each mark is a word
    ],
)
def test_a_cut_text_is_the_same_text_in_words_within_the_limit(cut, words, characters):
    texts = ["x" * 25 + " yy " + "-" * 11, "short words alone", " " * 33 + "z", "ä" * 10 + "!", ""]
    long = LongWords(10, None, cut)
    parts = list(long.cut(texts))
    assert "".join(parts) == "".join(texts)
    lengths = [end - begin for part in parts for _, (begin, end) in cut.pre_tokenize_str(part)]
    assert max(lengths) <= 11  # with the space before a word
    assert (long.words, long.characters) == (words, characters)
    assert not LongWords(10, None, cut).note("cut")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_no_trainer_gets_a_long_word_and_the_report_counts_them(kind, tmp_path, monkeypatch):
    given = []

    def learn(backend, texts, trainer):
        given.extend(texts)
        backend.train_from_iterator(given, trainer)
        words = (backend.pre_tokenizer.pre_tokenize_str(text) for text in given)
        assert max(end - begin for text in words for _, (begin, end) in text) <= 1001

    monkeypatch.setattr(training, "_learn", learn)
    notes: list[str] = []
    text = "the cat sat on the mat " * 9
    chosen = resolve({"tokenizer.kind": kind, "tokenizer.vocab_size": 300}).tokenizer
    train([text, "ab" * 1500 + " " + text], chosen, tmp_path, notes)
    (note,) = notes
    assert note.startswith("1 word longer than") and "(3,000 in all): cut" in note


@pytest.mark.parametrize("script", SCRIPTS)
def test_wordpiece_of_a_script_without_spaces_knows_its_text(script, tmp_path):
    from transformers import AutoTokenizer

    texts = clauses(script)
    chosen = resolve(
        {"tokenizer.kind": "wordpiece", "tokenizer.lower": True, "tokenizer.vocab_size": 400}
    ).tokenizer
    notes: list[str] = []
    tokenizer = train(texts, chosen, tmp_path, notes)
    encodings = tokenizer.encode_batch(texts)
    unknown = tokenizer.backend.token_to_id("[UNK]")
    assert not any(encoding.ids.count(unknown) for encoding in encodings)
    assert bool(notes) == (script != "Han")  # of which each character is a word
    assert all(
        f"longer than {WORDPIECE_LIMIT} characters" in note and "in use" in note for note in notes
    )
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(texts)["input_ids"] == [encoding.ids for encoding in encodings]


def test_a_space_of_no_width_parts_words(tmp_path):
    text = "\u200b".join(
        clauses("Khmer")[0].replace(" ", "")[place : place + 5] for place in range(0, 400, 5)
    )
    tokenizer = train(
        [text],
        resolve({"tokenizer.kind": "wordpiece", "tokenizer.vocab_size": 300}).tokenizer,
        tmp_path,
    )
    backend = tokenizer.backend
    words = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    assert [word for word, _ in words] == text.split("\u200b")


def test_wordpiece_of_common_text_is_cut_as_before(tmp_path):
    """A word that is longer than the limit is too rare to slow all texts down."""
    text = ["the cat sat on the mat and the dog too. " * 20] * 150
    notes: list[str] = []
    chosen = resolve({"tokenizer.kind": "wordpiece", "tokenizer.vocab_size": 200}).tokenizer
    tokenizer = train([*text, "a" * 110], chosen, tmp_path, notes)
    assert isinstance(tokenizer.backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
    assert "being so rare, they are unknown tokens" in notes[0]
    assert Tokenizer.load(tmp_path).backend.encode("a" * 110).tokens == ["[CLS]", "[UNK]", "[SEP]"]


@pytest.mark.timed
def test_ctrl_c_is_heard_while_a_tokenizer_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LIMIT", 10**9)  # so that learning takes seconds
    drawn = random.Random(0)
    text = "".join(drawn.choices("abcdefghij", k=90_000))
    began = time.perf_counter()
    # a shell's background processes ignore Ctrl-C, and these tests may be one
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            train([text], resolve({"tokenizer.vocab_size": 8000}).tokenizer, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    left = [thread for thread in threading.enumerate() if thread.name == "tokenizer trainer"]
    assert left and left[0].daemon  # it was not done, and does not hold up the end of the process
    assert time.perf_counter() - began < 2

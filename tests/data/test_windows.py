"""Windows of long texts: every token is in one, with what stands around it."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from langue.data import windows
from langue.data.windows import encode_windows, offsets_of_texts, places_of_words
from langue.errors import DataError
from langue.text.tokenizers.tokenizer import Tokenizer


def words(special: bool = True) -> Tokenizer:
    """A tokenizer of whole words w0 to w99, with BERT's special tokens around a text."""
    names = ["[CLS]", "[SEP]", "[UNK]", *(f"w{index}" for index in range(100))]
    vocabulary = {name: index for index, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        backend.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    return Tokenizer(backend)


def text_of(count: int) -> str:
    return " ".join(f"W{index}" for index in range(count))


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 30, 97])
def test_every_token_stands_in_a_window_with_its_characters(special: bool, count: int) -> None:
    tokenizer = words(special)
    text = text_of(count)
    made = encode_windows(tokenizer, [text], max_length=10, stride=3)
    examples = made.examples
    assert examples.lengths.max(initial=0) <= 10
    seen: dict[int, int] = {}
    for window in range(len(examples)):
        part = slice(examples.starts[window], examples.starts[window + 1])
        ids = examples.tokens[part].tolist()
        if special:
            assert ids[0] == 0 and ids[-1] == 1
        for token, (begin, end), margin in zip(
            ids, made.offsets[part].tolist(), made.margin[part].tolist(), strict=True
        ):
            if begin < 0:
                assert token in (0, 1)
                continue
            assert tokenizer.token(token).upper() == text[begin:end]
            seen[begin] = max(seen.get(begin, -1), margin)
    assert len(seen) == count
    if count > 10:  # the best window of a token has at least half the stride around it
        assert min(seen.values()) >= 1


def test_a_question_stands_in_every_window() -> None:
    made = encode_windows(
        words(), [text_of(20), "w5"], ["w1 w2", "w3"], max_length=12, stride=2, segments=True
    )
    examples = made.examples
    assert made.row.tolist() == sorted(made.row.tolist()) and set(made.row.tolist()) == {0, 1}
    for window, row in enumerate(made.row):
        part = slice(examples.starts[window], examples.starts[window + 1])
        ids = examples.tokens[part]
        question = [4, 5] if row == 0 else [6]
        assert ids[: len(question) + 2].tolist() == [0, *question, 1]
        assert examples.segments[part].tolist() == [0] * (len(question) + 2) + [1] * (
            len(ids) - len(question) - 2
        )
        assert (made.offsets[part][: len(question) + 2] == -1).all()
    assert made.cut.tolist() == [0, 0]
    assert made.first.tolist() == [0, 5, 10, 13, 0] and made.row.tolist() == [0, 0, 0, 0, 1]
    assert made.begin.tolist() == [4, 4, 4, 4, 3] and made.size.tolist() == [7, 7, 7, 7, 1]
    whole = encode_windows(words(special=False), [text_of(20), "w5"], max_length=99, stride=0)
    alone = np.split(whole.offsets, whole.examples.starts[1:-1])
    for own, other in zip(offsets_of_texts(made, 2), alone, strict=True):
        assert own.tolist() == other.tolist()


def test_many_long_texts_are_encoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text_of(count) for count in (1, 40, 3, 0, 20, 7)]
    whole = encode_windows(words(), texts, max_length=10, stride=3)
    monkeypatch.setattr("langue.data.windows.CHARACTERS", 60)
    assert [*windows._chunks(texts)] == [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6)]
    parts = encode_windows(words(), texts, max_length=10, stride=3)
    for mine, other in [(parts.row, whole.row), (parts.examples.tokens, whole.examples.tokens)]:
        assert mine.tolist() == other.tolist()


def test_a_question_without_end_leaves_room_and_is_counted() -> None:
    made = encode_windows(words(), [text_of(20)], [text_of(50)], max_length=15, stride=2)
    assert made.examples.lengths.max() <= 15
    assert made.cut.tolist() == [50 - 6]
    with pytest.raises(DataError, match="data.max_length = 3 leaves no room"):
        encode_windows(words(), [text_of(5)], ["w1"], max_length=3, stride=2)


def test_words_are_placed_in_the_window_that_shows_most_around_them() -> None:
    text = text_of(30)
    spans = []
    begin = 0
    for word in text.split():
        spans.append((begin, begin + len(word)))
        begin += len(word) + 1
    made = encode_windows(words(), [text, "w3"], max_length=10, stride=4)
    places, other = places_of_words(made, [spans, [(0, 2), (2, 2)]])
    tokens = [words().token(token) for token in made.examples.tokens[places]]
    assert tokens == [f"w{index}" for index in range(30)]
    best = made.margin[places]
    for place, margin in zip(places, best, strict=True):
        same = (made.offsets == made.offsets[place]).all(axis=1)
        assert margin == made.margin[same][: len(made.margin)].max()
    assert other[0] >= 0 and other[1] == -1  # nothing begins where the text has ended


def test_what_is_unknown_in_a_late_window_is_counted() -> None:
    """A text of many windows has more of them than there are texts."""
    texts = [f"{text_of(60)} unheard", text_of(3)]
    for firsts in (None, ["w1", "w2 of"]):
        made = encode_windows(words(), texts, firsts, max_length=10, stride=3)
        lost = made.examples.lost
        assert lost is not None and lost.unknown >= (1 if firsts is None else 2)
        assert lost.lost == len("unheard") + (0 if firsts is None else len("of"))

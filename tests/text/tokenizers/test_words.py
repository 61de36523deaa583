"""What a word is to a vocabulary: letters between spaces, or a character of a script that writes
none."""

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from langue.settings.sections import resolve
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.training import train
from langue.text.tokenizers.unknown import ALPHABET
from langue.text.tokenizers.words import Words

TEXT = "我们喜欢机器学习and deep learning模型, こんにちは世界 déjà 한국어 naïve"


def words(tokenizer, text):
    """The text's words, each as its tokens."""
    ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
    begins = Words(tokenizer).begin(np.asarray(ids))
    return [
        part.tolist() for part in np.split(np.asarray(ids), np.flatnonzero(begins)) if len(part)
    ]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *[
            ("bpe", {"vocab_size": 280}),
            ("bpe", {"vocab_size": 800}),
            ("unigram", {"vocab_size": 60}),
            ("bytes", {}),
        ],
        *[("wordpiece", {"vocab_size": 150, "chinese": chinese}) for chinese in (True, False)],
    ],
)
def test_a_character_is_a_word_where_no_spaces_are_written(tmp_path, kind, more):
    chosen = resolve({"tokenizer.kind": kind, "tokenizer.min_frequency": 1})
    chosen = chosen.tokenizer.model_copy(update=more)
    letters = "\n".join(TEXT)  # of which no token spans two
    tokenizer = train([letters, "and deep learning déjà 한국어 naïve"] * 3, chosen, tmp_path)
    found = words(tokenizer, TEXT)
    told = [tokenizer.decode(word).strip().replace("##", "") for word in found]
    for word, said in zip(found, told, strict=True):
        if any("\u3040" <= letter <= "\u9fff" for letter in said):
            assert len(said) == 1 or len(word) == 1, said
    for whole in ("and", "deep", "learning", "déjà", "한국어", "naïve"):
        assert whole in told, told


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory):
    """A character beyond ASCII is two or three tokens."""
    chosen = resolve({"tokenizer.kind": "bytes"}).tokenizer
    return train(["abc"], chosen, tmp_path_factory.mktemp("bytes"))


@pytest.mark.parametrize("text", ["ภาษาไทยเขียนติดกัน", "ພາສາລາວ", "မြန်မာ", "ភាសាខ្មែរ"])
@pytest.mark.parametrize("merged", [0, 1, 2])
def test_where_no_spaces_are_written_a_character_cut_anywhere_is_a_word(of_bytes, text, merged):
    """merged: of the first bytes of all characters, how many more are one token with the first."""
    letters = [ALPHABET[byte] for byte in range(256)]
    vocabulary = {letter: n for n, letter in enumerate(letters)}
    merges = []
    for lead in {letter.encode() for letter in text}:
        parts = [ALPHABET[byte] for byte in lead]
        for n in range(1, merged + 1):
            pair = "".join(parts[:n]), parts[n]
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault("".join(pair), len(vocabulary))
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = Tokenizer(backend)
    assert [made.decode(word).strip() for word in words(made, text)] == list(text)


@pytest.mark.parametrize("kind", ["bytes", "unigram", "characters"])
def test_marks_and_digits_go_on_with_their_word(tmp_path, of_bytes, kind):
    text = "हिन्दी में லிக தமிழ் e\u0301te\u0301 قَلَمٌ abc123def 2024 tiếng საქართველო"
    chosen = resolve(
        {"tokenizer.kind": kind, "tokenizer.min_frequency": 1, "tokenizer.vocab_size": 60}
    ).tokenizer
    made = of_bytes if kind == "bytes" else train(["\n".join(text)] * 3, chosen, tmp_path)
    found = words(made, text)
    assert len(found) == len(text.split()), [made.decode(word) for word in found]


def test_a_token_that_looks_like_wordpiece_makes_no_wordpiece():
    tokens = ["##", "##x", *ALPHABET.values()]
    backend = tokenizers.Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = Tokenizer(backend)
    assert [made.decode(word).strip() for word in words(made, "two words")] == ["two", "words"]


def test_what_begins_a_word_depends_on_its_piece_alone(of_bytes):
    piece, other = (
        of_bytes.backend.encode(text, add_special_tokens=False).ids for text in ("ไทย", "ab\u0e01")
    )
    alone = Words(of_bytes)
    cut = np.asarray([*other[:3], *piece[1:]])
    begins = alone.begin(cut, np.asarray([0, 3]))
    assert begins.tolist() == [*alone.begin(cut[:3]).tolist(), *alone.begin(cut[3:]).tolist()]

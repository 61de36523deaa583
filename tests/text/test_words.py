"""What a word is to a vocabulary: letters between spaces, or a character of a script that writes none."""

import numpy as np
import pytest

from langue.settings import resolve
from langue.text.train_tokenizer import train
from langue.text.words import Words

TEXT = "我们喜欢机器学习and deep learning模型, こんにちは世界 déjà 한국어 naïve"


def words(tokenizer, text):
    """The text's words, each as its tokens."""
    ids = tokenizer.backend.encode(text, add_special_tokens=False).ids
    begins = Words([tokenizer.token(index) for index in range(len(tokenizer))]).begin(np.asarray(ids))
    return [part.tolist() for part in np.split(np.asarray(ids), np.flatnonzero(begins)) if len(part)]


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *[("bpe", {"vocab_size": 280}), ("bpe", {"vocab_size": 800}), ("unigram", {"vocab_size": 60}), ("bytes", {})],
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

"""ByT5's tokenizer, which is of bytes and has no file of its own: ids, text and sentinels are the
reference's."""

import json

import pytest
from tokenizers import pre_tokenizers

from langue.errors import ModelError
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.vocabulary import _letters_of_bytes

transformers = pytest.importorskip("transformers")

TEXTS = ["the water in", "Größe, 東京  \n\t x", "", "it's 12% 🙂", "a<extra_id_0>b<extra_id_124>"]


def folder_of(path, **said):
    path.mkdir(exist_ok=True)
    content = {"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125} | said
    (path / "tokenizer_config.json").write_text(json.dumps(content))
    return path


def test_ids_and_text_are_the_references(tmp_path):
    transformers.ByT5Tokenizer().save_pretrained(tmp_path / "m")
    folder = tmp_path / "m"
    theirs = transformers.ByT5Tokenizer.from_pretrained(folder)
    for each in (folder, folder_of(tmp_path / "bare")):
        ours = Tokenizer.load(each)
        assert len(ours) == len(theirs) == 384
        for text in TEXTS:
            ids = ours.encode_batch([text])[0].ids
            assert ids == theirs(text)["input_ids"], text
            if "extra" not in text:
                assert ours.decode(ids) == text
        assert ours.encode_batch(["a"], ["b"])[0].ids == theirs("a", "b")["input_ids"]
    again = tmp_path / "again"
    again.mkdir()
    ours.save(again)
    kept = Tokenizer.load(again)
    assert [kept.encode_batch([t])[0].ids for t in TEXTS] == [
        ours.encode_batch([t])[0].ids for t in TEXTS
    ]


def test_every_byte_has_the_letter_of_byte_level_tokenizers():
    assert sorted(_letters_of_bytes()) == sorted(pre_tokenizers.ByteLevel.alphabet())


def test_a_number_of_sentinels_that_is_none_is_told(tmp_path):
    with pytest.raises(ModelError, match="extra_ids = 'many'"):
        Tokenizer.load(folder_of(tmp_path / "m", extra_ids="many"))

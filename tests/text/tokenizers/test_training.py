"""Tokenizers that we train: special tokens, exact round trips, the same ids in `transformers`, a
fertility report."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langue.errors import DataError, SettingsError
from langue.settings.sections import resolve
from langue.text.tokenizers.fertility import fertility
from langue.text.tokenizers.special import special_ids
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.training import NAMES, special_tokens, train

KINDS = ["bpe", "wordpiece", "unigram", "characters", "bytes"]
TEXTS = [
    "The cat sat on the mat, and the other cat sat on it too.\n\nIt was 1984 days.",
    "北京的天气很好。  été naïve\r\n",
]
TEXTS = [*TEXTS * 12, *(f"the word number {n} of the test is thus {n * 7}\n" for n in range(60))]
PROBE = "The cat\n\n  sat on été 北京,  and 12345 tests \n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    def make(kind: str, **options):
        folder = tmp_path_factory.mktemp(kind)
        words = {"kind": kind, "vocab_size": 340, **options}
        train(
            TEXTS,
            resolve({f"tokenizer.{key}": value for key, value in words.items()}).tokenizer,
            folder,
        )
        return folder

    made = {kind: make(kind) for kind in KINDS}
    return lambda kind, **options: make(kind, **options) if options else made[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_gives_the_same_ids(folders, kind):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folders(kind))
    ours = Tokenizer.load(folders(kind))
    for text in [PROBE, *TEXTS[:3]]:
        ids = ours.encode_batch([text])[0].ids
        assert theirs(text)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
    for name, token in NAMES[kind].items():
        if name:
            assert getattr(theirs, f"{name}_token") == token
            assert getattr(theirs, f"{name}_token_id") == getattr(
                special_ids(ours), name, ours.backend.token_to_id(token)
            )


@pytest.mark.parametrize("kind", ["bpe", "unigram", "characters", "bytes"])
def test_a_text_comes_back_as_it_was(folders, kind):
    tokenizer = Tokenizer.load(folders(kind))
    ids = tokenizer.encode_batch([PROBE])[0].ids
    assert tokenizer.decode(ids) == PROBE
    begin = special_ids(tokenizer).need("bos")
    assert (
        begin
        == special_ids(tokenizer).need("eos")
        == tokenizer.backend.token_to_id("<|endoftext|>")
    )
    assert begin not in ids


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_bytes_and_bpe_give_back_every_text(folders, text):
    for kind in ("bytes", "bpe"):
        tokenizer = Tokenizer.load(folders(kind))
        tokenizer.backend.encode_special_tokens = True
        assert tokenizer.decode(tokenizer.encode_batch([text])[0].ids, skip_special=False) == text


def test_a_byte_is_its_own_token(folders):
    tokenizer = Tokenizer.load(folders("bytes"))
    text = "".join(map(chr, range(128))) + "é北😀"
    assert tokenizer.encode_batch([text])[0].ids == list(text.encode())
    assert len(tokenizer) == 257


def test_characters_are_one_token_each_and_unknown_ones_one_unknown(folders):
    tokenizer = Tokenizer.load(folders("characters"))
    ids = tokenizer.encode_batch(["a cat\n\tt😀😀"])[0].ids
    unknown = tokenizer.backend.token_to_id("<unk>")
    assert len(ids) == 10
    # the tab, twice the face
    assert [place for place, token in enumerate(ids) if token == unknown] == [6, 8, 9]


def test_wordpiece_frames_a_text_and_the_others_add_nothing(folders):
    tokenizer = Tokenizer.load(folders("wordpiece"))
    assert [tokenizer.token(index) for index in range(5)] == [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]
    found = tokenizer.encode_batch(["the cat"], ["the mat"])[0]
    assert (
        found.tokens[0] == "[CLS]" and found.tokens.count("[SEP]") == 2 and found.type_ids[-1] == 1
    )


@pytest.mark.parametrize(
    ("options", "text", "same"),
    [
        ({"lower": True}, "THE CAT", "the cat"),
        ({"accents": False}, "e\u0301t\u00e9", "ete"),
        ({"normalise": "nfc"}, "e\u0301te\u0301", "\u00e9t\u00e9"),
        ({"normalise": "nfkc"}, "\uff54he \ufb01t", "the fit"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_normalises(folders, kind, options, text, same):
    changed = Tokenizer.load(folders(kind, **options))
    plain = Tokenizer.load(folders(kind))
    assert changed.encode_batch([text])[0].ids == changed.encode_batch([same])[0].ids
    if kind in ("bytes", "bpe"):
        assert plain.encode_batch([text])[0].ids != plain.encode_batch([same])[0].ids


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_digits_stand_alone(folders, kind):
    tokenizer = Tokenizer.load(folders(kind, digits=True))
    tokens = tokenizer.backend.encode("198 1984", add_special_tokens=False).tokens
    assert max(sum(c.isdigit() for c in token) for token in tokens) == 1


def test_sentinels_and_more_special_tokens(folders):
    folder = folders("unigram", sentinels=4, special="<|user|>,<|model|>", vocab_size=80)
    tokenizer = Tokenizer.load(folder)
    found = special_ids(tokenizer)
    assert len(found.sentinels) == 4 and found.pad == 0
    assert tokenizer.backend.encode("<|user|>").ids == [tokenizer.backend.token_to_id("<|user|>")]
    said = json.loads((folder / "tokenizer_config.json").read_text())["additional_special_tokens"]
    assert said == ["</s>", "<|user|>", "<|model|>", *(f"<extra_id_{n}>" for n in range(4))]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytes"])
def test_a_vocabulary_is_as_large_as_asked_at_most(folders, kind):
    assert (
        len(special_tokens(resolve({"tokenizer.kind": kind}).tokenizer))
        < len(Tokenizer.load(folders(kind)))
        <= 340
    )


def test_unigram_is_refused_a_vocabulary_without_room_for_all_characters(folders, tmp_path):
    least = len(set("".join(TEXTS))) + len(set(NAMES["unigram"].values()))
    for size in (least, least - 5):  # which the trainer would exceed, and at which it would stop
        with pytest.raises(SettingsError, match="gives each of the text's") as caught:
            train(
                TEXTS,
                resolve({"tokenizer.kind": "unigram", "tokenizer.vocab_size": size}).tokenizer,
                tmp_path,
            )
        assert f"set it above {least}" in str(caught.value.do)
    assert len(Tokenizer.load(folders("unigram", vocab_size=least + 1))) == least + 1


def test_training_twice_gives_the_same(folders):
    for kind in [kind for kind in KINDS if kind != "unigram"]:
        again = folders(kind, min_frequency=2)
        assert (again / "tokenizer.json").read_bytes() == (
            folders(kind) / "tokenizer.json"
        ).read_bytes()


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match="vocab_size = 100 is too small for bpe"):
        train(TEXTS, resolve({"tokenizer.vocab_size": 100}).tokenizer, tmp_path)
    for kind in KINDS:
        with pytest.raises(DataError, match="no text"):
            train(["  \n"], resolve({"tokenizer.kind": kind}).tokenizer, tmp_path)


def test_fertility_counts_by_script_and_language(folders):
    report = fertility(Tokenizer.load(folders("bytes")), ["two words\n北京\n\n", "Ещё слово"])
    assert list(report["scripts"]) == ["Latin", "Cyrillic", "Han"]
    latin = report["scripts"]["Latin"]
    han = report["scripts"]["Han"]
    assert (latin["words"], latin["tokens"], latin["tokens_per_byte"]) == (2, 10, 1.0)
    assert (han["words"], han["tokens"], han["tokens_per_character"]) == (2, 7, round(7 / 3, 4))
    assert list(report["languages"]) == [
        "written in Latin letters",
        "written in Cyrillic letters",
        "Chinese",
    ]
    mixed = fertility(
        Tokenizer.load(folders("bytes")), ["the cat is in the house\ndie Katze ist in dem Haus\n"]
    )
    assert mixed["scripts"]["Latin"]["words"] == 12
    assert {name: each["words"] for name, each in mixed["languages"].items()} == {
        "English": 6,
        "German": 6,
    }
    assert report["all"]["tokens"] == report["all"]["bytes"] == 10 + 7 + len("Ещё слово".encode())
    unknown = fertility(Tokenizer.load(folders("characters")), ["a😀"])
    assert unknown["all"]["unknown_share"] == 0.5

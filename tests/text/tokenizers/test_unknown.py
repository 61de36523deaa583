"""What a tokenizer does not know is counted by tokens, characters and bytes, and told wherever text
becomes tokens."""

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from langue.data.encode import encode
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import ALPHABET, SAMPLE, Gap, Lost, gap_of
from tests.tiny import tiny_bert

KNOWN = "abc"
LOST = "жщ語😀"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = [("<unk>", 0.0), ("\u2581", -1.0), *((letter, -2.0) for letter in KNOWN)]


def _numbered(*tokens):
    return {token: index for index, token in enumerate(tokens)}


def _backend(model, **parts):
    backend = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(backend, name, part)
    return backend


SPLIT = {"pre_tokenizer": pre_tokenizers.Whitespace()}
META = {"pre_tokenizer": pre_tokenizers.Metaspace(), "decoder": decoders.Metaspace()}
WORDPIECE = _numbered("[UNK]", "[CLS]", "[SEP]", *KNOWN, *(f"##{letter}" for letter in KNOWN))
MODELS = {  # kind: its backend, what becomes of an unknown character
    "wordpiece": (_backend(models.WordPiece(WORDPIECE, unk_token="[UNK]"), **SPLIT), Gap(0)),
    "words": (
        _backend(models.WordLevel(_numbered("?", "abc", "a", "b"), unk_token="?"), **SPLIT),
        Gap(0),
    ),
    "characters": (
        _backend(models.BPE(_numbered("<unk>", " ", *KNOWN), [], unk_token="<unk>")),
        Gap(0),
    ),
    "fused": (
        _backend(models.BPE(_numbered("u", " ", *KNOWN), [], unk_token="u", fuse_unk=True)),
        Gap(0),
    ),
    "dropping": (_backend(models.BPE(_numbered(*KNOWN), []), **SPLIT), Gap(None, drops=True)),
    "unigram": (_backend(models.Unigram(PIECES, unk_id=0), **META), Gap(0)),
    "fallback": (
        _backend(models.BPE(_numbered(*BYTES, *KNOWN), [], byte_fallback=True)),
        Gap(None),
    ),
    "unigram-bytes": (
        _backend(
            models.Unigram([*PIECES, *((b, -9.0) for b in BYTES)], unk_id=0, byte_fallback=True),
            **META,
        ),
        Gap(None),
    ),
    "bytes": (
        _backend(
            models.BPE(_numbered("<|end|>", *ALPHABET.values()), [], unk_token="<|end|>"),
            pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        ),
        Gap(None),
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_lost_is_what_a_character_at_a_time_loses(kind):
    backend, gap = MODELS[kind]
    tokenizer = Tokenizer(backend)
    assert gap_of(tokenizer) == gap
    texts = ["abc a b", "a щ abc", "語語 b", "a 😀 жж", "abc"] * 3
    found = encode(tokenizer, texts, max_length=512).lost
    loses = gap.token is not None or gap.drops
    gone = [character for text in texts for character in text if character in LOST] if loses else []
    assert found.lost == len(gone) and found.lost_bytes == len("".join(gone).encode())
    everything = "".join(texts)
    assert found.characters == (len(everything) if loses else 0)
    ids = [token for encoding in backend.encode_batch(texts) for token in encoding.ids]
    assert found.tokens == len(ids) and found.unknown == (
        ids.count(gap.token) if gap.token is not None else 0
    )
    if not loses:
        assert not found.note()
        return
    if gap.token is not None:  # the sample has but texts with unknown tokens
        assert found.share() == pytest.approx(len(gone) / len(everything))
    (note,) = found.note("train: ")
    assert note.startswith(
        f"train: about {100 * len(gone) / len(everything):.0f}% of the characters"
    )
    assert ("leaves out" in note) == gap.drops
    assert not encode(tokenizer, ["abc"] * 3, max_length=512).lost.note()


def test_pairs_and_cut_texts_are_counted_as_they_are_kept():
    tokenizer = Tokenizer(MODELS["characters"][0])
    pairs = encode(tokenizer, ["ab", "жж"], ["щ", "abc"], max_length=512).lost
    assert (pairs.unknown, pairs.lost, pairs.characters) == (3, 3, 8)
    cut = encode(tokenizer, ["a" * 90 + "ж" * 10], max_length=50, cut="head").lost
    assert (cut.unknown, cut.tokens, cut.characters) == (0, 50, 50) and not cut.note()
    cut = encode(tokenizer, ["a" * 90 + "ж" * 10], max_length=20, cut="tail").lost
    assert cut.share() == pytest.approx(0.5)


def test_words_that_are_too_long_for_wordpiece_are_told_as_that():
    tokenizer = Tokenizer(MODELS["wordpiece"][0])
    note = encode(tokenizer, ["abc " * 50 + "a" * 101], max_length=512).lost.note()
    assert (
        "about 34% of the characters" in note[0] and "words of more than 100 characters" in note[0]
    )
    assert "0.66% of the tokens" in note[0]  # which alone would not have been told


def test_the_sample_is_bounded_and_counts_add_up():
    tokenizer = Tokenizer(MODELS["characters"][0])
    whole = Lost(tokenizer)
    for _ in range(3):
        whole.add(encode(tokenizer, ["abж" * 60_000], max_length=10**6).lost)
    assert whole.unknown == 180_000 and whole.share() == pytest.approx(1 / 3)
    one = encode(tokenizer, ["abж" * 200_000], max_length=10**6).lost
    assert one.sampled == SAMPLE and one.share() == pytest.approx(1 / 3, abs=1e-5)
    assert one.bytes_lost(4 * 200_000) == pytest.approx(2 * 200_000, rel=1e-4)


def test_a_tokenizer_that_cannot_say_unknown_is_refused_in_one_line():
    from langue.errors import ModelError

    tokenizer = Tokenizer(_backend(models.Unigram([("a", -1.0)])))
    with pytest.raises(ModelError, match="the tokenizer cannot read a text"):
        encode(tokenizer, ["aж"], max_length=9)


def test_names_of_special_tokens_in_texts_are_told(tmp_path):
    tokenizer = Tokenizer.load(tiny_bert(tmp_path))
    texts = ["a good film", "a [MASK] film", "a [x] film", "[SEP] and [CLS]"]
    lost = encode(tokenizer, texts, ["good"] * 3 + ["[PAD]"], max_length=64).lost
    assert lost.named == 3
    note = lost.note("train: ")[0]
    assert note.startswith("train: 3 texts hold the name of a special token, such as [MASK], which")
    assert "write a blank into it: [ MASK]" in note
    # and that is obeyed
    assert encode(tokenizer, ["a [ MASK] film"], max_length=64).lost.named == 0
    twice = Lost(tokenizer)
    twice.add(lost)
    twice.add(lost)
    assert (twice.named, twice.name) == (6, "[MASK]")

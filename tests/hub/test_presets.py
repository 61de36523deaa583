"""Presets and the dial: published sizes, proportions, and what a family cannot say."""

import math
from dataclasses import replace

import pytest
import torch
import transformers

from langue.errors import ModelError, SettingsError
from langue.hub import presets
from langue.hub.family import parameters
from langue.hub.presets import KINDS, PRESETS, count, parse_count, preset, sized
from langue.model.language_model import LanguageModel, init_weights

# Parameters in millions as published, BERT without its pooler.
PUBLISHED = {
    "bert-tiny": (30522, 512, 4.37),
    "bert-base": (30522, 512, 108.9),
    "gpt2": (50257, 1024, 124.4),
    "gpt2-medium": (50257, 1024, 354.8),
    "gpt2-xl": (50257, 1024, 1557.6),
    "t5-small": (32128, 512, 60.5),
    "t5-1.1-base": (32128, 512, 247.6),
    "deberta-v3-xsmall": (128100, 512, 70.7),
    "deberta-v3-base": (128100, 512, 183.8),
    "llama-135m": (49152, 2048, 134.5),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
    vocabulary, length, millions = PUBLISHED[name]
    assert count(preset(name, vocabulary, length)[1]) / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["3M", "10M", "124M", "1.3B"])
def test_the_dial_comes_near_the_size_and_keeps_proportions(kind, size):
    family, config = preset(kind, 8192, 512, size=size)
    assert count(config) == pytest.approx(parse_count(size), rel=0.12)
    assert config.head_dim in (32, 64) and config.n_heads * config.head_dim == config.dim
    assert 30 <= config.dim / config.n_layers <= 110
    assert family.name == PRESETS[KINDS[kind]]["model_type"]


def test_axes_change_a_preset_and_what_follows_from_them():
    _, config = preset("gpt2", 100, 64, axes={"dim": 96, "n_layers": 3})
    assert (config.dim, config.n_layers, config.ffn_dim, config.head_dim) == (
        96,
        3,
        384,
        96 // config.n_heads,
    )
    _, both = preset("t5", 100, 64, axes={"dim": 96, "n_layers": 3, "n_heads": 4})
    assert (both.decoder_layers, both.n_heads, both.head_dim) == (3, 4, 24)


def test_what_is_not_to_be_had_is_said():
    with pytest.raises(SettingsError, match="did you mean gpt2-xl"):
        preset("gpt2-xxl", 100, 64)
    with pytest.raises(ModelError, match="gpt2 cannot express model.gated"):
        preset("gpt2", 100, 64, axes={"gated": True})
    with pytest.raises(SettingsError, match="not a number"):
        parse_count("ten")
    with pytest.raises(SettingsError, match="the nearest has"):
        preset("bert", 500_000, 512, size="1M")


@pytest.mark.parametrize("name", ["t5-small", "t5-1.1-small"])
def test_a_new_t5_begins_as_the_published_code_has_it(name):
    """Weight by weight: as wide as those that `transformers` draws, queries above all, for nothing
    else keeps its scores small. The output matrix apart, which is drawn a hundred times as wide
    there where it is not the input's."""
    family, config = preset(name, 300, 64, axes={"n_layers": 2, "ffn_dim": 512})
    model = LanguageModel(config)
    init_weights(model, 0)
    ours = family.to_theirs(dict(model.named_parameters()), config, "lm")
    torch.manual_seed(0)
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**family.write(config)))
    compared = 0
    for key, weight in theirs.named_parameters():
        if key in ours and weight.ndim == 2 and key != "lm_head.weight":
            within = 0.3 if weight.numel() < 1000 else 0.05  # 32 distances and 8 heads are few
            assert ours[key].detach().std().item() == pytest.approx(
                weight.detach().std().item(), rel=within
            ), key
            compared += 1
    assert compared > 30


def test_the_parameters_of_a_mixture_are_those_of_all_its_experts():
    _, config = preset(
        "llama-135m", 300, 64, axes={"dim": 64, "n_layers": 2, "n_heads": 2, "ffn_dim": 128}
    )
    mixture = replace(config, n_experts=8, experts_per_token=2)
    there = sum(math.prod(shape) for shape in parameters(mixture).values())
    assert count(mixture) == pytest.approx(there, rel=0.02) and count(mixture) > 2 * count(config)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "llama", "langue"])
def test_a_size_is_the_nearest_of_all_widths(name, monkeypatch):
    """Bisection finds what trying every width does."""
    _, start = preset(name, vocab_size=1000, max_length=64)
    monkeypatch.setattr(presets, "WIDTHS", [dim for dim in presets.WIDTHS if dim <= 2048])
    every = [made for dim in presets.WIDTHS for made in presets._shapes(start, dim)]
    for wanted in (1e6, 4e7, 3e8):
        nearest = min(every, key=lambda config: abs(count(config) / wanted - 1))
        assert sized(start, int(wanted)) == nearest

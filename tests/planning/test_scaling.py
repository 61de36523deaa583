"""Scaling laws, memory and layouts by hand, and against what a real block keeps."""

import math

import numpy as np
import pytest
import torch

from langue.data.batch import Examples, gather
from langue.errors import SettingsError
from langue.hardware import TABLE, find
from langue.hub.presets import preset
from langue.model.language_model import LanguageModel
from langue.planning.layout import USABLE, choose, utilisation
from langue.planning.memory import Layout, Sizes, activations, kept, logits, memory
from langue.planning.scaling import BESIROGLU, HOFFMANN, by_rule, expected_loss, optima

GPT2 = preset("gpt2", 50257, 1024)[1]
SIZES = Sizes(124_439_808, 85_054_464)


def test_chinchilla_is_what_its_budget_gives():
    parameters, tokens = by_rule(6 * 70e9 * 1.4e12)
    assert (parameters, tokens) == (pytest.approx(70e9), pytest.approx(1.4e12))
    assert by_rule(5.76e23) == (pytest.approx(69.3e9, rel=1e-3), pytest.approx(1.386e12, rel=1e-3))
    # 1.69 + 406.4 / 70e9^0.34 + 410.7 / 1.4e12^0.28 = 1.69 + 0.0835 + 0.1632
    assert HOFFMANN.loss(70e9, 1.4e12) == pytest.approx(1.9367, abs=2e-4)
    # The corrected fit agrees with the rule where the published one does not.
    ratios = [
        tokens / parameters
        for parameters, tokens in (law.best(5.76e23) for law in (HOFFMANN, BESIROGLU))
    ]
    assert ratios == [pytest.approx(92.6, rel=0.01), pytest.approx(18.4, rel=0.01)]


@pytest.mark.parametrize("law", [HOFFMANN, BESIROGLU])
@pytest.mark.parametrize("flops", [1e18, 5.76e23])
def test_the_best_is_best(law, flops):
    parameters, tokens = law.best(flops)
    assert 6 * parameters * tokens == pytest.approx(flops)
    for other in (0.97 * parameters, 1.03 * parameters):
        assert law.loss(other, flops / (6 * other)) > law.loss(parameters, tokens)
    assert min(optima(flops, 32_000), key=lambda each: each["loss"])["law"] == BESIROGLU.source


def test_sixteen_bytes_a_parameter_and_their_copy():
    taken = memory(GPT2, SIZES, 1024, Layout(sequences=2), 2, 80e9)
    assert taken.weights == taken.gradients == 4 * 124_439_808
    assert (
        taken.moments == 8 * 124_439_808 and taken.copies == 2 * 124_439_808 and taken.gathered == 0
    )
    # A block keeps of a token: two norms' inputs, two inputs, q k v and what was mixed, 4 D twice,
    # two masks.
    assert kept(GPT2, 2) == (8 + 4 + 8 + 16 + 2) * 768
    assert activations(GPT2, 1024, Layout(sequences=2), 2) == 2048 * (
        12 * 38 * 768 + (4 + 4 + 4 + 2) * 768
    )
    recomputed = activations(GPT2, 1024, Layout(sequences=2, activation_checkpointing=True), 2)
    assert recomputed == 2048 * (12 * 4 * 768 + 38 * 768 + 14 * 768)
    # 256 tokens of logits at 12 bytes, the output matrix's gradient, and the hidden states' with
    # what they were.
    assert (
        logits(GPT2, 1024, Layout(sequences=2), 2, None)
        == 256 * 50257 * 12 + 4 * 50257 * 768 + 4 * 2048 * 768
    )
    assert logits(GPT2, 1024, Layout(sequences=2), 2, 80e9, whole=True) > 2048 * 50257 * 12


def test_sharding_divides_what_stays_and_gathers_a_block():
    whole = memory(GPT2, SIZES, 1024, Layout(data=8), 2, 80e9)
    shared = memory(GPT2, SIZES, 1024, Layout(data=8, sharded=True), 2, 80e9)
    assert shared.weights == whole.weights / 8 and shared.moments == whole.moments / 8
    assert shared.gathered == 4 * (3 * SIZES.blocks / 12 + 2 * SIZES.outside)
    assert shared.activations == whole.activations
    split = memory(GPT2, SIZES, 1024, Layout(tensor=2, pipeline=4), 2, 80e9)
    assert split.weights == pytest.approx(4 * (SIZES.blocks / 4 + SIZES.outside) / 2)
    assert split.total < whole.total


@pytest.mark.parametrize("vocabulary", [2, 8192, 128_256])
def test_no_loss_is_expected_that_guessing_has(vocabulary):
    guessing = math.log(vocabulary)
    sizes = np.geomspace(1e3, 1e12, 40)
    for parameters in sizes:
        for tokens in sizes:
            expected = expected_loss(parameters, tokens, vocabulary)
            law = BESIROGLU.loss(parameters, tokens)
            assert expected == (law if law < guessing else None)
    assert expected_loss(1e6, 1e6, 8192) is None and expected_loss(
        70e9, 1.4e12, 32_000
    ) == pytest.approx(1.97, abs=0.01)
    laws = optima(1e13, 8192)
    assert [each["loss"] for each in laws] == [
        expected_loss(each["parameters"], each["tokens"], 8192) for each in laws
    ]


@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt2", "langue", "bert", "llama"])
def test_a_block_keeps_what_is_reckoned(name, low):
    """Against what autograd saves of a block more, weights and their copies aside."""
    tokens = 46

    def saved(layers):
        axes = {"dim": 64, "n_layers": layers, "n_heads": 2}
        config = preset(
            name,
            64,
            32,
            axes=axes | ({} if name in ("langue", "llama") else {"attention_dropout": 0.0}),
        )[1]
        model = LanguageModel(config).train()
        flat = np.random.default_rng(0).integers(0, 64, tokens).astype(np.int32)
        batch = gather(
            Examples(flat, np.array([0, 23, 46]), None, np.zeros(2, np.int32)), np.arange(2)
        )
        shapes = {
            shape for weight in model.parameters() for shape in (weight.shape, weight.t().shape)
        }
        found = {}

        def keep(tensor):
            if tensor.shape not in shapes:
                found[tensor.untyped_storage().data_ptr()] = (
                    tensor.untyped_storage().nbytes(),
                    tensor,
                )
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", low, enabled=low != torch.float32),
        ):
            model.body(*batch.inputs)
        return sum(size for size, _ in found.values()) / tokens, config

    less, config = saved(1)
    more, _ = saved(3)
    reckoned = kept(config, low.itemsize)
    # On the CPU an RMSNorm with a weight keeps its product too, which the fused one of a GPU does
    # not.
    reckoned += 2 * 4 * 64 if config.norm == "rms" else 0
    assert (more - less) / 2 == pytest.approx(reckoned, rel=0.05)


def test_a_small_model_is_simply_copied_to_every_device():
    layout, _ = choose(GPT2, SIZES, TABLE["h100"], 8, 1024, 1 << 19)
    assert (
        layout == Layout(data=8, sequences=64) and layout.here and layout.name == "data parallel 8"
    )


def test_what_stands_outside_of_blocks_is_shared_on_paper_only():
    """langue divides the matrices of blocks, and keeps embeddings and head whole."""
    ours = Layout(tensor=2)
    paper = Layout(data=2, tensor=2)
    assert ours.here and not paper.here
    one, both = (memory(GPT2, SIZES, 1024, layout, 2, 80e9).weights for layout in (ours, paper))
    assert one - both == pytest.approx(4 * SIZES.outside / 2)


def reckoned(name, size, vocabulary=32768, length=4096):
    from langue.verbs.plan import count_parameters

    config = preset(name, vocabulary, length, size=size)[1]
    return config, count_parameters(config)


def test_a_large_model_is_divided_and_fits():
    config, sizes = reckoned("llama", "7B")
    for hardware, devices in (("rtx4090", 8), ("a100", 64), ("h100", 2048)):
        layout, taken = choose(config, sizes, TABLE[hardware], devices, 4096, 1 << 22)
        assert layout.devices == devices and taken.total <= USABLE * TABLE[hardware].memory
        assert layout.tensor <= TABLE[hardware].linked
        assert layout.data * layout.sequences * 4096 <= 1 << 22
    assert choose(config, sizes, TABLE["rtx4090"], 8, 4096, 1 << 22)[0].activation_checkpointing
    # 1,024 sequences are too few for 2,048 replicas: each is spread over a node's devices.
    assert layout.tensor > 1 and layout.pipeline == 1 and not layout.here


def test_stages_only_where_nothing_else_will_do():
    config, sizes = reckoned("llama", "405B", 128_256, 8192)
    layout, taken = choose(config, sizes, TABLE["h100"], 16_384, 8192, 8_000_000)
    assert (layout.tensor, layout.pipeline) == (8, 4) and layout.data == 512
    assert taken.total <= USABLE * 80e9
    assert choose(config, sizes, TABLE["h100"], 16_384, 8192, 1 << 24)[0].pipeline == 1


def test_what_does_not_fit_is_said_with_what_would():
    config, sizes = reckoned("llama", "70B")
    with pytest.raises(
        SettingsError, match=r"do not fit on 8 h100; 32 would hold it: give --devices 32"
    ):
        choose(config, sizes, TABLE["h100"], 8, 4096, 1 << 21)
    with pytest.raises(SettingsError, match="too few sequences"):
        choose(GPT2, SIZES, TABLE["rtx4090"], 64, 1024, 4096)


def test_utilisation_falls_with_scale_by_what_is_stated():
    h100 = TABLE["h100"]
    assert utilisation(0.4, Layout(data=8), h100, GPT2, 1) == pytest.approx(0.4)
    assert utilisation(0.4, Layout(data=64), h100, GPT2, 1) == pytest.approx(0.4 * 0.98**3)
    assert utilisation(
        0.4, Layout(data=8, activation_checkpointing=True), h100, GPT2, 1
    ) == pytest.approx(0.3)
    # 4 stages of 3 layers, interleaved by 3; 8 batches: 3 / 24 of the work is waited for.
    assert utilisation(0.4, Layout(data=2, pipeline=4), h100, GPT2, 8) == pytest.approx(
        0.4 / (1 + 3 / 24)
    )


def test_hardware_is_found_however_it_is_spelled():
    for name in ("h100", "H100", "NVIDIA H100 80GB HBM3", "h100-sxm"):
        assert find(name) is TABLE["h100"]
    assert (
        find("RTX 4090") is TABLE["rtx4090"] and find("NVIDIA A100-SXM4-40GB") is TABLE["a100-40gb"]
    )
    with pytest.raises(SettingsError, match="'h10' is not known; did you mean h100"):
        find("h10")
    with pytest.raises(SettingsError, match="known: here, a100"):
        find("NVIDIA H100 PCIe")  # another peak
    assert all(each.source and math.isfinite(each.peak) for each in TABLE.values())

"""The operations that are counted are those that are done, by PyTorch's own counter."""

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from langue.data.batch import Examples, gather, gather_pairs
from langue.model.config import ModelConfig
from langue.model.language_model import LanguageModel
from langue.train.throughput import MFUMeter, body_flops, head_flops

SIZES = {
    "vocab_size": 50,
    "dim": 64,
    "n_layers": 3,
    "n_heads": 4,
    "ffn_dim": 96,
    "max_length": 128,
    "dropout": 0.0,
}
SIZES |= {"attention_dropout": 0.0}
CONFIGS = {
    "encoder": ModelConfig(**SIZES),
    "gated decoder": ModelConfig(
        **SIZES, causal=True, gated=True, position="rotary", norm="rms", norm_place="pre"
    ),
    "both": ModelConfig(**SIZES, decoder_layers=2),
}


def examples(lengths):
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Examples(np.ones(starts[-1], np.int32), starts, None, np.zeros(len(lengths), np.int32))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_flops_are_those_of_the_forward_pass(config):
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not see into the fused one
        check(config, LanguageModel(config).eval())


def check(config, model):
    rows = np.arange(4)
    if config.decoder_layers:
        batch = gather_pairs(examples([9, 30, 30, 4]), examples([5, 12, 7, 7]), rows)
        with FlopCounterMode(display=False) as counter:
            memory = model.body(*batch.source.inputs)[batch.order]
            hidden = model.body.decode(*batch.target.inputs[:3], memory, batch.groups)
    else:
        batch = gather(examples([9, 30, 30, 4]), rows)
        with FlopCounterMode(display=False) as counter:
            hidden = model.body(*batch.inputs)
    assert body_flops(config, batch) == pytest.approx(counter.get_total_flops(), rel=0.01)
    with FlopCounterMode(display=False) as counter:
        model.logits(hidden)
    assert head_flops(config) * len(hidden) == counter.get_total_flops()
    pace = MFUMeter(config, peak=1e6)
    pace.add(batch, 10)
    spent = 3 * (body_flops(config, batch) + 10 * head_flops(config))
    assert pace.share(2.0) == pytest.approx(spent / 2e6) and pace.share(1.0) == 0

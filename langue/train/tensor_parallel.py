"""Tensor parallelism (Shoeybi et al. 2019, arXiv:1909.08053): takes a model that several processes
train on the same batch; splits its blocks so that each process has some attention heads and
feed-forward columns of every block.

Based on PyTorch's own implementation: the first matrices of a sublayer are split by rows, the last
one by columns, and the outputs of the processes are summed. Embeddings, norms and the head are
replicated and see the same tokens, so that their gradients are equal everywhere.
"""

from torch import nn

from langue.errors import SettingsError
from langue.model.config import ModelConfig
from langue.model.transformer import Block
from langue.runtime import device, world_size
from langue.train.sharding import PARTS, each_with_its_parts

LAST = ("attention.out", "feedforward.down")


def apply_tensor_parallel(model: nn.Module) -> None:
    """Split the blocks of a model in place; raise SettingsError if they cannot be split."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        parallelize_module,
    )

    processes = world_size()
    config: ModelConfig = model.body.config  # type: ignore[union-attr, assignment]
    check(config, processes)
    mesh = init_device_mesh(device().type, (processes,))
    for block in [part for part in model.modules() if isinstance(part, Block)]:
        attention = block.attention
        stacked = attention.qkv if attention.stacked else nn.Identity()
        # numbers of rows of queries, keys and values
        parts = (attention.heads * attention.width,) * 3
        for weight in stacked.parameters():
            weight.data = each_with_its_parts(weight.data, parts, processes)
        first = ["attention.qkv"] if attention.stacked else [f"attention.{name}" for name in "qkv"]
        first += ["feedforward.up", *(["feedforward.gate"] if config.gated else [])]
        plan = {name: ColwiseParallel() for name in first}
        parallelize_module(block, mesh, plan | {name: RowwiseParallel() for name in LAST})
        for weight in stacked.parameters():  # `parallelize_module` has replaced the weights
            setattr(weight, PARTS, parts)
        attention.heads = attention.heads // processes
        attention.kv_heads = attention.kv_heads // processes


def check(config: ModelConfig, processes: int) -> None:
    """Raise SettingsError if a model's blocks cannot be split among so many processes."""
    counts = {"n_heads": config.n_heads, "kv_heads": config.n_kv_heads, "ffn_dim": config.ffn_dim}
    odd = next((f"{name} = {count}" for name, count in counts.items() if count % processes), "")
    if odd:
        raise SettingsError(
            f"{odd} does not divide among {processes} processes",
            do="start another number, or set train.parallel=fsdp",
        )
    whole = {
        "an encoder-decoder": config.decoder_layers > 0,
        "a mixture of experts": config.n_experts > 0,
        f"{config.position} positions, which belong to heads": config.position
        in ("relative", "alibi"),
        "relative-position biases, which belong to heads": config.relative_bias,
        "attention sinks, which belong to heads": config.attention_sinks,
        "scores with distances, whose maps all heads share": config.is_disentangled,
        "norms of queries and keys with weights, which all heads share": config.qk_norm
        and config.norm != "rms_plain",
    }
    found = next((name for name, there in whole.items() if there), "")
    if found:
        raise SettingsError(f"train.parallel=tp is not for {found}", do="set train.parallel=fsdp")

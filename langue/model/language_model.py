"""What arrives: hidden states (T, D). What leaves: logits (T, V), a score for every token of the
vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from langue.model.config import ModelConfig
from langue.model.kernels import chunk_size, cross_entropy, linear
from langue.model.layers import ACTIVATIONS, make_norm
from langue.model.position import RelativeBias
from langue.model.transformer import Block, CrossAttention, SelfAttention, Transformer, initialise

if TYPE_CHECKING:
    from langue.model.weight_kinds import AnyWeight


class LanguageHead(nn.Module):
    """logits = h E^T + b, E the embedding (Press and Wolf 2016, arXiv:1608.05859) or a matrix of
    its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.embedding_dim or config.dim
        vocabulary = config.decoder_vocab_size or config.vocab_size
        self.scale = config.logit_scale
        self.cap = config.logit_cap
        self.dense = (
            nn.Linear(config.dim, size, bias=config.dense_bias) if config.head_transform else None
        )
        self.norm = make_norm(config, size) if config.head_transform else None
        self.activation = ACTIVATIONS[config.head_activation]
        self.out = None if config.tied else nn.Linear(size, vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocabulary)) if config.head_bias else None
        self.pooler = nn.Linear(config.dim, config.dim) if config.pair_head else None
        self.pairs = nn.Linear(config.dim, 2) if config.pair_head else None
        self.pooled = ACTIVATIONS[config.pooler_activation]
        self.compiled = False

    def next_sentence_logits(self, first: Tensor) -> Tensor:
        """States of first tokens (N, D) -> logits (N, 2): the second part follows, or not."""
        assert self.pooler is not None and self.pairs is not None
        out: Tensor = self.pairs(self.pooled(self.pooler(first)))
        return out

    def forward(self, hidden: Tensor, table: "Tensor | AnyWeight") -> Tensor:
        """hidden (T, D), table (V, E): the embedding, used where the head is tied. Returns (T,
        V).
        """
        weight = table if self.out is None else self.out.weight
        logits = linear(self._features(hidden), weight, self.bias)
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    def loss(
        self, hidden: Tensor, table: "Tensor | AnyWeight", labels: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The summed cross-entropy of `forward`'s logits with labels (T,), without holding them;
        and its z term.
        """
        weight = table if self.out is None else self.out.weight
        if not isinstance(weight, Tensor):
            return self._loss_in_use(hidden, table, labels)
        return cross_entropy(
            self._features(hidden),
            weight,
            labels,
            bias=self.bias,
            cap=self.cap,
            z_loss=z_loss,
            compiled=self.compiled,
        )

    def excess(self, hidden: Tensor, table: Tensor, labels: Tensor) -> Tensor:
        """The sum over tokens of the label's logit less the mean of all logits: what label
        smoothing adds to the cross-entropy, times its share. hidden (T, D), labels (T,).

        Logits are linear in the features here, so that no logits are needed but the labels'; they
        must not be capped.
        """
        assert not self.cap
        weight = table if self.out is None else self.out.weight
        features = self._features(hidden).float()
        found = (features * (weight[labels] - weight.mean(0)).float()).sum()
        if self.bias is not None:
            found = found + (self.bias[labels] - self.bias.mean()).sum()
        return found

    def _loss_in_use(
        self, hidden: Tensor, table: "Tensor | AnyWeight", labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`loss` of a model whose output matrix is a Weight: the logits are those of `forward`, a
        chunk's at a time, and there is no gradient.
        """
        total = torch.zeros((), device=hidden.device)
        begin = 0
        for part in torch.split(labels, chunk_size(len(table), None)):
            logits = self.forward(hidden[begin : begin + len(part)], table)
            total += F.cross_entropy(logits, part, reduction="sum")
            begin += len(part)
        return total, torch.zeros_like(total)

    def _features(self, hidden: Tensor) -> Tensor:
        """What the output matrix multiplies: (T, D) -> (T, E)."""
        if self.dense is not None and self.norm is not None:
            hidden = self.norm(self.activation(self.dense(hidden)))
        return hidden * self.scale if self.scale != 1.0 else hidden


class LanguageModel(nn.Module):
    """A Transformer and its language-model head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.body = Transformer(config)
        self.head = LanguageHead(config)

    def logits(self, hidden: Tensor) -> Tensor:
        """(T, D) -> (T, V)."""
        out: Tensor = self.head(hidden, self.body.output_table)
        return out

    def loss(self, hidden: Tensor, labels: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """(T, D), (T,) -> the summed cross-entropy of `logits`, and how much of it is the z
        term.
        """
        return self.head.loss(hidden, self.body.output_table, labels, z_loss)

    def excess(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """As `LanguageHead.excess`."""
        return self.head.excess(hidden, self.body.output_table, labels)


def init_weights(model: LanguageModel, seed: int) -> None:
    """Fresh weights to pretrain from: `initialise`, and the maps that write to the residual stream
    smaller.

    By 1 / sqrt(2 L) where norms stand before sublayers (Radford et al. 2019, section 2.3), so that
    the stream does not grow with depth; at zero where norms have no weights, so that every block
    begins as the identity (Zhang et al. 2019, arXiv:1901.09321). Where attention is not scaled, its
    queries are instead, and all matrices have the standard deviation 1 / sqrt(inputs) (Raffel et
    al. 2019).
    """
    config = model.body.config
    initialise(model, config.init_std, seed)
    unscaled = config.attention_scale == 1.0
    if unscaled:
        _init_unscaled(model, config.dim, torch.Generator().manual_seed(seed + 1))
    for name, part in model.named_modules():
        if name.endswith((".out", ".down")) and ".blocks." in name and isinstance(part, nn.Linear):
            if config.norm == "rms_plain":
                nn.init.zeros_(part.weight)
            elif config.norm_place == "pre" and not unscaled:
                with torch.no_grad():
                    part.weight *= (2 * max(config.n_layers, config.decoder_layers)) ** -0.5


@torch.no_grad()
def _init_unscaled(model: nn.Module, dim: int, generator: torch.Generator) -> None:
    for part in model.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, part.in_features**-0.5, generator=generator)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, 0.0, 1.0, generator=generator)
    for part in model.modules():  # once more: a part's matrices come after it
        if isinstance(part, SelfAttention):
            (part.qkv if part.stacked else part.q).weight[: part.heads * part.width] *= (
                part.width**-0.5
            )
        elif isinstance(part, CrossAttention):
            part.q.weight *= part.width**-0.5
        elif isinstance(part, RelativeBias):  # small beside the scores, as in the published code
            part.table.weight *= dim**-0.5


class _SkipInit(TorchFunctionMode):
    """Leaves new weights as they are: filling those of the meta device imports all of the compiler,
    for nothing.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def on_meta_device() -> Iterator[None]:
    """Modules made here are names and shapes alone, on the meta device: their numbers are to come
    from a file.
    """
    with torch.device("meta"), _SkipInit():
        yield


def build_on_meta(config: ModelConfig) -> LanguageModel:
    with on_meta_device():
        return LanguageModel(config)


def compile_parts(model: nn.Module) -> None:
    """Have PyTorch's compiler fuse what a block does besides its ragged attention, and what the
    loss does with logits. Each is compiled once for all batches of as many tokens, and once more
    for all other sizes.
    """
    for part in model.modules():
        if isinstance(part, (SelfAttention, CrossAttention)):
            part.ragged = torch.compiler.disable(part.ragged)  # type: ignore[method-assign, no-untyped-call]
        elif isinstance(part, Block):
            part.compile()
        elif isinstance(part, LanguageHead):
            part.compiled = True

"""Language models: take hidden states (T, D); return logits (T, V) over the vocabulary."""

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
    """logits = h E^T + b, where E is the embedding (Press and Wolf 2016, arXiv:1608.05859) or a
    separate matrix.
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
        """Map states of first tokens (N, D) to logits (N, 2): the second part follows, or not."""
        assert self.pooler is not None and self.pairs is not None
        out: Tensor = self.pairs(self.pooled(self.pooler(first)))
        return out

    def forward(self, hidden: Tensor, table: "Tensor | AnyWeight") -> Tensor:
        """Return logits (T, V) for hidden (T, D); table (V, E): the embedding, used if the head is
        tied.
        """
        weight = table if self.out is None else self.out.weight
        logits = linear(self._features(hidden), weight, self.bias)
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits

    def loss(
        self, hidden: Tensor, table: "Tensor | AnyWeight", labels: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy of `forward`'s logits with labels (T,), without storing
        the logits, and its z-loss.
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
        """Return the sum over tokens of the label's logit minus the mean of all logits: label
        smoothing adds this, times its fraction, to the cross-entropy. hidden (T, D), labels (T,).

        The logits are linear in the features, so that only those of the labels are needed; they
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
        """Return the loss of a model whose output matrix is quantized: from the logits of
        `forward`, one chunk at a time, without a gradient.
        """
        total = torch.zeros((), device=hidden.device)
        begin = 0
        for part in torch.split(labels, chunk_size(len(table), None)):
            logits = self.forward(hidden[begin : begin + len(part)], table)
            total += F.cross_entropy(logits, part, reduction="sum")
            begin += len(part)
        return total, torch.zeros_like(total)

    def _features(self, hidden: Tensor) -> Tensor:
        """Return the input of the output matrix: (T, D) -> (T, E)."""
        if self.dense is not None and self.norm is not None:
            hidden = self.norm(self.activation(self.dense(hidden)))
        return hidden * self.scale if self.scale != 1.0 else hidden


class LanguageModel(nn.Module):
    """A Transformer with a language-model head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.body = Transformer(config)
        self.head = LanguageHead(config)

    def logits(self, hidden: Tensor) -> Tensor:
        """Map states (T, D) to logits (T, V)."""
        out: Tensor = self.head(hidden, self.body.output_table)
        return out

    def loss(self, hidden: Tensor, labels: Tensor, z_loss: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy of `logits` for states (T, D) and labels (T,), and its
        z-loss.
        """
        return self.head.loss(hidden, self.body.output_table, labels, z_loss)

    def excess(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Return what label smoothing adds, as `LanguageHead.excess` does."""
        return self.head.excess(hidden, self.body.output_table, labels)


def init_weights(model: LanguageModel, seed: int) -> None:
    """Initialize weights for pretraining: `initialise`, with smaller maps to the residual stream.

    These maps are scaled by 1 / sqrt(2 L) if norms precede sublayers (Radford et al. 2019, section
    2.3), so that the stream does not grow with depth, and are zero if norms have no weights, so
    that every block starts as the identity (Zhang et al. 2019, arXiv:1901.09321). If attention is
    not scaled, its queries are scaled instead, and all matrices have a standard deviation of 1 /
    sqrt(inputs) (Raffel et al. 2019).
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
    for part in model.modules():  # a second pass: a module's matrices come after it
        if isinstance(part, SelfAttention):
            (part.qkv if part.stacked else part.q).weight[: part.heads * part.width] *= (
                part.width**-0.5
            )
        elif isinstance(part, CrossAttention):
            part.q.weight *= part.width**-0.5
        # small compared to the scores, as in the published code
        elif isinstance(part, RelativeBias):
            part.table.weight *= dim**-0.5


class _SkipInit(TorchFunctionMode):
    """Skips initialization: filling tensors on the meta device would import the whole compiler for
    nothing.
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
    """Create modules on the meta device, with names and shapes but without numbers, which come from
    a file later.
    """
    with torch.device("meta"), _SkipInit():
        yield


def build_on_meta(config: ModelConfig) -> LanguageModel:
    with on_meta_device():
        return LanguageModel(config)


def compile_parts(model: nn.Module) -> None:
    """Compile what a block does besides its ragged attention, and the operations of the loss on
    logits. Each is compiled once for all batches with the same number of tokens, and once more for
    all other sizes.
    """
    for part in model.modules():
        if isinstance(part, (SelfAttention, CrossAttention)):
            part.ragged = torch.compiler.disable(part.ragged)  # type: ignore[method-assign, no-untyped-call]
        elif isinstance(part, Block):
            part.compile()
        elif isinstance(part, LanguageHead):
            part.compiled = True

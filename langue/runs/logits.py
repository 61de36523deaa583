"""Logits of language models: takes texts and a language model; returns the logits over the
vocabulary at each token.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch, Examples, gather, gather_pairs
from langue.data.pack import sorted_batches
from langue.errors import ModelError
from langue.hub.checkpoint import Checkpoint
from langue.model.language_model import LanguageModel
from langue.model.weight_linear import device_of
from langue.runs.inputs import Inputs, Texts
from langue.text.tokenizers.tokenizer import Tokenizer

LOGITS = 2048  # tokens of a batch whose logits are in memory


@dataclass(frozen=True)
class LanguageLogits:
    """The logits of a language model, as documented in `Model.logits`."""

    checkpoint: Checkpoint
    language: LanguageModel
    inputs: Inputs
    dtype: torch.dtype

    def of(
        self, texts: Texts, targets: Texts | None, tokenizer: Tokenizer
    ) -> list[NDArray[np.float32]]:
        """Return one (t, V) array for each text or target; raise ModelError if an encoder-decoder
        gets no targets, or another model gets some.
        """
        architecture = self.checkpoint.config.architecture
        if (targets is not None) != (architecture == "encoder-decoder"):
            wrong = "targets are missing" if targets is None else f"the model is an {architecture}"
            raise ModelError(
                wrong,
                do="an encoder-decoder takes logits(sources, targets), others logits(texts)",
            )
        sources = self.inputs.examples(texts, tokenizer=tokenizer)
        if targets is None:
            return self._scored(sources, sources, has_targets=False)
        read = self._shifted(targets, tokenizer)
        if len(read) != len(sources):
            raise ModelError(
                f"{len(sources)} sources and {len(read)} targets", do="give one target a source"
            )
        return self._scored(sources, read, has_targets=True)

    @torch.no_grad()
    def _scored(
        self, sources: Examples, read: Examples, has_targets: bool
    ) -> list[NDArray[np.float32]]:
        """Return logits; read: the sequences to score, equal to the sources if there are no
        targets.
        """
        device = device_of(self.language)
        out: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(read)
        longer = np.maximum(sources.lengths, read.lengths)
        budget = max(LOGITS, int(longer.max(initial=1)))
        for rows in sorted_batches(longer, budget):
            with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
                if has_targets:
                    batch, hidden = self._decoded(sources, read, rows, device)
                else:
                    batch = gather(read, rows, device)
                    hidden = self.language.body(*batch.inputs)  # (T, D)
                scores = self.language.logits(hidden).float().cpu().numpy()  # (T, V)
            parts = np.split(scores, batch.starts[1:-1].tolist())
            for row, part in zip(batch.rows, parts, strict=True):
                out[row] = part
        return out

    def _decoded(
        self, sources: Examples, targets: Examples, rows: NDArray[np.int64], device: torch.device
    ) -> tuple[Batch, torch.Tensor]:
        """Return a batch of targets, and their decoder states (T, D)."""
        body = self.language.body
        pairs = gather_pairs(sources, targets, rows, device)
        batch = pairs.target
        # (S, D), in the order of the targets
        encoder_states = body(*pairs.source.inputs)[pairs.order]
        return batch, body.decode(*batch.inputs[:3], encoder_states, pairs.groups)

    def _shifted(self, targets: Texts, tokenizer: Tokenizer) -> Examples:
        """Return targets as decoder inputs."""
        examples = self.inputs.examples(targets, target=True, tokenizer=tokenizer)
        if not len(targets) or not isinstance(targets[0], str):
            return examples
        start = tokenizer.decoder_start
        if start is None:
            start = self.checkpoint.start
        tokens = np.roll(examples.tokens, 1)
        tokens[examples.starts[:-1]] = start
        return replace(examples, tokens=tokens)

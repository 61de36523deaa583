"""Mask filling: takes texts with mask tokens, and a masked language model; returns the most
probable tokens for each mask, in the form of the `transformers` pipeline.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langue.data.batch import Batch
from langue.errors import DataError, ModelError
from langue.hub.checkpoint import Checkpoint
from langue.model.language_model import LanguageModel
from langue.model.weight_linear import device_of
from langue.runs.inputs import Inputs, listed
from langue.tasks.task import infer
from langue.text.tokenizers.special import special_ids

SHOWN = 8  # tokens of a target that an error message shows
Filled = list[dict[str, Any]]


class MaskFiller:
    """Fills masks independently, with all other masks left masked."""

    def __init__(self, checkpoint: Checkpoint, language: LanguageModel, inputs: Inputs) -> None:
        where = str(checkpoint.folder)
        if checkpoint.config.architecture != "encoder":
            raise ModelError(
                f"the model is a {checkpoint.config.architecture}, which fills no masks",
                where=where,
                do="take a masked model, as BERT; with this one use generate or rank",
            )
        self.tokenizer = checkpoint.tokenizer
        self.language = language
        self.inputs = inputs
        self.device = device_of(language)
        mask = special_ids(self.tokenizer).mask
        if mask is None:
            raise ModelError(
                "the tokenizer names no mask token",
                where=where,
                do="name mask_token in tokenizer_config.json",
            )
        self.mask = mask
        self.padding = special_ids(self.tokenizer).pad  # omitted from the shown texts

    def fill(
        self, texts: Any, top: int, targets: str | Sequence[str] | None, dtype: torch.dtype
    ) -> list[Any]:
        """Fill the masks of texts, as `Model.fill_mask` does."""
        if top < 1:
            raise ModelError(f"top = {top} tokens cannot be shown", do="give 1 or more")
        items = listed(texts)
        if not items:
            return []
        ids = None if targets is None else self.target_ids(targets)
        examples = self.inputs.examples(items)
        masked = np.add.reduceat(examples.tokens == self.mask, examples.starts[:-1])
        if not masked.all():
            name = self.tokenizer.token(self.mask)
            raise DataError(
                f"text {int(masked.argmin()) + 1} of {len(items):,} has no mask",
                do=f"write {name} for each token that is to be found",
            )
        chosen = None if ids is None else torch.tensor(ids, device=self.device)

        def work(batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            """Return the probabilities and ids of the best tokens of all masks, (M, top) each."""
            places = (batch.tokens == self.mask).nonzero()[:, 0]
            logits = self.language.logits(self.language.body(*batch.inputs)[places]).float()
            found = logits.softmax(-1)  # (M, V)
            found = found if chosen is None else found[:, chosen]
            scores, best = found.topk(min(top, found.shape[1]))
            best = best if chosen is None else chosen[best]
            return scores.cpu().numpy(), best.cpu().numpy()

        answers: list[Any] = [None] * len(items)
        for batch, (scores, best) in infer(work, examples, self.device, dtype):
            ends = np.cumsum(masked[batch.rows])[:-1]
            parts = zip(batch.rows, np.split(scores, ends), np.split(best, ends), strict=True)
            for row, of_row, tokens in parts:
                given = examples.tokens[examples.starts[row] : examples.starts[row + 1]]
                answers[row] = self._shown(given, of_row, tokens)
        return answers

    def _shown(
        self, given: NDArray[np.int32], scores: NDArray[np.float32], tokens: NDArray[np.int64]
    ) -> Any:
        """Return the candidates for a text's masks: one list for each mask, or a single list for
        one mask.
        """
        places = np.flatnonzero(given == self.mask)
        alone = len(places) == 1
        made: list[Filled] = []
        for place, values, best in zip(places, scores.tolist(), tokens.tolist(), strict=True):
            row = []
            for score, token in zip(values, best, strict=True):
                whole = given.tolist()
                whole[place] = token
                whole = [each for each in whole if each != self.padding]
                row.append(
                    {
                        "score": score,
                        "token": token,
                        "token_str": self.tokenizer.decode([token], skip_special=False),
                        # with several masks, special tokens are kept so that the other masks stay
                        # visible
                        "sequence": self.tokenizer.decode(whole, skip_special=alone),
                    }
                )
            made.append(row)
        return made[0] if alone else made

    def target_ids(self, targets: str | Sequence[str]) -> list[int]:
        """Return the ids of words that are single tokens; raise ModelError for any other."""
        words = [targets] if isinstance(targets, str) else list(targets)
        if not words:
            raise ModelError("targets is empty", do="name at least one, or leave it out")
        backend = self.tokenizer.backend
        unknown = special_ids(self.tokenizer).unk
        found = []
        for word in words:
            token = backend.token_to_id(word)
            if token is None:
                pieces = self.tokenizer.encode_batch([word], special=False)[0].ids
                if len(pieces) != 1 or pieces[0] == unknown:
                    shown = " ".join(self.tokenizer.token(each) for each in pieces[:SHOWN])
                    raise ModelError(
                        f"the target {word!r} is not one token of the model, but"
                        f" {len(pieces)} ({shown})",
                        do="leave it out, or mask as many tokens",
                    )
                token = pieces[0]
            found.append(int(token))
        return list(dict.fromkeys(found))

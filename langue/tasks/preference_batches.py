"""What arrives: the two answers of each row, as tokens. What leaves: batches of whole rows, and
what a model makes of each answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from langue.data.batch import Batch, gather
from langue.data.encoded import Encoded
from langue.data.pack import fill
from langue.model.language_model import LanguageModel
from langue.tasks.language import language_states, select_labelled, token_log_probabilities
from langue.tasks.preference_losses import Answers
from langue.tasks.preference_rows import Preferred
from langue.tasks.writing import LOSS_TOKENS, labelled_examples
from langue.text.tokenizers.assistant_turns import Labelled
from langue.text.tokenizers.unknown import Lost

# --- columns of `Examples.targets`, of each sequence ---

REFERENCE = 0  # its log-probability by the reference; NaN: not known, or not needed
GOOD = 1  # 1: the row's answer is good, or there are two; 0: it is bad


def encoded_pairs(
    found: Sequence[Labelled], golds: Sequence[Preferred], room: int, lost: Lost
) -> Encoded:
    """Two sequences a row; the last of `room` tokens is predicted and not read. lost: of all
    rows.
    """
    tokens = [each.ids[:room][:-1] for each in found]
    labels = [np.where(each.written, each.ids, -1)[1:room] for each in found]
    cut = np.asarray([max(0, len(each.ids) - room) for each in found], np.int32)
    targets = np.full((len(found), 2), np.nan)  # REFERENCE and GOOD of each sequence
    targets[:, GOOD] = np.repeat([gold.good is not False for gold in golds], 2)
    examples = labelled_examples(tokens, labels, cut).with_targets(targets)
    examples = replace(examples, lost=lost)
    return Encoded(examples, len(golds), row=np.repeat(np.arange(len(golds)), 2))


def whole_rows(encoded: Encoded, device: torch.device) -> Iterator[Batch]:
    """All rows, those of like length together."""
    examples = encoded.examples
    lengths = examples.lengths.reshape(-1, 2).sum(axis=1)  # (rows,)
    order = np.argsort(-lengths, kind="stable")
    for rows in fill(order, lengths, LOSS_TOKENS, 0):
        sequences = np.stack([2 * rows, 2 * rows + 1], axis=1).ravel()  # (2 rows,)
        yield gather(examples, sequences, device)


def log_probabilities(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of each sequence of a batch, in its order: the summed log-probability of the tokens that are
    labelled, and their number; (N,) both.
    """
    assert isinstance(model, LanguageModel) and batch.labels is not None
    states = select_labelled(language_states(model, batch), batch)
    logs = token_log_probabilities(model, states, batch.labels)  # (M,)
    places = batch.places
    if places is None:
        places = torch.arange(batch.n_tokens, device=logs.device)
    of = torch.searchsorted(batch.starts, places, right=True) - 1  # (M,)
    sums = logs.new_zeros(len(batch)).index_add(0, of, logs)
    counts = logs.new_zeros(len(batch)).index_add(0, of, torch.ones_like(logs))
    return sums, counts


def answers_of(model: nn.Module, batch: Batch) -> tuple[Answers, Answers]:
    """The first and the second answer of each row of a batch, in the rows' order."""
    logs, tokens = log_probabilities(model, batch)
    assert batch.targets is not None
    order = torch.from_numpy(np.argsort(batch.rows, kind="stable")).to(logs.device)
    reference = batch.targets[:, REFERENCE].to(logs.dtype)
    first = order[0::2]  # (rows,)
    second = order[1::2]
    return (
        Answers(logs[first], reference[first], tokens[first]),
        Answers(logs[second], reference[second], tokens[second]),
    )


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

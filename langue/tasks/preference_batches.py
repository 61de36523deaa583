"""Batches of preferences: take the two tokenized answers of each row; return batches that keep the
answers of a row together, and the log-probability of each answer.
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

# --- columns of `Examples.targets`, for each sequence ---

REFERENCE = 0  # the reference model's log-probability; NaN: unknown, or not needed
GOOD = 1  # 1: the row's answer is good, or the row has two; 0: the answer is bad


def encoded_pairs(
    found: Sequence[Labelled], golds: Sequence[Preferred], room: int, lost: Lost
) -> Encoded:
    """Build two sequences for each row, of at most `room` tokens, of which the last is only a
    label.

    lost: what the tokenizer does not know in all rows.
    """
    tokens = []
    labels = []
    cut = []
    for each in found:
        written = np.where(each.written, each.ids, -1)
        tokens.append(each.ids[:room][:-1])
        labels.append(written[1:room])
        cut.append(max(0, len(each.ids) - room))
    is_good = [gold.good is not False for gold in golds]
    targets = np.full((len(found), 2), np.nan)
    targets[:, GOOD] = np.repeat(is_good, 2)
    examples = labelled_examples(tokens, labels, np.asarray(cut, np.int32))
    examples = replace(examples.with_targets(targets), lost=lost)
    rows = np.arange(len(golds))
    return Encoded(examples, len(golds), row=np.repeat(rows, 2))


def whole_rows(encoded: Encoded, device: torch.device) -> Iterator[Batch]:
    """Yield batches of all rows, with rows of similar length together."""
    examples = encoded.examples
    by_row = examples.lengths.reshape(-1, 2)  # (rows, 2)
    lengths = by_row.sum(axis=1)  # (rows,)
    order = np.argsort(-lengths, kind="stable")
    for rows in fill(order, lengths, LOSS_TOKENS, 0):
        first = 2 * rows
        second = first + 1
        sequences = np.stack([first, second], axis=1).ravel()  # (2 rows,)
        yield gather(examples, sequences, device)


def log_probabilities(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the summed log-probability of each sequence's labelled tokens, and their number; both
    (N,), in the order of the batch.
    """
    assert isinstance(model, LanguageModel) and batch.labels is not None
    states = language_states(model, batch)
    labelled = select_labelled(states, batch)
    logs = token_log_probabilities(model, labelled, batch.labels)  # (M,)
    sequence = batch.label_sequences  # (M,)
    zeros = logs.new_zeros(len(batch))
    sums = zeros.index_add(0, sequence, logs)
    counts = zeros.index_add(0, sequence, torch.ones_like(logs))
    return sums, counts


def answers_of(model: nn.Module, batch: Batch) -> tuple[Answers, Answers]:
    """Return the first and the second answer of each row of a batch, in the order of the rows."""
    logs, tokens = log_probabilities(model, batch)
    assert batch.targets is not None
    reference = batch.targets[:, REFERENCE].to(logs.dtype)
    sorted_rows = np.argsort(batch.rows, kind="stable")
    order = torch.from_numpy(sorted_rows).to(logs.device)
    first = order[0::2]  # (rows,)
    second = order[1::2]
    chosen = Answers(logs[first], reference[first], tokens[first])
    rejected = Answers(logs[second], reference[second], tokens[second])
    return chosen, rejected


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)

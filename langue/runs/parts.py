"""What a loaded model is made of. A base and each of its adapters are one of these, around the same
weights.
"""

from dataclasses import dataclass

from torch import nn

from langue.hub.checkpoint import Checkpoint
from langue.model.language_model import LanguageModel
from langue.model.transformer import Transformer
from langue.tasks.task import Task


@dataclass(frozen=True)
class Parts:
    """A checkpoint as it is used: for a task, or as a language model, or its body alone."""

    checkpoint: Checkpoint
    body: Transformer
    task: Task | None
    network: nn.Module | None  # with the task's head; of a task that writes, `language`
    language: LanguageModel | None

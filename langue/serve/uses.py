"""What arrives: a model folder, described. What leaves: what people do with the model, as
`/v1/models` tells it and the page shows it: by the shape of its results, never by a task's name.
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langue.hub.checkpoint import Description, read_tokenizer
from langue.model.config import ModelConfig
from langue.runs.save import task_of

REPORT = "report.html"  # of a run
CONTINUATION = "continuation"  # of a language model that answers nobody
MESSAGES = "messages"


@dataclass(frozen=True)
class Use:
    """How a model is used."""

    result: str  # a `Result` of tasks, or CONTINUATION
    pairs: bool | None = None  # whether it reads pairs of texts; None: not known
    languages: tuple[str, ...] = ()  # codes of those that it translates between
    report: Path | None = None
    # The report is opened by a link, which carries no key: who may list the models is told this
    # word, and nobody can guess it.
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def told(self) -> dict[str, Any]:
        """Its part of a model's description."""
        return {
            "result": self.result,
            "pairs": self.pairs,
            "languages": list(self.languages),
            "report": None if self.report is None else f"/report/{self.ticket}",
        }


def use_of(described: Description, config: ModelConfig) -> Use:
    """How a described model is used. ModelError where it has no tokenizer: what is asked for by
    text cannot be read.
    """
    tokenizer = read_tokenizer(described)
    report = described.told / REPORT
    return Use(
        _result_of(described, config, tokenizer.has_chat_template),
        (described.task or {}).get("pairs"),
        () if tokenizer.languages is None else tuple(tokenizer.languages.codes),
        report if report.is_file() else None,
    )


def _result_of(described: Description, config: ModelConfig, has_template: bool) -> str:
    task = task_of(described)
    if task is not None and not task.has_language_head:
        return task.result
    if config.architecture == "encoder":
        return "vectors"
    if config.architecture == "encoder-decoder":
        return "text"
    return MESSAGES if has_template else CONTINUATION

"""How a model is used: takes the description of a model folder; returns what `/v1/models` reports
and the page displays, by the kind of its results and never by a task's name.
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langue.hub.checkpoint import Description, read_tokenizer
from langue.model.config import ModelConfig
from langue.runs.save import task_of

REPORT = "report.html"  # of a run
CONTINUATION = "continuation"  # for a language model without a chat template
MESSAGES = "messages"


@dataclass(frozen=True)
class Use:
    """How a model is used."""

    result: str  # a `Result` of tasks, or CONTINUATION
    pairs: bool | None = None  # whether it reads pairs of texts; None: unknown
    languages: tuple[str, ...] = ()  # codes of the languages that it translates between
    report: Path | None = None
    # A report is opened by a link, which carries no key. So the link contains this secret, which is
    # only given to callers who may list the models.
    ticket: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def told(self) -> dict[str, Any]:
        """Return its part of a model's description."""
        return {
            "result": self.result,
            "pairs": self.pairs,
            "languages": list(self.languages),
            "report": None if self.report is None else f"/report/{self.ticket}",
        }


def use_of(described: Description, config: ModelConfig) -> Use:
    """Return how a described model is used; raise ModelError if it has no tokenizer, since it could
    not read texts.
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

"""The fields of `/v1/decisions`: questions about an input, each with its possible answers."""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from langue.serve.fields import LABELS, Fields, Refused, Text, TextPart

MOST_QUESTIONS = 400
MOST_CHOICES = 255


class JsonPart(Fields):
    """Objects, which the model reads as JSON."""

    type: Literal["input_json"]
    data: dict[str, JsonValue] | list[dict[str, JsonValue]]

    @property
    def text(self) -> str:
        """The JSON that the model reads."""
        return json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))


class EvidencePart(TextPart):
    """A text part of a message."""

    refused: ClassVar[Refused] = {
        **TextPart.refused,
        "prompt_cache_breakpoint": ((), "cached prefixes are reused anyway"),
    }


class EvidenceMessage(Fields):
    """A message that the questions are about."""

    type: Literal["message"] = "message"
    role: Literal["user", "developer", "system", "assistant"]
    content: Text | Annotated[list[EvidencePart | JsonPart], Field(min_length=1)]
    phase: Literal["commentary", "final_answer"] | None = Field(default=None, description=LABELS)

    @property
    def text(self) -> str:
        """The text of its parts."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class QuestionFields(Fields):
    """The fields of all kinds of questions."""

    instructions: (
        Annotated[Text, Field(min_length=1)]
        | Annotated[list[TextPart | JsonPart], Field(min_length=1)]
    )
    name: str | None = None

    @property
    def asked(self) -> str:
        """The instructions as one text."""
        given = self.instructions
        return given if isinstance(given, str) else "\n".join(part.text for part in given)


class Predicate(QuestionFields):
    """Whether a statement is true."""

    type: Literal["predicate"]


class ChoiceOption(Fields):
    """One of several answers."""

    value: Annotated[str, Field(min_length=1, strict=True)] | Annotated[bool, Field(strict=True)]
    description: str | None = None

    @property
    def label(self) -> str:
        """The value as the model reads it."""
        return self.value if isinstance(self.value, str) else str(self.value).lower()


class ChoiceQuestion(QuestionFields):
    """Which of several answers applies."""

    type: Literal["choice"]
    choices: Annotated[list[ChoiceOption], Field(min_length=2, max_length=MOST_CHOICES)]


class Level(Fields):
    """One of several ordered levels."""

    label: Annotated[str, Field(min_length=1)]
    description: str | None = None


class ScoreQuestion(QuestionFields):
    """Which level applies."""

    type: Literal["score"]
    levels: Annotated[list[Level], Field(min_length=2, max_length=MOST_CHOICES)]


Question = Annotated[Predicate | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]


class DecisionFields(Fields):
    """`POST /v1/decisions`."""

    model: str
    input: Text | Annotated[list[EvidenceMessage], Field(min_length=1)]
    questions: Annotated[list[Question], Field(min_length=1, max_length=MOST_QUESTIONS)]
    safety_identifier: str | None = Field(default=None, description=LABELS)
    prompt_cache_key: str | None = Field(
        default=None, description="cached prefixes are reused anyway"
    )
    refused: ClassVar[Refused] = {
        "prompt_cache_options": ((), "prefixes stay cached as long as there is room"),
    }

    @property
    def text(self) -> str:
        """What the questions are about, as one text."""
        if isinstance(self.input, str):
            return self.input
        return "\n".join(message.text for message in self.input)


def described(label: str, description: str | None) -> str:
    """Return an answer with its description."""
    return label if description is None else f"{label} ({description})"


def options_of(question: Any) -> list[tuple[str, str | None]]:
    """Return the possible answers to a question, with their descriptions; empty for a statement."""
    if isinstance(question, ChoiceQuestion):
        return [(each.label, each.description) for each in question.choices]
    if isinstance(question, ScoreQuestion):
        return [(each.label, each.description) for each in question.levels]
    return []

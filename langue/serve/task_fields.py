"""The fields of the task routes."""

from typing import Annotated, Any, Literal

from pydantic import Field

from langue.serve.fields import WHOLE, Bool, Count, Fields, Finite, Streamed, Text

Texts = Text | Annotated[list[Text], Field(min_length=1)]
Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
TRUNCATE = "cut texts that are too long"


class ClassifyFields(Fields):
    """`POST /v1/classify`."""

    model: str
    input: Texts | Annotated[list[Pair], Field(min_length=1)]
    top: Count | Literal["all"] | None = None
    truncate: Bool = Field(default=False, description=TRUNCATE)


class TagFields(Fields):
    """`POST /v1/tag`: texts, or lists of words."""

    model: str
    input: (
        Texts
        | Annotated[
            list[Annotated[list[Text], Field(min_length=1)]],
            Field(min_length=1),
        ]
    )
    truncate: Bool = Field(default=False, description=TRUNCATE)


class Question(Fields):
    """A question, and the context that contains its answer."""

    question: Text
    context: Text


class AnswerFields(Fields):
    """`POST /v1/answer`: one question with its context, or several as `input`."""

    model: str
    question: Text | None = None
    context: Text | None = None
    input: Annotated[list[Question], Field(min_length=1)] | None = None
    top: Count | None = None


class WriteFields(Streamed):
    """`POST /v1/translate` and `/v1/summarise`."""

    input: Texts
    source_language: str | None = None
    target_language: str | None = None
    max_tokens: Count | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31, strict=True), WHOLE] | None = None
    beams: Annotated[int, Field(ge=1, le=64, strict=True), WHOLE] | None = None
    length_penalty: Finite | None = None
    no_repeat_ngram: Annotated[int, Field(ge=0, le=2**31, strict=True), WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1, strict=True), WHOLE] = 0

    def options(self) -> dict[str, Any]:
        """Return the fields that were set, as arguments of `Model.generate`."""
        names = (
            *("source_language", "target_language", "min_tokens", "beams", "length_penalty"),
            *("no_repeat_ngram", "temperature"),
        )
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class RerankFields(Fields):
    """`POST /v1/rerank`."""

    model: str
    query: Text
    documents: Annotated[list[Text], Field(min_length=1)]
    top_n: Count | None = None
    return_documents: Bool = False
    truncate: Bool = Field(default=False, description=TRUNCATE)

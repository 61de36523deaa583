"""Request fields: takes the JSON of a call; returns its validated fields, or an error that names an
unsupported one.

No field is ignored. Fields of OpenAI's request types that are not supported are listed in
`refused`, with the values that have no effect and so are accepted. Any other field is unknown.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)

from langue.serve.api_errors import ApiError


def _whole(value: Any) -> Any:
    """Return 17.0 as 17: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
# Unsupported fields: the values that are accepted because they ask for nothing, and what to do
# otherwise.
Refused = dict[str, tuple[tuple[Any, ...], str]]
EARLIER = "earlier reasoning, for templates that read it"
LABELS = "metadata of the caller, without effect on the answer"
Bool = Annotated[bool, Field(strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Text = Annotated[str, StringConstraints(max_length=4_000_000)]
Ids = list[Annotated[int, Field(ge=0, lt=2**31, strict=True), WHOLE]]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False, strict=True)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False, strict=True)]
Factor = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False, strict=True)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Count = Annotated[int, Field(ge=1, le=2**31, strict=True), WHOLE]
MOST_STOPS = 16
MOST_LOGPROBS = 20


class Fields(BaseModel):
    """The fields of a call."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    refused: ClassVar[Refused] = {}

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        left = {}
        known = {field.alias or name for name, field in cls.model_fields.items()}
        for name, value in data.items():
            if name not in cls.refused:
                if value is not None or name in known:  # null asks for nothing
                    left[name] = value
                continue
            harmless, remedy = cls.refused[name]
            if value is not None and not any(_same(value, each) for each in harmless):
                shown = " or ".join(repr(each) for each in harmless) or "null"
                what = f"'{name}' is not supported, except as {shown}; {remedy}"
                raise ApiError(400, what, param=name, code="unsupported_parameter")
        return left


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and value == other


def as_list(given: Any) -> list[Any]:
    """Return one text, one list of token ids, or several of them, as a list."""
    is_one = isinstance(given, str) or isinstance(given[0], int)
    return [given] if is_one else list(given)


class StreamOptions(Fields):
    """What a stream contains in addition to the text."""

    include_usage: Bool = False
    refused: ClassVar[Refused] = {
        "include_obfuscation": ((False,), "streams are not padded"),
    }


class Streamed(Fields):
    """A call that is answered as a whole or as a stream."""

    model: str
    stream: Bool | None = None
    stream_options: StreamOptions | None = None

    def check_stream(self) -> None:
        """Raise ApiError if there are stream options without a stream."""
        if self.stream_options is not None and not self.stream:
            what = "'stream_options' is for streams; set stream=true, or leave it out"
            raise ApiError(400, what, param="stream_options", code="invalid_value")

    @property
    def wants_usage(self) -> bool:
        """Whether the last event of a stream reports the token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class Sampled(Streamed):
    """Sampling fields of chat and text completions; unset ones have the values of the model's
    generation config, or else langue's defaults.
    """

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] | None = None
    n: Annotated[int, Field(ge=1, le=128, strict=True), WHOLE] | None = None
    stop: (
        Annotated[str, StringConstraints(min_length=1, max_length=1000)]
        | Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=1000)]],
            Field(max_length=MOST_STOPS),
        ]
        | None
    ) = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1, strict=True), WHOLE] | None = None
    user: str | None = Field(default=None, description=LABELS)
    # extensions of OpenAI's API, with the names that other servers use
    top_k: Annotated[int, Field(ge=0, le=2**31, strict=True), WHOLE] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None = None
    typical_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] | None = None
    repetition_penalty: Factor | None = None
    no_repeat_ngram: Annotated[int, Field(ge=0, le=2**31, strict=True), WHOLE] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31, strict=True), WHOLE] | None = None
    json_schema: dict[str, Any] | None = None
    regex: Annotated[str, StringConstraints(max_length=100_000)] | None = None
    choices: list[str] | None = None
    grammar: Annotated[str, StringConstraints(max_length=1_000_000)] | None = None

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def options(self) -> dict[str, Any]:
        """Return the fields that were set, as arguments of `Model.generate`."""
        names = (
            *("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_k", "min_p"),
            *("typical_p", "repetition_penalty", "no_repeat_ngram", "min_tokens"),
            *("json_schema", "regex", "choices", "grammar"),
        )
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.stops:
            found["stop"] = self.stops
        if self.logit_bias:
            found["logit_bias"] = _biases(self.logit_bias)
        return found


def _biases(given: dict[str, float]) -> dict[int, float]:
    found = {}
    for token, bias in given.items():
        if not token.isdecimal() or not token.isascii() or len(token) > 10:
            what = f"'logit_bias': {token[:50]!r} is no token id"
            raise ApiError(400, what, param="logit_bias", code="invalid_value")
        found[int(token)] = bias
    return found


class CompletionFields(Sampled):
    """`POST /v1/completions`."""

    prompt: (
        Text
        | Annotated[Ids, Field(min_length=1)]
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[Annotated[Ids, Field(min_length=1)]], Field(min_length=1)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=2**31, strict=True), WHOLE] | None = None
    echo: Bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS, strict=True), WHOLE] | None = None
    refused: ClassVar[Refused] = {
        "best_of": ((1,), "ask for n answers and choose among them by their logprobs"),
        "suffix": (("",), "no model here can fill in the middle"),
    }


class FunctionFields(Fields):
    """A function that a model may call."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Bool | None = None


class ToolFields(Fields):
    """A tool, which is always a function."""

    type: Literal["function"]
    function: FunctionFields


class NamedFunction(Fields):
    """A function by name."""

    name: str


class ToolChoice(Fields):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class TextPart(Fields):
    """A text part of a message."""

    type: Literal["text", "input_text", "output_text"]
    text: Text
    refused: ClassVar[Refused] = {
        "annotations": (([],), "messages have no annotations here"),
        "logprobs": (([],), "leave them out"),
    }


class CalledFunction(Fields):
    """A called function, and its arguments as JSON."""

    name: str
    arguments: Text


class ToolCall(Fields):
    """An earlier tool call of the model."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class MessageFields(Fields):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: Text | None = Field(default=None, description=EARLIER)
    refused: ClassVar[Refused] = {
        "refusal": ((), "leave it out"),
        "audio": ((), "the models here read text only"),
        "annotations": (([],), "leave them out"),
        "function_call": ((), "use tool_calls"),
    }


class SchemaFields(Fields):
    """A named JSON Schema."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    description: str | None = None
    strict: Bool | None = None


class ResponseFormat(Fields):
    """The format of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFields | None = None

    def schema_asked(self) -> dict[str, Any] | None:
        """Return the schema of the answer; None if it is free text."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.json_schema is None:
            raise ApiError(
                400,
                "Missing required parameter: 'response_format.json_schema'",
                param="response_format.json_schema",
                code="missing_required_parameter",
            )
        return self.json_schema.schema_ or {"type": "object"}


class ChatFields(Sampled):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[MessageFields], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: Bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS, strict=True), WHOLE] | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolFields] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: Bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    metadata: dict[str, str] | None = Field(default=None, description=LABELS)
    safety_identifier: str | None = Field(default=None, description=LABELS)
    prompt_cache_key: str | None = Field(
        default=None, description="cached prefixes are reused anyway"
    )
    refused: ClassVar[Refused] = {
        "audio": ((), "the models here write text only"),
        "function_call": (("none",), "use tool_choice"),
        "functions": (([],), "use tools"),
        "modalities": ((["text"],), "the models here write text only"),
        "moderation": ((), "leave it out"),
        "prediction": ((), "leave it out"),
        "prompt_cache_options": ((), "prefixes stay cached as long as there is room"),
        "prompt_cache_retention": (
            ("in_memory", "in-memory"),
            "prefixes stay cached as long as there is room",
        ),
        "service_tier": (("auto", "default"), "all requests are served alike"),
        "store": ((False,), "the server stores nothing"),
        "verbosity": (("medium",), "ask for the length in the prompt"),
        "web_search_options": ((), "there is no web search here"),
    }


class EmbeddingFields(Fields):
    """`POST /v1/embeddings`."""

    model: str
    input: (
        Text
        | Annotated[Ids, Field(min_length=1)]
        | Annotated[list[Text], Field(min_length=1)]
        | Annotated[list[Annotated[Ids, Field(min_length=1)]], Field(min_length=1)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Count | None = None
    user: str | None = Field(default=None, description=LABELS)
    truncate: Bool = Field(default=False, description="cut texts that are too long")

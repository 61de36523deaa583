"""`langue generate`: print what a model generates."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langue.cli import early
from langue.cli.options import Dash, Debug, Force, Json, Named, Revision, data_of, harmless
from langue.errors import DataError, SettingsError

if TYPE_CHECKING:
    from langue.runs.model import Model

CHOICE = "Which tokens"
END = "Where it ends"
FORM = "What it must be"
LANGUAGES = "Languages"
SPEED = "How fast"


def _option(help: str, metavar: str, panel: str = CHOICE, **limits: Any) -> Any:
    """An option whose default is the model's."""
    return typer.Option(
        help=help, metavar=metavar, rich_help_panel=panel, show_default=False, **limits
    )


Prompt = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        "-p",
        help="A prompt, or a source text for an encoder-decoder; the names of special tokens are"
        " read as tokens. Repeatable.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help='Read prompts from a file of JSON lines with "prompt", "messages" or'
        ' "tokens"; - is standard input.',
        show_default=False,
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        help="Write the results to this file, one JSON object per line.", show_default=False
    ),
]
MaxTokens = Annotated[
    int | None,
    _option("The maximum number of new tokens. Default: 64.", "N", END, min=1),
]
MinTokens = Annotated[
    int | None,
    _option("The minimum number of new tokens. Default: 0.", "N", END, min=0),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        help="Stop before this text. Repeatable.",
        rich_help_panel=END,
        show_default=False,
    ),
]
Temperature = Annotated[
    float | None,
    _option("The sampling temperature. 0, the default, takes the most likely token.", "X", min=0.0),
]
TopK = Annotated[
    int | None,
    _option("Sample from this number of the most likely tokens. Default: 0, all.", "N", min=0),
]
TopP = Annotated[
    float | None,
    _option(
        "Sample from the most likely tokens that have this probability in total. Default: 1.",
        "X",
        min=0.0,
        max=1.0,
    ),
]
MinP = Annotated[
    float | None,
    _option(
        "Sample from tokens with at least this share of the highest probability. Default: 0.",
        "X",
        min=0.0,
        max=1.0,
    ),
]
TypicalP = Annotated[
    float | None,
    _option(
        "Sample from the most typical tokens that have this probability in total. Default: 1.",
        "X",
        min=0.0,
        max=1.0,
    ),
]
Seed = Annotated[int, typer.Option(help="The random seed.", rich_help_panel=CHOICE)]
Answers = Annotated[
    int, typer.Option(min=1, help="The number of completions per prompt.", rich_help_panel=CHOICE)
]
Beams = Annotated[
    int | None,
    _option("The number of beams. 1, the default, means no beam search.", "N", min=1),
]
LengthPenalty = Annotated[
    float | None,
    _option(
        "With beam search: the exponent of the length by which scores are divided. Default: 1.", "X"
    ),
]
EarlyStopping = Annotated[
    bool | None,
    typer.Option(
        "--early-stopping",
        help="With beam search: stop as soon as there are as many finished candidates as beams.",
        rich_help_panel=CHOICE,
        show_default=False,
    ),
]
RepetitionPenalty = Annotated[
    float | None,
    _option(
        "The penalty on tokens that occurred before, prompt included. Default: 1, none.",
        "X",
        min=0.0,
    ),
]
PresencePenalty = Annotated[
    float | None,
    _option("Subtracted from the logits of tokens that were generated before. Default: 0.", "X"),
]
FrequencyPenalty = Annotated[
    float | None,
    _option("The same, for each time that the token was generated. Default: 0.", "X"),
]
NoRepeatNgram = Annotated[
    int | None,
    _option("No sequence of this number of tokens occurs twice.", "N", min=0),
]
LogitBias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TOKEN=NUMBER",
        help="A value added to the logit of a token id, as ID=VALUE. Repeatable.",
        rich_help_panel=CHOICE,
        show_default=False,
    ),
]
Logprobs = Annotated[
    int | None,
    _option("Return log-probabilities, also of this number of the most likely tokens.", "N", min=0),
]
JsonSchema = Annotated[
    str | None,
    _option("A JSON Schema, or a file with one, that the output follows.", "TEXT", FORM),
]
Regex = Annotated[
    str | None,
    _option("A regular expression that the output matches.", "TEXT", FORM),
]
Choice = Annotated[
    list[str] | None,
    typer.Option(
        help="Answer with one of the given texts. Repeat the option for each.",
        rich_help_panel=FORM,
        show_default=False,
    ),
]
Grammar = Annotated[
    str | None,
    _option("A file with a grammar in Lark's syntax that the output follows.", "TEXT", FORM),
]
SourceLanguage = Annotated[
    str | None,
    _option(
        "The language of the source, as a code of the model, such as en_XX.", "TEXT", LANGUAGES
    ),
]
TargetLanguage = Annotated[
    str | None,
    _option(
        "The language to generate, as a code of the model, such as de_DE or deu.", "TEXT", LANGUAGES
    ),
]
Draft = Annotated[
    str | None,
    _option(
        "Speculative decoding with draft tokens from this smaller model, or from the prompt.",
        "MODEL",
        SPEED,
    ),
]
DraftTokens = Annotated[
    int | None, _option("The number of draft tokens per step. Default: 4.", "N", SPEED, min=1)
]
Stream = Annotated[bool, typer.Option("--stream", help="Print the text while it is generated.")]

Weights = Annotated[
    str | None,
    _option(
        "The number type of the weight matrices: fp32, bf16, int8, int4, or stored.", "KIND", SPEED
    ),
]


def generate(
    context: typer.Context,
    model: Named,
    standard_input: Dash = None,
    prompt: Prompt = None,
    data: Data = None,
    out: Out = None,
    max_tokens: MaxTokens = None,
    min_tokens: MinTokens = None,
    stop: Stop = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical_p: TypicalP = None,
    seed: Seed = 0,
    n: Answers = 1,
    beams: Beams = None,
    length_penalty: LengthPenalty = None,
    early_stopping: EarlyStopping = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    no_repeat_ngram: NoRepeatNgram = None,
    logit_bias: LogitBias = None,
    logprobs: Logprobs = None,
    json_schema: JsonSchema = None,
    regex: Regex = None,
    choice: Choice = None,
    grammar: Grammar = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    weights: Weights = None,
    draft: Draft = None,
    draft_tokens: DraftTokens = None,
    stream: Stream = False,
    revision: Revision = None,
    force: Force = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Generate text from a prompt, or from a source to translate or summarise.

    From a prompt, a source text, a file, and standard input:

        langue generate runs/small --prompt "ROMEO:" --temperature 0.8
        langue generate Helsinki-NLP/opus-mt-en-de -p "Good morning." --beams 4
        langue generate runs/small --data prompts.jsonl --out answers.jsonl
        another-program | langue generate runs/small -
        langue generate facebook/mbart-large-50-many-to-many-mmt \\
            -p "Good morning." --source-language en_XX --target-language de_DE

    Without --prompt, the prompt is read from standard input. With - (or
    --data -), JSON lines are read there, and each is answered at once.

    The model's generation_config.json takes precedence over these defaults, and
    an option over both.
    """
    data = data_of(standard_input, data)
    options = _options(context.params)
    if data is not None and (prompt or stream or n > 1):
        other = "--prompt" if prompt else "--stream" if stream else "--n"
        raise SettingsError(f"--data and {other} are given together", do="give one of them")
    if data is None and out is not None:
        raise SettingsError("--out is for --data", do="give --data FILE, or leave out --out")
    early.check_inputs(model=model, revision=revision, data=data, out=out, force=force)
    from langue.verbs.generate import ready

    if data is not None:
        _bulk(ready(model, revision, weights), data, out, options, force)
        return
    prompts = list(prompt) if prompt else [_read()]
    loaded = ready(model, revision, weights)
    if stream:
        _stream(loaded, prompts, options, n)
        return
    written = loaded.generate(prompts, n=n, details=True, **options)
    answers = written if n > 1 else [[each] for each in written]
    _print(loaded, prompts, answers, as_json, bool(temperature))


OPTIONS = (
    *("max_tokens", "min_tokens", "stop", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("seed", "beams", "length_penalty", "early_stopping", "repetition_penalty"),
    *("presence_penalty", "frequency_penalty", "no_repeat_ngram", "logit_bias", "logprobs"),
    *("json_schema", "regex", "choice", "grammar", "draft", "draft_tokens"),
    *("source_language", "target_language"),
)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Those of `Model.generate` that were given, as it takes them."""
    found = {name: given[name] for name in OPTIONS if given[name] not in (None, [], ())}
    if "choice" in found:
        found["choices"] = found.pop("choice")
    if "logit_bias" in found:
        found["logit_bias"] = _biases(found["logit_bias"])
    for name in ("json_schema", "grammar"):
        if name in found:
            found[name] = _text_or_file(found[name])
    return found


def _bulk(model: "Model", data: str, out: str | None, options: dict[str, Any], force: bool) -> None:
    """JSON lines in, JSON lines out, each as soon as it is known."""
    from langue.verbs.generate import Failures, answers, opened, place_of, read_lines, waits_of
    from langue.verbs.generate import generate as verb

    if out is not None:
        verb(model, data=data, out=out, force=force, **options)
        print(f"Answers: {out}")
        return
    source = opened(data)
    failed = Failures(place_of(source))
    lines = failed.watched(read_lines(source))
    for answer in answers(model, lines, options, waits_of(source)):
        failed.count(answer)
        print(json.dumps(answer, ensure_ascii=False), flush=True)
    failed.tell(may_raise=True)


def _stream(ready: "Model", prompts: list[str], options: dict[str, Any], n: int) -> None:
    if len(prompts) > 1 or n > 1:
        raise SettingsError("--stream is for one prompt and one answer", do="leave it out")
    if ready.config.architecture == "decoder":
        print(_shown(prompts[0]), end="", flush=True)
    for piece in ready.stream(prompts[0], **options):
        print(_shown(piece), end="", flush=True)
    print()


def _print(
    ready: "Model",
    prompts: list[str],
    written: list[list[dict[str, Any]]],
    as_json: bool,
    draws: bool,
) -> None:
    """draws: whether tokens are drawn, and not the likeliest taken."""
    from langue.runs.show import print_json

    pairs = [
        (given, answer)
        for given, answers in zip(prompts, written, strict=True)
        for answer in answers
    ]
    if as_json:
        print_json([{"prompt": given, **answer} for given, answer in pairs])
        return
    if all(not answer["text"].strip() for _, answer in pairs):
        remedy = "" if draws else "; --temperature 0.8 draws other tokens"
        print(f"(the model has written nothing but blanks{remedy})", file=sys.stderr)
    continues = ready.config.architecture == "decoder"
    for given, answer in pairs:
        print(_shown(f"{given}{answer['text']}" if continues else answer["text"]))


def _shown(text: str) -> str:
    """As it is for a file or a program; for a terminal, without what would steer it."""
    return harmless(text) if sys.stdout.isatty() else text


def _biases(words: list[str]) -> dict[int, float]:
    """`["5=-100"]` as a dict."""
    biases = {}
    for word in words:
        token, _, value = word.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError:
            raise SettingsError(
                f"--logit-bias {word!r} is not TOKEN=NUMBER", do="write --logit-bias 11=-100"
            ) from None
    return biases


def _text_or_file(value: str) -> str:
    """What a file holds, or the words themselves where they are no file's name."""
    from pathlib import Path

    from langue.files import unreadable

    if value.lstrip()[:1] in ("{", "[") or "\n" in value:
        return value
    try:
        return Path(value).read_text("utf-8-sig")
    except OSError as error:
        raise unreadable(error, value, DataError) from error


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        what = f"not {error.encoding}: {error.reason} at byte {error.start}"
        raise DataError(what, where="standard input", do="convert it, as with iconv") from None

"""Text generation: takes prompts, conversations or sources; returns what a language model
generates, with its own generation config as the default of all options.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch

from langue.errors import ModelError
from langue.generation.constrain import Constraint, Grammars
from langue.generation.engine import GUESSES, MOST_POSITIONS, MOST_ROWS, Engine
from langue.generation.generate import occurrences
from langue.generation.request import Beams, Completion, Delta, Request
from langue.generation.sample import Choice, sampling_of
from langue.generation.speculate import Drafter, DraftModel, PromptLookup
from langue.hub.checkpoint import Checkpoint
from langue.hub.generation_config import GenerationConfig
from langue.model.cache import PAGE
from langue.model.language_model import LanguageModel
from langue.model.weight_linear import for_generation
from langue.progress import warn
from langue.runs.inputs import Inputs, check_kind, is_conversation, is_pair, too_long
from langue.text.tokenizers.tokenizer import Tokenizer
from langue.text.tokenizers.unknown import Lost

LOOK_UP = "prompt"  # value of `draft`


@dataclass(frozen=True)
class Options:
    """Options of generation; None: as in the model's generation config."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | Sequence[int] = 0  # one for all prompts, or one for each
    n: int = 1  # answers to each prompt
    beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    no_repeat_ngram: int | None = None
    min_tokens: int | None = None
    stop: str | Sequence[str] | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    prompt_logprobs: bool = False
    json_schema: Mapping[str, Any] | str | bool | None = None
    regex: str | None = None
    choices: Sequence[str] | None = None
    grammar: str | None = None
    # proposes tokens for the model to verify: "prompt", which looks up repetitions, or a smaller
    # model with the same tokenizer
    draft: Any = None
    draft_tokens: int = GUESSES  # proposed tokens per step
    source_language: str | None = None  # of a multilingual translation model
    target_language: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def constraints(self) -> dict[str, Any]:
        """The constraint on the text; at most one is allowed."""
        names = ("json_schema", "regex", "choices", "grammar")
        asked = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if len(asked) > 1:
            raise ModelError(f"{' and '.join(asked)} are given together", do="give one of them")
        return asked

    def seeds(self, count: int) -> list[int]:
        """Return one seed for each prompt."""
        if isinstance(self.seed, int):
            return [self.seed] * count
        given = list(self.seed)
        if len(given) != count:
            raise ModelError(
                f"{len(given)} seeds and {count} prompts", do="give one seed, or one a prompt"
            )
        return given


def _beams(options: Options, config: GenerationConfig) -> Beams | None:
    """Return the settings of beam search: the caller's, or, unless tokens are sampled, those of the
    model's generation config.
    """
    width = options.beams
    draws = options.temperature or (options.temperature is None and config.do_sample)
    if width is None:
        width = 1 if draws else config.num_beams
    if width == 1:
        return None
    penalty = options.length_penalty
    early = options.early_stopping
    return Beams(
        width,
        options.n,
        config.length_penalty if penalty is None else penalty,
        config.early_stopping if early is None else early,
    )


def options_of(given: Mapping[str, Any]) -> Options:
    """Return the options; raise ModelError for an unknown name."""
    known = [each.name for each in fields(Options)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ModelError(f"{unknown[0]} is not an option", do=f"known are {', '.join(known)}")
    return Options(**given)


@dataclass(frozen=True)
class Load:
    """The load of an engine: its requests, and fractions of its KV cache pages."""

    waiting: int
    running: int
    used: float  # pages held by requests
    known: float  # pages cached for later prompts with the same prefix


class TextEngine:
    """The engine with prompts and answers as strings, token ids or conversations."""

    def __init__(
        self,
        generator: "TextGenerator",
        *,
        memory: int | None,
        rows: int,
        tokens: int | None,
        draft: Any = None,
        draft_tokens: int = GUESSES,
    ) -> None:
        self._generator = generator
        self._engine = Engine(
            generator.language,
            generator.tokenizer,
            memory=memory,
            rows=rows,
            tokens=tokens,
            dtype=generator.dtype,
            drafter=None if draft is None else generator.drafter(draft),
            guesses=draft_tokens,
        )

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return self._engine.has_work

    def submit(
        self,
        prompt: Any,
        *,
        priority: int = 0,
        owner: str = "",
        deadline: float | None = None,
        **options: Any,
    ) -> int:
        """Queue a prompt (a string, token ids or a conversation) and return its id.

        The options are those of `Model.generate`, except for n and draft; priority, owner and
        deadline are as in `Request`.
        """
        asked = options_of(options)
        if asked.draft is not None or asked.n != 1 and asked.beams is None:
            name = "n" if asked.draft is None else "draft"
            raise ModelError(
                f"{name} is not of one request",
                do="submit the prompt n times" if name == "n" else "give it to Model.engine",
            )
        (request,) = self._generator.requests([prompt], asked)
        placed = replace(request, priority=priority, owner=owner, deadline=deadline)
        return self._submit(placed, asked)

    def prepare(self, prompt: Any, **options: Any) -> Request:
        """Return a prompt in the form that `put` takes; other threads may call this while the
        engine steps.

        Raises ModelError if the prompt cannot be answered.
        """
        (request,) = self._generator.requests([prompt], options_of(options))
        return request

    def constraint(self, request: Request, **options: Any) -> Constraint | None:
        """Compile the constraint in the options; like `prepare`, for other threads."""
        return self._generator.constraint(options_of(options), request)

    def put(self, request: Request, constraint: Constraint | None) -> int:
        """Queue a prepared request and return its id."""
        return self._engine.submit(request, constraint)

    @property
    def capacity(self) -> int:
        """Number of tokens in the KV cache, for all requests together."""
        return self._engine.pool.count * PAGE

    @property
    def room(self) -> int:
        """Maximum number of tokens of a request's prompt and answer, limited by positions and
        pages.
        """
        return min(self._engine.positions, self.capacity) + 1

    @property
    def load(self) -> Load:
        """The current load."""
        engine = self._engine
        pool = engine.pool
        total = max(1, pool.count)
        return Load(
            len(engine.waiting),
            len(engine.running),
            (pool.count - len(pool.free) - pool.n_kept) / total,
            pool.n_kept / total,
        )

    def _submit(self, request: Request, options: Options) -> int:
        return self._engine.submit(request, self._generator.constraint(options, request))

    def _submit_all(self, request: Request, options: Options) -> list[int]:
        """Queue one request for each sample, or a single one for beam search."""
        if request.beams is not None:
            return [self._submit(request, options)]
        first = request.sample * options.n
        samples = range(first, first + options.n)
        return [self._submit(replace(request, sample=k), options) for k in samples]

    def step(self, now: float = 0.0) -> list[Delta]:
        """Advance all sequences, and return what is new; now: the time on the clock of the
        deadlines.
        """
        return self._engine.step(now)

    def cancel(self, id: int) -> None:
        """Cancel a request, which the next step reports."""
        self._engine.cancel(id)

    def peek(self, id: int) -> Completion:
        """Return the state of a request."""
        return self._engine.answers[id]

    def collect(self, id: int) -> Completion:
        """Return the state of a request; a finished request is then forgotten."""
        return self._engine.collect(id)


class TextGenerator:
    """Generates continuations of prompts in any form."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        language: LanguageModel,
        inputs: Inputs,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """dtype: of the matrix products."""
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
        self.inputs = inputs
        self.dtype = dtype
        self.language = for_generation(language, dtype)
        self._has_warned = False

    def engine(
        self,
        memory: int | None = None,
        rows: int = MOST_ROWS,
        tokens: int | None = None,
        draft: Any = None,
        draft_tokens: int = GUESSES,
    ) -> TextEngine:
        """Return an engine; memory, rows, tokens: as in `Engine`; draft, draft_tokens: as in
        `Options`.
        """
        return TextEngine(
            self, memory=memory, rows=rows, tokens=tokens, draft=draft, draft_tokens=draft_tokens
        )

    def drafter(self, draft: Any) -> Drafter:
        """Return a drafter; raise ModelError if it does not fit this model."""
        if draft == LOOK_UP:
            return PromptLookup()
        if draft.language is None:
            raise ModelError("the draft model has no language-model head", do="take another")
        if draft.tokenizer.backend.get_vocab() != self.tokenizer.backend.get_vocab():
            raise ModelError(
                "the draft model's tokenizer has other tokens than the model's",
                do="take one with the same tokenizer",
            )
        return DraftModel(draft.language, self.language)

    def generate(self, items: list[Any], options: Options) -> list[list[Completion]]:
        """Return the answers to each item, `options.n` of them."""
        if options.n < 1:
            raise ModelError(f"n = {options.n} answers", do="give 1 or more")
        requests = self.requests(items, options)
        widths = [1 if each.beams is None else each.beams.width for each in requests]
        width = max(options.n, *widths)
        total = sum(self._most_tokens(request) for request in requests) * width
        rows = min(max(MOST_ROWS, width), len(requests) * width)
        engine = self._engine_with(options, rows, min(total, rows * MOST_POSITIONS))
        ids = [engine._submit_all(request, options) for request in requests]
        while engine.has_work:
            engine.step()
        answers = []
        for each in ids:
            found = [engine.collect(id) for id in each]
            for answer in found:
                if answer.error is not None:
                    raise answer.error
            answers.append(found[0].n_best or found)
        self._warn_of_positions([one for each in answers for one in each])
        return answers

    def stream(self, item: Any, options: Options) -> Iterator[Delta]:
        """Yield what is generated after one prompt as it comes."""
        (request,) = self.requests([item], options)
        width = 1 if request.beams is None else request.beams.width
        engine = self._engine_with(options, width, width * self._most_tokens(request))
        id = engine._submit(request, options)
        while engine.has_work:
            for delta in engine.step():
                if delta.error is not None:
                    raise delta.error
                yield delta
        self._warn_of_positions([engine.collect(id)])

    def _engine_with(self, options: Options, rows: int, tokens: int) -> TextEngine:
        return self.engine(
            rows=rows, tokens=tokens, draft=options.draft, draft_tokens=options.draft_tokens
        )

    def requests(self, items: list[Any], options: Options) -> list[Request]:
        """Return one request for each prompt."""
        tokenizer = self.tokenizer.for_languages(options.source_language, options.target_language)
        config = self.checkpoint.generation_in(tokenizer, options.target_language)
        config = replace(config, end=self.ends)
        ids = self._prompt_ids(items, tokenizer)
        self._warn_of_generation(config)
        as_text = isinstance(items[0], str) or is_pair(items[0]) or is_conversation(items[0])
        samples = occurrences(ids)
        beams = _beams(options, config)
        if beams is not None:
            config = replace(config, do_sample=False)
        requests = []
        for prompt, seed, sample in zip(ids, options.seeds(len(ids)), samples, strict=True):
            sampling = sampling_of(
                config,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                min_p=options.min_p,
                typical_p=options.typical_p,
                seed=seed,
                repetition_penalty=options.repetition_penalty,
                presence_penalty=options.presence_penalty,
                frequency_penalty=options.frequency_penalty,
                no_repeat_ngram=options.no_repeat_ngram,
                min_tokens=options.min_tokens,
                logit_bias=options.logit_bias,
                logprobs=options.logprobs,
            )
            requests.append(
                Request(
                    prompt,
                    sampling,
                    config,
                    stop=options.stops,
                    beams=beams,
                    sample=sample,
                    as_text=as_text,
                    prompt_logprobs=options.prompt_logprobs,
                )
            )
        return requests

    def constraint(self, options: Options, request: Request) -> Constraint | None:
        """Compile the constraint on the text, in its initial state."""
        asked = options.constraints
        context = list(request.prompt) if self.config.architecture == "decoder" else None
        return self._grammars.compile(**asked, context=context) if asked else None

    @cached_property
    def _grammars(self) -> Grammars:
        vocabulary = self.config.decoder_vocab_size or self.config.vocab_size
        return Grammars(self.tokenizer.target, vocabulary, self.ends)

    def _most_tokens(self, request: Request) -> int:
        """Return the number of tokens of prompt and answer, in whole pages."""
        given = len(request.prompt) if self.config.architecture == "decoder" else 1
        limit = request.sampling.max_tokens
        if limit is None:
            limit = request.config.new_tokens(given)
        written = min(limit, self.config.longest)
        return len(request.prompt) + given + written + 4 * PAGE

    def _prompt_ids(self, items: list[Any], tokenizer: Tokenizer) -> list[list[int]]:
        """Return the token ids of prompts, or of an encoder-decoder's sources."""
        check_kind(items)
        is_decoder = self.config.architecture == "decoder"
        if is_conversation(items[0]):
            encode = self.tokenizer.backend.encode  # the template has written the special tokens
            texts = [self.tokenizer.chat(conversation) for conversation in items]
            lost = Lost(self.tokenizer)
            messages = chain.from_iterable(items)
            lost.look_for_names(str(message.get("content") or "") for message in messages)
            self.inputs.count_unknown(lost)
            ids = [encode(text, add_special_tokens=False).ids for text in texts]
            lengths = np.asarray([len(part) for part in ids])
            if lengths.max() > self.inputs.room.tokens:
                raise too_long(lengths, self.inputs.room, self.config.longest)
        else:
            examples = self.inputs.examples(items, prompt=is_decoder, tokenizer=tokenizer)
            ids = [part.tolist() for part in np.split(examples.tokens, examples.starts[1:-1])]
        begin = self.checkpoint.published.get("bos_token_id")
        if is_decoder and isinstance(begin, int):  # an empty prompt starts like any text
            ids = [part or [begin] for part in ids]
        return ids

    @cached_property
    def ends(self) -> frozenset[int]:
        """The end-of-text tokens of the checkpoint, and the token that ends an answer in its chat
        template.
        """
        end = self.checkpoint.ends
        token = self.tokenizer.end_of_turn()
        return end if token is None else end | {token}

    def _warn_of_generation(self, config: GenerationConfig) -> None:
        """Warn once about settings of the model's generation config that are not supported."""
        if config.not_followed and not self._has_warned:
            said = ", ".join(config.not_followed)
            warn(
                f"{self.checkpoint.folder}: its generation config says {said}, which is not"
                " followed here"
            )
        self._has_warned = True

    def _warn_of_positions(self, answers: Sequence[Completion]) -> None:
        """Warn if texts ended because the model has no more positions."""
        count = sum(answer.at_last_position for answer in answers)
        if count:
            are = ("answer" if len(answers) == 1 else "answers") + (
                " ends" if count == 1 else " end"
            )
            where = f"at the model's last position, {self.config.longest:,}"
            warn(
                f"{count:,} of {len(answers):,} {are} {where}, before max_tokens and before an end"
                " token"
            )


def detailed(answer: Completion) -> dict[str, Any]:
    """Return all details of an answer, in a form for JSON."""
    found: dict[str, Any] = {
        "text": answer.text,
        "tokens": answer.tokens,
        "logprobs": [shown(choice) for choice in answer.choices] or None,
        "finish_reason": answer.finish_reason,
    }
    if answer.score is not None:
        found["score"] = answer.score
    if answer.prompt_choices:
        prompt = answer.prompt_choices
        found["prompt_logprobs"] = [None if each is None else shown(each) for each in prompt]
    return found


def shown(choice: Choice) -> dict[str, Any]:
    """Return a token with its log-probability and, if requested, those of the most probable
    tokens.
    """
    found: dict[str, Any] = {"token": choice.token, "logprob": choice.logprob}
    if choice.top:
        found["top"] = [{"token": token, "logprob": value} for token, value in choice.top]
    return found

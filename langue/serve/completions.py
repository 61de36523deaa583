"""What arrives: beginnings, at `/v1/completions`, as texts or token ids. What leaves: what the
model goes on with; with `echo` and `logprobs`, what it thinks of the beginning.
"""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from langue.generation.request import Completion
from langue.serve.answering import STREAMED, answer
from langue.serve.chat import must_write
from langue.serve.fields import CompletionFields, as_list
from langue.serve.models import Loaded
from langue.serve.sse import DONE, event
from langue.serve.writing import Answers, Asked, Piece

router = APIRouter()
NEW_TOKENS = 16  # where max_tokens is not given, as OpenAI has it


@router.post("/v1/completions", responses=STREAMED)
async def completions(fields: CompletionFields, request: Request) -> Response:
    """Go on from texts or token ids; of an encoder-decoder: from sources."""
    fields.check_stream()
    return await answer(fields, request, _Completions)


class _Completions:
    """One call."""

    def __init__(self, fields: CompletionFields, loaded: Loaded, answers: Answers) -> None:
        self.fields = fields
        self.loaded = loaded
        self.answers = answers
        self.prompts = as_list(fields.prompt)
        self.n = fields.n or 1
        # nothing new is asked for: what is written is left off
        self.is_only_echo = fields.max_tokens == 0
        self.head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": fields.model,
        }

    async def start(self) -> None:
        """Queue it. ApiError where it cannot be answered."""
        must_write(self.loaded)
        fields = self.fields
        options = fields.options()
        if fields.logprobs is not None:
            options["logprobs"] = fields.logprobs
            options["prompt_logprobs"] = bool(fields.echo)
        limit = NEW_TOKENS if fields.max_tokens is None else max(1, fields.max_tokens)
        asked = Asked(self.prompts, options, self.n, fields.seed, limit, param="prompt")
        await self.answers.start(asked)

    def _echo(self, index: int) -> str:
        """The text before the answer, where it is asked for."""
        if not self.fields.echo:
            return ""
        prompt = self.prompts[index // self.n]
        if isinstance(prompt, str):
            return prompt
        return self.loaded.model.tokenizer.decode(self.answers.prompts[index // self.n])

    async def whole(self) -> dict[str, Any]:
        """All answers."""
        found = await self.answers.whole()
        choices = [self._choice(index, each) for index, each in enumerate(found)]
        return {**self.head, "choices": choices, "usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        if self.is_only_echo:
            self.answers.new_tokens = 0
        return self.answers.usage

    def _choice(self, index: int, answer: Completion) -> dict[str, Any]:
        echo = self._echo(index)
        text = echo + ("" if self.is_only_echo else answer.text)
        logprobs = None
        if self.fields.logprobs is not None:
            chosen = [] if self.is_only_echo else answer.choices
            first = self.answers.prompts[index // self.n][0]
            known = [*answer.prompt_choices, *chosen]
            offset = 0 if answer.prompt_choices else len(echo)
            logprobs = self.loaded.tokens.completion_logprobs(known, first, offset)
        reason = "length" if self.is_only_echo else answer.finish_reason
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    async def events(self) -> AsyncIterator[str]:
        """What is written, as it comes."""
        offsets: dict[int, int] = {}
        begun = set[int]()
        async for piece in self.answers.pieces():
            index = piece.index
            if self.is_only_echo or self._waits_for_echo(index, begun):
                # what is known of the prompt is told with the first token
                if piece.completion is None:
                    continue
                begun.add(index)
                yield self._event(self._choice(index, piece.completion))
                continue
            yield self._event(self._part(piece, offsets, begun))
        if self.fields.wants_usage:
            yield event({**self.head, "choices": [], "usage": self._usage()})
        yield DONE

    def _waits_for_echo(self, index: int, begun: set[int]) -> bool:
        """Whether log-probabilities of the prompt are told too, which come at the end."""
        return bool(self.fields.echo) and self.fields.logprobs is not None and index not in begun

    def _part(self, piece: Piece, offsets: dict[int, int], begun: set[int]) -> dict[str, Any]:
        index = piece.index
        text = piece.delta.text
        if index not in begun:
            begun.add(index)
            text = self._echo(index) + text
        offset = offsets.get(index, 0)
        offsets[index] = offset + len(text)
        logprobs = None
        if self.fields.logprobs is not None and piece.delta.choices:
            choices = list(piece.delta.choices)
            logprobs = self.loaded.tokens.completion_logprobs(choices, None, offset)
        reason = None if piece.completion is None else piece.completion.finish_reason
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _event(self, choice: dict[str, Any]) -> str:
        return event({**self.head, "choices": [choice]})

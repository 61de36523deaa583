"""`/v1/completions`: takes prompts as texts or token ids; returns their continuations and, with
`echo` and `logprobs`, the log-probabilities of the prompts.
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
NEW_TOKENS = 16  # default of max_tokens, as in OpenAI's API


@router.post("/v1/completions", responses=STREAMED)
async def completions(fields: CompletionFields, request: Request) -> Response:
    """Continue texts or token ids; for an encoder-decoder, generate from sources."""
    fields.check_stream()
    return await answer(fields, request, _Completions)


class _Completions:
    """The work of one call."""

    def __init__(self, fields: CompletionFields, loaded: Loaded, answers: Answers) -> None:
        self.fields = fields
        self.loaded = loaded
        self.answers = answers
        self.prompts = as_list(fields.prompt)
        self.n = fields.n or 1
        # max_tokens=0: the one token that is generated is not returned
        self.is_only_echo = fields.max_tokens == 0
        self.head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": fields.model,
        }

    async def start(self) -> None:
        """Queue the call; raise ApiError if it cannot be answered."""
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
        """Return the prompt's text if `echo` is set, else an empty text."""
        if not self.fields.echo:
            return ""
        prompt = self.prompts[index // self.n]
        if isinstance(prompt, str):
            return prompt
        return self.loaded.model.tokenizer.decode(self.answers.prompts[index // self.n])

    async def whole(self) -> dict[str, Any]:
        """Return all answers."""
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
        """Yield the texts as they are generated."""
        offsets: dict[int, int] = {}
        begun = set[int]()
        async for piece in self.answers.pieces():
            index = piece.index
            if self.is_only_echo or self._waits_for_echo(index, begun):
                # the prompt's log-probabilities are only known with the completion
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
        """Return whether the log-probabilities of the prompt are still to be sent, which come at
        the end.
        """
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

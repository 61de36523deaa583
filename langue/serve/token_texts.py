"""Tokens in log-probabilities: takes token ids; returns each in the form that clients get next to
its log-probability, as text and bytes.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langue.errors import ModelError
from langue.generation.sample import Choice
from langue.text.tokenizers.decoding import decoding_of, token_bytes
from langue.text.tokenizers.tokenizer import Tokenizer

LOWEST = -9999.0  # replaces minus infinity, which JSON does not have


class TokenTexts:
    """The texts of one tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        """size: number of the model's logits."""
        self._tokenizer = tokenizer
        self._size = size

    @cached_property
    def _bytes(self) -> list[bytes] | None:
        """The bytes of each token; None if the decoder does not work token by token."""
        try:
            return token_bytes(self._tokenizer, self._size).later
        except ModelError:
            return None

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token adds to a text; for a token that adds none, such as an end
        token, its name.
        """
        known = self._bytes
        if decoding_of(self._tokenizer).skips(token) or known is None or token >= len(known):
            return self._tokenizer.token(token).encode()
        return known[token]

    def text(self, token: int) -> str:
        """Return the token in the form of OpenAI's completions: `bytes:` if it is part of a
        character.
        """
        raw = self.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def chat_logprobs(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return `choices[].logprobs` of a chat completion."""
        content = []
        for choice in choices:
            top = [self._entry(token, value) for token, value in choice.top]
            content.append({**self._entry(choice.token, choice.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        raw = self.bytes_of(token)
        shown = raw.decode("utf-8", "replace")
        return {"token": shown, "logprob": finite(logprob), "bytes": list(raw)}

    def completion_logprobs(
        self, choices: Sequence[Choice | None], first: int | None, offset: int
    ) -> dict[str, Any]:
        """Return `choices[].logprobs` of a completion.

        first: the first token of the prompt, whose choice is None. offset: number of characters
        before.
        """
        found: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for choice in choices:
            token = choice.token if choice is not None else first
            assert token is not None
            text = self.text(token)
            top = None
            if choice is not None:
                top = self._top_texts(choice)
            found["tokens"].append(text)
            found["token_logprobs"].append(None if choice is None else finite(choice.logprob))
            found["top_logprobs"].append(top)
            found["text_offset"].append(offset)
            offset += len(text)
        return found

    def _top_texts(self, choice: Choice) -> dict[str, float]:
        """Return the texts of the top tokens and of the chosen one; of equal texts, the more
        probable.
        """
        found: dict[str, float] = {}
        for token, value in (*choice.top, (choice.token, choice.logprob)):
            found.setdefault(self.text(token), finite(value))
        return found


def finite(value: float | None) -> float:
    """Return a value that JSON can represent."""
    return LOWEST if value is None or value < LOWEST else value

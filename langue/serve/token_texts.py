"""What arrives: token ids. What leaves: each as clients are shown it beside its log-probability: a
text, and its bytes.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langue.errors import ModelError
from langue.generation.sample import Choice
from langue.text.tokenizers.decoding import decoding_of, token_bytes
from langue.text.tokenizers.tokenizer import Tokenizer

LOWEST = -9999.0  # in the place of minus infinity, which JSON does not have


class TokenTexts:
    """Tokens of one tokenizer, as they are shown one by one."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        """size: tokens that the model has logits for."""
        self._tokenizer = tokenizer
        self._size = size

    @cached_property
    def _bytes(self) -> list[bytes] | None:
        """Of each token; None where its decoder does not go token by token."""
        try:
            return token_bytes(self._tokenizer, self._size).later
        except ModelError:
            return None

    def bytes_of(self, token: int) -> bytes:
        """What it adds to a text; of one that adds nothing, as an end token, its name."""
        known = self._bytes
        if decoding_of(self._tokenizer).skips(token) or known is None or token >= len(known):
            return self._tokenizer.token(token).encode()
        return known[token]

    def text(self, token: int) -> str:
        """As OpenAI's completions write it: `bytes:` where it is a part of a character."""
        raw = self.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def chat_logprobs(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """`choices[].logprobs` of a chat completion."""
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
        """`choices[].logprobs` of a completion. first: the token of a choice that is None, the
        first of a prompt; offset: characters before.
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
                top = self._likeliest(choice)
            found["tokens"].append(text)
            found["token_logprobs"].append(None if choice is None else finite(choice.logprob))
            found["top_logprobs"].append(top)
            found["text_offset"].append(offset)
            offset += len(text)
        return found

    def _likeliest(self, choice: Choice) -> dict[str, float]:
        """The texts of the likeliest tokens and of the chosen one; of equal texts, the likelier."""
        found: dict[str, float] = {}
        for token, value in (*choice.top, (choice.token, choice.logprob)):
            found.setdefault(self.text(token), finite(value))
        return found


def finite(value: float | None) -> float:
    """As JSON has it."""
    return LOWEST if value is None or value < LOWEST else value

"""What arrives: prompts, conversations or sources. What leaves: what a language model writes, as
its own generation config says where the user does not."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from langue.generation.sample import Sampling, generate
from langue.hub.checkpoint import Checkpoint
from langue.hub.generation_config import GenerationConfig
from langue.model.language_model import LanguageModel
from langue.progress import warn
from langue.runs.inputs import Inputs, check_kind, is_conversation, is_pair, too_long
from langue.text.tokenizers.tokenizer import Tokenizer


class TextGenerator:
    """Writes on from prompts, in the kind that they are given in."""

    def __init__(self, checkpoint: Checkpoint, language: LanguageModel, inputs: Inputs) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
        self.language = language
        self.inputs = inputs
        self._has_warned = False

    def generate(
        self,
        items: list[Any],
        sampling: Sampling,
        tokenizer: Tokenizer | None = None,
        target: str | None = None,
    ) -> list[Any]:
        """Strings for strings, pairs and conversations, token ids for token ids; items: at least
        one.

        tokenizer: the model's own in the languages that are asked for; target: the language to
        write, where it was asked for.
        """
        tokenizer = tokenizer or self.tokenizer
        config = self._in_language(self.generation, tokenizer, target)
        ids = self._prompt_ids(items, tokenizer)
        self._warn_of_generation(config)
        written = generate(self.language, ids, sampling, config)
        is_decoder = self.config.architecture == "decoder"
        contexts = [len(part) if is_decoder else 1 for part in ids]
        limits = [sampling.max_tokens or config.new_tokens(length) for length in contexts]
        self._warn_of_positions(contexts, written, limits)
        if (
            not isinstance(items[0], str)
            and not is_pair(items[0])
            and not is_conversation(items[0])
        ):
            return written
        if not is_decoder:
            return [self.tokenizer.decode(tokens) for tokens in written]
        return [
            self.tokenizer.continuation(part, new)[1]
            for part, new in zip(ids, written, strict=True)
        ]

    def _in_language(
        self, config: GenerationConfig, tokenizer: Tokenizer, target: str | None
    ) -> GenerationConfig:
        """The config with the tokens that a decoder starts with and writes first: those of the
        language that is asked for; else what the model's config says, or, where it says nothing,
        its tokenizer's."""
        start = config.start
        first = config.forced_bos
        unsaid = "decoder_start_token_id" not in self.checkpoint.published
        if tokenizer.decoder_start is not None and (target or unsaid):
            start = tokenizer.decoder_start
        has_codes = tokenizer.decoder_start is not None or tokenizer.first_token is not None
        if has_codes and (target or first is None):
            first = tokenizer.first_token
        return replace(config, start=start, forced_bos=first)

    def _prompt_ids(self, items: list[Any], tokenizer: Tokenizer) -> list[list[int]]:
        """Token ids to go on from, or of the sources of an encoder-decoder."""
        check_kind(items)
        is_decoder = self.config.architecture == "decoder"
        if is_conversation(items[0]):
            encode = self.tokenizer.backend.encode  # the template has written the special tokens
            texts = [self.tokenizer.chat(messages) for messages in items]
            ids = [encode(text, add_special_tokens=False).ids for text in texts]
            lengths = np.asarray([len(part) for part in ids])
            if lengths.max() > self.inputs.room.tokens:
                raise too_long(lengths, self.inputs.room, self.config.longest)
        else:
            examples = self.inputs.examples(items, prompt=is_decoder, tokenizer=tokenizer)
            ids = [part.tolist() for part in np.split(examples.tokens, examples.starts[1:-1])]
        begin = self.checkpoint.published.get("bos_token_id")
        if is_decoder and isinstance(begin, int):  # from nothing: as a text begins
            ids = [part or [begin] for part in ids]
        return ids

    @cached_property
    def generation(self) -> GenerationConfig:
        """The checkpoint's, whose texts end also where its chat template ends an answer."""
        end = self.checkpoint.ends
        token = self.tokenizer.end_of_turn()
        return replace(self.checkpoint.generation, end=end if token is None else end | {token})

    def _warn_of_generation(self, config: GenerationConfig) -> None:
        """Once: what the model's generation config says in vain."""
        if config.not_followed and not self._has_warned:
            said = ", ".join(config.not_followed)
            warn(
                f"{self.checkpoint.folder}: its generation config says {said}, which is not"
                " followed here"
            )
        self._has_warned = True

    def _warn_of_positions(
        self, contexts: list[int], written: list[list[int]], limits: list[int]
    ) -> None:
        """Where texts ended since the model has no more positions."""
        full = self.config.longest + 1  # the last token is written and never read
        rows = zip(contexts, written, limits, strict=True)
        count = sum(length + len(new) == full and len(new) < limit for length, new, limit in rows)
        if count:
            are = ("answer" if len(written) == 1 else "answers") + (
                " ends" if count == 1 else " end"
            )
            where = f"at the model's last position, {self.config.longest:,}"
            warn(
                f"{count:,} of {len(written):,} {are} {where}, before max_tokens and before an end"
                " token"
            )

"""What arrives: prompts, conversations or sources. What leaves: what a language model writes, as its own
generation config says where the user does not."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from langue.generate.sample import Sampling, generate
from langue.hub.checkpoint import Checkpoint
from langue.hub.generation_config import GenerationConfig
from langue.model.language import LanguageModel
from langue.text.chat import end_of_turn
from langue.verbs.inputs import Inputs, check_kind, is_conversation, is_pair, too_long
from langue.verbs.progress import warn


class TextGenerator:
    """Writes on from prompts, in the kind that they are given in."""

    def __init__(self, checkpoint: Checkpoint, language: LanguageModel, inputs: Inputs) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
        self.language = language
        self.inputs = inputs
        self._has_warned = False

    def generate(self, items: list[Any], sampling: Sampling) -> list[Any]:
        """Strings for strings, pairs and conversations, token ids for token ids; items: at least one."""
        config = self.generation
        ids = self._prompt_ids(items)
        self._warn_of_generation(config)
        written = generate(self.language, ids, sampling, config)
        is_decoder = self.config.architecture == "decoder"
        contexts = [len(part) if is_decoder else 1 for part in ids]
        limits = [sampling.max_tokens or config.new_tokens(length) for length in contexts]
        self._warn_of_positions(contexts, written, limits)
        if not isinstance(items[0], str) and not is_pair(items[0]) and not is_conversation(items[0]):
            return written
        if not is_decoder:
            return [self.tokenizer.decode(tokens) for tokens in written]
        return [self.tokenizer.continuation(part, new)[1] for part, new in zip(ids, written, strict=True)]

    def _prompt_ids(self, items: list[Any]) -> list[list[int]]:
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
            examples = self.inputs.examples(items, prompt=is_decoder)
            ids = [part.tolist() for part in np.split(examples.tokens, examples.starts[1:-1])]
        begin = self.checkpoint.published.get("bos_token_id")
        if is_decoder and isinstance(begin, int):  # from nothing: as a text begins
            ids = [part or [begin] for part in ids]
        return ids

    @cached_property
    def generation(self) -> GenerationConfig:
        """The checkpoint's, whose texts end also where its chat template ends an answer."""
        tokenizer = self.tokenizer
        added = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
        turn = end_of_turn(tokenizer.folder, tokenizer.options, added)
        end = self.checkpoint.ends
        token = None if turn is None else tokenizer.backend.token_to_id(turn)
        return replace(self.checkpoint.generation, end=end if token is None else end | {token})

    def _warn_of_generation(self, config: GenerationConfig) -> None:
        """Once: what the model's generation config says in vain."""
        if config.not_followed and not self._has_warned:
            said = ", ".join(config.not_followed)
            warn(f"{self.checkpoint.folder}: its generation config says {said}, which is not followed here")
        self._has_warned = True

    def _warn_of_positions(self, contexts: list[int], written: list[list[int]], limits: list[int]) -> None:
        """Where texts ended since the model has no more positions."""
        full = self.config.longest + 1  # the last token is written and never read
        rows = zip(contexts, written, limits, strict=True)
        count = sum(length + len(new) == full and len(new) < limit for length, new, limit in rows)
        if count:
            are = ("answer" if len(written) == 1 else "answers") + (" ends" if count == 1 else " end")
            where = f"at the model's last position, {self.config.longest:,}"
            warn(f"{count:,} of {len(written):,} {are} {where}, before max_tokens and before an end token")

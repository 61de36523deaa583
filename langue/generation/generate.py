"""Batch generation: takes a language model and prompts as token ids; returns the generated tokens
of each prompt.
"""

from collections import Counter
from collections.abc import Sequence

import torch

from langue.generation.engine import Engine
from langue.generation.request import Request
from langue.generation.sample import Sampling
from langue.hub.generation_config import GenerationConfig
from langue.model.language_model import LanguageModel

UNCONSTRAINED = GenerationConfig()


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    config: GenerationConfig = UNCONSTRAINED,
    dtype: torch.dtype = torch.float32,
) -> list[list[int]]:
    """Return the tokens generated after each prompt, without the `config.end` token that ended it.

    For an encoder-decoder the prompts are the sources, and the target starts with `config.start`.
    If tokens are sampled, a prompt that occurs twice gets two different continuations. Raises the
    error of the first request that fails.
    """
    if not prompts:
        return []
    engine = Engine(model, dtype=dtype)
    ids = [
        engine.submit(Request(prompt, sampling, config, sample=sample))
        for prompt, sample in zip(prompts, occurrences(prompts), strict=True)
    ]
    engine.run()
    answers = [engine.collect(id) for id in ids]
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    return [answer.tokens for answer in answers]


def occurrences(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return, for each prompt, how many earlier prompts are equal to it."""
    seen: Counter[tuple[int, ...]] = Counter()
    found = []
    for prompt in prompts:
        key = tuple(prompt)
        found.append(seen[key])
        seen[key] += 1
    return found

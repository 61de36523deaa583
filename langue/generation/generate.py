"""What arrives: a language model and prompts as token ids. What leaves: the tokens that it writes
after each.
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
    """The tokens after each prompt, without the one of `config.end` that ended it.

    For an encoder-decoder the prompts are the sources, and the target begins with `config.start`.
    A prompt that comes twice is gone on from in two ways, where tokens are drawn. The first request
    that fails is an error.
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
    """How many of the prompts before each are the same."""
    seen: Counter[tuple[int, ...]] = Counter()
    found = []
    for prompt in prompts:
        key = tuple(prompt)
        found.append(seen[key])
        seen[key] += 1
    return found

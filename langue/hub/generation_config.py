"""Read generation_config.json, or the same keys of an older model's config.json.

The result, `GenerationConfig`, says how long a text may be, when it ends, and how its tokens are
chosen. Keys, defaults and their meaning are those of `transformers` 5 (`GenerationConfig`). A value
of the wrong type is an error; settings that are not implemented are listed, so that they can be
reported.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langue.errors import ModelError

FILE = "generation_config.json"
DEFAULT_NEW_TOKENS = 64  # if neither the caller nor the model gives a number
DEFAULT_TOP_K = 50  # the default of `transformers` for sampling
OLD_MAX_LENGTH = 20  # the default that `transformers` 4 and before wrote into config.json

# Taken from config.json if generation_config.json lacks them, because no text would end without
# them.
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")

FOLLOWED = (
    *("max_new_tokens", "max_length", "min_new_tokens", "min_length"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "sequence_bias"),
    *("num_beams", "length_penalty", "early_stopping"),
    *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens"),
    *("begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
)

# Settings that are not implemented, with the value that disables them.
NOT_FOLLOWED: dict[str, Any] = {
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "top_h": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "constraints": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "watermarking_config": None,
    "token_healing": False,
    "dola_layers": None,
    "remove_invalid_values": False,
    "num_return_sequences": 1,
    "stop_strings": None,
    "max_time": None,
}

# Settings that do not change the generated text: speed, caches, return values.
HARMLESS = (
    *("renormalize_logits", "use_cache", "use_mtp"),
    *("cache_implementation", "cache_config", "max_cache_len", "return_legacy_cache", "low_memory"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits"),
    *("return_dict_in_generate", "is_assistant", "num_assistant_tokens", "speculation_type"),
    *("num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_early_exit"),
    *("prompt_lookup_num_tokens", "max_matching_ngram_size", "assistant_lookbehind"),
    *("target_lookbehind", "assistant_ensemble_weight", "compile_config", "disable_compile"),
    *("continuous_batching_config", "prefill_chunk_size", "transformers_version", "_commit_hash"),
    *("_from_model_config", "_original_object_hash", "auto_map", "cls_token_id", "sep_token_id"),
)


@dataclass(frozen=True)
class GenerationConfig:
    """How a model generates text; the defaults change no logits and never end a text."""

    end: frozenset[int] = frozenset()  # eos_token_id: the tokens that end a text
    start: int = 0  # decoder_start_token_id: the first token of an encoder-decoder's target
    max_new_tokens: int | None = None
    # including the prompt; in an encoder-decoder including the start token
    max_length: int | None = None
    min_new_tokens: int = 0
    min_length: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0  # 0: none
    eta_cutoff: float = 0.0
    # (token sequence, bias of its last token)
    sequence_bias: tuple[tuple[tuple[int, ...], float], ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()  # only at the first new token
    forced_bos: int | None = None  # the token after the first one of the context
    # one of these is forced as the last token that fits
    forced_eos: tuple[int, ...] = ()
    num_beams: int = 1
    length_penalty: float = 1.0  # of beam search
    early_stopping: bool | str = False  # of beam search: True, False or "never"
    # unsupported settings of the model, such as "guidance_scale = 2"
    not_followed: tuple[str, ...] = ()

    def new_tokens(self, context: int) -> int:
        """Return the maximum number of new tokens after a context of this many tokens."""
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self.max_length is None:
            return DEFAULT_NEW_TOKENS
        if self.max_length <= context:
            raise ModelError(
                f"the prompt has {context:,} tokens, and the model's generation_config.json says "
                f"max_length = {self.max_length:,} of prompt and answer together",
                do="give max_tokens, or shorten the prompt",
            )
        return self.max_length - context


def generation_of_config(published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generation settings in a config.json, as models from before generation_config.json
    have them.
    """
    known = (*FOLLOWED, *NOT_FOLLOWED)
    found = {key: published[key] for key in known if published.get(key) is not None}
    if found.get("max_length") == OLD_MAX_LENGTH:
        del found["max_length"]
    return found


def saved_generation(published: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generation_config.json of a model to be saved; empty if it had none."""
    if not written:
        return {}
    special = {key: published[key] for key in SPECIAL if published.get(key) is not None}
    return special | dict(written)


def read_generation(
    written: Mapping[str, Any], published: Mapping[str, Any], vocabulary: int, where: str
) -> GenerationConfig:
    """Return the generation settings of a model.

    written: generation_config.json, or the same keys of config.json. published: config.json.
    """
    reader = _Reader(written, vocabulary, where)
    special = _Reader({**published, **written}, vocabulary, where)
    fixed = [special.tokens(key) for key in SPECIAL if key != "eos_token_id"]
    bos, pad, decoder_start = (tokens[0] if tokens else None for tokens in fixed)
    starts = [token for token in (decoder_start, bos, pad) if token is not None]
    return GenerationConfig(
        end=frozenset(special.tokens("eos_token_id")),
        start=starts[0] if starts else 0,
        max_new_tokens=reader.whole("max_new_tokens", None, least=1),
        max_length=reader.whole("max_length", None, least=1),
        min_new_tokens=reader.whole("min_new_tokens", 0) or 0,
        min_length=reader.whole("min_length", 0) or 0,
        do_sample=reader.flag("do_sample"),
        temperature=reader.number("temperature", 1.0, least=0.0) or 0.0,
        top_k=reader.whole("top_k", None),
        top_p=reader.number("top_p", None, least=1e-12, most=1.0),
        min_p=reader.number("min_p", None, least=0.0, most=1.0) or 0.0,
        typical_p=reader.number("typical_p", None, least=1e-12, most=1.0) or 1.0,
        epsilon_cutoff=reader.cutoff("epsilon_cutoff"),
        eta_cutoff=reader.cutoff("eta_cutoff"),
        sequence_bias=reader.biases("sequence_bias"),
        repetition_penalty=reader.number("repetition_penalty", 1.0, least=1e-12) or 1.0,
        no_repeat_ngram_size=reader.whole("no_repeat_ngram_size", 0) or 0,
        bad_words=reader.words("bad_words_ids"),
        suppress=reader.tokens("suppress_tokens"),
        begin_suppress=reader.tokens("begin_suppress_tokens"),
        forced_bos=reader.forced("forced_bos_token_id")[0],
        forced_eos=tuple(t for t in reader.forced("forced_eos_token_id") if t is not None),
        num_beams=reader.whole("num_beams", 1, least=1) or 1,
        length_penalty=_length_penalty(reader),
        early_stopping=reader.one_of("early_stopping", (False, True, "never")),
        not_followed=_not_followed(written),
    )


def _length_penalty(reader: "_Reader") -> float:
    found = reader.number("length_penalty", 1.0, least=-math.inf)
    return 1.0 if found is None else found


def _not_followed(written: Mapping[str, Any]) -> tuple[str, ...]:
    """Return all keys, known or unknown, that would change the text and are not implemented."""
    found = []
    for key, value in written.items():
        known = key in FOLLOWED or key in HARMLESS or key in SPECIAL
        neutral = NOT_FOLLOWED.get(key)
        if known or value is None or value == neutral or value in ([], {}):
            continue
        text = str(value)
        found.append(f"{key} = {text if len(text) <= 40 else text[:40] + ' ...'}")
    beams = written.get("num_beams")
    if written.get("do_sample") and type(beams) is int and beams > 1:
        found.append(f"num_beams = {beams} of a text that is drawn")
    return tuple(found)


class _Reader:
    """Typed access to the values of a file; a ModelError names the key whose value has the wrong
    type.
    """

    def __init__(self, content: Mapping[str, Any], vocabulary: int, where: str) -> None:
        self.content = content
        self.vocabulary = vocabulary
        self.where = where

    def _refuse(self, key: str, expected: str) -> ModelError:
        what = f"{key} = {self.content.get(key)!r} is not {expected}"
        return ModelError(what, where=self.where, do="correct it, or take it out")

    def whole(self, key: str, default: int | None, least: int = 0) -> int | None:
        value = self.content.get(key)
        if value is None:
            return default
        if type(value) is not int or value < least:
            raise self._refuse(key, f"a whole number of at least {least}")
        return value

    def number(
        self, key: str, default: float | None, least: float, most: float = math.inf
    ) -> float | None:
        value = self.content.get(key)
        if value is None:
            return default
        is_number = type(value) in (int, float) and math.isfinite(value)
        if not is_number or not least <= value <= most:
            raise self._refuse(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def cutoff(self, key: str) -> float:
        """Return a probability; as in the reference, 1 disables the cutoff like 0."""
        value = self.number(key, None, least=0.0, most=1.0)
        return 0.0 if value is None or value == 1 else value

    def one_of(self, key: str, values: tuple[Any, ...]) -> Any:
        """Return one of the values, the first if the key is absent."""
        value = self.content.get(key)
        if value is None:
            return values[0]
        if not any(type(value) is type(each) and value == each for each in values):
            raise self._refuse(key, f"one of {', '.join(map(str, values))}")
        return value

    def flag(self, key: str) -> bool:
        value = self.content.get(key)
        if value not in (None, True, False):
            raise self._refuse(key, "true or false")
        return bool(value)

    def tokens(self, key: str) -> tuple[int, ...]:
        """Return one token or a list of tokens; tokens outside the vocabulary are dropped, as they
        never occur.
        """
        value = self.content.get(key)
        if value is None:
            return ()
        listed = value if isinstance(value, list) else [value]
        if not all(type(token) is int for token in listed):
            raise self._refuse(key, "a token id, or a list of them")
        return tuple(token for token in listed if 0 <= token < self.vocabulary)

    def forced(self, key: str) -> tuple[int | None, ...]:
        """Return the tokens like `tokens`, but refuse tokens outside the vocabulary; (None,) if the
        key is absent.
        """
        value = self.content.get(key)
        if value is None:
            return (None,)
        found = self.tokens(key)
        listed = value if isinstance(value, list) else [value]
        if not found or len(found) != len(listed):
            raise self._refuse(
                key, f"a token of the model, whose vocabulary has {self.vocabulary:,}"
            )
        return found

    def words(self, key: str) -> tuple[tuple[int, ...], ...]:
        """Return a list of token sequences, without those that contain a token outside the
        vocabulary.
        """
        value = self.content.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self._refuse(key, "a list")
        words = []
        for word in value:
            if not isinstance(word, list) or not word or not all(type(t) is int for t in word):
                raise self._refuse(key, "a list of lists of token ids")
            if all(0 <= token < self.vocabulary for token in word):
                words.append(tuple(word))
        return tuple(words)

    def biases(self, key: str) -> tuple[tuple[tuple[int, ...], float], ...]:
        """Return pairs of a token sequence and a bias, without those that contain a token outside
        the vocabulary.
        """
        value = self.content.get(key)
        if value is None:
            return ()
        wanted = "a list of pairs: token ids, and a number of at most 1e6"
        if not isinstance(value, list):
            raise self._refuse(key, wanted)
        found = []
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2:
                raise self._refuse(key, wanted)
            word, bias = pair
            is_word = isinstance(word, list) and word and all(type(t) is int for t in word)
            if not is_word or type(bias) not in (int, float) or not -math.inf <= bias <= 1e6:
                raise self._refuse(key, wanted)
            if all(0 <= token < self.vocabulary for token in word):
                found.append((tuple(word), float(bias)))
        return tuple(found)

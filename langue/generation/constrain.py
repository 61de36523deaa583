"""Constrained decoding: takes a JSON Schema, a regular expression, a list of choices or a grammar,
and the tokens of a text one by one; returns which tokens may come next, so that the finished text
is valid.

The work is done by llguidance: derivatives of regular expressions, and an Earley parser over a trie
of the vocabulary. The bytes of each token come from langue's own tokenizer, since the library only
knows some kinds of decoders. No tokens are forced: every token that can lead to a valid text is
allowed, and the model chooses.
"""

import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langue.child import Child, Gone, NotStarted
from langue.errors import ModelError
from langue.generation.grammar import FORMS, compile_grammar, one_line, vocabulary_of
from langue.generation.grammar_worker import MEMORY, pack
from langue.text.tokenizers.decoding import decoding_of, token_bytes
from langue.text.tokenizers.tokenizer import Tokenizer

BUDGET = 2.0  # seconds for a grammar to compile and compute its first mask
KEPT = 32  # compiled grammars in the cache
MOST_BYTES = 4_000_000  # largest schema, expression, list of choices or grammar


class Grammars:
    """Compiler of constraints for one tokenizer, with a cache.

    Each constraint is first compiled in a separate process, which is killed after BUDGET seconds or
    if it takes too much memory. The process starts with the first constraint and is reused.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end: frozenset[int]) -> None:
        """vocabulary: number of the model's logits. end: the end-of-text tokens.

        Raises ModelError if llguidance is not installed.
        """
        try:
            import llguidance  # noqa: F401
        except ImportError:
            raise ModelError(
                "constrained output needs the package llguidance",
                do="pip install 'langue[generate]'",
            ) from None
        self._tokenizer = tokenizer
        self._size = vocabulary
        self._end = frozenset(token for token in end if 0 <= token < vocabulary)
        self._vocabularies: dict[bool, _Vocabulary] = {}
        self._compiled: OrderedDict[tuple[bool, bytes], Any] = OrderedDict()
        self._lock = threading.Lock()
        self._trials: _Trials | None = None

    def compile(
        self,
        *,
        json_schema: Any = None,
        regex: str | None = None,
        choices: Sequence[str] | None = None,
        grammar: str | None = None,
        context: Sequence[int] | None = None,
    ) -> "Constraint":
        """Return a constraint on the text after a context, from exactly one of the four forms.

        json_schema: an object, or its JSON. regex: matches the whole text; \\d, \\w and \\s mean
        ASCII characters, as in JSON Schema. choices: the allowed texts. grammar: in llguidance's
        dialect of Lark. context: a decoder's prompt, as in `TextStream`; None if the text is
        decoded on its own. Raises ModelError if the constraint is invalid, unsupported, or takes
        too long.
        """
        given = dict(zip(FORMS, (json_schema, regex, choices, grammar), strict=True))
        named = [name for name, value in given.items() if value is not None]
        if len(named) != 1:
            which = ", ".join(named) or "none"
            raise ModelError(
                f"a constraint is one of json_schema, regex, choices and grammar, not {which}",
                do="give exactly one",
            )
        request = _as_json(named[0], given[named[0]])
        decoding = decoding_of(self._tokenizer)
        is_first = all(decoding.skips(token) for token in context or ())
        with self._lock:
            vocabulary = self._vocabulary(is_first)
            matcher = self._matcher(named[0], request, vocabulary).deep_copy()
        return Constraint(matcher, vocabulary, self._end)

    def close(self) -> None:
        """Stop the trial process; the next constraint starts a new one."""
        with self._lock:
            if self._trials is not None:
                self._trials.child.close()

    def _vocabulary(self, is_first: bool) -> "_Vocabulary":
        if is_first not in self._vocabularies:
            made = _Vocabulary(self._tokenizer, self._size, self._end, is_first)
            self._vocabularies[is_first] = made
        return self._vocabularies[is_first]

    def _matcher(self, form: str, request: bytes, vocabulary: "_Vocabulary") -> Any:
        key = (vocabulary.is_first, request)
        if key not in self._compiled:
            if self._trials is None:  # with all byte forms of the tokens, which take the longest
                self._trials = _Trials(self._vocabulary(is_first=True).tokens)
            lark = self._trials.run(form, request)
            self._compiled[key] = compile_grammar(vocabulary.library, form, lark)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key]


class Constraint:
    """The state of one text in its grammar."""

    def __init__(self, matcher: Any, vocabulary: "_Vocabulary", end: frozenset[int]) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._end = end
        self._state = "first" if vocabulary.is_first else "later"
        self._has_ended = False

    @property
    def is_finished(self) -> bool:
        """Whether the text is complete, so that only an end token may follow."""
        return self._has_ended or bool(self._matcher.is_stopped())

    def allowed(self) -> Tensor:
        """Return the mask (V,) of the tokens that may come next; it has the end tokens exactly if
        the text may end here.

        Raises ModelError if no token is allowed, because the grammar became too complex or asks for
        characters that the tokenizer does not have.
        """
        size = self._vocabulary.size
        if self.is_finished:
            allowed = torch.zeros(size, dtype=torch.bool)
            allowed[list(self._end)] = True
            return allowed
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        why = self._matcher.get_error()
        if why and not why.startswith("NoExtension"):
            what = f"the constraint cannot be followed further: {one_line(why)}"
            raise ModelError(what, do="make it simpler")
        bits = np.unpackbits(mask, bitorder="little")
        tokens, places = self._vocabulary.asked[self._state]
        chosen = bits[:size].copy()
        chosen[tokens] = bits[places]
        allowed = torch.from_numpy(chosen.view(bool))
        may_end = not why and bool(self._matcher.is_accepting())
        allowed[list(self._end)] = may_end
        if why or not may_end and not allowed.any():
            raise ModelError(
                "the constraint asks for characters that the tokenizer has no token for",
                do="allow others too, or take another model",
            )
        return allowed

    def accept(self, token: int) -> None:
        """Advance by a token; raise ModelError if it is not allowed here."""
        if token in self._end:
            if not self.is_finished and not self._matcher.is_accepting():
                raise ModelError(f"token {token} ends the text where its constraint does not")
            self._has_ended = True
            return
        known = 0 <= token < self._vocabulary.size
        if self.is_finished or not known:
            raise ModelError(f"token {token} is not allowed by the constraint")
        place = self._vocabulary.places[self._state].get(token, token)
        if not self._matcher.consume_token(place):
            raise ModelError(f"token {token} is not allowed by the constraint")
        ends_word = token in self._vocabulary.ends_word
        self._state = "after_word" if ends_word else "later"

    def fork(self) -> "Constraint":
        """Return an independent copy in the same state."""
        other = Constraint(self._matcher.deep_copy(), self._vocabulary, self._end)
        other._state = self._state
        other._has_ended = self._has_ended
        return other


class _Vocabulary:
    """The vocabulary in the form that llguidance takes: every token once for each byte form that it
    can have in a text.

    places: for each state, the library's index of each token that has another form there. asked:
    for each state, two arrays, tokens and the indices whose bytes must be valid for them to be
    allowed. The two differ if a token's space is only written once another token follows: such a
    token is allowed where its bytes with the space are.
    """

    def __init__(
        self, tokenizer: Tokenizer, size: int, end: frozenset[int], is_first: bool
    ) -> None:
        found = token_bytes(tokenizer, size)
        self.size = size
        self.is_first = is_first
        self.ends_word = found.ends_word
        self._end = end
        self.tokens = [b"" if index in end else raw for index, raw in enumerate(found.later)]
        forms = {"later": found.later}
        if is_first:
            forms["first"] = found.first
        if found.after_word is not None:
            forms["after_word"] = found.after_word
        self.places = {state: self._add(raw) for state, raw in forms.items()}
        asked = self.places
        if found.ends_word:
            asked = {state: self._add(self._with_space(raw)) for state, raw in forms.items()}
        self.asked = {state: _as_arrays(numbers) for state, numbers in asked.items()}
        self.library = vocabulary_of(self.tokens)

    def _with_space(self, forms: Sequence[bytes]) -> list[bytes]:
        return [raw + b" " if index in self.ends_word else raw for index, raw in enumerate(forms)]

    def _add(self, forms: Sequence[bytes]) -> dict[int, int]:
        """Append the tokens whose bytes differ from the default form; return their new indices."""
        places = dict[int, int]()
        for index, raw in enumerate(forms):
            if index not in self._end and raw != self.tokens[index]:
                places[index] = len(self.tokens)
                self.tokens.append(raw)
        return places


def _as_arrays(numbers: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array([*numbers], np.int64), np.array([*numbers.values()], np.int64)


class _Trials:
    """Compilation of untrusted grammars, in a process that is killed if one takes too long."""

    def __init__(self, tokens: Sequence[bytes], memory: int = MEMORY) -> None:
        """memory: limit in bytes for all constraints of the process together."""
        self.child = Child("langue.generation.grammar_worker", memory, pack(tokens))

    def run(self, form: str, request: bytes) -> str:
        """Return the constraint as a grammar that compiles; raise ModelError if it does not, or
        takes too much time or memory.
        """
        try:
            answer = self.child.ask(request, BUDGET)
        except Gone:
            what = "it takes too much memory, or is nested too deeply"
            raise ModelError(what, where=form, do="make it simpler") from None
        except NotStarted:
            raise ModelError(
                "the process that tries grammars does not start",
                do=f"see why {sys.executable} cannot be run with llguidance",
            ) from None
        if answer is None:
            what = f"it takes more than {BUDGET:g} seconds to compile"
            raise ModelError(what, where=form, do="make it simpler")
        found: dict[str, str] = json.loads(answer)
        if "lark" not in found:
            raise ModelError(found["what"], where=found["where"], do=found["do"])
        return found["lark"]


def _as_json(form: str, value: Any) -> bytes:
    """Encode the constraint as a message; raise ModelError if it is not JSON, or too large."""
    try:
        request = json.dumps([form, value], allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelError(why, where=form, do="give what JSON can hold") from None
    if len(request) > MOST_BYTES:
        what = f"{len(request):,} bytes are more than are compiled, {MOST_BYTES:,}"
        raise ModelError(what, where=form, do="make it simpler")
    return request

"""What arrives: a JSON Schema, a regular expression, a list of choices or a grammar, and tokens one
at a time. What leaves: which tokens may come next, so that the text is valid when it ends.

llguidance does it: derivatives of regular expressions and an Earley parser over a trie of the
vocabulary. What its tokens are in bytes is found by our own tokenizer, for every kind of decoder,
since only some kinds are known to the library. Nothing is forced: every token that can go on to a
valid text is allowed, and the model chooses.
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

BUDGET = 2.0  # seconds in which a grammar compiles and gives its first mask, or is refused
KEPT = 32  # compiled grammars that are kept
MOST_BYTES = 4_000_000  # of a schema, an expression, choices or a grammar


class Grammars:
    """Compiles constraints for one tokenizer, and keeps those that it compiled.

    Each is tried first in a process of its own, which is killed after BUDGET seconds or where it
    takes too much memory. The process starts with the first constraint and stays.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end: frozenset[int]) -> None:
        """vocabulary: tokens that the model has logits for; end: those that end a text.

        ModelError where llguidance is not installed.
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
        """A constraint on the text that follows a context: exactly one of the four.

        json_schema: an object, or its JSON. regex: what the whole text matches; \\d, \\w and \\s
        mean ASCII characters, as in JSON Schema. choices: the texts that are allowed. grammar: in
        llguidance's dialect of Lark. context: a decoder's prompt as for `TextStream`; None where
        the text is decoded alone. ModelError where it cannot be followed, or takes too long.
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
        """End the process that tries grammars; the next constraint starts another."""
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
            if self._trials is None:  # with all forms of tokens, which take longest
                self._trials = _Trials(self._vocabulary(is_first=True).tokens)
            lark = self._trials.run(form, request)
            self._compiled[key] = compile_grammar(vocabulary.library, form, lark)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key]


class Constraint:
    """Where one text stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary: "_Vocabulary", end: frozenset[int]) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._end = end
        self._state = "first" if vocabulary.is_first else "later"
        self._has_ended = False

    @property
    def is_finished(self) -> bool:
        """Whether the text is complete, and nothing but an end token may follow."""
        return self._has_ended or bool(self._matcher.is_stopped())

    def allowed(self) -> Tensor:
        """(V,) bool: the tokens that may come next; end tokens exactly where the text may end.

        ModelError where there is none: the grammar became too complex on the way, or asks for
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
        """Go on with a token. ModelError where it is not allowed here."""
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
        """A second one that stands at the same place and goes its own way."""
        other = Constraint(self._matcher.deep_copy(), self._vocabulary, self._end)
        other._state = self._state
        other._has_ended = self._has_ended
        return other


class _Vocabulary:
    """The tokens as the library sees them: each once for every form that it has in a text.

    places: by state, the library's number of each token that has another form there. asked: by
    state, two arrays, tokens and the numbers whose bytes must be valid for them to be allowed. The
    two differ where a token's space is written only once another follows: it is allowed where that
    space is.
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
            asked = {state: self._add(self._spaced(raw)) for state, raw in forms.items()}
        self.asked = {state: _as_arrays(numbers) for state, numbers in asked.items()}
        self.library = vocabulary_of(self.tokens)

    def _spaced(self, forms: Sequence[bytes]) -> list[bytes]:
        return [raw + b" " if index in self.ends_word else raw for index, raw in enumerate(forms)]

    def _add(self, forms: Sequence[bytes]) -> dict[int, int]:
        """Put the tokens behind the others that have another form than there."""
        places = dict[int, int]()
        for index, raw in enumerate(forms):
            if index not in self._end and raw != self.tokens[index]:
                places[index] = len(self.tokens)
                self.tokens.append(raw)
        return places


def _as_arrays(numbers: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array([*numbers], np.int64), np.array([*numbers.values()], np.int64)


class _Trials:
    """Compiles grammars on trial, in a process that is killed where one takes too long."""

    def __init__(self, tokens: Sequence[bytes], memory: int = MEMORY) -> None:
        """memory: bytes that constraints may take, all that are tried together."""
        self.child = Child("langue.generation.grammar_worker", memory, pack(tokens))

    def run(self, form: str, request: bytes) -> str:
        """The constraint as a grammar that compiles. ModelError where it does not, or takes too
        much time or memory.
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
    """The constraint as a message. ModelError where it is no JSON, or longer than any in use."""
    try:
        request = json.dumps([form, value], allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelError(why, where=form, do="give what JSON can hold") from None
    if len(request) > MOST_BYTES:
        what = f"{len(request):,} bytes are more than are compiled, {MOST_BYTES:,}"
        raise ModelError(what, where=form, do="make it simpler")
    return request

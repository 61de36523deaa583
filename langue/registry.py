"""Lazy registries: tables of names whose objects are imported when they are first requested."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from operator import attrgetter
from typing import TypeVar, cast

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A table of lazily imported objects.

    places: name -> "module:attribute", with the module relative to langue. finish: called with name
    and object before the object is returned for the first time; its result is returned instead.

    Membership tests and iteration over names import nothing; `values` and `items` import
    everything.
    """

    def __init__(
        self, places: Mapping[str, str], finish: Callable[[str, T], T] | None = None
    ) -> None:
        self._places = dict(places)
        self._finish = finish
        self._found: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._found:
            module, _, attribute = self._places[name].partition(":")
            found = cast(T, attrgetter(attribute)(import_module(f"langue.{module}")))
            self._found[name] = found if self._finish is None else self._finish(name, found)
        return self._found[name]

    def __setitem__(self, name: str, found: T) -> None:
        """Register an existing object, such as a family of one's own."""
        self._places[name] = ""
        self._found[name] = found

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._found.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

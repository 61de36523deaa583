"""What arrives: names and where in the package the things behind them are. What leaves: the things,
each imported when it is first asked for, so that a name costs nothing until it is used.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from operator import attrgetter
from typing import TypeVar, cast

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A table of names. places: name -> "module:attribute", the module within langue; finish: what
    is done to a thing, by its name, before it is given for the first time.

    Asking whether a name is there, or going through the names, imports nothing; `values` and
    `items` import all.
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
        """Register a thing that is there already, such as a family of one's own."""
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

"""What arrives: names and where in the package the things behind them are. What leaves: the things,
each imported when it is first asked for, so that a name costs nothing until it is used."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TypeVar, cast

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A table of names. places: name -> "module:attribute", the module within langue.

    Asking whether a name is there, or going through the names, imports nothing; `values` and
    `items` import all.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> T:
        module, _, attribute = self._places[name].partition(":")
        return cast(T, getattr(import_module(f"langue.{module}"), attribute))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

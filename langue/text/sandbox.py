"""Rendering of Jinja templates that others wrote.

A template is treated as hostile: it runs in Jinja's sandbox, which blocks dangerous attributes and
limits ranges; the length of its output and of its products is limited here. The time and memory
that it takes without writing are not limited.
"""

from collections.abc import Mapping
from typing import Any

from langue.errors import LangueError

MOST = 4_000_000  # characters that one template writes


class TooLong(LangueError):
    """A template that writes without end."""


def sandbox(**options: Any) -> Any:
    """A Jinja environment in which templates of others run; options: of `jinja2.Environment`."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        """One short expression, `'a' * 10**12`, is not to fill the memory."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            sized = [len(each) if hasattr(each, "__len__") else each for each in (left, right)]
            most = 2**64 if sized == [left, right] else MOST
            if operator == "**" or not abs(sized[0] * sized[1]) <= most:
                raise TemplateError(f"{operator} of what may be too large")
            return super().call_binop(context, operator, left, right)

    return Bounded(**options)


def written(template: Any, known: Mapping[str, Any]) -> str:
    """What a compiled template writes; TooLong where that is more than `MOST` characters. Whatever
    else a template raises comes as it is.
    """
    out = list[str]()
    size = 0
    for part in template.generate(**known):
        size += len(part)
        if size > MOST:
            raise TooLong(f"writes more than {MOST:,} characters")
        out.append(part)
    return "".join(out)

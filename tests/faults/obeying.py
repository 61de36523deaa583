"""How the tables of remedies are obeyed.

A case is a call whose wrong part stands between « and », a pattern that reads the remedy out of the
message, and what stands for the remedy where the message leaves something open (FILE, another
folder). Without the last, the pattern's groups take the place of the wrong part, and where it has
none, nothing does.
"""

import re
from collections.abc import Callable
from typing import Any

Case = tuple[str, str] | tuple[str, str, str]


def obey(case: Case, attempt: Callable[[str], str]) -> None:
    """Do what is wrong, read the remedy, do what it says. attempt: does a call and returns the
    message of its error, "" where it works.
    """
    marked, pattern, *open_ = case
    before, wrong, after = re.fullmatch("(.*?)«(.*)»(.*)", marked, re.DOTALL).groups()
    message = attempt(f"{before}{wrong}{after}")
    assert message, "no error, so that nothing is advised"
    advised = re.search(pattern, message)
    assert advised, message
    right = open_[0] if open_ else "".join(advised.groups())
    again = attempt(f"{before}{right}{after}")
    assert not again, (message, right, again)


def named(case: Any) -> str:
    """What a test of a case is called."""
    return " ".join(str(part) for part in case[:2])

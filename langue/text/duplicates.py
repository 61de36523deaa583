"""TEMPORARY stand-in by the lead until helper TEXT's duplicates.py lands (overwrite it)."""
from dataclasses import dataclass, field
@dataclass
class Duplicates:
    exact: list = field(default_factory=list)
    near: list = field(default_factory=list)
def find(train, test, near=.8): return Duplicates()

"""What arrives: owners of requests, and what each has had. What leaves: whose turn it is."""

from collections.abc import Iterable


class Turns:
    """Who has had least goes first, however many requests another has waiting."""

    def __init__(self) -> None:
        self._had: dict[str, int] = {}

    def __getitem__(self, owner: str) -> int:
        return self._had.get(owner, 0)

    def join(self, owner: str, others: Iterable[str]) -> None:
        """Let in an owner who has nothing waiting or running, beside those who have: as if it had
        had as much as the least of them, so that who comes late does not hold up the rest until it
        has caught up (start-time fair queueing, Goyal et al. 1996).
        """
        present = set(others)
        if present and owner not in present:
            self._had[owner] = max(self[owner], min(self[each] for each in present))

    def take(self, owner: str, amount: int) -> None:
        """Note what an owner has been given."""
        self._had[owner] = self[owner] + amount

    def clear(self) -> None:
        """Begin anew: nobody waits."""
        self._had.clear()

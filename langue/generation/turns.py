"""Fair queueing: keeps what each owner of requests has received, and so whose turn it is."""

from collections.abc import Iterable


class Turns:
    """Serves the owner who has received the least first, however many requests another has
    waiting.
    """

    def __init__(self) -> None:
        self._received: dict[str, int] = {}

    def __getitem__(self, owner: str) -> int:
        return self._received.get(owner, 0)

    def join(self, owner: str, others: Iterable[str]) -> None:
        """Add an owner who has nothing waiting or running.

        It starts at the lowest amount of the present owners, so that a latecomer does not block the
        others until it has caught up (start-time fair queueing, Goyal et al. 1996).
        """
        present = set(others)
        if present and owner not in present:
            self._received[owner] = max(self[owner], min(self[each] for each in present))

    def take(self, owner: str, amount: int) -> None:
        """Record that an owner has received something."""
        self._received[owner] = self[owner] + amount

    def clear(self) -> None:
        """Reset all amounts, when nobody waits."""
        self._received.clear()

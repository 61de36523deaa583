"""A compact set of 64-bit numbers."""

from array import array


class Uint64Set:
    """A set of 64-bit numbers with about 24 bytes for each: open addressing, doubled when half
    full.
    """

    def __init__(self) -> None:
        self.table = array("Q", bytes(8 << 16))
        self.used = 0

    def add(self, number: int) -> bool:
        """Add a number, and return whether it is new."""
        number = number or 1  # zero marks an empty slot
        if 2 * self.used >= len(self.table):
            old = self.table
            self.table = array("Q", bytes(16 * len(old)))
            self.used = 0
            for each in old:
                if each:
                    self.add(each)
        mask = len(self.table) - 1
        place = (number >> 20) & mask
        while self.table[place]:
            if self.table[place] == number:
                return False
            place = (place + 1) & mask
        self.table[place] = number
        self.used += 1
        return True

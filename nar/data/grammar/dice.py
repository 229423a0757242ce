"""Seeded chance that is the same in every process and in every version of Python."""

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
    """A stream of random decisions, all of them from one string."""

    def __init__(self, key: str):
        # Python promises the values of random() for ever, and of no other method.
        self._random = random.Random(key).random

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        return int(self._random() * limit)

    def among(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def weighted(self, weights: Mapping[str, int]) -> str:
        """One of the keys, as often as its weight says."""
        return self.among([item for item, weight in weights.items() for _ in range(weight)])

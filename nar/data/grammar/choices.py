"""The one door through which chance enters a translation: a rule asks `choose(usual, *others)`."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations, product
from math import log2
from typing import TypeVar

Option = TypeVar("Option")


class Choices:
    """One run through the German side of a derivation, and a record of what it asked.

    A rule calls `choose(*options)` wherever German has real alternatives, the usual one first.
    How many options a choice has never depends on the choices before it: they are independent.

    Attributes:
      sizes: the number of options of every choice so far.
      picked: the index of the option that was taken, for every choice so far.
    """

    def __init__(self, pick: Callable[[int, int], int] = lambda number, size: 0):
        """Choice `number` (0, 1, ...) of `size` options takes option `pick(number, size)`."""
        self.sizes: list[int] = []
        self.picked: list[int] = []
        self._pick = pick
        self._known: dict[Hashable, int] = {}

    def __call__(self, *options: Option, about: Hashable = None) -> Option:
        """Returns one of the options.

        Args:
          *options: what to choose from; one option is no choice and is not recorded.
          about: what the choice is about; asked about it again, the answer is the same (a sofa
            does not turn into a couch in the middle of a sentence).
        """
        if len(options) == 1:
            return options[0]
        if about is not None and about in self._known:
            return options[self._known[about]]
        picked = self._pick(len(self.sizes), len(options))
        self.sizes.append(len(options))
        self.picked.append(picked)
        if about is not None:
            self._known[about] = picked
        return options[picked]


def probability(ambiguity: float, size: int, picked: int) -> float:
    """P(option): with probability `ambiguity` it is any of them, otherwise the usual one."""
    return ambiguity / size + (1 - ambiguity if picked == 0 else 0)


def entropy(ambiguity: float, size: int) -> float:
    """The entropy of one choice, in bits."""
    chances = [probability(ambiguity, size, picked) for picked in range(size)]
    return -sum(chance * log2(chance) for chance in chances if 0 < chance < 1)


def vectors(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All ways to make these choices, the fewest departures from the usual first."""
    for departures in range(len(sizes) + 1):
        for places in combinations(range(len(sizes)), departures):
            for others in product(*(range(1, sizes[place]) for place in places)):
                changed = dict(zip(places, others, strict=True))
                yield tuple(changed.get(place, 0) for place in range(len(sizes)))

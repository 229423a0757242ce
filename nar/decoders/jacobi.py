"""Jacobi decoding (Santilli et al. 2023, algorithm 1), with the matched-prefix advance."""

import dataclasses

from nar.decoders.fixed_point import FixedPointDecoder
from nar.drafters.fixed_point import FixedPoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jacobi(FixedPointDecoder):
    """Updates all positions of a block at once from the last iterate, until greedy's fixed point.

    The authors advance by one position an iteration; here, as in consistency models (Kou et al.
    2024), by the whole prefix that can no longer change. Never more calls than greedy.

    Attributes:
        block: positions updated a call, in a block that slides along with what is final; None: all
            `max_length`, as in the paper.
    """

    block: int | None = None

    @property
    def drafter(self):
        """The iterate."""
        block = self.max_length if self.block is None else self.block
        return FixedPoint(block=block, guess=self.guess)

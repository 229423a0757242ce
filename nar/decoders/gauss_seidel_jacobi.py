"""Gauss-Seidel-Jacobi decoding (Santilli et al. 2023, algorithm 2)."""

import dataclasses

from nar.core import NarError, at_least
from nar.decoders.fixed_point import FixedPointDecoder
from nar.drafters.fixed_point import FixedPoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussSeidelJacobi(FixedPointDecoder):
    """Blocks of positions one after the other (Gauss-Seidel), each by Jacobi iterations.

    A block is finished when an iteration leaves its guesses as they were, after `block` iterations
    at the latest: the same iterates and the same number of calls as the authors', who compute the
    whole length even when EOS comes early; here a row stops at EOS.

    Attributes:
        block: positions a block; 3 to 5 in the paper.
    """

    block: int = 5

    def __post_init__(self):
        super().__post_init__()
        at_most_length(self.block, self.max_length)

    @property
    def drafter(self):
        """The iterate, in blocks that stand side by side."""
        return FixedPoint(block=self.block, sliding=False, guess=self.guess)


def at_most_length(block: int, max_length: int) -> None:
    """Raises a NarError for a block that is longer than the output can be."""
    at_least("block", block, 1)
    if block > max_length:
        raise NarError(
            f"block={block} is longer than max_length={max_length}: it must be at most that"
        )

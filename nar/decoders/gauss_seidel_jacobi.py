"""Gauss-Seidel-Jacobi decoding (Santilli et al. 2023, algorithm 2)."""

import dataclasses

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

    @property
    def drafter(self):
        """The iterate, in blocks that stand side by side."""
        return FixedPoint(block=self.block, sliding=False, guess=self.guess)

"""Hybrid Gauss-Seidel-Jacobi decoding (Santilli et al. 2023, algorithm 3)."""

import dataclasses

from nar.decoders.fixed_point import FixedPointDecoder
from nar.drafters.fixed_point import FixedPoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridJacobi(FixedPointDecoder):
    """Gauss-Seidel-Jacobi for the first positions, until EOS; what is left autoregressively.

    Attributes:
        block: positions a block; 3 to 5 in the paper.
        parallel: how many positions are decoded in parallel, the paper's h; None: all.
    """

    block: int = 3
    parallel: int | None = None

    @property
    def drafter(self):
        """The iterate, in blocks that stand side by side, not guessed from `parallel` on."""
        return FixedPoint(block=self.block, sliding=False, parallel=self.parallel, guess=self.guess)

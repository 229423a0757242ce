"""What the Jacobi family shares: the first iterate, and the label of an oracle length."""

import dataclasses

from nar.decoders.draft_verify import DraftVerify
from nar.drafters.fixed_point import Guess
from nar.errors import NarError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedPointDecoder(DraftVerify):
    """A fixed-point iteration whose solution is greedy's output.

    Attributes:
        guess: the first iterate: "pad", "source" (a copy), "random", or "previous" (the block
            before).
        oracle_length: the lengths are known beforehand, from greedy's own output in `source.limit`,
            as in the paper's algorithms 1 and 2. A label for tables: nobody knows them in earnest.
    """

    family = "fixed point"
    guess: Guess = "pad"
    oracle_length: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.drafter.depth >= self.max_length:  # making the drafter has validated the rest
            raise NarError(
                f"block={self.drafter.depth + 1} is longer than max_length={self.max_length}: it "
                f"must be in 1..{self.max_length}"
            )

    def check(self, model, source):
        """An oracle must have spoken."""
        super().check(model, source)
        if self.oracle_length and source.limit is None:
            raise NarError("oracle_length=True needs the lengths in source.limit; it is None")

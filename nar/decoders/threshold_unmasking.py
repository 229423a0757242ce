"""Confidence-aware parallel unmasking (Fast-dLLM; Wu et al. 2025)."""

import dataclasses

from nar.decoders import schedules
from nar.decoders.unmasking import Unmasking


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdUnmasking(Unmasking):
    """Keeps every token that is likely enough, and the likeliest in any case, call by call.

    Attributes:
        threshold: a token of a higher probability is kept; 0 is one shot, 1 is one token a call.
        block: only the first so many places that are not finished are open; None: all are.
    """

    threshold: float = 0.9
    block: int | None = None

    @property
    def schedule(self):
        """What is kept stays."""
        return schedules.Threshold(threshold=self.threshold, block=self.block)

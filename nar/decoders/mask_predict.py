"""Mask-predict (Ghazvininejad et al. 2019), and with one call the one-shot decoder."""

import dataclasses

from nar.decoders import schedules
from nar.decoders.unmasking import Unmasking


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskPredict(Unmasking):
    """Predicts all tokens, then masks the least confident ones and predicts them again.

    Attributes:
        calls: T, of which call t + 1 predicts n (1 - t / T) of n places again, rounded down.
            1: one shot (Gu et al. 2018).
        lengths: as in `Unmasking`.
    """

    calls: int = 10
    lengths: int = 5

    @property
    def schedule(self):
        """Fewer places from call to call."""
        return schedules.MaskPredict(calls=self.calls)

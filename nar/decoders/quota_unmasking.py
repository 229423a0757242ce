"""Unmasking a fixed number of tokens a call (LLaDA; Nie et al. 2025)."""

import dataclasses

from nar.decoders import schedules
from nar.decoders.unmasking import Unmasking


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuotaUnmasking(Unmasking):
    """Keeps the same number of tokens in every call, the likeliest ones.

    Attributes:
        calls: in which all tokens are kept.
    """

    calls: int = 10

    @property
    def schedule(self):
        """What is kept stays."""
        return schedules.Quota(calls=self.calls)

"""Greedy decoding: the baseline that every lossless decoder must equal."""

import dataclasses

from nar.decoders.draft_verify import DraftVerify
from nar.drafters.empty import Empty


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy(DraftVerify):
    """Writes the model's likeliest token, one a call."""

    family = "autoregressive"

    @property
    def drafter(self):
        """Nobody drafts."""
        return Empty()

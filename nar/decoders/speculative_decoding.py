"""Speculative decoding with a draft model (Leviathan et al. 2023; Chen et al. 2023)."""

import dataclasses

from nar.decoders.speculative import SpeculativeDecoder
from nar.drafters.draft_model import DraftModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeculativeDecoding(SpeculativeDecoder):
    """A smaller model drafts, the target verifies the whole draft in one call.

    Needs a bundle: `Bundle.of(target=..., draft=...)`. The two may differ in all but their
    vocabulary. Sampling draws drafts with the same temperature, top-k and top-p, and stays exact.

    Attributes:
        guesses: tokens that the draft model writes for each call of the target.
    """

    family = "speculative"
    guesses: int = 4

    @property
    def drafter(self):
        """The draft model."""
        return DraftModel(guesses=self.guesses, sampling=self.rule if self.temperature else None)

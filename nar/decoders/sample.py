"""Sampling from the model, one token a call."""

import dataclasses

from nar.decoders.draft_verify import DraftVerify
from nar.decoders.rules import Sampling
from nar.drafters.empty import Empty


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(DraftVerify):
    """Ancestral sampling.

    Attributes:
        temperature: divides the logits; above 0.
        top_k: sample among the k likeliest tokens (Fan et al. 2018); None: among all.
        top_p: sample among the likeliest tokens that hold probability p together, the nucleus
            (Holtzman et al. 2020); None: among all.
    """

    family = "autoregressive"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        super().__post_init__()
        _ = self.rule  # validates

    @property
    def drafter(self):
        """Nobody drafts."""
        return Empty()

    @property
    def rule(self):
        """Exact samples."""
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

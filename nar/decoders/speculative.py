"""What decoders share that may draft for greedy decoding as well as for sampling."""

import dataclasses
import math

from nar.decoders.draft_verify import DraftVerify
from nar.decoders.rules import Exact, Rule, Sampling
from nar.errors import NarError, is_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeculativeDecoder(DraftVerify):
    """Drafts for greedy decoding, or for an exact sample.

    Attributes:
        temperature: 0: the output is greedy's; above: a sample, logits divided by it.
        top_k: sample among the k likeliest tokens; None: among all.
        top_p: sample among the likeliest tokens that hold probability p together; None: all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if not (is_number(self.temperature) and 0 <= self.temperature < math.inf):
            raise NarError(
                f"temperature={self.temperature!r}: it must be 0 (greedy) or a finite number above"
            )
        if not self.temperature and (self.top_k, self.top_p) != (None, None):
            raise NarError("top_k and top_p are of sampling: set temperature above 0 too")
        _ = self.rule, self.drafter  # validate

    @property
    def sampling(self) -> Sampling | None:
        """How tokens are sampled; None: they are not."""
        if not self.temperature:
            return None
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    @property
    def rule(self) -> Rule:
        """Greedy's verdict, or the one that keeps samples exact."""
        return self.sampling or Exact()

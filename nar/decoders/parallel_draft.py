"""Parallel draft, autoregressive proof: a parallel model's output, verified by a causal one."""

import dataclasses

from nar.core import TARGET, Decoder
from nar.decoders.ctc import CTC
from nar.decoders.speculative import SpeculativeDecoder
from nar.drafters.draft_model import DRAFT
from nar.drafters.parallel import Parallel


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelDraft(SpeculativeDecoder):
    """A parallel decoder writes a draft once; the target verifies it, many tokens a call.

    Needs a bundle: `Bundle.of(target=..., draft=...)`, the draft a model that predicts in parallel,
    with the target's ids for the target's tokens; it may have fewer or more. The output is the
    target's own, greedy's or an exact sample. After a mismatch the rest of the draft is used on:
    see `nar.drafters.parallel`.

    Attributes:
        base: the parallel decoder; its `max_length` is this one's.
        guesses: tokens of the draft that are verified in one call.
        suffix: the most tokens by which the draft is aligned again after a mismatch.
        reach: by how many places at most that moves it.
    """

    family = "speculative"
    base: Decoder = CTC()
    guesses: int = 8
    suffix: int = 3
    reach: int = 3

    @property
    def drafter(self) -> Parallel:
        """The parallel decoder."""
        return Parallel(base=self.base, guesses=self.guesses, suffix=self.suffix, reach=self.reach)

    @property
    def reads(self):
        """The target, and what the parallel decoder reads."""
        others = [DRAFT if name == TARGET else name for name in self.base.reads]
        return tuple(dict.fromkeys((TARGET, *others)))

    def check(self, model, source):
        """Also: the parallel decoder can decode."""
        super().check(model, source)
        base = dataclasses.replace(self.base, max_length=self.max_length)
        base.check(self.drafter.model(model), source)

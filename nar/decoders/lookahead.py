"""Lookahead decoding (Fu et al. 2024): n-grams from the model's own Jacobi trajectories."""

import dataclasses

from nar.decoders.speculative import SpeculativeDecoder
from nar.drafters import lookahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookahead(SpeculativeDecoder):
    """Iterates a window ahead and verifies n-grams that it left, in the same call; no training.

    A full match writes `ngram` tokens, the bonus token among them. Scores
    `(ngram - 1) * (window + candidates)` positions a call.

    Attributes:
        window: W: positions that are iterated ahead.
        ngram: N: tokens of an n-gram.
        candidates: G: n-grams verified a call.
        pool: n-grams that a row keeps, the newest ones.
        seed: fill the pool from the source or prompt too.
        written: fill it from the output too.
    """

    family = "lookahead"
    window: int = 7
    ngram: int = 5
    candidates: int = 7
    pool: int = 512
    seed: bool = True
    written: bool = True

    @property
    def drafter(self):
        """The window and the pool."""
        return lookahead.Lookahead(
            window=self.window,
            ngram=self.ngram,
            candidates=self.candidates,
            pool=self.pool,
            seed=self.seed,
            written=self.written,
        )

"""Guesses that are copied from where the same words stood before: prompt lookup."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Int

from nar.drafters.drafter import Draft, Drafter
from nar.drafters.history import History
from nar.errors import at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookup(Drafter):
    """What followed the longest earlier occurrence of the last tokens; of equal ones, the latest.

    Attributes:
        guesses: the most tokens to copy.
        ngram: the most last tokens to look for.
        read: look in the source or prompt too, not only in what was written.
    """

    guesses: int
    ngram: int
    read: bool = True

    def __post_init__(self):
        at_least("guesses", self.guesses, 1)
        at_least("ngram", self.ngram, 1)

    @property
    def depth(self):
        """All guesses are one candidate."""
        return self.guesses

    def init(self, model, source, max_length, key):
        """The source, if it is to be read."""
        return History.of(source, max_length, read=self.read)

    def propose(self, model, carry, pending, key):
        """The continuation of the best match; nothing where nothing matches."""
        end, found = latest_match(carry, self.ngram)
        place = end[:, None] + jnp.arange(self.guesses)
        guesses = jnp.take_along_axis(carry.tokens, place, axis=1, mode="fill", fill_value=-1)
        return Draft.chain(pending, jnp.where(found[:, None], guesses, -1)), carry

    def observe(self, model, carry, outcome):
        """The history grows."""
        return carry.write(outcome)


def latest_match(history: History, ngram: int) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """Where the longest earlier occurrence of each row's last tokens ends, and how long it is.

    Args:
        history: the rows' tokens.
        ngram: the most last tokens to compare.
    """
    tokens, length = history.tokens, history.length
    end = jnp.arange(tokens.shape[1] + 1)
    matched = jnp.zeros((tokens.shape[0], tokens.shape[1] + 1), jnp.int32)
    same = (end > 0) & (end < length[:, None])
    for i in range(ngram):
        last = jnp.take_along_axis(tokens, jnp.maximum(length - 1 - i, 0)[:, None], axis=1)
        before = jnp.pad(tokens, ((0, 0), (i + 1, 0)), constant_values=-2)[:, : len(end)]
        same = same & (before == last) & (i < length)[:, None]
        matched = matched + same
    best = matched.max(1)
    place = jnp.where(matched == best[:, None], end, 0).max(1)
    return place, best

"""No draft: one token a call."""

import dataclasses

import jax.numpy as jnp

from nar.drafters.drafter import Draft, Drafter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Empty(Drafter):
    """Proposes nothing, which makes draft-and-verify autoregressive decoding."""

    @property
    def depth(self):
        """No guesses."""
        return 0

    def init(self, model, source, max_length, key):
        """Nothing is carried."""
        return ()

    def propose(self, model, carry, pending, key):
        """The pending token alone."""
        return Draft.chain(pending, jnp.zeros((pending.shape[0], 0), jnp.int32)), carry

    def observe(self, model, carry, outcome):
        """Nothing is learned."""
        return carry

"""What a row has read and written so far, for drafters that look things up in it."""

from typing import Self

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from nar.core import Source
from nar.drafters.drafter import Outcome
from nar.ops import put_rows


class History(struct.PyTreeNode):
    """`tokens [batch, room]`, of which the first `length [batch]` are there; -1 after them."""

    tokens: Int[Array, "batch room"]
    length: Int[Array, " batch"]

    @classmethod
    def of(cls, source: Source, room: int, *, read: bool) -> Self:
        """Room for `room` written tokens, after the source's where `read` says so."""
        batch, time = source.tokens.shape
        tokens = jnp.full((batch, room + (time if read else 0)), -1, jnp.int32)
        empty = cls(tokens, jnp.zeros((batch,), jnp.int32))
        return empty.append(source.tokens, source.length) if read else empty

    def append(self, tokens: Int[Array, "batch time"], count: Int[Array, " batch"]) -> Self:
        """Each row with its first `count` tokens more."""
        return self.replace(
            tokens=put_rows(self.tokens, self.length, tokens, count), length=self.length + count
        )

    def write(self, outcome: Outcome) -> Self:
        """With what the model accepted."""
        return self.append(outcome.tokens, outcome.count)

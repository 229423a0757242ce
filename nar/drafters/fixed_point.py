"""Guesses that are the iterate of a fixed-point iteration: the Jacobi family.

Greedy decoding solves y[t] = argmax p(. | y[:t], x) for t = 1, 2, ... One Jacobi iteration updates
all positions from the last iterate, in one call (Santilli et al. 2023, eq. 4-5); wherever the
iterate is already right from the left, the update is final. Draft and verify *is* that iteration:
the draft is the iterate, the model's own choices are the next one, and the matched prefix, with the
one choice after it, is what can no longer change.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from nar.core import role
from nar.drafters.drafter import Draft, Drafter
from nar.errors import NarError, at_least
from nar.ops import put_rows

Guess = Literal["pad", "source", "random", "previous"]
GUESSES = ("pad", "source", "random", "previous")


class Iterate(struct.PyTreeNode):
    """The iterate `y [batch, positions]`, of which the first `at [batch]` are final."""

    y: Int[Array, "batch positions"]
    at: Int[Array, " batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedPoint(Drafter):
    """Iterates `block` positions at a time.

    Attributes:
        block: positions updated a call, the pending token's among them; 1 is greedy.
        sliding: True: the block starts after what is final (Jacobi); False: blocks stand side by
            side and each is finished before the next one begins (Gauss-Seidel over blocks).
        parallel: positions from here on are not guessed (the hybrid's autoregressive end).
        guess: the first iterate: "pad"; "source", a copy of the source's tokens; "random" tokens;
            or "previous", the block before.
    """

    block: int
    sliding: bool = True
    parallel: int | None = None
    guess: Guess = "pad"

    def __post_init__(self):
        at_least("block", self.block, 1)
        if self.parallel is not None:
            at_least("parallel", self.parallel, 0)
        if self.guess not in GUESSES:
            raise NarError(f"guess={self.guess!r}: it must be one of {', '.join(GUESSES)}")

    @property
    def depth(self):
        """The pending token's update needs no guess."""
        return self.block - 1

    def init(self, model, source, max_length, key):
        """The first iterate, for all positions that a block can ever touch."""
        spec, batch = role(model).spec, source.tokens.shape[0]
        y = jnp.full((batch, max_length + 2 * self.block), spec.pad, jnp.int32)
        if self.guess == "source":
            y = put_rows(y, jnp.zeros_like(source.length), source.tokens, source.length)
        elif self.guess == "random":
            y = jax.vmap(lambda k: jax.random.randint(k, y.shape[1:], 0, spec.vocab_size))(key)
        return Iterate(y, jnp.zeros((batch,), jnp.int32))

    def propose(self, model, carry, pending, key):
        """The iterate's next positions."""
        place = carry.at[:, None] + jnp.arange(self.depth)
        guesses = jnp.take_along_axis(carry.y, place, axis=1)
        if not self.sliding:
            last = self.end(carry.at)[:, None] - 1  # what follows it is the next block's
            guesses = jnp.where(place < last, guesses, -1)
        if self.parallel is not None:
            guesses = jnp.where(place < self.parallel, guesses, -1)
        return Draft.chain(pending, guesses), carry

    def observe(self, model, carry, outcome):
        """The next iterate: the model's choice after every guess."""
        at, updated = carry.at, jnp.full_like(carry.at, self.block)
        if not self.sliding:
            updated = self.end(at) - at
        y = put_rows(carry.y, at, outcome.best, updated)
        if self.guess == "previous":
            y = put_rows(y, at + self.block, outcome.best, updated)
        return Iterate(y, at + outcome.count)

    def end(self, at: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """Where the block that holds position `at` ends."""
        return (at // self.block + 1) * self.block

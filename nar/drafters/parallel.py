"""Guesses of a model that predicts in parallel: a draft of the whole output, made once.

The target follows the draft as long as it agrees. Where it does not, it writes a token of its own,
and two things keep the rest of the draft useful. If what is written now ends as the draft does at
some place nearby, the draft goes on from there: a token too many or too few moves it. Otherwise the
draft stays where it is, and the target's choices after the guesses that fell, which it made for the
same places, take their place, as in a Jacobi iteration (Santilli et al. 2023).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from nar.core import TARGET, Bundle, Decoder, role
from nar.drafters.draft_model import DRAFT
from nar.drafters.drafter import Draft, Drafter, Outcome
from nar.drivers import decode
from nar.errors import NarError, at_least
from nar.ops import at_rows


class Carry(struct.PyTreeNode):
    """The draft, and how far the target is in it.

    Attributes:
        tokens: `[batch, places]`, -1 where nothing is guessed.
        at: `[batch]`, the place of the next guess.
        written: `[batch, suffix]`, the last tokens written; -2 before the first.
        work: by role, calls and `[batch]` positions of the parallel model, and of others that its
            decoder has; counted with the first step.
    """

    tokens: Int[Array, "batch places"]
    at: Int[Array, " batch"]
    written: Int[Array, "batch suffix"]
    work: dict[str, tuple[Int[Array, ""], Int[Array, " batch"]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel(Drafter):
    """A parallel decoder's output, some guesses a step.

    Attributes:
        base: the parallel decoder.
        guesses: tokens of the draft that are verified in one call.
        suffix: the most tokens by which the draft is aligned again.
        reach: by how many places at most that moves it.
    """

    base: Decoder
    guesses: int
    suffix: int
    reach: int

    def __post_init__(self):
        if not isinstance(self.base, Decoder):
            raise NarError(f"base={self.base!r}: it must be a decoder, such as (ctc)")
        for name in ("guesses", "suffix", "reach"):
            at_least(name, getattr(self, name), 1)

    @property
    def depth(self):
        """All guesses are one candidate."""
        return self.guesses

    @property
    def needs(self):
        """What the parallel decoder needs of its model, and of others."""
        return {DRAFT if name == TARGET else name: needs for name, needs in self.base.needs.items()}

    def model(self, model: Any) -> Any:
        """The bundle that the parallel decoder decodes: its target is the draft."""
        draft = role(model, DRAFT)  # so it is a bundle
        return Bundle({**model.models, TARGET: draft})

    def init(self, model, source, max_length, key):
        """The whole draft."""
        base = dataclasses.replace(self.base, max_length=max_length)
        output, spec = decode(base, self.model(model), source, key=key), role(model).spec
        inside = jnp.arange(max_length) < output.length[:, None]
        # An end is the target's end; what the target does not have is no guess.
        ends = output.tokens == role(model, DRAFT).spec.eos
        tokens = jnp.where(ends, spec.eos, output.tokens)
        tokens = jnp.where(inside & (tokens < spec.vocab_size), tokens, -1)
        return Carry(
            tokens=jnp.pad(tokens, ((0, 0), (0, self.guesses)), constant_values=-1),
            at=jnp.zeros_like(output.length),
            written=jnp.full((len(tokens), self.suffix), -2, jnp.int32),
            work={
                DRAFT if name == TARGET else name: (calls, output.stats.positions[name])
                for name, calls in output.stats.calls.items()
            },
        )

    def propose(self, model, carry, pending, key):
        """The draft's next tokens."""
        place = carry.at[:, None] + jnp.arange(self.guesses)
        guesses = jnp.take_along_axis(carry.tokens, place, axis=1, mode="fill", fill_value=-1)
        none = carry.replace(work=jax.tree.map(jnp.zeros_like, carry.work))
        return Draft.chain(pending, guesses, work=carry.work), none

    def observe(self, model, carry, outcome):
        """Goes on in the draft: moved, refreshed, or neither where the target agreed."""
        count = outcome.count
        written = jnp.concatenate([carry.written, outcome.tokens], axis=1)
        written = at_rows(written, count[:, None] + jnp.arange(self.suffix))
        at = carry.at + count
        agreed = at_rows(carry.tokens, at - 1) == written[:, -1]
        place, found = nearby(carry.tokens, written, at, self.reach)
        refreshed = jnp.where((agreed | found)[:, None], carry.tokens, refresh(carry, outcome))
        return carry.replace(
            tokens=refreshed, at=jnp.where(agreed | ~found, at, place), written=written
        )


def nearby(
    tokens: Int[Array, "batch places"],
    written: Int[Array, "batch suffix"],
    at: Int[Array, " batch"],
    reach: int,
) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """Where, near `at`, the draft goes on after what was written last, and whether it does.

    Of all places after a token equal to the last one written, the one before which most tokens of
    the draft are equal; of these, the nearest to `at`.
    """
    moves = jnp.array(sorted(range(-reach, reach + 1), key=abs))
    end = at[:, None] + moves
    matched, same = jnp.zeros(end.shape, jnp.int32), True
    for i in range(1, written.shape[1] + 1):
        before = jnp.take_along_axis(tokens, end - i, axis=1, mode="fill", fill_value=-1)
        same = same & (before == written[:, -i][:, None]) & (end >= i)
        matched = matched + same
    best = jnp.argmax(matched, axis=1)
    return at_rows(end, best), matched.max(1) > 0


def refresh(carry: Carry, outcome: Outcome) -> Int[Array, "batch places"]:
    """The draft, with the target's choices where guesses fell."""
    node = jnp.arange(outcome.best.shape[1])
    fell = (node >= outcome.count[:, None]) & (outcome.draft.tokens >= 0)
    place = jnp.where(fell, carry.at[:, None] + node, carry.tokens.shape[1])
    rows = jnp.arange(len(place))[:, None]
    return carry.tokens.at[rows, place].set(outcome.best, mode="drop")

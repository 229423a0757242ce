"""Schedules of a canvas: which places are masked and predicted again after a call."""

import abc
import dataclasses

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from nar.errors import NarError, at_least, is_number
from nar.ops import NEG, argmax


class Guess(struct.PyTreeNode):
    """What a schedule may look at after a call; a row is one canvas.

    Attributes:
        step: `[rows]`, calls made so far, this one included.
        score: `[rows, places]`, log-probability of each token when it was predicted.
        masked: `[rows, places]`, places that this call predicted.
        valid: `[rows, places]`, places that belong to the row.
    """

    step: Int[Array, " rows"]
    score: Float[Array, "rows places"]
    masked: Bool[Array, "rows places"]
    valid: Bool[Array, "rows places"]


class Schedule(abc.ABC):
    """A frozen dataclass: `schedule(guess)` is what to mask next; nothing ends the row."""

    @abc.abstractmethod
    def most(self, places: int) -> int:
        """The most calls that a canvas of so many places takes."""

    @abc.abstractmethod
    def __call__(self, guess: Guess) -> Bool[Array, "rows places"]:
        """The places to mask and predict again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskPredict(Schedule):
    """Masks the n (1 - t / T) least confident places (Ghazvininejad et al. 2019, section 3).

    After call t of T, of n places; tokens that stay keep their scores. A call that repeats what
    stood there before ends nothing: the next one sees more, and often knows better.

    Attributes:
        calls: T; 1 predicts everything at once.
    """

    calls: int = 10

    def __post_init__(self):
        at_least("calls", self.calls, 1)

    def most(self, places):
        """T."""
        return self.calls

    def __call__(self, guess):
        """The least confident of all places, those that were not masked included."""
        count = guess.valid.sum(-1) * (self.calls - guess.step) // self.calls
        return lowest(guess.score, guess.valid, count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threshold(Schedule):
    """Keeps what is confident, and the best in any case (Fast-dLLM; Wu et al. 2025, algorithm 1).

    Attributes:
        threshold: a token of a higher probability is kept.
        block: semi-autoregressive: places are kept a block of so many after the other, from the
            left (Arriola et al. 2025; Nie et al. 2025); None: wherever.
    """

    threshold: float = 0.9
    block: int | None = None

    def __post_init__(self):
        if not (is_number(self.threshold) and 0 <= self.threshold <= 1):
            raise NarError(f"threshold={self.threshold!r}: it must be in [0, 1]")
        if self.block is not None:
            at_least("block", self.block, 1)

    def most(self, places):
        """Each call keeps a token."""
        return places

    def __call__(self, guess):
        """What was masked and is neither confident nor the best, or not in the open block."""
        place = jnp.arange(guess.masked.shape[-1])
        open_ = guess.masked
        if self.block is not None:
            block = place // self.block
            first = jnp.where(open_, block, place.size).min(-1, keepdims=True)
            open_ &= block == first
        best = place == argmax(jnp.where(open_, guess.score, NEG))[:, None]
        return guess.masked & ~(open_ & (best | (jnp.exp(guess.score) > self.threshold)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quota(Schedule):
    """Keeps the same number of tokens in every call, the most confident ones (Nie et al. 2025).

    LLaDA's "low-confidence remasking", in which what is kept stays: n // T of n tokens a call, and
    one more in each of the first n % T calls.

    Attributes:
        calls: T, or n where that is less.
    """

    calls: int = 10

    def __post_init__(self):
        at_least("calls", self.calls, 1)

    def most(self, places):
        """T."""
        return self.calls

    def __call__(self, guess):
        """The least confident of those that were masked."""
        places = guess.valid.sum(-1)
        each, more = places // self.calls, places % self.calls
        kept = guess.step * each + jnp.minimum(guess.step, more)
        return lowest(guess.score, guess.masked, places - kept)


def lowest(
    score: Float[Array, "rows places"],
    among: Bool[Array, "rows places"],
    count: Int[Array, " rows"],
) -> Bool[Array, "rows places"]:
    """The `count` places of the lowest scores among some; of equal scores the first."""
    order = jnp.argsort(jnp.where(among, score, jnp.inf), axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1, stable=True)
    return among & (rank < count[:, None])

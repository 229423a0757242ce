"""The few array operations that several rooms share."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

NEG = -1e30
"""A score below every other that is not -inf: differences and sums of it stay numbers."""


def argmax(scores: Float[Array, "*batch choices"]) -> Int[Array, "*batch"]:
    """The first index of the maximum over the last axis; NaN never wins.

    Two reductions instead of XLA's paired one, which is 2 to 20 times slower on CPU.
    """
    size = scores.shape[-1]
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    best = jnp.max(scores, -1, keepdims=True)
    return jnp.min(jnp.where(scores == best, jnp.arange(size), size - 1), -1)


def likeliest(
    logits: Float[Array, "*batch choices"],
) -> tuple[Int[Array, "*batch"], Float[Array, "*batch"]]:
    """The choice that `argmax` makes, and its log-probability."""
    return argmax(logits), logits.max(-1) - jax.nn.logsumexp(logits, axis=-1)


def broken(logits: Float[Array, "*batch choices"]) -> Bool[Array, "*batch"]:
    """Whether one of the logits is NaN: then none of them is to be trusted with a decision."""
    return jnp.isnan(logits).any(-1)


def first(hits: Bool[Array, "*batch time"]) -> Int[Array, "*batch"]:
    """Index of the first True of the last axis; the axis' size where there is none."""
    size = hits.shape[-1]
    return jnp.min(jnp.where(hits, jnp.arange(size), size), -1)


def at_rows(x: Array, index: Int[Array, "batch ..."]) -> Array:
    """`x[b, index[b, ...]]` for every row b of `x [batch, time, ...]`; -1 reads place 0."""
    rows = jnp.arange(x.shape[0]).reshape((-1,) + (1,) * (index.ndim - 1))
    return x[rows, jnp.maximum(index, 0)]


@functools.partial(jax.jit, static_argnames="axis")  # traced once for all layers
def put_rows(
    x: Array,
    start: Int[Array, " batch"],
    new: Array,
    count: Int[Array, " batch"],
    axis: int = 1,
) -> Array:
    """Writes `new[b, :count[b]]` to `x[b, start[b] : start[b] + count[b]]`, along `axis`.

    What would fall outside of `x`, before or after it, is dropped; `dynamic_update_slice` would
    clamp and corrupt.
    """
    i = jnp.arange(new.shape[axis])[None]
    place = start[:, None] + i
    place = jnp.where((i < count[:, None]) & (place >= 0), place, x.shape[axis])
    rows = jnp.arange(x.shape[0])[:, None]
    where = (rows, *[slice(None)] * (axis - 1), place)
    # Indices around a slice bring their own axes to the front: [batch, time, ...].
    return x.at[where].set(jnp.moveaxis(new, axis, 1).astype(x.dtype), mode="drop")


def pack(
    x: Array, kept: Bool[Array, "batch time"], width: int, fill: int
) -> Int[Array, "batch width"]:
    """What is kept of every row, moved together at its start, with `fill` after it."""
    place = jnp.where(kept, kept.cumsum(1) - 1, width)
    rows = jnp.arange(x.shape[0])[:, None]
    return jnp.full((x.shape[0], width), fill, x.dtype).at[rows, place].set(x, mode="drop")


def fold(key: Key[Array, " batch"], data: int | Int[Array, "*batch"]) -> Key[Array, " batch"]:
    """Each row's key, folded with a number of its own or of all rows."""
    return jax.vmap(jax.random.fold_in, (0, 0 if jnp.ndim(data) else None))(key, data)


@jax.jit
def numbered_keys(key: Key[Array, ""], numbers: Int[Array, " batch"]) -> Key[Array, " batch"]:
    """One key, folded with each of some numbers."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)

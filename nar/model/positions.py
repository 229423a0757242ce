"""Where a token stands: sinusoids, rotations of queries and keys, and bucketed distances."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def sinusoids(count: int, width: int) -> Float[np.ndarray, "count width"]:
    """Table of fixed positions: all sines, then all cosines (Vaswani et al. 2017, section 3.5).

    The paper interleaves them, which differs by a fixed permutation; Marian stores them like this.
    """
    half = width // 2
    wavelength = 10_000 ** (2 * np.arange(half + width % 2) / width)
    angle = np.arange(count)[:, None] / wavelength
    return np.concatenate([np.sin(angle), np.cos(angle[:, :half])], -1).astype(np.float32)


def rotate(
    x: Float[Array, "batch heads time dim"], position: Int[Array, "batch time"], theta: float
) -> Float[Array, "batch heads time dim"]:
    """Rotary positions (Su et al. 2021, eq. 34), pairing dimension i with i + dim / 2 (Llama)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-np.arange(half, dtype=np.float32) / half)
    angle = position[:, None, :, None] * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x.dtype)


def bucket(
    distance: Int[Array, "*shape"], *, bidirectional: bool, buckets: int, max_distance: int
) -> Int[Array, "*shape"]:
    """T5's bucket of `key position - query position` (Raffel et al. 2020, section 2.1).

    Small distances have a bucket each; larger ones share buckets that widen logarithmically up to
    `max_distance`. Looking both ways, half of the buckets are for keys after the query.
    """
    base = 0
    if bidirectional:
        buckets //= 2
        base = jnp.where(distance > 0, buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    exact = buckets // 2
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
    far = exact + (jnp.log(ratio) / math.log(max_distance / exact) * (buckets - exact)).astype(
        jnp.int32
    )
    return base + jnp.where(distance < exact, distance, jnp.minimum(far, buckets - 1))

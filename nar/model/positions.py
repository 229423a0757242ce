"""Where a token stands: sinusoids, rotations of queries and keys, and bucketed distances."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nar.model.config import TransformerConfig


def sinusoids(count: int, width: int) -> Float[np.ndarray, "count width"]:
    """Table of fixed positions: all sines, then all cosines (Vaswani et al. 2017, section 3.5).

    The paper interleaves them, which differs by a fixed permutation; Marian stores them like this.
    """
    half = width // 2
    wavelength = 10_000 ** (2 * np.arange(half + width % 2) / width)
    angle = np.arange(count)[:, None] / wavelength
    return np.concatenate([np.sin(angle), np.cos(angle[:, :half])], -1).astype(np.float32)


def frequencies(config: TransformerConfig) -> Float[np.ndarray, " half"]:
    """Radians a position of every pair of rotary dimensions (Su et al. 2021, section 3.2.2)."""
    c, half = config, config.dim // 2
    frequency = c.rope_theta ** (-np.arange(half) / half)
    kept = _unscaled(c, frequency)
    return (kept * frequency + (1 - kept) * frequency / c.rope_factor).astype(np.float32)


def _unscaled(
    config: TransformerConfig, frequency: Float[np.ndarray, " half"]
) -> Float[np.ndarray, "#half"]:
    """Which share of each frequency is as it was in the first training: 1 all, 0 none."""
    c, half = config, len(frequency)
    if c.rope_scaling == "llama3":
        # How often a wave goes round within the positions of the first training.
        turns = c.rope_original_positions * frequency / (2 * np.pi)
        share = (turns - c.rope_low_factor) / (c.rope_high_factor - c.rope_low_factor)
        return np.clip(share, 0, 1)
    if c.rope_scaling == "yarn":
        # Which dimension's wave is so long.
        turns = np.array([c.rope_high_factor, c.rope_low_factor])
        wave = c.rope_original_positions / (2 * np.pi * turns)
        first, last = half * np.log(wave) / np.log(c.rope_theta)
        if c.rope_truncate:
            first, last = np.floor(first), np.ceil(last)
        first, last = max(first, 0), min(last, c.dim - 1)
        return 1 - np.clip((np.arange(half) - first) / (last - first or 1e-3), 0, 1)
    return np.array([float(c.rope_scaling == "none")])


def rotate(
    x: Float[Array, "batch heads time dim"],
    position: Int[Array, "batch time"],
    frequency: Float[np.ndarray, " half"],
    magnitude: float = 1.0,
) -> Float[Array, "batch heads time dim"]:
    """Rotary positions (Su et al. 2021, eq. 34), pairing dimension i with i + dim / 2 (Llama)."""
    half = len(frequency)
    angle = position[:, None, :, None] * frequency
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    if magnitude != 1:
        sin, cos = sin * magnitude, cos * magnitude
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

"""Positions against values worked by hand, the papers' formulas, and exact arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nar
from nar.model.positions import bucket, frequencies, rotate, sinusoids


# ------------------------------------------------------------------------------------ sinusoids
def test_sinusoids_by_hand():
    # Width 4: wavelengths 2 pi and 2 pi * 100.
    table = sinusoids(3, 4)
    np.testing.assert_allclose(table[0], [0, 0, 1, 1], atol=1e-7)
    np.testing.assert_allclose(table[1], [0.8414710, 0.0099998, 0.5403023, 0.9999500], atol=1e-6)
    np.testing.assert_allclose(table[2], [0.9092974, 0.0199987, -0.4161468, 0.9998000], atol=1e-6)
    assert table.dtype == np.float32


@pytest.mark.parametrize("width", [6, 5, 1])
def test_sinusoids_are_the_papers_with_sines_before_cosines(width):
    table = sinusoids(40, width)
    assert table.shape == (40, width)
    for position in range(40):
        paper = [
            (math.cos if i % 2 else math.sin)(position / 10_000 ** ((i - i % 2) / width))
            for i in range(width)
        ]
        np.testing.assert_allclose(table[position], paper[::2] + paper[1::2], atol=1e-6)


# --------------------------------------------------------------------------------------- rotary
def waves(width, theta=10_000.0, **scaling):
    """Radians a position, of heads of some width."""
    config = nar.TransformerConfig(
        vocab_size=9, d_model=width, heads=1, positions="rotary", rope_theta=theta, **scaling
    )
    return frequencies(config)


def turned(x, position, theta=10_000.0):
    """One vector at one position."""
    x = jnp.asarray(x, jnp.float32)[None, None, None]
    return np.asarray(rotate(x, jnp.asarray([[position]]), waves(x.shape[-1], theta)))[0, 0, 0]


def test_rotations_by_hand():
    cos, sin = math.cos, math.sin
    np.testing.assert_allclose(turned([1, 0], 1), [cos(1), sin(1)], atol=1e-6)
    np.testing.assert_allclose(turned([0, 1], 1), [-sin(1), cos(1)], atol=1e-6)
    # Four dimensions, base 100: pairs (0, 2) and (1, 3) turn by 1 and by 0.1 a position.
    got = turned([1, 2, 3, 4], 2, theta=100.0)
    want = [
        1 * cos(2) - 3 * sin(2),
        2 * cos(0.2) - 4 * sin(0.2),
        3 * cos(2) + 1 * sin(2),
        4 * cos(0.2) + 2 * sin(0.2),
    ]
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_array_equal(turned([1, 2, 3, 4], 0), [1, 2, 3, 4])


@given(
    st.lists(st.floats(-3, 3), min_size=12, max_size=12),
    st.integers(0, 200),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_products_of_rotated_vectors_depend_on_their_distance_alone(numbers, i, j, shift):
    query, key = np.reshape(numbers, (2, 6))
    here = turned(query, i) @ turned(key, j)
    there = turned(query, i + shift) @ turned(key, j + shift)
    np.testing.assert_allclose(here, there, atol=5e-3)
    np.testing.assert_allclose(
        np.linalg.norm(turned(query, i)), np.linalg.norm(query), rtol=1e-4, atol=1e-6
    )


def test_rotation_keeps_bfloat16_and_turns_every_row_by_its_own_positions():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 6)).astype(np.float32)
    position = np.array([[0, 1, 2, 3], [7, 7, 9, 5]])
    got = rotate(jnp.asarray(x), jnp.asarray(position), waves(6, 10.0))
    for b, h, t in np.ndindex(2, 3, 4):
        np.testing.assert_allclose(got[b, h, t], turned(x[b, h, t], position[b, t], 10.0), 1e-5)
    low = rotate(jnp.asarray(x, jnp.bfloat16), jnp.asarray(position), waves(6, 10.0))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low.astype(np.float32), got, atol=0.05)


def test_scaled_waves_by_hand():
    plain = waves(8, 100.0)
    np.testing.assert_allclose(plain, [1, 100**-0.25, 0.1, 100**-0.75], rtol=1e-6)
    linear = waves(8, 100.0, rope_scaling="linear", rope_factor=4.0)
    np.testing.assert_allclose(linear, plain / 4, rtol=1e-6)
    # In 40 positions the waves go round 6.4, 2.0, 0.64 and 0.2 times: the first is kept, those
    # below one round are stretched, and 2.013 rounds are (2.013 - 1) / 3 of the way.
    llama = waves(
        8, 100.0, rope_scaling="llama3", rope_factor=8.0, rope_original_positions=40
    )  # fmt: skip
    part = (40 * plain[1] / (2 * math.pi) - 1) / 3
    between = part * plain[1] + (1 - part) * plain[1] / 8
    np.testing.assert_allclose(llama, [1, between, plain[2] / 8, plain[3] / 8], rtol=1e-5)


# -------------------------------------------------------------------------------------- buckets
def exact_bucket(distance, bidirectional, buckets, max_distance):
    """T5's bucket in whole numbers: floor(log(d / e) / log(m / e) * n) without a logarithm."""
    base = 0
    if bidirectional:
        buckets //= 2
        base = buckets if distance > 0 else 0
        distance = -abs(distance)
    back, e = max(-distance, 0), buckets // 2
    if back < e:
        return base + back
    n, k = buckets - e, 0
    while k < n - 1 and back**n * e ** (k + 1) >= max_distance ** (k + 1) * e**n:
        k += 1
    return base + e + k


@pytest.mark.parametrize(
    ("bidirectional", "values"),
    [
        # Half of 32 look back: 8 distances have a bucket each, 8 share 8 to 128 by powers of 2.
        (True, {0: 0, -1: 1, -7: 7, -8: 8, -11: 8, -12: 9, -15: 9, -16: 10, -22: 10, -23: 11}),
        (True, {-32: 12, -64: 14, -90: 14, -91: 15, -127: 15, -128: 15, -9999: 15}),
        (True, {1: 17, 7: 23, 8: 24, 16: 26, 127: 31, 128: 31, 9999: 31}),
        # All 32 look back: 16 have a bucket each, and what comes after is not told apart.
        (False, {0: 0, 1: 0, 500: 0, -1: 1, -15: 15, -16: 16, -18: 16, -19: 17, -20: 17, -21: 18}),
        (False, {-32: 21, -64: 26, -112: 30, -113: 31, -128: 31, -9999: 31}),
    ],
)
def test_buckets_of_t5_by_hand(bidirectional, values):
    got = bucket(
        jnp.asarray(list(values)), bidirectional=bidirectional, buckets=32, max_distance=128
    )
    assert dict(zip(values, got.tolist(), strict=True)) == values


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    ("buckets", "most"), [(32, 128), (64, 256), (8, 16), (4, 128), (4, 3), (5, 20), (10, 64)]
)
def test_buckets_are_exact_at_every_boundary(bidirectional, buckets, most):
    distance = np.arange(-600, 601)
    want = [exact_bucket(int(d), bidirectional, buckets, most) for d in distance]
    settings = {"bidirectional": bidirectional, "buckets": buckets, "max_distance": most}
    eager = bucket(jnp.asarray(distance), **settings)
    np.testing.assert_array_equal(eager, want)
    np.testing.assert_array_equal(jax.jit(lambda d: bucket(d, **settings))(distance), want)
    assert eager.dtype == jnp.int32
    assert 0 <= eager.min() <= eager.max() < buckets

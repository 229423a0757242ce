"""Attention over parts against one softmax over the joined keys, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nar import TransformerConfig
from nar.model.attention import RelativeBias
from nar.model.attention import attend as eager

attend = jax.jit(eager, static_argnames="scale")
BATCH, HEADS, TIME, DIM = 2, 4, 3, 5


def softmax_attention(query, keys, values, mask, bias, scale):
    """One head, one query at a time, over the keys it sees."""
    batch, heads, time, dim = query.shape
    each = heads // keys.shape[1]
    out = np.zeros((batch, time, heads, dim))
    for b, h, t in np.ndindex(batch, heads, time):
        visible = np.flatnonzero(mask[b, t])
        score = scale * keys[b, h // each, visible] @ query[b, h, t] + bias[b, h, t, visible]
        weight = np.exp(score - score.max())
        out[b, t, h] = weight / weight.sum() @ values[b, h // each, visible]
    return out.reshape(batch, time, heads * dim)


def random_parts(seed, groups, sizes, spread=1.0):
    """Queries, and parts of so many keys; every query sees at least one key."""
    rng = np.random.default_rng(seed)
    query = rng.normal(0, spread, (BATCH, HEADS, TIME, DIM)).astype(np.float32)
    parts = []
    for size in sizes:
        keys, values = rng.normal(0, spread, (2, BATCH, groups, size, DIM)).astype(np.float32)
        mask = rng.random((BATCH, TIME, size)) < 0.6
        bias = rng.normal(0, 1, (BATCH, HEADS, TIME, size)).astype(np.float32)
        parts.append((keys, values, mask, bias))
    parts[0][2][:, :, 0] = True
    return query, parts


def joined(parts):
    """Keys, values, masks and biases of all parts."""
    axes = (2, 2, 2, 3)
    return tuple(np.concatenate([part[i] for part in parts], axis) for i, axis in enumerate(axes))


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 4]))
def test_two_parts_are_one_softmax_over_their_joined_keys(seed, groups):
    query, parts = random_parts(seed, groups, (3, 6))
    want = softmax_attention(query, *joined(parts), scale=0.7)
    np.testing.assert_allclose(attend(query, *parts, scale=0.7), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(attend(query, *parts[::-1], scale=0.7), want, rtol=1e-4, atol=1e-5)
    alone = joined(parts)
    np.testing.assert_allclose(attend(query, alone, scale=0.7), want, rtol=1e-4, atol=1e-5)


def test_masks_and_biases_spread_over_queries_rows_and_none():
    query, ((keys, values, mask, bias),) = random_parts(0, 2, (6,))
    same_for_all = np.broadcast_to(mask[:, :1], mask.shape)
    for given_bias in (None, bias[:1]):
        got = attend(query, (keys, values, mask[:, :1], given_bias), scale=1.0)
        full = np.zeros_like(bias) if given_bias is None else np.repeat(given_bias, BATCH, axis=0)
        want = softmax_attention(query, keys, values, same_for_all, full, 1.0)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_query_heads_read_the_key_value_head_of_their_group():
    query = jnp.zeros((1, 6, 1, 2))
    values = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 4, 2))
    part = (jnp.zeros((1, 3, 4, 2)), values, jnp.ones((1, 1, 4), bool), None)
    got = attend(query, part, scale=1.0).reshape(6, 2)
    np.testing.assert_allclose(got, [[0, 0], [0, 0], [1, 1], [1, 1], [2, 2], [2, 2]])


def test_huge_scores_and_what_is_hidden_do_no_harm():
    query, parts = random_parts(1, 4, (3, 6), spread=100.0)
    want = softmax_attention(query, *joined(parts), scale=1.0)
    np.testing.assert_allclose(attend(query, *parts, scale=1.0), want, rtol=1e-3, atol=1e-2)
    hidden = [
        tuple(np.where(mask.any(1)[:, None, :, None], x, 1e30) for x in (keys, values))
        for keys, values, mask, _ in parts
    ]
    parts = [(*kv, mask, bias) for kv, (_, _, mask, bias) in zip(hidden, parts, strict=True)]
    np.testing.assert_allclose(attend(query, *parts, scale=1.0), want, rtol=1e-3, atol=1e-2)


def test_a_query_that_sees_nothing_is_a_number_and_so_is_its_gradient():
    query, parts = random_parts(2, 2, (3, 6))
    want = attend(query, *parts, scale=1.0)
    for part in parts:
        part[2][1, 2] = False
    got = attend(query, *parts, scale=1.0)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1, :2], want[1, :2])

    def loss(query, arrays):
        given = [(k, v, m, b) for (k, v, b), (_, _, m, _) in zip(arrays, parts, strict=True)]
        return (attend(query, *given, scale=1.0) ** 2).sum()

    arrays = [(k, v, b) for k, v, _, b in parts]
    for gradient in jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(query, arrays)):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("groups", [1, 4])
def test_bfloat16_is_near_with_float32_sums(groups):
    query, parts = random_parts(3, groups, (3, 300))
    low = [
        (jnp.asarray(k, jnp.bfloat16), jnp.asarray(v, jnp.bfloat16), m, b) for k, v, m, b in parts
    ]
    got = attend(jnp.asarray(query, jnp.bfloat16), *low, scale=0.4)
    assert got.dtype == jnp.bfloat16
    want = softmax_attention(query, *joined(parts), scale=0.4)
    np.testing.assert_allclose(np.float64(got), want, atol=0.05)


def test_relative_bias_is_the_table_at_the_bucket_of_the_distance():
    config = TransformerConfig(
        vocab_size=9, d_model=8, heads=2, relative_buckets=8, relative_max_distance=16
    )
    query, key = np.array([[3, 0, 20]]), np.array([[0, 1, 2, 3, 4, 19]])
    # Rows: query 3, 0, 20; the distances are key - query.
    backward = [[3, 2, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [7, 7, 7, 7, 7, 1]]
    # 4 buckets a side, 2 of them exact; 2 to 16 share the others: below sqrt(32) and above.
    both = [[2, 2, 1, 0, 5, 7], [0, 5, 6, 6, 6, 7], [3, 3, 3, 3, 3, 1]]
    for bidirectional, want in ((False, backward), (True, both)):
        layer = RelativeBias(config, bidirectional=bidirectional, key=jax.random.key(0))
        table = np.asarray(layer.table[...])
        got = layer(query, key)
        assert (got.shape, got.dtype) == ((1, 2, 3, 6), jnp.float32)
        np.testing.assert_array_equal(got[0], np.moveaxis(table[np.array(want)], -1, 0))

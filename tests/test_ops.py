"""Array operations against NumPy, element by element."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nar import ops

SCORES = st.sampled_from([0.0, 1.0, -1.0, 2.5, -np.inf, np.nan])


def test_likeliest_is_a_choice_and_its_log_probability():
    logits = np.random.default_rng(0).normal(scale=5, size=(4, 3, 7)).astype(np.float32)
    best, logprob = ops.likeliest(jnp.asarray(logits))
    np.testing.assert_array_equal(best, logits.argmax(-1))
    probs = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(logprob, np.log(probs.max(-1) / probs.sum(-1)), rtol=1e-4, atol=1e-6)


@given(arrays.arrays(np.float32, (4, 5), elements=SCORES))
def test_argmax_is_the_first_maximum_and_nan_never_wins(scores):
    right = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=-1)
    np.testing.assert_array_equal(ops.argmax(jnp.asarray(scores)), right)


@given(arrays.arrays(bool, (4, 5)))
def test_first_is_the_index_of_the_first_true(hits):
    right = [row.tolist().index(True) if row.any() else 5 for row in hits]
    np.testing.assert_array_equal(ops.first(jnp.asarray(hits)), right)


@given(arrays.arrays(np.int32, (3, 4), elements=st.integers(-1, 5)))
def test_at_rows_reads_each_rows_own_places(index):
    x = np.arange(3 * 6 * 2).reshape(3, 6, 2)
    right = [[x[row, max(i, 0)] for i in index[row]] for row in range(3)]
    np.testing.assert_array_equal(ops.at_rows(jnp.asarray(x), jnp.asarray(index)), right)
    np.testing.assert_array_equal(
        ops.at_rows(jnp.asarray(x), jnp.asarray(index[:, 0])), [row[0] for row in right]
    )


@given(st.integers(1, 2), arrays.arrays(np.int32, (2, 3), elements=st.integers(0, 7)))
def test_put_rows_writes_what_fits_and_drops_the_rest(axis, numbers):
    shape = (3, 5, 2) if axis == 1 else (3, 2, 5)
    x, new = np.zeros(shape), 1 + np.arange(30).reshape(shape)
    start, count = numbers[0], np.minimum(numbers[1], 5)
    right = x.copy()
    for row in range(3):
        for i in range(count[row]):
            if start[row] + i < 5:
                to, of = ([row] + [slice(None)] * 2 for _ in range(2))
                to[axis], of[axis] = start[row] + i, i
                right[tuple(to)] = new[tuple(of)]
    found = ops.put_rows(*map(jnp.asarray, (x, start, new, count)), axis=axis)
    np.testing.assert_array_equal(found, right)


@given(arrays.arrays(bool, (3, 5)), st.integers(1, 7))
def test_pack_moves_what_is_kept_to_the_start(kept, width):
    x = np.arange(3 * 5).reshape(3, 5)
    right = [[*x[row, kept[row]].tolist(), *[-9] * width][:width] for row in range(3)]
    found = ops.pack(jnp.asarray(x), jnp.asarray(kept), width, -9)
    np.testing.assert_array_equal(found, right)

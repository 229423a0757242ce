"""Sums, maxima and collapses of alignments against their enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar import ctc
from tests.alignments import alignments, collapsed, loss_and_gradient, scores

BLANK, VOCAB, PLACES, LABELS, ROWS = 2, 5, 6, 4, 48
TOKENS = [0, 1, 3, 4]


def rows(scale=1.0):
    """Logits, places, labels and their count; what is past a count is anything."""
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=(ROWS, PLACES, VOCAB))).astype(np.float32)
    places = rng.integers(1, PLACES + 1, ROWS)
    labels = rng.choice(TOKENS[:3], (ROWS, LABELS))
    return logits, places, labels, rng.integers(0, LABELS + 1, ROWS)


def valid(places):
    return np.arange(PLACES) < places[:, None]


def test_a_collapse_is_groupby():
    symbols = np.random.default_rng(0).choice([BLANK, 0, 3, 4], (600, 7))
    symbols[0] = BLANK
    tokens, length = jax.jit(ctc.collapse, static_argnums=1)(symbols, BLANK)
    wanted = [collapsed(row, BLANK) for row in symbols]
    assert tokens.shape == symbols.shape
    assert {len(row) for row in wanted} == set(range(8))
    for row, n, right in zip(tokens.tolist(), length.tolist(), wanted, strict=True):
        assert row == right + [BLANK] * (7 - n)


def test_the_places_that_labels_need():
    _, places, labels, count = rows()
    needed = np.asarray(ctc.places_needed(jnp.asarray(labels), jnp.asarray(count)))
    for row, n in enumerate(count):
        label = labels[row, :n].tolist()
        assert len(alignments(label, needed[row], BLANK)) == 1 or not label
        assert not needed[row] or not len(alignments(label, needed[row] - 1, BLANK))
    assert ((needed > count) & (count > 0)).sum() > 5
    assert 5 < (needed > places).sum() < ROWS - 5


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_the_loss_is_the_sum_of_all_alignments_and_so_is_its_gradient(scale):
    logits, places, labels, count = rows(scale)

    @jax.jit
    def loss(logits):
        nll = ctc.negative_log_likelihood(logits, valid(places), labels, count, BLANK)
        possible = ctc.places_needed(labels, count) <= places
        return jnp.where(possible, nll, 0).sum(), nll

    (_, found), slope = jax.value_and_grad(loss, has_aux=True)(logits)
    assert np.isfinite(found).all()
    for row, (n, t) in enumerate(zip(count, places, strict=True)):
        nll, gradient = loss_and_gradient(logits[row, :t], labels[row, :n].tolist(), BLANK)
        assert not slope[row, t:].any()
        np.testing.assert_allclose(slope[row, :t], gradient, atol=2e-5)
        if np.isfinite(nll):
            np.testing.assert_allclose(found[row], nll, rtol=1e-5, atol=1e-5)
        else:
            assert found[row] > 1e4


@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_the_best_alignment_is_the_best_of_all(scale):
    logits, places, labels, count = rows(scale)
    best = jax.jit(ctc.best_alignment, static_argnums=4)
    found = best(logits, valid(places), labels, count, BLANK)
    compared = 0
    for row, (n, t) in enumerate(zip(count, places, strict=True)):
        paths = alignments(labels[row, :n].tolist(), t, BLANK)
        assert (found[row, t:] == BLANK).all()
        if len(paths):
            wanted = paths[scores(logits[row, :t], paths).argmax()]
            np.testing.assert_array_equal(found[row, :t], wanted)
            compared += len(paths) > 1
    assert compared > ROWS // 3

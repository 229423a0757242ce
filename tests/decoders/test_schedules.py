"""Schedules against the papers' rules in plain Python."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nar
from nar import NarError
from nar.decoders.schedules import Guess, MaskPredict, Quota, Threshold
from tests.canvases import masked_again

PLACES, ROWS = 9, 6
RULES = [
    (MaskPredict(calls=4), nar.MaskPredict(calls=4)),
    (MaskPredict(calls=1), nar.MaskPredict(calls=1)),
    (Quota(calls=4), nar.QuotaUnmasking(calls=4)),
    (Quota(calls=12), nar.QuotaUnmasking(calls=12)),
    (Threshold(threshold=0.6), nar.ThresholdUnmasking(threshold=0.6)),
    (Threshold(threshold=0.6, block=4), nar.ThresholdUnmasking(threshold=0.6, block=4)),
    (Threshold(threshold=0), nar.ThresholdUnmasking(threshold=0)),
    (Threshold(threshold=1), nar.ThresholdUnmasking(threshold=1)),
]


@pytest.mark.parametrize(("schedule", "decoder"), RULES, ids=str)
@given(seed=st.integers(0, 10_000))
def test_what_is_masked_again(schedule, decoder, seed):
    """Call by call until nothing is, with ties among the scores, on rows of all sizes."""
    random = np.random.default_rng(seed)
    size = random.integers(0, PLACES + 1, ROWS)
    valid = np.arange(PLACES) < size[:, None]
    masked, score, calls = valid, np.zeros((ROWS, PLACES)), 0
    while masked.any():
        calls += 1
        new = np.log(random.integers(1, 11, (ROWS, PLACES)) / 10)
        score = np.where(masked, new, score)
        arrays = (np.full(ROWS, calls), score, masked, valid)
        again = np.asarray(schedule(Guess(*map(jnp.asarray, arrays))))
        for row, n in enumerate(size):
            places = np.flatnonzero(masked[row]).tolist()
            right = masked_again(decoder, calls, n, score[row], places)
            assert np.flatnonzero(again[row]).tolist() == sorted(right), (calls, row)
        masked = again
    assert calls <= schedule.most(PLACES)


@pytest.mark.parametrize(
    ("n", "calls", "left"),
    [(10, 5, [8, 6, 4, 2, 0]), (7, 3, [4, 2, 0]), (3, 10, [2, 2, 2, 1, 1, 1, 0])],
)
def test_the_masks_of_mask_predict(n, calls, left):
    """n (1 - t / T), rounded down."""
    valid = jnp.ones((1, n), bool)
    score = jnp.zeros((1, n))
    schedule = MaskPredict(calls=calls)
    found = [
        int(schedule(Guess(jnp.array([t]), score, valid, valid)).sum())
        for t in range(1, len(left) + 1)
    ]
    assert found == left


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (MaskPredict, {"calls": 0}, "calls=0"),
        (Quota, {"calls": 2.5}, "calls=2.5"),
        (Threshold, {"threshold": 1.5}, r"threshold=1.5: it must be in \[0, 1\]"),
        (Threshold, {"threshold": True}, "threshold=True"),
        (Threshold, {"threshold": float("nan")}, "threshold=nan"),
        (Threshold, {"block": 0}, "block=0"),
    ],
)
def test_bad_options(schedule, options, message):
    with pytest.raises(NarError, match=message):
        schedule(**options)

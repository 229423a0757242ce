"""Measured acceptances against counts of accepted tokens."""

import jax
import numpy as np
import pytest

import nar
from nar import Bundle, NarError, Source, SpeculativeDecoding
from nar.bench.acceptance import acceptance_rates
from nar.testing import random_model

SOURCE = Source.of([[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10]])


def test_rates_are_shares_of_what_was_tried():
    target = random_model(encoder=False, seed=3)
    draft = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(1), x.shape), target)
    bundle = Bundle.of(target=target, draft=draft)
    decoder = SpeculativeDecoding(max_length=30, guesses=2, branches="3-2")
    rates = acceptance_rates(decoder, bundle, [SOURCE])
    stats = nar.decode(decoder, bundle, SOURCE).stats
    # A level is accepted as often as any of the siblings, of which one is right at most.
    _, one, two, three = np.asarray(stats.accepted)
    assert two + three > 5
    assert sum(rates[0]) == pytest.approx((two + three) / (one + two + three), abs=0.1)
    assert sum(rates[1]) == pytest.approx(three / (two + three), abs=0.2)
    assert rates[1][2] == 0
    with pytest.raises(NarError, match="has no fixed tree"):
        acceptance_rates(SpeculativeDecoding(nodes=4), bundle, [SOURCE])

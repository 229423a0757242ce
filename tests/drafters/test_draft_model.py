"""How a draft model draws siblings, and how much of a tree it is fed once."""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar.drafters.draft_model import DraftModel, draw
from nar.testing.oracles import chi_square


def test_siblings_are_drawn_without_replacement():
    """Ordered pairs and single draws, against their exact probabilities."""
    rows, random = 20_000, np.random.default_rng(0)
    q = np.array(jax.nn.log_softmax(random.normal(size=(2, 4)) * 1.5))
    parent, rank = np.array([0, 0, 1]), np.array([0, 1, 0])
    keys = jax.random.split(jax.random.key(0), rows)
    tokens, left = jax.device_get(draw(jnp.tile(q, (rows, 1, 1)), parent, rank, keys))
    p = np.exp(q)
    pairs = {
        (a, b): np.log(p[0, a] * p[0, b] / (1 - p[0, a]))
        for a, b in itertools.permutations(range(4), 2)
    }
    for seen, expected in (
        (Counter(map(tuple, tokens[:, :2].tolist())), pairs),
        (Counter((t,) for t in tokens[:, 2].tolist()), {(t,): q[1, t] for t in range(4)}),
    ):
        p_value, worst = chi_square(seen, expected)
        assert p_value > 1e-3, worst
    for row in range(5):
        without = np.where(np.arange(4) == tokens[row, 0], -np.inf, q[0])
        np.testing.assert_array_equal(left[row], np.stack([q[0], without, q[1]]))


def test_siblings_that_the_cuts_left_out_are_no_proposals():
    q = jnp.log(jnp.array([[[0.0, 0.7, 0.0, 0.3]]]))
    keys = jax.random.split(jax.random.key(0), 1)
    tokens, _ = draw(q, np.zeros(3, int), np.arange(3), keys)
    assert sorted(tokens[0].tolist()) == [-1, 1, 3]
    assert tokens[0, 2] == -1


@pytest.mark.parametrize(
    ("branches", "guesses", "trunk"),
    [(1, 4, 3), (1, 1, 0), ("2", 3, 0), ("1-1-2-1", 4, 2), ("1-2-1", 3, 1), ("2-1.0-1", 3, 0)],
)
def test_what_stands_before_any_branch_is_the_trunk(branches, guesses, trunk):
    assert DraftModel(guesses=guesses, branches=branches).trunk == trunk

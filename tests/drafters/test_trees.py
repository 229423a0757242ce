"""Trees as text, by hand; and the best tree, against every tree there is."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nar import NarError
from nar.drafters.trees import best_tree, expected_length, read_tree, write_tree


@pytest.mark.parametrize(
    ("branches", "depth", "parents"),
    [
        (1, 3, (-1, 0, 1, 2)),
        ("2", 2, (-1, 0, 0, 1, 1, 2, 2)),
        ("3-1", 2, (-1, 0, 0, 0, 1, 2, 3)),
        ("2-1", 3, (-1, 0, 0, 1, 2, 3, 4)),
        ("3-2.0.1", 2, (-1, 0, 0, 0, 1, 1, 3)),
        ("3-1.0", 3, (-1, 0, 0, 0, 1, 4)),
        ("1-2-0.1", 3, (-1, 0, 1, 1, 3)),
    ],
)
def test_a_tree_as_text(branches, depth, parents):
    assert read_tree(branches, depth) == parents
    assert read_tree(write_tree(parents), depth) == parents


@pytest.mark.parametrize(
    ("branches", "depth", "message"),
    [
        ("2-2-2", 2, "has 3 levels, and guesses=2"),
        ("two", 2, "'two' is no level for 1 nodes; write"),
        ("", 2, "'' is no level"),
        (-1, 2, "'' is no level"),
        (2.5, 2, "'2.5' is no level for 1 nodes"),
        (True, 2, "'True' is no level"),
        ("2-1.1.1", 2, "'1.1.1' is no level for 2 nodes"),
        (0, 2, "level 1 of the tree must have a node"),
        ("2-0", 3, "level 2 of the tree must have a node"),
        (9, 12, "and the tree at most 1024"),
        ("1", 0, "guesses=0: it must be a whole number of at least 1"),
    ],
)
def test_text_that_is_no_tree(branches, depth, message):
    with pytest.raises(NarError, match=message):
        read_tree(branches, depth)


@functools.cache
def forests(nodes, depth, rank, most_depth, most_rank):
    """Every forest of so many nodes: each tree as the tuple of its subtrees."""
    if not nodes:
        return [()]
    if depth == most_depth or rank == most_rank:
        return []
    return [
        (first, *others)
        for below in range(nodes)
        for first in forests(below, depth + 1, 0, most_depth, most_rank)
        for others in forests(nodes - 1 - below, depth, rank + 1, most_depth, most_rank)
    ]


def worth(forest, rates, depth=0):
    """The expected number of accepted guesses of a forest."""
    return sum(
        rates[depth][rank] * (1 + worth(tree, rates, depth + 1)) for rank, tree in enumerate(forest)
    )


rate = st.floats(0, 1, width=16)


@given(st.lists(st.lists(rate, min_size=3, max_size=3), min_size=3, max_size=3), st.integers(1, 6))
def test_the_best_of_all_trees(rates, guesses):
    """Rates need not fall with the rank, as measured ones may not."""
    found = best_tree(rates, guesses)
    assert len(found) == guesses + 1
    best = max(worth(forest, rates) for forest in forests(guesses, 0, 0, 3, 3))
    np.testing.assert_allclose(expected_length(found, rates), best, rtol=1e-6, atol=1e-9)


def test_a_best_tree_by_hand():
    rates = [[0.8, 0.15], [0.5, 0.3]]
    assert best_tree(rates, 1) == (-1, 0)
    assert best_tree(rates, 3) == (-1, 0, 1, 1)  # 0.8 + 0.4 + 0.24, and not 0.8 + 0.4 + 0.15
    assert expected_length((-1, 0, 1, 1), rates) == pytest.approx(0.8 + 0.4 + 0.24)
    with pytest.raises(NarError, match="guesses=7: these rates are of fewer"):
        best_tree(rates, 7)

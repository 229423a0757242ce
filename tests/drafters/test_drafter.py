"""Layouts and outcomes, hand-worked."""

import jax.numpy as jnp
import numpy as np

from nar.drafters import Draft, Layout, Outcome


def test_chain():
    layout = Layout.chain(2)
    np.testing.assert_array_equal(layout.offsets, [0, 1, 2])
    np.testing.assert_array_equal(layout.mask, [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(layout.paths, [[0, 1, 2]])
    assert layout.is_chain
    assert not layout.replace(paths=jnp.asarray(layout.paths)).is_chain  # a row may have another


def test_tree():
    layout = Layout.tree([-1, 0, 0, 1, 1, 4])
    np.testing.assert_array_equal(layout.offsets, [0, 1, 1, 2, 2, 3])
    ancestors = {0: [0], 1: [0, 1], 2: [0, 2], 3: [0, 1, 3], 4: [0, 1, 4], 5: [0, 1, 4, 5]}
    for node, seen in ancestors.items():
        assert np.flatnonzero(layout.mask[node]).tolist() == seen
    np.testing.assert_array_equal(layout.paths, [[0, 2, -1, -1], [0, 1, 3, -1], [0, 1, 4, 5]])
    assert not layout.is_chain


def test_a_tree_without_branches_is_a_chain():
    chain, tree = Layout.chain(3), Layout.tree([-1, 0, 1, 2])
    for name in ("offsets", "mask", "paths"):
        np.testing.assert_array_equal(getattr(chain, name), getattr(tree, name))
    assert tree.is_chain


def test_the_last_accepted_node():
    draft = Draft.chain(jnp.array([5, 6, 7]), jnp.zeros((3, 2), jnp.int32))
    np.testing.assert_array_equal(draft.tokens[:, 0], [5, 6, 7])
    outcome = Outcome(
        draft=draft,
        hidden=jnp.zeros((3, 3, 1)),
        best=jnp.zeros((3, 3), jnp.int32),
        nodes=jnp.array([[0, 2, -1], [0, 1, 2], [0, 1, 2]]),
        tokens=jnp.zeros((3, 3), jnp.int32),
        count=jnp.array([2, 1, 0]),
        pending=jnp.zeros(3, jnp.int32),
    )
    x = jnp.arange(9).reshape(3, 3)
    np.testing.assert_array_equal(outcome.last(x), [2, 3, 6])


def test_a_tree_a_row():
    """Made of who descends from whom, with every path from the root as a candidate."""
    trees = [Layout.tree([-1, 0, 0, 1, 1]), Layout.tree([-1, 0, 1, 2, 2])]
    layout = Layout.of(jnp.stack([jnp.asarray(tree.mask) for tree in trees]), 3)
    np.testing.assert_array_equal(layout.offsets, [[0, 1, 1, 2, 2], [0, 1, 2, 3, 3]])
    paths = [[0, -1, -1, -1], [0, 1, -1, -1], [0, 2, -1, -1], [0, 1, 3, -1], [0, 1, 4, -1]]
    np.testing.assert_array_equal(layout.paths[0], paths)
    np.testing.assert_array_equal(layout.paths[1][4], [0, 1, 2, 4])
    np.testing.assert_array_equal(layout.parents, [[-1, 0, 0, 1, 1], [-1, 0, 1, 2, 2]])
    assert layout.candidates.tolist() == [1, 2, 3, 4]


def test_parents_and_candidates_are_those_on_paths():
    layout = Layout(
        offsets=np.array([0, 1, 2, 1, 2]),
        mask=np.eye(5, dtype=bool),
        paths=np.array([[0, 3, 4], [0, 3, -1]]),
    )
    assert layout.parents.tolist() == [-1, -1, -1, 0, 3]
    assert layout.candidates.tolist() == [3, 4]
    assert Layout.chain(0).parents.tolist() == [-1]
    assert Layout.chain(0).candidates.tolist() == []

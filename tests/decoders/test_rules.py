"""What rules make of logits and drafts, with probabilities known by hand."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nar import NarError
from nar.decoders.rules import Exact, Sampling
from nar.drafters import Draft, Layout
from nar.testing.oracles import chi_square

LOGITS = arrays.arrays(np.float32, (3, 7), elements=st.floats(-8, 8, width=16), unique=True)


@given(
    LOGITS,
    st.floats(0.2, 3.0),
    st.one_of(st.none(), st.integers(1, 9)),
    st.one_of(st.none(), st.floats(0.05, 1.0)),
)
def test_warp(warp, logits, temperature, top_k, top_p):
    rule = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    found = np.asarray(rule.warp(jnp.asarray(logits)))
    right = warp(temperature, top_k, top_p)(logits.astype(np.float64))
    edge = cut_at_an_edge(logits, temperature, top_k, top_p)
    np.testing.assert_allclose(found[~edge], right[~edge], rtol=1e-4, atol=1e-4)


def cut_at_an_edge(logits, temperature, top_k, top_p):
    """Rows whose nucleus ends where rounding decides."""
    if top_p is None:
        return np.zeros(len(logits), bool)
    ordered = -np.sort(-logits.astype(np.float64) / temperature, axis=-1)[:, :top_k]
    total = np.cumsum(np.exp(ordered) / np.exp(ordered).sum(-1, keepdims=True), axis=-1)
    return (np.abs(total - top_p) < 1e-5).any(-1)


CLOSE = np.float32([[2, 31.4, np.nextafter(np.float32(31.4), 0), -8], [5, -1e30, 5, 5]])
"""Two logits that differ in their last bit, and three that do not differ."""


def written(verdict):
    return [tokens[:n].tolist() for tokens, n in zip(verdict.tokens, verdict.count, strict=True)]


@pytest.mark.parametrize("temperature", [0.1, 1e-3, 1e-6, 1e-8, 1.1e-9])
@pytest.mark.parametrize("cut", [{}, {"top_p": 0.9}], ids=["all", "nucleus"])
def test_warp_under_jit_when_it_is_cold(warp, temperature, cut):
    logits = np.float32(np.random.default_rng(0).normal(scale=30, size=(40, 7)))
    for x in (logits, CLOSE):
        found = jax.jit(Sampling(temperature=temperature, **cut).warp)(x)
        right = warp(temperature, **cut)(x.astype(np.float64))
        np.testing.assert_allclose(np.exp(found), np.exp(right), atol=1e-5)


@pytest.mark.parametrize("temperature", [1e-9, 1e-12, 1e-38, 1e-45, 5e-324])
def test_the_limit_of_the_cold_is_greedy(temperature):
    """Of equal logits the first, whatever is drafted, and whether it was drawn."""
    logits = jnp.asarray(np.stack([CLOSE, CLOSE[::-1]], 1))  # [rows, nodes, vocab]
    rule, keys = Sampling(temperature=temperature), jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(np.exp(rule.warp(logits[:, 0])).argmax(-1), [1, 0])
    run = jax.jit(lambda rule, *arguments: rule(*arguments), static_argnums=0)
    for guess in range(4):
        for q in (None, logits, rule.warp(logits)):
            draft = Draft.chain(jnp.zeros(2, int), jnp.full((2, 1), guess), q)
            right = written(Exact()(logits, draft, None))
            assert written(run(rule, logits, draft, keys)) == right


def exact(tokens, best, layout):
    logits = jax.nn.one_hot(jnp.array([best]), 9)
    return Exact()(logits, Draft(jnp.array([tokens]), layout), None)


def test_exact_accepts_the_longest_right_candidate():
    tree = Layout.tree([-1, 0, 0, 1, 1, 2])  # paths 0-1-3, 0-1-4, 0-2-5
    for tokens, best, count, written in [
        ([8, 1, 2, 3, 4, 5], [1, 4, 0, 0, 7, 0], 3, [1, 4, 7]),  # by 1, then 4
        ([8, 1, 2, 3, 4, 5], [2, 0, 5, 0, 0, 6], 3, [2, 5, 6]),  # by 2, then 5
        ([8, 1, 2, 3, 4, 5], [1, 6, 0, 0, 0, 0], 2, [1, 6]),  # 1, then none
        ([8, 1, 2, 3, 4, 5], [7, 3, 5, 0, 0, 0], 1, [7]),  # none, though grandchildren match
        ([8, -1, 2, 3, 4, 5], [2, 0, 8, 0, 0, 0], 2, [2, 8]),  # -1 proposes nothing
    ]:
        verdict = exact(tokens, best, tree)
        assert verdict.count.tolist() == [count]
        assert verdict.tokens[0, :count].tolist() == written
        assert verdict.best.tolist() == [best]
        nodes = np.asarray(tree.paths)[int(verdict.path[0])]
        assert [best[n] for n in nodes[:count]] == written


def test_exact_never_accepts_nothing_for_pad():
    """-1 is clamped to token 0 on its way into the model, never compared as 0."""
    assert exact([8, -1, -1], [0, 0, 0], Layout.chain(2)).count.tolist() == [1]


@pytest.mark.parametrize("drawn", [False, True])
def test_sampling_draws_from_the_model(drawn):
    """Two tokens after node 0 of a tree, 20,000 times: the joint distribution is the model's."""
    random = np.random.default_rng(0)
    rows, vocab = 20_000, 4
    logits = random.normal(size=(7, vocab)).astype(np.float32) * 1.5
    logits[2] = logits[1]  # what follows a token does not depend on the node it stands at ...
    tokens = np.array([0, 1, 1, 3, 2, 0, -1])  # ... of which two say the same
    tree = Layout.tree([-1, 0, 0, 0, 1, 2, 3])
    draft = Draft(jnp.tile(jnp.asarray(tokens), (rows, 1)), tree)
    if drawn:
        q = jnp.asarray(random.normal(size=(7, vocab)).astype(np.float32))
        drawn_tokens = jax.random.categorical(jax.random.key(5), q, shape=(rows, 7))
        draft = Draft(drawn_tokens, tree, jnp.broadcast_to(q, (rows, 7, vocab)))
    keys = jax.random.split(jax.random.key(1), rows)
    verdict = jax.device_get(Sampling()(jnp.broadcast_to(logits, (rows, 7, vocab)), draft, keys))
    said = np.asarray(draft.tokens)
    assert (verdict.count >= 1).all()
    p = np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    first = Counter((int(t),) for t in verdict.tokens[:, 0])
    p_value, worst = chi_square(first, {(t,): float(np.log(p[0, t])) for t in range(vocab)})
    assert p_value > 1e-3, worst
    # After a token was accepted at node n, the next is drawn from node n's distribution.
    paths = np.asarray(tree.paths)[verdict.path]
    for node in (1, 2, 3):
        here = (verdict.count >= 2) & (paths[:, 1] == node)
        if here.sum() < 500:
            continue
        np.testing.assert_array_equal(verdict.tokens[here, 0], said[here, node])
        second = Counter((int(t),) for t in verdict.tokens[here, 1])
        p_value, worst = chi_square(second, {(t,): float(np.log(p[node, t])) for t in range(vocab)})
        assert p_value > 1e-3, (node, worst)


def test_sampling_takes_what_it_cannot_refuse_and_refuses_what_cannot_be():
    rows = 500
    keys = jax.random.split(jax.random.key(0), rows)
    sure = jnp.broadcast_to(jnp.array([0.0, -jnp.inf, -jnp.inf]), (rows, 2, 3))
    for token, count in ((0, 2), (1, 1)):
        draft = Draft.chain(jnp.zeros(rows, int), jnp.full((rows, 1), token))
        verdict = Sampling()(sure, draft, keys)
        assert (verdict.count == count).all()
        assert (verdict.tokens[:, :count] == 0).all()


def test_sampling_refuses_what_is_in_no_vocabulary():
    """A source's token may be guessed that the model cannot write."""
    rows, logits = 500, jnp.zeros((500, 2, 3))
    draft = Draft.chain(jnp.zeros(rows, int), jnp.full((rows, 1), 7))
    verdict = Sampling()(logits, draft, jax.random.split(jax.random.key(0), rows))
    assert (verdict.count == 1).all()
    assert set(np.asarray(verdict.tokens[:, 0]).tolist()) == {0, 1, 2}


def test_bad_options():
    for options, message in [
        ({"temperature": 0.0}, "temperature=0.0: it must be a finite number above 0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf: it must be a finite number above 0"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"top_k": 0}, "top_k=0: it must be a whole number of at least 1"),
        ({"top_p": 0.0}, r"top_p=0.0: it must be in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_p": "most"}, "top_p='most'"),
    ]:
        with pytest.raises(NarError, match=message):
            Sampling(**options)

"""The one loop, with drafters that only tests have: whatever they say, the output is greedy's."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import nar
from nar import Bundle, Needs, Source
from nar.core import role
from nar.decoders import DraftVerify
from nar.decoders.rules import Exact, Rule, Sampling
from nar.drafters import Draft, Drafter, Layout
from nar.ops import at_rows, fold
from nar.testing import check_decoder, oracles, random_model

LENGTH = 12
CHAIN = (-1, 0, 1, 2, 3)
TREE = (-1, 0, 0, 1, 1, 2, 3, 6)
BUSH = (-1, 0, 0, 0, 1, 2, 3, 4)


# ----------------------------------------------------------------------- drafters, for tests alone
@dataclasses.dataclass(frozen=True, kw_only=True)
class Told(Drafter):
    """Proposes what the table `told [batch, ranks, places]` in the bundle says.

    A node takes the rank that it has among its parent's children. Several trees make a layout with
    a batch axis: row b has tree b modulo their number.
    """

    trees: tuple[tuple[int, ...], ...] = (CHAIN,)

    @property
    def layouts(self):
        return [Layout.tree(tree) for tree in self.trees]

    @property
    def depth(self):
        return max(layout.paths.shape[1] for layout in self.layouts) - 1

    def init(self, model, source, max_length, key):
        return jnp.zeros_like(source.length)

    def propose(self, model, at, pending, key):
        told, rows = jnp.asarray(role(model, "told")), np.arange(pending.shape[0])
        rank = np.array([[tree[:i].count(p) for i, p in enumerate(tree)] for tree in self.trees])
        if len(self.trees) == 1:
            layout, rank = self.layouts[0], rank[0]
        else:
            which = jnp.asarray(rows % len(self.trees))
            paths = max(layout.paths.shape[0] for layout in self.layouts)
            layouts = [
                Layout(
                    x.offsets,
                    x.mask,
                    np.pad(
                        x.paths,
                        ((0, paths - len(x.paths)), (0, self.depth + 1 - x.paths.shape[1])),
                        constant_values=-1,
                    ),
                )
                for x in self.layouts
            ]
            layout = jax.tree.map(lambda *x: jnp.asarray(np.stack(x))[which], *layouts)
            rank = jnp.asarray(rank)[which]
        place = at[:, None] + layout.offsets - 1
        tokens = told[rows[:, None], rank, place].at[:, 0].set(pending)
        return Draft(tokens, layout), at

    def observe(self, model, at, outcome):
        return at + outcome.count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window(Drafter):
    """A window of nodes on no path finds the next call's candidate, as lookahead's does (N = 2)."""

    width: int

    @property
    def depth(self):
        return self.width

    def init(self, model, source, max_length, key):
        return jnp.full((source.tokens.shape[0], 2, self.width), 7)

    def propose(self, model, carry, pending, key):
        w = self.width
        sees = np.zeros((1 + 2 * w, 1 + 2 * w), bool)
        for part in (range(1, 1 + w), range(1 + w, 1 + 2 * w)):
            nodes = [0, *part]
            sees[np.ix_(nodes, nodes)] |= np.tri(1 + w, dtype=bool)
        layout = Layout(np.r_[0 : w + 1, 1 : w + 1], sees, np.r_[0, w + 1 : 2 * w + 1][None])
        return Draft(
            jnp.concatenate([pending[:, None], carry.reshape(-1, 2 * w)], 1), layout
        ), carry

    def observe(self, model, carry, outcome):
        after = jnp.minimum(jnp.arange(self.width) + outcome.count[:, None], self.width)
        found = at_rows(outcome.best, after)
        return jnp.stack([found, found], axis=1)


class Small(struct.PyTreeNode):
    """What a draft model carries: its context, and what was written that it has not been fed."""

    context: Any
    backlog: Any
    behind: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drafted(Drafter):
    """A small model drafts `depth` tokens, greedily or by sampling (Leviathan et al. 2023)."""

    guesses: int
    sample: bool = False

    @property
    def depth(self):
        return self.guesses

    @property
    def needs(self):
        return {"draft": Needs(causal=True)}

    def init(self, model, source, max_length, key):
        context, pending = role(model, "draft").begin(source, max_length + self.guesses)
        return Small(context, jnp.stack([pending, pending], 1), jnp.ones_like(pending))

    def propose(self, model, carry, pending, key):
        small, context, tokens, logits = role(model, "draft"), carry.context, [], []
        feed, count = carry.backlog, carry.behind
        for i in range(self.guesses):
            hidden, fresh = small.extend(feed, context)
            context = context.commit(fresh, count)
            logits.append(small.logits(at_rows(hidden, count - 1)[:, None])[:, 0])
            token = jnp.argmax(logits[-1], -1)
            if self.sample:
                token = jax.vmap(jax.random.categorical)(fold(key, i), logits[-1])
            tokens.append(token)
            feed, count = token[:, None], jnp.ones_like(count)
        drawn = jnp.stack([logits[0], *logits], axis=1) if self.sample else None
        work = {"draft": (self.guesses, self.guesses + 1)}
        draft = Draft.chain(pending, jnp.stack(tokens, axis=1), drawn, work)
        return draft, carry.replace(context=context)

    def observe(self, model, carry, outcome):
        """Fed were the backlog and all guesses but the last; kept is what was accepted of them."""
        start = carry.context.length - self.guesses
        kept = jnp.minimum(outcome.count, self.guesses)
        whole = outcome.count > self.guesses
        last = jnp.where(whole, outcome.draft.tokens[:, -1], outcome.pending)
        return Small(
            carry.context.rewind(start + kept),
            jnp.stack([last, outcome.pending], 1),
            jnp.where(whole, 2, 1),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Siblings(Drafter):
    """Three tokens for one place, drawn from a fixed `q` without replacement, each with a child.

    The distribution that the second was drawn from is `q` without the first, and so on.
    """

    @property
    def depth(self):
        return 2

    def init(self, model, source, max_length, key):
        return ()

    def propose(self, model, carry, pending, key):
        q = jnp.broadcast_to(role(model, "q"), (pending.shape[0], *role(model, "q").shape))
        tokens, logits = [pending], [q]
        for i in range(3):
            tokens.append(jax.vmap(jax.random.categorical)(fold(key, i), q))
            logits.append(q)
            q = jnp.where(jnp.arange(q.shape[-1]) == tokens[-1][:, None], -jnp.inf, q)
        for i in range(3, 6):
            tokens.append(jax.vmap(jax.random.categorical)(fold(key, i), logits[0]))
            logits.append(logits[0])
        layout = Layout.tree([-1, 0, 0, 0, 1, 2, 3])
        return Draft(jnp.stack(tokens, 1), layout, jnp.stack(logits, 1)), carry

    def observe(self, model, carry, outcome):
        return carry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loop(DraftVerify):
    """Any drafter, any rule."""

    who: Drafter
    judge: Rule = Exact()

    @property
    def drafter(self):
        return self.who

    @property
    def rule(self):
        return self.judge


# ---------------------------------------------------------------------------------- what they give
@pytest.fixture(scope="module")
def source():
    return Source.of([[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10], [9, 9, 8], [6, 5], [11], [8]])


@pytest.fixture(scope="module")
def model(encoder):
    return random_model(encoder=encoder, seed=1)


@pytest.fixture(scope="module")
def truth(model, source):
    return oracles.greedy(model, source, LENGTH)


def table(truth, seed, right=0.7, silent=0.1):
    """Three ranks of guesses: the truth, spoilt here and there, where known; -1 now and then."""
    random = np.random.default_rng(seed)
    told = random.integers(0, 13, (len(truth.length), 3, LENGTH + 8))
    told[:, :, :LENGTH] = np.where(
        random.random((len(truth.length), 3, LENGTH)) < right,
        truth.tokens[:, None],
        told[:, :, :LENGTH],
    )
    return np.where(random.random(told.shape) < silent, -1, told).astype(np.int32)


def walk(told, tree, truth, length):
    """Counts of accepted tokens, call by call, for one row: the longest path that is the truth."""
    nodes = range(1, len(tree))
    rank = [tree[:i].count(p) for i, p in enumerate(tree)]
    depth = [0] * len(tree)
    for i in nodes:
        depth[i] = depth[tree[i]] + 1
    at, counts = 0, []
    while at < length:
        right = {0}
        for i in nodes:
            place = at + depth[i] - 1
            if tree[i] in right and place < length and told[rank[i], place] == truth[place]:
                right.add(i)
        counts.append(min(max(depth[i] for i in right) + 1, length - at))
        at += counts[-1]
    return counts


@pytest.mark.parametrize(
    "trees", [(CHAIN,), (TREE,), (TREE, BUSH, (-1, *range(7)))], ids=["chain", "tree", "tree a row"]
)
def test_told(trees, model, source, truth):
    decoder = Loop(who=Told(trees=trees), max_length=LENGTH, scores=True)
    plain = nar.decode(nar.Greedy(max_length=LENGTH, scores=True), model, source)
    for seed, right, silent in [(0, 0.7, 0.1), (1, 1.0, 0.0), (2, 0.0, 0.0), (3, 1.0, 1.0)]:
        told = table(truth, seed, right, silent)
        output = nar.decode(decoder, Bundle.of(target=model, told=told), source)
        np.testing.assert_array_equal(output.tokens, truth.tokens)
        np.testing.assert_array_equal(output.length, truth.length)
        np.testing.assert_allclose(output.scores, plain.scores, rtol=1e-5, atol=1e-5)
        counts = [
            walk(told[row], trees[row % len(trees)], truth.tokens[row], truth.length[row])
            for row in range(len(truth.length))
        ]
        np.testing.assert_array_equal(output.stats.live, list(map(len, counts)))
        most = len(output.stats.accepted)
        histogram = np.bincount(np.concatenate(counts), minlength=most)
        np.testing.assert_array_equal(output.stats.accepted, histogram)
        assert output.stats.calls == {"target": max(map(len, counts))}
        if silent == 1.0:
            np.testing.assert_array_equal(output.stats.live, truth.length)


def test_told_keeps_the_contract(model, source, truth):
    """But for point 2: its table belongs to the batch."""
    bundle = Bundle.of(target=model, told=table(truth, 0))
    decoder = Loop(who=Told(trees=(TREE, BUSH)), max_length=LENGTH)
    check_decoder(decoder, bundle, sources=[source], points=(1, 5, 6), modes=())


def test_nodes_on_no_path_are_no_candidates(model, source):
    decoder = Loop(who=Window(width=4), max_length=LENGTH)
    check_decoder(decoder, model, sources=[source], points=(1, 2, 5, 6))
    output = nar.decode(decoder, model, source)
    np.testing.assert_array_equal(output.stats.positions["target"], 9 * output.stats.live)
    assert output.stats.live.sum() < output.length.sum()


@pytest.mark.rest
def test_a_draft_model(model, source, truth, encoder):
    decoder = Loop(who=Drafted(guesses=3), max_length=LENGTH)
    other = random_model(encoder=encoder, seed=50, decoder_layers=1)
    bundle = Bundle.of(target=model, draft=other)
    check_decoder(decoder, bundle, sources=[source], points=(1, 2, 5, 6))

    # The target drafts for itself: all guesses are accepted, and the rewinds are always right.
    output = nar.decode(decoder, Bundle.of(target=model, draft=model), source)
    np.testing.assert_array_equal(output.tokens, truth.tokens)
    np.testing.assert_array_equal(output.stats.live, -(-truth.length // 4))
    calls = int(output.stats.live.max())
    assert output.stats.calls == {"target": calls, "draft": 3 * calls}
    for name in ("target", "draft"):
        np.testing.assert_array_equal(output.stats.positions[name], 4 * output.stats.live)


def test_a_draft_model_that_lacks_or_outgrows(model, source):
    decoder = Loop(who=Drafted(guesses=3), max_length=LENGTH)
    with pytest.raises(nar.IncompatibleModel, match="'draft' model too"):
        nar.decode(decoder, model, source)
    short = random_model(max_positions=8)
    with pytest.raises(nar.NarError, match="the draft model has 8 positions"):
        nar.decode(decoder, Bundle.of(target=model, draft=short), source)


# -------------------------------------------------------------------------------------- sampling
@pytest.mark.parametrize("trees", [(CHAIN,), (BUSH, TREE)], ids=["chain", "tree a row"])
def test_guesses_that_were_not_drawn_leave_the_distribution(trees, model, source, truth):
    decoder = Loop(who=Told(trees=trees), judge=Sampling(), max_length=LENGTH)
    bundle = Bundle.of(target=model, told=table(truth, 0))
    report = check_decoder(decoder, bundle, sources=[source], points=(1,))
    assert min(report.p_values) > 1e-3


@pytest.mark.rest
def test_guesses_of_a_draft_model_leave_the_distribution(model, source, encoder, warp):
    rule = Sampling(temperature=0.7, top_k=8)
    decoder = Loop(who=Drafted(guesses=2, sample=True), judge=rule, max_length=LENGTH)
    other = random_model(encoder=encoder, seed=50, decoder_layers=1)
    bundle = Bundle.of(target=model, draft=other)
    check_decoder(decoder, bundle, sources=[source], points=(1,), warp=warp(0.7, 8))


def test_siblings_without_replacement_leave_the_distribution(model, source):
    q = np.random.default_rng(0).normal(size=13).astype(np.float32)
    decoder = Loop(who=Siblings(), judge=Sampling(), max_length=LENGTH)
    bundle = Bundle.of(target=model, q=q)
    check_decoder(decoder, bundle, sources=[source], points=(1,))


@pytest.mark.rest
def test_a_model_that_drafts_for_itself_is_never_rejected(model, source):
    decoder = Loop(who=Drafted(guesses=3, sample=True), judge=Sampling(), max_length=LENGTH)
    output = nar.decode(decoder, Bundle.of(target=model, draft=model), source)
    np.testing.assert_array_equal(output.stats.live, -(-output.length // 4))

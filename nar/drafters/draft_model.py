"""Guesses of a smaller model: speculative decoding (Leviathan et al. 2023; Chen et al. 2023).

The smaller model is another one, or the target's own first layers: an early exit (Elhoushi et al.
2024, https://arxiv.org/abs/2404.16710), here as it is, without any training. It guesses a tree,
level by level; a chain is the tree without branches.
"""

import abc
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key

from nar.core import TARGET, Needs, role
from nar.drafters.drafter import Bools, Draft, Drafter, Layout
from nar.drafters.trees import read_tree
from nar.errors import at_least
from nar.model.fitted import Fitted
from nar.ops import argmax, at_rows, fold

if TYPE_CHECKING:
    from nar.decoders.rules import Sampling

DRAFT = "draft"
"""The role of the smaller model."""


class Carry(struct.PyTreeNode):
    """The draft model's context, and what was written that it has not been fed.

    Attributes:
        context: of the draft model.
        backlog: `[batch, 2]`, tokens to feed next.
        behind: `[batch]`, how many of them: two after a draft that was accepted down to its last
            level, which was never fed.
    """

    context: Any
    backlog: Int[Array, "batch 2"]
    behind: Int[Array, " batch"]


class Drafted(struct.PyTreeNode):
    """What the draft model made of a proposal, until it is known what was accepted.

    Attributes:
        context: the pending token and the trunk are committed.
        fresh: what it was fed after them; None: nothing.
        place: `[batch, nodes]`, where every node stands in `fresh`.
    """

    context: Any
    fresh: Any
    place: Int[Array, "batch nodes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDrafter(Drafter):
    """A smaller model guesses a tree, one call a level.

    Attributes:
        guesses: depth of the tree, and calls of the draft model for one of the target.
        layers: an early exit of the target after so many decoder layers drafts; None: the bundle's
            draft model does.
        sampling: the temperature and the cuts under which tokens are drawn, or under which their
            probabilities are compared; None: the draft model's likeliest ones.
    """

    guesses: int
    layers: int | None = None
    sampling: "Sampling | None" = None

    def __post_init__(self):
        at_least("guesses", self.guesses, 1)
        if self.layers is not None:
            at_least("layers", self.layers, 1)

    @property
    def depth(self):
        """A level for each call of the draft model."""
        return self.guesses

    @property
    def needs(self):
        """A second causal model, or an early exit of the first."""
        if self.layers is None:
            return {DRAFT: Needs(causal=True, ahead=self.guesses)}
        return {TARGET: Needs(causal=True, exit=self.layers, ahead=self.guesses)}

    @property
    def roles(self):
        """An early exit counts as a model of its own."""
        return (DRAFT,)

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """The most children of a node."""

    @property
    def trunk(self) -> int:
        """How many levels that are fed have one node, before any branches."""
        return 0

    def draft_model(self, model: Any) -> Any:
        """Who drafts; from a table of another size, in the target's."""
        if self.layers is not None:
            return role(model).exit(self.layers)
        return Fitted.to(role(model).spec.vocab_size, role(model, DRAFT))

    def init(self, model, source, max_length, key):
        """The draft model reads the source too. An early exit's encoder is the target's own.

        XLA sees the same operations on the same arrays, and encodes once.
        """
        context, pending = self.draft_model(model).begin(source, max_length + self.guesses)
        return Carry(context, jnp.stack([pending, pending], axis=1), jnp.ones_like(pending))

    def catch_up(self, draft: Any, carry: Carry) -> tuple[Any, Float[Array, "batch 1 vocab"]]:
        """Feeds the backlog: the context with it, and the logits after the pending token."""
        hidden, fresh = draft.extend(carry.backlog, carry.context)
        last = at_rows(hidden, carry.behind - 1)[:, None]
        return carry.context.commit(fresh, carry.behind), draft.logits(last)

    def observe(self, model, carry, outcome):
        """Commits the nodes that were accepted; the others are forgotten."""
        # Rows that were done have count 0: the pending token is taken back too.
        kept = jnp.minimum(outcome.count, self.guesses) - 1
        start = carry.context.length - self.trunk
        context = carry.context.rewind(start + jnp.minimum(kept, self.trunk))
        if carry.fresh is not None:
            place = at_rows(carry.place, outcome.nodes[:, 1 + self.trunk : self.guesses])
            context = context.commit(carry.fresh, jnp.maximum(kept - self.trunk, 0), place)
        whole = outcome.count > self.guesses
        leaf = at_rows(outcome.draft.tokens, outcome.nodes[:, -1])
        last = jnp.where(whole, leaf, outcome.pending)
        backlog = jnp.stack([last, outcome.pending], axis=1)
        return Carry(context, backlog, 1 + whole.astype(jnp.int32))


def feed(
    draft: Any, context: Any, tokens: Int[Array, "batch nodes"], mask: Bools
) -> tuple[Float[Array, "batch nodes d"], Any]:
    """Extends a context by a forest, of which `mask` says what every node descends from."""
    return draft.extend(tokens, context, context.length[:, None] + mask.sum(-1) - 1, mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DraftModel(ModelDrafter):
    """The same tree in every call; siblings are the likeliest tokens, or drawn without replacement.

    Recursive speculative decoding (Jeon et al. 2024, https://arxiv.org/abs/2402.14160, RSD-C).

    Attributes:
        branches: children of the nodes, level by level, as `read_tree` reads them; 1: a chain.
    """

    branches: int | str = 1

    def __post_init__(self):
        super().__post_init__()
        _ = self.parents  # validate

    @functools.cached_property
    def parents(self) -> np.ndarray:
        """The parent of every node; the root's is -1."""
        return np.array(read_tree(self.branches, self.guesses))

    @functools.cached_property
    def layout(self) -> Layout:
        """The tree."""
        return Layout.tree(self.parents.tolist())

    @property
    def width(self):
        """The largest number of siblings."""
        return int(np.bincount(self.parents[1:]).max())

    @property
    def trunk(self):
        """Levels up to the first that branches, without the last, which is never fed."""
        alone = np.bincount(self.layout.offsets) == 1
        return int(np.cumprod(alone)[1 : self.guesses].sum())

    def propose(self, model, carry, pending, key):
        """Every call guesses a level. What may yet branch is fed again with its children."""
        draft, parents, offsets = self.draft_model(model), self.parents, self.layout.offsets
        context, logits = self.catch_up(draft, carry)
        tokens, drawn_from, scored = pending[:, None], [logits], carry.backlog.shape[1]
        before, start, fresh = 0, 1, None
        for depth in range(1, self.guesses + 1):
            level = np.flatnonzero(offsets == depth)
            parent = parents[level] - before
            rank = level - np.searchsorted(parents, parents[level])
            if self.sampling is None:
                guesses = likeliest(logits, rank.max() + 1)[:, parent, rank]
            else:
                guesses, q = draw(self.sampling.warp(logits), parent, rank, fold(key, depth))
                drawn_from.append(q)
            tokens = jnp.concatenate([tokens, guesses], axis=1)
            if depth == self.guesses:
                break
            fed = slice(start, tokens.shape[1])
            hidden, fresh = feed(draft, context, tokens[:, fed], self.layout.mask[fed, fed])
            logits = draft.logits(hidden[:, -len(level) :])
            scored += fed.stop - fed.start
            before = level[0]
            if depth <= self.trunk:
                context, fresh = context.commit(fresh, jnp.ones_like(carry.behind)), None
                start = fed.stop
        # Node 0 was not drawn; its place is filled.
        q = jnp.concatenate(drawn_from, axis=1) if self.sampling else None
        place = jnp.broadcast_to(np.arange(len(parents)) - start, tokens.shape)
        work = {DRAFT: (self.guesses, scored)}
        return Draft(tokens, self.layout, q, work), Drafted(context, fresh, place)


def draw(
    q: Float[Array, "batch before vocab"],
    parent: Int[np.ndarray, " level"],
    rank: Int[np.ndarray, " level"],
    key: Key[Array, " batch"],
) -> tuple[Int[Array, "batch level"], Float[Array, "batch level vocab"]]:
    """Siblings drawn without replacement, by the Gumbel-top-k trick (Kool et al. 2019).

    The tokens with the largest perturbed log-probabilities are such a draw, in its order.

    Args:
        q: log-probabilities after the nodes of the level before.
        parent: of every node to draw, among these.
        rank: of every node among its siblings.
        key: of the draw.

    Returns:
        Tokens, -1 where the cuts left too few; and the log-probabilities, up to a constant, of what
        each was drawn from: its parent's, without the siblings before it.
    """
    noisy = q + jax.vmap(lambda k: jax.random.gumbel(k, q.shape[1:]))(key)
    tokens = likeliest(noisy, rank.max() + 1)[:, parent, rank]
    noisy = noisy[:, parent]
    own = jnp.take_along_axis(noisy, tokens[..., None], axis=-1)
    left = jnp.where(noisy > own, -jnp.inf, q[:, parent])
    return jnp.where(own[..., 0] > -jnp.inf, tokens, -1), left


def likeliest(scores: Float[Array, "*batch choices"], count: int) -> Int[Array, "*batch count"]:
    """The indices of the largest scores, the largest one first."""
    if count == 1:
        return argmax(scores)[..., None].astype(jnp.int32)
    return jax.lax.top_k(scores, count)[1]

"""What a drafter is: the shape of its drafts, and what it learns from the model's verdict."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from nar.core import Needs, Source
from nar.ops import at_rows

Ints = Int[Array, "..."] | Int[np.ndarray, "..."]
Bools = Bool[Array, "..."] | Bool[np.ndarray, "..."]


class Layout(struct.PyTreeNode):
    """The shape of a draft: which node stands where, what it sees, and which nodes are candidates.

    Node 0 is the pending token. A node's number is above its parent's, and siblings are tried in
    the order of their numbers. NumPy arrays are a static layout, the same for every row; with a
    leading batch axis every row has its own. Nodes on no path are scored but are not candidates
    (lookahead's window).

    Attributes:
        offsets: `[(batch,) nodes]`, a node's position minus that of the pending token.
        mask: `[(batch,) nodes, nodes]`, whether node i sees node j.
        paths: `[(batch,) paths, depth + 1]`, each candidate as its nodes, from node 0 on;
            -1 fills up short ones.
    """

    offsets: Ints
    mask: Bools
    paths: Ints

    @classmethod
    def chain(cls, depth: int) -> Self:
        """One candidate of `depth` tokens."""
        nodes = np.arange(depth + 1)
        return cls(nodes, np.tri(depth + 1, dtype=bool), nodes[None])

    @classmethod
    def tree(cls, parents: Sequence[int]) -> Self:
        """A tree: `parents[i]` is the parent of node i, before it; `parents[0]` is -1.

        Every path from the root to a leaf is a candidate (SpecInfer; Miao et al. 2024).
        """
        mask = np.eye(len(parents), dtype=bool)
        for node, parent in enumerate(parents[1:], start=1):
            mask[node] |= mask[parent]
        leaves = sorted(set(range(len(parents))) - set(parents))
        return cls.of(mask, mask.sum(1).max() - 1, leaves)

    @classmethod
    def of(cls, mask: Bools, depth: int, ends: Sequence[int] | slice = slice(None)) -> Self:
        """The tree, at most `depth` deep, of which `mask` says what every node descends from.

        Candidates are the paths from the root to the nodes `ends`, by default to every node.
        """
        offsets = mask.sum(-1) - 1
        node = np.arange(mask.shape[-1])[:, None]
        here = mask[..., ends, :, None] & (offsets[..., None, :, None] == np.arange(depth + 1))
        return cls(offsets, mask, (here * (node + 1)).max(-2) - 1)

    @property
    def parents(self) -> Ints:
        """`[(batch,) nodes]`, each candidate node's parent; -1 for node 0 and nodes on no path."""
        paths = self.paths[..., None, :, :]
        node = np.arange(self.offsets.shape[-1])[:, None, None]
        return ((paths[..., 1:] == node) * (paths[..., :-1] + 1)).max((-1, -2), initial=0) - 1

    @property
    def candidates(self) -> Int[np.ndarray, " nodes"]:
        """The nodes that may be on a path, node 0 apart; with a layout a row, all of them."""
        if isinstance(self.paths, np.ndarray):
            return np.unique(self.paths[self.paths > 0])
        return np.arange(1, self.offsets.shape[-1])

    @property
    def is_chain(self) -> bool:
        """Whether the candidate is the draft itself, so that nothing needs to be gathered."""
        return isinstance(self.paths, np.ndarray) and np.array_equal(
            self.paths, np.arange(self.offsets.shape[-1])[None]
        )


class Draft(struct.PyTreeNode):
    """Guesses for one call of the model.

    Attributes:
        tokens: `[batch, nodes]`; node 0 is the pending token, -1 is no proposal.
        layout: where the nodes stand.
        logits: `[batch, nodes, vocab]`, log-probabilities (up to a constant) of the distribution
            that each node's token was drawn from, given its siblings before it; None: the guesses
            were not random.
        work: what the proposal cost, `{role: (sequential calls, positions a row)}`.
    """

    tokens: Int[Array, "batch nodes"]
    layout: Layout
    logits: Float[Array, "batch nodes vocab"] | None = None
    work: dict[str, tuple[Any, Any]] = struct.field(default_factory=dict)

    @classmethod
    def chain(
        cls,
        pending: Int[Array, " batch"],
        guesses: Int[Array, "batch depth"],
        logits: Float[Array, "batch nodes vocab"] | None = None,
        work: dict[str, tuple[Any, Any]] | None = None,
    ) -> Self:
        """One candidate: `guesses` after the pending token."""
        tokens = jnp.concatenate([pending[:, None], guesses], axis=1)
        return cls(tokens, Layout.chain(guesses.shape[1]), logits, work or {})


class Outcome(struct.PyTreeNode):
    """What became of a draft, after all cuts: all that a drafter may learn from.

    Attributes:
        draft: as it was proposed.
        hidden: `[batch, nodes, d]`, the model's states.
        best: `[batch, nodes]`, the model's own choice after every node.
        nodes: `[batch, depth + 1]`, the accepted nodes are `nodes[:, :count]`.
        tokens: `[batch, depth + 1]`, the tokens written are `tokens[:, :count]`.
        count: `[batch]`, 0 on rows that were done.
        pending: `[batch]`, the next token to feed.
    """

    draft: Draft
    hidden: Float[Array, "batch nodes d"]
    best: Int[Array, "batch nodes"]
    nodes: Int[Array, "batch path"]
    tokens: Int[Array, "batch path"]
    count: Int[Array, " batch"]
    pending: Int[Array, " batch"]

    def last(self, x: Array) -> Array:
        """`x [batch, nodes, ...]` at each row's last accepted node."""
        node = at_rows(self.nodes, jnp.maximum(self.count - 1, 0))
        return at_rows(x, node)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drafter(abc.ABC):
    """Proposes tokens for the model to judge, and learns from what it accepts."""

    @property
    @abc.abstractmethod
    def depth(self) -> int:
        """The longest candidate, in tokens: a call writes at most `depth + 1`."""

    @property
    def needs(self) -> dict[str, Needs]:
        """What is needed of models beyond a causal target."""
        return {}

    @property
    def roles(self) -> tuple[str, ...]:
        """In which roles its calls of models are counted."""
        return tuple(self.needs)

    @abc.abstractmethod
    def init(self, model: Any, source: Source, max_length: int, key: Key[Array, " batch"]) -> Any:
        """The carry before the first proposal."""

    @abc.abstractmethod
    def propose(
        self, model: Any, carry: Any, pending: Int[Array, " batch"], key: Key[Array, " batch"]
    ) -> tuple[Draft, Any]:
        """A draft whose node 0 is `pending`, and the new carry."""

    @abc.abstractmethod
    def observe(self, model: Any, carry: Any, outcome: Outcome) -> Any:
        """The carry after the verdict. Rows that were done have count 0."""

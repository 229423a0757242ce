"""A tree for each step: the guesses that the draft model itself gives the best chances.

OPT-Tree (Wang et al. 2024, https://arxiv.org/abs/2406.17276): the expected number of accepted
guesses is the sum over nodes of the probability that the whole path to them is right, which is
estimated by the product of the draft model's probabilities along it. No node's product is above
its parent's, so that the best `nodes` of all are a tree; and the best of all are among the best of
their level, so that growing the best `nodes` of each level finds them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from nar.drafters.draft_model import DRAFT, Drafted, ModelDrafter, feed
from nar.drafters.drafter import Draft, Layout
from nar.errors import at_least
from nar.ops import at_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptTree(ModelDrafter):
    """A tree a row, chosen anew in every call.

    Attributes:
        nodes: guesses of the tree.
    """

    nodes: int

    def __post_init__(self):
        super().__post_init__()
        at_least("nodes", self.nodes, self.guesses)

    @property
    def width(self):
        """All guesses may be siblings."""
        return self.nodes

    def propose(self, model, carry, pending, key):
        """Grows the best `nodes` of every level, and keeps the best of all."""
        draft, n, size = self.draft_model(model), self.nodes, 1 + self.guesses * self.nodes
        warp = self.sampling.warp if self.sampling else jax.nn.log_softmax
        context, logits = self.catch_up(draft, carry)
        tokens, chances = pending[:, None], jnp.zeros((len(pending), 1))
        descends = np.eye(size, dtype=bool)
        mask = jnp.broadcast_to(descends, (len(pending), size, size))
        before, fresh, scored = 0, None, carry.backlog.shape[1]
        for depth in range(1, self.guesses + 1):
            grown = (chances[:, before:, None] + warp(logits)).reshape(len(pending), -1)
            chance, best = jax.lax.top_k(grown, n)
            parent, guesses = jnp.divmod(best, logits.shape[-1])
            level = slice(tokens.shape[1], tokens.shape[1] + n)
            mask = mask.at[:, level].set(at_rows(mask, before + parent) | descends[level])
            tokens = jnp.concatenate([tokens, guesses], axis=1)
            chances = jnp.concatenate([chances, chance], axis=1)
            before = level.start
            if depth < self.guesses:
                fed = slice(1, level.stop)
                hidden, fresh = feed(draft, context, tokens[:, fed], mask[:, fed, fed])
                logits = draft.logits(hidden[:, -n:])
                scored += fed.stop - fed.start
        # Of equal chances the first is taken, so that no child is taken without its parent.
        chosen = jnp.sort(jax.lax.top_k(chances, n + 1)[1], axis=1)
        seen = jnp.take_along_axis(at_rows(mask, chosen), chosen[:, None], axis=2)
        work = {DRAFT: (self.guesses, scored)}
        drafted = Drafted(context, fresh, chosen - 1)
        return Draft(at_rows(tokens, chosen), Layout.of(seen, self.guesses), None, work), drafted

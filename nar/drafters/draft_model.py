"""Guesses of a smaller model: speculative decoding (Leviathan et al. 2023; Chen et al. 2023)."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from nar.core import Needs, at_least, role
from nar.drafters.drafter import Draft, Drafter
from nar.ops import argmax, at_rows, fold

if TYPE_CHECKING:
    from nar.decoders.rules import Sampling

DRAFT = "draft"
"""The role of the smaller model in a bundle."""


class Carry(struct.PyTreeNode):
    """The draft model's context, and what was written that it has not been fed.

    Attributes:
        context: of the draft model.
        backlog: `[batch, 2]`, tokens to feed next.
        behind: `[batch]`, how many of them: two after a draft that was accepted whole, because its
            last token was never fed.
    """

    context: Any
    backlog: Int[Array, "batch 2"]
    behind: Int[Array, " batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DraftModel(Drafter):
    """The draft model writes `guesses` tokens, one call each.

    Attributes:
        guesses: tokens of a draft.
        sampling: how tokens are drawn; None: the draft model's likeliest ones.
    """

    guesses: int
    sampling: "Sampling | None" = None

    def __post_init__(self):
        at_least("guesses", self.guesses, 1)

    @property
    def depth(self):
        """One candidate."""
        return self.guesses

    @property
    def needs(self):
        """A second causal model."""
        return {DRAFT: Needs(causal=True)}

    def init(self, model, source, max_length, key):
        """The draft model reads the source too."""
        context, pending = role(model, DRAFT).begin(source, max_length + self.guesses)
        return Carry(context, jnp.stack([pending, pending], axis=1), jnp.ones_like(pending))

    def propose(self, model, carry, pending, key):
        """Autoregressive steps of the draft model."""
        draft, context = role(model, DRAFT), carry.context
        feed, count, tokens, drawn_from = carry.backlog, carry.behind, [], []
        for i in range(self.guesses):
            hidden, fresh = draft.extend(feed, context)
            context = context.commit(fresh, count)
            logits = draft.logits(at_rows(hidden, count - 1)[:, None])[:, 0]
            if self.sampling is None:
                tokens.append(argmax(logits))
            else:
                drawn_from.append(self.sampling.warp(logits))
                tokens.append(jax.vmap(jax.random.categorical)(fold(key, i), drawn_from[-1]))
            feed, count = tokens[-1][:, None].astype(jnp.int32), jnp.ones_like(count)
        guesses = jnp.stack(tokens, axis=1).astype(jnp.int32)
        # Node 0 was not drawn; its place is filled.
        logits = jnp.stack([drawn_from[0], *drawn_from], axis=1) if drawn_from else None
        work = {DRAFT: (self.guesses, self.guesses - 1 + carry.behind)}
        return Draft.chain(pending, guesses, logits, work), carry.replace(context=context)

    def observe(self, model, carry, outcome):
        """What was not accepted is forgotten."""
        fed = carry.context.length - (self.guesses - 1)
        kept = jnp.minimum(outcome.count, self.guesses) - 1
        whole = outcome.count > self.guesses
        last = jnp.where(whole, outcome.draft.tokens[:, -1], outcome.pending)
        # Rows that were done have count 0: what they do does not matter any more.
        return Carry(
            context=carry.context.rewind(fed + kept),
            backlog=jnp.stack([last, outcome.pending], axis=1),
            behind=jnp.where(whole, 2, 1),
        )

"""A model that drafts for another one, or ranks its outputs, from a vocabulary of another size."""

import dataclasses
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import struct

from nar.core import Spec


class Fitted(struct.PyTreeNode):
    """A model that predicts what two vocabularies share, in logits of a given width.

    Tables of one vocabulary differ in size: they are padded for round numbers, or tokens were added
    to one of them. As long as the ids of one stand for the same pieces in the other, what the other
    does not know is impossible, and what this model does not know can be read: as any token.

    Attributes:
        model: the model.
        shared: ids from here on are impossible; but for the blank, which stands for no output.
        vocab_size: width of the logits.
    """

    model: Any
    shared: int = struct.field(pytree_node=False)
    vocab_size: int = struct.field(pytree_node=False)

    @classmethod
    def to(cls, vocab_size: int, model: Any, shared: int | None = None) -> Self | Any:
        """The model as it is, where it fits already.

        Args:
            vocab_size: width of the logits.
            model: any model.
            shared: ids from here on are impossible; None: those are that either does not have.
        """
        own = model.spec.vocab_size
        fit = cls(model, min(own, vocab_size) if shared is None else shared, vocab_size)
        return model if fit.shared == own == vocab_size else fit

    @property
    def spec(self) -> Spec:
        """The model's, in this width; it has no further heads, and no exits."""
        return dataclasses.replace(
            self.model.spec, vocab_size=self.vocab_size, draft_heads=0, exits=0
        )

    def begin(self, source, slots, *, dropout=None):
        """The model's; an encoder may have a table of its own, and knows its size."""
        if not self.model.spec.encoder:
            source = source.replace(tokens=self.known(source.tokens))
        return self.model.begin(source, slots, dropout=dropout)

    def extend(self, tokens, context, positions=None, mask=None, *, dropout=None):
        """The model's."""
        return self.model.extend(self.known(tokens), context, positions, mask, dropout=dropout)

    def fill(self, canvas, context, valid, *, dropout=None):
        """The model's."""
        return self.model.fill(self.known(canvas), context, valid, dropout=dropout)

    def lengths(self, context):
        """The model's."""
        return self.model.lengths(context)

    def logits(self, hidden):
        """The model's, of what is shared."""
        logits, blank = self.model.logits(hidden), self.model.spec.blank
        token = np.arange(logits.shape[-1])
        logits = jnp.where((token < self.shared) | (token == blank), logits, -jnp.inf)
        wider = [(0, 0)] * (logits.ndim - 1) + [(0, max(self.vocab_size - token.size, 0))]
        return jnp.pad(logits, wider, constant_values=-jnp.inf)[..., : self.vocab_size]

    def known(self, tokens):
        """Tokens that the model has; its last one in place of others."""
        return jnp.minimum(tokens, self.model.spec.vocab_size - 1)

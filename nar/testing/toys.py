"""Models to test with: a tiny random one, and one that says what a script tells it to."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Int

from nar.core import Source, Spec
from nar.model import Transformer, TransformerConfig
from nar.ops import NEG, at_rows, first


def random_model(
    *, encoder: bool = True, seed: int = 0, vocab_size: int = 13, **config: Any
) -> Transformer:
    """A tiny transformer with random weights, peaky enough to behave like a trained one.

    Initial weights repeat one token for ever. Here weights, positions and logits are scaled up
    until greedy outputs vary, depend on the source and end in EOS at differing lengths (about half
    of them within a dozen tokens), and Jacobi saves calls.

    Args:
        encoder: encoder-decoder, or decoder-only.
        seed: of the weights.
        vocab_size: tokens, the five special ones included (pad 0, bos 2, eos 3, mask 4).
        **config: other fields of `TransformerConfig`.
    """
    tiny = {
        "d_model": 32,
        "d_ff": 64,
        "heads": 2,
        "encoder_layers": int(encoder),
        "decoder_layers": 2,
        "embeddings": "separate",
        "positions": "learned",
        "max_positions": 64,
        "dropout": 0.0,
        "mask": 4,
    }
    shape = TransformerConfig(vocab_size=vocab_size, **{**tiny, **config})
    scales = {"learned": 1.5 * math.sqrt(shape.d_model), "output": 2.0, "weight": 1.5}

    def scale(path: Any, x: Array) -> Array:
        name = jax.tree_util.keystr(path)
        return x * next((s for part, s in scales.items() if part in name), 1.0)

    model = Transformer(shape, key=jax.random.key(seed))
    return jax.tree_util.tree_map_with_path(scale, model)


class ScriptedContext(struct.PyTreeNode):
    """A context, the position where its output begins, and each row's part of the script."""

    inner: Any
    start: Int[Array, " batch"]
    script: Int[Array, "batch places"]

    @property
    def length(self) -> Int[Array, " batch"]:
        """Committed tokens."""
        return self.inner.length

    def commit(self, fresh, count, index=None):
        """As the inner context does."""
        return self.replace(inner=self.inner.commit(fresh, count, index))

    def rewind(self, length):
        """As the inner context does."""
        return self.replace(inner=self.inner.rewind(length))

    def select(self, rows):
        """As the inner context does."""
        return ScriptedContext(self.inner.select(rows), self.start[rows], self.script[rows])

    def repeat(self, n):
        """As the inner context does."""
        start, script = (jnp.repeat(x, n, axis=0) for x in (self.start, self.script))
        return ScriptedContext(self.inner.repeat(n), start, script)


NO_NUMBER = -1
"""In a script: one of the logits is NaN there."""


class Scripted(struct.PyTreeNode):
    """A model that is certain, at every place of the output, of the token in its script.

    It forces what random models do rarely: EOS first, EOS in the middle of an accepted block, no
    EOS at all. What the script says travels beside the hidden states, in one more channel.

    Attributes:
        model: any model; it is run, so that shapes and costs are its own.
        script: `[batch, places]`, tokens or NO_NUMBER; after its end the last goes on for ever.
        length: `[batch]`, what a length head is certain of; None: EOS comes first there.
    """

    model: Any
    script: Int[Array, "batch places"]
    length: Int[Array, " batch"] | None = None

    @property
    def spec(self) -> Spec:
        """The model's."""
        return self.model.spec

    def begin(self, source: Source, slots: int, *, dropout=None):
        """The model's; output begins after the pending token."""
        context, pending = self.model.begin(source, slots, dropout=dropout)
        script = jnp.asarray(self.script, jnp.int32)
        return ScriptedContext(context, context.length, script), pending

    def extend(self, tokens, context, positions=None, mask=None, *, dropout=None):
        """The model's; the token at position p is followed by the script's at `p - start`."""
        if positions is None:
            positions = context.length[:, None] + jnp.arange(tokens.shape[1])
        hidden, fresh = self.model.extend(tokens, context.inner, positions, mask, dropout=dropout)
        return self.prompt(hidden, context.script, positions - context.start[:, None]), fresh

    def exit(self, layers):
        """The model's, with the same script."""
        return self.replace(model=self.model.exit(layers))

    def fill(self, canvas, context, valid, *, dropout=None):
        """The model's; place i of the canvas holds the script's token i."""
        hidden = self.model.fill(canvas, context.inner, valid, dropout=dropout)
        place = jnp.broadcast_to(jnp.arange(canvas.shape[1]), canvas.shape)
        return self.prompt(hidden, context.script, place)

    def lengths(self, context):
        """Zero for the length, impossible for every other; beyond the last one, for that one."""
        length = first(self.script == self.spec.eos) if self.length is None else self.length
        count = self.model.lengths(context.inner).shape[1]
        said = jnp.minimum(length, count - 1)[:, None] == jnp.arange(count)
        return jnp.where(said, 0.0, NEG)

    def prompt(self, hidden, script, place):
        """The hidden states with what the script says there."""
        said = at_rows(script, jnp.minimum(place, script.shape[1] - 1))
        return jnp.concatenate([hidden, said[..., None].astype(jnp.float32)], axis=-1)

    def logits(self, hidden):
        """Zero for the token of the script, impossible for every other; or NaN for the last."""
        said, token = hidden[..., -1:].astype(jnp.int32), np.arange(self.spec.vocab_size)
        unknown = (said == NO_NUMBER) & (token == self.spec.vocab_size - 1)
        return jnp.where(unknown, jnp.nan, jnp.where(said == token, 0.0, NEG))

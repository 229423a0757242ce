"""What a model remembers while decoding: committed keys and values, written only by commits."""

from typing import Self

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from nar.ops import put_rows

KeysValues = tuple[Float[Array, "batch heads time dim"], ...]
"""One array a layer: on CPU one stacked array took up to 1.5 times as long."""


class Memory(struct.PyTreeNode):
    """The encoded source.

    Attributes:
        keys, values: a layer each, as the decoder's cross-attention reads them.
        mask: which places hold a token.
        canvas: the encoder's states, upsampled: what `fill` reads where nothing is known.
        lengths: scores of the length head's classes.
    """

    keys: KeysValues
    values: KeysValues
    mask: Bool[Array, "batch source"]
    canvas: Float[Array, "batch places d"] | None = None
    lengths: Float[Array, "batch classes"] | None = None


class Fresh(struct.PyTreeNode):
    """Keys and values of tokens that `extend` scored and nobody has committed yet.

    Attributes:
        keys, values: a layer each, `[batch, heads, time, dim]`.
        after: `[batch]` zeros computed from the hidden states. A commit's slots depend on it, so
            its write follows the attention's reads; otherwise XLA copies the whole context.
    """

    keys: KeysValues
    values: KeysValues
    after: Int[Array, " batch"]


class Context(struct.PyTreeNode):
    """Committed tokens of every row, and the source.

    Attributes:
        keys, values: a layer each, `[batch, heads, slots, dim]`; slot i holds position i.
        length: `[batch]`, committed slots, which is the position of the pending token.
        memory: the encoded source; None for decoder-only models.
    """

    keys: KeysValues
    values: KeysValues
    length: Int[Array, " batch"]
    memory: Memory | None = None

    def commit(
        self,
        fresh: Fresh,
        count: Int[Array, " batch"],
        index: Int[Array, "batch most"] | None = None,
    ) -> Self:
        """Keeps `count` of a row's fresh tokens, in place, and forgets the others.

        Args:
            fresh: what `extend` returned.
            count: how many to keep, per row; 0 leaves a row as it is.
            index: which fresh tokens these are, in order; the first ones by default.
        """
        if not self.keys[0].shape[2]:
            return self.replace(length=self.length + count)
        start = self.length + fresh.after

        def put(slots, new):
            if index is not None:
                new = jnp.take_along_axis(new, jnp.maximum(index, 0)[:, None, :, None], axis=2)
            return put_rows(slots, start, new, count, axis=2)

        return self.replace(
            keys=tuple(map(put, self.keys, fresh.keys)),
            values=tuple(map(put, self.values, fresh.values)),
            length=self.length + count,
        )

    def rewind(self, length: Int[Array, " batch"]) -> Self:
        """Forgets what was committed from position `length` on."""
        return self.replace(length=length)

    def select(self, rows: Int[Array, " batch"]) -> Self:
        """Row i goes on from row `rows[i]`, which must have the same source: memory stays."""
        return self.replace(
            keys=tuple(k[rows] for k in self.keys),
            values=tuple(v[rows] for v in self.values),
            length=self.length[rows],
        )

    def without_slots(self) -> Self:
        """A context of no slots: attention to what is not there is then not computed at all."""
        none = tuple(k[:, :, :0] for k in self.keys)
        return self.replace(keys=none, values=none)

    def repeat(self, n: int) -> Self:
        """Every row n times, side by side: `[batch * n, ...]`."""
        return jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), self)

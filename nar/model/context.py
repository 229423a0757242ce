"""What a model remembers while decoding: committed keys and values, written only by commits."""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from nar.ops import put_rows
from nar.sharding import constrain

KeysValues = tuple[Float[Array, "batch heads time dim"], ...]
"""One array a layer: on CPU one stacked array took up to 1.5 times as long."""


Slots = tuple[Float[Array, "batch heads slots dim"], ...]
"""A layer's committed keys or values, in parts, so that attention can leave the empty ones out."""

PART = 32
"""The size of the first part; each later one is as large as all before it."""
FEW = 8
"""In smaller batches than this there is one part: to choose between them would cost more."""


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
        keys, values: a layer each, in parts `[batch, heads, slots, dim]`; slot i of all parts
            together holds position i.
        length: `[batch]`, committed slots, which is the position of the pending token.
        memory: the encoded source; None for decoder-only models.
    """

    keys: tuple[Slots, ...]
    values: tuple[Slots, ...]
    length: Int[Array, " batch"]
    memory: Memory | None = None

    @classmethod
    def empty(cls, layers: int, shape: tuple[int, int, int, int], dtype: Any) -> Self:
        """Nothing committed.

        Args:
            layers: of the decoder.
            shape: `(batch, heads, slots, dim)` of a layer's keys, all parts together.
            dtype: of keys and values.
        """
        batch, heads, slots, dim = shape
        ends, end = [], PART
        while batch >= FEW and end < slots:
            ends.append(end)
            end *= 2
        sizes = np.diff([0, *ends, slots]).tolist() if slots else []
        parts = tuple(
            constrain(jnp.zeros((batch, heads, size, dim), dtype), "batch", "heads", None, None)
            for size in sizes
        )
        return cls((parts,) * layers, (parts,) * layers, jnp.zeros((batch,), jnp.int32))

    @property
    def starts(self) -> tuple[int, ...]:
        """The first slot of each part, and the number of all slots."""
        sizes = [part.shape[2] for part in self.keys[0]]
        return tuple(np.cumsum([0, *sizes]).tolist())

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
        start = self.length + fresh.after

        def put(slots: Slots, new: Array) -> Slots:
            if index is not None and slots:
                new = jnp.take_along_axis(new, jnp.maximum(index, 0)[:, None, :, None], axis=2)
            parts = zip(slots, self.starts[:-1], strict=True)
            return tuple(put_rows(part, start - at, new, count, axis=2) for part, at in parts)

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
            keys=jax.tree.map(lambda x: x[rows], self.keys),
            values=jax.tree.map(lambda x: x[rows], self.values),
            length=self.length[rows],
        )

    def without_slots(self) -> Self:
        """A context of no slots: attention to what is not there is then not computed at all."""
        none = ((),) * len(self.keys)
        return self.replace(keys=none, values=none)

    def repeat(self, n: int) -> Self:
        """Every row n times, side by side: `[batch * n, ...]`."""
        return jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), self)

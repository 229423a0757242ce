"""The parts of a transformer layer: products, norms, embeddings, feed-forward, dropout."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from nar.model.config import TransformerConfig

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "swish": jax.nn.swish,
}


FEW = 32
"""Up to so many rows, a product is laid out for decoding: its time is reading the weight."""


@functools.partial(jax.jit, static_argnames="dtype")  # traced once for all layers
def linear(
    x: Float[Array, "*batch inputs"],
    weight: Float[Array, "outputs inputs"],
    bias: Float[Array, " outputs"] | None = None,
    *,
    dtype: jnp.dtype | None = None,
) -> Float[Array, "*batch outputs"]:
    """`x @ weight.T + bias` in `dtype`, x's by default: the one place where products are laid out.

    On CPU a product with few rows is fastest with the weight on the left, as it lies in memory: a
    matrix-vector product for one row, in two halves so that small ones have both threads, or one
    for each of two; weight @ x.T for a few. XLA would fold the transposes back into the slower
    form, hence the barriers.
    """
    weight, dtype = weight.astype(x.dtype), dtype or x.dtype
    rows, (outputs, inputs) = math.prod(x.shape[:-1]), weight.shape
    if 1 <= rows <= 2 and outputs % 2 == 0:
        weight = weight.reshape(2, outputs // 2, inputs)
        halves = [jnp.broadcast_to(row, (2, inputs)) for row in x.reshape(rows, inputs)]
        dot = functools.partial(jnp.einsum, "hoi,hi->ho", preferred_element_type=dtype)
        y = jnp.stack([dot(weight, row) for row in halves]).reshape(*x.shape[:-1], outputs)
    elif rows <= FEW:
        columns = jax.lax.optimization_barrier(x.reshape(rows, inputs).T)
        y = jnp.matmul(weight, columns, preferred_element_type=dtype)
        y = jax.lax.optimization_barrier(y).T.reshape(*x.shape[:-1], outputs)
    else:
        y = jnp.einsum("...i,oi->...o", x, weight, preferred_element_type=dtype)
    return y if bias is None else y + bias.astype(dtype)


class Linear(nnx.Module):
    """A product and its bias; the weight is `[outputs, inputs]`, `axes` names its logical axes."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool,
        axes: tuple[str | None, str | None],
        key: Key[Array, ""],
    ):
        init = jax.nn.initializers.glorot_uniform()
        self.weight = nnx.Param(init(key, (outputs, inputs)), axes=axes)
        self.bias = nnx.Param(jnp.zeros((outputs,)), axes=axes[:1]) if bias else None

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return linear(x, self.weight[...], None if self.bias is None else self.bias[...])


class Norm(nnx.Module):
    """Layer norm or RMS norm over the last axis, computed in float32."""

    def __init__(self, width: int, config: TransformerConfig, *, rms: bool = False):
        self.eps = config.norm_eps
        self.scale = nnx.Param(jnp.ones((width,)), axes=(None,))
        centred = config.norm == "layer" and not rms
        self.bias = nnx.Param(jnp.zeros((width,)), axes=(None,)) if centred else None

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        y = x.astype(jnp.float32)
        if self.bias is not None:
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps) * self.scale[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)


class Embedding(nnx.Module):
    """A table of vectors, read by index and, where it is tied, multiplied by hidden states."""

    def __init__(self, count: int, width: int, *, key: Key[Array, ""], axis: str | None = "vocab"):
        init = jax.nn.initializers.normal(width**-0.5)
        self.table = nnx.Param(init(key, (count, width)), axes=(axis, None))

    def __call__(self, index: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
        """Indices outside of the table read its nearest end (-1 marks a place without a token)."""
        return self.table[...].at[jnp.maximum(index, 0)].get(mode="clip")


class FeedForward(nnx.Module):
    """Two products around an activation, or a gated one (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig, *, key: Key[Array, ""]):
        up, down = jax.random.split(key)
        c = config
        self.activation, self.gated = c.activation, c.gated
        width = c.d_ff * (2 if c.gated else 1)
        self.up = Linear(c.d_model, width, bias=c.ff_bias, axes=("ff", None), key=up)
        self.down = Linear(c.d_ff, c.d_model, bias=c.ff_bias, axes=(None, "ff"), key=down)

    def __call__(
        self, x: Float[Array, "batch time d"], drop: "Dropout"
    ) -> Float[Array, "batch time d"]:
        hidden = self.up(x)
        if self.gated:
            gate, hidden = jnp.split(hidden, 2, axis=-1)
            hidden = ACTIVATIONS[self.activation](gate) * hidden
        else:
            hidden = ACTIVATIONS[self.activation](hidden)
        return self.down(drop(hidden))


class Dropout:
    """Drops at `rate` with a new key at every use; does nothing without a key."""

    def __init__(self, rate: float, key: Key[Array, ""] | None):
        self.rate, self.key, self.uses = rate, key, 0

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.key is None or not self.rate:
            return x
        self.uses += 1
        # Each random word decides for two elements: half the time, and a rate exact to 2 ** -16.
        *batch, width = x.shape
        words = jax.random.bits(
            jax.random.fold_in(self.key, self.uses), (*batch, -(-width // 2)), np.uint32
        )
        bits = jax.lax.bitcast_convert_type(words, np.uint16).reshape(*batch, -1)[..., :width]
        keep = bits >= np.uint16(min(round(self.rate * 2**16), 2**16 - 1))
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)

"""Attention: one softmax over committed slots and fresh tokens, with grouped queries."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from nar.model.config import TransformerConfig
from nar.model.layers import Linear, Norm
from nar.model.positions import bucket, frequencies, rotate
from nar.ops import NEG

Heads = Float[Array, "batch heads time dim"]
Part = tuple[
    Heads, Heads, Bool[Array, "batch #time keys"], Float[Array, "#batch heads time keys"] | None
]
"""Keys, values, which query sees which key, and a bias to the scores."""


@functools.partial(jax.jit, static_argnames="scale")  # traced once for all layers
def attend(query: Heads, *parts: Part, scale: float) -> Float[Array, "batch time heads_dim"]:
    """Attention of the queries over the keys of all parts, under one softmax.

    The parts (committed slots, fresh tokens) are not joined, so no context is ever copied. Query
    head h reads key-value head `h // (heads // groups)` (Ainslie et al. 2023).
    """
    batch, heads, time, dim = query.shape
    groups = parts[0][0].shape[1]
    # The queries of one group stand beside each other in time: one product for all of them.
    query = (query * scale).reshape(batch, groups, heads // groups * time, dim)
    scores = []
    for keys, _, mask, bias in parts:
        score = jnp.einsum("bgtd,bgsd->bgts", query, keys).astype(jnp.float32)
        score = score.reshape(batch, heads, time, -1)
        scores.append(jnp.where(mask[:, None], score if bias is None else score + bias, NEG))
    peak = scores[0].max(-1, keepdims=True)
    for score in scores[1:]:
        peak = jnp.maximum(peak, score.max(-1, keepdims=True))
    total = out = jnp.zeros(())
    for score, (_, values, _, _) in zip(scores, parts, strict=True):
        weight = jnp.exp(score - peak)
        total = total + weight.sum(-1, keepdims=True)
        weight = weight.reshape(batch, groups, heads // groups * time, -1).astype(values.dtype)
        out = out + jnp.einsum("bgts,bgsd->bgtd", weight, values).reshape(batch, heads, time, dim)
    return (out / total).astype(query.dtype).swapaxes(1, 2).reshape(batch, time, heads * dim)


class SelfAttention(nnx.Module):
    """Projections of self-attention.

    Query, key and value are one product. Its outputs are ordered by key-value head - the group's
    queries, its key, its value - so that a mesh splits whole groups.
    """

    def __init__(self, config: TransformerConfig, *, key: Key[Array, ""]):
        c = self.config = config
        first, second = jax.random.split(key)
        width = (c.heads + 2 * c.groups) * c.dim
        self.qkv = Linear(c.d_model, width, bias=c.qkv_bias, axes=("heads", None), key=first)
        self.out = Linear(
            c.heads * c.dim, c.d_model, bias=c.out_bias, axes=(None, "heads"), key=second
        )
        self.query_norm = Norm(c.dim, c, rms=True) if c.qk_norm else None
        self.key_norm = Norm(c.dim, c, rms=True) if c.qk_norm else None

    def project(
        self, x: Float[Array, "batch time d"], position: Int[Array, "batch time"]
    ) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values; the first two normed and rotated where the config says so."""
        c, (batch, time, _) = self.config, x.shape
        each = c.heads // c.groups
        qkv = self.qkv(x).reshape(batch, time, c.groups, each + 2, c.dim).transpose(0, 2, 3, 1, 4)
        query = qkv[:, :, :each].reshape(batch, c.heads, time, c.dim)
        key, value = qkv[:, :, each], qkv[:, :, each + 1]
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if c.positions == "rotary":
            turn = (position, frequencies(c), c.rope_magnitude)
            query, key = (rotate(x, *turn) for x in (query, key))
        return query, key, value


class CrossAttention(nnx.Module):
    """Projections of attention to the encoded source."""

    def __init__(self, config: TransformerConfig, *, key: Key[Array, ""]):
        c = self.config = config
        first, second, third = jax.random.split(key, 3)
        inner = c.heads * c.dim
        self.query = Linear(c.d_model, inner, bias=c.qkv_bias, axes=("heads", None), key=first)
        self.kv = Linear(
            c.d_model, 2 * c.groups * c.dim, bias=c.qkv_bias, axes=("heads", None), key=second
        )
        self.out = Linear(inner, c.d_model, bias=c.out_bias, axes=(None, "heads"), key=third)

    def remember(self, x: Float[Array, "batch source d"]) -> tuple[Heads, Heads]:
        """Keys and values of the encoded source, computed once a sentence."""
        c, (batch, time, _) = self.config, x.shape
        kv = self.kv(x).reshape(batch, time, c.groups, 2, c.dim).transpose(3, 0, 2, 1, 4)
        return kv[0], kv[1]

    def ask(self, x: Float[Array, "batch time d"]) -> Heads:
        """Queries."""
        c, (batch, time, _) = self.config, x.shape
        return self.query(x).reshape(batch, time, c.heads, c.dim).swapaxes(1, 2)


class RelativeBias(nnx.Module):
    """A learned score for each head and bucket of distance, shared by a stack's layers (T5)."""

    def __init__(self, config: TransformerConfig, *, bidirectional: bool, key: Key[Array, ""]):
        c = self.config = config
        self.bidirectional = bidirectional
        init = jax.nn.initializers.normal(c.d_model**-0.5)
        self.table = nnx.Param(init(key, (c.relative_buckets, c.heads)), axes=(None, "heads"))

    def __call__(
        self, query: Int[Array, "batch time"], key: Int[Array, "batch keys"]
    ) -> Float[Array, "batch heads time keys"]:
        """The bias between positions."""
        c = self.config
        index = bucket(
            key[:, None, :] - query[:, :, None],
            bidirectional=self.bidirectional,
            buckets=c.relative_buckets,
            max_distance=c.relative_max_distance,
        )
        return jnp.moveaxis(self.table[...][index], -1, 1).astype(jnp.float32)

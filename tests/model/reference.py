"""Another transformer, as an oracle: NumPy, float64, a sentence at a time, in loops."""

import cmath
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nar import Transformer, TransformerConfig

SMALL = {
    "vocab_size": 11,
    "d_model": 16,
    "d_ff": 24,
    "heads": 4,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "max_positions": 24,
    "relative_buckets": 8,
    "relative_max_distance": 10,
}

NO_BIAS = {"qkv_bias": False, "out_bias": False, "ff_bias": False}
MARIAN = {
    "norm_position": "post",
    "activation": "swish",
    "logits_bias": True,
    "norm_eps": 1e-5,
}
T5 = {
    **NO_BIAS,
    "norm": "rms",
    "positions": "relative",
    "activation": "gelu_tanh",
    "gated": True,
    "scale_attention": False,
    "scale_embedding": False,
    "logits_scale": 0.25,
    "head_dim": 6,
}
LLAMA = {
    **NO_BIAS,
    "norm": "rms",
    "positions": "rotary",
    "activation": "swish",
    "gated": True,
    "kv_heads": 2,
    "scale_embedding": False,
    "embeddings": "separate",
    "rope_theta": 50.0,
}
KINDS = {"encoder-decoder": {}, "decoder-only": {"encoder_layers": 0, "source_vocab_size": None}}

CAUSAL, EVERYTHING = np.tri(32, dtype=bool), np.ones((32, 32), bool)
"""Whether place i sees place j."""

SOURCES = [[4, 6, 5, 3, 6], [5], [6, 6, 4]]
TARGETS = [[5, 9, 4, 3], [10, 7, 3], [3]]


def build(seed=0, **settings):
    """A small model with every parameter random: zeros and ones would hide mistakes."""
    create = partial(Transformer, TransformerConfig(**{**SMALL, **settings}))
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0.5 if x.ndim == 1 else 0, 0.4, x.shape), x.dtype),
        jax.eval_shape(create, key=jax.random.key(seed)),
    )


def array(param):
    return np.asarray(param[...], np.float64)


def product(layer, x):
    y = x @ array(layer.weight).T
    return y if layer.bias is None else y + array(layer.bias)


def normed(layer, x, eps, kind):
    rows = x.reshape(-1, x.shape[-1]).copy()
    for row in rows:
        if kind == "layer":
            row -= row.sum() / len(row)
        row /= math.sqrt((row**2).sum() / len(row) + eps)
    rows = rows * array(layer.scale) + (array(layer.bias) if kind == "layer" else 0)
    return rows.reshape(x.shape)


def activate(name, x):
    formula = {
        "relu": lambda a: max(a, 0.0),
        "gelu": lambda a: a * (1 + math.erf(a / math.sqrt(2))) / 2,
        "gelu_tanh": lambda a: (
            a / 2 * (1 + math.tanh((2 / math.pi) ** 0.5 * (a + 0.044715 * a**3)))
        ),
        "swish": lambda a: a / (1 + math.exp(-a)),
    }
    return np.vectorize(formula[name], otypes=[np.float64])(x)


def t5_bucket(distance, bidirectional, buckets, max_distance):
    """How T5 shares `buckets` out over the distances from a query to a key."""
    if bidirectional:
        half = buckets // 2
        return (half if distance > 0 else 0) + t5_bucket(-abs(distance), False, half, max_distance)
    back, near = max(-distance, 0), buckets // 2
    if back < near:
        return back
    share = math.log(back / near) / math.log(max_distance / near)
    return min(near + int(share * (buckets - near)), buckets - 1)


class Reference:
    """Vaswani et al. (2017), with the variants of its successors; one sentence, no padding."""

    def __init__(self, model):
        self.model, self.c = model, model.config

    def embed(self, tokens, positions, table, unknown=None):
        c = self.c
        x = array(table.table)[tokens] * (math.sqrt(c.d_model) if c.scale_embedding else 1)
        for i, (row, position) in enumerate(zip(x, positions, strict=True)):
            if unknown is not None and tokens[i] == c.mask:
                row[:] = unknown[i]
            if c.positions == "sinusoidal":
                for k in range(c.d_model // 2):
                    angle = position / 10_000 ** (2 * k / c.d_model)
                    row[k] += math.sin(angle)
                    row[k + c.d_model // 2] += math.cos(angle)
            if c.positions == "learned":
                row += array(self.model.learned.table)[position]
        return x

    def dimension(self, turns):
        """Which of a head's pairs of dimensions goes round so often in the first training."""
        c = self.c
        wave = c.rope_original_positions / turns
        return c.dim / 2 * math.log(wave / (2 * math.pi)) / math.log(c.rope_theta)

    def speed(self, place):
        """Radians a position; short waves keep theirs where scaling is Llama 3's or YaRN's."""
        c = self.c
        speed = c.rope_theta**-place
        if c.rope_scaling == "yarn":
            first, last = self.dimension(c.rope_high_factor), self.dimension(c.rope_low_factor)
            if c.rope_truncate:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0), min(last, c.dim - 1)
            part = min(max((place * c.dim / 2 - first) / (last - first), 0), 1)
            return (1 - part) * speed + part * speed / c.rope_factor
        wave = 2 * math.pi / speed
        longest, shortest = (
            c.rope_original_positions / x for x in (c.rope_low_factor, c.rope_high_factor)
        )
        if c.rope_scaling == "none" or (c.rope_scaling == "llama3" and wave < shortest):
            return speed
        if c.rope_scaling == "linear" or wave > longest:
            return speed / c.rope_factor
        part = (c.rope_original_positions / wave - c.rope_low_factor) / (
            c.rope_high_factor - c.rope_low_factor
        )
        return speed * (part + (1 - part) / c.rope_factor)

    def head(self, norm, x, position):
        """A query or key of one head: normed, rotated as complex numbers."""
        if self.c.qk_norm:
            x = normed(norm, x, self.c.norm_eps, "rms")
        if self.c.positions == "rotary":
            half = len(x) // 2
            size = self.c.rope_magnitude
            turned = [
                complex(x[i], x[i + half]) * cmath.rect(size, position * self.speed(i / half))
                for i in range(half)
            ]
            x = np.array([z.real for z in turned] + [z.imag for z in turned])
        return x

    def attention(self, queries, keys, values, sees, bias):
        """Lists `[time][head]` of vectors; returns their heads' outputs side by side."""
        c, out = self.c, []
        for i, heads in enumerate(queries):
            visible = [j for j in range(len(keys)) if sees[i][j]]
            for h, query in enumerate(heads):
                g = h // (c.heads // c.groups)
                score = [
                    query @ keys[j][g] * (c.dim**-0.5 if c.scale_attention else 1) + bias(h, i, j)
                    for j in visible
                ]
                weight = np.exp(np.array(score) - max(score))
                weight /= weight.sum()
                out.append(sum(w * values[j][g] for w, j in zip(weight, visible, strict=True)))
        return np.array(out).reshape(len(queries), c.heads * c.dim)

    def self_attention(self, layer, x, positions, sees, bias):
        c, each = self.c, self.c.heads // self.c.groups
        y = product(layer.qkv, x).reshape(len(x), c.groups, each + 2, c.dim)
        queries, keys, values = [], [], []
        for groups, p in zip(y, positions, strict=True):
            queries += [[self.head(layer.query_norm, q, p) for g in groups for q in g[:each]]]
            keys += [[self.head(layer.key_norm, g[each], p) for g in groups]]
            values += [[g[each + 1] for g in groups]]
        return product(layer.out, self.attention(queries, keys, values, sees, bias))

    def cross_attention(self, layer, x, memory):
        c = self.c
        queries = product(layer.query, x).reshape(len(x), c.heads, c.dim)
        kv = product(layer.kv, memory).reshape(len(memory), c.groups, 2, c.dim)
        out = self.attention(queries, kv[:, :, 0], kv[:, :, 1], EVERYTHING, lambda h, i, j: 0)
        return product(layer.out, out)

    def feed_forward(self, layer, x):
        y = product(layer.up, x)
        if self.c.gated:
            y = activate(self.c.activation, y[:, : self.c.d_ff]) * y[:, self.c.d_ff :]
        else:
            y = activate(self.c.activation, y)
        return product(layer.down, y)

    def stack(self, stack, x, positions, sees, memory, bidirectional):
        c = self.c

        def bias(h, i, j):
            if stack.relative is None:
                return 0
            distance = positions[j] - positions[i]
            b = t5_bucket(distance, bidirectional, c.relative_buckets, c.relative_max_distance)
            return array(stack.relative.table)[b, h]

        windows = (None if stack is self.model.encoder else c.windows) or [None] * len(stack.layers)
        for layer, window in zip(stack.layers, windows, strict=True):
            near = [[window is None or p - q < window for q in positions] for p in positions]
            both = np.logical_and(np.asarray(sees)[: len(x), : len(x)], near)
            seen = {"positions": positions, "sees": both, "bias": bias}
            sublayers = [
                (layer.attention_norm, partial(self.self_attention, layer.attention, **seen)),
                (layer.cross_norm, partial(self.cross_attention, layer.cross, memory=memory)),
                (layer.feed_forward_norm, partial(self.feed_forward, layer.feed_forward)),
            ]
            for norm, sublayer in sublayers:
                if norm is None:  # no source to attend to
                    continue
                if c.norm_position == "pre":
                    x = x + sublayer(normed(norm, x, c.norm_eps, c.norm))
                else:
                    x = normed(norm, x + sublayer(x), c.norm_eps, c.norm)
        return x if stack.norm is None else normed(stack.norm, x, c.norm_eps, c.norm)

    def encode(self, source):
        m, positions = self.model, range(len(source))
        x = self.embed(source, positions, m.source_embedding or m.embedding)
        return self.stack(m.encoder, x, positions, EVERYTHING, None, bidirectional=True)

    def logits(self, source, tokens, sees=CAUSAL, unknown=None):
        """After every one of `tokens`, which follow the source or, without an encoder, hold it."""
        m, c = self.model, self.c
        memory = self.encode(source) if c.encoder_layers else None
        x = self.embed(tokens, range(len(tokens)), m.embedding, unknown)
        x = self.stack(m.decoder, x, range(len(tokens)), sees, memory, not c.causal)
        table = m.output if c.embeddings in ("inputs", "separate") else m.embedding
        y = x * c.logits_scale @ array(table.table).T
        return y if m.logits_bias is None else y + array(m.logits_bias)

    def first(self, source):
        """What is fed before any target token."""
        return [self.c.bos] if self.c.encoder_layers else list(source)

    def forced(self, source, target):
        """Logits that predict each token of the target."""
        fed = self.first(source)
        return self.logits(source, fed + target[:-1])[len(fed) - 1 :]

    def fill(self, source, canvas):
        """Logits of each place of a canvas."""
        unknown = None
        if self.c.upsample:
            wide = product(self.model.upsample, self.encode(source))
            unknown = [part for state in wide for part in np.split(state, self.c.upsample)]
        return self.logits(source, canvas, EVERYTHING, unknown)

    def lengths(self, source):
        """The probability of each length that the head has a class for."""
        score = product(self.model.length_head, self.encode(source).mean(0))
        shortest = len(source) - len(score) // 2
        inside = {
            shortest + i: math.exp(x)
            for i, x in enumerate(score)
            if 0 <= shortest + i <= self.c.max_positions
        }
        return {length: x / sum(inside.values()) for length, x in inside.items()}

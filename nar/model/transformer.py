"""The shared transformer, and its verbs: begin, extend, fill, logits."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from nar.core import Source, Spec
from nar.model.attention import CrossAttention, Heads, RelativeBias, SelfAttention, attend
from nar.model.config import TransformerConfig
from nar.model.context import Context, Fresh, Memory
from nar.model.layers import Dropout, Embedding, FeedForward, Linear, Norm, linear
from nar.model.positions import sinusoids
from nar.ops import NEG

Hidden = Float[Array, "batch time d"]


class Block(nnx.Module):
    """One layer: self-attention, attention to the source where there is one, feed-forward."""

    def __init__(self, config: TransformerConfig, *, cross: bool, key: Key[Array, ""]):
        c, keys = config, jax.random.split(key, 3)
        self.pre = c.norm_position == "pre"
        self.scale = c.dim**-0.5 if c.scale_attention else 1.0
        self.attention = SelfAttention(c, key=keys[0])
        self.attention_norm = Norm(c.d_model, c)
        self.cross = CrossAttention(c, key=keys[1]) if cross else None
        self.cross_norm = Norm(c.d_model, c) if cross else None
        self.feed_forward = FeedForward(c, key=keys[2])
        self.feed_forward_norm = Norm(c.d_model, c)

    def __call__(
        self,
        x: Hidden,
        position: Int[Array, "batch time"],
        attention: Callable[[Heads, Heads, Heads, float], Float[Array, "batch time heads_dim"]],
        memory: tuple[Heads, Heads, Bool[Array, "batch source"]] | None,
        drop: Dropout,
    ) -> Hidden:
        def add(x: Hidden, norm: Norm, sublayer: Callable[[Hidden], Hidden]) -> Hidden:
            if self.pre:
                return x + drop(sublayer(norm(x)))
            return norm(x + drop(sublayer(x)))

        def attend_to_self(x: Hidden) -> Hidden:
            return self.attention.out(attention(*self.attention.project(x, position), self.scale))

        x = add(x, self.attention_norm, attend_to_self)
        if self.cross is not None and self.cross_norm is not None and memory is not None:
            cross, (keys, values, mask) = self.cross, memory

            def attend_to_source(x: Hidden) -> Hidden:
                part = (keys, values, mask[:, None], None)
                return cross.out(attend(cross.ask(x), part, scale=self.scale))

            x = add(x, self.cross_norm, attend_to_source)
        return add(x, self.feed_forward_norm, lambda x: self.feed_forward(x, drop))


class Stack(nnx.Module):
    """Layers in a row, the bias of relative positions that they share, and the last norm."""

    def __init__(self, config: TransformerConfig, *, encoder: bool, key: Key[Array, ""]):
        c = config
        depth = c.encoder_layers if encoder else c.decoder_layers
        cross = not encoder and c.encoder_layers > 0
        first, *keys = jax.random.split(key, depth + 1)
        self.layers = nnx.List([Block(c, cross=cross, key=k) for k in keys])
        self.relative = (
            RelativeBias(c, bidirectional=encoder or not c.causal, key=first)
            if c.positions == "relative"
            else None
        )
        self.norm = Norm(c.d_model, c) if c.norm_at_end else None

    def bias(
        self, query: Int[Array, "batch time"], key: Int[Array, "batch keys"]
    ) -> Float[Array, "batch heads time keys"] | None:
        """The score that positions alone give, or None."""
        return None if self.relative is None else self.relative(query, key)

    def last(self, x: Hidden) -> Hidden:
        """What follows the last layer."""
        return x if self.norm is None else self.norm(x)


class Transformer(nnx.Module):
    """Encoder-decoder, or decoder-only when the config has no encoder layers; an immutable pytree.

    Args:
        config: the shape.
        key: for the initial parameters, always float32.
    """

    def __init__(self, config: TransformerConfig, *, key: Key[Array, ""]):
        c = self.config = config
        keys = jax.random.split(key, 6)
        own_source = c.encoder_layers and c.embeddings in ("tied", "separate")
        source_vocab = c.source_vocab_size or c.vocab_size

        def table(used: object, count: int, key: Key[Array, ""], axis: str | None = "vocab"):
            return Embedding(count, c.d_model, key=key, axis=axis) if used else None

        self.embedding = Embedding(c.vocab_size, c.d_model, key=keys[0])
        self.source_embedding = table(own_source, source_vocab, keys[1])
        self.output = table(c.embeddings in ("inputs", "separate"), c.vocab_size, keys[2])
        self.learned = table(c.positions == "learned", c.max_positions, keys[3], axis=None)
        bias = jnp.zeros((c.vocab_size,))
        self.logits_bias = nnx.Param(bias, axes=("vocab",)) if c.logits_bias else None
        self.encoder = Stack(c, encoder=True, key=keys[4]) if c.encoder_layers else None
        self.decoder = Stack(c, encoder=False, key=keys[5])

        def head(width: int, key: Key[Array, ""]):
            return (
                Linear(c.d_model, width, bias=True, axes=(None, None), key=key) if width else None
            )

        self.upsample = head(c.upsample * c.d_model, jax.random.fold_in(key, 0))
        self.length_head = head(c.length_classes, jax.random.fold_in(key, 1))

    @property
    def spec(self) -> Spec:
        """What this model offers."""
        c = self.config
        return Spec(
            vocab_size=c.vocab_size,
            eos=c.eos,
            also_eos=c.also_eos,
            pad=c.pad,
            encoder=c.encoder_layers > 0,
            max_source=c.max_positions // max(c.upsample, 1),  # its canvas needs positions too
            max_target=c.max_positions,
            causal=c.causal,
            bidirectional=c.bidirectional,
            upsample=c.upsample,
            exits=c.decoder_layers if c.causal else 0,
            length_head=c.length_classes > 0,
            mask=c.mask,
            blank=c.blank,
        )

    # ------------------------------------------------------------------------------- the verbs
    def begin(
        self, source: Source, slots: int, *, dropout: Key[Array, ""] | None = None
    ) -> tuple[Context, Int[Array, " batch"]]:
        """Reads the source: encodes it, or commits all of a prompt but its last token.

        Args:
            source: `[batch, time]` tokens, padded on the right.
            slots: how many tokens can be committed after it.
            dropout: key of training's noise; None: no noise.

        Returns:
            The context, and `pending [batch]`: the first token to feed to `extend`.
        """
        c, (batch, time) = self.config, source.tokens.shape
        room = slots if self.encoder is not None else slots + time
        context = Context.empty(c.decoder_layers, (batch, c.groups, room, c.dim), c.dtype)
        if self.encoder is None:
            _, fresh = self.extend(source.tokens, context.without_slots(), dropout=dropout)
            # No attention has read these slots: nothing to wait for, so no last states to compute.
            fresh = fresh.replace(after=jnp.zeros_like(fresh.after))
            pending = jnp.take_along_axis(source.tokens, source.length[:, None] - 1, axis=1)[:, 0]
            return context.commit(fresh, source.length - 1), pending
        pending = jnp.full((batch,), c.bos, jnp.int32)
        return context.replace(memory=self.encode(source, dropout)), pending

    def encode(self, source: Source, dropout: Key[Array, ""] | None = None) -> Memory:
        """The encoder's states, as keys and values of every layer's cross-attention."""
        assert self.encoder is not None
        time = source.tokens.shape[1]
        drop = Dropout(self.config.dropout, dropout)
        position = jnp.arange(time)[None]
        mask = position < source.length[:, None]
        bias = self.encoder.bias(position, position)

        def attention(query: Heads, key: Heads, value: Heads, scale: float):
            return attend(query, (key, value, mask[:, None], bias), scale=scale)

        x = drop(self.embed(source.tokens, position, self.source_embedding or self.embedding))
        for layer in self.encoder.layers:
            x = layer(x, position, attention, None, drop)
        x = self.encoder.last(x)
        remembered = [layer.cross.remember(x) for layer in self.decoder.layers if layer.cross]
        keys, values = zip(*remembered, strict=True)
        canvas = lengths = None
        if self.upsample is not None:
            canvas = self.upsample(x).reshape(x.shape[0], -1, self.config.d_model)
        if self.length_head is not None:
            mean = jnp.where(mask[..., None], x, 0).sum(1) / source.length[:, None]
            lengths = self.length_head(mean)
        return Memory(keys, values, mask, canvas, lengths)

    def extend(
        self,
        tokens: Int[Array, "batch time"],
        context: Context,
        positions: Int[Array, "batch time"] | None = None,
        mask: Bool[Array, "*batch time time"] | None = None,
        *,
        dropout: Key[Array, ""] | None = None,
    ) -> tuple[Hidden, Fresh]:
        """Scores tokens after the context, in parallel, and writes nothing.

        Args:
            tokens: the pending token and guesses after it; -1 is any token.
            context: what was committed; every token sees all of it.
            positions: of the tokens; by default they follow the context.
            mask: `[time, time]` or `[batch, time, time]`, whether token i sees token j;
                by default the tokens before it and itself.
            dropout: key of training's noise; None: no noise.

        Returns:
            Hidden states, which `logits` turns into predictions of the *next* token, and the
            tokens' keys and values for `Context.commit`.
        """
        time, drop = tokens.shape[1], Dropout(self.config.dropout, dropout)
        if positions is None:
            positions = context.length[:, None] + jnp.arange(time)
        mask = jnp.asarray(np.tri(time, dtype=bool) if mask is None else mask)
        x = drop(self.embed(tokens, positions, self.embedding))
        return self._decode(x, context, positions, mask, drop)

    def _decode(
        self,
        x: Hidden,
        context: Context,
        positions: Int[Array, "batch time"],
        mask: Bool[Array, "*#batch #time time"],
        drop: Dropout,
    ) -> tuple[Hidden, Fresh]:
        """The decoder's layers, over what is committed and what is fresh, and the source."""
        batch, time = x.shape[:2]
        sees = jnp.broadcast_to(mask, (batch, time, time))
        starts = context.starts
        slot = jnp.arange(starts[-1])[None]
        committed = slot < context.length[:, None]
        windows = self.config.windows or (None,) * len(self.decoder.layers)
        bias = self.decoder.bias(positions, positions)
        slot_bias = self.decoder.bias(positions, slot)
        reached = sum((context.length.max(initial=0) > end for end in starts[1:-1]), jnp.int32(0))
        fresh: list[tuple[Heads, Heads]] = []

        def attention(query: Heads, key: Heads, value: Heads, scale: float):
            layer, window = len(fresh), windows[len(fresh)]
            slots = list(zip(context.keys[layer], context.values[layer], strict=True))
            fresh.append((key, value))
            parts = [(key, value, within(window, sees, positions, positions), bias)]
            for (keys, values), start, end in zip(slots, starts, starts[1:], strict=False):
                near = slot_bias if slot_bias is None else slot_bias[..., start:end]
                there = committed[:, None, start:end]
                there = within(window, there, positions, slot[:, start:end])
                parts.append((keys, values, there, near))
            if len(slots) < 2:
                return attend(query, *parts, scale=scale)
            over = [
                functools.partial(attend, query, *parts[:most], scale=scale)
                for most in range(2, len(parts) + 1)
            ]
            return jax.lax.switch(reached, over)  # parts that nobody has reached are left out

        memory = context.memory
        for i, layer in enumerate(self.decoder.layers):
            source = memory and (memory.keys[i], memory.values[i], memory.mask)
            x = layer(x, positions, attention, source, drop)
        x = self.decoder.last(x)
        keys, values = zip(*fresh, strict=True)
        after = jnp.minimum(jnp.abs(x[:, 0, 0]), 0).astype(jnp.int32)
        return x, Fresh(keys, values, after)

    def fill(
        self,
        canvas: Int[Array, "batch time"],
        context: Context,
        valid: Bool[Array, "batch time"],
        *,
        dropout: Key[Array, ""] | None = None,
    ) -> Hidden:
        """Hidden states of a whole canvas whose places all see each other.

        Args:
            canvas: tokens, the mask token where nothing is known. Of a model that upsamples, as
                wide as its source is, upsampled.
            context: what `begin` gave.
            valid: which places belong to the row.
            dropout: key of training's noise; None: no noise.
        """
        drop = Dropout(self.config.dropout, dropout)
        positions = context.length[:, None] + jnp.arange(canvas.shape[1])
        unknown = context.memory and context.memory.canvas
        x = drop(self.embed(canvas, positions, self.embedding, unknown))
        return self._decode(x, context, positions, valid[:, None], drop)[0]

    def lengths(self, context: Context) -> Float[Array, "batch lengths"]:
        """Log-probabilities of outputs of 0, 1, 2, ... `max_positions` tokens, without EOS.

        The head's classes are how much longer an output is than the source, from
        `-(length_classes // 2)` on (Ghazvininejad et al. 2019, section 3.3).

        Args:
            context: what `begin` gave.
        """
        memory = context.memory
        assert memory is not None
        assert memory.lengths is not None
        scores, source = memory.lengths.astype(jnp.float32), memory.mask.sum(-1)
        classes = scores.shape[1]
        of = jnp.arange(self.config.max_positions + 1) - source[:, None] + classes // 2
        known = (of >= 0) & (of < classes)
        found = jnp.take_along_axis(scores, jnp.clip(of, 0, classes - 1), axis=1)
        return jax.nn.log_softmax(jnp.where(known, found, NEG))

    def logits(self, hidden: Hidden) -> Float[Array, "batch time vocab"]:
        """Unnormalised log-probabilities over the vocabulary, in float32."""
        c, table = self.config, self.output or self.embedding
        # Rounded to bfloat16, the two best logits would often be equal.
        y = linear(hidden * c.logits_scale, table.table[...], dtype=jnp.float32)
        y = y if self.logits_bias is None else y + self.logits_bias[...]
        return without(y, c.banned)

    def exit(self, layers: int) -> "Transformer":
        """The model of the first decoder layers, the last norm and the output: the same arrays.

        Args:
            layers: how many, fewer than there are.
        """
        early = jax.tree.map(lambda x: x, self)  # another module, which may be changed
        windows = self.config.windows[:layers]
        early.config = dataclasses.replace(self.config, decoder_layers=layers, windows=windows)
        early.decoder.layers = nnx.List(early.decoder.layers[:layers])
        return early

    # ---------------------------------------------------------------------------------- helpers
    def embed(
        self,
        tokens: Int[Array, "batch time"],
        position: Int[Array, "#batch time"],
        table: Embedding,
        unknown: Hidden | None = None,
    ) -> Hidden:
        """Embedded tokens, `unknown` in place of mask tokens, with their positions added."""
        c = self.config
        x = table(tokens)
        if c.scale_embedding:
            x = x * c.d_model**0.5
        if unknown is not None:
            x = jnp.where((tokens == c.mask)[..., None], unknown, x)
        if c.positions == "sinusoidal":
            x = x + jnp.asarray(sinusoids(c.max_positions, c.d_model)).at[position].get(mode="clip")
        elif self.learned is not None:
            x = x + self.learned(position)
        return x.astype(c.dtype)


def within(
    window: int | None,
    mask: Bool[Array, "batch #time keys"],
    query: Int[Array, "batch time"],
    key: Int[Array, "#batch keys"],
) -> Bool[Array, "batch #time keys"]:
    """The mask, without keys that stand `window` positions before the query, or more."""
    return mask if window is None else mask & (query[:, :, None] - key[:, None] < window)


def without(
    logits: Float[Array, "batch time vocab"], tokens: tuple[int, ...]
) -> Float[Array, "batch time vocab"]:
    """The logits, with tokens that are impossible."""
    if not tokens:
        return logits
    # A constant mask joins what reads the logits; a scatter would write them once more.
    return jnp.where(np.isin(np.arange(logits.shape[-1]), tokens), NEG, logits)

"""Somebody else's model, wrapped in thirty lines: plain Linen, no cache, learned positions."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import nar
from nar import (
    DECODERS,
    Beam,
    IncompatibleModel,
    SelfSpeculative,
    Source,
    Spec,
)
from nar.model import Context, Fresh
from nar.testing import check_decoder, check_model, oracles
from tests.cases import CANVASES, CASES, each, equipped

VOCAB, EOS, WIDTH = 11, 1, 24


class Theirs(nn.Module):
    """A language model of somebody else: tokens, positions and a mask in, logits out."""

    @nn.compact
    def __call__(self, tokens, positions, mask):
        x = nn.Embed(VOCAB, WIDTH, embedding_init=nn.initializers.normal(1.0))(tokens)
        x = x + nn.Embed(48, WIDTH, embedding_init=nn.initializers.normal(1.5))(positions)
        for _ in range(2):
            y = nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x), mask=mask[:, None])
            x = x + 2 * y
            x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))
        return nn.LayerNorm()(x)

    @nn.nowrap
    def initial(self, key):
        one = jnp.zeros((1, 1), jnp.int32)
        return self.init(key, one, one, jnp.ones((1, 1, 1), bool))


class Wrapped(struct.PyTreeNode):
    """Their model in our verbs. What it remembers is the tokens themselves, as a context's keys."""

    params: Any
    table: Any

    spec = Spec(vocab_size=VOCAB, eos=EOS, pad=0, encoder=False, max_target=48)

    def begin(self, source, slots, *, dropout=None):
        batch, time = source.tokens.shape
        nothing = jnp.zeros((batch, 1, slots + time, 1), jnp.int32)
        context = Context(keys=((nothing,),), values=(), length=jnp.zeros(batch, jnp.int32))
        read = Fresh((source.tokens[:, None, :, None],), (), jnp.zeros(batch, jnp.int32))
        last = jnp.take_along_axis(source.tokens, source.length[:, None] - 1, axis=1)[:, 0]
        return context.commit(read, source.length - 1), last

    def extend(self, tokens, context, positions=None, mask=None, *, dropout=None):
        batch, time = tokens.shape
        new = context.length[:, None] + jnp.arange(time) if positions is None else positions
        sees = jnp.broadcast_to(np.tri(time) if mask is None else mask, (batch, time, time)) > 0
        old = context.keys[0][0][:, 0, :, 0]
        slot = jnp.broadcast_to(jnp.arange(old.shape[1]), old.shape)
        past = jnp.broadcast_to(
            (slot < context.length[:, None])[:, None], (batch, time, old.shape[1])
        )
        past_of_old = slot[:, :, None] >= slot[:, None]
        none = jnp.zeros((batch, old.shape[1], time), bool)
        hidden = Theirs().apply(
            self.params,
            jnp.maximum(jnp.concatenate([old, tokens], axis=1), 0),
            jnp.concatenate([slot, new], axis=1),
            jnp.block([[past_of_old, none], [past, sees]]),
        )[:, -time:]
        return hidden, Fresh((tokens[:, None, :, None],), (), jnp.zeros(batch, jnp.int32))

    def fill(self, canvas, context, valid, *, dropout=None):
        return self.extend(canvas, context, mask=valid[:, None] & jnp.ones_like(valid)[..., None])[
            0
        ]

    def logits(self, hidden):
        return hidden @ self.table


@pytest.fixture(scope="module")
def model():
    table = jax.random.normal(jax.random.key(1), (WIDTH, VOCAB)).at[:, EOS].multiply(0.7)
    return Wrapped(Theirs().initial(jax.random.key(0)), table)


@pytest.fixture(scope="module")
def source():
    random = np.random.default_rng(0)
    return Source.of([random.integers(2, VOCAB, n).tolist() for n in (6, 1, 3, 2, 5, 4, 1, 6)])


@pytest.mark.rest
def test_it_keeps_the_contract_of_models(model):
    check_model(model)


def test_outputs_are_worth_comparing(model, source):
    greedy = oracles.greedy(model, source, 12)
    assert len(set(greedy.length.tolist())) > 2
    assert len(set(map(tuple, greedy.tokens.tolist()))) == 8


@pytest.mark.parametrize("name", each(DECODERS))
def test_every_decoder_runs_on_it(model, source, name):
    decoder = nar.make(name, max_length=12)
    lacking = {SelfSpeculative: "an early exit at decoder layer 1"}
    lacking |= {type(CASES[canvas]): "trained to predict a canvas" for canvas in CANVASES}
    if type(decoder) in lacking:
        with pytest.raises(IncompatibleModel, match=lacking[type(decoder)]):
            nar.decode(decoder, model, source)
        return
    model = equipped(decoder, model)
    if isinstance(decoder, Beam):
        right = oracles.beam(model, source, 12, beams=4, length_penalty=1.0, stop="estimate")
        output = nar.decode(decoder, model, source)
        for row, length in enumerate(output.length):
            assert tuple(output.tokens[row, :length].tolist()) == right[row][0].tokens
    else:
        check_decoder(decoder, model, sources=[source], points=(1, 5))

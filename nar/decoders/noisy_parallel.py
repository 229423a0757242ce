"""Noisy parallel decoding (Gu et al. 2018, section 4.2): a causal model re-ranks candidates."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from nar.core import Candidates, Decoder, Needs, Output, State, Stats, role
from nar.decoders.mask_predict import MaskPredict
from nar.errors import NarError, check_same_vocabulary, is_number
from nar.ops import NEG, broken

RERANKER = "reranker"
"""The role of the causal model that chooses."""


class Carry(struct.PyTreeNode):
    """Beside the frame.

    Attributes:
        base: the state of who gives candidates.
        context: the source, as the causal model reads it.
        pending: `[batch]`, what that model is fed first.
        empty: `[batch, time]`, an output before it is written.
        ranked: the candidates; before the last step there are none.
        ended: `[batch]`, rows that were done before the ranking: somebody ended them.
    """

    base: State
    context: Any
    pending: Int[Array, " batch"]
    empty: Int[Array, "batch time"]
    ranked: Candidates
    ended: Bool[Array, " batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyParallel(Decoder):
    """A causal model scores all candidates of another decoder in one call, and the best is written.

    Needs a bundle: `Bundle.of(target=..., reranker=...)`. The call is made when the last row has
    its candidates.

    Attributes:
        base: who gives candidates, such as the length beam of mask-predict; its `max_length` is
            this one's.
        length_penalty: scores are log-probabilities over length ** penalty.
    """

    family = "reranking"
    base: Decoder = MaskPredict()
    length_penalty: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.base, Decoder):
            raise NarError(f"base={self.base!r}: it must be a decoder, such as (mask-predict)")
        if not is_number(self.length_penalty):
            raise NarError(f"length_penalty={self.length_penalty!r}: it must be a number")

    @property
    def inner(self) -> Decoder:
        """The base decoder, as long as this one."""
        return dataclasses.replace(self.base, max_length=self.max_length)

    @property
    def lossless(self):
        """The best of what the base decoder has found."""
        return "no"

    @property
    def max_steps(self):
        """The base decoder's."""
        return self.inner.max_steps

    @property
    def needs(self):
        """What the base decoder needs, and a causal model."""
        return {**self.inner.needs, RERANKER: Needs(causal=True)}

    @property
    def reads(self):
        """What the base decoder reads, and the causal model."""
        return (*self.inner.reads, RERANKER)

    def check(self, model, source):
        """Also: the base decoder can decode, and both models speak the same tokens."""
        super().check(model, source)
        self.inner.check(model, source)
        check_same_vocabulary(role(model).spec, role(model, RERANKER).spec, RERANKER)

    def init(self, model, source, *, key):
        """Both models read the source."""
        base = self.inner.init(model, source, key=key)
        context, pending = role(model, RERANKER).begin(source, 0)
        shapes = jax.eval_shape(lambda base: self.candidates(model, base), base)
        none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        carry = Carry(base, context, pending, base.tokens, none, base.done)
        return self.state(carry, ready=jnp.zeros((), bool))

    def step(self, model, state):
        """One step of the base decoder; after its last one, the ranking."""
        carry = state.carry
        # After the ranking all are done, as a trace goes on; before it only who was ended.
        ended = jnp.where(state.done.all(), carry.ended, state.done)
        base = self.inner.step(model, carry.base.replace(done=carry.base.done | ended))
        ready = base.done.all()
        ranked = jax.lax.cond(
            ready,
            lambda: self.rank(role(model, RERANKER), carry, self.candidates(model, base)),
            lambda: carry.ranked,
        )
        view, base = base.view, base.replace(view=None)
        carry = carry.replace(base=base, ranked=ranked, ended=ended)
        return self.state(carry, ready=ready).replace(view=view)

    def finish(self, model, state):
        """The best candidate, and the others."""
        ranked = state.carry.ranked.none_of(state.failed, role(model).spec.pad)
        scores = ranked.scores[:, 0]
        return Output(state.tokens, state.length, scores, state.stats, state.failed, nbest=ranked)

    def candidates(self, model: Any, base: State) -> Candidates:
        """What the base decoder has found."""
        output = self.inner.finish(model, base)
        if output.nbest is not None:
            return output.nbest
        tokens, length = output.tokens[:, None], output.length[:, None]
        return Candidates(tokens, length, jnp.zeros(length.shape))

    def rank(self, reranker: Any, carry: Carry, found: Candidates) -> Candidates:
        """The candidates with the causal model's scores, the best first."""
        batch, count, time = found.tokens.shape
        tokens, length = found.tokens.reshape(-1, time), found.length.reshape(-1)
        pending = jnp.repeat(carry.pending, count)[:, None]
        inputs = jnp.concatenate([pending, tokens[:, :-1]], axis=1)
        hidden, _ = reranker.extend(inputs, carry.context.repeat(count))
        logits = reranker.logits(hidden)
        said = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        ends = jax.nn.logsumexp(logits[..., np.array(reranker.spec.ends)], axis=-1)
        said = jnp.where(tokens == reranker.spec.eos, ends, said)
        said = said - jax.nn.logsumexp(logits, axis=-1)
        total = jnp.where(jnp.arange(time) < length[:, None], said, 0).sum(-1)
        scores = (total / jnp.maximum(length, 1) ** self.length_penalty).reshape(batch, count)
        there = found.scores > NEG / 2  # also if the causal model finds it impossible
        scores = jnp.where(scores < NEG / 2, NEG / 2, scores)
        scores = jnp.where(there, scores, NEG)
        return found.replace(scores=scores).best(count)

    def state(self, carry: Carry, *, ready: Array) -> State:
        """The frame: empty until the candidates are ranked, and in rows that failed or ended."""
        best, stats, ended = carry.ranked, carry.base.stats, carry.ended
        count, time = best.tokens.shape[1:]
        failed = carry.base.failed | broken(best.scores)
        written = ready & ~ended & ~failed
        length = jnp.where(written, best.length[:, 0], 0)
        # Nothing is written by a row's calls but the last one.
        accepted = jnp.zeros((time + 1,), jnp.int32).at[length].add(stats.live > 0)
        accepted = accepted.at[0].add(jnp.maximum(stats.live - 1, 0).sum())
        scored = jnp.where(written, count * time, 0)
        return State(
            tokens=jnp.where(written[:, None], best.tokens[:, 0], carry.empty),
            length=length,
            done=ready | ended | failed,
            failed=failed,
            stats=Stats(
                calls={**stats.calls, RERANKER: ready.astype(jnp.int32)},
                live=stats.live,
                positions={**stats.positions, RERANKER: scored},
                accepted=accepted,
            ),
            carry=carry,
        )

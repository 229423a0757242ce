"""Beam search with a length penalty and n-best lists: the autoregressive quality baseline."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int

from nar.core import TARGET, Candidates, Decoder, Output, State, Stats, View, role
from nar.decoders.draft_verify import ALTERNATIVES
from nar.errors import NarError, at_least, is_number
from nar.ops import NEG, broken

STOPS = ("full", "estimate", "bound")


class Carry(struct.PyTreeNode):
    """Beside the frame: the context of `batch * beams` rows, open and ended hypotheses.

    `open.scores` is the log-probability without penalty; `limit [batch]` the most tokens to write.
    """

    context: Any
    pending: Int[Array, "batch beams"]
    open: Candidates
    ended: Candidates
    limit: Int[Array, " batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam(Decoder):
    """Keeps the `beams` likeliest open hypotheses; ended ones compete by penalised score.

    Of the 2 * beams best continuations, those that end with EOS and are among the first `beams`
    join the ended hypotheses; the best others stay open, as in Transformers and fairseq. Scores are
    log-probability / length ** length_penalty, EOS counted (Wu et al. 2016 add constants to this).

    Attributes:
        beams: hypotheses a row.
        length_penalty: 0 prefers short outputs, 1 compares by the mean.
        nbest: how many hypotheses `Output.nbest` holds, best first; at most `beams`.
        stop: a row is done when `beams` hypotheses have ended ("full"), and also when no open one
            would beat the worst of them if it ended now ("estimate", as Transformers does), or ever
            ("bound").
    """

    family = "autoregressive"
    beams: int = 4
    length_penalty: float = 1.0
    nbest: int = 1
    stop: Literal["full", "estimate", "bound"] = "estimate"

    def __post_init__(self):
        super().__post_init__()
        at_least("beams", self.beams, 1)
        at_least("nbest", self.nbest, 1)
        if self.nbest > self.beams:
            raise NarError(f"nbest={self.nbest}: it must be at most beams={self.beams}")
        if not (is_number(self.length_penalty) and self.length_penalty >= 0):
            raise NarError(
                f"length_penalty={self.length_penalty!r}: it must be a number, 0 or more"
            )
        if self.stop not in STOPS:
            raise NarError(f"stop={self.stop!r}: it must be one of {', '.join(STOPS)}")

    @property
    def lossless(self):
        """Likelier outputs than greedy's, as a rule."""
        return "no"

    @property
    def streams(self):
        """What a step shows is the best open hypothesis, which another one may overtake."""
        return False

    def init(self, model, source, *, key):
        """One hypothesis a row, the empty one; the other beams are impossible."""
        target, batch = role(model), source.tokens.shape[0]
        context, pending = target.begin(source, self.max_length)
        shape = (batch, self.beams)
        none = Candidates(
            tokens=jnp.full((*shape, self.max_length), target.spec.pad, jnp.int32),
            length=jnp.zeros(shape, jnp.int32),
            scores=jnp.full(shape, NEG, jnp.float32),
        )
        limit = (
            jnp.full((batch,), self.max_length, jnp.int32) if source.limit is None else source.limit
        )
        return State(
            tokens=none.tokens[:, 0],
            length=none.length[:, 0],
            done=jnp.zeros((batch,), bool),
            failed=jnp.zeros((batch,), bool),
            stats=Stats.zero(batch, 1),
            carry=Carry(
                context=context.repeat(self.beams),
                pending=jnp.repeat(pending[:, None], self.beams, axis=1),
                open=none.replace(scores=none.scores.at[:, 0].set(0)),
                ended=none,
                limit=limit,
            ),
        )

    def step(self, model, state):
        """One token more on every open hypothesis."""
        target, c = role(model), state.carry
        batch, k = c.pending.shape
        hidden, fresh = target.extend(c.pending.reshape(-1, 1), c.context)
        logprobs = jax.nn.log_softmax(target.logits(hidden)).reshape(batch, k, -1)
        unknown = broken(logprobs[..., :1])  # one NaN among the logits makes all of these NaN
        failed = ~state.done & (unknown & (c.open.scores > NEG / 2)).any(-1)

        # A hypothesis may end in as many ways as there are ends, and k are to go on. All the best
        # may be of one beam, not more: small sorts instead of one over beams * vocab.
        most = (1 + len(target.spec.ends)) * k
        each = min(most, logprobs.shape[-1])
        best, token = jax.lax.top_k(c.open.scores[..., None] + logprobs, each)
        best = jnp.where(unknown[..., None], NEG, best)
        score, index = jax.lax.top_k(best.reshape(batch, -1), min(most, k * each))
        parent, token = index // each, jnp.take_along_axis(token.reshape(batch, -1), index, axis=1)
        token = target.spec.closed(token)

        length = state.length + 1
        tokens = jnp.take_along_axis(c.open.tokens, parent[..., None], axis=1)
        tokens = jnp.where(
            jnp.arange(self.max_length) == state.length[:, None, None], token[..., None], tokens
        )
        grown = Candidates(tokens, jnp.broadcast_to(length[:, None], score.shape), score)

        ends = token == target.spec.eos
        penalised = score / length[:, None] ** self.length_penalty
        closing = ends & (jnp.arange(score.shape[1]) < k) & (score > NEG / 2)
        ended = c.ended.join(grown.replace(scores=jnp.where(closing, penalised, NEG))).best(k)
        order = jax.lax.top_k(jnp.where(ends, NEG, score), k)[1]
        opened = grown.replace(scores=jnp.where(ends, NEG, score)).pick(order)
        parent, token = (jnp.take_along_axis(x, order, axis=1) for x in (parent, token))

        grows = ~state.done & ~failed

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(grows.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        opened, ended = jax.tree.map(keep, (opened, ended), (c.open, c.ended))
        count = grows.astype(jnp.int32)
        length = state.length + count
        parent = keep(parent, jnp.arange(k)[None])
        rows = (jnp.arange(batch)[:, None] * k + parent).reshape(-1)
        top_logprobs, choices = jax.lax.top_k(logprobs, min(ALTERNATIVES, logprobs.shape[-1]))
        return State(
            tokens=opened.tokens[:, 0],
            length=length,
            done=state.done | failed | (length >= c.limit) | self.settled(opened, ended, c.limit),
            failed=state.failed | failed,
            stats=state.stats.count(~state.done, count, {TARGET: (1, k)}),
            carry=Carry(
                context=c.context.commit(fresh, jnp.repeat(count, k)).select(rows),
                pending=keep(token, c.pending),
                open=opened,
                ended=ended,
                limit=c.limit,
            ),
            view=View(
                tokens=c.pending,
                position=jnp.broadcast_to(state.length[:, None] - 1, (batch, k)),
                accepted=jnp.broadcast_to(grows[:, None], (batch, k)),
                choices=choices,
                logprobs=top_logprobs,
            ),
        )

    def settled(self, opened: Candidates, ended: Candidates, limit: Int[Array, " batch"]) -> Array:
        """`[batch]`: no open hypothesis is still waited for."""
        full = ended.scores[:, -1] > NEG / 2
        if self.stop == "full":
            return full
        longest = limit if self.stop == "bound" and self.length_penalty > 0 else opened.length[:, 0]
        hope = opened.scores[:, 0] / longest**self.length_penalty
        return full & (hope <= ended.scores[:, -1])

    def finish(self, model, state):
        """The best ended hypotheses; open ones, cut at the limit, only where too few have ended."""
        c = state.carry
        possible = c.open.scores > NEG / 2
        cut = jnp.where(
            possible, c.open.scores / jnp.maximum(c.open.length, 1) ** self.length_penalty, NEG
        )
        # A stable order: the ended ones, best first, then the open ones, best first.
        both = c.ended.join(c.open.replace(scores=cut))
        rank = jnp.argsort(both.scores <= NEG / 2, axis=1, stable=True)[:, : self.nbest]
        best = both.pick(rank)
        tokens, length, scores = (x[:, 0] for x in (best.tokens, best.length, best.scores))
        return Output(tokens, length, scores, state.stats, state.failed, nbest=best)

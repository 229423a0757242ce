"""The loop of decoders that predict a whole canvas: fill, predict, mask some of it again, repeat.

CTC (Libovický & Helcl 2018) and one-shot models (Gu et al. 2018) call once, mask-predict
(Ghazvininejad et al. 2019) and diffusion's unmasking (Nie et al. 2025) several times; they differ
in how long a canvas is, in the schedule by which places are masked again, and in how a canvas is
read. What they share - candidates side by side, EOS, limits, rows that are done - is here, once.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from nar.core import TARGET, Candidates, Decoder, Output, Source, Spec, State, Stats, View, role
from nar.decoders.draft_verify import ALTERNATIVES
from nar.decoders.schedules import Guess, Schedule
from nar.ops import NEG, broken, first, likeliest, pack


class Carry(struct.PyTreeNode):
    """What the loop carries beside the frame; `rows` are `batch * candidates` canvases.

    Attributes:
        context: the encoded source.
        tokens: `[rows, places]`, what was predicted last; the mask token where nothing was.
        valid: `[rows, places]`, the places of the canvas.
        masked: `[rows, places]`, what the next call predicts.
        score: `[rows, places]`, log-probability of each token when it was predicted.
        when: `[rows, places]`, the call that predicted it, from 1.
        said: `[rows]`, the log-probability of a canvas' length; 0 where it is no choice.
        limit: `[rows]`, the most tokens to write.
        start: `[rows]`, the token that starts an output, which no output has.
    """

    context: Any
    tokens: Int[Array, "rows places"]
    valid: Bool[Array, "rows places"]
    masked: Bool[Array, "rows places"]
    score: Float[Array, "rows places"]
    when: Int[Array, "rows places"]
    said: Float[Array, " rows"]
    limit: Int[Array, " rows"]
    start: Int[Array, " rows"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canvas(Decoder):
    """A decoder of the loop; a subclass says how long its canvases are, and which schedule it has.

    The best candidate has the highest mean log-probability of its places; its tokens are written,
    with EOS after them where there is room, when no candidate of the row is waited for. A model
    that predicts EOS on the canvas ends the output there. Of a row for which a place or a length
    was predicted by NaN nothing is written.
    """

    family = "canvas"
    length_weight: ClassVar[float] = 0.0

    @property
    @abc.abstractmethod
    def schedule(self) -> Schedule:
        """Which places are masked again after a call."""

    @property
    def lossless(self):
        """The model's own prediction, which is no causal model's."""
        return "no"

    @property
    def max_steps(self):
        """As many calls as the schedule makes."""
        return self.schedule.most(self.max_length)

    @abc.abstractmethod
    def lay(
        self, target: Any, context: Any, source: Source, limit: Int[Array, " batch"]
    ) -> tuple[Bool[Array, "batch candidates places"], Float[Array, "batch candidates"]]:
        """The places of each candidate's canvas, and the log-probability of its length."""

    def keep(
        self, tokens: Int[Array, "rows places"], valid: Bool[Array, "rows places"], spec: Spec
    ) -> Bool[Array, "rows places"]:
        """Which places' tokens are the output, in their order."""
        return valid

    def never(self, spec: Spec) -> tuple[int | None, ...]:
        """Tokens that are not predicted."""
        return spec.pad, spec.mask, spec.blank

    def predict(
        self, target: Any, carry: Carry, masked: Bool[Array, "rows places"]
    ) -> Float[Array, "rows places vocab"]:
        """One call of the model: the logits of all places, of which some are fed masked."""
        spec = target.spec
        fed = jnp.where(masked, spec.mask, carry.tokens)
        logits = target.logits(target.fill(fed, carry.context, carry.valid))
        token = np.arange(spec.vocab_size)
        never = np.isin(token, [x for x in self.never(spec) if x is not None])
        return jnp.where(never | (token == carry.start[:, None, None]), NEG, logits)

    def init(self, model, source, *, key):
        """Reads the source and lays the canvases; everything is masked."""
        target, batch = role(model), source.tokens.shape[0]
        context, start = target.begin(source, 0)
        limit = (
            jnp.full((batch,), self.max_length, jnp.int32) if source.limit is None else source.limit
        )
        valid, said = self.lay(target, context, source, limit)
        candidates, places = valid.shape[1:]
        valid = valid.reshape(-1, places)
        return State(
            tokens=jnp.full((batch, self.max_length), target.spec.pad, jnp.int32),
            length=jnp.zeros((batch,), jnp.int32),
            done=jnp.zeros((batch,), bool),
            failed=jnp.zeros((batch,), bool),
            stats=Stats.zero(batch, self.max_length),
            carry=Carry(
                context=context.repeat(candidates),
                tokens=jnp.full(valid.shape, target.spec.mask, jnp.int32),
                valid=valid,
                masked=valid,
                score=jnp.zeros(valid.shape),
                when=jnp.zeros(valid.shape, jnp.int32),
                said=said.reshape(-1),
                limit=jnp.repeat(limit, candidates),
                start=jnp.repeat(start, candidates),
            ),
        )

    def step(self, model, state):
        """One call of the model on all canvases."""
        target, carry = role(model), state.carry
        spec, (rows, places) = target.spec, carry.valid.shape
        live = ~state.done
        candidates = rows // len(live)
        masked = carry.masked & jnp.repeat(live, candidates)[:, None]
        step = jnp.repeat(state.stats.live + 1, candidates)

        logits = self.predict(target, carry, masked)
        best, score = likeliest(logits)
        best = spec.closed(best)
        # What is predicted is fed, compared and masked again by its score: all of it decides.
        deciding = jnp.append(jnp.where(masked, score, 0), carry.said[:, None], axis=1)
        failed = live & broken(deciding.reshape(len(live), -1))

        guess = Guess(
            step=step,
            score=jnp.where(masked, score, carry.score),
            masked=masked,
            valid=carry.valid,
        )
        again = self.schedule(guess) & carry.valid
        carry = carry.replace(
            tokens=jnp.where(masked, best, carry.tokens),
            masked=again,
            score=guess.score,
            when=jnp.where(masked, step[:, None], carry.when),
        )
        found, shown, place = self.read(carry, spec, len(live))
        ends = live & ~failed & ~again.reshape(len(live), -1).any(-1)
        tokens = jnp.where(ends[:, None], found.tokens[:, 0], state.tokens)
        length = jnp.where(ends, found.length[:, 0], state.length)
        return State(
            tokens=tokens,
            length=length,
            done=state.done | failed | ends,
            failed=state.failed | failed,
            stats=state.stats.count(
                live, length - state.length, {TARGET: (1, candidates * places)}
            ),
            carry=carry,
            view=look(carry, logits, place, shown),
        )

    def finish(self, model, state):
        """The best candidates, and which call each token of the output was final with."""
        carry, (batch, time) = state.carry, state.tokens.shape
        found, best, place = self.read(carry, role(model).spec, batch)
        written = (place[best] >= 0) & (place[best] < state.length[:, None])
        call = jnp.arange(1, self.max_steps + 1)
        live = state.stats.live[:, None]
        count = (written[:, None] & (carry.when[best][:, None] == call[:, None])).sum(-1)
        # EOS stands on no canvas: it is written with the last call.
        count = count + jnp.where(call == live, (state.length - written.sum(-1))[:, None], 0)
        accepted = jnp.zeros((time + 1,), jnp.int32).at[count].add(call <= live)
        stats = state.stats.replace(accepted=accepted)
        found = found.none_of(state.failed, role(model).spec.pad)
        scores = found.scores[:, 0]
        return Output(state.tokens, state.length, scores, stats, state.failed, nbest=found)

    def read(
        self, carry: Carry, spec: Spec, batch: int
    ) -> tuple[Candidates, Int[Array, " batch"], Int[Array, "rows places"]]:
        """What stands on the canvases now.

        Returns:
            The candidates, best first; the canvas of each row's best; and the place in the output
            that each place of a canvas takes, -1 where it takes none.
        """
        kept, most = self.keep(carry.tokens, carry.valid, spec), self.max_length
        place = jnp.where(kept, kept.cumsum(-1) - 1, -1)
        tokens, time = pack(carry.tokens, kept, most, spec.pad), np.arange(most)
        end = jnp.minimum(kept.sum(-1), first(tokens == spec.eos))
        tokens = jnp.where(time < end[:, None], tokens, spec.pad)
        tokens = jnp.where(time == end[:, None], spec.eos, tokens)
        tokens = jnp.where(time < carry.limit[:, None], tokens, spec.pad)
        length = jnp.minimum(end + 1, carry.limit)

        size, weight = carry.valid.sum(-1), self.length_weight
        total = jnp.where(carry.valid, carry.score, 0).sum(-1) + weight * carry.said
        mean = total / jnp.maximum(size + weight, weight or 1)
        scores = jnp.where(size > 0, mean, carry.said)
        tokens, length, scores = (
            x.reshape(batch, -1, *x.shape[1:]) for x in (tokens, length, scores)
        )
        order = jax.lax.top_k(scores, scores.shape[1])[1]
        best = jnp.arange(batch) * order.shape[1] + order[:, 0]
        return Candidates(tokens, length, scores).pick(order), best, place


def look(
    carry: Carry,
    logits: Float[Array, "rows places vocab"],
    place: Int[Array, "rows places"],
    shown: Int[Array, " batch"],
) -> View:
    """What stands on the canvases that are shown, for pictures."""
    logprobs, choices = jax.lax.top_k(
        jax.nn.log_softmax(logits[shown]), min(ALTERNATIVES, logits.shape[-1])
    )
    return View(
        tokens=jnp.where(place[shown] >= 0, carry.tokens[shown], -1),
        position=place[shown],
        accepted=~carry.masked[shown],
        choices=choices,
        logprobs=logprobs,
        own=True,
    )

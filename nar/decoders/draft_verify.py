"""The loop of every draft-and-verify decoder: propose, extend, judge, append, commit, observe.

Blockwise parallel decoding (Stern et al. 2018), speculative decoding (Leviathan et al. 2023),
lookahead (Fu et al. 2024) and the Jacobi family (Santilli et al. 2023) differ in who drafts and in
the rule by which the model judges; all that is tricky - cuts at EOS, at the limit and before what
NaN decided, rows that are done, contexts that must follow - is here, once.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from nar.core import TARGET, Decoder, Needs, Output, State, Stats, View, role, row_keys
from nar.decoders.rules import Exact, Rule, candidates
from nar.drafters.drafter import Drafter, Outcome
from nar.ops import at_rows, broken, first, fold, put_rows
from nar.sharding import constrain

ALTERNATIVES = 5


class Carry(struct.PyTreeNode):
    """What the loop carries beside the frame.

    Attributes:
        context: the model's committed tokens.
        pending: `[batch]`, the last token written, which the model has not been fed.
        drafter: the drafter's own carry.
        limit: `[batch]`, the most tokens to write.
        score: `[batch]`, log-probability of the tokens written, or None.
        key: `[batch]`, one random key a row.
    """

    context: Any
    pending: Int[Array, " batch"]
    drafter: Any
    limit: Int[Array, " batch"]
    score: Float[Array, " batch"] | None
    key: Key[Array, " batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DraftVerify(Decoder):
    """A decoder of the loop; a subclass says who drafts.

    Attributes:
        scores: also return each output's log-probability under the model.
    """

    scores: bool = False

    @property
    @abc.abstractmethod
    def drafter(self) -> Drafter:
        """Who proposes tokens."""

    @property
    def rule(self) -> Rule:
        """How the model judges them."""
        return Exact()

    @property
    def lossless(self):
        """As the rule is."""
        return self.rule.lossless

    @property
    def needs(self):
        """A causal target, and what the drafter asks for."""
        return {TARGET: Needs(causal=True), **self.drafter.needs}

    def init(self, model, source, *, key):
        """Reads the source; nothing is written yet."""
        target, batch = role(model), source.tokens.shape[0]
        key = row_keys(key, batch)
        context, pending = target.begin(source, self.max_length)
        limit = (
            jnp.full((batch,), self.max_length, jnp.int32) if source.limit is None else source.limit
        )
        roles = tuple(dict.fromkeys((TARGET, *self.drafter.roles)))
        return State(
            tokens=constrain(
                jnp.full((batch, self.max_length), target.spec.pad, jnp.int32), "batch", None
            ),
            length=jnp.zeros((batch,), jnp.int32),
            done=jnp.zeros((batch,), bool),
            failed=jnp.zeros((batch,), bool),
            stats=Stats.zero(batch, self.drafter.depth + 1, roles),
            carry=Carry(
                context=context,
                pending=pending,
                drafter=self.drafter.init(model, source, self.max_length, fold(key, 0)),
                limit=limit,
                score=jnp.zeros((batch,)) if self.scores else None,
                key=key,
            ),
        )

    def step(self, model, state):
        """One call of the model on one draft."""
        target, carry = role(model), state.carry
        guess_key, judge_key = jax.vmap(jax.random.split, out_axes=1)(
            fold(carry.key, state.length + 1)
        )

        draft, drafter = self.drafter.propose(model, carry.drafter, carry.pending, guess_key)
        position = carry.context.length[:, None] + jnp.asarray(draft.layout.offsets)
        hidden, fresh = target.extend(draft.tokens, carry.context, position, draft.layout.mask)
        logits = target.logits(hidden)
        verdict = self.rule(logits, draft, judge_key)

        written = target.spec.closed(verdict.tokens)
        count = cut(state, written, verdict.count, carry.limit, target.spec.eos)
        paths, _ = candidates(draft)
        nodes = at_rows(paths, verdict.path)
        sound = first(broken(at_rows(logits, nodes)))
        failed, count = sound < count, jnp.minimum(count, sound)
        pending = jnp.where(count > 0, at_rows(verdict.tokens, count - 1), carry.pending)
        outcome = Outcome(draft, hidden, verdict.best, nodes, verdict.tokens, count, pending)
        ended = at_rows(written, count - 1) == target.spec.eos
        length = state.length + count
        return State(
            tokens=put_rows(state.tokens, state.length, written, count),
            length=length,
            done=state.done | failed | ended | (length >= carry.limit),
            failed=state.failed | failed,
            stats=state.stats.count(
                ~state.done, count, {TARGET: (1, draft.tokens.shape[1]), **draft.work}
            ),
            carry=carry.replace(
                context=carry.context.commit(
                    fresh, count, None if draft.layout.is_chain else nodes
                ),
                pending=pending,
                drafter=self.drafter.observe(model, drafter, outcome),
                score=None if carry.score is None else carry.score + logprob(logits, outcome),
            ),
            view=look(state, logits, outcome, verdict.count),
        )

    def finish(self, model, state):
        """The tokens written."""
        return Output(state.tokens, state.length, state.carry.score, state.stats, state.failed)


def cut(
    state: State,
    tokens: Int[Array, "batch path"],
    count: Int[Array, " batch"],
    limit: Int[Array, " batch"],
    eos: int,
) -> Int[Array, " batch"]:
    """How many of the tokens to write: none on done rows, none after EOS, none past the limit."""
    count = jnp.where(state.done, 0, jnp.minimum(count, limit - state.length))
    written = jnp.arange(tokens.shape[1]) < count[:, None]
    return jnp.minimum(count, first((tokens == eos) & written) + 1)


def logprob(logits: Float[Array, "batch nodes vocab"], outcome: Outcome) -> Float[Array, " batch"]:
    """Log-probability of the tokens that were written."""
    at = at_rows(logits, outcome.nodes)
    picked = jnp.take_along_axis(at, jnp.maximum(outcome.tokens, 0)[..., None], axis=-1)[..., 0]
    written = jnp.arange(outcome.tokens.shape[1]) < outcome.count[:, None]
    return jnp.where(written, picked - jax.nn.logsumexp(at, axis=-1), 0).sum(-1)


def look(
    state: State,
    logits: Float[Array, "batch nodes vocab"],
    outcome: Outcome,
    judged: Int[Array, " batch"],
) -> View:
    """What the step looked at, for pictures; `judged` is how many tokens were right before cuts."""
    draft = outcome.draft
    offsets = jnp.asarray(draft.layout.offsets)
    # The last token written is the model's own, but where a cut made it a guess that was right.
    accepted_nodes = jnp.minimum(outcome.count + 1, judged)
    taken = jnp.arange(outcome.nodes.shape[1]) < accepted_nodes[:, None]
    node = jnp.arange(draft.tokens.shape[1])
    accepted: Bool[Array, "batch nodes"] = (
        (outcome.nodes[:, None, :] == node[None, :, None]) & taken[:, None, :]
    ).any(-1)
    logprobs, choices = jax.lax.top_k(
        jax.nn.log_softmax(logits), min(ALTERNATIVES, logits.shape[-1])
    )
    place = jnp.where(offsets > 0, state.length[:, None] + offsets - 1, -1)
    return View(draft.tokens, place, accepted & (offsets > 0), choices, logprobs)

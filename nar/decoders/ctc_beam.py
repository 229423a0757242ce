"""Prefix beam search of connectionist temporal classification, with a language model.

It looks for the likeliest output, where greedy decoding looks for the likeliest alignment (Graves
et al. 2006, section 3.2; Hannun et al. 2014, https://arxiv.org/abs/1408.2873): place after place,
it sums the probabilities of all alignments so far that collapse to the same prefix.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from nar import ctc
from nar.core import TARGET, Candidates, Output, Spec, State, role
from nar.decoders import canvas
from nar.decoders.ctc import CTC
from nar.errors import NarError, at_least, check_same_vocabulary, is_number
from nar.ngram.model import LANGUAGE, NGram
from nar.ops import NEG, broken


class Prefixes(struct.PyTreeNode):
    """Prefixes of a row, each once; how their alignments end decides how they can go on.

    Probabilities are logarithms, NEG where there is none. All arrays are `[batch, prefixes]`.

    Attributes:
        length: tokens.
        last: the last token; pad where there is none.
        blank: the probability of the alignments that end with a blank.
        label: of those that end with the last token.
        ended: of those that reached EOS on the canvas, or the limit.
        language: what the language model gives to the tokens.
        state: the language model's.
    """

    length: Int[Array, "batch prefixes"]
    last: Int[Array, "batch prefixes"]
    blank: Float[Array, "batch prefixes"]
    label: Float[Array, "batch prefixes"]
    ended: Float[Array, "batch prefixes"]
    language: Float[Array, "batch prefixes"]
    state: Int[Array, "batch prefixes"]

    @property
    def open(self) -> Float[Array, "batch prefixes"]:
        """The probability of the alignments that go on."""
        return jnp.logaddexp(self.blank, self.label)

    @property
    def total(self) -> Float[Array, "batch prefixes"]:
        """The probability of all alignments."""
        return jnp.logaddexp(self.open, self.ended)

    @property
    def possible(self) -> Bool[Array, "batch prefixes"]:
        """Which ones there are: a beam may have room for more."""
        return self.total > NEG / 2


class Carry(struct.PyTreeNode):
    """The canvas, and what was found."""

    canvas: canvas.Carry
    found: Candidates


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTCBeam(CTC):
    """One call, then a search for the output y of the highest score.

        log P(y | source) + alpha * log P(y) + beta * tokens

    The first is the sum over the alignments that the beam reached, the second an n-gram model's,
    EOS included; it needs a bundle: `Bundle.of(target=..., language=nar.ngram.read_arpa(...))`.
    With alpha=0 and beta=0 it is plain prefix beam search. Gu & Kong (2021) take alpha=0.4,
    beta=2.2 and 20 beams for Japanese to English.

    Attributes:
        beams: prefixes a row.
        top_k: with how many tokens new prefixes are made at each place, the likeliest there. What
            becomes of a prefix of the beam depends on all symbols.
        alpha: weight of the language model.
        beta: what each token before EOS adds, since a language model prefers few.
        nbest: how many candidates `Output.nbest` holds, best first; at most `beams`.
    """

    beams: int = 20
    top_k: int = 10
    alpha: float = 0.0
    beta: float = 0.0
    nbest: int = 1

    def __post_init__(self):
        super().__post_init__()
        for name in ("beams", "top_k", "nbest"):
            at_least(name, getattr(self, name), 1)
        if self.nbest > self.beams:
            raise NarError(f"nbest={self.nbest}: it must be at most beams={self.beams}")
        if not (is_number(self.alpha) and 0 <= self.alpha < np.inf):
            raise NarError(f"alpha={self.alpha!r}: it must be a number, 0 or more")
        if not (is_number(self.beta) and np.isfinite(self.beta)):
            raise NarError(f"beta={self.beta!r}: it must be a number")

    @property
    def reads(self):
        """Also the language model, where it has a weight."""
        return (*super().reads, LANGUAGE) if self.alpha else super().reads

    def check(self, model, source):
        """Also: where it has a weight, there is a language model of the model's vocabulary."""
        super().check(model, source)
        if not self.alpha:
            return
        found = role(model, LANGUAGE)
        if not isinstance(found, NGram):
            raise NarError(
                f"the bundle's language is a {type(found).__name__}: it must be an NGram"
            )
        check_same_vocabulary(role(model).spec, found, LANGUAGE)

    def init(self, model, source, *, key):
        """The canvas; nothing has been found."""
        state = super().init(model, source, key=key)
        shape = (len(state.length), self.nbest)
        found = Candidates(
            tokens=jnp.full((*shape, self.max_length), role(model).spec.pad, jnp.int32),
            length=jnp.zeros(shape, jnp.int32),
            scores=jnp.full(shape, NEG, jnp.float32),
        )
        return state.replace(carry=Carry(state.carry, found))

    def step(self, model, state):
        """One call of the model, and the search."""
        target, carry, live = role(model), state.carry.canvas, ~state.done
        spec = target.spec
        logits = self.predict(target, carry, carry.valid)
        failed = live & (broken(logits) & carry.valid).any(-1)
        language = role(model, LANGUAGE) if self.alpha else None
        decided = live & ~failed
        found = self.search(logits, carry.valid, carry.limit, spec, language)
        found = jax.tree.map(
            lambda new, old: jnp.where(decided.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            found,
            state.carry.found,
        )
        tokens, length = found.tokens[:, 0], found.length[:, 0]

        labels = length - (tokens == spec.eos).any(-1)
        alignment = ctc.best_alignment(logits, carry.valid, tokens, labels, spec.blank)
        kept = self.keep(alignment, carry.valid, spec)
        shown = carry.replace(tokens=alignment, masked=jnp.zeros_like(carry.masked))
        place = jnp.where(kept, kept.cumsum(-1) - 1, -1)
        return State(
            tokens=tokens,
            length=length,
            done=jnp.ones_like(state.done),
            failed=state.failed | failed,
            stats=state.stats.count(live, length, {TARGET: (1, logits.shape[1])}),
            carry=state.carry.replace(found=found),
            view=canvas.look(shown, logits, place, jnp.arange(len(live))),
        )

    def finish(self, model, state):
        """The best candidates."""
        found = state.carry.found
        scores = found.scores[:, 0]
        return Output(state.tokens, state.length, scores, state.stats, state.failed, nbest=found)

    def search(
        self,
        logits: Float[Array, "batch places vocab"],
        valid: Bool[Array, "batch places"],
        limit: Int[Array, " batch"],
        spec: Spec,
        language: NGram | None,
    ) -> Candidates:
        """The best outputs of the beam that the last place leaves."""
        shape = (len(logits), self.beams)
        zeros, none = jnp.zeros(shape, jnp.int32), jnp.full(shape, NEG)
        prefixes = Prefixes(
            length=zeros,
            last=zeros + spec.pad,
            blank=none.at[:, 0].set(0),
            label=none,
            ended=none,
            language=jnp.zeros(shape),
            state=zeros if language is None else zeros + language.start,
        )
        tokens = jnp.full((*shape, self.max_length), spec.pad, jnp.int32)
        blank = jnp.where(np.arange(spec.vocab_size) == spec.blank, 0.0, NEG)

        def advance(beam: tuple[Array, Prefixes], place: Int[Array, ""]):
            logprobs = jax.nn.log_softmax(logits[:, place])
            logprobs = jnp.where(valid[:, place, None], logprobs, blank)
            return self.advance(*beam, logprobs, limit, spec, language), None

        places = jnp.arange(logits.shape[1])
        (tokens, prefixes), _ = jax.lax.scan(advance, (tokens, prefixes), places)
        room = prefixes.length < limit[:, None]
        end = room[..., None] & (np.arange(self.max_length) == prefixes.length[..., None])
        if language is not None:
            said = jnp.where(room, language.step(prefixes.state, spec.eos)[0], 0)
            prefixes = prefixes.replace(language=prefixes.language + said)
        return Candidates(
            tokens=jnp.where(end, spec.eos, tokens),
            length=prefixes.length + room,
            scores=jnp.where(prefixes.possible, self.score(prefixes), NEG),
        ).best(self.nbest)

    def score(self, prefixes: Prefixes) -> Float[Array, "batch prefixes"]:
        """What prefixes are ranked by."""
        return prefixes.total + self.alpha * prefixes.language + self.beta * prefixes.length

    def advance(
        self,
        tokens: Int[Array, "batch beams time"],
        old: Prefixes,
        logprobs: Float[Array, "batch vocab"],
        limit: Int[Array, " batch"],
        spec: Spec,
        language: NGram | None,
    ) -> tuple[Int[Array, "batch beams time"], Prefixes]:
        """The beam after one place more: of its prefixes, and of these with a token more.

        What has as many tokens as the limit has ended, whatever follows.
        """
        batch, beams = old.length.shape
        place = np.arange(self.max_length)
        room = old.length < limit[:, None]
        blank, label, open_ = (jnp.where(room, x, NEG) for x in (old.blank, old.label, old.open))

        # The same token once more is another one only after a blank.
        related = longer(tokens, old, spec.pad)
        twice = old.last[:, :, None] == old.last[:, None]
        came = jnp.where(related, jnp.where(twice, blank[:, None], open_[:, None]), NEG).max(-1)
        again = jnp.take_along_axis(logprobs, old.last, axis=1)
        ends = jax.nn.logsumexp(logprobs[:, np.array(spec.ends)], axis=-1, keepdims=True)
        ends = jnp.where(room, ends, 0)
        stays = old.replace(
            blank=open_ + logprobs[:, spec.blank, None],
            label=jnp.logaddexp(label, came) + again,
            ended=jnp.logaddexp(old.ended, old.open + ends),
        )

        special = np.isin(np.arange(spec.vocab_size), np.array([spec.blank, *spec.ends]))
        top_k = min(self.top_k, spec.vocab_size)
        gain, token = jax.lax.top_k(jnp.where(special, NEG, logprobs), top_k)
        gain, token = gain[:, None], token[:, None]
        twice = token == old.last[..., None]
        grown = gain + jnp.where(twice, blank[..., None], open_[..., None])
        known = (related[..., None] & (old.last[:, :, None, None] == token[:, None])).any(1)
        said, state = 0.0, old.state[..., None]
        if language is not None:
            said, state = language.step(state, token)
        grows = Prefixes(
            length=old.length[..., None] + 1,
            last=token,
            blank=jnp.full_like(grown, NEG),
            label=jnp.where(known, NEG, grown),
            ended=jnp.full_like(grown, NEG),
            language=old.language[..., None] + said,
            state=state,
        )

        def both(stays: Array, grows: Array) -> Array:
            grows = jnp.broadcast_to(grows, (batch, beams, top_k)).reshape(batch, -1)
            return jnp.concatenate([stays, grows], axis=1)

        new = jax.tree.map(both, stays, grows)
        index = jax.lax.top_k(self.score(new), beams)[1]
        new = jax.tree.map(lambda x: jnp.take_along_axis(x, index, axis=1), new)
        parent = jnp.where(index < beams, index, (index - beams) // top_k)
        tokens = jnp.take_along_axis(tokens, parent[..., None], axis=1)
        return jnp.where(place == new.length[..., None] - 1, new.last[..., None], tokens), new


def longer(
    tokens: Int[Array, "batch beams time"], prefixes: Prefixes, pad: int
) -> Bool[Array, "batch beams beams"]:
    """Whether the first prefix is the second one and a token more; compared token by token."""
    place = np.arange(tokens.shape[-1])
    shorter = jnp.where(place == prefixes.length[..., None] - 1, pad, tokens)
    same = (shorter[:, :, None] == tokens[:, None]).all(-1)
    more = prefixes.length[:, :, None] == prefixes.length[:, None] + 1
    return same & more & prefixes.possible[:, :, None] & prefixes.possible[:, None]

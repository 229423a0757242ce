"""What decoders are held to: outputs found by brute force in NumPy, from whole prefixes, uncached.

Nothing here commits to a context, drafts, or runs a decoder: the only thing that is shared with the
code under test is the model's forward pass over a full prefix.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nar.core import Output, Source, role
from nar.errors import NarError

Warp = Callable[[np.ndarray], np.ndarray]
"""Log-probabilities `[..., vocab]` out of logits, in NumPy."""

MOST_PREFIXES = 20_000


@jax.jit
def teacher_forced(
    model: Any, source: Source, tokens: Int[Array, "batch time"]
) -> Float[Array, "batch time vocab"]:
    """The logits from which each of `tokens` would be chosen, in one pass over all of them."""
    target = role(model)
    context, pending = target.begin(source, 0)
    fed = jnp.concatenate([pending[:, None], tokens[:, :-1]], axis=1)
    return target.logits(target.extend(fed, context)[0])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def limits(source: Source, max_length: int) -> np.ndarray:
    """`[batch]`: how many tokens each row may have."""
    if source.limit is None:
        return np.full(source.tokens.shape[0], max_length)
    return np.minimum(np.asarray(source.limit), max_length)


class Rows(NamedTuple):
    """Outputs row by row: `tokens [batch, time]`, pad from `length [batch]` on, and any scores."""

    tokens: Any
    length: Any
    scores: Any = None

    @classmethod
    def of(cls, output: Output) -> "Rows":
        """What a decoder's output says of its rows."""
        return cls(output.tokens, output.length, output.scores)


def greedy(model: Any, source: Source, max_length: int) -> Rows:
    """Greedy decoding, one full forward pass a token; of equal logits the first."""
    spec, limit = role(model).spec, limits(source, max_length)
    tokens = np.full((len(limit), max_length), spec.pad, np.int32)
    length, open_ = np.zeros_like(limit), np.ones(len(limit), bool)
    for t in range(max_length):
        choice = np.asarray(teacher_forced(model, source, tokens))[:, t].argmax(-1)
        ends = np.isin(choice, spec.ends)
        tokens[open_, t] = np.where(ends, spec.eos, choice)[open_]
        length += open_
        open_ &= ~ends & (length < limit)
    return Rows(tokens, length)


def prefixes(model: Any, source: Source, row: int, max_length: int, warp: Warp = log_softmax):
    """Every prefix without EOS of one row, as `{prefix: log-probabilities of what follows}`.

    Raises:
        NarError: there are too many to enumerate.
    """
    spec = role(model).spec
    ordinary = [token for token in range(spec.vocab_size) if token not in spec.ends]
    count = sum(len(ordinary) ** n for n in range(max_length))
    if count > MOST_PREFIXES:
        raise NarError(
            f"{count} prefixes of at most {max_length} of {spec.vocab_size} tokens: at most "
            f"{MOST_PREFIXES} are enumerated; take a smaller vocabulary or max_length"
        )
    found = [p for n in range(max_length) for p in itertools.product(ordinary, repeat=n)]
    tokens = np.full((len(found), max_length), spec.pad, np.int32)
    for i, prefix in enumerate(found):
        tokens[i, : len(prefix)] = prefix
    same = np.full(len(found), row)
    repeated = Source(jnp.asarray(source.tokens)[same], jnp.asarray(source.length)[same])
    logits = np.asarray(teacher_forced(model, repeated, tokens), np.float64)
    at = np.array([len(prefix) for prefix in found])
    return dict(zip(found, warp(logits[np.arange(len(found)), at]), strict=True))


def distribution(
    model: Any, source: Source, row: int, max_length: int, warp: Warp = log_softmax
) -> dict[tuple[int, ...], float]:
    """The log-probability of every output: those that end in EOS or are `max_length` long."""
    spec = role(model).spec
    total: dict[tuple[int, ...], float] = {(): 0.0}
    outputs: dict[tuple[int, ...], float] = {}
    for prefix, following in prefixes(model, source, row, max_length, warp).items():
        for token, logprob in enumerate(following):
            ends = token in spec.ends
            longer = (*prefix, spec.eos if ends else token)
            found = outputs if ends or len(longer) == max_length else total
            found[longer] = np.logaddexp(found.get(longer, -np.inf), total[prefix] + logprob)
    return outputs


def chi_square(
    seen: Counter[tuple[int, ...]], expected: Mapping[tuple[int, ...], float]
) -> tuple[float, str]:
    """The p-value of Pearson's test that `seen` was drawn from `expected`, and the worst outcome.

    Outcomes of fewer than five expected draws are pooled; an impossible one that was seen has
    p-value 0.
    """
    draws = sum(seen.values())
    for outcome in seen:
        if not np.exp(expected.get(outcome, -np.inf)):
            return 0.0, f"{list(outcome)}, which is impossible, drawn {seen[outcome]} times"
    observed, mean = {}, {}
    for outcome, logprob in expected.items():
        name = outcome if draws * np.exp(logprob) >= 5 else "the rest"
        mean[name] = mean.get(name, 0.0) + draws * np.exp(logprob)
        observed[name] = observed.get(name, 0) + seen[outcome]
    if mean.get("the rest", 5) < 5:
        del mean["the rest"]
    if len(mean) < 2:
        return 1.0, "a single outcome"
    terms = {name: (observed[name] - mean[name]) ** 2 / mean[name] for name in mean}
    worst = max(terms, key=terms.__getitem__)
    p_value = float(jax.scipy.stats.chi2.sf(sum(terms.values()), len(terms) - 1))
    return p_value, f"{worst} drawn {observed[worst]} times, expected {mean[worst]:.1f}"


class Hypothesis(NamedTuple):
    """A hypothesis of beam search and its score, the penalised one where it has ended."""

    tokens: tuple[int, ...]
    score: float


def beam(
    model: Any,
    source: Source,
    max_length: int,
    *,
    beams: int,
    length_penalty: float,
    stop: str,
) -> list[list[Hypothesis]]:
    """Beam search in plain Python on full forward passes: each row's hypotheses, best first.

    Of the 2 * beams best continuations, or more where a model has several ends, the ones with EOS
    among the first `beams` end; the best of the others stay open. `stop` is "full", "estimate" or
    "bound", as in `nar.Beam`.
    """
    spec, batch = role(model).spec, source.tokens.shape[0]
    limit = limits(source, max_length)
    open_ = [[Hypothesis((), 0.0)] for _ in range(batch)]
    ended: list[list[Hypothesis]] = [[] for _ in range(batch)]
    going = np.ones(batch, bool)
    repeated = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), beams, axis=0), source)
    for t in range(max_length):
        tokens = np.full((batch, beams, max_length), spec.pad, np.int32)
        for row, k in itertools.product(range(batch), range(beams)):
            if going[row] and k < len(open_[row]):
                tokens[row, k, :t] = open_[row][k].tokens
        logits = np.asarray(
            teacher_forced(model, repeated, tokens.reshape(-1, max_length)), np.float64
        )
        logprobs = log_softmax(logits[:, t].reshape(batch, beams, -1))
        for row in np.flatnonzero(going):
            grown = [
                Hypothesis((*h.tokens, token), h.score + logprobs[row, k, token])
                for k, h in enumerate(open_[row])
                for token in range(spec.vocab_size)
            ]
            grown = sorted(grown, key=lambda h: -h.score)[: (1 + len(spec.ends)) * beams]
            ended[row] += [
                Hypothesis((*h.tokens[:-1], spec.eos), h.score / (t + 1) ** length_penalty)
                for h in grown[:beams]
                if h.tokens[-1] in spec.ends
            ]
            ended[row] = sorted(ended[row], key=lambda h: -h.score)[:beams]
            open_[row] = [h for h in grown if h.tokens[-1] not in spec.ends][:beams]
            full = len(ended[row]) == beams
            longest = limit[row] if stop == "bound" and length_penalty > 0 else t + 1
            hopeless = (
                full and open_[row][0].score / longest**length_penalty <= ended[row][-1].score
            )
            settled = full if stop == "full" else hopeless
            going[row] = not settled and t + 1 < limit[row]
    for row in range(batch):
        cut = [Hypothesis(h.tokens, h.score / len(h.tokens) ** length_penalty) for h in open_[row]]
        ended[row] += cut
    return ended

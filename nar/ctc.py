"""Connectionist temporal classification (Graves et al. 2006): alignments, on a canvas.

An alignment has one symbol a place, a token or the blank; it collapses to the tokens that are left
when repetitions are merged and blanks are dropped. So a canvas holds any output that is not longer,
and two equal tokens in a row take a blank between them.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from nar.ops import NEG, at_rows, first, pack


def kept(symbols: Int[Array, "batch places"], blank: int) -> Bool[Array, "batch places"]:
    """Where an alignment has a token that is neither blank nor the repetition of the one before."""
    before = jnp.pad(symbols[:, :-1], ((0, 0), (1, 0)), constant_values=blank)
    return (symbols != blank) & (symbols != before)


def collapse(
    symbols: Int[Array, "batch places"], blank: int
) -> tuple[Int[Array, "batch places"], Int[Array, " batch"]]:
    """The tokens that alignments stand for.

    Args:
        symbols: one a place; blanks where a place is not the row's.
        blank: what stands for no token.

    Returns:
        The tokens, blanks after them, and how many they are.
    """
    tokens = kept(symbols, blank)
    return pack(symbols, tokens, symbols.shape[1], blank), tokens.sum(1)


def places_needed(
    labels: Int[Array, "batch labels"], count: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """How many places the shortest alignment of each row's first `count` labels has."""
    inside = jnp.arange(1, labels.shape[1]) < count[:, None]
    return count + (inside & (labels[:, 1:] == labels[:, :-1])).sum(1)


def negative_log_likelihood(
    logits: Float[Array, "batch places vocab"],
    valid: Bool[Array, "batch places"],
    labels: Int[Array, "batch labels"],
    count: Int[Array, " batch"],
    blank: int,
) -> Float[Array, " batch"]:
    """`-log sum p(alignment)` over all alignments that collapse to the labels (equation 8).

    Every symbol of these alignments is one of the row's own: the blank and its labels. So the
    library is asked about those few only, a vocabulary of its own for each row; what the softmax of
    a place gives to all other symbols, log Z - log Z_own, is added.

    Args:
        logits: of every symbol at each place.
        valid: which places are the row's: its first ones.
        labels: tokens, none of them the blank.
        count: how many of the labels are the row's.
        blank: what stands for no token.

    Returns:
        A large number, though finite, where no alignment is short enough: see `places_needed`.
    """
    absent = jnp.arange(labels.shape[1]) >= count[:, None]
    symbols = jnp.pad(jnp.where(absent, blank, labels), ((0, 0), (1, 0)), constant_values=blank)
    own = jnp.take_along_axis(logits, symbols[:, None], axis=2)
    same = first(labels[:, :, None] == labels[:, None])  # equal labels are one symbol
    among = optax.ctc_loss(own, 1.0 - valid, 1 + same, absent.astype(own.dtype))
    others = jax.nn.logsumexp(logits, axis=-1) - jax.nn.logsumexp(own, axis=-1)
    return among + jnp.where(valid, others, 0).sum(1)


def best_alignment(
    logits: Float[Array, "batch places vocab"],
    valid: Bool[Array, "batch places"],
    labels: Int[Array, "batch labels"],
    count: Int[Array, " batch"],
    blank: int,
) -> Int[Array, "batch places"]:
    """The most probable alignment of the labels (Viterbi), blank where a place is not the row's.

    Its states are the labels with blanks around them. From one place to the next a path stays, or
    goes on by one state, or by two from a label to another one.

    Args:
        logits: of every symbol at each place.
        valid: which places are the row's: its first ones.
        labels: tokens, none of them the blank.
        count: how many of the labels are the row's; where they are too many, the result is no
            alignment of them.
        blank: what stands for no token.
    """
    states = jnp.full((labels.shape[0], 2 * labels.shape[1] + 1), blank).at[:, 1::2].set(labels)
    emission = jnp.take_along_axis(logits, states[:, None], axis=2)

    def moved(score: Float[Array, "batch states"], by: int) -> Float[Array, "batch states"]:
        return jnp.pad(score, ((0, 0), (by, 0)), constant_values=NEG)[:, : states.shape[1]]

    jumps = (states != blank) & (states != jnp.roll(states, 2, axis=1))

    def forward(score, place):
        emission, valid = place
        ways = jnp.stack([score, moved(score, 1), jnp.where(jumps, moved(score, 2), NEG)])
        back = jnp.argmax(ways, axis=0)
        after = jnp.where(valid[:, None], ways.max(0) + emission, score)
        return after, jnp.where(valid[:, None], back, 0)

    def backward(state, back):
        before = state - jnp.take_along_axis(back, state[:, None], axis=1)[:, 0]
        return before, state

    start = jnp.full(states.shape, NEG).at[:, 0].set(0)  # as if a blank stood before the canvas
    score, back = jax.lax.scan(forward, start, (emission.swapaxes(0, 1), valid.T))
    ends = 2 * count[:, None] - jnp.arange(2)  # the blank after the last label, or that label
    end = ends[:, 0] - jnp.argmax(at_rows(score, ends), axis=1)
    _, path = jax.lax.scan(backward, end, back, reverse=True)
    return jnp.where(valid, jnp.take_along_axis(states, path.T, axis=1), blank)

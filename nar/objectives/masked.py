"""Masked objectives: some tokens of the target are hidden on the canvas, and predicted at once.

    masking      hidden of n tokens     weight
    "uniform"    k, uniform in 1..n     1         CMLM (Ghazvininejad et al. 2019, section 3.1)
    "bound"      k, uniform in 1..n     n / k     MDLM (Sahoo et al. 2024), LLaDA (Nie et al. 2025)
    "all"        n                      1         one-shot (Gu et al. 2018), GLAT (Qian et al. 2021)

Which tokens are hidden is uniform too. With the weights n / k the expected loss is the mean, over
all orders, of the negative log-likelihood of writing the target in that order (Uria et al. 2014),

    mean over k of E (n / k) sum_hidden -log p(x_i | seen)  =  mean over orders of -log p(x | order)

which is at least -log p(x) of the mixture of all orders. MDLM hides each token with probability
t ~ U(0, 1] and weighs by 1 / t: the same expectation, for k given n has probability 1 / (n + 1) and
mean weight (n + 1) / k. But 1 / t has no finite variance, and where k = 0 nothing is learnt; so we
draw k, as LLaDA does to evaluate.

Scores of the whole vocabulary are the dearest part of a step where the vocabulary is large, and
only those of hidden tokens are needed. Two rows that hide shares s and 1 - s of at most w tokens
each hide w + 1 at most between them, so that scores of w + 1 places are enough for two rows.
"""

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from nar.core import Needs, row_keys
from nar.data.batching import Batch
from nar.errors import NarError, is_number
from nar.objectives.cross_entropy import check_smoothing, smoothed
from nar.objectives.glancing import Glance, check_glance, shown
from nar.ops import NEG, argmax

Masking = Literal["uniform", "bound", "all"]
Sums = dict[str, Num[Array, ""]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked:
    """Predicts the hidden tokens of a canvas from the source and the others.

    EOS is on no canvas: a length head, where the model has one, learns how many tokens there are.
    Validation hides the same tokens of a target every time, and glances at none.

    Attributes:
        masking: which tokens are hidden, and how they are weighted; see above.
        glance: with "all", the ratio of glancing at the beginning and at the end of the training:
            how many tokens, at random places, are shown to a second pass, which predicts the rest,
            of as many as a first one gets wrong. None: there is one pass.
        label_smoothing: the share of the label that is spread over the vocabulary; "nll" is without
            it, which with "bound" is the bound.
        length_weight: of the length head's loss, which is added a sentence, not a token.
    """

    masking: Masking = "uniform"
    glance: Glance = None
    label_smoothing: float = 0.1
    length_weight: float = 1.0

    def __post_init__(self):
        if self.masking not in get_args(Masking):
            choices = ", ".join(get_args(Masking))
            raise NarError(f"masking={self.masking!r}: it must be one of {choices}")
        check_smoothing(self.label_smoothing)
        if not is_number(self.length_weight) or not 0 <= self.length_weight < float("inf"):
            raise NarError(f"length_weight={self.length_weight}: it must be at least 0")
        check_glance(self.glance)
        if self.glance and self.masking != "all":
            raise NarError(f"glance={self.glance} needs masking='all', not {self.masking!r}")

    @property
    def needs(self) -> Needs:
        """What is needed of the model; a length head is used where there is one."""
        return Needs(bidirectional=True, mask=True, upsample=False)

    def __call__(
        self,
        model: Any,
        batch: Batch,
        key: Key[Array, ""] | None,
        progress: Float[Array, ""] | float = 1.0,
    ) -> tuple[Float[Array, ""], Sums]:
        """The summed loss; sums of "tokens", "nll" (without smoothing) and "correct".

        "tokens" are those that were hidden; with "bound" they are all, and so "nll" over "tokens"
        is a bound in nats a token. With a length head there are more sums: see `length_sums`.
        """
        encode, decode, hide = (None,) * 3 if key is None else jax.random.split(key, 3)
        label, length = batch.target, jnp.maximum(batch.target_length - 1, 0)
        real = jnp.arange(label.shape[1]) < length[:, None]
        context, _ = model.begin(batch.source, 0, dropout=encode)
        share, rank = noise(hide, label, real)

        def fill(model: Any, context: Any, hidden: Bool[Array, "batch time"]):
            canvas = jnp.where(hidden, model.spec.mask, label)
            return model.fill(canvas, context, real, dropout=decode)

        count = length
        if self.masking != "all":
            count = jnp.ceil(share * length).astype(jnp.int32)
        elif self.glance and key is not None:
            still = jax.lax.stop_gradient((model, context))
            guess = argmax(still[0].logits(fill(*still, real)))
            count = length - shown(self.glance, progress, (real & (guess != label)).sum(1))
        hidden = rank < count[:, None]
        bound = self.masking == "bound"
        weight = length / jnp.maximum(count, 1) if bound else jnp.ones(len(length))
        weight = jnp.where(hidden, weight[:, None], 0)

        states = fill(model, context, hidden)
        if self.masking != "all" and key is not None:
            states, label, weight = of_pairs(hidden, states, label, weight)
        scored = smoothed(model.logits(states), label, self.label_smoothing)
        loss, nll, correct = ((x * weight).sum() for x in scored)
        sums: Sums = {
            "tokens": (length if bound else count).sum(),
            "nll": nll,
            "correct": correct,
        }
        if model.spec.length_head:
            sums |= length_sums(model.lengths(context), length, batch.target_length > 0)
            loss = loss + self.length_weight * sums["length_nll"]
        return loss, sums


def noise(
    key: Key[Array, ""] | None,
    label: Int[Array, "batch time"],
    real: Bool[Array, "batch time"],
) -> tuple[Float[Array, " batch"], Int[Array, "batch time"]]:
    """What decides how many tokens are hidden, and which.

    Args:
        key: None: a row's noise follows from its labels alone, whatever batch it is in.
        label: tokens.
        real: the places of a row's tokens, from the first one on.

    Returns:
        For each row a share, uniform in (0, 1]; and for each place its rank among the row's tokens
        in a random order. Padding does not change them. Where there is a key, the shares s are
        evenly spread over the even rows (Kingma et al. 2021; MDLM's antithetic sampling), and the
        row after each has 1 - s.
    """
    batch, time = label.shape
    if key is None:
        fixed = jax.random.key(0)
        factor = jax.random.bits(fixed, (time,), jnp.uint32)
        number = jnp.where(real, label.astype(jnp.uint32) * factor, 0).sum(1, dtype=jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(fixed, number)
        share = 1 - jax.vmap(jax.random.uniform)(keys)
    else:
        of_rows, of_all = jax.random.split(key)
        keys, pairs = row_keys(of_rows, batch), -(-batch // 2)
        rest = (jax.random.uniform(of_all) + jnp.arange(pairs) / pairs) % 1
        share = jnp.stack([1 - rest, jnp.maximum(rest, 2**-24)], axis=1).reshape(-1)[:batch]
    lot = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (time,)))(keys)
    order = jnp.argsort(jnp.where(real, lot, jnp.inf), axis=1)
    return share, jnp.argsort(order, axis=1)


def of_pairs(hidden: Bool[Array, "batch time"], *arrays: Num[Array, "batch time ..."]) -> list:
    """Of every two rows the same `time + 2` places of all arrays, the hidden ones among them.

    Shares s and 1 - s of at most `time` tokens, each rounded up, are at most `time + 1`; one more
    is for float32.
    """
    batch, time = hidden.shape

    def two(x: Array) -> Array:
        even = jnp.pad(x, [(0, batch % 2), *[(0, 0)] * (x.ndim - 1)])  # a last row that hides none
        return even.reshape(-1, 2 * time, *x.shape[2:])

    places = jnp.argsort(~two(hidden), axis=1)[:, : time + 2]
    at = jnp.arange(len(places))[:, None], places
    return [two(x).at[at].get(mode="promise_in_bounds", unique_indices=True) for x in arrays]


def length_sums(
    scores: Float[Array, "batch lengths"],
    length: Int[Array, " batch"],
    real: Bool[Array, " batch"],
) -> Sums:
    """How well lengths are predicted: sums over the rows.

    Args:
        scores: log-probabilities of 0, 1, 2, ... tokens.
        length: tokens.
        real: which rows count.

    Returns:
        "rows"; "length_nll", their negative log-likelihood; "length_correct", how often the most
        probable length is right; "length_impossible", how many have a length that the head has no
        class for, which count nothing in the likelihood.
    """
    rows = jnp.arange(len(length))
    found = scores.at[rows, length].get(mode="fill", fill_value=NEG)
    possible = found > NEG / 2
    return {
        "rows": real.sum(),
        "length_nll": -jnp.where(real & possible, found, 0).sum(),
        "length_correct": (real & (argmax(scores) == length)).sum(),
        "length_impossible": (real & ~possible).sum(),
    }

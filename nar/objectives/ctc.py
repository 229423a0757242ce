"""Translation by CTC (Libovický & Helcl 2018), with glancing (Gu & Kong 2021).

The canvas has `upsample` places for each source token, nothing is known of any of them, and all are
predicted at once. The loss of a target is the negative log-likelihood of all its alignments.

With glancing, a first pass without gradient finds the model's own best alignment of the target, and
some symbols of it, tokens and blanks, are put on the canvas of the second pass, at random places.
Losses that are sums over tokens leave out those that are shown. A sum over alignments has no such
terms: as in public implementations of CTC with glancing, the loss is that of the whole canvas.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from nar import ctc
from nar.core import Needs
from nar.data.batching import Batch
from nar.objectives.glancing import Glance, check_glance, shown
from nar.ops import argmax


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTC:
    """Predicts the target, without EOS, on the canvas of a model that upsamples its source.

    A row whose canvas is too short for its target is left out of all sums but "impossible".

    Attributes:
        glance: the ratio of glancing at the beginning and at the end of the training: how many
            symbols of the best alignment are shown, of as many as the model gets wrong. None: there
            is one pass, and nothing is shown.
    """

    glance: Glance = None

    def __post_init__(self):
        check_glance(self.glance)

    @property
    def needs(self) -> Needs:
        """What is needed of the model."""
        return Needs(bidirectional=True, upsample=True, mask=True, blank=True)

    def __call__(
        self,
        model: Any,
        batch: Batch,
        key: Key[Array, ""] | None,
        progress: Float[Array, ""] | float = 1.0,
    ) -> tuple[Float[Array, ""], dict[str, Num[Array, ""]]]:
        """The summed loss; sums of "tokens", "nll", "correct" and "impossible".

        "correct" tokens stand in the greedy output at the place where the target has them, and
        "impossible" are rows. With glancing, loss and "correct" are those of the second pass;
        validation, without a key, is shown nothing.
        """
        encode, decode, draw = (None,) * 3 if key is None else jax.random.split(key, 3)
        spec, label = model.spec, batch.target
        context, _ = model.begin(batch.source, 0, dropout=encode)
        places = spec.upsample * batch.source.length
        valid = jnp.arange(spec.upsample * batch.source.tokens.shape[1]) < places[:, None]
        length = jnp.maximum(batch.target_length - 1, 0)
        real, possible = batch.target_length > 0, ctc.places_needed(label, length) <= places
        trained = real & possible

        def predict(model: Any, context: Any, canvas: Int[Array, "batch places"]):
            return model.logits(model.fill(canvas, context, valid, dropout=decode))

        canvas = jnp.full(valid.shape, spec.mask)
        if self.glance and draw is not None:
            first = predict(*jax.lax.stop_gradient((model, context)), canvas)
            symbols = ctc.best_alignment(first, valid, label, length, spec.blank)
            wrong = (valid & (argmax(first) != symbols)).sum(1)
            count = jnp.where(trained, shown(self.glance, progress, wrong), 0)
            canvas = jnp.where(drawn(draw, valid, count), symbols, canvas)
        logits = predict(model, context, canvas)

        nll = ctc.negative_log_likelihood(logits, valid, label, length, spec.blank)
        loss = jnp.where(trained, nll, 0).sum()
        written, _ = ctc.collapse(jnp.where(valid, argmax(logits), spec.blank), spec.blank)
        width = min(label.shape[1], written.shape[1])
        within = (jnp.arange(width) < length[:, None]) & trained[:, None]
        return loss, {
            "tokens": jnp.where(trained, length, 0).sum(),
            "nll": loss,
            "correct": (within & (written[:, :width] == label[:, :width])).sum(),
            "impossible": (real & ~possible).sum(),
        }


def drawn(
    key: Key[Array, ""], valid: Bool[Array, "batch places"], count: Int[Array, " batch"]
) -> Bool[Array, "batch places"]:
    """So many of each row's valid places, each of them as likely as any other."""
    noise = jnp.where(valid, jax.random.uniform(key, valid.shape), jnp.inf)
    rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
    return rank < count[:, None]

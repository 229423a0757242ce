"""Greedy decoding of connectionist temporal classification (Graves et al. 2006)."""

import dataclasses

import jax.numpy as jnp

from nar import ctc
from nar.core import TARGET, Needs
from nar.decoders.canvas import Canvas
from nar.decoders.schedules import MaskPredict


@dataclasses.dataclass(frozen=True, kw_only=True)
class CTC(Canvas):
    """One call: the likeliest symbol of every place, repetitions merged, blanks dropped.

    The canvas is the source, upsampled (Libovický & Helcl 2018). The score is the alignment's mean
    log-probability.
    """

    @property
    def schedule(self):
        """Everything is kept at once."""
        return MaskPredict(calls=1)

    @property
    def needs(self):
        """A model of upsampled canvases with a blank."""
        return {TARGET: Needs(bidirectional=True, upsample=True, mask=True, blank=True)}

    def lay(self, target, context, source, limit):
        """One canvas, as long as the source, upsampled."""
        upsample = target.spec.upsample
        place = jnp.arange(upsample * source.tokens.shape[1])
        valid = place < upsample * source.length[:, None]
        return valid[:, None], jnp.zeros((len(valid), 1))

    def keep(self, tokens, valid, spec):
        """What is left of an alignment."""
        assert spec.blank is not None
        return valid & ctc.kept(tokens, spec.blank)

    def never(self, spec):
        """A blank may be predicted."""
        return spec.pad, spec.mask

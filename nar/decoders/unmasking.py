"""What the decoders of models with a length head share: how long their canvases are."""

import dataclasses

import jax
import jax.numpy as jnp

from nar.core import TARGET, Needs
from nar.decoders.canvas import Canvas
from nar.errors import NarError, at_least, is_number
from nar.ops import NEG, broken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unmasking(Canvas):
    """Predicts how many tokens there are, and then the tokens.

    Of the likeliest lengths, decoded side by side, the output is the one with the highest mean
    log-probability of its tokens (a length beam; Ghazvininejad et al. 2019), or of its tokens and
    its length. Lengths that do not fit are cut: what the head says of all of them is said of the
    longest one that does. A length of 0 stands for an output of EOS alone, whose score is the
    log-probability of its length.

    Attributes:
        lengths: how many are decoded.
        length_weight: in that mean the log-probability of the length counts as so many tokens. 0,
            as in the paper: not at all, and a length that is hardly possible may be chosen.
        longer: an output has at most so many tokens more than its source, which bounds the canvas,
            and so the compute; None: at most `max_length`.
        oracle_length: the length is known beforehand, EOS counted, from `source.limit`. A label for
            tables: nobody knows it in earnest.
    """

    lengths: int = 1
    length_weight: float = 0.0  # pyright: ignore[reportIncompatibleVariableOverride]
    longer: int | None = None
    oracle_length: bool = False

    def __post_init__(self):
        super().__post_init__()
        at_least("lengths", self.lengths, 1)
        if not (is_number(self.length_weight) and self.length_weight >= 0):
            raise NarError(f"length_weight={self.length_weight!r}: it must be a number, 0 or more")
        if self.longer is not None:
            at_least("longer", self.longer, 0)
        _ = self.schedule  # validates

    @property
    def needs(self):
        """A model of canvases of any length; who knows the length is its head, or an oracle."""
        head = not self.oracle_length
        return {TARGET: Needs(bidirectional=True, upsample=False, mask=True, length_head=head)}

    def check(self, model, source):
        """Also: an oracle has spoken."""
        super().check(model, source)
        if self.oracle_length and source.limit is None:
            raise NarError("oracle_length=True needs the lengths in source.limit; it is None")

    def lay(self, target, context, source, limit):
        """A canvas for each of the likeliest lengths that fit, or one of the oracle's."""
        places, most = self.max_length, limit
        if self.longer is not None:
            places = min(places, source.tokens.shape[1] + self.longer)
            most = jnp.minimum(limit, source.length + self.longer)
        if self.oracle_length:
            size = jnp.minimum(limit - 1, most)[:, None]
            best = jnp.zeros(size.shape)
        else:
            said = target.lengths(context)
            unknown = broken(said)[:, None]
            length = jnp.arange(said.shape[1])
            most = most[:, None]
            cut = jax.nn.logsumexp(jnp.where(length < most, NEG, said), axis=1, keepdims=True)
            said = jnp.where(length < most, said, jnp.where(length == most, cut, NEG))
            best, size = jax.lax.top_k(said[:, : places + 1], min(self.lengths, places + 1))
            size = jnp.where(best > NEG / 2, size, 0)  # what cannot be has no places
            best = jnp.where(unknown, jnp.nan, best)
        return jnp.arange(places) < size[..., None], best

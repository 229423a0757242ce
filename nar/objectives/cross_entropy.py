"""Cross-entropy of the next token with label smoothing (Szegedy et al. 2016), by teacher forcing.

The label distribution is q = (1 - e) * [y] + e / V, so that the loss of a token with logits z is

    -sum_v q_v log p_v = logsumexp(z) - (1 - e) * z_y - e * mean(z)

and no distribution over the vocabulary is ever written down. Tokens that a model bans do not
count.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num

from nar.core import Needs
from nar.data.batching import Batch
from nar.errors import NarError
from nar.ops import NEG


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Predicts every target token from the source and the tokens before it, with any causal model.

    Attributes:
        label_smoothing: e above, the share of the label that is spread over the vocabulary.
    """

    label_smoothing: float = 0.1

    def __post_init__(self):
        check_smoothing(self.label_smoothing)

    @property
    def needs(self) -> Needs:
        """What is needed of the model."""
        return Needs(causal=True)

    def __call__(
        self,
        model: Any,
        batch: Batch,
        key: Key[Array, ""] | None,
        progress: Float[Array, ""] | float = 1.0,
    ) -> tuple[Float[Array, ""], dict[str, Num[Array, ""]]]:
        """The summed loss; sums of "tokens", "nll" (without smoothing) and "correct"."""
        encode, decode = (None, None) if key is None else jax.random.split(key)
        context, pending = model.begin(batch.source, 0, dropout=encode)
        inputs = jnp.concatenate([pending[:, None], batch.target[:, :-1]], axis=1)
        hidden, _ = model.extend(inputs, context, dropout=decode)
        loss, nll, correct = smoothed(model.logits(hidden), batch.target, self.label_smoothing)
        real = jnp.arange(batch.target.shape[1]) < batch.target_length[:, None]
        total = lambda x: jnp.where(real, x, 0).sum()  # noqa: E731
        return total(loss), {"tokens": real.sum(), "nll": total(nll), "correct": total(correct)}


def check_smoothing(value: float) -> None:
    """Raises a NarError unless `value` is a share of the label that can be spread."""
    if not 0 <= value < 1:
        raise NarError(f"label_smoothing={value}: it must be in [0, 1)")


def smoothed(
    logits: Float[Array, "*batch vocab"], label: Int[Array, "*batch"], smoothing: float
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Num[Array, "*batch"]]:
    """Of each label: smoothed cross-entropy, negative log-likelihood, whether it is the argmax.

    The label's logit is read by a comparison, not by an index: its gradient then joins the one of
    the logsumexp in a single pass over the vocabulary, where an index would be a scatter.
    """
    vocab, possible = logits.shape[-1], logits > NEG / 2
    peak = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    log_total = jnp.log(jnp.exp(logits - peak).sum(-1)) + peak[..., 0]
    chosen = jnp.where(jnp.arange(vocab) == label[..., None], logits, 0).sum(-1)
    nll = log_total - chosen
    mean = jnp.where(possible, logits, 0).sum(-1) / possible.sum(-1)
    loss = log_total - (1 - smoothing) * chosen - smoothing * mean
    return loss, nll, (chosen >= peak[..., 0]).astype(jnp.int32)

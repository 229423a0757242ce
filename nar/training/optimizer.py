"""Adam and its schedules, as data."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from nar.errors import NarError, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019) with warm-up and clipping.

    Attributes:
        learning_rate: the highest, reached after `warmup` updates.
        schedule: after the warm-up: "inverse_sqrt": decays as 1 / sqrt(update) (Vaswani et al.
            2017); "cosine": falls to 0 at the last update; "constant".
        warmup: updates of linear growth from 0.
        beta1, beta2, eps: Adam's.
        weight_decay: decoupled, times the learning rate; of matrices, not of biases and norms.
        clip: the largest global norm of the gradient; None: no clipping.
    """

    learning_rate: float = 1e-3
    schedule: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    warmup: int = 4000
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-9
    weight_decay: float = 0.0
    clip: float | None = 1.0

    def __post_init__(self):
        at_least("warmup", self.warmup, 0)
        if self.schedule not in ("inverse_sqrt", "cosine", "constant"):
            raise NarError(
                f"schedule={self.schedule!r}: it must be 'inverse_sqrt', 'cosine' or 'constant'"
            )
        for name in ("learning_rate", "eps", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise NarError(f"{name}={value}: it must be above 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise NarError(f"{name}={getattr(self, name)}: it must be in [0, 1)")
        if self.weight_decay < 0:
            raise NarError(f"weight_decay={self.weight_decay}: it must be at least 0")

    def rate(self, steps: int) -> optax.Schedule:
        """The learning rate of update 0, 1, ... of a training of `steps` updates."""
        peak, warmup = self.learning_rate, self.warmup
        after = {
            "inverse_sqrt": lambda n: peak * (1 + jnp.maximum(n, 0) / max(warmup, 1)) ** -0.5,
            "cosine": optax.cosine_decay_schedule(peak, max(steps - warmup, 1)),
            "constant": optax.constant_schedule(peak),
        }[self.schedule]
        # The first update has number 0, but a rate of 0 would waste it.
        rise = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
        return optax.join_schedules([rise, after], [warmup])

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a training of `steps` updates."""
        matrices = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)  # noqa: E731
        adam = optax.adamw(
            self.rate(steps),
            self.beta1,
            self.beta2,
            self.eps,
            weight_decay=self.weight_decay,
            mask=matrices,
        )
        if self.clip is None:
            return adam
        return optax.chain(optax.clip_by_global_norm(self.clip), adam)

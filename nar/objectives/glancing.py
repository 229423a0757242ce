"""Glancing (Qian et al. 2021): what a first pass gets wrong decides how much a second one is shown.

Each row is shown `ratio * wrong` symbols, where `wrong` counts the places at which the first pass
and the target differ. The ratio changes linearly while a training lasts; the paper's goes from 0.5
to 0.3.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nar.errors import NarError, is_number

Glance = tuple[float, float] | None
"""The ratio at the beginning and at the end of the training; None: there is one pass."""


def check_glance(glance: Glance) -> None:
    """Raises a NarError unless this is None or a tuple of two ratios."""
    pair = isinstance(glance, tuple) and len(glance) == 2
    if glance is not None and not (pair and all(is_number(x) and 0 <= x <= 1 for x in glance)):
        raise NarError(f"glance={glance!r}: it must be None or a tuple of two ratios in [0, 1]")


def shown(
    glance: tuple[float, float], progress: Float[Array, ""] | float, wrong: Int[Array, " batch"]
) -> Int[Array, " batch"]:
    """How many symbols each row is shown."""
    begin, end = glance
    return jnp.floor((begin + (end - begin) * progress) * wrong).astype(jnp.int32)

"""What a training loss is."""

from typing import Any, Protocol

from jaxtyping import Array, Float, Key, Num

from nar.core import Needs
from nar.data.batching import Batch


class Objective(Protocol):
    """A frozen dataclass that is called inside of jit; its fields are its hyper-parameters."""

    @property
    def needs(self) -> Needs | None:
        """What is needed of the model; None: nothing, any pytree can be trained."""
        ...

    def __call__(
        self,
        model: Any,
        batch: Batch,
        key: Key[Array, ""] | None,
        progress: Float[Array, ""] | float = 1.0,
    ) -> tuple[Float[Array, ""], dict[str, Num[Array, ""]]]:
        """The loss *summed* over a batch, and other sums.

        Sums add up over micro-batches and devices; who trains or validates divides by the
        number of tokens, once.

        Args:
            model: what is trained; gradients are taken with respect to all its arrays.
            batch: pairs, some of which may be filler rows without a target.
            key: for dropout and other noise; None: none, for validation.
            progress: the share of the training that is done, for what changes while it lasts.

        Returns:
            The summed loss, and named sums. "tokens", the number of things that were predicted, is
            always there; the others are reported divided by it, but "length_..." divided by "rows".
            "rows" and "...impossible", rows that cannot be trained on, are reported as they are.
        """
        ...

"""The verbs: all that a decoder may ask of a model. Wrap yours in them to run every decoder."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int, Key

from nar.core import Source, Spec


@runtime_checkable
class Model(Protocol):
    """A pytree of parameters with these pure methods; `nar.testing.check_model` holds it to them.

    A context is any pytree with `length` and with the methods of `nar.model.Context`; models whose
    memory is keys and values can use that class as it is.
    """

    @property
    def spec(self) -> Spec:
        """What the model offers, known before tracing."""
        ...

    def begin(
        self, source: Source, slots: int, *, dropout: Key[Array, ""] | None = None
    ) -> tuple[Any, Int[Array, " batch"]]:
        """Reads the source; returns a context with room for `slots` tokens, and the pending token.

        The pending token is the first that `extend` is fed: a start token, or a prompt's last.
        """
        ...

    def extend(
        self,
        tokens: Int[Array, "batch time"],
        context: Any,
        positions: Int[Array, "batch time"] | None = None,
        mask: Bool[Array, "*batch time time"] | None = None,
        *,
        dropout: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch time d"], Any]:
        """Scores tokens after the context in parallel, without writing; `fresh` is for commits."""
        ...

    def fill(
        self,
        canvas: Int[Array, "batch time"],
        context: Any,
        valid: Bool[Array, "batch time"],
        *,
        dropout: Key[Array, ""] | None = None,
    ) -> Float[Array, "batch time d"]:
        """Hidden states of a canvas whose places all see each other."""
        ...

    def logits(self, hidden: Float[Array, "batch time d"]) -> Float[Array, "batch time vocab"]:
        """Unnormalised log-probabilities of each state's prediction."""
        ...

"""How a broken contract is reported."""

from typing import Any, NoReturn


class ContractError(AssertionError):
    """A contract is broken; the message says which point, whose, where, and what was seen."""


def broken(point: str, who: object, what: str) -> NoReturn:
    """Raises a ContractError that names the point, the culprit and what was seen."""
    raise ContractError(f"{who!r} breaks {point}: {what}")


def named(x: Any) -> str:
    """An array's type in words: int32[8, 12]. A weak type is another: jit traces it again."""
    weak = "weak " if getattr(x, "weak_type", False) else ""
    return f"{weak}{x.dtype}{list(x.shape)}"

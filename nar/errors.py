"""What users can get wrong: the errors, and checks of what they pass, before any tracing."""

import difflib
import numbers
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

if TYPE_CHECKING:
    from nar.core import Source, Spec


class NarError(ValueError):
    """An error that a user can cause and mend; raised before any tracing."""


class IncompatibleModel(NarError):
    """A decoder needs something that the model does not have; the message names both sides."""


def in_a_line(error: Exception) -> str:
    """What an error says, in one line; of a file, its name comes first."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}"
    return " ".join(str(error).split())


def at_least(name: str, value: int, lowest: int) -> None:
    """Raises a NarError unless `value` is an int of at least `lowest`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < lowest:
        raise NarError(f"{name}={value!r}: it must be a whole number of at least {lowest}")


def is_number(value: Any) -> bool:
    """Whether `value` is a real number; True and False are not meant."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def nearest(name: str, known: Iterable[str], most: int = 8) -> str:
    """The known names as a list in words, those that look most like `name` first."""
    like = {other: difflib.SequenceMatcher(None, name, other).ratio() for other in known}
    best = sorted(like, key=lambda other: (-like[other], other))
    return ", ".join(best[:most] + ["..."] * (len(best) > most)) or "none"


MOST_NAMED = 10


def named_lines(numbers: Sequence[int] | np.ndarray) -> str:
    """Line numbers in words: the first ones, and how many more there are."""
    more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
    word = "lines" if len(numbers) > 1 else "line"
    return f"{word} {', '.join(map(str, numbers[:MOST_NAMED]))}{more}"


def warn_of_nan(places: Sequence[int]) -> None:
    """Warns of lines, by place from 0, whose decoding broke off because the logits were NaN."""
    if places:
        numbers = sorted(place + 1 for place in places)
        warnings.warn(
            f"{named_lines(numbers)}: the model's logits were NaN. What was written before is kept",
            stacklevel=3,
        )


def differences(found: object, wanted: object, name: str = "") -> Iterator[str]:
    """Where two nested configurations differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**wanted, **found}:
            inner = f"{name}.{key}" if name else str(key)
            yield from differences(found.get(key), wanted.get(key), inner)
    elif found != wanted:
        yield f"{name} is {found!r} there and {wanted!r} here"


def check_source(source: "Source", max_length: int) -> None:
    """Checks shapes, and where they are known (outside of jit) the values, of a source."""
    if np.ndim(source.tokens) != 2 or 0 in np.shape(source.tokens):
        raise NarError(
            f"source.tokens has shape {np.shape(source.tokens)}: it must be [batch, time] with at "
            "least one row and one token"
        )
    batch, time = source.tokens.shape
    for name, value, most in (("length", source.length, time), ("limit", source.limit, max_length)):
        if value is None:
            continue
        if np.shape(value) != (batch,):
            raise NarError(f"source.{name} has shape {np.shape(value)}: it must be ({batch},)")
        if isinstance(value, Tracer) or not getattr(value, "is_fully_addressable", True):
            continue
        value = np.asarray(value)
        if value.min() < 1 or value.max() > most:
            row = int(np.flatnonzero((value < 1) | (value > most))[0])
            raise NarError(f"source.{name}[{row}] is {value[row]}: it must be in 1..{most}")


def check_room(
    source: "Source", spec: "Spec", max_length: int, *, ahead: int = 0, who: str = "model"
) -> None:
    """Checks that the source and `max_length` new tokens fit the positions the model knows.

    Args:
        source: what is read.
        spec: of the model.
        max_length: the most tokens to write.
        ahead: tokens beyond `max_length` that the model is fed too.
        who: names the model in messages.
    """
    time = source.tokens.shape[1]
    if spec.max_source is not None and time > spec.max_source:
        raise NarError(
            f"the source has {time} positions: the {who} reads at most {spec.max_source}"
        )
    before = ahead if spec.encoder else time + ahead
    if spec.max_target is not None and before + max_length > spec.max_target:
        prompt = "" if spec.encoder else f" after a prompt of {time} positions"
        guesses = f" and {ahead} guesses ahead" if ahead else ""
        raise NarError(
            f"max_length={max_length}{prompt}{guesses}: the {who} has {spec.max_target} positions, "
            f"so at most {max(spec.max_target - before, 0)} fit"
        )


def check_same_vocabulary(target: "Spec", other: Any, who: str) -> None:
    """Raises IncompatibleModel unless `other`, which scores, has as many tokens and the same EOS.

    Args:
        target: of the target.
        other: of another model; or an n-gram model, which says the same of itself.
        who: its role.
    """
    for name in ("vocab_size", "eos"):
        ours, theirs = getattr(target, name), getattr(other, name)
        if ours != theirs:
            raise IncompatibleModel(
                f"the {who} model's {name} is {theirs} and the target's {ours}: they must share "
                "one vocabulary"
            )


def check_key(key: Key[Array, "..."], batch: int) -> None:
    """Raises a NarError unless `key` is one random key, or one for each of `batch` rows."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise NarError(f"key is {key.dtype}{list(key.shape)}: it must come from jax.random.key")
    if key.shape not in ((), (batch,)):
        raise NarError(
            f"key has shape {key.shape}: pass one key, or one for each of the {batch} rows"
        )

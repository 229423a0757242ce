"""What ends an output beside the model's EOS: tokens by name, and strings that are such tokens."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from nar.core import Bundle, role
from nar.errors import NarError, nearest
from nar.model import Transformer, TransformerConfig

if TYPE_CHECKING:
    from nar.translator import Translator


def check_stops(stops: Sequence[str], name: str = "stop") -> tuple[str, ...]:
    """Stop strings.

    Raises:
        NarError: they are one string and not several, or one is empty.
    """
    if isinstance(stops, str):
        raise NarError(f"{name}={stops!r}: it must be a sequence of strings, as ({stops!r},)")
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise NarError(f"{name}={tuple(stops)!r}: each must be a string that is not empty")
    return tuple(stops)


def stops_by_row(
    stop: Sequence[str] | Sequence[Sequence[str]], count: int
) -> list[tuple[str, ...]]:
    """The stop strings of each of `count` texts.

    Raises:
        NarError: there are not as many sequences as texts, or a stop string is none.
    """
    if isinstance(stop, str):
        raise NarError(f"stop={stop!r}: it must be a sequence of strings, as ({stop!r},)")
    shared = [one for one in stop if isinstance(one, str)]
    if len(shared) == len(stop):
        return [check_stops(shared)] * count
    if len(stop) != count:
        raise NarError(f"stop has {len(stop)} sequences for {count} texts: there must be as many")
    return [check_stops(one) for one in stop]


def ending(
    translator: "Translator", stops: Sequence[Sequence[str]], stop_tokens: Sequence[str] = ()
) -> tuple["Translator", list[tuple[str, ...]]]:
    """A translator whose outputs some tokens end too, and the stop strings that are left to find.

    A stop string that is one special token ends outputs as a token: no text would show it.

    Args:
        translator: the one to begin with.
        stops: strings; a sequence of them a text, or one for all.
        stop_tokens: pieces of its vocabulary.

    Raises:
        NarError: a string is empty, a token is no piece or cannot end an output, or a special token
            would end the outputs of some texts only.
    """
    stops, named = [check_stops(row) for row in stops], check_stops(stop_tokens, "stop_tokens")
    special = translator.tokenizer.special if any(stops) else {}
    found = {tuple(sorted(special.keys() & row)) for row in stops}
    if len(found) > 1:
        names = ", ".join(sorted(set().union(*found)))
        raise NarError(f"stop: {names}: a special token must end the outputs of all texts, or none")
    tokens = dict.fromkeys([*named, *(token for row in found for token in row)])
    model = with_ends(translator.model, [_number(translator, token) for token in tokens])
    stops = [tuple(text for text in row if text not in special) for row in stops]
    return dataclasses.replace(translator, model=model) if tokens else translator, stops


def _number(translator: "Translator", token: str) -> int:
    """The id of a token that is to end outputs."""
    spec, number = role(translator.model).spec, translator.tokenizer.number(token)
    if number is None:
        known = nearest(token, translator.tokenizer.special)
        raise NarError(f"the vocabulary has no token {token!r} to stop at; special are {known}")
    if number in (spec.mask, spec.blank):
        raise NarError(f"{token!r} stands where no token is: it cannot be one to stop at")
    return number


def with_ends(model: Any, tokens: Iterable[int]) -> Any:
    """A model, or all models of a bundle, whose outputs these tokens end too.

    Raises:
        NarError: a model is no `Transformer`: its own spec must say what ends its outputs.
    """
    if isinstance(model, Bundle):
        models = {name: x for name, x in model.models.items() if hasattr(x, "spec")}
        return Bundle({**model.models, **{n: with_ends(x, tokens) for n, x in models.items()}})
    more = tuple(token for token in dict.fromkeys(tokens) if token not in model.spec.ends)
    if not more:
        return model
    if not isinstance(model, Transformer):
        name = type(model).__name__
        raise NarError(f"a {name} cannot be told where to stop: its spec must say so (also_eos)")
    config = dataclasses.replace(model.config, also_eos=(*model.config.also_eos, *more))
    return jax.tree.unflatten(_structure(config), jax.tree.leaves(model))


@functools.cache
def _structure(config: TransformerConfig) -> Any:
    return jax.tree.structure(jax.eval_shape(lambda: Transformer(config, key=jax.random.key(0))))

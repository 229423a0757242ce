"""From a directory to a model: the layouts there are, and the checks that all of them share."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from nar.data.text import hash_files
from nar.errors import NarError, nearest
from nar.files import read_json
from nar.model import Transformer, TransformerConfig
from nar.pretrained import generation, llama, marian, t5
from nar.pretrained.chat import read_chat_template
from nar.pretrained.tensors import INDEX, WHOLE, Read, Tensors, check_precision, listed
from nar.pretrained.vocabulary import read_vocabulary
from nar.training.checkpoint import CONFIG, named_arrays, with_arrays
from nar.translator import Translator


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a family of models is stored.

    Attributes:
        config: the shape that a `config.json` and the tensors describe; ties those that are one;
            raises NarError for what is not supported.
        parameters: each parameter's name and value, out of the tensors it is given by name.
        surplus: tensors that such files may hold and that are not read: their ends.
        prefix: of the names that the family's class without an output has.
        defaults: of fields that a `config.json` lacks; null is another value.
    """

    config: Callable[[Mapping[str, Any], Tensors], TransformerConfig]
    parameters: Callable[[TransformerConfig, Read], Iterator[tuple[str, np.ndarray]]]
    surplus: tuple[str, ...]
    prefix: str
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


LAYOUTS: dict[str, Layout] = {
    "marian": Layout(marian.config, marian.parameters, marian.SURPLUS, marian.PREFIX),
    **{
        name: Layout(t5.config, t5.parameters, t5.SURPLUS, t5.PREFIX, defaults)
        for name, defaults in t5.DEFAULTS.items()
    },
    **{
        name: Layout(llama.config, llama.parameters, llama.SURPLUS, llama.PREFIX, defaults)
        for name, defaults in llama.DEFAULTS.items()
    },
}
"""Supported layouts by `model_type`."""

ADAPTER = "adapter_config.json"


def load_pretrained(directory: str | os.PathLike[str]) -> Translator:
    """Reads a model and its vocabulary; float32, whatever the file holds.

    Greedy decoding writes what `generate(num_beams=1)` of transformers does, as far as
    `generation_config.json` has no rules that look back (which a warning names). Tensors are read
    one after the other, so that little more memory is needed than the model's.

    Args:
        directory: with `config.json`, `*.safetensors` (in parts with an index, or one), and
            `tokenizer.json` or SentencePiece models.

    Raises:
        NarError: a file is missing or damaged, the architecture is not supported (those that are
            are named), tensors are missing, left over, quantized or not finite, or shapes or
            vocabulary do not fit.
    """
    directory = pathlib.Path(directory)
    found = read_json(directory / CONFIG)
    kind = str(found.get("model_type"))
    if kind not in LAYOUTS:
        raise NarError(
            f"{directory / CONFIG} describes a {kind!r} model: supported are "
            f"{nearest(kind, LAYOUTS)}"
        )
    layout = LAYOUTS[kind]
    tensors = Tensors(directory, layout.prefix)
    if (directory / ADAPTER).is_file():
        warnings.warn(f"{directory} holds an {ADAPTER}, and is read without it", stacklevel=2)
    with naming(directory):
        check_precision(tensors, found, layout.surplus)
        if (other := found.get("transformers_weights") or WHOLE) not in (WHOLE, INDEX):
            raise NarError(f"transformers_weights={other!r}: only {WHOLE} and {INDEX} are read")
        found, rules = generation.with_generation(directory, {**layout.defaults, **found})
        config = dataclasses.replace(layout.config(found, tensors), **rules)
    vocabulary = read_vocabulary(directory, kind, config)
    model = read_model(layout, config, tensors, directory)
    files = [directory / CONFIG, directory / generation.FILE]
    parts = hash_files(*filter(pathlib.Path.is_file, files)), vocabulary.fingerprint
    weights = hashlib.sha256("".join([*parts, tensors.fingerprint]).encode()).hexdigest()
    (bos,), (eos,) = (vocabulary.pieces([token]) for token in (config.bos, config.eos))
    template = read_chat_template(directory, {"bos_token": bos, "eos_token": eos})
    return Translator(model=model, tokenizer=vocabulary, weights=weights[:12], template=template)


def read_model(
    layout: Layout, config: TransformerConfig, tensors: Tensors, directory: pathlib.Path
) -> Transformer:
    """The model of a config, out of all tensors.

    Raises:
        NarError: tensors are missing or left over, have other shapes, or are not finite.
    """
    shape = jax.eval_shape(lambda: Transformer(config, key=jax.random.key(0)))
    wanted = {name: x.shape for name, x in named_arrays(shape).items()}
    if lost := missing(layout, config, tensors):
        raise NarError(f"{directory} lacks tensors: {listed(lost)}")
    arrays = {}
    try:
        for name, value in layout.parameters(config, tensors.read):
            if value.shape != wanted[name]:
                raise NarError(
                    f"{directory}: {name} would be {list(value.shape)}, made of "
                    f"{_shapes(tensors)}, and config.json asks for {list(wanted[name])}"
                )
            arrays[name] = jax.device_put(value)  # jnp.asarray takes five times as long
            tensors.shapes.clear()
            del value  # before the next one is made
    except NarError:
        raise
    except ValueError as error:
        raise NarError(f"{directory}: {_shapes(tensors)} do not fit together: {error}") from error
    if left := [name for name in tensors.unread if not name.endswith(layout.surplus)]:
        raise NarError(f"{directory} holds tensors that its model has not: {listed(left)}")
    return with_arrays(shape, arrays)


def missing(layout: Layout, config: TransformerConfig, tensors: Tensors) -> list[str]:
    """The tensors that a config's parameters are made of and that are not there."""
    lost = []

    def ask(*any_of: str) -> np.ndarray:
        if tensors.find(*any_of) is None:
            lost.append(" or ".join(any_of))
        return np.zeros((config.groups, 1))  # joins with its like, as products do

    for _ in layout.parameters(config, ask):
        pass
    return lost


def _shapes(tensors: Tensors) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in tensors.shapes.items())


@contextlib.contextmanager
def naming(directory: pathlib.Path) -> Iterator[None]:
    """Whatever is wrong with the fields of a directory's configs is an error that names it."""
    try:
        yield
    except NarError as error:
        raise NarError(f"{directory}: {error}") from error
    except KeyError as error:
        raise NarError(f"{directory / CONFIG} lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise NarError(f"{directory}: a field of its configs is damaged: {error}") from error

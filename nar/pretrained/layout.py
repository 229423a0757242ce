"""From a directory to a model: the layouts there are, and the checks that all of them share."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nar.core import NarError, nearest
from nar.model import Transformer, TransformerConfig
from nar.pretrained import llama, marian, t5
from nar.pretrained.tensors import Read, Tensors
from nar.pretrained.vocabulary import Vocabulary, read_vocabulary
from nar.training.checkpoint import named_arrays, with_arrays


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a family of models is stored.

    Attributes:
        config: the shape that a `config.json` and the names of the tensors describe; raises
            NarError for what is not supported.
        parameters: each parameter's name and value, out of the tensors it is given by name.
        surplus: tensors that such files may hold and that are not read: their ends.
    """

    config: Callable[[Mapping[str, Any], Collection[str]], TransformerConfig]
    parameters: Callable[[TransformerConfig, Read], Iterator[tuple[str, np.ndarray]]]
    surplus: tuple[str, ...]


LAYOUTS: dict[str, Layout] = {
    "marian": Layout(marian.config, marian.parameters, marian.SURPLUS),
    **{name: Layout(t5.config, t5.parameters, t5.SURPLUS) for name in ("t5", "mt5")},
    **{
        name: Layout(llama.config, llama.parameters, llama.SURPLUS)
        for name in ("llama", "mistral", "qwen2", "qwen3")
    },
}
"""Supported layouts by `model_type`."""


def load_pretrained(directory: str | os.PathLike[str]) -> tuple[Transformer, Vocabulary]:
    """Reads a model and its vocabulary; float32, whatever the file holds.

    Tensors are read one after the other, so that little more memory is needed than the model's.

    Args:
        directory: with `config.json`, `*.safetensors` (in parts with an index, or one), and
            `tokenizer.json` or SentencePiece models.

    Raises:
        NarError: a file is missing or damaged, the architecture is not supported (those that are
            are named), tensors are missing or left over, or shapes or vocabulary do not fit.
    """
    directory = pathlib.Path(directory)
    found = read_json(directory / "config.json")
    kind = found.get("model_type")
    if kind not in LAYOUTS:
        raise NarError(
            f"{directory / 'config.json'} describes a {kind!r} model: supported are "
            f"{nearest(str(kind), LAYOUTS)}"
        )
    layout = LAYOUTS[kind]
    tensors = Tensors(directory)
    config = layout.config(found, tensors.names)
    vocabulary = read_vocabulary(directory, found)
    if vocabulary.vocab_size > config.vocab_size:
        raise NarError(
            f"{directory} has a vocabulary of {vocabulary.vocab_size} pieces for "
            f"{config.vocab_size} embeddings: they do not belong together"
        )
    shape = jax.eval_shape(lambda: Transformer(config, key=jax.random.key(0)))
    wanted = {name: x.shape for name, x in named_arrays(shape).items()}
    arrays = {}
    for name, value in layout.parameters(config, tensors.read):
        if value.shape != wanted[name]:
            raise NarError(
                f"{directory}: {name} would be {list(value.shape)}, and config.json asks for "
                f"{list(wanted[name])}"
            )
        arrays[name] = jnp.asarray(value, jnp.float32)
    if left := [n for n in tensors.unread if not n.endswith(layout.surplus)]:
        raise NarError(f"{directory} holds tensors that a {kind} model has not: {', '.join(left)}")
    return with_arrays(shape, arrays), vocabulary


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        NarError: the file is missing, or no JSON object.
    """
    if not path.is_file():
        raise NarError(f"{path} is missing: {path.parent} is no model's directory")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise NarError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise NarError(f"{path} is damaged: it holds no JSON object")
    return found

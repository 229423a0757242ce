"""The tables of embeddings, and which of them are one."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np

from nar.model import TransformerConfig
from nar.pretrained.tensors import Read, Tensors

Embeddings = Literal["shared", "tied", "inputs", "separate"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """The names of the embeddings' tables.

    Attributes:
        source, target, output: one's own name.
        shared: under which one table for all may be stored, the usual name first.
    """

    source: str
    target: str
    output: str
    shared: tuple[str, ...]

    def embeddings(self, tensors: Tensors) -> Embeddings:
        """Which of them are one, as `TransformerConfig.embeddings` says it."""
        source, target, output = map(tensors.find, (self.source, self.target, self.output))
        if source == target:
            return "shared" if target == output else "inputs"
        return "tied" if target == output else "separate"

    def read(self, config: TransformerConfig, read: Read) -> Iterator[tuple[str, np.ndarray]]:
        """Those that a model has, by parameter."""
        kind = config.embeddings
        other = self.shared if kind in ("shared", "inputs") else ()
        yield "embedding/table", read(self.target, *other)
        if kind in ("tied", "separate") and config.encoder_layers:
            yield "source_embedding/table", read(self.source)
        if kind in ("inputs", "separate"):
            yield "output/table", read(self.output)

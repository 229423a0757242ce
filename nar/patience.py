"""How long a batch waits for its longest outputs, before these go on in a batch of their own."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from nar.core import Decoder, Output, Source, Spec, failed_rows

SPARE = 8
"""Tokens that an output may have beyond its share of the source's."""

FEW = 8
"""So many rows do not hold up enough others to be decoded twice."""


@dataclasses.dataclass
class Patience:
    """Limits on the outputs of batches, so that a few long ones do not hold up all others.

    What repeats itself for ever writes `max_length` tokens, five times as many as its neighbors.
    Such rows are cut early, and decoded again, together, with all the room they may have. Where a
    decoder promises greedy's output or a sample of the model's distribution, a limit only cuts, so
    the others are what they would have been. Rows of a decoder-only model are not cut: how long a
    continuation is has nothing to do with its prompt.

    Args:
        decoder: whose outputs these are.
        spec: of the model.

    Attributes:
        ratio: tokens of an output for each of its batch's longest source that are waited for. It
            doubles when it was too small for more than an eighth of a batch.
    """

    decoder: Decoder
    spec: Spec
    ratio: float = 1.5

    def limit(self, source: Source, rows: int) -> Int[np.ndarray, " batch"]:
        """The most tokens to write for each row: one for those beyond `rows`, which only fill."""
        most = self.decoder.max_length
        if rows > FEW and self.spec.encoder and self.decoder.lossless != "no":
            longest = int(np.asarray(source.length)[:rows].max())
            most = min(most, int(self.ratio * longest) + SPARE)
        limit = np.ones(source.tokens.shape[0], np.int32)
        limit[:rows] = most
        return limit

    def cut(self, output: Output, limit: Int[np.ndarray, " batch"]) -> Bool[np.ndarray, " batch"]:
        """Which rows have been cut early, and have to be written again; never one that failed."""
        length, tokens = np.asarray(output.length), np.asarray(output.tokens)
        last = tokens[np.arange(len(length)), np.maximum(length - 1, 0)]
        cut = (length == limit) & (last != self.spec.eos) & ~failed_rows(output)
        cut &= (limit > 1) & (limit < self.decoder.max_length)
        if cut.sum() > (limit > 1).sum() / 8:
            self.ratio *= 2
        return cut

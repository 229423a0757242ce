"""How often guesses of a tree are accepted, for the tree that is best on average."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nar.core import Source
from nar.decoders.speculative_decoding import SpeculativeDecoding
from nar.drafters.draft_model import DraftModel
from nar.drivers import trace
from nar.errors import NarError


def acceptance_rates(
    decoder: SpeculativeDecoding, model: Any, sources: Sequence[Source]
) -> list[list[float]]:
    """How often a guess is accepted where its parent was, by depth and rank among its siblings.

    Args:
        decoder: whose tree is traced, one that is wide enough: `branches="4"`.
        model: what it decodes.
        sources: a sample.

    Returns:
        What `nar.drafters.trees.best_tree` asks for.

    Raises:
        NarError: the decoder's tree is another one in each step.
    """
    drafter = decoder.drafter
    if not isinstance(drafter, DraftModel):
        raise NarError(f"{decoder!r} has no fixed tree: set nodes=None and branches")
    parents, depth = drafter.parents, drafter.layout.offsets
    rank = np.arange(len(parents)) - np.searchsorted(parents, parents)
    hits = np.zeros((depth.max(), rank.max() + 1))
    tries = np.zeros_like(hits)
    for source in sources:
        _, steps = trace(decoder, model, source)
        assert steps.view is not None
        live = ~np.roll(steps.done, 1, axis=0)
        live[0] = True
        accepted = np.array(steps.view.accepted)
        accepted[..., 0] = live
        tried = accepted[..., parents[1:]]
        np.add.at(tries, (depth[1:] - 1, rank[1:]), tried.sum((0, 1)))
        np.add.at(hits, (depth[1:] - 1, rank[1:]), (tried & accepted[..., 1:]).sum((0, 1)))
    return (hits / np.maximum(tries, 1)).tolist()

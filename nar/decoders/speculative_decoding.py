"""Speculative decoding with a draft model (Leviathan et al. 2023; Chen et al. 2023)."""

import dataclasses

from nar.core import role
from nar.decoders.speculative import SpeculativeDecoder
from nar.drafters.draft_model import DraftModel, ModelDrafter
from nar.drafters.opt_tree import OptTree
from nar.errors import NarError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeculativeDecoding(SpeculativeDecoder):
    """A smaller model drafts, the target verifies the whole draft in one call.

    Needs a bundle: `Bundle.of(target=..., draft=...)`. The two may differ in all but what their
    token ids stand for: one table may be larger, and which token ends an output is the target's
    affair. Sampling drafts under the same temperature, top-k and top-p, and stays exact.

    Attributes:
        guesses: calls of the draft model for each of the target: the depth of the draft.
        branches: guesses after each guess, by depth: "3-2-1" drafts a tree of three guesses for
            the next token, two after each of these, and one after each of those and of the ones
            that follow; "3-2.1.0-1" lets nodes differ (`nar.drafters.trees`). 1 drafts a chain.
            Sampling draws siblings without replacement (Jeon et al. 2024).
        nodes: guesses of a tree that is chosen anew in each step, by the draft model's
            probabilities (OPT-Tree; Wang et al. 2024); None: `branches` is the tree.
    """

    family = "speculative"
    guesses: int = 4
    branches: int | str = 1
    nodes: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.nodes is not None and self.branches != 1:
            raise NarError(
                f"branches={self.branches!r} and nodes={self.nodes} are two trees: set one of them"
            )

    @property
    def drafter(self) -> ModelDrafter:
        """The draft model, with one tree for all steps or one for each."""
        if self.nodes is not None:
            return OptTree(guesses=self.guesses, nodes=self.nodes, sampling=self.sampling)
        return DraftModel(guesses=self.guesses, branches=self.branches, sampling=self.sampling)

    def check(self, model, source):
        """Also: there are enough tokens for all siblings."""
        super().check(model, source)
        width, vocab_size = self.drafter.width, role(model).spec.vocab_size
        if width > vocab_size:
            raise NarError(f"{width} guesses for one place: the vocabulary has {vocab_size} tokens")

"""Self-speculative decoding: the model's own first layers draft (Zhang et al. 2024; LayerSkip)."""

import dataclasses

from nar.decoders.speculative_decoding import SpeculativeDecoding
from nar.drafters.draft_model import ModelDrafter


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfSpeculative(SpeculativeDecoding):
    """Speculative decoding without a second model: an early exit of the target drafts.

    No training and no weights are added: the first decoder layers, the last norm and the output
    are a model too (Elhoushi et al. 2024, https://arxiv.org/abs/2404.16710). How good a one
    depends on the training: few models predict well from the middle. Its calls count as a draft
    model's.

    Attributes:
        layers: decoder layers of the early exit, fewer than the model has.
    """

    layers: int = 1

    @property
    def drafter(self) -> ModelDrafter:
        """The early exit."""
        return dataclasses.replace(super().drafter, layers=self.layers)

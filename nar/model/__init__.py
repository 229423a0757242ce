"""The shared transformer and the verbs by which decoders use a model."""

from nar.model.config import TransformerConfig
from nar.model.context import Context, Fresh, Memory
from nar.model.fitted import Fitted
from nar.model.protocol import Model
from nar.model.transformer import Transformer

__all__ = ["Context", "Fitted", "Fresh", "Memory", "Model", "Transformer", "TransformerConfig"]

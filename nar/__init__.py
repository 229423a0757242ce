"""nar: parallel and non-autoregressive decoding on one shared transformer, compared honestly."""

from nar.core import (
    Bundle,
    Decoder,
    IncompatibleModel,
    NarError,
    Needs,
    Output,
    Source,
    Spec,
    State,
    Stats,
)
from nar.decoders import (
    DECODERS,
    Beam,
    GaussSeidelJacobi,
    Greedy,
    HybridJacobi,
    Jacobi,
    Lookahead,
    PromptLookup,
    Sample,
    SpeculativeDecoding,
    make,
    register,
)
from nar.drivers import decode, stream, trace
from nar.model import Model, Transformer, TransformerConfig
from nar.translator import Translator, load

__all__ = [
    "DECODERS",
    "Beam",
    "Bundle",
    "Decoder",
    "GaussSeidelJacobi",
    "Greedy",
    "HybridJacobi",
    "IncompatibleModel",
    "Jacobi",
    "Lookahead",
    "Model",
    "NarError",
    "Needs",
    "Output",
    "PromptLookup",
    "Sample",
    "Source",
    "Spec",
    "SpeculativeDecoding",
    "State",
    "Stats",
    "Transformer",
    "TransformerConfig",
    "Translator",
    "decode",
    "load",
    "make",
    "register",
    "stream",
    "trace",
]

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
    Sample,
    make,
    register,
)
from nar.drivers import decode, stream, trace
from nar.model import Model, Transformer, TransformerConfig

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
    "Model",
    "NarError",
    "Needs",
    "Output",
    "Sample",
    "Source",
    "Spec",
    "State",
    "Stats",
    "Transformer",
    "TransformerConfig",
    "decode",
    "make",
    "register",
    "stream",
    "trace",
]

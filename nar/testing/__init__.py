"""The contracts of decoders and models as code, for yours too, and the oracles they are held to."""

from nar.testing.decoder import Report, check_decoder
from nar.testing.failure import ContractError
from nar.testing.model import check_model
from nar.testing.toys import Scripted, random_model

__all__ = [
    "ContractError",
    "Report",
    "Scripted",
    "check_decoder",
    "check_model",
    "random_model",
]

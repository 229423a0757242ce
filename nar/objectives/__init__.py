"""Training losses, one a file."""

from nar.objectives.cross_entropy import CrossEntropy
from nar.objectives.ctc import CTC
from nar.objectives.masked import Masked
from nar.objectives.protocol import Objective

__all__ = ["CTC", "CrossEntropy", "Masked", "Objective"]

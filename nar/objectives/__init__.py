"""Training losses, one a file."""

from nar.objectives.cross_entropy import CrossEntropy
from nar.objectives.protocol import Objective

__all__ = ["CrossEntropy", "Objective"]

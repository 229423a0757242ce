"""Training: one loop for every objective and model, and checkpoints that survive being killed."""

from nar.training.checkpoint import load_model, save_model
from nar.training.loop import TrainConfig, train
from nar.training.metrics import Diverged
from nar.training.optimizer import OptimizerConfig

__all__ = ["Diverged", "OptimizerConfig", "TrainConfig", "load_model", "save_model", "train"]

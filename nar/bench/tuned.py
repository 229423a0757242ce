"""What tuning found, as a file: the decoder to use for a model on a machine, and why."""

import dataclasses
import json
import os
import pathlib
import warnings
from typing import Any, Self

from nar.bench.quality import Interval
from nar.bench.report import machine, rounded
from nar.errors import NarError
from nar.files import write

FILE = "tuned.json"
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A decoder that was tried on the sample.

    Attributes:
        decoder: as `nar.make` reads it.
        calls: of the model, for a text; mean.
        tokens_per_call: written.
        positions_per_call: scored.
        exact_match: share of outputs that are greedy's.
        predicted: speed-up over greedy, by the step-cost curve.
        s1_speedup, s1_speedup_ci: as measured on single texts, in turn with greedy; None: the
            prediction was too low to try.
    """

    decoder: str
    calls: float
    tokens_per_call: float
    positions_per_call: float
    exact_match: float
    predicted: float
    s1_speedup: float | None = None
    s1_speedup_ci: Interval | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned:
    """What tuning found.

    Attributes:
        decoder: the one to use, as `nar.make` reads it; greedy, where nothing was surely faster.
        model: its directory's name.
        weights: the id of the weights that this is about.
        architecture: the model's shape, in short.
        machine: the device that this is about.
        texts: how many there were in the sample.
        greedy_ms: of greedy, for a text alone; median.
        step_cost: the curve, as the fields of `StepCost`.
        trials: everything that was tried, the greatest prediction first.
        version: of this format.
    """

    decoder: str
    model: str
    weights: str
    architecture: str
    machine: dict[str, Any]
    texts: int
    greedy_ms: float
    step_cost: dict[str, Any]
    trials: list[Trial]
    version: int = VERSION

    @property
    def best(self) -> Trial:
        """The one to use, or, where that is greedy, the fastest other one that was measured."""
        chosen = [trial for trial in self.measured if trial.decoder == self.decoder]
        return max(chosen or self.measured, key=lambda trial: trial.s1_speedup or 0)

    @property
    def measured(self) -> list[Trial]:
        """Those that were timed."""
        return [trial for trial in self.trials if trial.s1_speedup is not None]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON, whole or not at all."""
        write(path, json.dumps(rounded(dataclasses.asdict(self)), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote.

        Raises:
            NarError: there is no such file, or it is none of these.
        """
        try:
            found = json.loads(pathlib.Path(path).read_text())
            if found["version"] != VERSION:
                raise NarError(f"{path} is of version {found['version']}: not {VERSION}")
            return cls(**{**found, "trials": [Trial(**trial) for trial in found["trials"]]})
        except FileNotFoundError as error:
            raise NarError(f"{path} is missing: `nar tune` writes such files") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NarError(f"{path} is not what `nar tune` writes: {error!r}") from error


def described(decoder: str, weights: str) -> str:
    """A decoder's description: `decoder` itself, or what the `tuned.json` that it names says.

    Args:
        decoder: as `nar.make` reads it, or a path that ends in `.json`.
        weights: the id of the weights to decode with.

    Raises:
        NarError: the file is none that `nar tune` writes, or was written for other weights.
    """
    if not decoder.endswith(".json"):
        return decoder
    tuned = Tuned.load(decoder)
    if tuned.weights != weights:
        raise NarError(
            f"{decoder} was tuned for {tuned.model} (weights {tuned.weights}): these weights are "
            f"{weights}"
        )
    if tuned.machine["device"] != (here := machine()["device"]):
        warnings.warn(
            f"{decoder} was tuned on {tuned.machine['device']}, and this is {here}: tune again",
            stacklevel=2,
        )
    return tuned.decoder

"""What a training says of itself: metrics.jsonl, event files for TensorBoard, a line that moves."""

import collections
import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import jax

from nar.errors import NarError
from nar.files import naming, replacing
from nar.progress import Progress
from nar.training.checkpoint import Checkpoints

AHEAD = 2
"""Updates sent to the device before the first one's sums are read, so that it never waits."""


class Diverged(NarError):
    """The loss or the gradient is not a number any more; the message names the step."""


class Log:
    """Follows a training: reads its updates' sums a little later than they were sent.

    Args:
        run_dir: for the files.
        steps: of the whole training.
        step, tokens: where the training begins or goes on.
        rate: the learning rate of each update.
        checkpoints: to name the last one when the training diverges.
    """

    def __init__(
        self,
        run_dir: pathlib.Path,
        steps: int,
        step: int,
        tokens: int,
        rate: Callable[[int], Any],
        checkpoints: Checkpoints,
    ):
        self._step, self._tokens, self._rate, self._checkpoints = step, tokens, rate, checkpoints
        self._sent: collections.deque[Any] = collections.deque()
        self._seen: list[dict[str, float]] = []
        self._open = contextlib.ExitStack()
        self._metrics = self._open.enter_context(Metrics(run_dir, step))
        self._progress, self._steps = self._open.enter_context(Progress()), steps
        self._progress("step", step, steps)
        self.restart_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def restart_clock(self) -> None:
        """Call it after something that is not training."""
        self._since = time.perf_counter()

    def add(self, step: int, sums: Any) -> None:
        """Takes an update's sums, which may not be computed yet, and looks at an earlier one's.

        Raises:
            Diverged: these are not finite.
        """
        self._sent.append((step, sums))
        if len(self._sent) > AHEAD:
            self._look()

    def write(self) -> int:
        """Looks at all updates, and writes their means since the last time.

        Returns:
            The number of tokens since the training began.

        Raises:
            Diverged: an update is not finite.
        """
        while self._sent:
            self._look()
        updates, seconds = len(self._seen), time.perf_counter() - self._since
        sums = _added(self._seen)
        self._tokens += int(sums["tokens"])
        values = {
            **_means(sums),
            "grad_norm": sums["grad_norm"] / updates,
            "learning_rate": float(self._rate(self._step - 1)),
            "tokens": self._tokens,
            "tokens_per_second": sums["tokens"] / seconds,
            "seconds_per_step": seconds / updates,
        }
        self._metrics.write(self._step, "train", values)
        text = f"loss {values['loss']:.3f}, {values['tokens_per_second']:,.0f} predicted tokens/s"
        if impossible := sum(x for name, x in values.items() if name.endswith("impossible")):
            text += f", {impossible:.0f} rows impossible"
        self._progress("step", self._step, self._steps, text)
        self._seen.clear()
        self.restart_clock()
        return self._tokens

    def write_validation(self, step: int, sums: Iterable[Any]) -> float:
        """Writes the means of the sums of a validation's batches; returns the loss.

        Raises:
            Diverged: the loss is not finite.
        """
        values = _means(_added([_on_host(batch) for batch in sums]))
        self._check(step, "the validation loss", values["loss"])
        self._metrics.write(step, "validation", values)
        text = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self._progress.say(f"step {step}: validation {text}")
        return values["loss"]

    def _look(self) -> None:
        self._step, sums = self._sent.popleft()
        self._seen.append(_on_host(sums))
        self._check(self._step, "the loss", self._seen[-1]["loss"])
        self._check(self._step, "the gradient's norm", self._seen[-1]["grad_norm"])

    def _check(self, step: int, what: str, value: float) -> None:
        if not math.isfinite(value):
            steps = self._checkpoints.steps
            kept = f"that of step {steps[-1]} is kept" if steps else "there is none yet"
            raise Diverged(
                f"step {step}: {what} is {value}. The training has stopped, before a checkpoint; "
                f"{kept} in {self._checkpoints.directory}. A lower learning rate may help"
            )


def _on_host(sums: Any) -> dict[str, float]:
    return {name: float(x) for name, x in jax.device_get(sums).items()}


def _added(sums: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in sums) for name in sums[0]}


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    """What `Objective` says of each sum: a mean of tokens, a mean of rows, or a count."""

    def mean(name: str) -> float:
        if name == "rows" or name.endswith("impossible"):
            return sums[name]
        return sums[name] / max(sums["rows" if name.startswith("length_") else "tokens"], 1)

    return {name: mean(name) for name in sorted(sums.keys() - {"tokens", "grad_norm"})}


# ------------------------------------------------------------------------------------------ files
class Metrics:
    """Writes numbers to `metrics.jsonl` and to event files for TensorBoard, each step once.

    A run that goes on from step n may have written of later steps before it was killed: these lines
    are taken back.

    Args:
        run_dir: where the files are.
        step: the step from which the run goes on; 0 for a new one.
    """

    def __init__(self, run_dir: str | os.PathLike[str], step: int = 0):
        from tensorboardX.event_file_writer import EventsWriter

        self._path = path = pathlib.Path(run_dir) / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        with replacing(path) as file:
            file.write(b"".join(line for line in lines if _is_until(line, step)))
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
        # Not SummaryWriter: its thread dies on a full disk, and the training waits for it for ever.
        self._events = EventsWriter(str(path.with_name("events")))
        if lines:
            self._add(step + 1, session_log={"status": "START"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for path, file in ((self._path, self._lines), (self._path.parent, self._events)):
                stack.enter_context(naming(path))
                stack.callback(file.close)

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes one line, and one scalar `split/name` for each value."""
        with naming(self._path):
            self._lines.write(json.dumps({"step": step, "split": split, **values}) + "\n")
            self._lines.flush()
        for name, value in values.items():
            scalar = {"tag": f"{split}/{name}", "simple_value": value}
            self._add(step, summary={"value": [scalar]})
        with naming(self._path.parent):
            self._events.flush()

    def _add(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

        with naming(self._path.parent):
            self._events.write_event(Event(wall_time=time.time(), step=step, **what))


def _is_until(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except ValueError:
        return False  # half a line: the process was killed

"""The one training loop: any objective, any model, one device or a mesh, killed at any moment.

All that an update depends on is in a checkpoint (parameters, optimiser, the place in the data) or
follows from the seed and the update's number (dropout), so that a training that was stopped goes on
as if it had not been, bit by bit.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Int, Num

from nar.core import role
from nar.data.batching import Batch
from nar.errors import NarError, at_least
from nar.objectives.protocol import Objective
from nar.sharding import place, place_batch
from nar.training.checkpoint import Checkpoints
from nar.training.metrics import Log
from nar.training.optimizer import OptimizerConfig

M = TypeVar("M")
Sums = dict[str, Num[Array, ""]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train.

    Attributes:
        steps: updates.
        optimizer: Adam and its schedule.
        accumulation: batches an update; their losses are added, and divided by their tokens once.
        log_every: updates between two lines of metrics.
        validate_every: updates between two validations; each writes a checkpoint.
        checkpoint_every: updates between two checkpoints.
        keep: how many of the latest checkpoints stay, beside the best one.
        patience: stop after so many validations in a row without a new best loss; None: never.
        average_last: the trained model is the mean of so many last checkpoints; 0: it is the best
            one by validation loss, or the last one where nothing validates.
        seed: of dropout and other noise.
    """

    steps: int
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    accumulation: int = 1
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 5
    patience: int | None = None
    average_last: int = 0
    seed: int = 0

    def __post_init__(self):
        every = ("log_every", "validate_every", "checkpoint_every")
        for name in ("steps", "accumulation", *every, "keep"):
            at_least(name, getattr(self, name), 1)
        if self.patience is not None:
            at_least("patience", self.patience, 1)
        at_least("average_last", self.average_last, 0)
        at_least("seed", self.seed, 0)
        if self.average_last > self.keep:
            raise NarError(f"average_last={self.average_last}: only keep={self.keep} are kept")

    def due(self, step: int, what: Literal["log", "validate", "checkpoint"]) -> bool:
        """Whether something is due after update `step`; after the last one, everything is."""
        return step == self.steps or step % getattr(self, f"{what}_every") == 0


# --------------------------------------------------------------------------------- on the device
@struct.dataclass
class TrainState:
    """What an update changes."""

    model: Any
    optimizer: optax.OptState


@functools.partial(jax.jit, static_argnames=("objective", "config"), donate_argnames=("total",))
def accumulate(
    model: M,
    batch: Batch,
    number: Int[Array, ""],
    total: tuple[M, Sums] | None = None,
    *,
    objective: Objective,
    config: TrainConfig,
) -> tuple[M, Sums]:
    """The gradient of a batch's summed loss and the sums, added to those of earlier batches.

    Args:
        model: what is trained.
        batch: pairs.
        number: the batch's number, counted from the start of the training; noise depends on it,
            and so does what changes while a training lasts.
        total: what this function returned for earlier batches of the same update; donated.
        objective: the loss.
        config: the seed.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), number)
    progress = number / (config.steps * config.accumulation)
    gradient_of = jax.value_and_grad(objective, has_aux=True)
    (loss, sums), gradient = gradient_of(model, batch, key, progress)
    new = gradient, {"loss": loss, **sums}
    return new if total is None else jax.tree.map(jnp.add, total, new)


@functools.partial(jax.jit, static_argnames=("objective", "config"), donate_argnames=("state",))
def update(
    state: TrainState,
    batch: Batch,
    number: Int[Array, ""],
    total: tuple[Any, Sums] | None = None,
    *,
    objective: Objective,
    config: TrainConfig,
) -> tuple[TrainState, Sums]:
    """Changes the model by the mean gradient of all tokens of one or more batches.

    Args:
        state: donated.
        batch: the last one of this update.
        number: as for `accumulate`.
        total: what `accumulate` returned for the others.
        objective: the loss.
        config: the optimiser, and the seed.

    Returns:
        The new state; the sums and the gradient's norm.
    """
    gradient, sums = accumulate(
        state.model, batch, number, total, objective=objective, config=config
    )
    gradient = jax.tree.map(lambda g: g / jnp.maximum(sums["tokens"], 1), gradient)
    optimizer = config.optimizer.build(config.steps)
    change, memory = optimizer.update(gradient, state.optimizer, state.model)
    sums = {**sums, "grad_norm": optax.tree.norm(gradient)}
    return TrainState(optax.apply_updates(state.model, change), memory), sums


@functools.partial(jax.jit, static_argnames=("objective",))
def evaluate(model: Any, batch: Batch, objective: Objective) -> Sums:
    """The sums of one batch, without noise."""
    loss, sums = objective(model, batch, None)
    return {"loss": loss, **sums}


# ----------------------------------------------------------------------------------- on the host
@dataclasses.dataclass
class Record:
    """Where a training is: what a checkpoint holds beside arrays.

    Attributes:
        step: updates made.
        tokens: target tokens predicted.
        best: the lowest validation loss, and its step.
        waited: validations since then.
        data: the place in the data.
    """

    step: int = 0
    tokens: int = 0
    best: tuple[float, int] | None = None
    waited: int = 0
    data: Any = None

    def judge(self, loss: float) -> None:
        """Notes a validation loss."""
        self.waited += 1
        if self.best is None or loss < self.best[0]:
            self.best, self.waited = (loss, self.step), 0


def train(
    model: M,
    objective: Objective,
    batches: Any,
    config: TrainConfig,
    run_dir: str | os.PathLike[str],
    *,
    mesh: Mesh | None = None,
    validation: Iterable[Batch] | None = None,
) -> M:
    """Trains a model; the same call goes on where an earlier one was stopped.

    Args:
        model: any model of the Protocol; it is not changed.
        objective: the loss.
        batches: an endless iterator of batches with `get_state` (JSON-able) and `set_state`, such
            as a Grain iterator. With several hosts, each gives its own rows.
        config: how long and how.
        run_dir: for checkpoints and metrics; one folder a training.
        mesh: rows of a batch are split over its `data` axis, parameters over `model`.
        validation: batches that can be iterated again and again, or None.

    Returns:
        The model that `config.average_last` says.

    Raises:
        IncompatibleModel: the model lacks what `objective.needs` names.
        NarError: the batches or the validation cannot be used so.
        Diverged: the loss or the gradient is not finite. No checkpoint holds such an update.
        DamagedCheckpoint, MismatchedCheckpoint: the latest checkpoint cannot be used.
        UnwrittenCheckpoint: the disk is full, or cannot be written.
        KeyboardInterrupt: SIGINT or SIGTERM came, and a checkpoint was written.
    """
    if objective.needs is not None:
        objective.needs.check(role(model).spec, who=objective, of="the model")
    _check_data(batches, validation)
    run_dir = pathlib.Path(run_dir)
    job = {"objective": objective, "config": config}
    with (
        jax.set_mesh(mesh) if mesh else contextlib.nullcontext(),
        Checkpoints(run_dir / "checkpoints", config.keep) as checkpoints,
    ):
        state, at = initial_state(model, config, mesh), Record()
        if saved := checkpoints.steps:
            trees, record = checkpoints.restore(saved[-1], vars(state))
            state, at = TrainState(**trees), Record(**record)
            batches.set_state(at.data)
        stream = itertools.chain(_placed(batches, mesh), _exhausted())
        rate = config.optimizer.rate(config.steps)
        with (
            Log(run_dir, config.steps, at.step, at.tokens, rate, checkpoints) as log,
            _Interrupt() as interrupt,
        ):
            while at.step < config.steps and (not config.patience or at.waited < config.patience):
                first, total = at.step * config.accumulation, None
                *numbers, last = np.arange(first, first + config.accumulation, dtype=np.uint32)
                for number in numbers:
                    total = accumulate(state.model, next(stream), number, total, **job)
                state, sums = update(state, next(stream), last, total, **job)
                at.step += 1
                log.add(at.step, sums)

                validating = validation is not None and config.due(at.step, "validate")
                stopping = interrupt.came
                saving = validating or stopping or config.due(at.step, "checkpoint")
                if saving or config.due(at.step, "log"):
                    at.tokens = log.write()  # looks at every update: none is saved unseen
                if validating:
                    found = (evaluate(state.model, b, objective) for b in _placed(validation, mesh))
                    at.judge(log.write_validation(at.step, found))
                if saving:
                    at.data = batches.get_state()
                    checkpoints.save(at.step, vars(state), vars(at), at.best and at.best[1])
                    log.restart_clock()
                if stopping:
                    raise KeyboardInterrupt(f"stopped at step {at.step}; the same call goes on")
        chosen = checkpoints.steps[-max(config.average_last, 1) :]
        if at.best and not config.average_last:
            if at.best[1] in checkpoints.steps:
                chosen = [at.best[1]]
            else:
                warnings.warn(
                    f"the best checkpoint, of step {at.best[1]}, is gone: the last one is taken",
                    stacklevel=2,
                )
        return checkpoints.average(chosen, state.model)


def initial_state(model: Any, config: TrainConfig, mesh: Mesh | None = None) -> TrainState:
    """A copy of the model (the state is donated, the caller's model stays) and a new optimiser."""
    model = jax.tree.map(jnp.copy, model)
    state = TrainState(model, config.optimizer.build(config.steps).init(model))
    return place(state, mesh) if mesh else state


def _check_data(batches: Any, validation: Any) -> None:
    if not (hasattr(batches, "get_state") and hasattr(batches, "set_state")):
        raise NarError(
            f"batches of type {type(batches).__name__} cannot go on where they were stopped: they "
            "need get_state() and set_state(), as a Grain iterator has"
        )
    if validation is not None and (
        iter(validation) is validation or not any(True for _ in validation)
    ):
        raise NarError(
            f"validation of type {type(validation).__name__} is empty, or would be the second "
            "time: pass a list of batches"
        )


def _placed(batches: Any, mesh: Mesh | None) -> Iterator[Batch]:
    return (place_batch(batch, mesh) if mesh else batch for batch in batches)


def _exhausted() -> Iterator[Batch]:
    raise NarError("the batches came to an end: training needs an endless iterator")
    yield


class _Interrupt:
    """Notes SIGINT and SIGTERM, so that an update is finished; a second one ends the process."""

    signals = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> Self:
        self.came, self._before = False, {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.came = True
        self.__exit__()

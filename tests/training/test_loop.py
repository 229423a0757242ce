import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar.core import Source
from nar.data.batching import Batch
from nar.errors import NarError
from nar.objectives import CrossEntropy
from nar.training.checkpoint import Checkpoints, named_arrays
from nar.training.loop import TrainConfig, accumulate, initial_state, train, update
from nar.training.metrics import Diverged
from nar.training.optimizer import OptimizerConfig
from tests.training.toy import OPTIMIZER, stream, toy_batch, toy_model

PLAIN = OptimizerConfig(learning_rate=1.0, warmup=0, schedule="constant", eps=1e-12, clip=None)


@dataclasses.dataclass(frozen=True)
class Walk:
    """A model of one number, p, which Adam moves up by the learning rate at every update.

    Validation's loss is |p - goal|; from p = bad on, the training loss or its gradient is NaN.
    """

    goal: float = 0.0
    bad: float = 1e9
    only_gradient: bool = False
    needs = None

    def __call__(self, model, batch, key, progress=1.0):
        p, sums = model["p"], {"tokens": jnp.int32(batch.size)}
        if key is None:
            return jnp.abs(p - self.goal) * batch.size, sums
        if self.only_gradient:  # at 0, |x| ** 0.5 is 0 and its gradient is not a number
            return -p * batch.size + jnp.abs(jnp.minimum(p - self.bad, 0)) ** 0.5 * 0, sums
        return -jnp.where(p >= self.bad, jnp.nan, p) * batch.size, sums


class Counted:
    """Batches that are numbers; `when` maps a number to what happens when it is read."""

    def __init__(self, when=None):
        self.next, self.when = 0, when or {}

    def __iter__(self):
        return self

    def __next__(self):
        self.when.get(self.next, lambda: None)()
        self.next += 1
        return np.full((4,), self.next - 1, np.float32)

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]


def walk(run_dir, objective=None, batches=None, start=0.0, **settings):
    settings = {"optimizer": PLAIN, "log_every": 100, "checkpoint_every": 100} | settings
    validation = [np.zeros(4, np.float32)] if "validate_every" in settings else None
    model = {"p": jnp.float32(start)}
    config = TrainConfig(**settings)
    batches = batches or Counted()
    objective = objective or Walk()
    return float(train(model, objective, batches, config, run_dir, validation=validation)["p"])


def lines(run_dir, split):
    found = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if line["split"] == split]


def params(model):
    return {name: np.asarray(x) for name, x in named_arrays(model).items()}


# --------------------------------------------------------------------------------------- updates
@pytest.mark.parametrize("encoder_layers", [1, 0])
def test_training_learns(tmp_path, encoder_layers):
    model = toy_model(encoder_layers=encoder_layers, dropout=0.0)
    before = params(model)
    config = TrainConfig(steps=200, optimizer=OPTIMIZER, log_every=20, checkpoint_every=200)
    trained = train(model, CrossEntropy(), stream(), config, tmp_path)
    losses = [line["nll"] for line in lines(tmp_path, "train")]
    assert losses[0] > 2.0 > 1.4 > losses[-1]  # log 5 = 1.6 is the best without the source
    after = params(model)
    assert all((before[name] == after[name]).all() for name in before)  # the caller's model stays
    assert params(trained).keys() == before.keys()


def test_accumulation_is_one_large_batch():
    large = toy_batch(0, rows=12)
    parts = [jax.tree.map(lambda x, i=i: x[i : i + 4], large) for i in (0, 4, 8)]
    assert len({int(part.target_length.sum()) for part in parts}) > 1
    model, config = toy_model(dropout=0.0), TrainConfig(steps=9, optimizer=PLAIN, accumulation=3)
    job = {"objective": CrossEntropy(), "config": config}
    total, number = None, np.uint32(0)
    for part in parts[:-1]:
        total = accumulate(model, part, number, total, **job)
    state, sums = update(initial_state(model, config), parts[-1], number, total, **job)
    wanted, wanted_sums = update(initial_state(model, config), large, number, **job)
    assert wanted_sums.keys() == sums.keys()
    for name in sums:
        np.testing.assert_allclose(sums[name], wanted_sums[name], rtol=1e-5, err_msg=name)
    # The optimiser's memory after one update is the gradient's mean and its square, scaled.
    memory, wanted_memory = params(state.optimizer), params(wanted.optimizer)
    for name in memory:
        np.testing.assert_allclose(memory[name], wanted_memory[name], atol=1e-6, err_msg=name)


def test_gradients_are_divided_by_the_tokens_once(tmp_path):
    # Sums over 4 "tokens" a batch, three batches an update: the mean gradient is -1.
    walk(tmp_path, steps=2, accumulation=3, log_every=1)
    assert [line["grad_norm"] for line in lines(tmp_path, "train")] == [1.0, 1.0]
    assert [line["tokens"] for line in lines(tmp_path, "train")] == [12, 24]


def test_bfloat16_keeps_float32_masters():
    model = toy_model(dtype="bfloat16", dropout=0.0)
    slow = dataclasses.replace(PLAIN, learning_rate=1e-5)
    job = {"objective": CrossEntropy(), "config": TrainConfig(steps=9, optimizer=slow)}
    state = initial_state(model, job["config"])
    for number in range(3):
        state, _ = update(state, toy_batch(number), np.uint32(number), **job)
    batch = toy_batch(0)
    assert model.extend(batch.target, model.begin(batch.source, 0)[0])[0].dtype == jnp.bfloat16
    arrays = named_arrays((state.model, state.optimizer))
    assert {str(x.dtype) for name, x in arrays.items() if "count" not in name} == {"float32"}
    scale = named_arrays(state.model)["encoder/norm/scale"]
    moved = np.abs(np.asarray(scale) - 1)  # far below bfloat16's 2 ** -8 around 1
    assert 0 < moved.max() < 4e-5


# --------------------------------------------------------------------- validation and the result
def test_early_stopping_returns_the_best(tmp_path):
    # p is 1, 2, 3, ... after updates; validated at 2, 4, 6, 8: best at 4, worse at 6 and 8.
    found = walk(tmp_path, Walk(goal=4.4), steps=50, validate_every=2, keep=1, patience=2)
    assert found == pytest.approx(4.0)
    losses = {line["step"]: line["loss"] for line in lines(tmp_path, "validation")}
    assert losses == pytest.approx({2: 2.4, 4: 0.4, 6: 1.6, 8: 3.6}, abs=1e-4)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [4, 8]
    again = walk(tmp_path, Walk(goal=4.4), steps=50, validate_every=2, keep=1, patience=2)
    assert again == found  # and nothing was trained further
    assert len(lines(tmp_path, "validation")) == 4
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "damaged")  # as a message may advise
    with pytest.warns(UserWarning, match="best checkpoint, of step 4, is gone: the last one"):
        last = walk(tmp_path, Walk(goal=4.4), steps=50, validate_every=2, keep=1, patience=2)
    assert last == pytest.approx(8.0)


def test_without_validation_the_result_is_the_last(tmp_path):
    assert walk(tmp_path, steps=7, checkpoint_every=3) == pytest.approx(7.0)


def test_average_of_the_last_checkpoints(tmp_path):
    found = walk(tmp_path, steps=10, checkpoint_every=2, average_last=3, keep=3)
    assert found == pytest.approx((6 + 8 + 10) / 3)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        like = {"p": jnp.float32(0)}
        assert float(checkpoints.average([8, 10], like)["p"]) == pytest.approx(9.0)


# ----------------------------------------------------------------------------------- bad endings
@pytest.mark.parametrize("only_gradient", [False, True])
def test_nan_stops_names_the_step_and_is_never_saved(tmp_path, only_gradient):
    # p is 5 after update 5: update 6 sees NaN, and the next checkpoint would be at 6.
    what = "gradient's norm" if only_gradient else "loss"
    objective = Walk(bad=4.5, only_gradient=only_gradient)
    with pytest.raises(Diverged, match=rf"step 6: the {what} is nan.*step 4 is kept in .*points"):
        walk(tmp_path, objective, steps=50, checkpoint_every=2)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [2, 4]
        trees, _ = checkpoints.restore(4, {"model": {"p": jnp.float32(0)}})
        assert float(trees["model"]["p"]) == pytest.approx(4.0)


def test_nan_before_the_first_checkpoint(tmp_path):
    with pytest.raises(Diverged, match="step 1: the loss is nan.*there is none yet"):
        walk(tmp_path, Walk(bad=0.0), steps=50)


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_the_same_call_goes_on(tmp_path, name):
    settings = {"steps": 12, "accumulation": 2, "seed": 3}
    before = signal.getsignal(name)
    # Number 7 is the second batch of update 4, which is still made.
    stop = Counted({7: lambda: os.kill(os.getpid(), name)})
    with pytest.raises(KeyboardInterrupt, match="stopped at step 4"):
        walk(tmp_path, batches=stop, **settings)
    assert signal.getsignal(name) is before
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps == [4]
    batches = Counted()
    assert walk(tmp_path, batches=batches, **settings) == walk(tmp_path / "other", **settings)
    assert batches.next == 24


def test_batches_that_end(tmp_path):
    def end():
        raise StopIteration

    with pytest.raises(NarError, match="batches came to an end"):
        walk(tmp_path, batches=Counted({3: end}), steps=50)


def test_batches_without_a_state(tmp_path):
    with pytest.raises(NarError, match="batches of type list_iterator cannot go on where"):
        walk(tmp_path, batches=iter([1]), steps=50)


@pytest.mark.parametrize("validation", [iter([np.zeros(4)]), []])
def test_validation_that_cannot_be_repeated(tmp_path, validation):
    model, config = {"p": jnp.float32(0)}, TrainConfig(steps=1)
    with pytest.raises(NarError, match="validation of type list.* is empty, or would be"):
        train(model, Walk(), Counted(), config, tmp_path, validation=validation)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "field", ["steps", "accumulation", "log_every", "validate_every", "keep", "patience"]
)
def test_bad_values_are_named(field):
    with pytest.raises(NarError, match=f"{field}=0: it must be a whole number of at least 1"):
        TrainConfig(**({"steps": 1} | {field: 0}))


def test_more_to_average_than_is_kept():
    with pytest.raises(NarError, match="average_last=4: only keep=3 are kept"):
        TrainConfig(steps=1, average_last=4, keep=3)


def test_filler_rows_alone_change_nothing():
    batch = toy_batch(0)
    empty = Batch(
        Source(batch.source.tokens, np.ones_like(batch.source.length)),
        batch.target,
        np.zeros_like(batch.target_length),
    )
    config = TrainConfig(steps=9, optimizer=PLAIN)
    model = toy_model()
    state, sums = update(
        initial_state(model, config), empty, np.uint32(0), objective=CrossEntropy(), config=config
    )
    assert int(sums["tokens"]) == float(sums["grad_norm"]) == 0
    for name, x in params(state.model).items():
        np.testing.assert_array_equal(x, params(model)[name])

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from nar.errors import NarError
from nar.sharding import AxisRules, constrain, make_mesh, place, place_batch
from nar.training.checkpoint import named_arrays
from nar.training.loop import TrainConfig, train
from tests.training.toy import OBJECTIVE, OPTIMIZER, VALIDATION, stream, toy_batch, toy_model

ROOT = pathlib.Path(__file__).parents[1]


# ------------------------------------------------------------------------------------ one device
@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((6, 8), ("batch", "heads"), ("data", "model")),
        ((6, 8), ("vocab", None), (None, None)),  # 4 does not divide 6
        ((8, 3, 6), ("ff", None, "batch"), ("model", None, "data")),
        ((5, 8), (None, "ff"), (None, "model")),
        ((8,), (), ()),
    ],
)
def test_logical_axes_on_a_mesh(shape, axes, expected):
    mesh = AbstractMesh((2, 4), ("data", "model"))
    assert AxisRules().spec(shape, axes, mesh) == PartitionSpec(*expected)


def test_other_rules_and_other_meshes():
    mesh = AbstractMesh((2,), ("data",))
    rules = AxisRules(ff="data", heads=None)
    spec = rules.spec((8, 8, 8), ("ff", "heads", "vocab"), mesh)
    assert spec == PartitionSpec("data", None, None)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data": 3, "model": 1000}, "data=3 times model=1000 devices: there are"),
        ({"data": 0}, "data=0: it must be a whole number of at least 1"),
        ({"model": -1}, "model=-1: it must be"),
    ],
)
def test_meshes_that_are_not_there(axes, message):
    with pytest.raises(NarError, match=message):
        make_mesh(**axes)


def test_without_a_mesh_nothing_is_constrained():
    x = jnp.ones((4, 2))
    assert constrain(x, "batch", "heads") is x
    assert jax.vmap(lambda x: constrain(x, "heads"))(x).shape == x.shape


# --------------------------------------------------------------------------------- eight devices
@pytest.mark.rest
def test_eight_devices(tmp_path):
    """In a process of its own: the number of simulated devices is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.test_sharding", str(tmp_path)]
    run = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split() == ["placement", "constraints", "training"]


def check_placement():
    mesh = make_mesh(data=4, model=2)
    assert make_mesh().shape == {"data": 8, "model": 1}
    assert make_mesh(model=4).shape == {"data": 2, "model": 4}
    model = toy_model()
    placed = named_arrays(place(model, mesh))
    spec = {name: x.sharding.spec for name, x in placed.items()}
    feed_forward = "decoder/layers/0/feed_forward"
    assert spec[f"{feed_forward}/up/weight"] == PartitionSpec("model", None)
    assert spec[f"{feed_forward}/down/weight"] == PartitionSpec(None, "model")
    assert spec[f"{feed_forward}/up/bias"] == PartitionSpec("model")
    assert spec["embedding/table"] == PartitionSpec("model", None)
    assert spec["encoder/norm/scale"] == PartitionSpec(None)
    for name, x in named_arrays(model).items():
        np.testing.assert_array_equal(x, placed[name])
    batch = place_batch(toy_batch(0), mesh)
    assert batch.target.sharding == NamedSharding(mesh, PartitionSpec("data"))
    assert {shard.data.shape for shard in batch.target.addressable_shards} == {(2, 6)}
    np.testing.assert_array_equal(batch.target, toy_batch(0).target)
    with pytest.raises(NarError, match="6 rows of a batch do not split over 4 devices"):
        place_batch(toy_batch(0, rows=6), mesh)


def check_constraints():
    mesh, x = make_mesh(data=4, model=2), jnp.ones((8, 6))
    fix = lambda x: constrain(x * 2, "batch", "heads")  # noqa: E731
    with jax.set_mesh(mesh):
        found = jax.jit(fix)(x)
        assert found.sharding.spec == PartitionSpec("data", "model")
        odd = jax.jit(fix)(jnp.ones((8, 5)))
        assert odd.sharding.is_equivalent_to(NamedSharding(mesh, PartitionSpec("data")), 2)
        split = jax.shard_map(fix, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))
        np.testing.assert_array_equal(jax.jit(split)(x), 2 * x)
    np.testing.assert_array_equal(jax.pmap(fix)(jnp.ones((8, 2, 6))), np.full((8, 2, 6), 2.0))
    explicit = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(explicit):
        np.testing.assert_array_equal(jax.jit(fix)(x), 2 * x)


def check_training(directory):
    """The loss curve of one device within 1e-4, on two meshes; and a mesh may change on the way."""

    def run(name, mesh, steps=12):
        config = TrainConfig(
            steps=steps,
            optimizer=OPTIMIZER,
            log_every=1,
            checkpoint_every=6,
            validate_every=6,
            average_last=1,
        )
        path = directory / name
        model = train(
            toy_model(), OBJECTIVE, stream(), config, path, mesh=mesh, validation=VALIDATION
        )
        lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        return model, [line["loss"] for line in lines]

    meshes = {"data": make_mesh(), "both": make_mesh(data=4, model=2), "changed": None}
    _, curve = run("one", None)
    assert len(curve) == 14
    run("changed", make_mesh(data=2, model=4), steps=6)
    for name, mesh in meshes.items():
        model, found = run(name, mesh)
        np.testing.assert_allclose(found, curve, rtol=1e-4, err_msg=name)
        if mesh:
            assert all(len(x.sharding.device_set) == 8 for x in named_arrays(model).values())


if __name__ == "__main__":
    check_placement()
    print("placement")
    check_constraints()
    print("constraints")
    check_training(pathlib.Path(sys.argv[1]))
    print("training")

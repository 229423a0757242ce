import dataclasses
import gc
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar.errors import NarError
from nar.training.checkpoint import (
    Checkpoints,
    DamagedCheckpoint,
    MismatchedCheckpoint,
    UnwrittenCheckpoint,
    checksum,
    load_model,
    named_arrays,
    save_model,
    with_arrays,
)
from tests.training.toy import toy_model


def trees(step):
    random = np.random.default_rng(step)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    model = {"weight": draw(64, 64), "bias": draw(64)}
    return {"model": model, "optimizer": (jnp.int32(step), {"mu": draw(64, 64)})}


def assert_same(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 10 and 20."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(directory) as checkpoints:
        for step in (10, 20):
            checkpoints.save(step, trees(step), {"step": step, "data": {"next": 3}})
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def everything(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# ----------------------------------------------------------------------------------- checkpoints
def test_what_was_saved_is_restored(saved):
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.steps == [10, 20]
        for step in (10, 20):
            found, record = checkpoints.restore(step, trees(0))
            assert_same(found, trees(step))
            assert record == {"step": step, "data": {"next": 3}}
        found, _ = checkpoints.restore(10, {"model": trees(0)["model"]})
        assert_same(found, {"model": trees(10)["model"]})


def test_the_latest_and_the_best_stay(tmp_path):
    for steps in (range(1, 5), range(5, 7)):  # in two processes' lives
        with Checkpoints(tmp_path, keep=2) as checkpoints:
            for step in steps:
                checkpoints.save(step, {"x": jnp.ones(3)}, None, best=2 if step > 1 else 1)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2, 5, 6]


def largest(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated parameters": lambda step: truncate(largest(step / "model")),
    "one flipped bit of a parameter": lambda step: flip(largest(step / "model")),
    "one flipped bit of the optimiser": lambda step: flip(largest(step / "optimizer")),
    "one flipped bit of the record": lambda step: flip(largest(step / "about")),
    "no parameters": lambda step: shutil.rmtree(step / "model"),
    "half a copy": lambda step: [shutil.rmtree(step / name) for name in ("model", "about")],
    "nothing": lambda step: [shutil.rmtree(step), step.mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_previous_one_offered(copy, damage):
    DAMAGES[damage](copy / "20")
    before = everything(copy)
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.steps == [10, 20]
        with pytest.raises(DamagedCheckpoint, match="checkpoints/20 is damaged.*from step 10"):
            checkpoints.restore(20, trees(0))
    assert everything(copy) == before
    (copy / "20").rename(copy / "20.damaged")  # what the message says
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.steps == [10]
        assert_same(checkpoints.restore(10, trees(0))[0], trees(10))
        checkpoints.save(20, trees(21), None)
        assert_same(checkpoints.restore(20, trees(0))[0], trees(21))


def test_damage_of_the_only_one(copy):
    shutil.rmtree(copy / "10")
    DAMAGES["truncated parameters"](copy / "20")
    with (
        Checkpoints(copy) as checkpoints,
        pytest.raises(DamagedCheckpoint, match="start again: there is no other"),
    ):
        checkpoints.restore(20, trees(0))


def test_what_a_killed_process_was_writing_is_no_checkpoint(copy):
    (copy / "20").rename(copy / "20.orbax-checkpoint-tmp-0")
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.steps == [10]


def save_on_a_full_disk(directory, size, small_files, then=None):
    with small_files(size), Checkpoints(directory) as checkpoints:
        checkpoints.save(30, trees(30), None)
        if then:
            raise then


@pytest.mark.parametrize("size", [100, 9000])
def test_a_disk_that_is_full_is_named_once(copy, tmp_path, size, small_files, capfd):
    """Where a description is too large, which Orbax writes, or an array, which TensorStore does."""
    with pytest.raises(UnwrittenCheckpoint) as error:
        save_on_a_full_disk(copy, size, small_files)
    found = re.fullmatch("(.*): File too large. .* that of step 20 is kept in .*", str(error.value))
    assert found is not None
    assert found[1].startswith(str(copy))
    gc.collect()
    assert capfd.readouterr() == ("", "")
    shutil.copytree(copy / "20", tmp_path / "kept" / "20")  # unfinished threads are in the other
    with Checkpoints(tmp_path / "kept") as checkpoints:
        assert_same(checkpoints.restore(20, trees(0))[0], trees(20))


def test_what_ended_the_training_is_said_where_no_checkpoint_is_written_either(copy, small_files):
    with pytest.raises(NarError, match="it diverged"):
        save_on_a_full_disk(copy, 9000, small_files, then=NarError("it diverged"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": jnp.zeros(65)}, r"bias is float32\[64\] there, and float32\[65\] in the model"),
        ({"bias": jnp.zeros(64, jnp.bfloat16)}, r"float32\[64\] there, and bfloat16\[64\]"),
        ({"extra": jnp.zeros(2)}, r"extra is missing there, and float32\[2\] in the model"),
    ],
)
def test_other_arrays_are_named_on_both_sides(saved, change, message):
    with Checkpoints(saved) as checkpoints, pytest.raises(MismatchedCheckpoint, match=message):
        checkpoints.restore(20, {"model": trees(0)["model"] | change})


def test_checksum_by_hand():
    assert int(checksum(jnp.array([1.0, 2.0], jnp.float32))) == 0x3F800000 + 0x40000000
    assert int(checksum(jnp.array([-1, 2], jnp.int32))) == 1  # modulo 2 ** 32


def test_names_are_paths():
    model = toy_model()
    arrays = named_arrays(model)
    assert arrays["decoder/layers/0/feed_forward/up/bias"].shape == (16,)
    twice = with_arrays(model, {name: 2 * x for name, x in arrays.items()})
    np.testing.assert_array_equal(
        twice.embedding.table[...], 2 * np.asarray(model.embedding.table[...])
    )


# ------------------------------------------------------------------------------- finished models
@pytest.fixture
def model_dir(tmp_path):
    save_model(tmp_path / "model", toy_model())
    return tmp_path / "model"


def test_a_model_comes_back_as_it_was(model_dir):
    model = toy_model()
    assert sorted(path.name for path in model_dir.iterdir()) == ["config.json", "weights.npz"]
    found = load_model(model_dir)
    assert found.config == model.config
    assert_same(found, model)


def test_half_precision_models_too(tmp_path):
    model = jax.tree.map(lambda x: x.astype(jnp.bfloat16), toy_model())
    save_model(tmp_path, model)
    assert_same(load_model(tmp_path), jax.tree.map(lambda x: x.astype(jnp.float32), model))


@pytest.mark.parametrize("name", ["config.json", "weights.npz"])
@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_model_is_named(model_dir, name, damage):
    (model_dir / "config.json").write_text('{"vocab_size": 12}')
    if damage is flip and name == "config.json":
        (model_dir / name).write_bytes(b'{"vocab_size": \xff}')
    else:
        damage(model_dir / name)
    with pytest.raises(DamagedCheckpoint, match=f"the model in {model_dir} is damaged"):
        load_model(model_dir)


def test_a_model_that_does_not_fit_the_disk(tmp_path, small_files):
    save_model(tmp_path, toy_model())
    before = everything(tmp_path)
    other = jax.tree.map(lambda x: x + 1, toy_model())
    with small_files(500), pytest.raises(OSError, match=f"large: '{tmp_path}/weights.npz.partial'"):
        save_model(tmp_path, other)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["config.json", "weights.npz"])
def test_a_missing_file_is_named(model_dir, name):
    (model_dir / name).unlink()
    with pytest.raises(NarError, match=f"{model_dir} holds no saved model: there is no {name}"):
        load_model(model_dir)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_ff": 24}, r"down/weight is float32\[16, 16\] there, and float32\[16, 24\] in"),
        ({"decoder_layers": 2}, r"layers/1/attention/out/bias is missing there, and float32"),
        ({"depth": 2}, r"sets \['depth'\]: a TransformerConfig has .*'decoder_layers'"),
    ],
)
def test_config_and_weights_of_different_models(model_dir, change, message):
    config = dataclasses.asdict(toy_model().config) | change
    (model_dir / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchedCheckpoint, match=message):
        load_model(model_dir)

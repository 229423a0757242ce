import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nar.errors import NarError
from nar.training.optimizer import OptimizerConfig


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]),
        ("inverse_sqrt", [0.25, 0.5, 0.75, 1.0, 1.0, (4 / 5) ** 0.5, (4 / 6) ** 0.5]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.25]),  # half a cosine over three updates
    ],
)
def test_rates_by_hand(schedule, expected):
    rate = OptimizerConfig(learning_rate=2.0, warmup=4, schedule=schedule).rate(steps=7)
    np.testing.assert_allclose([rate(n) for n in range(7)], 2 * np.array(expected), rtol=1e-6)


def test_no_warmup():
    rate = OptimizerConfig(learning_rate=2.0, warmup=0, schedule="constant").rate(steps=7)
    assert [float(rate(n)) for n in range(3)] == [2.0, 2.0, 2.0]


def test_updates_are_adam_s_with_clipping_and_decay_of_matrices():
    config = OptimizerConfig(
        learning_rate=0.1,
        warmup=0,
        schedule="constant",
        beta1=0.8,
        beta2=0.9,
        eps=1e-3,
        weight_decay=0.5,
        clip=1.0,
    )
    optimizer, random = config.build(10), np.random.default_rng(0)
    found = {"matrix": jnp.ones((2, 3)), "bias": jnp.ones((3,))}
    wanted = {name: np.asarray(x, np.float64) for name, x in found.items()}
    state = optimizer.init(found)
    mean = {name: 0.0 for name in wanted}
    square = {name: 0.0 for name in wanted}
    for step in range(1, 4):
        gradient = {name: random.normal(size=x.shape) * step / 2 for name, x in wanted.items()}
        norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
        for name, g in gradient.items():
            g = g / max(norm, 1.0)
            mean[name] = 0.8 * mean[name] + 0.2 * g
            square[name] = 0.9 * square[name] + 0.1 * g**2
            m, v = mean[name] / (1 - 0.8**step), square[name] / (1 - 0.9**step)
            decay = 0.5 * wanted[name] if name == "matrix" else 0.0
            wanted[name] = wanted[name] - 0.1 * (m / (np.sqrt(v) + 1e-3) + decay)
        gradient = {name: jnp.asarray(g, jnp.float32) for name, g in gradient.items()}
        change, state = optimizer.update(gradient, state, found)
        found = optax.apply_updates(found, change)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("schedule", "linear"),
        ("warmup", -1),
        ("beta2", 1.0),
        ("eps", 0.0),
        ("weight_decay", -0.1),
        ("clip", 0.0),
    ],
)
def test_bad_values_are_named(field, value):
    with pytest.raises(NarError, match=f"{field}={value!r}.*must be"):
        OptimizerConfig(**{field: value})

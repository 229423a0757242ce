"""Products, norms, embeddings, feed-forward and dropout, one by one."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar import TransformerConfig
from nar.model.layers import (
    ACTIVATIONS,
    FEW,
    Dropout,
    Embedding,
    FeedForward,
    Linear,
    Norm,
    linear,
)

RANDOM = np.random.default_rng(0)
KEY = jax.random.key(0)


def config(**settings):
    return TransformerConfig(**{"vocab_size": 9, "d_model": 8, "d_ff": 6, "heads": 2, **settings})


# ------------------------------------------------------------------------------------- products
@pytest.mark.parametrize("outputs", [6, 5])
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (2, 1), (0,), (2, 3), (FEW + 1,)],
    ids=["one row", "two", "none", "few", "many"],
)
def test_a_product_and_its_gradients_however_it_is_laid_out(shape, outputs):
    x, weight, bias, weigh = (
        RANDOM.normal(size=s).astype(np.float32)
        for s in ((*shape, 4), (outputs, 4), (outputs,), (*shape, outputs))
    )
    np.testing.assert_allclose(linear(x, weight, bias), x @ weight.T + bias, 1e-5, 1e-5)
    np.testing.assert_allclose(jax.jit(linear)(x, weight), x @ weight.T, 1e-5, 1e-5)
    loss = jax.jit(jax.grad(lambda *given: (linear(*given) * weigh).sum(), argnums=(0, 1, 2)))
    want = (
        weigh @ weight,
        weigh.reshape(-1, outputs).T @ x.reshape(-1, 4),
        weigh.reshape(-1, outputs).sum(0),
    )
    for got, wanted in zip(loss(x, weight, bias), want, strict=True):
        np.testing.assert_allclose(got, wanted, 1e-4, 1e-4)
    many = jax.vmap(linear, (0, None))(np.stack([x, 2 * x]), weight)
    np.testing.assert_allclose(many, np.stack([x, 2 * x]) @ weight.T, 1e-5, 1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, FEW + 1])
def test_products_of_bfloat16_stay_bfloat16_unless_their_sums_are_asked_for(rows):
    x = jnp.asarray(RANDOM.normal(size=(rows, 64)), jnp.bfloat16)
    weight = jnp.asarray(RANDOM.normal(size=(6, 64)), jnp.float32)
    bias = jnp.ones((6,))
    exact = np.float64(x) @ np.float64(weight.astype(jnp.bfloat16)).T + 1
    rounded, kept = linear(x, weight, bias), linear(x, weight, bias, dtype=jnp.float32)
    assert (rounded.dtype, kept.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(np.float64(rounded), exact, rtol=0.02, atol=0.1)
    np.testing.assert_allclose(kept, exact, rtol=1e-4, atol=1e-4)


def test_a_linear_layer_starts_small_without_a_bias_of_its_own():
    layer = Linear(200, 100, bias=True, axes=("ff", None), key=KEY)
    bound = math.sqrt(6 / 300)  # Glorot and Bengio (2010)
    weight = np.asarray(layer.weight[...])
    assert weight.shape == (100, 200)
    assert 0.95 * bound < np.abs(weight).max() <= bound
    np.testing.assert_allclose(weight.std(), bound / math.sqrt(3), rtol=0.03)
    assert not layer.bias[...].any()
    assert Linear(2, 3, bias=False, axes=(None, None), key=KEY).bias is None


# ---------------------------------------------------------------------------------------- norms
def test_norms_by_hand():
    x = jnp.asarray([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    layer = Norm(4, config(norm_eps=1e-6))
    root = math.sqrt(5)  # the variance of 1, 3, 5, 7
    np.testing.assert_allclose(layer(x)[0], [-3 / root, -1 / root, 1 / root, 3 / root], rtol=1e-5)
    np.testing.assert_array_equal(layer(x)[1:], np.zeros((2, 4)))
    layer.scale[...], layer.bias[...] = jnp.asarray([1.0, 2, 3, 4]), jnp.ones(4)
    np.testing.assert_allclose(layer(x)[0, 3], 1 + 12 / root, rtol=1e-5)
    for rms in (Norm(4, config(norm="rms")), Norm(4, config(norm="layer"), rms=True)):
        assert rms.bias is None
        np.testing.assert_allclose(rms(x)[0], np.array([1, 3, 5, 7]) / math.sqrt(21), rtol=1e-5)
        np.testing.assert_allclose(rms(x)[1], np.ones(4), rtol=1e-5)
        np.testing.assert_array_equal(rms(x)[2], np.zeros(4))


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norms_of_bfloat16_are_computed_in_float32(kind):
    layer = Norm(64, config(norm=kind))
    # Squares of these leave bfloat16's precision, and their sum float16's range.
    x = jnp.asarray(300 + RANDOM.normal(size=(3, 64)), jnp.bfloat16)
    got, exact = layer(x), np.float64(x)
    assert got.dtype == jnp.bfloat16
    centred = exact - exact.mean(-1, keepdims=True) if kind == "layer" else exact
    want = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(np.float64(got), want, rtol=0.01, atol=0.01)


def test_the_gradient_of_a_norm_is_a_number_even_of_zeros():
    for kind in ("layer", "rms"):
        layer = Norm(4, config(norm=kind))
        assert np.isfinite(jax.grad(lambda x, n=layer: n(x).sum())(jnp.zeros((2, 4)))).all()


# ------------------------------------------------------------------- embeddings and feed-forward
def test_an_embedding_reads_its_nearest_end_outside_of_it():
    layer = Embedding(5, 3, key=KEY)
    table = np.asarray(layer.table[...])
    got = layer(jnp.asarray([[0, 4, 2], [-1, 5, 999]]))
    np.testing.assert_array_equal(got, table[[[0, 4, 2], [0, 4, 4]]])
    big = np.asarray(Embedding(400, 100, key=KEY).table[...])
    np.testing.assert_allclose(big.std(), 0.1, rtol=0.03)


def test_activations_by_hand():
    x = jnp.asarray([-2.0, -0.5, 0.0, 1.0, 3.0])
    want = {
        "relu": [0, 0, 0, 1, 3],
        # x * Phi(x), from a table of the normal distribution.
        "gelu": [-2 * 0.0227501, -0.5 * 0.3085375, 0, 0.8413447, 3 * 0.9986501],
        # Hendrycks and Gimpel (2016): x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))).
        "gelu_tanh": [-0.0454023, -0.1542860, 0, 0.8411920, 2.9963627],
        # x / (1 + exp(-x)).
        "swish": [-2 / 8.3890561, -0.5 / 2.6487213, 0, 1 / 1.3678794, 3 / 1.0497871],
    }
    assert set(want) == set(ACTIVATIONS)
    for name, values in want.items():
        np.testing.assert_allclose(ACTIVATIONS[name](x), values, rtol=1e-4, atol=1e-6)


def test_a_gate_is_activated_and_multiplies_the_other_half():
    layer = FeedForward(config(d_model=1, d_ff=2, heads=1, gated=True), key=KEY)
    layer.up.weight[...] = jnp.asarray([[1.0], [-1.0], [10.0], [100.0]])
    layer.up.bias[...] = jnp.asarray([0.0, 3.0, 1.0, 1.0])
    layer.down.weight[...] = jnp.asarray([[1.0, 1000.0]])
    layer.down.bias[...] = jnp.asarray([0.5])
    # x = 2: gates relu(2), relu(-2 + 3); values 21 and 201.
    got = layer(jnp.asarray([[[2.0]]]), Dropout(0.0, None))
    np.testing.assert_allclose(got, [[[2 * 21 + 1000 * 201 + 0.5]]])


# -------------------------------------------------------------------------------------- dropout
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    n = 200_000
    kept = np.asarray(Dropout(rate, KEY)(jnp.full((n,), 3.0)))
    share = (kept == 0).mean()
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / n)
    np.testing.assert_allclose(kept[kept != 0], 3 / (1 - rate), rtol=1e-6)
    assert abs(kept.mean() - 3) < 5 * 3 * math.sqrt(rate / (1 - rate) / n)


def test_dropout_is_new_at_every_use_and_the_same_with_the_same_key():
    x = jnp.ones((1000,))
    one, other = Dropout(0.5, KEY), Dropout(0.5, KEY)
    first, second = one(x), one(x)
    assert 400 < (first != second).sum() < 600
    chex.assert_trees_all_equal((first, second), (other(x), other(x)))
    # Traced or not, the noise is that of the key.
    chex.assert_trees_all_equal(jax.jit(lambda key: Dropout(0.5, key)(x))(KEY), first)
    assert (Dropout(0.5, jax.random.key(1))(x) != first).any()


def test_neighbours_are_dropped_independently_in_every_shape():
    """One random word decides for two elements; their fates must not be one."""
    dropped = np.asarray(Dropout(0.5, KEY)(jnp.ones((3000, 7)))) == 0
    together = np.corrcoef(dropped, rowvar=False)
    assert np.abs(together - np.eye(7)).max() < 5 / math.sqrt(3000)
    assert abs(dropped.mean() - 0.5) < 5 * 0.5 / math.sqrt(dropped.size)
    assert Dropout(0.5, KEY)(jnp.ones((1,))).shape == (1,)


def test_dropout_does_nothing_without_a_key_or_a_rate():
    x = jnp.ones((10,), jnp.bfloat16)
    assert Dropout(0.5, None)(x) is x
    assert Dropout(0.0, KEY)(x) is x
    assert Dropout(0.5, KEY)(x).dtype == jnp.bfloat16
    # Rates between the last step of 16 bits and 1.
    assert np.isfinite(np.float32(Dropout(0.999999, KEY)(x))).all()

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nar import Source, Transformer, TransformerConfig
from nar.data.batching import Batch
from nar.errors import NarError
from nar.objectives import CrossEntropy
from nar.objectives.cross_entropy import smoothed
from nar.ops import NEG

VOCAB, EOS = 11, 3


def model_of(encoder, dropout=0.0):
    config = TransformerConfig(
        vocab_size=VOCAB,
        d_model=8,
        d_ff=8,
        heads=2,
        encoder_layers=int(encoder),
        decoder_layers=1,
        max_positions=16,
        dropout=dropout,
    )
    return Transformer(config, key=jax.random.key(0))


def some_batch(rows=4, source=3, target=5):
    random = np.random.default_rng(0)
    length = random.integers(1, target + 1, rows).astype(np.int32)
    tokens = random.integers(4, VOCAB, (rows, target))
    tokens[np.arange(rows), length - 1] = EOS
    tokens = np.where(np.arange(target) < length[:, None], tokens, 0).astype(np.int32)
    sources = Source(
        random.integers(4, VOCAB, (rows, source)).astype(np.int32),
        random.integers(1, source + 1, rows).astype(np.int32),
    )
    return Batch(sources, tokens, length)


def reference(logits, label, smoothing):
    """In float64, with the smoothed label distribution written out."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    vocab = logits.shape[-1]
    q = (1 - smoothing) * np.eye(vocab)[label] + smoothing / vocab
    nll = -np.log(np.take_along_axis(p, label[..., None], -1)[..., 0])
    return -(q * np.log(p)).sum(-1), nll, p.argmax(-1) == label, p - q


@given(
    seed=st.integers(0, 10**6),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    scale=st.sampled_from([0.01, 1.0, 10.0]),
)
def test_loss_and_gradient_are_those_of_the_written_out_distribution(seed, smoothing, scale):
    random = np.random.default_rng(seed)
    logits = (random.normal(size=(3, 4, VOCAB)) * scale).astype(np.float32)
    label = random.integers(0, VOCAB, (3, 4))
    loss, nll, correct, gradient = reference(logits, label, smoothing)
    found = smoothed(jnp.asarray(logits), jnp.asarray(label), smoothing)
    np.testing.assert_allclose(found[0], loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], nll, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[2], correct)
    slope = jax.grad(lambda x: smoothed(x, jnp.asarray(label), smoothing)[0].sum())(logits)
    np.testing.assert_allclose(slope, gradient, atol=1e-6)


def test_banned_tokens_are_in_no_mean():
    """What the model bans has no share of the label: the loss is that of the smaller vocabulary."""
    logits = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    label, banned = jnp.array([0, 2, 5]), jnp.array([1, 4])
    found = smoothed(jnp.asarray(logits).at[:, banned].set(NEG), label, 0.1)
    fewer = smoothed(jnp.asarray(np.delete(logits, banned, 1)), jnp.array([0, 1, 3]), 0.1)
    chex.assert_trees_all_close(found, fewer, rtol=1e-6)


def test_large_logits_stay_finite():
    found = smoothed(jnp.array([[1e4, -1e4, 0.0]]), jnp.array([1]), 0.0)
    np.testing.assert_allclose(found[0], [2e4])


@pytest.mark.parametrize("encoder", [True, False])
def test_teacher_forcing_is_decoding_of_the_target_token_by_token(encoder):
    model, batch, smoothing = model_of(encoder), some_batch(), 0.1
    rows, time = batch.target.shape

    @jax.jit
    def step(context, fed):
        hidden, fresh = model.extend(fed[:, None], context)
        context = context.commit(fresh, jnp.ones((rows,), jnp.int32))
        return context, model.logits(hidden)[:, 0]

    context, fed = jax.jit(model.begin, static_argnums=1)(batch.source, time)
    sums = dict.fromkeys(("loss", "nll", "correct", "tokens"), 0.0)
    for i in range(time):
        context, logits = step(context, fed)
        loss, nll, correct, _ = reference(logits, batch.target[:, i], smoothing)
        real = i < batch.target_length
        for name, x in {"loss": loss, "nll": nll, "correct": correct, "tokens": 1}.items():
            sums[name] += np.sum(x * real)
        fed = jnp.asarray(batch.target[:, i])
    loss, found = jax.jit(CrossEntropy(label_smoothing=smoothing))(model, batch, None)
    assert found.keys() == sums.keys() - {"loss"}
    for name, x in {"loss": loss, **found}.items():
        np.testing.assert_allclose(x, sums[name], rtol=1e-5, err_msg=name)


def test_padding_and_filler_rows_change_nothing():
    model, batch, objective = model_of(True), some_batch(), jax.jit(CrossEntropy())
    extra = lambda x, value: np.pad(x, [(0, 2), (0, 3)][: x.ndim], constant_values=value)  # noqa: E731
    wide = Batch(
        Source(extra(batch.source.tokens, 7), np.maximum(extra(batch.source.length, 0), 1)),
        extra(batch.target, 7),
        extra(batch.target_length, 0),
    )
    assert wide.target.shape == (6, 8)
    (loss, sums), (wide_loss, wide_sums) = (
        objective(model, batch, None),
        objective(model, wide, None),
    )
    np.testing.assert_allclose(wide_loss, loss, rtol=1e-5)
    assert int(wide_sums["tokens"]) == int(sums["tokens"]) == batch.target_length.sum()


def test_noise_comes_from_the_key_alone():
    model, batch = model_of(True, dropout=0.5), some_batch()
    objective = jax.jit(CrossEntropy())
    loss = lambda key: float(objective(model, batch, key)[0])  # noqa: E731
    first, second = jax.random.key(0), jax.random.key(1)
    assert loss(first) == loss(first)
    assert loss(first) != loss(second)
    assert loss(None) != loss(first)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(NarError, match="label_smoothing=.*must be in"):
        CrossEntropy(label_smoothing=smoothing)

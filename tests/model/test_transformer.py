"""The shared transformer against another one, which is written from the papers in loops."""

import dataclasses
import functools
import typing

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nar import Model, Source, Transformer, TransformerConfig
from nar.ops import NEG
from tests.model.reference import (
    KINDS,
    LLAMA,
    MARIAN,
    NO_BIAS,
    SMALL,
    SOURCES,
    T5,
    TARGETS,
    Reference,
    build,
)

SETTINGS = {
    "vaswani": {},
    "post-norm": {"norm_position": "post"},
    "post-norm and a norm at the end": {"norm_position": "post", "final_norm": True},
    "pre-norm without one": {"final_norm": False, "norm": "rms", "norm_eps": 1e-2},
    "qk-norm": {"qk_norm": True, "norm_eps": 1e-3},
    "learned": {"positions": "learned", "activation": "gelu"},
    "rotary": {"positions": "rotary", "gated": True},
    "relative": {"positions": "relative", "activation": "gelu", "gated": True},
    "none": {"positions": "none", "activation": "gelu_tanh"},
    "bias of qkv alone": {**NO_BIAS, "qkv_bias": True, "activation": "swish"},
    "bias of out alone": {**NO_BIAS, "out_bias": True, "scale_attention": False},
    "bias of ff alone": {**NO_BIAS, "ff_bias": True, "logits_bias": True},
    "one key-value head": {"kv_heads": 1, "head_dim": 5, "scale_embedding": False},
    "tied": {"embeddings": "tied", "source_vocab_size": 7, "positions": "learned"},
    "separate": {"embeddings": "separate", "source_vocab_size": 17, "logits_bias": True},
    "inputs": {"embeddings": "inputs", "positions": "learned"},
    "4-1": {"encoder_layers": 4, "positions": "relative", "d_model": 8, "norm_position": "post"},
    "1-3": {"decoder_layers": 3, "positions": "rotary", "qk_norm": True, "kv_heads": 2},
    "marian": MARIAN,
    "t5": T5,
    "llama": LLAMA,
    "linear": {**LLAMA, "rope_scaling": "linear", "rope_factor": 4.0},
    "llama3": {
        **LLAMA,
        "rope_scaling": "llama3",
        "rope_factor": 8.0,
        "rope_original_positions": 16,
    },
    "yarn": {
        **LLAMA,
        "rope_scaling": "yarn",
        "rope_factor": 4.0,
        "rope_original_positions": 16,
        "rope_low_factor": 0.5,
        "rope_truncate": False,
        "rope_magnitude": 1.2,
    },
    "qwen3": {
        **LLAMA,
        "qk_norm": True,
        "embeddings": "shared",
        "head_dim": 6,
        "decoder_layers": 2,
        "windows": (2, None),
    },
}


CANVAS = {"causal": False, "bidirectional": True, "mask": 4}
CANVASES = {
    "canvas": CANVAS,
    "canvas of a causal model": {**CANVAS, "causal": True, "positions": "relative"},
    "canvas, both directions": {**CANVAS, "positions": "relative", "length_classes": 7},
    "upsampled": {**CANVAS, "upsample": 2, "length_classes": 1},
    "upsampled by 3": {**CANVAS, **MARIAN, "upsample": 3, "positions": "learned"},
    "upsampled t5": {**CANVAS, **T5, "upsample": 2, "length_classes": 40},
    "not upsampled": {**CANVAS, "upsample": 1, "positions": "rotary"},
}
"""Of these, `fill` is compared; the mask token is in the sources too, where it is one like any."""


@jax.jit
def forced(model, source, target, begin_key=None, extend_key=None):
    """Logits that predict each token of the target."""
    context, pending = model.begin(source, 0, dropout=begin_key)
    inputs = jnp.concatenate([pending[:, None], target[:, :-1]], axis=1)
    return model.logits(model.extend(inputs, context, dropout=extend_key)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_teacher_forced_logits_are_those_of_the_papers(name, kind):
    model = build(**{**SETTINGS[name], **KINDS[kind]})
    got = forced(model, Source.of(SOURCES), Source.of(TARGETS).tokens)
    assert got.dtype == jnp.float32
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        want = Reference(model).forced(source, target)
        np.testing.assert_allclose(got[row, : len(target)], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CANVASES)
def test_a_canvas_is_predicted_as_the_papers_do(name):
    model, rng = build(**CANVASES[name]), np.random.default_rng(0)
    upsample = model.config.upsample
    count = [len(source) * upsample for source in SOURCES] if upsample else [5, 1, 7]
    canvas = rng.choice([4, 4, 5, 8, 10], (3, max(count)))
    valid = np.arange(max(count)) < np.array(count)[:, None]
    assert (canvas[valid] == 4).any()

    @jax.jit
    def logits(model, source, canvas):
        return model.logits(model.fill(canvas, model.begin(source, 0)[0], valid))

    got = logits(model, Source.of(SOURCES), canvas)
    for row, (source, n) in enumerate(zip(SOURCES, count, strict=True)):
        want = Reference(model).fill(source, canvas[row, :n])
        np.testing.assert_allclose(got[row, :n], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n, c in CANVASES.items() if c.get("length_classes")])
def test_lengths_are_those_of_the_classes_around_the_source(name):
    model = build(**CANVASES[name])
    lengths = jax.jit(lambda m, s: jnp.exp(m.lengths(m.begin(s, 0)[0])))
    got = lengths(model, Source.of(SOURCES))
    assert got.shape == (3, SMALL["max_positions"] + 1)
    for row, source in enumerate(SOURCES):
        want = np.zeros(got.shape[1])
        for length, share in Reference(model).lengths(source).items():
            want[length] = share
        np.testing.assert_allclose(got[row], want, rtol=1e-4, atol=1e-6)


def test_the_settings_above_name_every_choice_of_the_config():
    default = TransformerConfig(**SMALL)
    for field in dataclasses.fields(TransformerConfig):
        settings = (SETTINGS | CANVASES).values()
        used = {s.get(field.name, getattr(default, field.name)) for s in settings}
        if typing.get_origin(field.type) is typing.Literal and field.name != "dtype":
            assert used == set(typing.get_args(field.type)), field.name
        elif field.type is bool:
            assert used == {True, False}, field.name


# --------------------------------------------------------------------------- numbers and training
@pytest.mark.parametrize("settings", [{}, MARIAN, T5, LLAMA], ids=["pre", "marian", "t5", "llama"])
def test_bfloat16_is_near_and_its_parameters_and_logits_are_float32(settings):
    model = build(**settings, dtype="bfloat16")
    chex.assert_trees_all_equal_dtypes(model, jax.tree.map(np.float32, model))
    source, target = Source.of(SOURCES), Source.of(TARGETS).tokens

    @jax.jit
    def step(model, source):
        context, pending = model.begin(source, 2)
        hidden, fresh = model.extend(pending[:, None], context)
        return hidden, context.commit(fresh, jnp.ones_like(pending))

    hidden, context = step(model, source)
    assert {x.dtype for x in jax.tree.leaves((hidden, context.keys, context.values))} == {
        jnp.dtype("bfloat16")
    }
    logits = forced(model, source, target)
    assert logits.dtype == jnp.float32
    # Sums are kept as they are: rounded to 8 bits, the two best logits would often be equal.
    assert (logits != logits.astype(jnp.bfloat16)).mean() > 0.5
    for row, (one, other) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        want = Reference(model).forced(one, other)
        error = np.sqrt(np.mean((logits[row, : len(other)] - want) ** 2))
        assert error < 0.05 * np.std(want)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_differences_of_the_oracle(kind):
    """Of every parameter array, one entry, against central differences in float64."""
    settings = {**T5, "kv_heads": 2, "qk_norm": True, "logits_bias": True, "ff_bias": True}
    model = build(**{**settings, "head_dim": None, **KINDS[kind]})
    rng = np.random.default_rng(2)
    weight = [rng.normal(size=(len(target), 11)) for target in TARGETS]
    padded = np.zeros((3, 4, 11))
    for row, w in enumerate(weight):
        padded[row, : len(w)] = w

    @jax.jit
    @jax.grad
    def gradient(model, source, target):
        context, pending = model.begin(source, 0)
        inputs = jnp.concatenate([pending[:, None], target[:, :-1]], axis=1)
        return (model.logits(model.extend(inputs, context)[0]) * padded).sum()

    def loss(leaves):
        reference = Reference(jax.tree.unflatten(structure, leaves))
        forced = map(reference.forced, SOURCES, TARGETS)
        return sum((logits * w).sum() for logits, w in zip(forced, weight, strict=True))

    gradients = jax.tree.leaves(gradient(model, Source.of(SOURCES), Source.of(TARGETS).tokens))
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda x: np.asarray(x, np.float64), model))
    step = 1e-5
    for i, got in enumerate(gradients):
        entry = np.unravel_index(np.argmax(np.abs(got)), got.shape)
        ends = []
        for sign in (1, -1):
            moved = leaves[i].copy()
            moved[entry] += sign * step
            ends.append(loss([*leaves[:i], moved, *leaves[i + 1 :]]))
        want = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(got[entry], want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_only_with_a_key_and_the_same_with_the_same(kind):
    source, target = Source.of(SOURCES), Source.of(TARGETS).tokens
    model, plain = (build(dropout=rate, **KINDS[kind]) for rate in (0.3, 0.0))
    chex.assert_trees_all_equal(forced(model, source, target), forced(plain, source, target))
    clean = forced(model, source, target)
    # One key is noise of the encoder, or of the prompt, the other of what is extended.
    one, two = jax.random.split(jax.random.key(1))
    for keys, others in (
        ((one, None), (two, None)),
        ((None, one), (None, two)),
        ((one, two), (two, one)),
    ):
        noisy = forced(model, source, target, *keys)
        chex.assert_trees_all_equal(noisy, forced(model, source, target, *keys))
        for different in (clean, forced(model, source, target, *others)):
            assert not np.allclose(noisy[0], different[0])


def test_dropout_of_a_canvas():
    canvas, valid = jnp.full((3, 10), 4), jnp.ones((3, 10), bool)
    model, plain = (build(dropout=rate, **CANVASES["upsampled"]) for rate in (0.3, 0.0))

    @jax.jit
    def filled(model, key=None):
        return model.fill(canvas, model.begin(Source.of(SOURCES), 0)[0], valid, dropout=key)

    one, two = jax.random.split(jax.random.key(1))
    chex.assert_trees_all_equal(filled(model), filled(plain))
    chex.assert_trees_all_equal(filled(model, one), filled(model, one))
    for other in (filled(model), filled(model, two)):
        assert not np.allclose(filled(model, one)[0], other[0])


# ------------------------------------------------------------------------------------- a pytree
def test_a_model_is_a_pytree_of_float32_parameters_with_named_axes():
    for settings in (SETTINGS | CANVASES).values():
        create = functools.partial(Transformer, TransformerConfig(**{**SMALL, **settings}))
        shape = jax.eval_shape(create, key=jax.random.key(0))
        variables = jax.tree.leaves(shape, is_leaf=lambda x: isinstance(x, nnx.Variable))
        for variable in variables:
            assert isinstance(variable, nnx.Param)
            assert variable.dtype == jnp.float32
            axes = variable.get_metadata()["axes"]
            assert len(axes) == variable.ndim
            assert set(axes) <= {None, "heads", "ff", "vocab"}


@pytest.mark.parametrize(
    ("settings", "tables"),
    [
        ({"embeddings": "shared"}, [11]),
        ({"embeddings": "tied", "source_vocab_size": 7}, [7, 11]),
        ({"embeddings": "tied"}, [11, 11]),
        ({"embeddings": "inputs"}, [11, 11]),
        ({"embeddings": "separate", "source_vocab_size": 7}, [7, 11, 11]),
        ({"embeddings": "separate", "encoder_layers": 0}, [11, 11]),
        ({"embeddings": "tied", "encoder_layers": 0}, [11]),
        ({"positions": "learned"}, [11, 24]),
    ],
)
def test_a_tied_table_is_stored_once(settings, tables):
    model = build(**settings)
    width = SMALL["d_model"]
    of_model = [model.embedding, model.source_embedding, model.output, model.learned]
    rows = sorted(len(e.table[...]) for e in of_model if e is not None)
    assert rows == tables
    count = sum(x.size for x in jax.tree.leaves(model))
    bare = jax.tree.leaves((model.encoder, model.decoder, model.logits_bias))
    assert count == sum(tables) * width + sum(x.size for x in bare)


def test_ends_and_banned_tokens():
    """The plain model's logits, but what is banned is impossible; several ends are known."""
    settings = {"eos": 3, "also_eos": (7, 5), "banned": (4, 7)}
    plain, ruled = build(), build(**settings)
    target = jnp.asarray([[5, 9, 4], [10, 7, 3], [3, 3, 3]])
    expected = np.array(forced(plain, Source.of(SOURCES), target))
    expected[..., [4, 7]] = NEG
    np.testing.assert_allclose(forced(ruled, Source.of(SOURCES), target), expected, rtol=1e-6)
    assert build(banned=[4]).config == build(banned=(4,)).config
    assert ruled.spec.ends == (3, 7, 5)
    np.testing.assert_array_equal(ruled.spec.closed(target), [[3, 9, 4], [10, 3, 3], [3, 3, 3]])


def test_two_models_of_one_shape_are_one_program():
    traced = chex.assert_max_traces(lambda m, s, t: m.extend(t, m.begin(s, 2)[0])[0], n=1)
    run = jax.jit(traced)
    for seed in (0, 1):
        run(build(seed), Source.of(SOURCES), jnp.asarray([[2]] * 3))
    doubled = jax.tree.map(lambda x: 2 * x, build())
    run(doubled, Source.of(SOURCES), jnp.asarray([[2]] * 3))


def test_a_window_costs_nothing_where_there_is_none():
    def program(**settings):
        model = build(encoder_layers=0, **settings)
        context = jax.eval_shape(lambda m: m.begin(Source.of(SOURCES), 4)[0], model)
        tokens = np.ones((3, 2), int)
        return str(jax.make_jaxpr(lambda m, c: m.extend(tokens, c)[0])(model, context))

    assert program() == program(windows=(None,)) != program(windows=(2,))


def test_what_a_model_offers():
    assert isinstance(build(), Model)
    for layers in (1, 0):
        spec = build(encoder_layers=layers, mask=4, eos=5, pad=6).spec
        assert (spec.vocab_size, spec.encoder) == (11, layers > 0)
        assert (spec.max_source, spec.max_target) == (24, 24)
        assert (spec.mask, spec.eos, spec.pad) == (4, 5, 6)
        assert spec.causal
        assert not spec.bidirectional
    spec = build(**CANVASES["upsampled"], blank=5).spec
    assert (spec.causal, spec.bidirectional, spec.upsample) == (False, True, 2)
    assert (spec.length_head, spec.mask, spec.blank, spec.exits) == (True, 4, 5, 0)
    assert (spec.max_source, spec.max_target) == (12, 24)

"""What all tests share: quick and remembered compilation, steady examples, and tiny models."""

import contextlib
import functools
import os
import pathlib
import resource
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nar
from nar import Source, Transformer
from nar.data.batching import Batch
from nar.objectives import CTC, CrossEntropy, Masked, Objective
from nar.testing import random_model
from nar.testing.oracles import log_softmax

# Compilation is most of what tests do. Processes that tests start inherit these settings.
CACHE = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
for name, value in {
    "jax_disable_most_optimizations": True,
    "jax_compilation_cache_dir": str(CACHE),
    "jax_persistent_cache_min_compile_time_secs": 0.1,
}.items():
    os.environ.setdefault(name.upper(), str(value))
    jax.config.update(name, value)

if jax.__version_info__[:2] == (0, 10):
    # Programs compile in under half of the time. XLA stops at flags that it does not know.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}"

hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, max_examples=12)
hypothesis.settings.load_profile("steady")

LONGEST = (
    "test_contract_devices.py", "test_killed.py", "test_contract.py", "test_distill.py",
    "test_sharding.py", "test_colabs.py", "test_run.py",
)  # fmt: skip
"""Files that take a minute or more: they begin first, so that no core waits for one at the end."""


def pytest_collection_modifyitems(items):
    """Files keep together: each is one core's."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


SYMBOLS = np.arange(5, 13)
"""What the toy task's sources are made of."""


def toy_source(seed: int, encoder: bool) -> Source:
    """Eight rows of one to five symbols; a prompt ends with BOS."""
    random = np.random.default_rng(seed)
    rows = [random.choice(SYMBOLS, n).tolist() for n in random.integers(1, 6, 8)]
    return Source.of([row if encoder else [*row, 2] for row in rows], width=6)


def backwards(key: jax.Array, *, encoder: bool) -> Batch:
    """Some of the toy task's pairs: a target is its source, backwards."""
    first, second = jax.random.split(key)
    length = jax.random.randint(first, (64,), 1, 6)
    symbols = jax.random.randint(second, (64, 6), 5, 13)
    place = jnp.arange(6)
    back = jnp.take_along_axis(symbols, jnp.maximum(length[:, None] - 1 - place, 0), axis=1)
    target = jnp.where(place < length[:, None], back, 3)
    if encoder:
        return Batch(Source(symbols, length), target, length + 1)
    prompt = jnp.where(place == length[:, None], 2, symbols)
    return Batch(Source(prompt, length + 1), target, length + 1)


def fit(objective: Objective, steps: int = 300, **shape: Any) -> Transformer:
    """Learns to write its source backwards; the shape is `random_model`'s, so programs are too."""
    config = random_model(**shape).config
    model = Transformer(config, key=jax.random.key(1))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def loss(model, key):
        batch = backwards(key, encoder=config.encoder_layers > 0)
        total, sums = objective(model, batch, key)
        return total / sums["tokens"]

    @jax.jit
    def train(model, key):
        def step(carry, key):
            model, state = carry
            value, gradient = jax.value_and_grad(loss)(model, key)
            change, state = optimizer.update(gradient, state, model)
            return (optax.apply_updates(model, change), state), value

        keys = jax.random.split(key, steps)
        return jax.lax.scan(step, (model, optimizer.init(model)), keys)

    (model, _), losses = train(model, jax.random.key(2))
    assert losses[-20:].mean() < 0.3, losses[-20:]
    return model


@functools.cache
def trained_model(encoder: bool) -> Transformer:
    """One that predicts the next token."""
    return fit(CrossEntropy(label_smoothing=0.0), encoder=encoder)


@functools.cache
def trained_canvas_model(upsample: bool) -> Transformer:
    """One that predicts a canvas: by CTC, or masked places of one whose length it predicts too."""
    if upsample:
        return fit(CTC(), causal=False, bidirectional=True, upsample=2, blank=13, vocab_size=14)
    objective = Masked(label_smoothing=0.0)
    return fit(objective, 600, causal=False, bidirectional=True, length_classes=16)


@pytest.fixture(scope="session")
def trained():
    """`trained(encoder)` is a model that writes its source backwards."""
    return trained_model


@pytest.fixture(scope="session")
def trained_canvas():
    """`trained_canvas(upsample)` is a model that does so on a canvas."""
    return trained_canvas_model


@pytest.fixture(scope="session")
def toy():
    """`toy(seed, encoder)` is a batch of that task."""
    return toy_source


@pytest.fixture(scope="session")
def imported(tmp_path_factory):
    """`imported(name)` is a tiny model in Hugging Face's layout, as it is loaded."""
    from tests.pretrained import tiny

    @functools.cache
    def load(name):
        directory = tmp_path_factory.mktemp(name)
        tiny.write(directory, name)
        return nar.load(directory).model

    return load


@pytest.fixture(
    params=[True, pytest.param(False, marks=pytest.mark.rest)],
    ids=["encoder-decoder", "decoder-only"],
    scope="session",
)
def encoder(request):
    """Whether the model has an encoder; without one, `make test` has what `LOOPS` are held to."""
    return request.param


def nucleus(temperature=1.0, top_k=None, top_p=None):
    """Temperature, then top-k, then top-p, one distribution at a time, by sorting."""

    def warp(logits):
        flat = logits.reshape(-1, logits.shape[-1]) / temperature
        out = np.full_like(flat, -np.inf)
        for row, scores in enumerate(flat):
            order = np.argsort(-scores, kind="stable")[:top_k]
            kept = log_softmax(scores[order])
            most = np.searchsorted(np.cumsum(np.exp(kept)), top_p) + 1 if top_p else None
            out[row, order[:most]] = log_softmax(kept[:most])
        return out.reshape(logits.shape)

    return warp


@pytest.fixture(scope="session")
def warp():
    """`warp(temperature, top_k, top_p)` is a NumPy function from logits to log-probabilities."""
    return nucleus


@pytest.fixture
def small_files():
    """`with small_files(n):` no file can grow beyond n bytes, as if the disk were full."""

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


MAPS = pathlib.Path("/proc/self/maps")
MANY = 20_000
"""Memory maps, of the 65,530 that a process may have by default: compiled programs hold them."""


def pytest_runtest_teardown():
    """Thousands of compiled programs in one process run out of memory maps, and crash it."""
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY:
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def _programs_go_with_their_module():
    yield
    jax.clear_caches()

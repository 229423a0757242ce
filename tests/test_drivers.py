"""decode, trace and stream: bad input, one program, and what each of them returns."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nar
from nar import Bundle, Greedy, IncompatibleModel, Jacobi, NarError, Needs, Source, drivers
from nar.testing import random_model
from tests.cases import CASES, each, equipped

DECODER = Jacobi(max_length=12)


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def source():
    return Source.of([[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10]])


def run(driver, *args, **options):
    """To the end, whichever driver it is."""
    out = driver(*args, **options)
    return list(out) if driver is nar.stream else out


@pytest.fixture(params=[nar.decode, nar.trace, nar.stream], ids=lambda driver: driver.__name__)
def driver(request, monkeypatch):
    """A driver that may not trace anything: errors of the user come first."""

    def never(*_):
        raise AssertionError("traced before the error")

    monkeypatch.setattr(Jacobi, "init", never)
    return request.param


class Headless(Jacobi):
    """Needs what no model here has."""

    @property
    def needs(self):
        return {"target": Needs(causal=True, draft_heads=3, mask=True)}


def test_bad_input_comes_before_tracing(driver, model, source):
    full = source.replace(limit=jnp.full(4, 13))
    wide = Source.of([[5] * 65])
    for decoder, given, error, message in [
        (
            Headless(max_length=12),
            source,
            IncompatibleModel,
            r"Headless.*3 draft heads.*which offers Spec\(",
        ),
        (Jacobi(max_length=65), source, NarError, "max_length=65: the model has 64 positions"),
        (DECODER, wide, NarError, "65 positions: the model reads at most 64"),
        (DECODER, full, NarError, r"source.limit\[0\] is 13: it must be in 1..12"),
        (DECODER, jax.tree.map(lambda x: x[:0], source), NarError, "at least one row"),
        (
            Jacobi(max_length=12, oracle_length=True),
            source,
            NarError,
            "needs the lengths in source.limit",
        ),
    ]:
        with pytest.raises(error, match=message):
            run(driver, decoder, model, given)


def test_bad_keys_come_before_tracing(driver, model, source):
    for key, message in [
        (jax.random.split(jax.random.key(0), 3), r"shape \(3,\): .* each of the 4 rows"),
        (jax.random.PRNGKey(0), r"key is uint32\[2\]: it must come from jax.random.key"),
    ]:
        with pytest.raises(NarError, match=message):
            run(driver, DECODER, model, source, key=key)


def test_a_missing_role_comes_before_tracing(driver, model, source):
    class Assisted(Jacobi):
        @property
        def needs(self):
            return {"target": Needs(causal=True), "draft": Needs(causal=True)}

    with pytest.raises(IncompatibleModel, match="'draft' model too"):
        run(driver, Assisted(max_length=12), model, source)
    with pytest.raises(IncompatibleModel, match="there are other, target$"):
        run(driver, Assisted(max_length=12), Bundle.of(target=model, other=model), source)


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_steps_of_a_trace(model, source, steps):
    with pytest.raises(NarError, match=f"steps={steps}: it must be a whole number of at least 1"):
        nar.trace(DECODER, model, source, steps=steps)


def test_decode_is_one_program_without_round_trips(model, source):
    nar.decode(DECODER, model, source)
    program = drivers._decode.trace(DECODER, model, source, jax.random.key(0)).jaxpr
    assert [equation.primitive.name for equation in program.eqns].count("while") == 1
    assert "callback" not in str(program)
    placed = jax.device_put((model, source, jax.random.key(0)))
    with jax.transfer_guard("disallow"):
        drivers._decode(DECODER, *placed)


def test_a_trace_holds_every_step(model, source):
    output, steps = nar.trace(DECODER, model, source)
    seen = [
        jax.device_get((s.tokens, s.length, s.done, s.stats))
        for s in nar.stream(DECODER, model, source)
    ]
    assert len(seen) == output.stats.calls["target"] < DECODER.max_steps == len(steps.length)
    for i, state in enumerate(seen):
        kept = jax.tree.map(
            lambda x, i=i: x[i], (steps.tokens, steps.length, steps.done, steps.stats)
        )
        jax.tree.map(np.testing.assert_array_equal, kept, state)
    np.testing.assert_array_equal(steps.tokens[-1], output.tokens)
    short, two = nar.trace(DECODER, model, source, steps=2)
    assert two.length.shape == (2, 4)
    np.testing.assert_array_equal(short.tokens, steps.tokens[1])


def test_a_view_shows_what_was_guessed_and_accepted(model, source):
    output, steps = nar.trace(DECODER, model, source)
    tokens, view = np.asarray(output.tokens), steps.view
    before = np.concatenate([np.zeros((1, 4), int), steps.length[:-1]])
    for step, row, node in np.ndindex(view.tokens.shape):
        place = int(view.position[step, row, node])
        assert place == (-1 if node == 0 else before[step, row] + node - 1)
        inside = node and before[step, row] <= place < steps.length[step, row]
        assert bool(view.accepted[step, row, node]) <= bool(inside)
        if view.accepted[step, row, node]:
            assert tokens[row, place] == view.tokens[step, row, node]
    grown = np.diff(steps.length, axis=0, prepend=0)
    # Accepted are the leading guesses that were written, the last token where a cut ended a draft.
    for step, row in np.ndindex(grown.shape):
        start, count = before[step, row], grown[step, row]
        written, guessed = tokens[row, start : start + count], view.tokens[step, row, 1:]
        right = written[: len(guessed)] == guessed[:count]
        assert view.accepted[step, row].sum() == np.cumprod(right).sum()
    # The model's choices after node i fill place before + i; the first is what was written there.
    live = grown > 0
    first = tokens[np.arange(4), np.minimum(before, 11)]
    np.testing.assert_array_equal(view.choices[:, :, 0, 0][live], first[live])
    assert (np.diff(view.logprobs, axis=-1) <= 0).all()


def test_one_key_or_one_a_row(model, source):
    decoder = nar.Sample(max_length=12)
    key = jax.random.key(3)
    one = nar.decode(decoder, model, source, key=key)
    rows = nar.decode(decoder, model, source, key=nar.core.row_keys(key, 4))
    np.testing.assert_array_equal(one.tokens, rows.tokens)


def test_greedy_by_any_driver_on_one_row(model):
    source = Source.of([[6]])
    output = nar.decode(Greedy(max_length=1), model, source)
    assert output.tokens.shape == (1, 1)
    assert output.length.tolist() == [1]
    *_, state = nar.stream(Greedy(max_length=1), model, source)
    np.testing.assert_array_equal(state.tokens, output.tokens)


@pytest.mark.parametrize(
    "name",
    each(
        [
            "greedy",
            "beam",
            "sample",
            "gauss-seidel-jacobi",
            "lookahead",
            "speculative",
            "corpus-lookup",
        ]
    ),
)
def test_the_last_rows_of_many_go_on_alone(name, monkeypatch):
    """Most rows end early, a few do not; none of it shows, not in the counts either."""
    decoder = dataclasses.replace(CASES[name], max_length=40)
    source = Source.of([[5 + i % 7, 6, 7 + i % 5] for i in range(64)])
    source = source.replace(limit=jnp.asarray([40 if i % 9 == 4 else 2 + i % 5 for i in range(64)]))
    model = equipped(decoder, random_model(max_positions=96))
    sizes = []
    step = type(decoder).step

    def spy(self, model, state):
        sizes.append(state.done.shape[0])
        return step(self, model, state)

    monkeypatch.setattr(type(decoder), "step", spy)
    jax.clear_caches()
    short = nar.decode(decoder, model, source)
    assert set(sizes) == {64, 16}
    monkeypatch.undo()
    whole, _ = nar.trace(decoder, model, source)
    chex.assert_trees_all_equal(
        *jax.tree.map(np.asarray, ((short.tokens, short.length, short.stats),
                                   (whole.tokens, whole.length, whole.stats)))
    )  # fmt: skip
    if short.nbest is not None:
        np.testing.assert_array_equal(short.nbest.tokens, whole.nbest.tokens)


def test_a_compiled_decode_is_that_of_decode(model, source):
    pair = Bundle.of(target=model, draft=random_model(seed=1))
    key = jax.random.key(0)
    for decoder, given in ((DECODER, model), (nar.SpeculativeDecoding(max_length=12), pair)):
        program = nar.compile_decode(decoder, given, source, key=key)
        shorter = source.replace(length=jnp.ones_like(source.length))
        for batch in (source, shorter):
            chex.assert_trees_all_equal(program(batch, key), nar.decode(decoder, given, batch))
    with pytest.raises(TypeError, match="compiled"):
        program(Source.of([[5, 6]]), key)

"""Contexts: what drafts, trees, canvases and beams see, and what commits keep."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nar import Source, Transformer
from nar.drafters import Layout
from nar.model import Context, Fresh, Memory
from tests.model.reference import KINDS, LLAMA, SMALL, SOURCES, T5, TARGETS, Reference, build

# ----------------------------------------------------------------------- the container, by lists
ROWS, HEADS, SLOTS, TIME, DIM = 3, 2, 5, 3, 2


def numbered(start, time):
    """Two layers of keys and values that can be told apart: `[layer, kv, row, head, time, dim]`."""
    shape = (2, 2, ROWS, HEADS, time, DIM)
    return start + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def holding(numbers):
    """Numbers as keys and as values, each a tuple of layers."""
    return tuple(tuple(jnp.asarray(numbers[i, kv]) for i in range(2)) for kv in range(2))


def empty_context():
    """Two layers, in parts of one, two and two slots."""
    parts = tuple(jnp.zeros((ROWS, HEADS, size, DIM)) for size in (1, 2, 2))
    return Context((parts,) * 2, (parts,) * 2, jnp.zeros(ROWS, jnp.int32))


def slots_of(layers):
    """Of each layer all slots as one array."""
    return [np.concatenate(parts, axis=2) for parts in layers]


def check(context, rows):
    """Committed slots are those of the lists, `rows[row][slot] = [layer, kv, head, dim]`."""
    assert context.length.tolist() == [len(row) for row in rows]
    for kv, layers in enumerate((context.keys, context.values)):
        for i, layer in enumerate(slots_of(layers)):
            chex.assert_shape(layer, (ROWS, HEADS, SLOTS, DIM))
            for row, want in enumerate(rows):
                got = np.swapaxes(np.asarray(layer[row]), 0, 1)[: len(want)]
                np.testing.assert_array_equal(got, [w[i, kv] for w in want][:SLOTS] or got)


commit = jax.jit(Context.commit)
counts = st.lists(st.integers(0, TIME), min_size=ROWS, max_size=ROWS)
places = st.lists(st.integers(0, TIME - 1), min_size=ROWS * TIME, max_size=ROWS * TIME)
parents = st.lists(st.integers(0, ROWS - 1), min_size=ROWS, max_size=ROWS)
steps = st.one_of(
    st.tuples(st.just("commit"), counts),
    st.tuples(st.just("gather"), st.tuples(counts, places)),
    st.tuples(st.just("rewind"), counts),
    st.tuples(st.just("select"), parents),
)


@given(st.lists(steps, max_size=8))
def test_a_context_keeps_what_lists_of_rows_would_keep(steps):
    context, rows = empty_context(), [[] for _ in range(ROWS)]
    for turn, (name, choice) in enumerate(steps):
        if name in ("commit", "gather"):
            count, place = (choice, None) if name == "commit" else choice
            fresh = numbered(1000 * (turn + 1), TIME)
            index = np.tile(np.arange(TIME), (ROWS, 1))
            if place is not None:
                index = np.reshape(place, (ROWS, TIME))
            # What does not fit is never asked for: decoders cut their counts before.
            count = [min(n, SLOTS - len(row)) for n, row in zip(count, rows, strict=True)]
            context = commit(
                context,
                Fresh(*holding(fresh), jnp.zeros(ROWS, jnp.int32)),
                jnp.asarray(count),
                None if place is None else jnp.asarray(index),
            )
            for row, n in enumerate(count):
                rows[row] += [fresh[:, :, row, :, i] for i in index[row, :n]]
        elif name == "rewind":
            rows = [row[: max(len(row) - n, 0)] for row, n in zip(rows, choice, strict=True)]
            context = context.rewind(jnp.asarray([len(row) for row in rows]))
        else:
            rows = [list(rows[parent]) for parent in choice]
            context = context.select(jnp.asarray(choice))
        check(context, rows)


def test_what_does_not_fit_is_dropped_and_other_rows_are_left_alone():
    context, fresh = empty_context(), numbered(100, TIME)
    context = context.replace(length=jnp.asarray([4, 5, 1]))
    after = context.commit(
        Fresh(*holding(fresh), jnp.zeros(ROWS, jnp.int32)), jnp.asarray([3, 2, 0])
    )
    want = np.zeros((2, 2, ROWS, HEADS, SLOTS, DIM))
    want[:, :, 0, :, 4] = fresh[:, :, 0, :, 0]
    found = np.stack([slots_of(after.keys), slots_of(after.values)], 1)
    np.testing.assert_array_equal(found, want)


def test_gathered_places_without_a_token_are_not_read():
    context = commit(
        empty_context(),
        Fresh(*holding(numbered(7, TIME)), jnp.zeros(ROWS, jnp.int32)),
        jnp.asarray([2, 1, 0]),
        jnp.asarray([[0, 2, -1], [0, -1, -1], [-1, -1, -1]]),
    )
    fresh = numbered(7, TIME)
    check(context, [[fresh[:, :, 0, :, 0], fresh[:, :, 0, :, 2]], [fresh[:, :, 1, :, 0]], []])


def test_repeat_and_select_take_the_source_along_or_leave_it():
    memory = Memory((jnp.arange(3.0),), (jnp.arange(3.0),), jnp.asarray([True, False, True]))
    context = empty_context().replace(length=jnp.asarray([1, 2, 3]), memory=memory)
    twice = context.repeat(2)
    assert twice.length.tolist() == [1, 1, 2, 2, 3, 3]
    assert twice.memory.mask.tolist() == [True, True, False, False, True, True]
    chex.assert_shape(twice.keys[1], (6, None, None, None))
    assert context.select(jnp.asarray([2, 2, 0])).memory is memory


def test_a_context_without_slots_only_counts():
    context = empty_context().without_slots()
    assert context.keys == context.values == ((), ())
    fresh = Fresh(*holding(numbered(1, TIME)), jnp.zeros(ROWS, jnp.int32))
    assert context.commit(fresh, jnp.asarray([1, 0, 3])).length.tolist() == [1, 0, 3]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other compilers count otherwise")
@pytest.mark.parametrize(
    ("rows", "calls"), [(2, 1), (2, 2), (8, 1), pytest.param(8, 2, marks=pytest.mark.rest)]
)
def test_a_loop_updates_its_context_in_place(rows, calls):
    """Its temporary memory grows with the context's size and no more: there is no second one.

    With several calls in a step, as draft models make them, this needs `Fresh.after`.
    """
    model = build(decoder_layers=2, positions="none", head_dim=16)

    def loop(model, source, slots):
        def step(carry):
            context, tokens = carry
            for _ in range(calls):
                hidden, fresh = model.extend(tokens, context)
                context = context.commit(fresh, jnp.ones_like(context.length))
                tokens = model.logits(hidden).argmax(-1)
            return context, tokens

        context, pending = model.begin(source, slots)
        going = lambda carry: (carry[0].length < slots).all()  # noqa: E731
        context, tokens = jax.lax.while_loop(going, step, (context, pending[:, None]))
        return tokens

    source, sizes = Source.of([[5, 6, 7], [6, 7, 8]] * (rows // 2)), (1024, 4096)
    temporary = []
    for slots in sizes:
        compiled = jax.jit(loop, static_argnums=2).lower(model, source, slots).compile()
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
    c = model.config
    context = 2 * c.decoder_layers * rows * c.groups * c.dim * 4 * (sizes[1] - sizes[0])
    assert (temporary[1] - temporary[0]) / context < 1.1


# ----------------------------------------------------------------------- what an extension sees
begin = jax.jit(Transformer.begin, static_argnums=2)


@jax.jit
def score(model, tokens, context, positions=None, mask=None):
    hidden, fresh = model.extend(tokens, context, positions, mask)
    return model.logits(hidden), fresh


WINDOWS = {**LLAMA, "windows": (3, None)}

TREE = Layout.tree([-1, 0, 0, 1, 1, 2])
"""The pending token, two guesses after it, and three after those."""


@pytest.mark.parametrize(
    ("settings", "encoder"),
    [({"positions": "learned"}, True), (T5, True), (WINDOWS, False), (T5, False)],
    ids=["learned", "t5", "llama with windows", "t5 without encoder"],
)
def test_a_walk_through_drafts_trees_commits_and_rewinds(settings, encoder):
    """Every node of every draft scores as the sentence that leads to it would."""
    model = build(**settings, **({} if encoder else {"encoder_layers": 0}), decoder_layers=2)
    reference, rng = Reference(model), np.random.default_rng(1)
    sources = [SOURCES[0], SOURCES[0], SOURCES[1], SOURCES[1]]
    source = Source.of([SOURCES[0], SOURCES[1]])
    context, pending = begin(model, source, 18)
    context, pending = context.repeat(2), np.repeat(pending, 2)
    told = [reference.first(s) for s in sources]  # what each row was fed, the pending token last
    assert [row[-1] for row in told] == pending.tolist()

    def check(logits, row, node, tokens):
        want = reference.logits(sources[row], told[row] + tokens)[-1]
        np.testing.assert_allclose(logits[row, node], want, rtol=1e-4, atol=1e-4)

    for turn in range(6):
        nodes = 6 if turn % 2 else 3
        draft = rng.integers(3, 11, (4, nodes))
        draft[rng.random((4, nodes)) < 0.2] = -1
        draft[:, 0] = [row[-1] for row in told]
        if turn % 2:
            positions = context.length[:, None] + TREE.offsets
            logits, fresh = score(model, draft, context, positions, TREE.mask)
            paths = [path[path >= 0] for path in TREE.paths]
        else:
            logits, fresh = score(model, draft, context)
            paths = [np.arange(nodes)]
        chosen, count = [], []
        for row in range(4):
            path = paths[rng.integers(len(paths))]
            good = next((n for n, node in enumerate(path) if draft[row, node] < 0), len(path))
            for n in range(good):
                check(logits, row, path[n], draft[row, path[1 : n + 1]].tolist())
            kept = int(rng.integers(good + 1)) if turn else good  # 0: the row is done, say
            told[row] += draft[row, path[1:kept]].tolist()
            told[row] += rng.integers(3, 11, min(kept, 1)).tolist()  # the model's own token
            chosen.append(np.resize(path, 3))
            count.append(kept)
        index = jnp.asarray(np.stack(chosen)) if turn % 2 else None
        context = context.commit(fresh, jnp.asarray(count), index)
        if turn == 2:  # forget a token in each row
            length = np.maximum(np.asarray(context.length) - 1, 0)
            context = context.rewind(jnp.asarray(length))
            told = [row[: n + 1] for row, n in zip(told, length, strict=True)]
        if turn == 3:  # two beams of the first source change places, the second's first one wins
            context = context.select(jnp.asarray([1, 0, 2, 2]))
            told = [list(told[row]) for row in (1, 0, 2, 2)]
        assert context.length.tolist() == [len(row) - 1 for row in told]


def test_no_token_is_any_token_and_nobody_else_notices():
    model = build()
    context, _ = begin(model, Source.of(SOURCES), 4)
    tokens = np.array([[2, 5, 6, 7]] * 3)
    mask = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]], bool)
    want, _ = score(model, tokens, context, None, mask)
    tokens[:, 1] = -1
    got, _ = score(model, tokens, context, None, mask)
    assert np.isfinite(got).all()
    chex.assert_trees_all_equal(got[:, [0, 2, 3]], want[:, [0, 2, 3]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_canvas_sees_the_source_and_itself_both_ways(kind):
    model = build(positions="relative", **KINDS[kind])
    context, _ = begin(model, Source.of(SOURCES), 4)
    canvas, valid = Source.of(TARGETS, pad=10).tokens, np.array([4, 3, 1])
    hidden = jax.jit(Transformer.fill)(model, canvas, context, np.arange(4) < valid[:, None])
    got = model.logits(hidden)
    for row, source in enumerate(SOURCES):
        prompt = [] if model.encoder else source[:-1]
        start = len(prompt)
        sees = [[j <= i or i >= start for j in range(9)] for i in range(9)]
        want = Reference(model).logits(source, prompt + TARGETS[row], sees)[start:]
        np.testing.assert_allclose(got[row, : valid[row]], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_padding_do_not_touch_each_other(kind):
    model = build(**KINDS[kind])
    run = jax.jit(lambda m, s, t: m.extend(t, m.begin(s, 2)[0])[0])
    source, tokens = Source.of(SOURCES), jnp.asarray([[2, 4], [2, 5], [2, 6]])
    past = np.arange(5) >= source.length[:, None]
    other = source.replace(tokens=jnp.where(past, 9, source.tokens))
    chex.assert_trees_all_equal(run(model, other, tokens), run(model, source, tokens))
    # A parameter that is not a number spoils the rows that read it, and no others.
    spoilt = jax.tree.map(lambda x: x, model)
    spoilt.embedding.table[...] = model.embedding.table[...].at[5].set(jnp.nan)
    hidden = run(spoilt, source, tokens)
    assert np.isnan(hidden).any((1, 2)).tolist() == [True, True, False]


def test_a_row_that_is_not_a_number_commits_to_its_own_slots():
    model = build()
    context, pending = begin(model, Source.of(SOURCES), 4)
    _, fresh = model.extend(pending[:, None], context)
    model.decoder.norm.scale[...] = jnp.full((16,), jnp.nan)
    hidden, spoilt = model.extend(pending[:, None], context)
    assert np.isnan(hidden).all()
    count = jnp.asarray([1, 0, 1])
    chex.assert_trees_all_equal(context.commit(spoilt, count), context.commit(fresh, count))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_positions_beyond_the_last_one_read_the_last_one(positions):
    model = build(positions=positions)
    context, pending = begin(model, Source.of(SOURCES), 2)
    at = lambda p: model.extend(pending[:, None], context, jnp.full((3, 1), p))[0]  # noqa: E731
    chex.assert_trees_all_equal(at(100), at(SMALL["max_positions"] - 1))
    assert not np.allclose(at(100), at(5))


def test_a_prompt_of_one_token_and_a_context_of_no_slots():
    model = build(encoder_layers=0)
    context, pending = begin(model, Source.of([[5], [7]]), 0)
    assert context.length.tolist() == [0, 0]
    assert pending.tolist() == [5, 7]
    logits, _ = score(model, pending[:, None], context)
    want = [Reference(model).logits(None, [token])[0] for token in (5, 7)]
    np.testing.assert_allclose(logits[:, 0], want, rtol=1e-4, atol=1e-4)

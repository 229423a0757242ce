"""The Jacobi family against the iterations as published (Santilli et al. 2023), simulated."""

import functools

import jax
import numpy as np
import pytest

import nar
from nar import GaussSeidelJacobi, HybridJacobi, Jacobi, NarError, Source
from nar.testing import oracles, random_model

LENGTH = 12


@pytest.fixture(scope="module")
def source():
    return Source.of([[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10], [9, 9, 8], [6, 5], [11], [8]])


@functools.cache
def model_of(encoder, seed=1):
    return random_model(encoder=encoder, seed=seed)


def published(update, y, length, block, guess, parallel=LENGTH):
    """Blocks of inputs one after the other; every iteration updates the whole block, at once.

    A block ends when an iteration leaves its inputs as they were, or after as many iterations as it
    has positions. From output `parallel + 1` on, blocks are one position long.

    Args:
        update: from an iterate `[time]` to the model's choice at every place.
        y: the first iterate.
        length: the oracle length.
        block: positions a block.
        guess: "previous" starts a block from the one before.
        parallel: the place from which on nothing is guessed.

    Returns:
        After every call, the iterate up to the end of its block.
    """
    iterates, start, y = [], 0, y.copy()
    while start < length:
        in_block = start + block <= parallel + 1
        end = min(start + block if in_block else max(parallel + 1, start + 1), length)
        if guess == "previous" and start:
            y[start:end] = y[start - block : start][: end - start]
        for _ in range(end - start):
            before = y[start : end - 1].copy()
            y[start:end] = update(y)[start:end]
            iterates.append(y[:end].copy())
            if (y[start : end - 1] == before).all():
                break
        start = end
    return iterates


def first_iterate(guess, source, row):
    y = np.zeros(LENGTH, np.int32)
    if guess == "source":
        n = int(source.length[row])
        y[:n] = source.tokens[row, :n]
    return y


DECODERS = [
    (Jacobi(max_length=LENGTH, oracle_length=True), LENGTH, LENGTH),
    (Jacobi(max_length=LENGTH, oracle_length=True, guess="source"), LENGTH, LENGTH),
    (GaussSeidelJacobi(max_length=LENGTH, oracle_length=True, block=4), 4, LENGTH),
    (
        GaussSeidelJacobi(max_length=LENGTH, oracle_length=True, block=3, guess="previous"),
        3,
        LENGTH,
    ),
    (HybridJacobi(max_length=LENGTH, block=3, parallel=7, guess="random"), 3, 7),
]


@pytest.mark.parametrize(("decoder", "block", "parallel"), DECODERS)
def test_iterates_and_calls_are_the_published_ones(decoder, block, parallel, encoder, source):
    """Every call's iterate, up to what is final, and the number of calls, row by row."""
    step = jax.jit(lambda model, state: decoder.step(model, state).replace(view=None))
    calls, published_calls = 0, 0
    for seed in (1, 2, 3):
        model = model_of(encoder, seed)
        greedy = oracles.greedy(model, source, LENGTH)
        limited = source.replace(limit=greedy.length.astype(np.int32))
        state = decoder.init(model, limited, key=nar.core.row_keys(jax.random.key(seed), 8))
        if decoder.guess == "random":
            first = np.asarray(state.carry.drafter.y)[:, :LENGTH]
        else:
            first = [first_iterate(decoder.guess, source, row) for row in range(8)]
        seen = [[] for _ in range(8)]
        while not state.done.all():
            live = ~np.asarray(state.done)
            state = step(model, state)
            for row in np.flatnonzero(live):
                seen[row].append(np.asarray(state.carry.drafter.y[row, :LENGTH]))
        np.testing.assert_array_equal(state.tokens, greedy.tokens)
        for row, length in enumerate(greedy.length):

            def update(y, row=row, model=model):
                tokens = np.zeros((8, LENGTH), np.int32)
                tokens[row] = y
                return np.asarray(oracles.teacher_forced(model, source, tokens))[row].argmax(-1)

            right = published(update, first[row], length, block, decoder.guess, parallel)
            assert len(seen[row]) == len(right)
            for ours, theirs in zip(seen[row], right, strict=True):
                np.testing.assert_array_equal(ours[: len(theirs)], theirs)
        calls += int(state.stats.live.sum())
        published_calls += int(greedy.length.sum())
    assert calls < published_calls


@pytest.mark.parametrize("guess", ["pad", "source", "random", "previous"])
@pytest.mark.parametrize(
    "decoder",
    [
        functools.partial(Jacobi, block=5),
        functools.partial(GaussSeidelJacobi, block=4),
        functools.partial(HybridJacobi, block=5, parallel=8),
    ],
    ids=["jacobi", "gauss-seidel", "hybrid"],
)
def test_any_guess_gives_greedys_output(decoder, guess, source):
    model = model_of(True)
    greedy = oracles.greedy(model, source, LENGTH)
    output = nar.decode(decoder(max_length=LENGTH, guess=guess), model, source)
    np.testing.assert_array_equal(output.tokens, greedy.tokens)
    assert (output.stats.live <= greedy.length).all()


@pytest.mark.rest
@pytest.mark.parametrize("kind", [Jacobi, GaussSeidelJacobi, HybridJacobi])
def test_smallest_sizes(kind):
    """Blocks of one are greedy, and outputs of one token are outputs."""
    model, source = model_of(True), Source.of([[5, 6], [7]])
    for length, block in [(1, 1), (2, 1), (2, 2)]:
        greedy = oracles.greedy(model, source, length)
        output = nar.decode(kind(max_length=length, block=block), model, source)
        np.testing.assert_array_equal(output.tokens, greedy.tokens)
        if block == 1:
            np.testing.assert_array_equal(output.stats.live, greedy.length)


@pytest.mark.parametrize("kind", [Jacobi, GaussSeidelJacobi, HybridJacobi])
def test_bad_options(kind):
    for options, message in [
        ({"block": 0}, "block=0: it must be a whole number of at least 1"),
        ({"block": -2}, "block=-2"),
        ({"block": 2.0}, "block=2.0"),
        ({"block": 9, "max_length": 8}, "block=9 is longer than max_length=8: .* 1..8"),
        ({"guess": "best"}, "guess='best': it must be one of pad, source, random, previous"),
        ({"oracle_length": "yes"}, "oracle_length='yes': it must be True or False"),
        ({"scores": 1}, "scores=1: it must be True or False"),
        ({"max_length": -1}, "max_length=-1"),
    ]:
        with pytest.raises(NarError, match=message):
            kind(**options)


def test_bad_parallel():
    with pytest.raises(NarError, match="parallel=-1: it must be a whole number of at least 0"):
        HybridJacobi(parallel=-1)

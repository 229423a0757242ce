"""Lookahead against a step-by-step simulation in plain Python, and its pool against a list."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nar
from nar.core import Source
from nar.decoders import make
from nar.drafters.lookahead import Lookahead, Pool
from nar.errors import NarError
from nar.testing import random_model
from nar.testing.oracles import teacher_forced

LENGTH = 14
SOURCES = [[5, 6, 7, 5, 6, 8], [9], [10, 11, 10, 11, 10]]


def newest(pool, new, size):
    """A list of n-grams, newest first, without older copies."""
    return list(dict.fromkeys([*new, *pool]))[:size]


class Simulation:
    """One row: what the paper's algorithm does, one node at a time, without any mask."""

    def __init__(self, model, source, options):
        self.options, self.eos = options, model.spec.eos
        self.source = source if model.spec.encoder else source[:-1]
        given = Source.of([source], width=8)
        room = LENGTH + options["window"] + options["ngram"]

        @jax.jit
        def choices(tokens):
            return teacher_forced(model, given, tokens[None])[0].argmax(-1)

        def best(written):
            """The model's choice after these tokens of the output."""
            tokens = np.zeros(room, np.int32)
            tokens[: len(written)] = written
            return int(choices(tokens)[len(written)])

        self.best = best
        self.first = 2 if model.spec.encoder else source[-1]
        self.read = source
        n, w = options["ngram"], options["window"]
        flat = [source[i % len(source)] for i in range((n - 1) * w)]
        self.window = [flat[row * w : (row + 1) * w] for row in range(n - 1)]
        self.pool, self.output, self.steps = [], [], 0
        if options["seed"]:
            grams = [tuple(source[i : i + n]) for i in range(len(source) - n + 1)]
            self.pool = newest([], reversed(grams), options["pool"])

    def step(self):
        n, w = self.options["ngram"], self.options["window"]
        pending = self.output[-1] if self.output else self.first
        self.window[0][0] = pending
        # A node sees row 0 up to its column, and then its own column: a plain sequence.
        after = [
            self.best(
                self.output[: len(self.output)]
                + self.window[0][1 : column + 1]
                + [self.window[row][column] for row in range(1, n - 1)]
            )
            for column in range(w)
        ]
        candidates = [gram[1:] for gram in self.pool if gram[0] == pending]
        written = []
        for candidate in candidates[: self.options["candidates"]]:
            matched = []
            for token in candidate:
                if self.best(self.output + matched) != token:
                    break
                matched.append(token)
            matched.append(self.best(self.output + matched))
            written = max(written, matched, key=len)
        written = written or [self.best(self.output)]
        if self.eos in written:
            written = written[: written.index(self.eos) + 1]
        written = written[: LENGTH - len(self.output)]
        columns = list(zip(*self.window, after, strict=True))
        self.pool = newest(self.pool, columns, self.options["pool"])
        self.output += written
        if self.options["written"]:
            text = self.read + self.output
            ends = range(len(text), len(text) - min(len(written), n), -1)
            grams = [tuple(text[end - n : end]) for end in ends if end >= n]
            self.pool = newest(self.pool, grams, self.options["pool"])
        rows = [*self.window[1:], after]
        passed = len(written) - 1
        self.window = [[row[(passed + i) % w] for i in range(w)] for row in rows]
        self.steps += 1

    @property
    def done(self):
        return self.eos in self.output or len(self.output) == LENGTH


@pytest.mark.parametrize("encoder", [True, False], ids=["encoder-decoder", "decoder-only"])
@pytest.mark.parametrize(
    "options",
    [
        {"window": 3, "ngram": 3, "candidates": 2, "pool": 20, "seed": True, "written": True},
        {"window": 2, "ngram": 4, "candidates": 3, "pool": 5, "seed": False, "written": True},
        {"window": 4, "ngram": 2, "candidates": 1, "pool": 30, "seed": True, "written": False},
    ],
)
def test_tokens_steps_and_pool_are_those_of_the_simulation(encoder, options):
    described = ",".join(f"{name}={value}" for name, value in options.items())
    decoder = make(f"lookahead:{described}", max_length=LENGTH)
    model = random_model(encoder=encoder, seed=5)
    prompts = SOURCES if encoder else [[*source, 2] for source in SOURCES]
    rows = [Simulation(model, prompt, options) for prompt in prompts]
    states = nar.stream(decoder, model, Source.of(prompts, width=8))
    for state in states:
        for i, row in enumerate(rows):
            if not row.done:
                row.step()
                pool = np.asarray(state.carry.drafter.pool.grams[i])
                assert [tuple(gram) for gram in pool[pool[:, 0] >= 0].tolist()] == row.pool
            assert np.asarray(state.tokens)[i, : int(state.length[i])].tolist() == row.output
            assert int(state.stats.live[i]) == row.steps
    assert all(row.done for row in rows)
    assert any(len(row.output) > row.steps for row in rows)


grams = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4)


@given(st.lists(grams, min_size=1, max_size=5))
def test_the_pool_is_a_list_of_the_newest_distinct(rounds):
    pool, expected = Pool(jnp.full((1, 3, 2), -1)), []
    for new in rounds:
        padded = np.array([*new, *[(9, 9)] * (4 - len(new))])
        pool = pool.add(jnp.asarray(padded)[None], jnp.asarray([[i < len(new) for i in range(4)]]))
        expected = newest(expected, new, 3)
        found = np.asarray(pool.grams[0])
        assert [tuple(gram) for gram in found[found[:, 0] >= 0].tolist()] == expected
    for token in range(3):
        rest = np.asarray(pool.after(jnp.array([token]), 2))[0, :, 0]
        assert [t for t in rest if t >= 0] == [b for a, b in expected if a == token][:2]


def test_the_layout_by_hand():
    """W=2, N=3, G=1: nodes are (row, column) = (0,0) (0,1) (1,0) (1,1), and two candidates."""
    layout = Lookahead(window=2, ngram=3, candidates=1, pool=4).layout
    np.testing.assert_array_equal(layout.offsets, [0, 1, 1, 2, 1, 2])
    np.testing.assert_array_equal(
        layout.mask.astype(int),
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 0, 1, 0, 0, 0],
            [1, 1, 0, 1, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [1, 0, 0, 0, 1, 1],
        ],
    )
    np.testing.assert_array_equal(layout.paths, [[0, 4, 5]])


@pytest.mark.parametrize(
    "bad", ["window=0", "ngram=1", "candidates=0", "pool=0", "temperature=-1", "top_k=3"]
)
def test_bad_options_are_named(bad):
    with pytest.raises(NarError, match=bad.split("=")[0]):
        make(f"lookahead:{bad}")


def test_the_pool_holds_the_candidates_of_a_call():
    with pytest.raises(NarError, match="pool=3: it must hold at least candidates=7"):
        make("lookahead:pool=3,candidates=7")

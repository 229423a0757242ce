import collections
import json
import tempfile
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nar.data import encoded as encoded_files
from nar.data.batching import Plan, evaluation_batches, training_batches, widths
from nar.data.encoded import encode_corpus
from nar.data.tokenizer import EOS, PAD
from nar.errors import NarError


class Numbers:
    """A tokenizer of texts that are numbers already."""

    vocab_size = 60_000
    fingerprint = "numbers"

    def encode(self, texts):
        return [[*map(int, text.split()), EOS] for text in texts]


class Sized:
    """A corpus with given lengths (EOS included); a pair's first source token says which it is."""

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, i):
        source, target = self.lengths[i]
        return " ".join([str(7 + i)] + ["9"] * (source - 2)), " ".join(["8"] * (target - 1))


def encoded(lengths, folder=None):
    with tempfile.TemporaryDirectory() as anywhere:
        return encode_corpus(Sized(lengths), Numbers(), folder or anywhere)


def some_lengths(count, longest=40, seed=0):
    return np.random.default_rng(seed).integers(2, longest, (count, 2)).tolist()


def members(batch):
    """The numbers of the pairs in a batch."""
    return [int(i) - 7 for i in batch.source.tokens[batch.target_length > 0, 0]]


def equal(a, b):
    return all(
        x.dtype == y.dtype and np.array_equal(x, y)
        for x, y in (
            (a.source.tokens, b.source.tokens),
            (a.source.length, b.source.length),
            (a.target, b.target),
            (a.target_length, b.target_length),
        )
    )


# ------------------------------------------------------------------------------------------ plan
@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(2, 40), st.integers(1, 40)), min_size=1, max_size=150),
    tokens_per_batch=st.integers(600, 1500),
    seed=st.integers(0, 2**40),
    max_length=st.integers(2, 50),
    overlong=st.sampled_from(["drop", "cut"]),
    multiple_of=st.sampled_from([1, 2, 3]),
    width_multiple=st.sampled_from([1, 4, 8]),
    hosts=st.sampled_from([1, 2]),
)
def test_an_epoch(
    lengths, tokens_per_batch, seed, max_length, overlong, multiple_of, width_multiple, hosts
):
    corpus = encoded(lengths)
    expected = [i for i, pair in enumerate(lengths) if overlong == "cut" or max(pair) <= max_length]
    long = sum(max(pair) > max_length for pair in lengths)

    def plan(host):
        return Plan(
            corpus,
            tokens_per_batch,
            seed=seed,
            max_length=max_length,
            overlong=overlong,
            multiple_of=multiple_of,
            width_multiple=width_multiple,
            process_index=host,
            process_count=hosts,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not expected:
            with pytest.raises(NarError, match=f"all {len(lengths)} pairs are longer"):
                plan(0)
            return
        plans = [plan(host) for host in range(hosts)]
    assert plans[0].too_long == long
    seen, filled = [], 0
    for parts in zip(*(plan.epoch(3) for plan in plans), strict=True):
        rows = sum(len(part.target) for part in parts)
        _, source_time = parts[0].source.tokens.shape
        _, target_time = parts[0].target.shape
        assert len({part.target.shape for part in parts}) == 1
        assert (rows, source_time, target_time) in plans[0].shapes
        assert rows * (source_time + target_time) <= tokens_per_batch
        assert rows % multiple_of == 0
        for time in (source_time, target_time):
            assert time % width_multiple == 0 or time == max_length
        filled += any(0 in part.target_length for part in parts)
        for part in parts:
            _check_rows(part, lengths, max_length)
            seen += members(part)
    assert sorted(seen) == expected
    assert filled <= 1
    assert len(set(plans[0].shapes)) == len(plans[0].shapes)


def _check_rows(batch, lengths, max_length):
    for i, tokens, length, target, target_length in zip(
        batch.source.tokens[:, 0] - 7,
        batch.source.tokens,
        batch.source.length,
        batch.target,
        batch.target_length,
        strict=True,
    ):
        if target_length == 0:
            assert length == 1
            assert not tokens.any()
            assert not target.any()
            continue
        assert length == min(lengths[i][0], max_length)
        assert target_length == min(lengths[i][1], max_length)
        assert tokens[:length].tolist() == [i + 7] + [9] * (length - 2) + [EOS]
        assert target[:target_length].tolist() == [8] * (target_length - 1) + [EOS]
        assert set(tokens[length:]) | set(target[target_length:]) <= {PAD}


def test_epochs_differ_and_seeds_matter():
    corpus = encoded(some_lengths(500))

    def order(seed, epoch):
        return [i for batch in Plan(corpus, 1000, seed=seed).epoch(epoch) for i in members(batch)]

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert orders[0] == order(0, 0)
    assert len(set(map(tuple, orders))) == 6
    assert all(sorted(one) == list(range(500)) for one in orders)


def test_the_shuffle_is_even():
    """Over many epochs every pair is equally often in the first batch, and with every other."""
    plan = Plan(encoded([(2, 2)] * 40), 10 * 16)
    epochs = 1000
    first = collections.Counter(i for e in range(epochs) for i in members(plan.batch(4 * e)))
    expected = epochs * 10 / 40
    chi_square = sum((first[i] - expected) ** 2 / expected for i in range(40))
    assert chi_square < 39 + 5 * np.sqrt(2 * 39)
    together = sum({0, 1} <= set(members(batch)) for e in range(epochs) for batch in plan.epoch(e))
    assert abs(together / epochs - 9 / 39) < 5 * np.sqrt(9 / 39 * 30 / 39 / epochs)


def test_shapes_by_hand():
    # 10 pairs of at most 8: 100 // 16 = 6 rows, one batch; the other 4 move on. With the 3 of 12
    # they make 7 in rows of 100 // (8 + 16) = 4: one batch and 3 rows of a last one.
    plan = Plan(encoded([(8, 5)] * 10 + [(8, 12)] * 3), 100)
    assert plan.shapes == ((6, 8, 8), (4, 8, 16))
    assert len(plan) == 3
    assert sorted(len(members(batch)) for batch in plan.epoch()) == [3, 4, 6]


def test_long_pairs_are_counted():
    corpus = encoded([(5, 5), (5, 30), (40, 5)])
    with pytest.warns(UserWarning, match="2 of 3 pairs are longer than max_length=10 .*dropped"):
        assert Plan(corpus, max_length=10).too_long == 2
    with pytest.warns(UserWarning, match="2 of 3 pairs are longer than max_length=10 .*cut"):
        plan = Plan(corpus, max_length=10, overlong="cut")
    (batch,) = plan.epoch()
    assert sorted(batch.target_length[batch.target_length > 0]) == [5, 5, 10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens_per_batch": 40}, "tokens_per_batch=40.*1 rows of 24 . 24 positions needs 48"),
        ({"tokens_per_batch": 100, "multiple_of": 8}, "8 rows of 24 . 24 positions needs 384"),
        ({"tokens_per_batch": 0}, "tokens_per_batch=0"),
        ({"seed": -1}, "seed=-1"),
        ({"max_length": 1}, "max_length=1"),
        ({"overlong": "keep"}, 'overlong=\'keep\'.*"drop" or "cut"'),
        ({"multiple_of": 0}, "multiple_of=0"),
        ({"width_multiple": 0}, "width_multiple=0"),
        ({"process_index": 2, "process_count": 2}, r"process_index=2.*0\.\.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(NarError, match=message):
        Plan(encoded([(20, 20)] * 5), **options)


def test_widths_by_hand():
    assert widths(64) == [8, 16, 24, 32, 40, 48, 56, 64]
    assert widths(200) == [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 96, 112, 128, 152, 176, 200]
    assert widths(10, 4) == [4, 8, 10]
    assert widths(3) == [3]


# --------------------------------------------------------------------------------------- streams
@settings(deadline=None, max_examples=10)
@given(before=st.integers(0, 40), seed=st.integers(0, 9))
def test_resuming_continues_bit_identically(before, seed):
    corpus = encoded(some_lengths(300))
    options = {"tokens_per_batch": 1000, "seed": seed}
    epoch = len(Plan(corpus, **options))
    whole = training_batches(corpus, **options)
    expected = [next(whole) for _ in range(2 * epoch + 5)]

    stopped = training_batches(corpus, **options)
    seen = [next(stopped) for _ in range(before)]
    state = json.loads(json.dumps(stopped.get_state()))
    resumed = training_batches(corpus, **options)
    resumed.set_state(state)
    seen += [next(resumed) for _ in range(2 * epoch + 5 - before)]
    assert all(map(equal, seen, expected))
    for start in (0, epoch):  # nothing twice and nothing lost, wherever it stopped
        once = [i for batch in seen[start : start + epoch] for i in members(batch)]
        assert sorted(once) == list(range(300))


def test_hosts_share_every_batch():
    corpus = encoded(some_lengths(100))
    alone = training_batches(corpus, 1000, multiple_of=4)
    shared = [
        training_batches(corpus, 1000, multiple_of=4, process_index=i, process_count=4)
        for i in range(4)
    ]
    for _ in range(20):
        batch, parts = next(alone), [next(host) for host in shared]
        for i, part in enumerate(parts):
            assert np.array_equal(part.target, batch.target[i::4])
            assert np.array_equal(part.source.tokens, batch.source.tokens[i::4])


@pytest.mark.rest
def test_memory_does_not_grow_with_the_corpus(monkeypatch, tmp_path):
    monkeypatch.setattr(encoded_files, "_BLOCK", 4096)

    class Endless(Sized):
        """Lengths by formula, so that the corpus itself takes no memory."""

        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

        def __getitem__(self, i):
            return "7 7 7 7 7"[: 2 * (i % 5) + 1], "8 8 8 8 8"[: 2 * (i % 4) + 1]

    def peak(count):
        tracemalloc.start()
        corpus = encode_corpus(Endless(count), Numbers(), tmp_path)
        stream = training_batches(corpus, 2000)
        for _ in range(30):
            next(stream)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(100)  # imports
    small, large = peak(8_000), peak(80_000)
    assert large < 1.2 * small


# ------------------------------------------------------------------------------------ evaluation
@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    max_length=st.sampled_from([None, 60, 61, 64]),
)
def test_evaluation_batches_restore_the_order(lengths, batch_size, max_length):
    sources = [[7 + i] * length for i, length in enumerate(lengths)]
    restored = [None] * len(sources)
    shapes = set()
    for indices, source in evaluation_batches(sources, batch_size, max_length=max_length):
        shapes.add(source.tokens.shape)
        assert len(source.tokens) == batch_size
        assert not np.asarray(source.tokens)[len(indices) :].any()
        assert (np.asarray(source.length)[len(indices) :] == 1).all()
        for i, row, length in zip(indices, np.asarray(source.tokens), source.length, strict=False):
            assert restored[i] is None
            assert not row[length:].any()
            restored[i] = row[:length].tolist()
    assert restored == sources
    grid = {*range(8, 57, 8), max_length or 64}
    assert {width for _, width in shapes} <= grid


def test_narrow_batches_are_padded_where_a_shape_of_their_own_costs_more():
    sources = [[7] * n for n in (17, 17, 9, 9, 9, 9, 1, 1)]
    widths_of = lambda **options: [  # noqa: E731
        source.tokens.shape[1] for _, source in evaluation_batches(sources, 2, **options)
    ]
    assert widths_of() == [24, 16, 16, 8]
    assert widths_of(padding=1000) == [24] * 4
    assert widths_of(padding=17) == [24, 24, 16, 16]  # adds 16 positions, then 16 again
    assert widths_of(width_multiple=32) == [32] * 4
    assert widths_of(width_multiple=5) == [20, 10, 10, 5]


def test_evaluation_errors():
    with pytest.raises(NarError, match="batch_size=0"):
        evaluation_batches([[7]], 0)
    with pytest.raises(NarError, match="no sources"):
        evaluation_batches([], 4)
    with pytest.raises(NarError, match="source 1 is empty"):
        evaluation_batches([[7], []], 4)
    with pytest.raises(NarError, match="source 1 has 3 tokens: longer than max_length=2"):
        evaluation_batches([[7], [7, 7, 7]], 4, max_length=2)

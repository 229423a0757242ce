import dataclasses
import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar import Source
from nar.data.batching import Batch
from nar.errors import IncompatibleModel, NarError
from nar.objectives import CrossEntropy, Masked
from nar.objectives.masked import length_sums, noise, of_pairs
from nar.testing import random_model
from nar.testing.oracles import chi_square
from nar.training import TrainConfig, train

VOCAB, EOS, MASK, CLASSES = 9, 3, 4, 9
EVERY = [Masked(masking="uniform"), Masked(masking="bound"), Masked(masking="all")]
EVERY = [*EVERY, Masked(masking="all", glance=(0.9, 0.3))]
ids = [f"{o.masking}{o.glance or ''}" for o in EVERY]


def model_of(**config):
    shape = {"causal": False, "bidirectional": True, "length_classes": CLASSES, "max_positions": 16}
    return random_model(vocab_size=VOCAB, d_model=16, d_ff=16, decoder_layers=1, **shape | config)


MODEL = model_of()


def batch_of(target_length, source_length, seed=0, time=6):
    random = np.random.default_rng(seed)
    length, rows = np.array(target_length, np.int32), len(target_length)
    tokens = random.integers(5, VOCAB, (rows, time))
    tokens = np.where(np.arange(time) == length[:, None] - 1, EOS, tokens)
    tokens = np.where(np.arange(time) < length[:, None], tokens, 0).astype(np.int32)
    source = random.integers(5, VOCAB, (rows, 5)).astype(np.int32)
    return Batch(Source(source, np.array(source_length, np.int32)), tokens, length)


BATCH = batch_of([6, 1, 4, 0, 2, 5], [5, 2, 3, 1, 4, 5])
"""Row 1 is an empty output, row 3 a filler."""


@dataclasses.dataclass
class Recorder:
    """A model that notes how it is called; outside of jit."""

    inner: object = MODEL
    begun: int = 0
    canvases: list = dataclasses.field(default_factory=list)

    @property
    def spec(self):
        return self.inner.spec

    def begin(self, *args, **options):
        self.begun += 1
        return self.inner.begin(*args, **options)

    def fill(self, canvas, context, valid, **options):
        self.canvases.append(np.asarray(canvas))
        return self.inner.fill(canvas, context, valid, **options)

    def logits(self, hidden):
        return self.inner.logits(hidden)

    def lengths(self, context):
        return self.inner.lengths(context)


jax.tree_util.register_pytree_node(Recorder, lambda r: ((), r), lambda r, _: r)


@jax.jit
def logprobs_of(model, source, canvas, length):
    """Of a canvas, from the model alone."""
    context, _ = model.begin(source, 0)
    valid = jnp.arange(canvas.shape[1]) < length[:, None]
    return jax.nn.log_softmax(model.logits(model.fill(canvas, context, valid)))


def reference(objective, batch, canvas):
    """The sums of a canvas, token by token, in float64."""
    sums = dict.fromkeys(("loss", "tokens", "nll", "correct"), 0.0)
    length = np.maximum(batch.target_length - 1, 0)
    logprobs = np.asarray(logprobs_of(MODEL, batch.source, canvas, length), np.float64)
    for row, n in enumerate(length):
        hidden = [i for i in range(n) if canvas[row, i] == MASK]
        for i in hidden:
            weight = n / len(hidden) if objective.masking == "bound" else 1
            p, label = logprobs[row, i], batch.target[row, i]
            e = objective.label_smoothing
            sums["loss"] += weight * -((1 - e) * p[label] + e * p.mean())
            sums["nll"] -= weight * p[label]
            sums["tokens"] += weight
            sums["correct"] += weight * (p.argmax() == label)
    context, _ = MODEL.begin(batch.source, 0)
    scores = np.asarray(MODEL.lengths(context), np.float64)
    for row in np.flatnonzero(batch.target_length):
        sums["loss"] -= objective.length_weight * scores[row, length[row]]
    return sums


@pytest.mark.parametrize("rows", [pytest.param(6, marks=pytest.mark.rest), 5])
@pytest.mark.parametrize("objective", EVERY, ids=ids)
def test_the_loss_is_the_cross_entropy_of_the_hidden_tokens(objective, rows):
    recorder, batch = Recorder(), rows_of(BATCH, slice(rows))
    objective = dataclasses.replace(objective, length_weight=0.5)
    loss, sums = objective(recorder, batch, jax.random.key(3), 0.25)
    assert recorder.begun == 1, "the encoder runs once"
    canvas, real = recorder.canvases[-1], np.arange(6) < batch.target_length[:, None] - 1
    np.testing.assert_array_equal(
        canvas[real & (canvas != MASK)], batch.target[real & (canvas != MASK)]
    )
    expected = reference(objective, batch, canvas)
    for name, x in {"loss": loss, **sums}.items():
        if name in expected:
            np.testing.assert_allclose(x, expected[name], rtol=1e-5, err_msg=name)
    if objective.masking == "bound":
        assert int(sums["tokens"]) == real.sum()
    if objective.masking == "all" and not objective.glance:
        assert (canvas[real] == MASK).all()


# ------------------------------------------------------------------------------------- the bound
def tables(model, source, target):
    """Negative log-likelihood of every place, by the set of places that are hidden."""
    n = len(target)
    sets = [frozenset(s) for k in range(n + 1) for s in itertools.combinations(range(n), k)]
    canvas = np.array([[MASK if i in s else target[i] for i in range(n)] for s in sets], np.int32)
    rows = jax.tree.map(lambda x: np.repeat(x, len(sets), axis=0), source)
    logprobs = logprobs_of(model, rows, canvas, np.full(len(sets), n))
    return {s: [-float(logprobs[j, i, target[i]]) for i in range(n)] for j, s in enumerate(sets)}


def orders(nll, n):
    """Negative log-likelihood of writing the target in each order."""
    return [
        sum(nll[frozenset(order[j:])][order[j]] for j in range(n))
        for order in itertools.permutations(range(n))
    ]


def one_row(n):
    batch = batch_of([n + 1], [4], seed=n, time=n + 1)
    return batch, batch.target[0, :n]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_bound_is_the_mean_over_all_orders(n):
    batch, target = one_row(n)
    nll = tables(MODEL, batch.source, target)
    bound = np.mean(orders(nll, n))

    # MDLM: each token hidden with probability t, weight 1 / t; exact for polynomials in t.
    nodes, weights = np.polynomial.legendre.leggauss(n + 1)
    mdlm = sum(
        w / 2 * t ** len(s) * (1 - t) ** (n - len(s)) / t * sum(nll[s][i] for i in s)
        for t, w in zip((nodes + 1) / 2, weights, strict=True)
        for s in nll
    )
    np.testing.assert_allclose(mdlm, bound, rtol=1e-6)

    # Ours: outcomes and their probabilities, which what is drawn must follow.
    losses = {s: n / len(s) * sum(nll[s][i] for i in s) for s in nll if s}
    chance = {s: 1 / (n * sum(len(other) == len(s) for other in losses)) for s in losses}
    np.testing.assert_allclose(sum(chance[s] * losses[s] for s in losses), bound, rtol=1e-6)
    objective = Masked(masking="bound", label_smoothing=0.0, length_weight=0.0)
    keys = jax.random.split(jax.random.key(n), 3000)
    drawn = jax.jit(jax.vmap(lambda key: objective(MODEL, batch, key)[0]))(keys)
    names, values = zip(*losses.items(), strict=True)
    distance = np.abs(np.asarray(drawn)[:, None] - np.array(values))
    assert distance.min(1).max() < 1e-3
    seen = Counter(tuple(names[j]) for j in distance.argmin(1))
    p_value, worst = chi_square(seen, {tuple(s): np.log(c) for s, c in chance.items()})
    assert n == 1 or p_value > 1e-4, worst


def test_the_bound_is_below_the_likelihood_of_the_mixture_of_orders():
    n = 2
    batch, _ = one_row(n)
    total, gaps = 0.0, []
    for target in itertools.product(range(VOCAB), repeat=n):
        found = np.array(orders(tables(MODEL, batch.source, target), n))
        total += np.exp(-found).mean()
        gaps.append(np.exp(-found).mean() - np.exp(-found.mean()))
    np.testing.assert_allclose(total, 1, rtol=1e-4)
    assert min(gaps) > -1e-9
    assert max(gaps) > 1e-4


# ------------------------------------------------------------------------------------- the noise
def test_numbers_and_places_are_uniform():
    length = np.array([6, 1, 4, 0, 3])
    real = np.arange(6) < length[:, None]
    label = np.ones((5, 6), np.int32)
    keys = jax.random.split(jax.random.key(0), 4000)
    share, rank = map(np.asarray, jax.jit(jax.vmap(noise, (0, None, None)))(keys, label, real))
    assert share.min() > 0
    assert share.max() <= 1
    spread = np.sort(share[:, ::2], axis=1)
    np.testing.assert_allclose(np.diff(spread, axis=1), 1 / 3, atol=1e-6)
    np.testing.assert_allclose(share[:, :4:2] + share[:, 1::2], 1, atol=1e-6)
    for row, n in enumerate(length):
        assert (np.sort(rank[:, row, :n], axis=1) == np.arange(n)).all()
        assert (rank[:, row, n:] >= n).all()
        if n < 2:
            continue
        number = np.ceil(share[:, row] * n).astype(int)
        for seen, outcomes in ((number, range(1, n + 1)), (rank[:, row, 0], range(n))):
            expected = {(k,): -np.log(n) for k in outcomes}
            p_value, worst = chi_square(Counter((int(k),) for k in seen), expected)
            assert p_value > 1e-4, (row, worst)
        together = np.corrcoef(number, rank[:, row, 0])[0, 1]
        assert abs(together) < 0.08


@pytest.mark.parametrize("time", [1, 2, 7, 64])
def test_the_places_of_two_rows_hold_all_that_they_hide(time):
    random = np.random.default_rng(time)
    draw = jax.jit(noise)
    for k in range(200):
        rows = 5 + k % 2
        length = random.choice([0, 1, time // 2, time - 1, time, time, time], rows)
        real, label = np.arange(time) < length[:, None], random.integers(5, VOCAB, (rows, time))
        share, rank = draw(jax.random.key(k), label, real)
        hidden = np.asarray(rank < np.ceil(share * length)[:, None])
        assert (hidden.sum(1) >= np.minimum(length, 1)).all()
        places, among = of_pairs(hidden, np.arange(rows * time).reshape(rows, time), hidden)
        assert places.shape == (3, min(time + 2, 2 * time))
        kept = np.sort(np.asarray(places)[np.asarray(among)])
        np.testing.assert_array_equal(kept, np.flatnonzero(hidden))


def test_the_bound_of_two_rows_holds_for_every_share():
    time, bits = 256, np.arange(2**24, dtype=np.uint32)
    share = bits.astype(np.float32) * np.float32(2**-24)  # all that a uniform draw can be
    for n in (1, 3, 255, time):
        one, other = np.ceil((1 - share) * np.float32(n)), np.ceil(np.maximum(share, 2**-24) * n)
        assert 1 <= one.min() <= other.max() <= n
        assert (one + other).max() <= n + 2


def test_validation_noise_is_uniform_over_targets():
    label = np.random.default_rng(0).integers(5, 5000, (4000, 5)).astype(np.int32)
    share, rank = noise(None, label, np.ones_like(label, bool))
    numbers = Counter((int(k),) for k in np.ceil(np.asarray(share) * 5))
    first = Counter((int(k),) for k in np.asarray(rank)[:, 0])
    for seen, outcomes in ((numbers, range(1, 6)), (first, range(5))):
        p_value, worst = chi_square(seen, {(k,): -np.log(5) for k in outcomes})
        assert p_value > 1e-4, worst


def rows_of(batch, rows, wider=0):
    """Some rows of a batch, on a wider canvas whose padding is full of tokens."""
    pad = lambda x: np.pad(x[rows], [(0, 0), (0, wider)][: x.ndim], constant_values=7)  # noqa: E731
    source = Source(pad(batch.source.tokens), pad(batch.source.length))
    return Batch(source, pad(batch.target), pad(batch.target_length))


@pytest.mark.parametrize("objective", EVERY, ids=ids)
def test_validation_depends_on_no_batch(objective):
    evaluate = jax.jit(lambda batch: objective(MODEL, batch, None))
    loss, sums = evaluate(BATCH)
    again = evaluate(rows_of(BATCH, [4, 0, 2, 3, 1, 5]))
    parts = [evaluate(rows_of(BATCH, rows, wider=3)) for rows in ([5, 1, 0], [4, 2, 3])]
    added = jax.tree.map(jnp.add, *parts)
    for other in (again, added):
        np.testing.assert_allclose(other[0], loss, rtol=1e-5)
        for name, x in sums.items():
            np.testing.assert_allclose(other[1][name], x, rtol=1e-5, err_msg=name)
    assert sums["tokens"] > 0


@pytest.mark.parametrize("objective", EVERY, ids=ids)
def test_filler_and_padding_change_nothing(objective):
    train = jax.jit(lambda batch: objective(MODEL, batch, jax.random.key(1), 0.5))
    other = rows_of(BATCH, slice(None), wider=2)
    other.source.tokens[3], other.target[3] = 8, 8  # the filler row
    (loss, sums), (wide_loss, wide_sums) = train(BATCH), train(other)
    np.testing.assert_allclose(wide_loss, loss, rtol=1e-5)
    for name, x in sums.items():
        np.testing.assert_allclose(wide_sums[name], x, rtol=1e-5, err_msg=name)


@pytest.mark.rest
@pytest.mark.parametrize("objective", EVERY, ids=ids)
def test_gradients_are_finite_and_nothing_is_learnt_from_nothing(objective):
    model = model_of(dropout=0.3)
    gradient_of = jax.jit(jax.value_and_grad(objective, has_aux=True))

    def size(lengths):
        batch = batch_of(lengths, [3, 2, 3])
        (loss, sums), gradient = gradient_of(model, batch, jax.random.key(0))
        leaves = jax.tree.leaves(gradient)
        assert np.isfinite(loss)
        assert all(np.isfinite(x).all() for x in leaves)
        return sums["tokens"], sum(float(jnp.abs(x).sum()) for x in leaves)

    assert size([0, 0, 0]) == (0, 0)
    tokens, moved = size([1, 0, 0])  # an empty output is a length to learn
    assert tokens == 0 < moved
    assert size([6, 1, 0])[0] > 0
    different = {float(objective(MODEL, BATCH, jax.random.key(k), 0.0)[0]) for k in range(3)}
    assert (len(different) == 1) == (objective == EVERY[2])  # one-shot training has no noise


# ------------------------------------------------------------------------------------------ GLAT
@pytest.mark.parametrize(("progress", "ratio"), [(0.0, 0.9), (0.5, 0.6), (1.0, 0.3)])
def test_glancing_shows_a_ratio_of_what_was_wrong(progress, ratio):
    recorder = Recorder()
    batch = batch_of([6, 5, 6, 2, 1, 0], [5, 5, 3, 2, 1, 1])
    length = np.maximum(batch.target_length - 1, 0)
    real = np.arange(6) < length[:, None]
    blind = np.where(real, MASK, 0)
    guess = np.asarray(logprobs_of(MODEL, batch.source, blind, length)).argmax(-1)
    batch.target[0, :2] = guess[0, :2]  # so that something is right
    objective = Masked(masking="all", glance=(0.9, 0.3))
    _, sums = objective(recorder, batch, jax.random.key(0), progress)
    first, second = recorder.canvases
    assert (first[real] == MASK).all()
    wrong = (real & (guess != batch.target)).sum(1)
    assert 0 < wrong[0] < length[0]
    shown = (real & (second != MASK)).sum(1)
    np.testing.assert_array_equal(shown, np.floor(np.float32(ratio) * wrong))
    assert sums["tokens"] == (length - shown).sum()


def test_validation_does_not_glance():
    recorder = Recorder()
    Masked(masking="all", glance=(0.9, 0.3))(recorder, BATCH, None)
    assert len(recorder.canvases) == 1


# --------------------------------------------------------------------------------------- lengths
def test_lengths_are_learnt_beside_the_tokens():
    batch = batch_of([6, 1, 4, 0, 2, 5], [5, 2, 3, 1, 4, 1])
    context, _ = MODEL.begin(batch.source, 0)
    scores = np.asarray(MODEL.lengths(context), np.float64)
    sums = length_sums(MODEL.lengths(context), batch.target_length - 1, batch.target_length > 0)
    rows = [0, 1, 2, 4, 5]
    expected = -sum(scores[row, batch.target_length[row] - 1] for row in rows)
    np.testing.assert_allclose(sums["length_nll"], expected, rtol=1e-5)
    right = sum(scores[row].argmax() == batch.target_length[row] - 1 for row in rows)
    assert (sums["rows"], sums["length_correct"]) == (5, right)
    assert sums["length_impossible"] == 0
    with_length, without = (
        Masked(length_weight=weight)(MODEL, batch, None)[0] for weight in (2.0, 0.0)
    )
    np.testing.assert_allclose(with_length - without, 2 * expected, rtol=1e-4)


def test_a_length_without_a_class_is_counted_and_costs_nothing():
    model = model_of(length_classes=3)  # as long as the source, or one token shorter or longer
    batch = batch_of([6, 5, 2], [1, 4, 5])
    gradient_of = jax.jit(jax.value_and_grad(Masked(), has_aux=True))
    (loss, sums), gradient = gradient_of(model, batch, None)
    assert (sums["length_impossible"], sums["rows"]) == (2, 3)
    assert 0 < sums["length_nll"] < 100
    assert loss < 1000
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_a_model_without_length_head():
    model = model_of(length_classes=0)
    loss, sums = Masked(length_weight=5.0, label_smoothing=0.0)(model, BATCH, None)
    assert sums.keys() == {"tokens", "nll", "correct"}
    np.testing.assert_allclose(loss, sums["nll"], rtol=1e-6)


# ---------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masking": "some"}, "masking='some': it must be one of uniform, bound, all"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: it must be in"),
        ({"length_weight": -1.0}, "length_weight=-1.0: it must be at least 0"),
        ({"length_weight": float("nan")}, "length_weight=nan"),
        ({"glance": (0.5, 0.3)}, "needs masking='all', not 'uniform'"),
        ({"masking": "all", "glance": (0.5, 1.1)}, "two ratios in"),
        ({"masking": "all", "glance": (0.5,)}, "two ratios in"),
        ({"masking": "all", "glance": 0.5}, "two ratios in"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(NarError, match=message):
        Masked(**options)


@pytest.mark.parametrize(
    ("objective", "config", "message"),
    [
        (Masked(), {"bidirectional": False, "length_classes": 0}, r"to predict a canvas \(fill\)"),
        (Masked(), {"upsample": 2}, "needs upsample=0 of the model, which offers Spec"),
        (CrossEntropy(), {}, r"CrossEntropy.* needs a causal model \(extend\)"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_anything_happens(
    tmp_path, objective, config, message
):
    with pytest.raises(IncompatibleModel, match=message):
        train(model_of(**config), objective, None, TrainConfig(steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()

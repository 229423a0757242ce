import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nar import Source, ctc
from nar.core import Spec
from nar.data.batching import Batch
from nar.errors import IncompatibleModel, NarError
from nar.objectives import CTC
from nar.objectives.ctc import drawn
from nar.testing import Scripted, random_model
from tests.alignments import alignments, collapsed, loss_and_gradient, scores

GOLDEN = pathlib.Path(__file__).parent / "golden" / "ctc.npz"
PAD, EOS, MASK, BLANK, VOCAB = 0, 3, 4, 5, 10
UPSAMPLE = 2


def model_of(**config):
    canvas = {"causal": False, "bidirectional": True, "upsample": UPSAMPLE, "blank": BLANK}
    small = {"vocab_size": VOCAB, "d_model": 16, "d_ff": 16, "decoder_layers": 1}
    return random_model(**{**small, **canvas, **config})


MODEL = model_of()


def batch_of(pairs, width=4, target_width=6):
    """Pairs of the length of a source and of a target's tokens; None: a filler row."""
    random = np.random.default_rng(0)
    sources = [random.integers(6, VOCAB, n) for n, _ in pairs]
    target = np.full((len(pairs), target_width), PAD, np.int32)
    length = np.zeros(len(pairs), np.int32)
    for row, (_, labels) in enumerate(pairs):
        if labels is not None:
            target[row, : len(labels) + 1] = [*labels, EOS]
            length[row] = len(labels) + 1
    return Batch(Source.of([s.tolist() for s in sources], width=width), target, length)


PAIRS = [
    (3, [6, 7, 7]),
    (2, []),
    (4, [8]),
    (1, None),
    (2, [7, 7, 7]),  # five symbols in four places
    (3, [9, 8, 9, 6, 7]),
    (1, [6, 9]),
]
BATCH, IMPOSSIBLE = batch_of(PAIRS), 4
TRAINED = [row for row, (_, labels) in enumerate(PAIRS) if labels is not None and row != IMPOSSIBLE]
TOKENS = sum(len(PAIRS[row][1]) for row in TRAINED)


@jax.jit
@jax.value_and_grad
def slope(model, batch):
    return CTC()(model, batch, None)[0]


def rows_of(batch, rows):
    return jax.tree.map(lambda x: x[np.array(rows)], batch)


def close(found, wanted, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 2e-4, "atol": 2e-4, **tolerance})


# ------------------------------------------------------------------------------------ plain CTC
@jax.jit
def logits_of(model, source):
    """Of a canvas that is all the row's and where nothing is known."""
    context, _ = model.begin(source, 0)
    canvas = jnp.full((1, UPSAMPLE * source.tokens.shape[1]), MASK)
    return model.logits(model.fill(canvas, context, canvas == MASK))


def test_losses_and_gradients_are_those_of_torch():
    with np.load(GOLDEN) as golden:
        logits, places, labels, count, blank, wanted, gradient = (
            golden[name]
            for name in ("logits", "places", "labels", "count", "blank", "loss", "gradient")
        )
    possible = np.isfinite(wanted)
    assert 3 <= (~possible).sum() < 8
    np.testing.assert_array_equal(ctc.places_needed(labels, count) <= places, possible)

    @jax.jit
    @jax.value_and_grad
    def loss(logits):
        valid = jnp.arange(logits.shape[1]) < places[:, None]
        nll = ctc.negative_log_likelihood(logits, valid, labels, count, int(blank))
        return jnp.where(possible, nll, 0).sum()

    found, slope = loss(logits)
    np.testing.assert_allclose(found, wanted[possible].sum(), rtol=1e-5)
    np.testing.assert_allclose(slope, gradient, atol=1e-4)
    assert np.abs(gradient).max() > 0.5


def test_the_loss_is_that_of_every_row_alone_on_its_canvas():
    """One row at a time, without any padding, all alignments enumerated."""
    total = correct = 0.0
    for row in TRAINED:
        source = Source.of([BATCH.source.tokens[row, : PAIRS[row][0]].tolist()])
        logits = np.asarray(logits_of(MODEL, source))[0]
        total += loss_and_gradient(logits, PAIRS[row][1], BLANK)[0]
        written = collapsed(logits.argmax(-1), BLANK)
        correct += sum(a == b for a, b in zip(written, PAIRS[row][1], strict=False))
    loss, sums = jax.jit(CTC())(MODEL, BATCH, None)
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    np.testing.assert_allclose(sums["nll"], total, rtol=1e-5)
    assert (sums["tokens"], sums["correct"], sums["impossible"]) == (TOKENS, correct, 1)


def test_an_impossible_row_is_counted_and_changes_nothing_else():
    filler = dataclasses.replace(BATCH, target_length=BATCH.target_length.copy())
    filler.target_length[IMPOSSIBLE] = 0
    close(slope(MODEL, BATCH), slope(MODEL, filler), rtol=1e-6, atol=1e-6)
    sums = [jax.jit(CTC())(MODEL, batch, None)[1] for batch in (BATCH, filler)]
    assert [int(s.pop("impossible")) for s in sums] == [1, 0]
    close(*sums)
    only = rows_of(BATCH, [IMPOSSIBLE, IMPOSSIBLE])
    loss, gradient = slope(MODEL, only)
    assert loss == 0
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(gradient))


def test_padding_order_and_neighbours_change_nothing():
    noisy = batch_of(PAIRS, width=7, target_width=9)
    past = np.arange(7) >= np.asarray(noisy.source.length)[:, None]
    after = np.arange(9) >= noisy.target_length[:, None]
    noisy = Batch(
        noisy.source.replace(tokens=np.where(past, 8, noisy.source.tokens)),
        np.where(after, 7, noisy.target),
        noisy.target_length,
    )
    close(slope(MODEL, rows_of(noisy, range(len(PAIRS))[::-1])), slope(MODEL, BATCH))


def test_sums_over_micro_batches_add_up():
    parts = [rows_of(BATCH, rows) for rows in (range(3), range(3, 7))]
    run = jax.jit(CTC())
    added = jax.tree.map(lambda *x: sum(x), *(run(MODEL, part, None) for part in parts))
    close(added, run(MODEL, BATCH, None), rtol=1e-5)
    close(jax.tree.map(lambda *x: sum(x), *(slope(MODEL, p) for p in parts)), slope(MODEL, BATCH))


def test_a_model_that_writes_an_alignment_is_right_without_loss():
    pairs = [(3, [6, 7, 7]), (2, [8]), (2, [9, 6])]
    script = [[6, 6, 7, BLANK, 7, BLANK], [BLANK, 8, 8, 8, 6, 6], [9, 7, BLANK, BLANK, 6, 6]]
    run = jax.jit(CTC())
    _, sums = run(Scripted(MODEL, jnp.asarray(script)), batch_of(pairs, width=3), None)
    assert (sums["tokens"], sums["correct"]) == (6, 5)  # 9 7 is written in place of 9 6
    script[2][1] = 6
    loss, sums = run(Scripted(MODEL, jnp.asarray(script)), batch_of(pairs, width=3), None)
    assert sums["correct"] == 6
    np.testing.assert_allclose(loss, 0, atol=1e-5)


def test_dropout_comes_from_the_key_alone():
    model, run = model_of(dropout=0.5), jax.jit(CTC())
    loss = lambda key: float(run(model, BATCH, key)[0])  # noqa: E731
    first, second = jax.random.split(jax.random.key(0))
    assert loss(first) == loss(first)
    assert len({loss(first), loss(second), loss(None)}) == 3


# ------------------------------------------------------------------------------------- glancing
@dataclasses.dataclass
class Recorder:
    """A model that notes every canvas; with scores it says these, whatever it sees."""

    inner: Any = MODEL
    scores: Any = None
    canvases: list = dataclasses.field(default_factory=list)
    spec = MODEL.spec

    def begin(self, *args, **options):
        return self.inner.begin(*args, **options)

    def fill(self, canvas, *args, **options):
        self.canvases.append(canvas)
        return self.inner.fill(canvas, *args, **options)

    def logits(self, hidden):
        return self.inner.logits(hidden) if self.scores is None else self.scores


jax.tree_util.register_pytree_node(
    Recorder,
    lambda r: ((r.inner, r.scores), r.canvases),
    lambda notes, parts: Recorder(*parts, notes),
)


@functools.partial(jax.jit, static_argnums=0)
def canvases(objective, scores, key, progress):
    """What a model that says the scores is given."""
    recorder = Recorder(scores=scores)
    objective(recorder, BATCH, key, progress)
    return recorder.canvases


def scores_of(seed):
    return 3 * np.random.default_rng(seed).normal(size=(len(PAIRS), 8, VOCAB)).astype(np.float32)


@pytest.mark.parametrize(("progress", "ratio"), [(0.0, 0.75), (0.5, 0.5), (1.0, 0.25)])
def test_glancing_shows_the_right_number_of_right_symbols(progress, ratio):
    numbers, kinds = set(), set()
    for seed in range(6):
        logits = scores_of(seed)
        first, second = canvases(CTC(glance=(0.75, 0.25)), logits, jax.random.key(seed), progress)
        assert (first == MASK).all()
        for row, (places, labels) in enumerate(PAIRS):
            shown = np.flatnonzero(second[row] != MASK)
            if row not in TRAINED:
                assert not len(shown)
                continue
            said = logits[row, : UPSAMPLE * places]
            paths = alignments(labels, len(said), BLANK)
            best = paths[scores(said, paths).argmax()]
            wrong = (said.argmax(-1) != best).sum()
            assert len(shown) == int(ratio * wrong)
            np.testing.assert_array_equal(second[row, shown], best[shown])
            numbers.add(len(shown))
            kinds |= set(second[row, shown].tolist())
    assert len(numbers) >= 3
    assert {BLANK, 6, 7} <= kinds


def test_every_place_of_a_row_is_as_likely_to_be_shown():
    valid = np.arange(6) < np.array([6, 4, 1, 5])[:, None]
    count = jnp.array([2, 3, 1, 0])
    draw = jax.jit(jax.vmap(drawn, (0, None, None)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 4000), valid, count))
    assert (found.sum(-1) == np.asarray(count)).all()
    share = np.where(valid, np.asarray(count)[:, None] / valid.sum(1, keepdims=True), 0)
    np.testing.assert_allclose(found.mean(0), share, atol=0.04)
    assert len({row.tobytes() for row in found[:, 0]}) == 15


def test_nothing_is_shown_without_a_key_or_at_ratio_zero():
    always, key = CTC(glance=(1.0, 1.0)), jax.random.key(0)
    (canvas,) = canvases(always, scores_of(0), None, 0.0)
    assert (canvas == MASK).all()
    (canvas,) = canvases(CTC(), scores_of(0), key, 0.0)
    assert (canvas == MASK).all()
    for progress, none in ((0.0, False), (1.0, True)):
        first, second = canvases(CTC(glance=(1.0, 0.0)), scores_of(0), key, progress)
        assert (first == MASK).all()
        assert (second == MASK).all() == none


def test_the_first_pass_has_no_gradient_and_the_second_the_loss_of_its_canvas():
    @jax.jit
    def glancing(model):
        recorder = Recorder(model)
        loss = CTC(glance=(0.8, 0.8))(recorder, BATCH, jax.random.key(1))[0]
        return loss, recorder.canvases[1]

    (loss, canvas), gradient = jax.value_and_grad(glancing, has_aux=True)(MODEL)
    rows = np.array(TRAINED)
    assert (np.asarray(canvas) != MASK).sum() > 8

    @jax.jit
    @jax.value_and_grad
    def wanted(model):
        source = jax.tree.map(lambda x: x[rows], BATCH.source)
        context, _ = model.begin(source, 0)
        valid = jnp.arange(8) < UPSAMPLE * source.length[:, None]
        logits = model.logits(model.fill(canvas[rows], context, valid))
        labels, count = BATCH.target[rows], BATCH.target_length[rows] - 1
        return ctc.negative_log_likelihood(logits, valid, labels, count, BLANK).sum()

    close((loss, gradient), wanted(MODEL), rtol=1e-3)


# --------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    "glance", [(0.5,), (0.5, 0.3, 0.1), (1.1, 0.3), (0.5, -0.1), 0.5, (True, 0.3), [0.5, 0.3]]
)
def test_a_bad_ratio_is_named(glance):
    with pytest.raises(NarError, match=r"glance=.*two ratios in \[0, 1\]"):
        CTC(glance=glance)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"blank": None}, "a blank token"),
        ({"upsample": 0}, "upsample > 0"),
        ({"upsample": 0, "bidirectional": False}, r"to predict a canvas \(fill\) and upsample > 0"),
    ],
)
def test_a_model_without_what_ctc_needs(config, message):
    spec = model_of(**config).spec
    assert isinstance(spec, Spec)
    with pytest.raises(IncompatibleModel, match=message):
        CTC().needs.check(spec, who=CTC(), of="the model")

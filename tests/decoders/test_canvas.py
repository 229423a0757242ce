"""The loop of canvases: candidates, lengths, limits, and what is counted."""

import dataclasses
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import nar
from nar import CTC, IncompatibleModel, MaskPredict, NarError, NoisyParallel, QuotaUnmasking, Source
from nar import ThresholdUnmasking as Threshold
from nar.model import Fitted
from nar.ops import NEG
from nar.testing import Scripted, oracles, random_model
from nar.testing.case import random_sources
from tests import canvases
from tests.cases import noisy_reference, random_canvas_model

PLAIN = random_canvas_model(MaskPredict())
LONG = Source.of([[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10]])


def rows(output):
    return [t[:n].tolist() for t, n in zip(output.tokens, output.length, strict=True)]


@pytest.mark.parametrize(
    "decoder",
    [
        MaskPredict(max_length=12, calls=10, lengths=5),
        MaskPredict(max_length=12, calls=1, lengths=1),
        MaskPredict(max_length=12, calls=3, lengths=4, longer=1),
        MaskPredict(max_length=12, calls=2, lengths=5, length_weight=1.5),
        MaskPredict(max_length=12, calls=3, oracle_length=True),
        Threshold(max_length=12, threshold=0.3, lengths=2),
        QuotaUnmasking(max_length=12, calls=3, longer=2),
        CTC(max_length=7),
    ],
    ids=str,
)
def test_candidates_are_those_of_a_plain_implementation(decoder):
    kept = 0
    for seed in range(2):
        model = random_canvas_model(decoder, seed=seed)
        source = random_sources(model, jax.random.key(seed))[0]
        limit = np.minimum([12, 12, 12, 12, 12, 9, 3, 1], decoder.max_length)
        source = source.replace(limit=jnp.asarray(limit, jnp.int32))
        output = nar.decode(decoder, model, source)
        nbest = output.nbest
        assert nbest is not None
        for row, right in enumerate(canvases.candidates(decoder, model, source)):
            tokens, length, scores = (
                np.asarray(x[row]) for x in (nbest.tokens, nbest.length, nbest.scores)
            )
            real = scores > NEG / 2
            assert real.sum() == len(right)
            found = [t[:n].tolist() for t, n in zip(tokens[real], length[real], strict=True)]
            assert found == [tokens for _, tokens, _ in right]
            np.testing.assert_allclose(scores[real], [score for score, *_ in right], rtol=1e-4)
            assert not any(t[n:].any() for t, n in zip(tokens, length, strict=True))
            assert int(output.stats.live[row]) == max(calls for *_, calls in right)
            kept += len(right)
        np.testing.assert_array_equal(output.tokens, nbest.tokens[:, 0])
        np.testing.assert_array_equal(output.scores, nbest.scores[:, 0])
    assert kept >= 16


def test_one_call_is_the_argmax():
    source = Source.of([[5, 6, 7, 8], [9, 10, 11, 12]])
    output = nar.decode(MaskPredict(max_length=12, calls=1, lengths=1), PLAIN, source)
    lengths = np.asarray(canvases.lengths(PLAIN, source)).argmax(1)
    canvas = np.full((2, 12), PLAIN.spec.mask)
    logits = np.array(
        canvases.predicted(PLAIN, source, canvas, np.arange(12) < lengths[:, None])[0]
    )
    logits[..., [0, 2, 4]] = -np.inf
    for row, n in enumerate(lengths):
        best = [*logits[row, :n].argmax(-1).tolist(), 3]
        assert rows(output)[row] == best[: best.index(3) + 1]
    assert output.stats.live.tolist() == [1, 1]


def test_a_canvas_that_repeats_goes_on():
    """As often as the paper says: of 8 places 7, 6, 5, 4, 4, 3, 2, 1, 0 are masked again."""
    script = np.tile(np.arange(5, 13), (4, 1))
    model = Scripted(PLAIN, jnp.asarray(script), jnp.array([8, 1, 5, 0]))
    output = nar.decode(MaskPredict(max_length=12, calls=10), model, LONG)
    assert rows(output) == [[*script[0], 3], [5, 3], [*script[0, :5], 3], [3]]
    assert output.stats.live.tolist() == [9, 1, 9, 1]


def test_calls_are_those_that_a_token_was_final_with():
    """The quota is kept call by call, and the last call writes EOS too."""
    script = np.tile(np.arange(5, 13), (4, 1))
    model = Scripted(PLAIN, jnp.asarray(script), jnp.array([7, 3, 1, 8]))
    source = LONG.replace(limit=jnp.array([12, 12, 12, 6], jnp.int32))
    output = nar.decode(QuotaUnmasking(max_length=12, calls=3), model, source)
    assert rows(output) == [[*script[0, :7], 3], [5, 6, 7, 3], [5, 3], [*script[0, :6]]]
    calls = [[3, 2, 2 + 1], [1, 1, 1 + 1], [1 + 1], [2, 2, 2]]
    assert output.stats.live.tolist() == [len(row) for row in calls]
    accepted = np.bincount([n for row in calls for n in row], minlength=13)
    assert output.stats.accepted.tolist() == accepted.tolist()
    assert output.stats.positions["target"].tolist() == [12 * len(row) for row in calls]


class Insistent(struct.PyTreeNode):
    """A model that most likes tokens that are no output, and likes `best` next."""

    model: Any
    best: int = struct.field(pytree_node=False)

    def __getattr__(self, name):
        return getattr(self.model, name)

    def logits(self, hidden):
        spec, token = self.model.spec, np.arange(self.model.spec.vocab_size)
        special = [t for t in (spec.pad, 2, spec.mask, spec.blank) if t is not None]
        wanted = 100.0 * (token == self.best) + 200.0 * np.isin(token, special)
        return self.model.logits(hidden) * 0 + wanted


@pytest.mark.parametrize("decoder", [MaskPredict(max_length=12), Threshold(max_length=12)])
def test_special_tokens_are_not_written(decoder):
    kind = {"causal": False, "bidirectional": True, "length_classes": 16}
    for model in (PLAIN, random_model(blank=5, **kind)):
        output = nar.decode(decoder, Insistent(model, 9), LONG)
        for row in rows(output):
            assert set(row[:-1]) <= {9}
            assert row[-1] in (9, 3)
        assert output.length.max() > 2


def test_ctc_drops_blanks_and_nothing_else_is_special():
    model = random_canvas_model(CTC())
    output = nar.decode(CTC(max_length=12), Insistent(model, 9), LONG)
    assert rows(output) == [[3]] * 4  # all blank
    spelled = np.array([[5, 7, 7, 5, 7, 8, 8, 5, 5, 9, 5, 5]] * 4)
    output = nar.decode(CTC(max_length=12), Scripted(model, jnp.asarray(spelled)), LONG)
    assert rows(output) == [[7, 7, 8, 9, 3], [7, 3], [7, 3], [7, 7, 8, 3]]


class Wavering(Scripted):
    """One whose length is `length` with probability 0.9, or else 2."""

    def lengths(self, context):
        said = jnp.arange(65) == jnp.stack([self.length, jnp.full(1, 2)])
        return jnp.where(said, np.log([[0.9], [0.1]]), NEG).max(0, keepdims=True)


@pytest.mark.parametrize(
    ("length", "right"),
    [
        (0, [([5, 6, 3], 0.0), ([3], np.log(0.9))]),
        (3, [([5, 6, 7, 3], 0.0), ([5, 6, 3], 0.0)]),
        (40, [([5, 6, 7, 8, 9, 10], 0.0), ([5, 6, 3], 0.0)]),
    ],
)
def test_lengths_that_do_not_fit_are_cut(length, right):
    """What is too long counts as the longest that fits; 0 is EOS alone; equals stay in order."""
    model = Wavering(PLAIN, jnp.arange(5, 13)[None], jnp.array([length]))
    source = Source.of([[5, 6, 7]]).replace(limit=jnp.array([6], jnp.int32))
    nbest = nar.decode(MaskPredict(max_length=12, lengths=3), model, source).nbest
    assert nbest is not None
    found = [t[:n].tolist() for t, n in zip(nbest.tokens[0], nbest.length[0], strict=True)]
    assert found[:2] == [tokens for tokens, _ in right]
    np.testing.assert_allclose(nbest.scores[0, :2], [score for _, score in right], atol=1e-6)
    assert nbest.scores[0, 2] < NEG / 2


def test_a_canvas_has_as_many_places_as_its_source_allows():
    source = Source.of([[5, 6, 7], [8]])
    wide = nar.decode(MaskPredict(max_length=12, calls=1, lengths=1), PLAIN, source)
    narrow = nar.decode(MaskPredict(max_length=12, calls=1, lengths=1, longer=2), PLAIN, source)
    assert wide.stats.positions["target"].tolist() == [12, 12]
    assert narrow.stats.positions["target"].tolist() == [5, 5]
    assert narrow.length[1] <= 1 + 2 + 1
    several = nar.decode(MaskPredict(max_length=12, calls=1, lengths=9, longer=2), PLAIN, source)
    assert several.stats.positions["target"].tolist() == [6 * 5, 6 * 5]  # of 0 to 5 tokens


def test_rows_that_are_ended_write_nothing():
    script = np.tile(np.arange(5, 13), (4, 1))
    model = Scripted(PLAIN, jnp.asarray(script), jnp.full(4, 8))
    steps = nar.stream(QuotaUnmasking(max_length=12, calls=4), model, LONG)
    state = next(steps)
    assert not state.length.any()
    ended = np.array([False, True, False, True])
    state = steps.send(ended)
    for state in steps:
        last = np.asarray(state.length), np.asarray(state.stats.live)
    assert last[0].tolist() == [9, 0, 9, 0]
    assert last[1].tolist() == [4, 1, 4, 1]


def test_a_row_that_is_ended_stays_so_until_the_others_are_ranked():
    bundle = nar.Bundle.of(target=PLAIN, reranker=random_model())
    steps = nar.stream(nar.NoisyParallel(max_length=12, base=MaskPredict(calls=4)), bundle, LONG)
    next(steps)
    ended, length = np.array([True, False, True, False]), np.zeros(4)
    for state in itertools.chain([steps.send(ended)], steps):
        done, length, tokens = map(np.array, (state.done, state.length, state.tokens))
        assert done[ended].all()
        assert not length[ended].any()
        assert (tokens[ended] == PLAIN.spec.pad).all()
    assert length[~ended].all()


def test_steps_after_the_ranking_change_nothing():
    decoder = nar.NoisyParallel(max_length=12, base=MaskPredict(calls=4, lengths=2))
    bundle = nar.Bundle.of(target=PLAIN, reranker=random_model())
    output, steps = nar.trace(decoder, bundle, LONG, steps=7)
    chex.assert_trees_all_equal(output, nar.decode(decoder, bundle, LONG))
    assert (steps.length[-1] == output.length).all()
    assert output.length.all()


@pytest.mark.rest
@pytest.mark.parametrize("length_penalty", [0.0, 0.6])
def test_re_ranking_has_a_length_penalty(length_penalty):
    decoder = nar.NoisyParallel(
        max_length=12, base=MaskPredict(calls=1, lengths=4), length_penalty=length_penalty
    )
    chosen = []
    for seed in range(3):
        bundle = nar.Bundle.of(
            target=random_canvas_model(MaskPredict(), seed=seed), reranker=random_model(seed=seed)
        )
        source = random_sources(PLAIN, jax.random.key(seed))[0]
        found = nar.decode(decoder, bundle, source)
        assert rows(found) == noisy_reference(decoder, bundle, source)
        mean = dataclasses.replace(decoder, length_penalty=1.0)
        chosen += [a != b for a, b in zip(rows(found), noisy_reference(mean, bundle, source),
                                          strict=True)]  # fmt: skip
    assert any(chosen)  # otherwise the penalty changes nothing


def test_scores_are_means_of_log_probabilities():
    decoder, source = MaskPredict(max_length=12, calls=1, lengths=1), Source.of([[5, 6, 7, 8]])
    output = nar.decode(decoder, PLAIN, source)
    n = int(np.asarray(canvases.lengths(PLAIN, source)).argmax())
    canvas = np.full((1, 12), PLAIN.spec.mask)
    logits = np.array(canvases.predicted(PLAIN, source, canvas, np.arange(12)[None] < n)[0])
    logits[..., [0, 2, 4]] = -1e30
    best = oracles.log_softmax(logits)[0, :n].max(-1)
    np.testing.assert_allclose(output.scores, [best.mean()], rtol=1e-5)


UPSAMPLING = random_canvas_model(CTC())


@pytest.mark.parametrize(
    ("decoder", "model", "source", "error", "message"),
    [
        (MaskPredict(max_length=8), random_model(), LONG, IncompatibleModel,
         "a model trained to predict a canvas .fill. and a length head"),
        (MaskPredict(max_length=8), UPSAMPLING, LONG, IncompatibleModel, "upsample=0"),
        (CTC(max_length=8), PLAIN, LONG, IncompatibleModel, "upsample > 0 and a blank token"),
        (nar.Greedy(max_length=8), PLAIN, LONG, IncompatibleModel, "a causal model"),
        (MaskPredict(max_length=8, oracle_length=True), PLAIN, LONG, NarError,
         "oracle_length=True needs the lengths in source.limit; it is None"),
        (CTC(max_length=8), UPSAMPLING, Source.of([[5] * 33]), NarError,
         "33 positions: the model reads at most 32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_tracing(
    decoder, model, source, error, message, monkeypatch
):
    monkeypatch.setattr(type(decoder), "init", None)
    with pytest.raises(error, match=message):
        nar.decode(decoder, model, source)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mask-predict:calls=0", "calls=0"),
        ("mask-predict:lengths=0", "lengths=0"),
        ("mask-predict:longer=-1", "longer=-1"),
        ("mask-predict:oracle_length=3", "oracle_length=3"),
        ("threshold-unmasking:threshold=2", "threshold=2"),
        ("threshold-unmasking:block=0", "block=0"),
        ("quota-unmasking:calls=0", "calls=0"),
        ("ctc:calls=3", "ctc has no option 'calls'"),
    ],
)
def test_bad_options(words, message):
    with pytest.raises(NarError, match=message):
        nar.make(words)


# -------------------------------------------------------------------------------------------- NaN
def spoilt(model, part, row=slice(None)):
    """A model with NaN among its parameters."""

    def change(path, x):
        return x.at[row].set(jnp.nan) if part in jax.tree_util.keystr(path) else x

    return jax.tree_util.tree_map_with_path(change, model)


def test_rows_that_meet_nan_are_empty_and_the_others_as_they_were():
    """In the tokens and in the lengths, a source's or everybody's."""
    decoder = MaskPredict(max_length=12, calls=3, lengths=4)
    right = nar.decode(decoder, PLAIN, LONG)
    assert not right.failed.any()
    lost = spoilt(PLAIN, "source_embedding", 12)  # a token of the last row
    for model, failed in ((lost, [False] * 3 + [True]), (spoilt(PLAIN, "length_head"), [True] * 4)):
        output = jax.device_get(nar.decode(decoder, model, LONG))
        assert output.failed.tolist() == failed
        left, gone = ~output.failed, output.failed
        assert rows(output)[: left.sum()] == rows(right)[: left.sum()]
        for x in (output, output.nbest):
            assert not x.length[gone].any()
            assert (x.tokens[gone] == PLAIN.spec.pad).all()
            assert (x.scores[gone] == NEG).all()
            assert np.isfinite(x.scores[left]).all()


def test_candidates_that_the_causal_model_cannot_rank():
    """NaN is noticed; what is impossible for it is written, where nothing else is there."""
    reranker = random_model(seed=7)
    decoder = NoisyParallel(max_length=12, base=MaskPredict(calls=1, lengths=3))
    best = nar.decode(decoder.inner, PLAIN, LONG)
    for ranks, failed in ((spoilt(reranker, "output"), True), (Fitted(reranker, 3, 13), False)):
        bundle = nar.Bundle.of(target=PLAIN, reranker=ranks)
        output = jax.device_get(nar.decode(decoder, bundle, LONG))
        assert (output.failed == failed).all()
        assert (output.scores == (NEG if failed else NEG / 2)).all()
        assert rows(output) == ([[]] * 4 if failed else rows(best))

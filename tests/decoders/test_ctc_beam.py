"""Prefix beam search against all alignments there are, and against one on dictionaries."""

import itertools
from collections import defaultdict

import jax
import numpy as np
import pytest

import nar
from nar import Bundle, CTCBeam, IncompatibleModel, NarError, Source
from nar.ops import NEG
from nar.testing import random_model
from nar.testing.oracles import log_softmax
from tests import prefix_beam
from tests.alignments import collapsed
from tests.language import random_language

LM = {"alpha": 0.4, "beta": 2.2}


def ctc_model(seed=0, vocab_size=13, **config):
    """A random model of a canvas, and a language model."""
    model = random_model(
        seed=seed,
        vocab_size=vocab_size,
        causal=False,
        bidirectional=True,
        upsample=2,
        blank=5,
        **config,
    )
    return Bundle.of(target=model, language=random_language(vocab_size, seed=seed))


def candidates(nbest):
    """Of each row those that there are: (score, tokens); after them is nothing."""
    found = []
    for rows in zip(
        *(np.asarray(x) for x in (nbest.scores, nbest.tokens, nbest.length)), strict=True
    ):
        there = [(s, t[:n].tolist()) for s, t, n in zip(*rows, strict=True) if s > NEG / 2]
        found.append(there)
        assert not any(t[n:].any() for _, t, n in zip(*rows, strict=True))
    return found


@pytest.mark.parametrize("options", [{}, LM], ids=["plain", "language"])
def test_a_wide_beam_finds_the_best_of_all_outputs(options):
    """Four places of blank, EOS and the tokens 1, 6 and 7: 625 alignments of 61 outputs."""
    model = ctc_model(vocab_size=8)
    source = Source.of([[6, 7], [7, 1], [6], [1, 1]]).replace(
        limit=np.array([5, 2, 5, 1], np.int32)
    )
    decoder = CTCBeam(max_length=5, beams=121, top_k=8, nbest=121, **options)
    output = nar.decode(decoder, model, source)
    added = prefix_beam.added(decoder, model)
    symbols = (1, 3, 5, 6, 7)
    for row, logp in enumerate(prefix_beam.place_logprobs(model, source)):
        total = defaultdict(float)
        for alignment in itertools.product(symbols, repeat=len(logp)):
            tokens = [*collapsed(alignment, 5), 3]
            end = tokens.index(3) + 1
            total[tuple(tokens[: min(end, source.limit[row])])] += np.exp(
                logp[range(len(logp)), alignment].sum()
            )
        assert sum(total.values()) == pytest.approx(1)
        scores = {
            y: np.log(p) + added(y[:-1] if y[-1] == 3 else y, y[-1] == 3) for y, p in total.items()
        }
        best = sorted(scores, key=scores.__getitem__, reverse=True)
        assert len(best) == [61, 13, 10, 4][row]
        got = candidates(output.nbest)[row]
        assert [tuple(tokens) for _, tokens in got] == best
        np.testing.assert_allclose(
            [score for score, _ in got], [scores[y] for y in best], rtol=1e-4
        )


@pytest.mark.parametrize("options", [{}, LM, {"alpha": 1.5, "beta": 5.0, "top_k": 20}], ids=str)
def test_candidates_are_those_of_a_plain_implementation(options):
    """On random logits of ragged rows, with limits; of equal tokens side by side there are many."""
    decoder = CTCBeam(**{"max_length": 9, "beams": 5, "top_k": 3, "nbest": 4, **options})
    model = ctc_model()
    spec = model.models["target"].spec
    language = model.models["language"] if decoder.alpha else None
    size, limit = np.array([12, 2, 4, 6, 6, 12, 12, 1]), np.array([9, 9, 9, 9, 9, 5, 3, 1])
    valid = np.arange(12) < size[:, None]
    search = jax.jit(decoder.search, static_argnames="spec")
    added, outputs = prefix_beam.added(decoder, model), set()
    for seed in range(6):
        logits = 2 * np.random.default_rng(seed).normal(size=(8, 12, 13))
        logits += np.isin(np.arange(13), (5, 6, 7)) - 3.0 * (np.arange(13) == spec.eos)
        got = candidates(search(logits, valid, limit, spec, language))
        for row, n in enumerate(size):
            logprobs = log_softmax(logits[row, :n])
            right = prefix_beam.search(decoder, spec, logprobs, limit[row], added)[:4]
            assert [tokens for _, tokens in got[row]] == [tokens for _, tokens in right]
            scores = [[score for score, _ in x] for x in (got[row], right)]
            np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-4)
            assert len(right) > 2
            outputs.add(tuple(right[0][1]))
    assert len(outputs) > 25


def test_what_it_needs():
    model, source = ctc_model(), Source.of([[6, 7]])
    decoder = CTCBeam(max_length=4, alpha=0.4)
    target, language = model.models["target"], model.models["language"]
    nar.decode(CTCBeam(max_length=4), target, source)
    with pytest.raises(
        IncompatibleModel, match=r"a 'language' model too: --language PATH .*language=\.\.\."
    ):
        nar.decode(decoder, target, source)
    with pytest.raises(
        NarError, match="the bundle's language is a Transformer: it must be an NGram"
    ):
        nar.decode(decoder, Bundle.of(target=target, language=target), source)
    other = random_language(14)
    with pytest.raises(
        IncompatibleModel, match="the language model's vocab_size is 14 and the target's 13"
    ):
        nar.decode(decoder, Bundle.of(target=target, language=other), source)
    with pytest.raises(IncompatibleModel, match="a model trained to predict a canvas .* a blank"):
        nar.decode(decoder, Bundle.of(target=random_model(), language=language), source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams=0"),
        ({"top_k": 0}, "top_k=0"),
        ({"nbest": 0}, "nbest=0"),
        ({"nbest": 21}, "nbest=21: it must be at most beams=20"),
        ({"alpha": -0.1}, "alpha=-0.1: it must be a number, 0 or more"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"alpha": "much"}, "alpha='much'"),
        ({"beta": float("inf")}, "beta=inf: it must be a number"),
        ({"beta": True}, "beta=True"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(NarError, match=message):
        CTCBeam(**options)

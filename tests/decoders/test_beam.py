"""Beam search against a plain one, and against all outputs there are."""

import numpy as np
import pytest

import nar
from nar import Beam, NarError, Source
from nar.testing import oracles, random_model


@pytest.mark.parametrize(
    "options",
    [
        {"beams": 4, "length_penalty": 1.0, "stop": "estimate"},
        {"beams": 2, "length_penalty": 0.6, "stop": "bound"},
        {"beams": 5, "length_penalty": 0.0, "stop": "full"},
    ],
    ids=str,
)
def test_hypotheses_are_those_of_a_plain_implementation(options, encoder):
    decoder = Beam(max_length=12, nbest=2, **options)
    rows = [[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10], [9, 9, 8], [6, 5], [11], [8]]
    source = Source.of(rows).replace(limit=np.array([12, 12, 12, 12, 12, 12, 3, 1], np.int32))
    ended = 0
    for seed in range(3):
        model = random_model(encoder=encoder, seed=seed)
        output = nar.decode(decoder, model, source)
        right = oracles.beam(model, source, 12, **options)
        for row, k in np.ndindex(8, 2):
            length = int(output.nbest.length[row, k])
            found = tuple(output.nbest.tokens[row, k, :length].tolist())
            assert found == right[row][k].tokens, (seed, row, k)
            np.testing.assert_allclose(output.nbest.scores[row, k], right[row][k].score, rtol=1e-4)
            assert not output.nbest.tokens[row, k, length:].any()
            ended += found[-1] == 3
        np.testing.assert_array_equal(output.tokens, output.nbest.tokens[:, 0])
        np.testing.assert_array_equal(output.length, output.nbest.length[:, 0])
        np.testing.assert_array_equal(output.scores, output.nbest.scores[:, 0])
    assert 10 < ended < 48


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_as_many_beams_as_prefixes_search_everything(penalty):
    model, source = random_model(vocab_size=5, seed=3), Source.of([[4, 1, 2], [2]])
    decoder = Beam(max_length=3, beams=80, length_penalty=penalty, nbest=21, stop="full")
    output = nar.decode(decoder, model, source)
    for row in range(2):
        everything = oracles.distribution(model, source, row, 3)
        scores = {t: s / len(t) ** penalty for t, s in everything.items() if t[-1] == 3}
        best = sorted(scores, key=scores.__getitem__, reverse=True)
        assert len(best) == 21
        found = [
            t[:n].tolist()
            for t, n in zip(output.nbest.tokens[row], output.nbest.length[row], strict=True)
        ]
        assert found == [list(t) for t in best]
        np.testing.assert_allclose(output.nbest.scores[row], [scores[t] for t in best], rtol=1e-4)


def test_one_beam_is_greedy(encoder):
    """One that stops at once when EOS is likeliest."""
    model, source = random_model(encoder=encoder), Source.of([[5, 6, 7], [8], [9, 10], [6, 6]])
    greedy = oracles.greedy(model, source, 12)
    output = nar.decode(Beam(max_length=12, beams=1, stop="full"), model, source)
    np.testing.assert_array_equal(output.tokens, greedy.tokens)


def test_bad_options():
    for options, message in [
        ({"beams": 0}, "beams=0"),
        ({"nbest": 5}, "nbest=5: it must be at most beams=4"),
        ({"nbest": 0}, "nbest=0"),
        ({"stop": "never"}, "stop='never': it must be one of full, estimate, bound"),
        ({"length_penalty": "long"}, "length_penalty='long'"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"length_penalty": -1}, "length_penalty=-1"),
    ]:
        with pytest.raises(NarError, match=message):
            Beam(**options)

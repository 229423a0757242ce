import types

import numpy as np
import pytest

import nar
from nar import Beam, Greedy, Output
from nar.core import Candidates
from nar.errors import NarError
from nar.ops import NEG
from nar.results import Result, asking, read_results
from nar.testing import random_model

EOS = 3


class Spelling:
    """Token n is the n-th letter."""

    model = types.SimpleNamespace(spec=nar.Spec(vocab_size=30, eos=EOS, pad=0, encoder=True))

    def texts(self, sources, rows):
        assert len(sources) == len(rows)
        return ["".join(chr(96 + token) for token in row if token != EOS) for row in rows]


class Silent(Greedy):
    def finish(self, model, state):
        return super().finish(model, state).replace(scores=None)


def rows(*texts):
    """Tokens and lengths of texts; a dot ends one."""
    tokens = np.zeros((len(texts), 4), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = [EOS if c == "." else ord(c) - 96 for c in text]
    return tokens, np.array([len(text) for text in texts], np.int32)


def test_what_an_output_says():
    tokens, length = rows("ab.", "abde", "ab.", "abde", "d.", "x.")  # the last one fills the batch
    scores = np.array([-1.23456789, np.nan, -3, -4, -5, -6], np.float32)
    lists = [rows("ab.", "b."), rows("abde", "e"), rows("ab."[:2], "."), rows("d", "e")]
    lists += [rows("d.", ""), rows("x.", "x.")]
    nbest = Candidates(
        tokens=np.stack([tokens for tokens, _ in lists]),
        length=np.stack([length for _, length in lists]),
        scores=np.array([[-1, -2], [-1, -3], [-1, -2], [-1, -2], [-5, NEG], [-6, -6]], np.float32),
    )
    output = Output(tokens, length, scores, None, nbest=nbest)
    sources = [[1]] * 5
    found = read_results(Spelling(), sources, output, stop=["bd", "d"])
    assert found == [
        Result(text="ab", score=-1.234568),
        Result(text="a", finish_reason="stop"),
        Result(text="ab", score=-3.0),
        Result(text="a", score=-4.0),
        Result(text="", score=-5.0),
    ]
    found = read_results(Spelling(), sources, output, nbest=9)
    assert [result.finish_reason for result in found] == [
        "stop",
        "length",
        "stop",
        "length",
        "stop",
    ]
    assert found[0].nbest == (("ab", -1.0), ("b", -2.0))
    assert found[2].nbest == (("ab", -1.0), ("", -2.0))
    assert found[4].nbest == (("d", -5.0),)
    cut = read_results(Spelling(), sources, output, nbest=1, stop=["b"])
    assert [result.nbest for result in cut[:2]] == [(("a", -1.0),), (("a", -1.0),)]


def test_decoders_are_asked_for_what_they_can_give():
    model, greedy, beam = random_model(), Greedy(max_length=9), Beam(max_length=9, beams=3)
    assert asking(greedy, model, scores=False, nbest=0) is greedy
    assert asking(greedy, model, scores=True, nbest=0) == Greedy(max_length=9, scores=True)
    assert asking(beam, model, scores=True, nbest=0) == beam
    assert asking(beam, model, scores=False, nbest=2) == Beam(max_length=9, beams=3, nbest=2)
    wide = Beam(max_length=9, beams=3, nbest=3)
    assert asking(wide, model, scores=False, nbest=2) == wide
    for decoder, nbest, message in [
        (greedy, 2, "nbest=2: a Greedy keeps one output a text"),
        (beam, 4, "nbest=4: it must be at most beams=3"),
        (beam, -1, "nbest=-1: it must be a whole number of at least 0"),
        (nar.SpeculativeDecoding(max_length=9), 2, "needs a 'draft' model too"),
    ]:
        with pytest.raises(NarError, match=message):
            asking(decoder, model, scores=False, nbest=nbest)
    with pytest.raises(NarError, match="a Silent gives no scores"):
        asking(Silent(max_length=9), model, scores=True, nbest=0)

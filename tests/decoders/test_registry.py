"""Decoders by name and in words."""

import pytest

import nar
from nar import Beam, Greedy, HybridJacobi, Jacobi, NarError, Sample
from nar.decoders import parse


def test_words():
    assert nar.make("greedy") == Greedy()
    assert nar.make(" jacobi : block = 5 , guess = source ") == Jacobi(block=5, guess="source")
    assert nar.make("hybrid-jacobi:parallel=none,scores=true") == HybridJacobi(scores=True)
    assert nar.make("sample:top_p=0.9,temperature=2") == Sample(top_p=0.9, temperature=2)
    assert nar.make("greedy", max_length=7) == Greedy(max_length=7)
    assert nar.make("greedy:max_length=9", max_length=7) == Greedy(max_length=9)
    assert [parse(word) for word in ("3", "-3", "0.5", "1e3", "True", "x")] == [
        3,
        -3,
        0.5,
        1e3,
        True,
        "x",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("jacoby", "no decoder 'jacoby'; there are jacobi, "),
        ("", "no decoder ''; there are "),
        ("jacobi:blok=3", "jacobi has no option 'blok'; it has block, "),
        ("jacobi:=3", "jacobi has no option ''"),
        ("jacobi:block", "'block' is no option: write name=value; jacobi has .*block"),
        ("jacobi:block=-2", "block=-2: it must be"),
        ("jacobi:block=big", "block='big': it must be"),
        ("jacobi:oracle_length=maybe", "oracle_length='maybe': it must be True or False"),
        ("greedy:max_length=none", "max_length=None: it must be"),
        ("sample:temperature=hot", "temperature='hot'"),
        ("beam:length_penalty=long", "length_penalty='long'"),
    ],
)
def test_words_that_mean_nothing(words, message):
    with pytest.raises(NarError, match=message):
        nar.make(words)


def test_a_name_is_given_once(monkeypatch):
    monkeypatch.setattr(nar.decoders, "DECODERS", dict(nar.DECODERS))
    assert nar.register("mine", Jacobi) is Jacobi
    assert nar.make("mine") == Jacobi()
    nar.register("mine", Jacobi)
    with pytest.raises(NarError, match="'mine' is already Jacobi"):
        nar.register("mine", Beam)


def test_decoders_within_decoders():
    found = nar.make(
        "parallel-draft:guesses=3,base=(noisy-parallel:length_penalty=1,base=(mask-predict:calls=4,"
        "lengths=2)),reach=2"
    )
    base = nar.NoisyParallel(length_penalty=1, base=nar.MaskPredict(calls=4, lengths=2))
    assert found == nar.ParallelDraft(guesses=3, base=base, reach=2)

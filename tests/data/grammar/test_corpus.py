"""Corpora: the same everywhere, disjoint splits, clean text, bad options."""

import itertools
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from nar.data.grammar import Grammar, GrammarConfig, split_of
from tests.data.grammar.derivations import ADVERBS, MODAL, WORDS

PINNED = [
    (
        "train",
        2,
        "A horse often went into the old house.",
        "Ein Pferd ist häufig ins alte Haus gegangen.",
    ),
    (
        "valid",
        3,
        "Did teachers pick up every child at five o'clock?",
        "Holten Lehrer um 5 Uhr jedes Kind ab?",
    ),
    (
        "test",
        5,
        "You did not say that you showed a child a lamp at eight o'clock.",
        "Du hast nicht gesagt, dass du um acht einem Kind eine Lampe zeigtest.",
    ),
]


@pytest.mark.parametrize(("split", "index", "english", "german"), PINNED)
def test_items_stay_what_they_are(split, index, english, german):
    """A change here is a change of everybody's data: say so."""
    assert Grammar(split, 10, GrammarConfig(ambiguity=0.5, length=3))[index] == (english, german)


def test_random_access_equals_iteration():
    corpus = Grammar("valid", 40, GrammarConfig(ambiguity=0.5))
    pairs = list(corpus)
    assert len(pairs) == len(corpus) == 40
    for i in np.random.default_rng(0).permutation(40):
        assert corpus[i] == pairs[i] == corpus[int(i) - 40]
    assert pickle.loads(pickle.dumps(corpus))[3] == pairs[3]


def test_large_corpora_cost_nothing():
    huge, small = Grammar("train", 10**15), Grammar("train", 10)
    assert huge[9] == small[9]
    assert huge[-1] == huge[10**15 - 1]


@pytest.mark.parametrize("index", [5, -6, 10**9])
def test_out_of_range(index):
    with pytest.raises(IndexError, match=f"item {index} of a corpus of 5 sentences"):
        Grammar("train", 5)[index]


def test_same_in_every_process():
    program = (
        "from nar.data.grammar import *\n"
        "corpus = Grammar('test', 20, GrammarConfig(ambiguity=0.7, length=3))\n"
        "print('\\n'.join('\\t'.join(pair) for pair in corpus))"
    )
    here = [*Grammar("test", 20, GrammarConfig(ambiguity=0.7, length=3))]
    setting = {
        "PYTHONHASHSEED": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), *sys.path))),
    }
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **setting},
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert [tuple(line.split("\t")) for line in there.splitlines()] == here


def test_splits_are_disjoint():
    """Also between seeds, lengths, vocabularies and ambiguities."""
    configs = [
        GrammarConfig(),
        GrammarConfig(seed=1, vocabulary=0.05, length=1),
        GrammarConfig(seed=2, vocabulary=0.05, length=1, ambiguity=1),
    ]
    english = {
        split: {
            Grammar(split, 10**6, config).derivation(i).english()
            for config in configs
            for i in range(size)
        }
        for split, size in (("train", 800), ("valid", 150), ("test", 150))
    }
    for one, other in itertools.combinations(english, 2):
        assert not english[one] & english[other]
    for split, sentences in english.items():
        assert all(split_of(sentence) == split for sentence in sentences)


def test_seeds_make_different_corpora():
    one, other = (Grammar("train", 50, GrammarConfig(seed=seed)) for seed in (0, 1))
    assert sum(a == b for a, b in zip(one, other, strict=True)) <= 1


def test_few_duplicates():
    english = [pair[0] for pair in Grammar("train", 2500)]
    assert len(set(english)) > 0.99 * len(english)


def test_knobs():
    def words(config: GrammarConfig) -> list[str]:
        return [w for e, _ in Grammar("train", 400, config) for w in e.lower().split()]

    lengths = [len(words(GrammarConfig(length=length))) / 400 for length in (1, 2, 4, 8)]
    assert lengths == sorted(lengths)
    assert 5 < lengths[0] < 9
    assert 8 < lengths[1] < 12
    sizes = [len(set(words(GrammarConfig(vocabulary=v)))) for v in (0.01, 0.25, 0.5, 1)]
    assert sizes == sorted(set(sizes))


def test_text_is_clean():
    """Plain cased text: one capital, one full stop, no stray spaces or commas."""
    corpus = Grammar("train", 600, GrammarConfig(length=5, vocabulary=1, ambiguity=1))
    for pair in corpus:
        for text in pair:
            assert text[0].isupper() or text[0].isdigit()
            assert text[-1] in ".?"
            assert text == " ".join(text.split())
            assert not any(bad in text for bad in (" ,", ",,", ",.", " .", " ?", ",?"))


def test_adverbs_and_modals_have_one_english_form():
    assert len(ADVERBS) == len(WORDS.times) + len(WORDS.weekdays) + len(WORDS.often)
    assert all(modal.present != modal.past for modal in MODAL.values())


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ({"length": 0}, "from 1 to 8, not 0"),
        ({"length": 9}, "from 1 to 8, not 9"),
        ({"length": 1.5}, "from 1 to 8, not 1.5"),
        ({"vocabulary": 0}, "above 0 and at most 1, not 0"),
        ({"vocabulary": 1.01}, "at most 1, not 1.01"),
        ({"vocabulary": math.nan}, "at most 1, not nan"),
        ({"ambiguity": -0.1}, "from 0 to 1, not -0.1"),
        ({"ambiguity": "high"}, "from 0 to 1, not 'high'"),
        ({"seed": "zero"}, "integer, not 'zero'"),
    ],
)
def test_bad_options(option, valid):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be .*{valid}"):
        GrammarConfig(**option)


def test_bad_corpora():
    with pytest.raises(ValueError, match="one of train, valid, test, not 'dev'"):
        Grammar("dev", 10)
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"positive number of sentences, not {size}"):
            Grammar("train", size)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Grammar("train", 10)["first"]  # type: ignore[index]

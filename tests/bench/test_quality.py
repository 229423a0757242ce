import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nar.bench.quality import edit_distance, quality
from nar.core import NarError

words = st.lists(st.sampled_from("abc"), max_size=6)


@given(words, words)
def test_edit_distance_is_that_of_the_recursion(a, b):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        replaced = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, replaced)

    assert edit_distance(a, b) == distance(len(a), len(b))


def test_token_error_by_hand():
    # One replacement in three tokens, one deletion of two: 2 errors in 5 tokens.
    assert quality("token_error", ["A X C", "D"], ["A B C", "D E"]).value == pytest.approx(40)


def test_bleu_names_how_it_was_computed():
    same = ["Ein Mann mit einem orangefarbenen Hut starrt etwas an."]
    score = quality("bleu", same, same)
    assert score.value == pytest.approx(100)
    assert "tok:13a" in score.signature
    assert "case:mixed" in score.signature


@pytest.mark.parametrize(("outputs", "references"), [([], []), (["a"], ["a", "b"])])
def test_numbers_of_texts_must_be_equal(outputs, references):
    with pytest.raises(NarError, match=f"{len(outputs)} outputs for {len(references)} references"):
        quality("bleu", outputs, references)


def test_an_unknown_metric_is_named():
    with pytest.raises(NarError, match="metric='ter'.*bleu, token_error"):
        quality("ter", ["a"], ["a"])  # type: ignore[arg-type]

"""Scores against sacreBLEU's own, and by the definition."""

import functools

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from nar.bench.metrics import Bleu, edit_distance
from nar.errors import NarError

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


@pytest.mark.parametrize(
    ("language", "tokenizer", "text"),
    [
        (None, "13a", "Der Hund läuft heute."),
        ("de", "13a", "Der Hund läuft heute."),
        ("zh", "zh", "他在公园里吃了一个苹果。"),
        ("zh_CN", "zh", "他在公园里吃了一个苹果。"),
        ("cmn-Hant", "zh", "他在公園裡吃了一個蘋果。"),
        ("ja", "ja-mecab", "彼は公園でりんごを食べた。"),
        ("ko", "ko-mecab", "그는 공원에서 사과를 먹었다."),
        ("th", "char", "เขากินแอปเปิลในสวน"),
        ("lo", "char", "ລາວກິນໝາກແອບເປິ້ນ"),
        ("km", "char", "គាត់ញ៉ាំផ្លែប៉ោម"),
        ("my", "char", "သူပန်းသီးစားသည်"),
    ],
)
def test_the_tokenizer_follows_the_language(language, tokenizer, text):
    """A perfect output has 100; with MeCab, or where that is not installed by characters."""
    metric = Bleu.of(language)
    try:
        right = sacrebleu.BLEU(tokenize=tokenizer)
    except RuntimeError:  # MeCab's packages are missing
        right = sacrebleu.BLEU(tokenize=(tokenizer := "char"))
    outputs, references = [text, text[:-3]], [text, text]
    assert metric.score(metric.statistics([text], [text])[0]) == pytest.approx(100)
    found = metric.score(metric.statistics(outputs, references).sum(0))
    assert found == pytest.approx(right.corpus_score(outputs, [references]).score)
    assert f"tok:{tokenizer}" in metric.signature


def test_tokenizers_that_cannot_be_used(monkeypatch):
    with pytest.raises(NarError, match="tokenizer='mecab': it must be one of none, zh, 13a"):
        Bleu("mecab")

    def missing(*_, **__):
        raise RuntimeError("\nIt requires extra packages:\n  pip install them")

    monkeypatch.setattr(sacrebleu.BLEU, "__init__", missing)
    with pytest.raises(NarError, match="='ja-mecab' cannot be used here: It requires extra pack"):
        Bleu("ja-mecab")

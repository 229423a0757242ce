import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.significance import PairedTest

from nar.bench.metrics import Bleu, TokenError
from nar.bench.quality import Judge, bootstrap, p_value
from nar.errors import NarError

WORDS = ["der", "ein", "Hund", "Mann", "läuft", "sieht", "im", "Park", "rote", "Hut-Träger", "."]


@pytest.fixture(scope="module")
def texts():
    """References, and two systems that get a fifth and a third of their words wrong."""
    draw = random.Random(0)

    def text():
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 40)))

    def worse(reference, rate):
        return " ".join(
            draw.choice(WORDS) if draw.random() < rate else w for w in reference.split()
        )

    references = [text() for _ in range(60)]
    return references, *([worse(r, rate) for r in references] for rate in (0.2, 0.33))


def test_token_error_by_hand():
    # One replacement in three tokens, one deletion of two: 2 errors in 5 tokens.
    found = Judge("token_error", ["A B C", "D E"]).quality(["A X C", "D"])
    assert found.token_error == pytest.approx(40)
    assert found.bleu is None
    assert found.length_ratio == pytest.approx(4 / 5)


def test_scores_are_those_of_sacrebleu(texts):
    references, system, _ = texts
    found = Judge("bleu", references).quality(system)
    assert found.bleu == pytest.approx(sacrebleu.corpus_bleu(system, [references]).score)
    assert found.chrf == pytest.approx(sacrebleu.corpus_chrf(system, [references]).score)
    assert "tok:13a" in found.bleu_signature
    assert "case:mixed" in found.bleu_signature
    assert "nc:6" in found.chrf_signature


def test_the_bootstrap_is_sacrebleus_own(texts, monkeypatch):
    references, first, second = texts
    monkeypatch.setenv("SACREBLEU_SEED", "12345")
    systems = [("first", first), ("second", second)]
    oracle = PairedTest(
        systems, {"BLEU": sacrebleu.BLEU()}, [references], test_type="bs", n_samples=1000
    )()[1]["BLEU"]
    judge = Judge("bleu", references)
    ours = [judge.quality(system) for system in (first, second)]
    for found, theirs in zip(ours, oracle, strict=True):
        assert theirs.mean is not None
        low, high = found.bleu_ci
        assert (high - low) / 2 == pytest.approx(theirs.ci, rel=0.02)
    assert ours[0].p_value is None
    assert ours[1].p_value == pytest.approx(oracle[1].p_value, abs=1e-9)
    assert ours[0].difference is None
    assert ours[1].difference == pytest.approx(oracle[1].score - oracle[0].score)
    low, high = ours[1].difference_ci
    assert low < ours[1].difference < high


def test_the_interval_of_a_difference_is_that_of_pairs():
    """By hand: an error in every sentence that only one of the two makes, so nothing varies."""
    references = ["a b", "a b c d", "a"] * 20
    judge = Judge("token_error", references)
    judge.quality(references)
    worse = judge.quality([text.replace("a", "x") for text in references])
    drawn = np.random.default_rng(12345).choice(60, (1000, 60), replace=True)
    words = np.array([2, 4, 1] * 20)[drawn].sum(1)
    assert worse.difference == pytest.approx(100 * 60 / 140)
    assert worse.difference_ci == pytest.approx(np.percentile(100 * 60 / words, [2.5, 97.5]))


def test_equal_outputs_differ_by_chance_alone(texts):
    references, system, _ = texts
    judge = Judge("bleu", references)
    judge.quality(system)
    again = judge.quality(list(system))
    assert (again.p_value, again.difference, again.difference_ci) == (1, 0, (0, 0))


def test_p_value_by_hand():
    # Centred differences are -1, 0, 1: one of three is as large as 1 only in size, two are.
    found = p_value(1.0, np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0]))
    assert found == pytest.approx((2 + 1) / (3 + 1))


def test_the_bootstrap_of_token_errors_resamples_sentences(texts):
    references, system, _ = texts
    metric = TokenError()
    statistics = metric.statistics(system, references)
    found = bootstrap(metric, statistics, samples=200)
    drawn = np.random.default_rng(12345).choice(len(references), (200, len(references)))
    by_hand = [
        100 * sum(statistics[i][0] for i in d) / sum(statistics[i][1] for i in d) for d in drawn
    ]
    np.testing.assert_allclose(found, by_hand)


def test_bleu_by_length_divides_the_test_set(texts):
    references, system, _ = texts
    parts = Judge("bleu", references).quality(system).bleu_by_length
    assert [part["to"] for part in parts] == [10, 20, 30, None]
    assert sum(part["sentences"] for part in parts) == len(references)
    short = [i for i, r in enumerate(references) if len(r.split()) <= 10]
    expected = sacrebleu.corpus_bleu([system[i] for i in short], [[references[i] for i in short]])
    assert parts[0]["bleu"] == pytest.approx(expected.score)
    assert parts[0]["sentences"] == len(short)


def test_tokenised_bleu_splits_hyphens_and_says_so():
    references = ["Der Hut-Träger geht heute in den Park ."]
    output = ["Der Hut-Macher geht heute in den Park ."]
    found = Judge("bleu", references, tokenized="de").quality(output)
    # Ten tokens: Der Hut ##AT##-##AT## Träger geht heute in den Park . The fourth is wrong.
    matches = [9 / 10, 7 / 9, 5 / 8, 3 / 7]
    assert found.tokenized_bleu == pytest.approx(100 * np.prod(matches) ** 0.25)
    assert "hyphens:split" in found.tokenized_bleu_signature
    assert Judge("bleu", references).quality(output).tokenized_bleu is None


def test_repetition_counts_words_that_repeat_the_one_before():
    found = Judge("bleu", ["a b c d", "e f"]).quality(["a a a b", "e f"])
    assert found.repetition == pytest.approx(2 / 6)


def test_statistics_add_up_to_the_corpus_score(texts):
    references, system, _ = texts
    metric = Bleu()
    halves = [
        metric.statistics(system[s], references[s]).sum(0) for s in (slice(20), slice(20, 60))
    ]
    whole = sacrebleu.corpus_bleu(system, [references]).score
    assert metric.score(halves[0] + halves[1]) == pytest.approx(whole)


@pytest.mark.parametrize(("outputs", "references"), [([], ["a"]), (["a"], ["a", "b"])])
def test_numbers_of_texts_must_be_equal(outputs, references):
    with pytest.raises(NarError, match=f"{len(outputs)} outputs for {len(references)} references"):
        Judge("bleu", references).quality(outputs)


CHINESE = ["我们 Monday 去 北京 大学 看 朋友。", "他在公园里吃了一个红苹果。", "很好!"]
CHANGED = ["我们 Monday 去 北京 看 朋友。", "她在公园里吃了两个红苹果。", "很好!"]


def test_languages_without_spaces_are_judged_by_the_metrics_tokens():
    """By hand: 12, 13 and 3 tokens, of which the output lacks two."""
    judge = Judge("bleu", CHINESE, language="zh")
    perfect, found = judge.quality(CHINESE), judge.quality(CHANGED)
    assert (perfect.bleu, perfect.length_ratio) == (pytest.approx(100), 1)
    right = sacrebleu.corpus_bleu(CHANGED, [CHINESE], tokenize="zh")
    assert found.bleu == pytest.approx(right.score)
    assert "tok:zh" in found.bleu_signature
    assert found.length_ratio == pytest.approx(right.sys_len / right.ref_len) == 26 / 28
    assert [part["sentences"] for part in found.bleu_by_length] == [1, 2]
    assert Judge("bleu", CHINESE, language="zh").quality(["好" * 4] * 3).repetition == 9 / 12
    by_characters = Judge("bleu", CHINESE, tokenizer="char").quality(CHANGED)
    right = sacrebleu.corpus_bleu(CHANGED, [CHINESE], tokenize="char")
    assert by_characters.bleu == pytest.approx(right.score)


def test_what_cannot_be_judged_is_named():
    for options, message in [
        ({"metric": "ter"}, "metric='ter'.*bleu, token_error"),
        ({"references": []}, "no references"),
        ({"tokenized": "zh_CN"}, "tokenized='zh_CN': .* words between spaces"),
        ({"metric": "token_error", "tokenizer": "zh"}, "tokenizer='zh' is BLEU's, and the metric"),
    ]:
        with pytest.raises(NarError, match=message):
            Judge(**{"metric": "bleu", "references": ["a"], **options})

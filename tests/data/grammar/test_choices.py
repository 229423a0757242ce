"""What is ambiguous, by hand, and its entropy by enumeration."""

import itertools
import math

import numpy as np
import pytest

from nar.data.grammar import Grammar, GrammarConfig
from nar.data.grammar import inflection as forms
from nar.data.grammar.adverbials import Date
from nar.data.grammar.choices import Choices, entropy
from nar.data.grammar.derivation import Derivation
from nar.data.grammar.dice import Dice
from nar.data.grammar.lexicon import lexicon
from nar.data.grammar.sentences import Sentence
from tests.data.grammar.derivations import (
    ADJECTIVES,
    DETERMINERS,
    NOUNS,
    PLURALS,
    VERBS,
    be,
    both,
    clause,
    it,
    noun_phrase,
    relative,
    sentence,
)


def all_german(derivation: Sentence) -> list[str]:
    """Every translation, by brute force: all the vectors of answers."""
    usual = Choices()
    derivation.german(usual)
    translations = []
    for vector in itertools.product(*map(range, usual.sizes)):
        choices = Choices(lambda number, _, vector=vector: vector[number])
        translations.append(derivation.german(choices))
        assert choices.sizes == usual.sizes, "the choices are not independent"
    return translations


ALTERNATIVES = [
    (
        sentence(clause("she", "open", "the door", tense="past", time="yesterday", front="time")),
        {
            "Gestern öffnete sie die Tür.",
            "Sie öffnete gestern die Tür.",
            "Sie öffnete die Tür gestern.",
            "Gestern hat sie die Tür geöffnet.",
            "Sie hat gestern die Tür geöffnet.",
            "Sie hat die Tür gestern geöffnet.",
            "Gestern machte sie die Tür auf.",
            "Sie machte gestern die Tür auf.",
            "Sie machte die Tür gestern auf.",
            "Gestern hat sie die Tür aufgemacht.",
            "Sie hat gestern die Tür aufgemacht.",
            "Sie hat die Tür gestern aufgemacht.",
        },
    ),
    (
        sentence(clause("you", "help", "your dog")),
        {"Du hilfst deinem Hund.", "Ihr helft eurem Hund.", "Sie helfen Ihrem Hund."},
    ),
    (
        sentence(clause("I", "think", frame="that"), "that", be("the car", "old")),
        {
            "Ich glaube, dass das Auto alt ist.",
            "Ich glaube, das Auto ist alt.",
            "Ich denke, dass das Auto alt ist.",
            "Ich denke, das Auto ist alt.",
            "Ich glaube, dass der Wagen alt ist.",
            "Ich glaube, der Wagen ist alt.",
            "Ich denke, dass der Wagen alt ist.",
            "Ich denke, der Wagen ist alt.",
        },
    ),
    (
        sentence(clause("I", "think", frame="that", negated=True), "that", be("she", "old")),
        {"Ich glaube nicht, dass sie alt ist.", "Ich denke nicht, dass sie alt ist."},
    ),
    (
        sentence(clause("I", "sleep"), "because", clause("he", "work")),
        {
            "Ich schlafe, weil er arbeitet.",
            "Ich schlafe, da er arbeitet.",
            "Ich schlafe, denn er arbeitet.",
        },
    ),
    (
        sentence(clause("I", "sleep"), "because", clause("he", "work"), sub_first=True),
        {"Weil er arbeitet, schlafe ich.", "Da er arbeitet, schlafe ich."},
    ),
    (
        both(clause("he", "sleep", modal="will", time="tomorrow"), "but", clause("I", "work")),
        {
            f"{first}, {but} ich arbeite."
            for first in (
                "Er wird morgen schlafen",
                "Morgen wird er schlafen",
                "Er schläft morgen",
                "Morgen schläft er",
            )
            for but in ("aber", "doch")
        },
    ),
    (
        sentence(
            clause(
                noun_phrase(
                    "the men", relative=clause("I", "help", relative("man", True), front="object")
                ),
                "sleep",
            )
        ),
        {"Die Männer, denen ich helfe, schlafen.", "Die Männer, welchen ich helfe, schlafen."},
    ),
    (  # the subject of the infinitive is not said, so nothing is to be chosen about it
        sentence(clause("5 uncles", "wake up"), "to", clause("5 uncles", "tidy up", "the room")),
        {
            f"{five} Onkel wachen auf, um {room} aufzuräumen."
            for five in ("Fünf", "5")
            for room in ("das Zimmer", "den Raum")
        },
    ),
    (  # the pronoun follows the synonym
        both(be("the sofa", "new"), "and", be(it("sofa"), "small")),
        {"Das Sofa ist neu, und es ist klein.", "Die Couch ist neu, und sie ist klein."},
    ),
    (
        sentence(clause("he", "buy", "120 eggs")),
        {
            "Er kauft hundertzwanzig Eier.",
            "Er kauft einhundertzwanzig Eier.",
            "Er kauft 120 Eier.",
        },
    ),
    (
        sentence(clause("we", "sleep", time=Date(21, 1))),
        {
            "Wir schlafen am einundzwanzigsten Januar.",
            "Wir schlafen am 21. Januar.",
            "Am einundzwanzigsten Januar schlafen wir.",
            "Am 21. Januar schlafen wir.",
        },
    ),
]


@pytest.mark.parametrize(
    ("derivation", "german"), ALTERNATIVES, ids=[min(german)[:20] for _, german in ALTERNATIVES]
)
def test_alternatives_by_hand(derivation, german):
    everything = all_german(derivation)
    assert len(everything) == len(german)
    assert set(everything) == german


def test_entropy_by_hand():
    """Entropies worked out on paper for two and three options."""
    assert entropy(0.0, 2) == entropy(0.0, 3) == 0.0
    assert entropy(1.0, 2) == 1.0
    assert entropy(1.0, 3) == pytest.approx(math.log2(3))
    assert entropy(0.5, 2) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert entropy(0.5, 3) == pytest.approx(2 / 3 * math.log2(3 / 2) + 1 / 3 * math.log2(6))


@pytest.mark.parametrize("ambiguity", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("vocabulary", [0.25, 1.0])
def test_entropy_by_enumeration(ambiguity, vocabulary):
    config = GrammarConfig(vocabulary=vocabulary, ambiguity=ambiguity, seed=3)
    corpus = Grammar("train", 150, config)
    enumerated = 0
    for i in range(len(corpus)):
        usual = Choices()
        corpus.derivation(i).german(usual)
        if math.prod(usual.sizes) > 200:
            continue
        enumerated += 1
        everything = all_german(corpus.derivation(i))
        assert len(set(everything)) == len(everything), "two answers, one sentence"
        alternatives = dict(corpus.alternatives(i))
        if ambiguity == 0:
            assert list(alternatives) == [everything[0]]
        else:
            assert set(alternatives) == set(everything)
        chances = alternatives.values()
        assert sum(chances) == pytest.approx(1)
        bits = -sum(p * math.log2(p) for p in chances)
        assert corpus.entropy(i) == pytest.approx(bits, abs=1e-9)
        german = corpus[i][1]
        assert corpus.log2_probability(i) == pytest.approx(math.log2(alternatives[german]))
    assert enumerated > 100


def test_targets_follow_the_stated_distribution():
    """The mean of -log2 P(target) is the mean entropy, up to sampling error."""
    corpus = Grammar("train", 2000, GrammarConfig(ambiguity=0.5))
    surprise = np.array([-corpus.log2_probability(i) for i in range(len(corpus))])
    bits = np.array([corpus.entropy(i) for i in range(len(corpus))])
    error = (surprise - bits).std() / math.sqrt(len(corpus))
    assert abs(surprise.mean() - bits.mean()) < 4 * error
    assert 1 < bits.mean() < 4


def test_answers_are_independent_coins():
    """Frequencies of one sentence's translations against their probabilities: chi-square."""
    derivation, german = ALTERNATIVES[0]
    dice, ambiguity, draws = Dice("chi-square"), 0.6, 6000
    counts = dict.fromkeys(german, 0)
    for _ in range(draws):
        choices = Choices(lambda _, k: dice.below(k) if dice.chance(ambiguity) else 0)
        counts[derivation.german(choices)] += 1
    # arrangement (3), verb (2), preterite or perfect (2)
    first = {2: 0.7, 3: 0.6}
    other = {2: 0.3, 3: 0.2}
    expected = {}
    for text in german:
        chance = first[2] if "ffne" in text else other[2]
        chance *= other[2] if " hat " in text else first[2]
        chance *= first[3] if text.startswith("Gestern") else other[3]
        expected[text] = chance * draws
    assert sum(expected.values()) == pytest.approx(draws)
    square = sum((counts[text] - expected[text]) ** 2 / expected[text] for text in german)
    assert square < 31.3  # 11 degrees of freedom, p = 0.001


def test_without_ambiguity_german_is_a_function():
    corpus = Grammar("train", 300)
    for i in range(300):
        assert corpus[i][1] == corpus.derivation(i).german(Choices())
        assert corpus.entropy(i) == corpus.log2_probability(i) == 0
        assert corpus.references(i) == [corpus[i][1]]


def test_ambiguity_leaves_english_alone_and_grows():
    corpora = [Grammar("train", 300, GrammarConfig(ambiguity=a)) for a in (0, 0.25, 0.5, 1)]
    english = [[pair[0] for pair in corpus] for corpus in corpora]
    assert all(side == english[0] for side in english)
    for i in range(300):
        entropies = [corpus.entropy(i) for corpus in corpora]
        assert entropies == sorted(entropies)
    different = [sum(corpus[i][1] != corpora[0][i][1] for i in range(300)) for corpus in corpora]
    assert different == sorted(different)
    assert different[-1] > 150


def test_references():
    corpus = Grammar("test", 60, GrammarConfig(ambiguity=0.5, length=3))
    for i in range(60):
        references = corpus.references(i, most=5)
        assert references[0] == corpus[i][1]
        assert len(set(references)) == len(references) <= 5
        if corpus.entropy(i) > 4:
            assert len(references) == 5
        possible = {german for german, _ in itertools.islice(corpus.alternatives(i), 6)}
        assert set(references[1:]) <= possible
    with pytest.raises(ValueError, match="positive number of references, not 0"):
        corpus.references(0, most=0)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_english_sentence_has_one_derivation(length):
    """With next to no words sentences come again; they must bring the same German, all of it."""
    seen: dict[str, tuple] = {}
    repeats = 0
    for i in range(4000):
        derivation = Derivation(f"unique/{i}", lexicon(0.01), length).sentence()
        english = derivation.english()
        usual, last = Choices(), Choices(lambda _, size: size - 1)
        german = (derivation.german(usual), derivation.german(last), tuple(usual.sizes))
        repeats += english in seen
        assert seen.setdefault(english, german) == german
    assert repeats > {1: 50, 2: 15, 3: 4}[length], "too few to show anything"


def test_english_forms_belong_to_one_word():
    """No form is two verbs, two tenses, or a verb and something else."""
    verbs: dict[str, set] = {}
    for (name, frame), verb in VERBS.items():
        for tense in ("base", "past", "participle"):
            verbs.setdefault(getattr(verb, tense), set()).add((name, frame, tense))
        assert verb.base != verb.past
    for entries in verbs.values():
        tenses = {tense for _, _, tense in entries}
        assert tenses in (
            {"base"},
            {"past"},
            {"participle"},
            {"past", "participle"},
            {"base", "participle"},
        )
        # go out and go into are told apart by what follows
        assert len({name.split()[0] for name, _, _ in entries}) == 1
    verbal = {*verbs, *map(forms.english_third, verbs)}
    others = [*NOUNS, *(plural for plural in PLURALS if plural not in NOUNS), *ADJECTIVES]
    assert len({*others, *DETERMINERS} - verbal) == len(others) + len(DETERMINERS)

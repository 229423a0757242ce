"""Noun phrases and pronouns. Each says itself in English and in German, side by side.

English is a function of the derivation; German is a function of the derivation and of `choose`
(`nar.data.grammar.choices`), which is asked wherever German has real alternatives.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nar.data.grammar.choices import Choices
from nar.data.grammar.inflection import (
    ARTICLE,
    CONTRACTIONS,
    RELATIVE,
    STRONG,
    GermanNoun,
    adjective_ending,
    ein_ending,
    english_number,
    german_number,
    inflect,
)
from nar.data.grammar.lexicon import Noun, Word

if TYPE_CHECKING:
    from nar.data.grammar.clauses import Clause

HE, THEY = 2, 5  # persons, as in the inflection
CASES = ("nom", "acc", "dat")

# Pronoun by name -> person; "you" is du, ihr or Sie in German.
PERSONS = {
    "I": 0, "du": 1, "he": HE, "she": HE, "it": HE, "we": 3, "ihr": 4, "you": 4, "they": THEY,
    "Sie": THEY,
}  # fmt: skip
# nominative, accusative, possessive
ENGLISH_PRONOUNS = {
    "I": ("I", "me", "my"),
    "you": ("you", "you", "your"),
    "he": ("he", "him", "his"),
    "she": ("she", "her", "her"),
    "it": ("it", "it", "its"),
    "we": ("we", "us", "our"),
    "they": ("they", "them", "their"),
}
# nominative, accusative, dative, possessive
GERMAN_PRONOUNS = {
    "I": ("ich", "mich", "mir", "mein"),
    "du": ("du", "dich", "dir", "dein"),
    "he": ("er", "ihn", "ihm", "sein"),
    "she": ("sie", "sie", "ihr", "ihr"),
    "it": ("es", "es", "ihm", "sein"),
    "we": ("wir", "uns", "uns", "unser"),
    "ihr": ("ihr", "euch", "euch", "euer"),
    "they": ("sie", "sie", "ihnen", "ihr"),
    "Sie": ("Sie", "Sie", "Ihnen", "Ihr"),
}
POSSESSORS = {forms[2]: name for name, forms in ENGLISH_PRONOUNS.items()}
BY_GENDER = {"m": "he", "f": "she", "n": "it"}


def german_name(pronoun: str, choose: Choices) -> str:
    """The German pronoun, by name: one form of address for all the you and your of a sentence."""
    return choose("du", "ihr", "Sie", about="you") if pronoun == "you" else pronoun


def german_noun(noun: Noun, choose: Choices) -> GermanNoun:
    """The German noun: one for all the places where the English one stands."""
    return choose(*noun.german, about=noun)


class Nominal(Protocol):
    """What can be a subject or an object: a noun phrase or a pronoun of any kind."""

    @property
    def noun(self) -> Noun | None:
        """The noun that is meant, where there is one."""
        ...

    @property
    def person(self) -> int:
        """The person of the English verb."""
        ...

    def english(self, case: str) -> str:
        """The English words in a case (of which English knows nom and the rest)."""
        ...

    def german(self, case: str, choose: Choices, *, negated: bool = False) -> str:
        """The German words in a case; `negated` turns an indefinite article into kein."""
        ...


@dataclass(frozen=True)
class Pronoun:
    """A personal pronoun, and the noun for which it stands: it takes the gender of that."""

    name: str
    noun: Noun | None = None

    @property
    def person(self) -> int:
        """The person of the English verb."""
        return PERSONS[self.name]

    def english(self, case: str) -> str:
        """She, her."""
        return ENGLISH_PRONOUNS[self.name][0 if case == "nom" else 1]

    def german(self, case: str, choose: Choices, *, negated: bool = False) -> str:
        """Sie, sie, ihr."""
        name = german_name(self.name, choose)
        if name == "it" and self.noun is not None:
            name = BY_GENDER[german_noun(self.noun, choose).gender]
        return GERMAN_PRONOUNS[name][CASES.index(case)]


@dataclass(frozen=True)
class Question:
    """Who or what, as the subject or an object."""

    name: str
    noun: None = None
    person: int = HE

    def english(self, case: str) -> str:
        """Who, whom; what."""
        return "whom" if self.name == "who" and case != "nom" else self.name

    def german(self, case: str, choose: Choices, *, negated: bool = False) -> str:
        """Wer, wen, wem; was."""
        return "was" if self.name == "what" else ("wer", "wen", "wem")[CASES.index(case)]


@dataclass(frozen=True)
class Relative:
    """The relative pronoun of a noun: who, whom for people, that for everything else."""

    noun: Noun
    plural: bool = False

    @property
    def person(self) -> int:
        """The person of the English verb."""
        return THEY if self.plural else HE

    def english(self, case: str) -> str:
        """Who, whom, that; whose as the case "gen"."""
        if case == "gen":
            return "whose"
        return "that" if self.noun.kind != "person" else "who" if case == "nom" else "whom"

    def german(self, case: str, choose: Choices, *, negated: bool = False) -> str:
        """Der or welcher, dem, dessen: gender and number of the noun, case of its own clause."""
        gender = "p" if self.plural else german_noun(self.noun, choose).gender
        if case == "gen":
            return RELATIVE[case][gender]
        return choose(RELATIVE[case][gender], f"welch{STRONG[case][gender]}")


@dataclass(frozen=True, kw_only=True)
class NounPhrase:
    """Determiner, adjectives, noun and relative clause.

    Attributes:
      noun: the noun.
      determiner: the, a, this (in the plural these), every, many, my ... their, or "" for none.
      plural: the number.
      adjectives: in their order, which is the same in German.
      count: a number in the place of the determiner, 0 for none.
      relative: a clause whose `front` is a Relative of this noun, or has one as owner.
      owner: whose dog: the relative pronoun in the place of the determiner.
    """

    noun: Noun
    determiner: str = "the"
    plural: bool = False
    adjectives: tuple[Word, ...] = ()
    count: int = 0
    relative: "Clause | None" = None
    owner: Relative | None = None

    @property
    def person(self) -> int:
        """The person of the English verb."""
        return THEY if self.plural else HE

    @property
    def definite(self) -> bool:
        """False for phrases that like to stand late in a German clause."""
        known = self.determiner in ("the", "this", *POSSESSORS) and not self.count
        return known and self.relative is None

    @property
    def deniable(self) -> bool:
        """True where not any is kein: a dog, dogs, water."""
        return self.determiner in ("a", "") and not self.count and self.owner is None

    def english(self, case: str) -> str:
        """A small dog that sleeps."""
        noun = self.noun.plural if self.plural else self.noun.singular
        rest = " ".join((*(adjective.english for adjective in self.adjectives), noun))
        determiner = self.determiner
        if self.owner is not None:
            determiner = self.owner.english("gen")
        elif self.count:
            determiner = english_number(self.count)
        elif determiner == "this" and self.plural:
            determiner = "these"
        elif determiner == "a" and rest[0] in "aeiou":
            determiner = "an"
        relative = self.relative.english() if self.relative is not None else ""
        return " ".join(filter(None, (determiner, rest, relative)))

    def german(self, case: str, choose: Choices, *, negated: bool = False) -> str:
        """Ein kleiner Hund, without the relative clause."""
        noun = german_noun(self.noun, choose)
        gender = "p" if self.plural else noun.gender
        determiner, marked = self._german_determiner(case, gender, choose, negated)
        ending = adjective_ending(case, gender, marked=marked)
        adjectives = [inflect(choose(*a.german, about=a), ending) for a in self.adjectives]
        return " ".join(filter(None, (determiner, *adjectives, noun.form(case, self.plural))))

    def german_relative(self, choose: Choices) -> str:
        """, der schläft, or nothing."""
        return f", {self.relative.german('relative', choose)} ," if self.relative else ""

    def _german_determiner(
        self, case: str, gender: str, choose: Choices, negated: bool
    ) -> tuple[str, bool]:
        """The determiner, and whether its ending already marks the case."""
        if self.owner is not None:
            return self.owner.german("gen", choose), False
        if self.count:
            return german_count(self.count, choose), False
        if self.determiner == "the":
            return ARTICLE[case][gender], True
        if self.determiner in ("this", "every"):
            stem = {"this": "dies", "every": "jed"}[self.determiner]
            return stem + STRONG[case][gender], True
        if self.determiner == "many":
            return "viel" + STRONG[case][gender], False
        if self.deniable and (not self.determiner and not negated):
            return "", False
        if self.deniable:
            stem = "kein" if negated else "ein"
        else:
            stem = GERMAN_PRONOUNS[german_name(POSSESSORS[self.determiner], choose)][3]
        ending = ein_ending(case, gender)
        return inflect(stem, ending), bool(ending)


def german_count(count: int, choose: Choices) -> str:
    """A number before a noun: in words (100 in two ways) or in digits."""
    words = (german_number(count), german_number(count, one_hundred=True))
    return choose(*dict.fromkeys(words), str(count))


def german_prepositional(
    preposition: str, nominal: Nominal, case: str, choose: Choices, *, negated: bool = False
) -> str:
    """Im Garten, auf mich; in dem Garten only where a relative clause says which."""
    text = nominal.german(case, choose, negated=negated)
    if not preposition:
        return text
    if isinstance(nominal, NounPhrase) and nominal.determiner == "the" and not nominal.relative:
        article, _, rest = text.partition(" ")
        pair = f"{preposition} {article}"
        if not nominal.count and nominal.owner is None and pair in CONTRACTIONS:
            return f"{CONTRACTIONS[pair]} {rest}"
    return f"{preposition} {text}"

"""Times and places. Each says itself in English and in German, side by side."""

from dataclasses import dataclass
from typing import Protocol

from nar.data.grammar.choices import Choices
from nar.data.grammar.inflection import (
    english_number,
    english_ordinal,
    german_number,
    german_ordinal,
)
from nar.data.grammar.lexicon import MONTHS, Word
from nar.data.grammar.nouns import NounPhrase, german_prepositional


class Adverbial(Protocol):
    """Time, place or frequency."""

    def english(self) -> str:
        """In the garden."""
        ...

    def german(self, choose: Choices) -> str:
        """Im Garten."""
        ...


@dataclass(frozen=True)
class Adverb:
    """An adverb or a fixed phrase of the lexicon."""

    word: Word

    def english(self) -> str:
        """Tomorrow."""
        return self.word.english

    def german(self, choose: Choices) -> str:
        """Morgen."""
        return choose(*self.word.german, about=self.word)


@dataclass(frozen=True)
class Date:
    """A day and a month (1 to 12)."""

    day: int
    month: int

    def english(self) -> str:
        """On the third of March."""
        return f"on the {english_ordinal(self.day)} of {MONTHS[self.month - 1][0]}"

    def german(self, choose: Choices) -> str:
        """Am dritten März, am 3. März."""
        day = choose(f"{german_ordinal(self.day)}en", f"{self.day}.")
        return f"am {day} {MONTHS[self.month - 1][1]}"


@dataclass(frozen=True)
class Clock:
    """A time of day: hour 1 to 12, minute a multiple of five."""

    hour: int
    minute: int

    def english(self) -> str:
        """At half past seven."""
        hour, following = english_number(self.hour), english_number(self.hour % 12 + 1)
        if self.minute == 0:
            return f"at {hour} o'clock"
        steps = {15: "a quarter", 30: "half", 45: "a quarter"}
        if self.minute <= 30:
            return f"at {steps.get(self.minute) or english_number(self.minute)} past {hour}"
        return f"at {steps.get(self.minute) or english_number(60 - self.minute)} to {following}"

    def german(self, choose: Choices) -> str:
        """Um halb acht, um sieben Uhr dreißig, um 7.30 Uhr."""
        hour = "ein" if self.hour == 1 else german_number(self.hour)
        if self.minute == 0:
            return f"um {choose(f'{hour} Uhr', german_number(self.hour), f'{self.hour} Uhr')}"
        this, following = german_number(self.hour), german_number(self.hour % 12 + 1)
        spoken = {
            15: f"Viertel nach {this}",
            25: f"fünf vor halb {following}",
            30: f"halb {following}",
            35: f"fünf nach halb {following}",
            45: f"Viertel vor {following}",
        }.get(self.minute)
        if spoken is None and self.minute < 30:
            spoken = f"{german_number(self.minute)} nach {this}"
        elif spoken is None:
            spoken = f"{german_number(60 - self.minute)} vor {following}"
        exact = f"{hour} Uhr {german_number(self.minute)}"
        return f"um {choose(spoken, exact, f'{self.hour}.{self.minute:02} Uhr')}"


@dataclass(frozen=True)
class Place:
    """A preposition, English and German, and where."""

    preposition: tuple[str, str]
    where: NounPhrase

    def english(self) -> str:
        """In the garden."""
        return f"{self.preposition[0]} {self.where.english('dat')}"

    def german(self, choose: Choices) -> str:
        """Im Garten."""
        return german_prepositional(self.preposition[1], self.where, "dat", choose)

"""Sentences: clauses put together. Each says itself in English and in German, side by side."""

import re
from dataclasses import dataclass

from nar.data.grammar.choices import Choices
from nar.data.grammar.clauses import Clause

# English -> German.  No word is as good as dass, and a main clause follows it, as it follows denn.
CONJUNCTIONS = {
    "because": ("weil", "da", "denn"),
    "although": ("obwohl", "obgleich"),
    "if": ("wenn", "falls"),
    "when": ("wenn",),
    "before": ("bevor", "ehe"),
    "while": ("während",),
    "that": ("dass", ""),
    "whether": ("ob",),
}
VERB_SECOND = ("denn", "")
JOINTS = {"and": ("und",), "but": ("aber", "doch")}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A main clause, alone or with one that hangs on it.

    Attributes:
      main: the main clause.
      conjunction: a key of CONJUNCTIONS, or "to" for a purpose (um ... zu).
      sub: the clause that hangs on it.
      sub_first: the subordinate clause comes first, in both languages.
    """

    main: Clause
    conjunction: str = ""
    sub: Clause | None = None
    sub_first: bool = False

    def english(self) -> str:
        """Because she sleeps, he works."""
        if self.sub is None:
            return self.main.english()
        if self.conjunction == "to":
            return f"{self.main.english()} in order {self.sub.english(infinitive=True)}"
        sub = f"{self.conjunction} {self.sub.english()}"
        main = self.main.english()
        return f"{sub} , {main}" if self.sub_first else f"{main} {sub}"

    def german(self, choose: Choices) -> str:
        """Weil sie schläft, arbeitet er."""
        if self.sub is None:
            return self.main.german("main", choose)
        if self.sub_first:
            return f"{self._german_sub(choose)} , {self.main.german('first', choose)}"
        return f"{self.main.german('main', choose)} , {self._german_sub(choose)}"

    def _german_sub(self, choose: Choices) -> str:
        assert self.sub is not None
        if self.conjunction == "to":
            return f"um {self.sub.german('zu', choose)}"
        options = CONJUNCTIONS[self.conjunction]
        if self.conjunction == "when" and self.sub.tense == "past":
            options = ("als",)
        elif self.conjunction == "that" and (self.main.negated or self.main.verb.base == "know"):
            options = ("dass",)
        elif self.sub_first:  # denn only ever explains what was said
            options = tuple(option for option in options if option != "denn")
        conjunction = choose(*options)
        form = "second" if conjunction in VERB_SECOND else "final"
        return f"{conjunction} {self.sub.german(form, choose)}"


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A question, or units joined by and or but."""

    units: tuple[Unit, ...]
    joints: tuple[str, ...] = ()
    question: bool = False

    def english(self) -> str:
        """The English sentence."""
        if self.question:
            return _written(self.units[0].main.english(question=True), "?")
        return _written(_joined([unit.english() for unit in self.units], self.joints), ".")

    def german(self, choose: Choices) -> str:
        """The German sentence, by the choices."""
        if self.question:
            main = self.units[0].main
            return _written(main.german("second" if main.front else "first", choose), "?")
        units = [unit.german(choose) for unit in self.units]
        joints = tuple(choose(*JOINTS[joint]) for joint in self.joints)
        return _written(_joined(units, joints), ".")


def _joined(units: list[str], joints: tuple[str, ...]) -> str:
    first, *rest = units
    return first + "".join(f" , {j} {unit}" for j, unit in zip(joints, rest, strict=True))


def _written(words: str, end: str) -> str:
    """Words and commas as text: one comma where two clauses end, none before the full stop."""
    text = re.sub(r"( ,)+", ",", re.sub(r"\s+", " ", words)).strip(" ,")
    return text[0].upper() + text[1:] + end

"""Clauses. Each says itself in English and in German, side by side."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

from nar.data.grammar.adverbials import Adverbial
from nar.data.grammar.choices import Choices
from nar.data.grammar.inflection import ENGLISH_BE, GermanVerb, english_third
from nar.data.grammar.lexicon import BE, SEIN, WILL, Modal, Verb, Word
from nar.data.grammar.nouns import (
    PERSONS,
    Nominal,
    NounPhrase,
    Pronoun,
    german_name,
    german_prepositional,
)

# The German middle field ------------------------------------------------------------------------

# What stands between the two parts of a German verb, in its usual order; a-: indefinite or heavy,
# object: who or what, which is never left here.
FIELD = (
    "object", "subject", "pronoun", "time", "often", "dat", "a-dat", "acc", "a-acc", "nicht",
    "place", "complement",
)  # fmt: skip
# Which of these may as well stand the other way round.
FREE = {
    *(frozenset((adverb, known)) for adverb in ("time", "often") for known in ("dat", "acc")),
    *(frozenset(("place", noun)) for noun in ("dat", "a-dat", "acc", "a-acc")),
}


@cache
def orders(parts: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """All orders of the parts (given in the order of FIELD) that German allows, the usual first."""
    if not parts:
        return ((),)
    return tuple(
        (part, *rest)
        for i, part in enumerate(parts)
        if all(frozenset((part, earlier)) in FREE for earlier in parts[:i])
        for rest in orders(parts[:i] + parts[i + 1 :])
    )


# Clauses ----------------------------------------------------------------------------------------

Tense = Literal["present", "past", "perfect"]
Form = Literal["main", "second", "first", "final", "relative", "zu"]


@dataclass(frozen=True, kw_only=True)
class Clause:
    """Subject, verb, objects and adverbials, in any clause form.

    Attributes:
      subject: the subject; of an infinitive, the one that it is understood to have.
      verb: the verb; BE takes `complement`.
      tense: present, past (German: preterite or perfect) or perfect.
      modal: a modal verb or WILL (German: werden or, where there is a time, the present).
      objects: one for each slot of the verb.
      complement: the predicate adjective.
      negated: not; in German nicht, or kein before an indefinite object without preposition.
      often: an adverb of frequency; not together with `time` or `negated`.
      place: where.
      time: when.
      front: what English puts first: subject, time, place, object (the last one, in questions
        and relative clauses), or "" in a yes-no question.
    """

    subject: Nominal
    verb: Verb
    tense: Tense = "present"
    modal: Modal | None = None
    objects: tuple[Nominal, ...] = ()
    complement: Word | None = None
    negated: bool = False
    often: Adverbial | None = None
    place: Adverbial | None = None
    time: Adverbial | None = None
    front: str = "subject"

    # English: front (auxiliary) subject auxiliary not often verb object particle object place time

    def english(self, *, question: bool = False, infinitive: bool = False) -> str:
        """The clause as a statement (or relative clause), as a question, or to sleep."""
        inverted = question and self.front != "subject"
        auxiliary, verbs = self._english_verbs(support=inverted or self.negated)
        if infinitive:
            auxiliary, verbs = "", ["to", self.verb.base]
        light, heavy = [], []  # picks her up, picks up the child
        for slot, nominal in zip(self.verb.slots, self.objects, strict=True):
            if isinstance(nominal, Pronoun) and not slot.english:
                light.append(nominal.english(slot.case))
            else:
                heavy += [slot.english, nominal.english(slot.case)]
        parts = {
            "subject": "" if infinitive else self.subject.english("nom"),
            "object": heavy.pop() if self.front == "object" else "",
            "place": self.place.english() if self.place else "",
            "time": self.time.english() if self.time else "",
        }
        words = (
            parts.pop(self.front, ""),
            auxiliary if inverted else "",
            parts.get("subject", ""),
            auxiliary if not inverted else "",
            "not" if self.negated else "",
            self.often.english() if self.often else "",
            *verbs,
            *light,
            self.verb.particle,
            *heavy,
            self.complement.english if self.complement else "",
            parts.get("place", ""),
            parts.get("time", ""),
        )
        return " ".join(filter(None, words)).replace("can not", "cannot")

    def _english_verbs(self, support: bool) -> tuple[str, list[str]]:
        """The auxiliary ("" without) and the other verbs; `support`: there has to be one (do)."""
        person, past, verb = self.subject.person, self.tense == "past", self.verb
        if self.modal and self.modal.auxiliary:
            return self.modal.past if past else self.modal.present, [verb.base]
        if self.tense == "perfect":
            return _english_finite("have", "had", False, person), [verb.participle]
        if self.modal:
            head, head_past = self.modal.present.split()[0], self.modal.past.split()[0]
            rest = ["to", verb.base]
        elif verb is BE:
            return ENGLISH_BE[past][person], []
        else:
            head, head_past, rest = verb.base, verb.past, []
        if support:
            return _english_finite("do", "did", past, person), [head, *rest]
        return "", [_english_finite(head, head_past, past, person), *rest]

    # German: front verb [subject pronoun time often dat acc nicht place complement] verbs, relative

    def german(self, form: Form, choose: Choices) -> str:
        """The clause in one of its forms.

        Args:
          form: main (verb second, after anything), second (verb second, after `front`), first
            (verb first), final (verb last), relative (verb last, after `front`), zu (infinitive).
          choose: decides between the alternatives.
        """
        verb = choose(*self.verb.german, about=self.verb)
        finite, rest = self._german_verbs(verb, choose)
        parts = self._german_parts(choose, subject=form != "zu")
        arrangement = choose(*self._arrangements(form, tuple(p for p in FIELD if p in parts)))
        words = [parts[part] for part in arrangement]
        if form == "zu":
            words.append(verb.zu)
        elif form in ("final", "relative"):
            words.append(rest + finite if rest == verb.prefix else f"{rest} {finite}")
        else:
            words.insert(0 if form == "first" else 1, finite)
            words.append(rest)
        relative = [o.german_relative(choose) for o in self.objects if isinstance(o, NounPhrase)]
        return " ".join(filter(None, (*words, *relative)))

    def _arrangements(self, form: Form, parts: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The orders of the parts; the first stands before the finite verb, if the form has one."""
        if form in ("first", "final", "zu"):
            return list(orders(parts))
        fronts = [self.front]
        if form == "main":
            fronts += [p for p in ("subject", "time", "place") if p in parts and p != self.front]
        return [
            (front, *order)
            for front in fronts
            for order in orders(tuple(p for p in parts if p != front))
        ]

    def _german_verbs(self, verb: GermanVerb, choose: Choices) -> tuple[str, str]:
        """The finite verb, and what closes the clause: prefix, participle or infinitive."""
        person, past = german_person(self.subject, choose), self.tense == "past"
        present = self.modal is WILL and self.time is not None and choose(False, True)
        if self.modal and not present:
            return self.modal.german.finite(past, person), verb.joined(verb.infinitive)
        perfect = self.tense == "perfect"
        if past and self.verb is not BE:
            perfect = choose(False, True)
        if perfect:
            auxiliary = SEIN if verb.auxiliary == "sein" else HABEN
            return auxiliary.finite(False, person), verb.joined(verb.participle)
        return verb.finite(past, person), verb.prefix

    def _german_parts(self, choose: Choices, *, subject: bool) -> dict[str, str]:
        """The parts of the clause by their place in FIELD, with or without the subject."""
        parts = {}
        if subject:  # an unspoken one must not be asked about: no choice without a difference
            parts["subject"] = self.subject.german("nom", choose)
            if isinstance(self.subject, NounPhrase):
                parts["subject"] += f" {self.subject.german_relative(choose)}"
        if self.time:
            parts["time"] = self.time.german(choose)
        if self.often:
            parts["often"] = self.often.german(choose)
        negated = self.negated
        for slot, nominal in zip(self.verb.slots, self.objects, strict=True):
            denied = False
            if self.front == "object" and slot is self.verb.slots[-1]:
                part = "object"
            elif slot.german:
                part = "complement"
            elif isinstance(nominal, NounPhrase):
                part = slot.case if nominal.definite else f"a-{slot.case}"
                denied = negated and nominal.deniable
                negated = negated and not denied
            else:
                part = "pronoun"
            parts[part] = german_prepositional(
                slot.german, nominal, slot.case, choose, negated=denied
            )
        if self.complement:
            parts["complement"] = choose(*self.complement.german, about=self.complement)
        if negated:
            parts["nicht"] = "nicht"
        if self.place:
            parts["place"] = self.place.german(choose)
        return parts


HABEN = GermanVerb("haben", "hat", "hatte", "gehabt")


def german_person(subject: Nominal, choose: Choices) -> int:
    """The person of the German verb: that of du, ihr or Sie for you."""
    if isinstance(subject, Pronoun):
        return PERSONS[german_name(subject.name, choose)]
    return subject.person


def _english_finite(base: str, past_form: str, past: bool, person: int) -> str:
    if past:
        return past_form
    return english_third(base) if person == 2 else base

"""The random derivation of a sentence: which rule applies how often. Meaning only, no words."""

from collections.abc import Sequence
from dataclasses import replace

from nar.data.grammar.adverbials import Adverb, Adverbial, Clock, Date, Place
from nar.data.grammar.clauses import Clause, Tense
from nar.data.grammar.dice import Dice
from nar.data.grammar.lexicon import (
    BE,
    MODALS,
    MONTHS,
    PREPOSITIONS,
    WILL,
    Lexicon,
    Modal,
    Noun,
    Verb,
    Word,
)
from nar.data.grammar.nouns import Nominal, NounPhrase, Pronoun, Question, Relative
from nar.data.grammar.sentences import Sentence, Unit

# How often each alternative of a rule is taken, relative to the others.
FRAMES = {
    "intransitive": 4, "accusative": 5, "dative": 2, "ditransitive": 2, "prepositional": 2,
    "directional": 2, "copula": 1,
}  # fmt: skip
CONJUNCTIONS = {
    "because": 4, "although": 2, "when": 2, "if": 2, "before": 1, "while": 1, "that": 3,
    "whether": 1, "to": 2,
}  # fmt: skip
TENSES = {"simple": 5, "perfect": 2, "modal": 2, "will": 1}
TENSES_PAST = {"past": 4, "modal": 1}
QUESTIONS = {"": 5, "who": 1, "object": 3, "where": 1, "when": 1, "why": 1}
RELATIVES = {"subject": 4, "object": 3, "whose": 1}
SINGULAR = {"the": 12, "a": 10, "this": 2, "every": 1, "possessive": 6}
PLURAL = {"the": 6, "": 5, "this": 2, "many": 2, "possessive": 5, "count": 4}
MASS = {"the": 2, "": 3, "possessive": 1}
TIMES = {"adverb": 5, "clock": 3, "weekday": 2, "date": 2}

PRONOUNS = ("I", "you", "he", "she", "we", "they")
POSSESSIVES = ("my", "your", "his", "her", "our", "their")
ANIMATE = ("person", "animal")
THINGS = ("thing", "opening", "food", "drink")
WHERE, WHEN, WHY = Word("where", ("wo",)), Word("when", ("wann",)), Word("why", ("warum",))


class Derivation(Dice):
    """One sentence in the making.

    Args:
      key: the seed of all that follows.
      lexicon: the words.
      length: the most clauses to make; a question has one, and at most one relative clause.
    """

    def __init__(self, key: str, lexicon: Lexicon, length: int):
        super().__init__(key)
        self._lexicon = lexicon
        self._clauses = 1 + self.below(length)  # still to make
        self._past = self.chance(0.35)
        self._previous: Nominal | None = None  # the subject of the clause before

    # Sentences

    def sentence(self) -> Sentence:
        """Sentence: question | unit (and unit | but unit)*."""
        if self.chance(0.15):
            return Sentence(units=(Unit(main=self._question()),), question=True)
        units, joints = [self._unit()], []
        while self._clauses > 0:
            joints.append("and" if self.chance(0.6) else "but")
            units.append(self._unit())
        return Sentence(units=tuple(units), joints=tuple(joints))

    def _unit(self) -> Unit:
        """Unit: clause | clause because clause | because clause clause | says that clause."""
        self._clauses -= 1
        if self._clauses <= 0 or self.chance(0.3):
            return Unit(main=self._main())
        self._clauses -= 1
        conjunction = self.weighted(CONJUNCTIONS)
        if conjunction == "if" and self._past:  # "if he slept" is not about the past
            conjunction = "when"
        if conjunction in ("that", "whether"):
            main = self._core(verbs=self._lexicon.verbs[conjunction])
            return Unit(main=main, conjunction=conjunction, sub=self._subordinate())
        if conjunction == "to":
            main = self._main(acting=True)
            purpose = self._core(subject=main.subject, acting=True, infinitive=True)
            return Unit(main=main, conjunction="to", sub=self._placed(purpose))
        will = conjunction in ("because", "although")
        if self.chance(0.5):
            sub = self._subordinate(will)
            return Unit(main=self._subordinate(), conjunction=conjunction, sub=sub, sub_first=True)
        main = self._main()
        return Unit(main=main, conjunction=conjunction, sub=self._subordinate(will))

    # Clauses

    def _main(self, acting: bool = False) -> Clause:
        """Main: core place time | time core place | place core time."""
        clause = self._timed(self._placed(self._core(acting=acting)), heavy=True)
        if clause.time and (_heavy(clause) or self.chance(0.35)):
            return replace(clause, front="time")
        if clause.place and self.chance(0.2):
            return replace(clause, front="place")
        return clause

    def _subordinate(self, will: bool = True) -> Clause:
        """Subordinate: core place time."""
        return self._timed(self._placed(self._core(will=will)))

    def _question(self) -> Clause:
        """Question: core | who core | whom core | where core | when core | why core."""
        self._clauses -= 1
        asked = self.weighted(QUESTIONS)
        if asked == "who":
            return self._timed(self._placed(self._core(subject=Question("who"))))
        if asked == "object":
            who = self.chance(0.5)
            verbs = self._verbs_taking(("person",) if who else THINGS)
            core = self._core(verbs=verbs, final=Question("who" if who else "what"))
            return self._timed(self._placed(core))
        core = self._core()
        if asked == "where" and _placeable(core.verb):
            return replace(core, place=Adverb(WHERE), front="place")
        if asked == "when" and not core.verb.stative and core.tense != "perfect":
            return replace(self._placed(core), time=Adverb(WHEN), front="time")
        if asked:
            return replace(self._placed(core), time=Adverb(WHY), front="time")
        return self._timed(self._placed(replace(core, front="")))

    def _relative(self, noun: Noun, plural: bool) -> Clause:
        """Relative: who core | whom core | whose noun core."""
        self._clauses -= 1
        before, self._previous = self._previous, None  # no pronoun leads out of it
        clauses, self._clauses = self._clauses, 0  # and no other one is in it
        pronoun = Relative(noun, plural)
        shape = self.weighted(RELATIVES)
        verbs = self._verbs_taking((noun.kind,))
        if shape == "object" and verbs:
            core = self._core(verbs=verbs, final=pronoun)
        elif shape == "whose" and noun.kind in ANIMATE:
            owned = self._noun_phrase(("animal",), without=(noun,))
            subject = replace(owned, owner=pronoun, determiner="the", count=0)
            core = self._core(subject=subject)
        else:
            core = self._core(subject=pronoun)
        clause = self._timed(self._placed(core))
        self._previous, self._clauses = before, clauses
        return clause

    def _core(
        self,
        *,
        subject: Nominal | None = None,
        verbs: Sequence[Verb] = (),
        final: Nominal | None = None,
        acting: bool = False,
        will: bool = True,
        infinitive: bool = False,
    ) -> Clause:
        """Core: subject verb objects.

        Args:
          subject: the subject, if it is known already.
          verbs: what to choose the verb from, if not from all.
          final: the last object, if it is known already; it is what the clause puts first.
          acting: people or animals do something.
          will: the future may be used.
          infinitive: has no tense and no negation.
        """
        kinds = ANIMATE if acting else BE.subjects
        if subject is None and self._previous is not None and self.chance(0.5):
            pronoun = _pronoun(self._previous)
            possible = not verbs or any(_kind(pronoun) in verb.subjects for verb in verbs)
            if possible and _kind(pronoun) in kinds:
                subject = pronoun
        if subject is not None:
            kinds = (_kind(subject),)
        verb = self._verb(verbs, kinds, acting)
        if subject is None:
            subject = self._subject([kind for kind in verb.subjects if kind in kinds])
        self._previous = subject
        tense, modal = ("present", None) if infinitive else self._tense(verb, _kind(subject), will)
        complement = None
        if verb is BE:
            complement = self.among(self._lexicon.adjectives[_kind(subject)])
        objects = self._objects(verb, subject, final)
        return Clause(
            subject=subject,
            verb=verb,
            tense=tense,
            modal=modal,
            objects=objects,
            complement=complement,
            negated=not infinitive and self.chance(0.12) and _can_deny(subject, objects),
            front="object" if final is not None else "subject",
        )

    def _tense(self, verb: Verb, kind: str, will: bool) -> tuple[Tense, Modal | None]:
        """Tense: present | past | perfect | modal | will."""
        choice = self.weighted(TENSES_PAST if self._past else TENSES)
        if choice == "modal" and not verb.stative:
            fits = [modal for modal in MODALS if kind in ANIMATE or not modal.animate]
            if self._past:
                return "past", self.among([modal for modal in fits if modal.past])
            return "present", self.among(fits)
        if choice == "will" and will:
            return "present", WILL
        if choice == "perfect" and not verb.stative:
            return "perfect", None
        return "past" if self._past else "present", None

    def _verb(self, verbs: Sequence[Verb], kinds: Sequence[str], acting: bool) -> Verb:
        """A verb, of these if there are any, for one of these kinds of subject."""
        if verbs:
            return self.among([verb for verb in verbs if {*kinds} & {*verb.subjects}])
        frames = {
            frame: [
                verb
                for verb in self._lexicon.verbs[frame]
                if {*kinds} & {*verb.subjects} and not (acting and (verb.stative or verb is BE))
            ]
            for frame in FRAMES
        }
        return self.among(frames[self.weighted({f: FRAMES[f] for f in FRAMES if frames[f]})])

    def _verbs_taking(self, kinds: Sequence[str]) -> list[Verb]:
        """The verbs that a noun of one of these kinds may be the last object of."""
        return [
            verb
            for frame in ("accusative", "dative", "ditransitive", "prepositional")
            for verb in self._lexicon.verbs[frame]
            if {*kinds} & {*verb.slots[-1].kinds}
        ]

    # Adverbials

    def _placed(self, clause: Clause) -> Clause:
        """Place: in the garden, unless a relative clause before it would swallow it."""
        if _heavy(clause) or not _placeable(clause.verb):
            return clause
        if not self.chance(0.25 if clause.objects else 0.5):
            return clause
        preposition = PREPOSITIONS[0] if self.chance(0.6) else self.among(PREPOSITIONS)
        where = self._noun_phrase(("place",), plural=0.1)
        return replace(clause, place=Place(preposition, where))

    def _timed(self, clause: Clause, heavy: bool = False) -> Clause:
        """Time: often | today | at half past seven | on Monday | on the third of March."""
        if not clause.negated and self.chance(0.12):
            return replace(clause, often=Adverb(self.among(self._lexicon.often)))
        unfit = clause.verb.stative or (_heavy(clause) and not heavy)
        if unfit or not self.chance(0.4 if clause.objects else 0.8):
            return clause
        future = clause.modal is not None and clause.tense == "present"
        exact = clause.verb is not BE and clause.tense != "perfect"
        time = self._time("future" if future else clause.tense, exact)
        if clause.negated and time.english().startswith("every"):  # not every day
            return clause
        return replace(clause, time=time)

    def _time(self, tense: str, exact: bool) -> Adverbial:
        """Time: adverb | clock | weekday | date."""
        kind = self.weighted(TIMES) if exact else "adverb"
        if kind == "clock":
            minute = self.among((0, 0, 15, 30, 30, 45, self.below(12) * 5))
            return Clock(self.below(12) + 1, minute)
        if kind == "date" and tense != "present":
            month = self.below(12) + 1
            return Date(self.below(MONTHS[month - 1][2]) + 1, month)
        if kind == "weekday":
            return Adverb(self.among(self._lexicon.weekdays))
        return Adverb(self.among([word for word in self._lexicon.times if tense in word.fits]))

    # Nominals

    def _subject(self, kinds: Sequence[str]) -> Nominal:
        """Subject: pronoun | noun phrase (relative)."""
        if "person" in kinds and self.chance(0.35):
            return Pronoun(self.among(PRONOUNS))
        return self._noun_phrase(kinds, relative=True)

    def _objects(self, verb: Verb, subject: Nominal, final: Nominal | None) -> tuple[Nominal, ...]:
        """Objects: pronoun | noun phrase, the last with a relative clause."""
        objects: list[Nominal] = []
        for slot in verb.slots:
            last = slot is verb.slots[-1]
            if last and final is not None:
                objects.append(final)
            elif "person" in slot.kinds and self.chance(0.2):
                objects.append(Pronoun(self.among(_other_pronouns(subject))))
            else:
                without = [nominal.noun for nominal in (subject, *objects)]
                objects.append(self._noun_phrase(slot.kinds, without=without, relative=last))
        return tuple(objects)

    def _noun_phrase(
        self,
        kinds: Sequence[str],
        *,
        without: Sequence[Noun | None] = (),
        plural: float = 0.3,
        relative: bool = False,
    ) -> NounPhrase:
        """Noun phrase: determiner (adjective) noun (relative)."""
        kind = self.among(kinds)
        nouns = self._lexicon.nouns[kind]
        noun = self.among([noun for noun in nouns if noun not in without] or nouns)
        many = kind != "drink" and self.chance(plural)
        weights = PLURAL if many else SINGULAR if kind != "drink" else MASS
        determiner = self.weighted(weights)
        count = 0
        if determiner == "count":
            determiner, count = "", self._count()
        elif determiner == "possessive":
            determiner = self.among(POSSESSIVES)
        adjectives = ()
        if self.chance(0.4):
            adjectives = (self.among(self._lexicon.adjectives[kind]),)
        attached = relative and self._clauses > 0 and self.chance(0.3)
        return NounPhrase(
            noun=noun,
            determiner=determiner,
            plural=many,
            adjectives=adjectives,
            count=count,
            relative=self._relative(noun, many) if attached else None,
        )

    def _count(self) -> int:
        """A number from 2 to 999, mostly small; no 101, whose end German might inflect."""
        count = self.among((self.below(11) + 2, self.below(11) + 2, self.below(87) + 13))
        if self.chance(0.1):
            count += 100 * (self.below(9) + 1)
        return count


def _kind(nominal: Nominal) -> str:
    """The kind of what a nominal speaks of."""
    return nominal.noun.kind if nominal.noun is not None else "person"


def _pronoun(nominal: Nominal) -> Nominal:
    """The pronoun that takes up a subject."""
    if isinstance(nominal, NounPhrase):
        return Pronoun("they" if nominal.plural else nominal.noun.pronoun, nominal.noun)
    return nominal


def _other_pronouns(subject: Nominal) -> Sequence[str]:
    """The pronouns that may be the object beside this subject: nobody sees herself here."""
    name = subject.name if isinstance(subject, Pronoun) else ""
    same = {"I": ("I", "we"), "we": ("I", "we"), "you": ("you",)}.get(name, ())
    return [name for name in PRONOUNS if name not in same]


def _placeable(verb: Verb) -> bool:
    """True for verbs of events that have no place yet."""
    located = any("place" in slot.kinds for slot in verb.slots)
    return not verb.stative and verb is not BE and not located


def _heavy(clause: Clause) -> bool:
    """True where an object ends in a relative clause: what follows would belong to that."""
    return any(isinstance(o, NounPhrase) and o.relative is not None for o in clause.objects)


def _can_deny(subject: Nominal, objects: Sequence[Nominal]) -> bool:
    """True where not has one place in German: nicht, or kein before the last object."""
    phrases = [nominal for nominal in (subject, *objects) if isinstance(nominal, NounPhrase)]
    if any(phrase.count or phrase.determiner in ("many", "every") for phrase in phrases):
        return False
    return not any(isinstance(o, NounPhrase) and o.deniable for o in objects[:-1])

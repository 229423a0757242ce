"""A short hand for derivations, to write them beside the German they stand for."""

from nar.data.grammar.adverbials import Adverb, Clock, Place
from nar.data.grammar.clauses import Clause
from nar.data.grammar.lexicon import BE, MODALS, PREPOSITIONS, WILL, lexicon
from nar.data.grammar.nouns import PERSONS, NounPhrase, Pronoun, Relative
from nar.data.grammar.sentences import Sentence, Unit

WORDS = lexicon(1.0)
NOUNS = {noun.singular: noun for nouns in WORDS.nouns.values() for noun in nouns}
PLURALS = {noun.plural: noun for noun in NOUNS.values()}
ADJECTIVES = {word.english: word for words in WORDS.adjectives.values() for word in words}
ADVERBS = {word.english: word for word in (*WORDS.times, *WORDS.weekdays, *WORDS.often)}
DETERMINERS = ("the", "a", "this", "every", "many", "my", "your", "his", "her", "our", "their")
MODAL = {modal.present: modal for modal in (*MODALS, WILL)}
VERBS = {
    (" ".join(filter(None, (verb.base, verb.particle, *(slot.english for slot in verb.slots)))), (
        frame if frame in ("that", "whether") else ""
    )): verb
    for frame, verbs in WORDS.verbs.items()
    for verb in verbs
}  # fmt: skip


def noun_phrase(text: str, **more) -> NounPhrase:
    """`the old woman`, `3 dogs`, `cold milk`, `this cats` (these cats)."""
    *before, last = text.split()
    first = before.pop(0) if before and (before[0] in DETERMINERS or before[0].isdigit()) else ""
    count = int(first) if first.isdigit() else 0
    return NounPhrase(
        noun=NOUNS.get(last) or PLURALS[last],
        plural=last not in NOUNS,
        determiner="" if count else first,
        count=count,
        adjectives=tuple(ADJECTIVES[word] for word in before),
        **more,
    )


def nominal(what):
    if not isinstance(what, str):
        return what
    return Pronoun(what) if what in PERSONS else noun_phrase(what)


def adverbial(what):
    return Adverb(ADVERBS[what]) if isinstance(what, str) else what


def place(preposition: str, where: str) -> Place:
    return Place((preposition, dict(PREPOSITIONS)[preposition]), noun_phrase(where))


def clause(subject, verb: str, *objects, frame: str = "", **more) -> Clause:
    for key in ("time", "often"):
        if key in more:
            more[key] = adverbial(more[key])
    if "modal" in more:
        more["modal"] = MODAL[more["modal"]]
    return Clause(
        subject=nominal(subject),
        verb=VERBS[verb, frame],
        objects=tuple(nominal(o) for o in objects),
        **more,
    )


def be(subject, adjective: str, **more) -> Clause:
    return Clause(subject=nominal(subject), verb=BE, complement=ADJECTIVES[adjective], **more)


def sentence(main, conjunction="", sub=None, sub_first=False) -> Sentence:
    unit = Unit(main=main, conjunction=conjunction, sub=sub, sub_first=sub_first)
    return Sentence(units=(unit,))


def question(main, front="") -> Sentence:
    return Sentence(units=(Unit(main=Clause(**{**main.__dict__, "front": front})),), question=True)


def both(first, joint, second) -> Sentence:
    return Sentence(units=(Unit(main=first), Unit(main=second)), joints=(joint,))


def it(name: str) -> Pronoun:
    return Pronoun("it", NOUNS[name])


def relative(name: str, plural=False) -> Relative:
    return Relative(NOUNS[name], plural)


HALF_PAST_SEVEN = Clock(7, 30)

"""The built-in grammar against hand-written German, and its entropies against enumeration."""

import itertools
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from nar.data.grammar import Grammar, GrammarConfig, split_of
from nar.data.grammar import inflection as forms
from nar.data.grammar.adverbials import Adverb, Clock, Date, Place
from nar.data.grammar.choices import Choices, entropy
from nar.data.grammar.clauses import Clause, orders
from nar.data.grammar.derivation import Derivation
from nar.data.grammar.dice import Dice
from nar.data.grammar.lexicon import BE, MODALS, PREPOSITIONS, WILL, Word, lexicon
from nar.data.grammar.nouns import PERSONS, NounPhrase, Pronoun, Question, Relative
from nar.data.grammar.sentences import Sentence, Unit

# A short hand for derivations ------------------------------------------------------------------

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

# fmt: off
GOLD = [
    (sentence(clause("she", "see", "the small dog"), "because", clause("the old woman", "get up",
        time=HALF_PAST_SEVEN), sub_first=True),
     "Because the old woman gets up at half past seven, she sees the small dog.",
     "Weil die alte Frau um halb acht aufsteht, sieht sie den kleinen Hund."),
    # cases and frames
    (sentence(clause("the man", "help", "the child")),
     "The man helps the child.", "Der Mann hilft dem Kind."),
    (sentence(clause("the queen", "give", "the boys", "a red apple")),
     "The queen gives the boys a red apple.", "Die Königin gibt den Jungen einen roten Apfel."),
    (sentence(clause("every man", "trust", "his dog")),
     "Every man trusts his dog.", "Jeder Mann vertraut seinem Hund."),
    (sentence(clause("I", "dream of", "a expensive city")),
     "I dream of an expensive city.", "Ich träume von einer teuren Stadt."),
    (sentence(clause("many young girls", "think of", "he")),
     "Many young girls think of him.", "Viele junge Mädchen denken an ihn."),
    (sentence(clause("we", "drive into", "the city", time="today", front="time")),
     "Today we drive into the city.", "Heute fahren wir in die Stadt."),
    (sentence(clause("the cat", "run", place=place("in", "the small house"))),
     "The cat runs in the small house.", "Die Katze läuft im kleinen Haus."),
    (sentence(clause("the cat", "come into", "the small house")),
     "The cat comes into the small house.", "Die Katze kommt ins kleine Haus."),
    (sentence(clause("3 old bears", "follow", "this big elephants")),
     "Three old bears follow these big elephants.",
     "Drei alte Bären folgen diesen großen Elefanten."),
    (sentence(clause("the book", "belong to", "our neighbour")),
     "The book belongs to our neighbour.", "Das Buch gehört unserem Nachbarn."),
    # verb second
    (sentence(clause("my aunt", "buy", "a red umbrella", tense="past", time="yesterday",
        front="time")),
     "Yesterday my aunt bought a red umbrella.",
     "Gestern kaufte meine Tante einen roten Regenschirm."),
    (sentence(clause("a old dog", "sleep", place=place("in", "the garden"), front="place")),
     "In the garden an old dog sleeps.", "Im Garten schläft ein alter Hund."),
    (sentence(clause("he", "work", place=place("behind", "her house"), time="every day")),
     "He works behind her house every day.", "Er arbeitet jeden Tag hinter ihrem Haus."),
    # separable verbs
    (sentence(clause("he", "pick up", "I", tense="perfect")),
     "He has picked me up.", "Er hat mich abgeholt."),
    (sentence(clause("he", "pick up", "the child", tense="past", time="on Monday")),
     "He picked up the child on Monday.", "Er holte am Montag das Kind ab."),
    (sentence(clause("we", "get up", modal="want to", time=Clock(10, 15))),
     "We want to get up at a quarter past ten.", "Wir wollen um Viertel nach zehn aufstehen."),
    (sentence(clause("you", "invite", "the tired student", time="tomorrow", modal="will")),
     "You will invite the tired student tomorrow.",
     "Du wirst morgen den müden Studenten einladen."),
    (sentence(clause("the boy", "go into", "the city"), "to", clause("the boy", "go shopping")),
     "The boy goes into the city in order to go shopping.",
     "Der Junge geht in die Stadt, um einzukaufen."),
    (sentence(clause("she", "come into", "the park"), "to", clause("she", "talk to", "the doctor",
        place=place("next to", "the church"))),
     "She comes into the park in order to talk to the doctor next to the church.",
     "Sie kommt in den Park, um neben der Kirche mit dem Arzt zu sprechen."),
    # subordinate clauses
    (sentence(clause("she", "know", frame="that"), "that", clause("the concert", "begin",
        time=Date(3, 3))),
     "She knows that the concert begins on the third of March.",
     "Sie weiß, dass das Konzert am dritten März beginnt."),
    (sentence(clause("the teacher", "ask", frame="whether"), "whether", clause("the bus", "leave",
        tense="perfect")),
     "The teacher asks whether the bus has left.", "Der Lehrer fragt, ob der Bus abgefahren ist."),
    (sentence(clause("the queen", "dance", tense="past"), "when", clause("the king", "sleep",
        tense="past"), sub_first=True),
     "When the king slept, the queen danced.", "Als der König schlief, tanzte die Königin."),
    (sentence(clause("the horse", "drink", "fresh water"), "when", be(it("horse"), "tired")),
     "The horse drinks fresh water when it is tired.",
     "Das Pferd trinkt frisches Wasser, wenn es müde ist."),
    (sentence(clause("they", "close", "the windows"), "before", clause("the children",
        "fall asleep"), sub_first=True),
     "Before the children fall asleep, they close the windows.",
     "Bevor die Kinder einschlafen, schließen sie die Fenster."),
    (sentence(clause("I", "laugh"), "although", clause("you", "see", "I", modal="can")),
     "I laugh although you can see me.", "Ich lache, obwohl du mich sehen kannst."),
    # pronouns take the gender of their noun
    (both(be("the dog", "tired"), "and", clause(it("dog"), "sleep")),
     "The dog is tired, and it sleeps.", "Der Hund ist müde, und er schläft."),
    (both(be("the cat", "tired"), "but", clause(it("cat"), "run")),
     "The cat is tired, but it runs.", "Die Katze ist müde, aber sie läuft."),
    # relative clauses
    (sentence(clause(noun_phrase("the woman", relative=clause("the man", "help", relative("woman"),
        front="object")), "laugh")),
     "The woman whom the man helps laughs.", "Die Frau, der der Mann hilft, lacht."),
    (sentence(clause("I", "see", noun_phrase("the dogs", relative=clause(relative("dog", True),
        "sleep", place=place("in", "the house"))), tense="perfect")),
     "I have seen the dogs that sleep in the house.",
     "Ich habe die Hunde gesehen, die im Haus schlafen."),
    (sentence(clause(noun_phrase("the children", relative=clause("the teacher", "answer",
        relative("child", True), front="object")), "sing")),
     "The children whom the teacher answers sing.",
     "Die Kinder, denen der Lehrer antwortet, singen."),
    (sentence(clause(noun_phrase("the uncle", relative=clause(noun_phrase("the old cat",
        owner=relative("uncle")), "eat", "the egg")), "work")),
     "The uncle whose old cat eats the egg works.",
     "Der Onkel, dessen alte Katze das Ei isst, arbeitet."),
    (sentence(clause(noun_phrase("the doctor", relative=clause("she", "wait for",
        relative("doctor"), front="object")), "arrive", tense="perfect")),
     "The doctor whom she waits for has arrived.", "Der Arzt, auf den sie wartet, ist angekommen."),
    (sentence(be(noun_phrase("the book", relative=clause("he", "lend", "we", relative("book"),
        front="object")), "expensive")),
     "The book that he lends us is expensive.", "Das Buch, das er uns leiht, ist teuer."),
    # questions
    (question(clause("the woman", "see", "the boy")),
     "Does the woman see the boy?", "Sieht die Frau den Jungen?"),
    (question(clause("the trains", "arrive", tense="perfect")),
     "Have the trains arrived?", "Sind die Züge angekommen?"),
    (question(clause("the girl", "help", Question("who")), "object"),
     "Whom does the girl help?", "Wem hilft das Mädchen?"),
    (question(clause("the student", "wait for", Question("who"), tense="past"), "object"),
     "Whom did the student wait for?", "Auf wen wartete der Student?"),
    (question(clause("she", "give", "I", Question("what")), "object"),
     "What does she give me?", "Was gibt sie mir?"),
    (question(clause(Question("who"), "open", "the door", tense="past"), "subject"),
     "Who opened the door?", "Wer öffnete die Tür?"),
    (question(clause("the birds", "sleep", place=Adverb(Word("where", ("wo",)))), "place"),
     "Where do the birds sleep?", "Wo schlafen die Vögel?"),
    (question(clause("she", "call", "I", negated=True, time=Adverb(Word("why", ("warum",)))),
        "time"),
     "Why does she not call me?", "Warum ruft sie mich nicht an?"),
    # negation
    (sentence(clause("they", "buy", "a book", negated=True)),
     "They do not buy a book.", "Sie kaufen kein Buch."),
    (sentence(clause("they", "buy", "the book", negated=True, time="today")),
     "They do not buy the book today.", "Sie kaufen heute das Buch nicht."),
    (sentence(clause("he", "drink", "cold milk", negated=True, modal="may")),
     "He may not drink cold milk.", "Er darf keine kalte Milch trinken."),
    (sentence(clause("I", "work", negated=True, place=place("in", "the kitchen"))),
     "I do not work in the kitchen.", "Ich arbeite nicht in der Küche."),
    (sentence(clause("you", "forget", "your umbrella", negated=True, modal="can")),
     "You cannot forget your umbrella.", "Du kannst deinen Regenschirm nicht vergessen."),
    (sentence(clause("she", "wait for", "a bus", negated=True, modal="have to")),
     "She does not have to wait for a bus.", "Sie muss nicht auf einen Bus warten."),
    (sentence(clause("the lion", "help", "we", often="never")),
     "The lion never helps us.", "Der Löwe hilft uns nie."),
    # numbers and times
    (sentence(clause("21 students", "work", modal="have to")),
     "Twenty-one students have to work.", "Einundzwanzig Studenten müssen arbeiten."),
    (sentence(clause("she", "help", "235 children", tense="past")),
     "She helped two hundred and thirty-five children.",
     "Sie half zweihundertfünfunddreißig Kindern."),
    (sentence(clause("the film", "begin", tense="past", time=Clock(6, 25), front="time")),
     "At twenty-five past six the film began.", "Um fünf vor halb sieben begann der Film."),
]
# fmt: on


@pytest.mark.parametrize(("derivation", "english", "german"), GOLD, ids=[g[1] for g in GOLD])
def test_gold_pairs(derivation, english, german):
    assert derivation.english() == english
    assert derivation.german(Choices()) == german


# Forms, against tables written by hand -----------------------------------------------------------

NUMBERS = {
    0: ("zero", "null"),
    1: ("one", "eins"),
    7: ("seven", "sieben"),
    11: ("eleven", "elf"),
    12: ("twelve", "zwölf"),
    16: ("sixteen", "sechzehn"),
    17: ("seventeen", "siebzehn"),
    20: ("twenty", "zwanzig"),
    21: ("twenty-one", "einundzwanzig"),
    30: ("thirty", "dreißig"),
    45: ("forty-five", "fünfundvierzig"),
    66: ("sixty-six", "sechsundsechzig"),
    77: ("seventy-seven", "siebenundsiebzig"),
    100: ("one hundred", "hundert"),
    101: ("one hundred and one", "hunderteins"),
    116: ("one hundred and sixteen", "hundertsechzehn"),
    235: ("two hundred and thirty-five", "zweihundertfünfunddreißig"),
    600: ("six hundred", "sechshundert"),
    999: ("nine hundred and ninety-nine", "neunhundertneunundneunzig"),
}


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers(number):
    assert (forms.english_number(number), forms.german_number(number)) == NUMBERS[number]


def test_one_hundred():
    assert forms.german_number(100, one_hundred=True) == "einhundert"
    assert forms.german_number(131, one_hundred=True) == "einhunderteinunddreißig"
    assert forms.german_number(231, one_hundred=True) == "zweihunderteinunddreißig"


def test_number_words_are_distinct():
    for function in (forms.english_number, forms.german_number):
        assert len({function(number) for number in range(1000)}) == 1000


ORDINALS = {
    1: ("first", "erst"), 2: ("second", "zweit"), 3: ("third", "dritt"), 4: ("fourth", "viert"),
    5: ("fifth", "fünft"), 7: ("seventh", "siebt"), 8: ("eighth", "acht"), 9: ("ninth", "neunt"),
    12: ("twelfth", "zwölft"), 16: ("sixteenth", "sechzehnt"), 19: ("nineteenth", "neunzehnt"),
    20: ("twentieth", "zwanzigst"), 21: ("twenty-first", "einundzwanzigst"),
    30: ("thirtieth", "dreißigst"), 31: ("thirty-first", "einunddreißigst"),
}  # fmt: skip


@pytest.mark.parametrize("number", ORDINALS)
def test_ordinals(number):
    assert (forms.english_ordinal(number), forms.german_ordinal(number)) == ORDINALS[number]


@pytest.mark.parametrize("number", [-1, 1000])
def test_numbers_out_of_range(number):
    with pytest.raises(ValueError, match=f"from 0 to 999, not {number}"):
        forms.german_number(number)


CLOCK = [
    (1, 0, "at one o'clock", {"um ein Uhr", "um eins", "um 1 Uhr"}),
    (7, 5, "at five past seven", {"um fünf nach sieben", "um sieben Uhr fünf", "um 7.05 Uhr"}),
    (
        10,
        15,
        "at a quarter past ten",
        {"um Viertel nach zehn", "um zehn Uhr fünfzehn", "um 10.15 Uhr"},
    ),
    (12, 30, "at half past twelve", {"um halb eins", "um zwölf Uhr dreißig", "um 12.30 Uhr"}),
    (
        2,
        35,
        "at twenty-five to three",
        {"um fünf nach halb drei", "um zwei Uhr fünfunddreißig", "um 2.35 Uhr"},
    ),
    (
        3,
        45,
        "at a quarter to four",
        {"um Viertel vor vier", "um drei Uhr fünfundvierzig", "um 3.45 Uhr"},
    ),
    (
        12,
        50,
        "at ten to one",
        {"um zehn vor eins", "um zwölf Uhr fünfzig", "um 12.50 Uhr"},
    ),
]


@pytest.mark.parametrize(("hour", "minute", "english", "german"), CLOCK)
def test_clock(hour, minute, english, german):
    clock = Clock(hour, minute)
    assert clock.english() == english
    assert {clock.german(Choices(lambda _, size, i=i: i)) for i in range(3)} == german


def test_times_of_day_and_dates_are_distinct():
    clocks = [Clock(hour, minute) for hour in range(1, 13) for minute in range(0, 60, 5)]
    dates = [Date(day, month) for day in range(1, 32) for month in range(1, 13)]
    times = [*clocks, *dates]
    assert len({time.english() for time in times}) == len(times)
    assert len({time.german(Choices()) for time in times}) == len(times)


DECLENSION = {
    "the old man": ("der alte Mann", "den alten Mann", "dem alten Mann"),
    "the old woman": ("die alte Frau", "die alte Frau", "der alten Frau"),
    "the old child": ("das alte Kind", "das alte Kind", "dem alten Kind"),
    "the old men": ("die alten Männer", "die alten Männer", "den alten Männern"),
    "a old man": ("ein alter Mann", "einen alten Mann", "einem alten Mann"),
    "a old woman": ("eine alte Frau", "eine alte Frau", "einer alten Frau"),
    "a old child": ("ein altes Kind", "ein altes Kind", "einem alten Kind"),
    "old women": ("alte Frauen", "alte Frauen", "alten Frauen"),
    "cold tea": ("kalter Tee", "kalten Tee", "kaltem Tee"),
    "cold milk": ("kalte Milch", "kalte Milch", "kalter Milch"),
    "cold water": ("kaltes Wasser", "kaltes Wasser", "kaltem Wasser"),
    "our small dog": ("unser kleiner Hund", "unseren kleinen Hund", "unserem kleinen Hund"),
    "his new car": ("sein neues Auto", "sein neues Auto", "seinem neuen Auto"),
    "my red door": ("meine rote Tür", "meine rote Tür", "meiner roten Tür"),
    "their big eggs": ("ihre großen Eier", "ihre großen Eier", "ihren großen Eiern"),
    "this small bird": ("dieser kleine Vogel", "diesen kleinen Vogel", "diesem kleinen Vogel"),
    "this birds": ("diese Vögel", "diese Vögel", "diesen Vögeln"),
    "every young girl": ("jedes junge Mädchen", "jedes junge Mädchen", "jedem jungen Mädchen"),
    "many expensive lamps": ("viele teure Lampen", "viele teure Lampen", "vielen teuren Lampen"),
    "5 dark kitchens": ("fünf dunkle Küchen", "fünf dunkle Küchen", "fünf dunklen Küchen"),
    "the tired student": ("der müde Student", "den müden Studenten", "dem müden Studenten"),
    "a neighbour": ("ein Nachbar", "einen Nachbarn", "einem Nachbarn"),
}
DENIED = {
    "a old dog": ("kein alter Hund", "keinen alten Hund", "keinem alten Hund"),
    "old dogs": ("keine alten Hunde", "keine alten Hunde", "keinen alten Hunden"),
    "cold beer": ("kein kaltes Bier", "kein kaltes Bier", "keinem kalten Bier"),
}
EUER = {
    "your brother": ("euer Bruder", "euren Bruder", "eurem Bruder"),
    "your new house": ("euer neues Haus", "euer neues Haus", "eurem neuen Haus"),
    "your sisters": ("eure Schwestern", "eure Schwestern", "euren Schwestern"),
}


@pytest.mark.parametrize("phrase", DECLENSION)
def test_declension(phrase):
    german = [noun_phrase(phrase).german(case, Choices()) for case in ("nom", "acc", "dat")]
    assert tuple(german) == DECLENSION[phrase]


@pytest.mark.parametrize("phrase", DENIED)
def test_kein(phrase):
    cases = ("nom", "acc", "dat")
    german = [noun_phrase(phrase).german(case, Choices(), negated=True) for case in cases]
    assert tuple(german) == DENIED[phrase]


@pytest.mark.parametrize("phrase", EUER)
def test_euer(phrase):
    cases = ("nom", "acc", "dat")
    ihr = [noun_phrase(phrase).german(case, Choices(lambda *_: 1)) for case in cases]
    assert tuple(ihr) == EUER[phrase]


CONJUGATION = {
    "get up": "stehe stehst steht stehen steht stehen stand standest stand standen standet standen",
    "work": "arbeite arbeitest arbeitet arbeiten arbeitet arbeiten "
    "arbeitete arbeitetest arbeitete arbeiteten arbeitetet arbeiteten",
    "see": "sehe siehst sieht sehen seht sehen sah sahst sah sahen saht sahen",
    "eat": "esse isst isst essen esst essen aß aßest aß aßen aßt aßen",
    "invite": "lade lädst lädt laden ladet laden lud ludest lud luden ludet luden",
    "open": "öffne öffnest öffnet öffnen öffnet öffnen "
    "öffnete öffnetest öffnete öffneten öffnetet öffneten",
    "dance": "tanze tanzt tanzt tanzen tanzt tanzen tanzte tanztest tanzte tanzten tanztet tanzten",
    "call": "rufe rufst ruft rufen ruft rufen rief riefst rief riefen rieft riefen",
    "give": "gebe gibst gibt geben gebt geben gab gabst gab gaben gabt gaben",
}


@pytest.mark.parametrize("verb", CONJUGATION)
def test_conjugation(verb):
    german = next(v for (name, _), v in VERBS.items() if name.strip() == verb).german[0]
    finite = [german.finite(past, person) for past in (False, True) for person in range(6)]
    assert " ".join(finite) == CONJUGATION[verb]


PARTICIPLES = {
    "get up": ("aufgestanden", "aufzustehen", "sein"),
    "go shopping": ("eingekauft", "einzukaufen", "haben"),
    "repair": ("repariert", "zu reparieren", "haben"),
    "visit": ("besucht", "zu besuchen", "haben"),
    "sell": ("verkauft", "zu verkaufen", "haben"),
    "answer": ("geantwortet", "zu antworten", "haben"),
    "follow": ("gefolgt", "zu folgen", "sein"),
    "forget": ("vergessen", "zu vergessen", "haben"),
}


@pytest.mark.parametrize("verb", PARTICIPLES)
def test_participles(verb):
    german = VERBS[verb, ""].german[0]
    assert (german.joined(german.participle), german.zu, german.auxiliary) == PARTICIPLES[verb]


def test_english_forms():
    assert [forms.english_third(v) for v in ("see", "go", "watch", "carry", "play", "have")] == [
        "sees", "goes", "watches", "carries", "plays", "has",
    ]  # fmt: skip
    assert [forms.english_past(v) for v in ("open", "love", "carry", "play")] == [
        "opened", "loved", "carried", "played",
    ]  # fmt: skip
    nouns = ("dog", "box", "party", "boy", "sofa", "bus", "church")
    assert [forms.english_plural(n) for n in nouns] == [
        "dogs", "boxes", "parties", "boys", "sofas", "buses", "churches",
    ]  # fmt: skip


def test_orders_of_the_middle_field():
    assert orders(("subject", "time", "acc", "place")) == (
        ("subject", "time", "acc", "place"),
        ("subject", "time", "place", "acc"),
        ("subject", "acc", "time", "place"),
    )
    assert orders(("time", "a-acc", "nicht", "place")) == (("time", "a-acc", "nicht", "place"),)


# Ambiguity ---------------------------------------------------------------------------------------


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


# The corpus --------------------------------------------------------------------------------------

PINNED = [
    (
        "train",
        2,
        "A horse often went into the old house.",
        "Ein Pferd ist häufig ins alte Haus gegangen.",
    ),
    (
        "valid",
        3,
        "Did teachers pick up every child at five o'clock?",
        "Holten Lehrer um 5 Uhr jedes Kind ab?",
    ),
    (
        "test",
        5,
        "You did not say that you showed a child a lamp at eight o'clock.",
        "Du hast nicht gesagt, dass du um acht einem Kind eine Lampe zeigtest.",
    ),
]


@pytest.mark.parametrize(("split", "index", "english", "german"), PINNED)
def test_items_stay_what_they_are(split, index, english, german):
    """A change here is a change of everybody's data: say so."""
    assert Grammar(split, 10, GrammarConfig(ambiguity=0.5, length=3))[index] == (english, german)


def test_random_access_equals_iteration():
    corpus = Grammar("valid", 40, GrammarConfig(ambiguity=0.5))
    pairs = list(corpus)
    assert len(pairs) == len(corpus) == 40
    for i in np.random.default_rng(0).permutation(40):
        assert corpus[i] == pairs[i] == corpus[int(i) - 40]
    assert pickle.loads(pickle.dumps(corpus))[3] == pairs[3]


def test_large_corpora_cost_nothing():
    huge, small = Grammar("train", 10**15), Grammar("train", 10)
    assert huge[9] == small[9]
    assert huge[-1] == huge[10**15 - 1]


@pytest.mark.parametrize("index", [5, -6, 10**9])
def test_out_of_range(index):
    with pytest.raises(IndexError, match=f"item {index} of a corpus of 5 sentences"):
        Grammar("train", 5)[index]


def test_same_in_every_process():
    program = (
        "from nar.data.grammar import *\n"
        "corpus = Grammar('test', 20, GrammarConfig(ambiguity=0.7, length=3))\n"
        "print('\\n'.join('\\t'.join(pair) for pair in corpus))"
    )
    here = [*Grammar("test", 20, GrammarConfig(ambiguity=0.7, length=3))]
    setting = {
        "PYTHONHASHSEED": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), *sys.path))),
    }
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **setting},
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert [tuple(line.split("\t")) for line in there.splitlines()] == here


def test_splits_are_disjoint():
    """Also between seeds, lengths, vocabularies and ambiguities."""
    configs = [
        GrammarConfig(),
        GrammarConfig(seed=1, vocabulary=0.05, length=1),
        GrammarConfig(seed=2, vocabulary=0.05, length=1, ambiguity=1),
    ]
    english = {
        split: {
            Grammar(split, 10**6, config).derivation(i).english()
            for config in configs
            for i in range(size)
        }
        for split, size in (("train", 800), ("valid", 150), ("test", 150))
    }
    for one, other in itertools.combinations(english, 2):
        assert not english[one] & english[other]
    for split, sentences in english.items():
        assert all(split_of(sentence) == split for sentence in sentences)


def test_seeds_make_different_corpora():
    one, other = (Grammar("train", 50, GrammarConfig(seed=seed)) for seed in (0, 1))
    assert sum(a == b for a, b in zip(one, other, strict=True)) <= 1


def test_few_duplicates():
    english = [pair[0] for pair in Grammar("train", 2500)]
    assert len(set(english)) > 0.99 * len(english)


def test_knobs():
    def words(config: GrammarConfig) -> list[str]:
        return [w for e, _ in Grammar("train", 400, config) for w in e.lower().split()]

    lengths = [len(words(GrammarConfig(length=length))) / 400 for length in (1, 2, 4, 8)]
    assert lengths == sorted(lengths)
    assert 5 < lengths[0] < 9
    assert 8 < lengths[1] < 12
    sizes = [len(set(words(GrammarConfig(vocabulary=v)))) for v in (0.01, 0.25, 0.5, 1)]
    assert sizes == sorted(set(sizes))


def test_text_is_clean():
    """Plain cased text: one capital, one full stop, no stray spaces or commas."""
    corpus = Grammar("train", 600, GrammarConfig(length=5, vocabulary=1, ambiguity=1))
    for pair in corpus:
        for text in pair:
            assert text[0].isupper() or text[0].isdigit()
            assert text[-1] in ".?"
            assert text == " ".join(text.split())
            assert not any(bad in text for bad in (" ,", ",,", ",.", " .", " ?", ",?"))


def test_adverbs_and_modals_have_one_english_form():
    assert len(ADVERBS) == len(WORDS.times) + len(WORDS.weekdays) + len(WORDS.often)
    assert all(modal.present != modal.past for modal in MODAL.values())


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ({"length": 0}, "from 1 to 8, not 0"),
        ({"length": 9}, "from 1 to 8, not 9"),
        ({"length": 1.5}, "from 1 to 8, not 1.5"),
        ({"vocabulary": 0}, "above 0 and at most 1, not 0"),
        ({"vocabulary": 1.01}, "at most 1, not 1.01"),
        ({"vocabulary": math.nan}, "at most 1, not nan"),
        ({"ambiguity": -0.1}, "from 0 to 1, not -0.1"),
        ({"ambiguity": "high"}, "from 0 to 1, not 'high'"),
        ({"seed": "zero"}, "integer, not 'zero'"),
    ],
)
def test_bad_options(option, valid):
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be .*{valid}"):
        GrammarConfig(**option)


def test_bad_corpora():
    with pytest.raises(ValueError, match="one of train, valid, test, not 'dev'"):
        Grammar("dev", 10)
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"positive number of sentences, not {size}"):
            Grammar("train", size)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Grammar("train", 10)["first"]  # type: ignore[index]

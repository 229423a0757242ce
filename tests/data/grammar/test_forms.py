"""Numbers, times and inflected forms against tables written by hand."""

import pytest

from nar.data.grammar import inflection as forms
from nar.data.grammar.adverbials import Clock, Date
from nar.data.grammar.choices import Choices
from nar.data.grammar.clauses import orders
from tests.data.grammar.derivations import VERBS, noun_phrase

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

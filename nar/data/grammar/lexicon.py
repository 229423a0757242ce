"""The words: nouns, verbs, adjectives, adverbs. Data, and the readers of its notation.

English stands left of the bar, German right of it, alternatives between semicolons, the usual one
first. Every table is sorted by use: a smaller vocabulary takes the first part of each.

No English form serves two entries or two tenses (no put, read or cut), so that an English
sentence has one derivation and the conditional entropy of its translation is exact.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from nar.data.grammar.inflection import GermanNoun, GermanVerb, english_past, english_plural

Entry = TypeVar("Entry")


@dataclass(frozen=True, eq=False)
class Noun:
    """An English noun, its German alternatives, its kind, and the pronoun that stands for it."""

    singular: str
    plural: str
    german: tuple[GermanNoun, ...]
    kind: str
    pronoun: str


@dataclass(frozen=True)
class Slot:
    """One object of a verb: English and German preposition ("" without), case, kinds of noun."""

    english: str
    german: str
    case: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Verb:
    """An English verb (base, past, participle, particle) and its German alternatives."""

    base: str
    past: str
    participle: str
    particle: str
    german: tuple[GermanVerb, ...]
    subjects: tuple[str, ...]
    slots: tuple[Slot, ...]
    stative: bool


@dataclass(frozen=True, eq=False)
class Word:
    """An adjective or adverb: English, German, and the kinds or tenses that it goes with."""

    english: str
    german: tuple[str, ...]
    fits: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Modal:
    """A modal verb or the future: English present and past ("" without), German verb."""

    present: str
    past: str
    german: GermanVerb
    animate: bool = False  # wants a subject that can want

    @property
    def auxiliary(self) -> bool:
        """True for can, should, may, will; have to and want to take do-support."""
        return " " not in self.present


# kind, pronoun -> nouns.  der Junge+n: weak masculine, den Jungen.  `man/men`: irregular plural.
NOUNS = {
    "person she": """
        woman/women | die Frau Frauen
        girl | das Mädchen Mädchen
        aunt | die Tante Tanten
        grandmother | die Großmutter Großmütter; die Oma Omas
        sister | die Schwester Schwestern
        queen | die Königin Königinnen
        actress | die Schauspielerin Schauspielerinnen""",
    "person he": """
        man/men | der Mann Männer
        boy | der Junge+n Jungen; der Knabe+n Knaben
        teacher | der Lehrer Lehrer
        grandfather | der Großvater Großväter; der Opa Opas
        neighbour | der Nachbar+n Nachbarn
        doctor | der Arzt Ärzte
        student | der Student+en Studenten
        uncle | der Onkel Onkel
        friend | der Freund Freunde
        brother | der Bruder Brüder
        king | der König Könige""",
    "person it": """
        child/children | das Kind Kinder""",
    "animal it": """
        dog | der Hund Hunde
        cat | die Katze Katzen
        horse | das Pferd Pferde
        bird | der Vogel Vögel
        bear | der Bär+en Bären
        cow | die Kuh Kühe
        elephant | der Elefant+en Elefanten
        mouse/mice | die Maus Mäuse
        lion | der Löwe+n Löwen""",
    "thing it": """
        book | das Buch Bücher
        car | das Auto Autos; der Wagen Wagen
        lamp | die Lampe Lampen; die Leuchte Leuchten
        letter | der Brief Briefe
        picture | das Bild Bilder; das Gemälde Gemälde
        chair | der Stuhl Stühle
        umbrella | der Regenschirm Regenschirme
        computer | der Computer Computer; der Rechner Rechner
        sofa | das Sofa Sofas; die Couch Couchs
        newspaper | die Zeitung Zeitungen
        clock | die Uhr Uhren
        bicycle | das Fahrrad Fahrräder; das Rad Räder
        coat | der Mantel Mäntel""",
    "opening it": """
        door | die Tür Türen
        window | das Fenster Fenster
        suitcase | der Koffer Koffer
        box | die Kiste Kisten""",
    "food it": """
        apple | der Apfel Äpfel
        cake | der Kuchen Kuchen; die Torte Torten
        egg | das Ei Eier
        orange | die Orange Orangen; die Apfelsine Apfelsinen
        carrot | die Karotte Karotten; die Möhre Möhren
        potato/potatoes | die Kartoffel Kartoffeln""",
    "drink it": """
        milk | die Milch
        water | das Wasser
        tea | der Tee
        coffee | der Kaffee
        beer | das Bier""",
    "place it": """
        garden | der Garten Gärten
        house | das Haus Häuser
        city/cities | die Stadt Städte
        village | das Dorf Dörfer
        kitchen | die Küche Küchen
        forest | der Wald Wälder
        school | die Schule Schulen
        room | das Zimmer Zimmer; der Raum Räume
        park | der Park Parks
        church | die Kirche Kirchen
        museum | das Museum Museen
        office | das Büro Büros""",
    "transport it": """
        train | der Zug Züge; die Bahn Bahnen
        bus | der Bus Busse
        ship | das Schiff Schiffe""",
    "event it": """
        concert | das Konzert Konzerte
        exam | die Prüfung Prüfungen
        party/parties | die Feier Feiern; das Fest Feste
        film | der Film Filme""",
}

# frame -> verbs.  get/got/got up: base, past, participle, particle.  ~: a state, not an event.
# Third column: kinds of subject. After it the objects, each as
# [English preposition [German preposition]] case kinds.
VERBS = {
    "intransitive": """
    sleep/slept/slept | schlafen schläft schlief geschlafen | person animal
    get/got/got up | auf+stehen steht stand gestanden sein | person animal
    work | arbeiten | person
    arrive | an+kommen kommt kam gekommen sein; ein+treffen trifft traf getroffen sein \
    | person transport
    begin/began/begun | beginnen beginnt begann begonnen; an+fangen fängt fing gefangen | event
    leave/left/left | ab+fahren fährt fuhr gefahren sein | transport
    dance | tanzen | person
    fall/fell/fallen asleep | ein+schlafen schläft schlief geschlafen sein | person animal
    run/ran/run | laufen läuft lief gelaufen sein; rennen rennt rannte gerannt sein | person animal
    watch TV | fern+sehen sieht sah gesehen | person
    sing/sang/sung | singen singt sang gesungen | person
    wake/woke/woken up | auf+wachen wacht wachte gewacht sein | person animal
    go/went/gone out | aus+gehen geht ging gegangen sein | person animal
    go/went/gone shopping | ein+kaufen | person
    swim/swam/swum | schwimmen schwimmt schwamm geschwommen sein | person animal
    laugh | lachen | person
    cook | kochen | person""",
    "accusative": """
    see/saw/seen | sehen sieht sah gesehen | person animal | acc person animal thing transport
    buy/bought/bought | kaufen | person | acc thing food drink
    pick up | ab+holen | person | acc person
    open | öffnen; auf+machen | person | acc opening
    eat/ate/eaten | essen isst aß gegessen | person animal | acc food
    drink/drank/drunk | trinken trinkt trank getrunken | person animal | acc drink
    ~need | brauchen; benötigen | person | acc person thing transport
    call | an+rufen ruft rief gerufen | person | acc person
    find/found/found | finden findet fand gefunden | person animal | acc person animal thing
    close | schließen schließt schloss geschlossen; zu+machen | person | acc opening
    visit | besuchen | person | acc person place
    take/took/taken along | mit+nehmen nimmt nahm genommen | person | acc person animal thing
    look | suchen | person animal | for acc person animal thing
    invite | ein+laden lädt lud geladen | person | acc person
    ~love | lieben | person animal | acc person animal
    hear/heard/heard | hören | person animal | acc person animal transport
    sell/sold/sold | verkaufen | person | acc thing food
    wash | waschen wäscht wusch gewaschen | person | acc person animal opening
    tidy up | auf+räumen | person | acc place
    repair | reparieren | person | acc thing opening transport
    ~know/knew/known | kennen kennt kannte gekannt | person | acc person place
    carry | tragen trägt trug getragen | person | acc thing opening
    forget/forgot/forgotten | vergessen vergisst vergaß vergessen | person | acc person thing
    draw/drew/drawn | zeichnen | person | acc person animal place""",
    "dative": """
    help | helfen hilft half geholfen | person animal | dat person animal
    listen | zu+hören | person | to dat person
    ~belong | gehören | animal thing transport | to dat person
    thank | danken | person | dat person
    follow | folgen folgt folgte gefolgt sein | person animal | dat person animal transport
    answer | antworten | person | dat person
    ~trust | vertrauen | person animal | dat person animal
    congratulate | gratulieren | person | dat person""",
    "ditransitive": """
    give/gave/given | geben gibt gab gegeben | person | dat person animal | acc thing food drink
    show/showed/shown | zeigen | person | dat person | acc animal thing opening place
    send/sent/sent | schicken; senden sendet sandte gesandt | person | dat person | acc thing
    bring/brought/brought | bringen bringt brachte gebracht | person | dat person | acc thing food
    lend/lent/lent | leihen leiht lieh geliehen | person | dat person | acc thing""",
    "prepositional": """
    wait | warten | person animal | for auf acc person transport
    talk | sprechen spricht sprach gesprochen; reden | person | to mit dat person
    think/thought/thought | denken denkt dachte gedacht | person | of an acc person animal event
    play | spielen | person animal | with mit dat person animal
    dream | träumen | person animal | of von dat person animal place
    laugh | lachen | person | at über acc person animal""",
    "directional": """
    go/went/gone | gehen geht ging gegangen sein | person animal | into in acc place
    drive/drove/driven | fahren fährt fuhr gefahren sein | person | into in acc place
    come/came/come | kommen kommt kam gekommen sein | person animal | into in acc place""",
    "that": """
    say/said/said | sagen | person
    ~think/thought/thought | glauben; denken denkt dachte gedacht | person
    ~know/knew/known | wissen weiß wusste gewusst | person
    ~hope | hoffen | person""",
    "whether": """
    ask | fragen | person""",
}
SEIN = GermanVerb("sein", "ist", "war", "gewesen", auxiliary="sein")
ALL_BUT_DRINKS = ("person", "animal", "thing", "opening", "food", "place", "transport", "event")
BE = Verb("be", "was", "been", "", (SEIN,), (*ALL_BUT_DRINKS, "drink"), (), False)

# `*`: everything but drinks
ADJECTIVES = """
    old | alt | *
    small | klein | *
    cold | kalt | drink place
    tired | müde | person animal
    new | neu | thing opening transport place event
    beautiful | schön; hübsch | *
    expensive | teuer | thing food transport
    happy | glücklich; froh | person animal
    fresh | frisch | food drink
    big | groß | animal thing opening transport place food
    young | jung | person animal
    red | rot | thing opening food
    boring | langweilig | event
    clever | klug; schlau | person animal
    ugly | hässlich | *
    ill | krank | person animal
    dark | dunkel | place
    friendly | freundlich; nett | person
    hot | heiß | drink food
    heavy | schwer | thing opening
    black | schwarz | animal thing
    famous | berühmt; bekannt | person place event
    quiet | ruhig; still | place person"""
TIMES = """
    today | heute | present past perfect future
    yesterday | gestern | past
    tomorrow | morgen | future
    every day | jeden Tag; täglich | present
    in the evening | am Abend; abends | present past future
    last week | letzte Woche; vergangene Woche | past
    next week | nächste Woche; kommende Woche | future
    this week | diese Woche; in dieser Woche | perfect future
    every morning | jeden Morgen; morgens | present
    in summer | im Sommer | present past future"""
OFTEN = """
    often | oft; häufig
    never | nie; niemals
    always | immer; stets
    sometimes | manchmal; ab und zu"""
PREPOSITIONS = (("in", "in"), ("behind", "hinter"), ("in front of", "vor"), ("next to", "neben"))
WEEKDAYS = """
    on Monday | am Montag
    on Saturday | am Samstag; am Sonnabend
    on Thursday | am Donnerstag
    on Tuesday | am Dienstag
    on Friday | am Freitag
    on Wednesday | am Mittwoch
    on Sunday | am Sonntag"""
MONTHS = (
    ("January", "Januar", 31), ("February", "Februar", 29), ("March", "März", 31),
    ("April", "April", 30), ("May", "Mai", 31), ("June", "Juni", 30), ("July", "Juli", 31),
    ("August", "August", 31), ("September", "September", 30), ("October", "Oktober", 31),
    ("November", "November", 30), ("December", "Dezember", 31),
)  # fmt: skip
WILL = Modal("will", "", GermanVerb("werden", "wird", "wurde", "geworden"))
MODALS = (
    Modal("can", "could", GermanVerb("können", "kann", "konnte", "gekonnt")),
    Modal("have to", "had to", GermanVerb("müssen", "muss", "musste", "gemusst")),
    Modal("want to", "wanted to", GermanVerb("wollen", "will", "wollte", "gewollt"), animate=True),
    Modal("should", "", GermanVerb("sollen", "sollte", "sollte", "gesollt")),
    Modal("may", "", GermanVerb("dürfen", "darf", "durfte", "gedurft"), animate=True),
)


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _noun(kind: str, pronoun: str, english: str, german: str) -> Noun:
    options = []
    for option in german.split(";"):
        article, singular, *plural = option.split()
        singular, _, oblique = singular.partition("+")
        gender = {"der": "m", "die": "f", "das": "n"}[article]
        options.append(GermanNoun(gender, singular, "".join(plural), oblique))
    singular, _, plural = english.partition("/")
    return Noun(singular, plural or english_plural(singular), tuple(options), kind, pronoun)


def _slot(text: str) -> Slot:
    words = text.split()
    at = next(i for i, word in enumerate(words) if word in ("acc", "dat"))
    english, german = (*words[:at], "", "")[:2]
    return Slot(english, german, words[at], tuple(words[at + 1 :]))


def _verb(english: str, german: str, subjects: str, *slots: str) -> Verb:
    forms, _, particle = english.lstrip("~").partition(" ")
    base, *irregular = forms.split("/")
    past, participle = irregular or [english_past(base)] * 2
    options = tuple(GermanVerb.parse(option.strip()) for option in german.split(";"))
    stative = english.startswith("~")
    slots_ = tuple(map(_slot, slots))
    return Verb(base, past, participle, particle, options, tuple(subjects.split()), slots_, stative)


def _word(english: str, german: str, fits: str = "") -> Word:
    kinds = ALL_BUT_DRINKS if fits == "*" else tuple(fits.split())
    return Word(english, tuple(option.strip() for option in german.split(";")), kinds)


@dataclass(frozen=True)
class Lexicon:
    """The part of the tables that a vocabulary of this share uses: the first entries of each."""

    nouns: dict[str, tuple[Noun, ...]]
    verbs: dict[str, tuple[Verb, ...]]
    adjectives: dict[str, tuple[Word, ...]]
    times: tuple[Word, ...]
    weekdays: tuple[Word, ...]
    often: tuple[Word, ...]


@cache
def lexicon(share: float) -> Lexicon:
    """The lexicon cut to `share` (0 < share <= 1) of every table, never to nothing."""

    def cut(entries: list[Entry]) -> tuple[Entry, ...]:
        return tuple(entries[: math.ceil(share * len(entries))])

    nouns: dict[str, tuple[Noun, ...]] = {}
    for key, table in NOUNS.items():
        kind, pronoun = key.split()
        entries = cut([_noun(kind, pronoun, *row) for row in _rows(table)])
        nouns[kind] = nouns.get(kind, ()) + entries
    adjectives = [_word(*row) for row in _rows(ADJECTIVES)]
    return Lexicon(
        nouns=nouns,
        verbs={frame: cut([_verb(*row) for row in _rows(table)]) for frame, table in VERBS.items()}
        | {"copula": (BE,)},
        adjectives={kind: cut([a for a in adjectives if kind in a.fits]) for kind in nouns},
        times=cut([_word(*row) for row in _rows(TIMES)]),
        weekdays=cut([_word(*row) for row in _rows(WEEKDAYS)]),
        often=cut([_word(*row) for row in _rows(OFTEN)]),
    )

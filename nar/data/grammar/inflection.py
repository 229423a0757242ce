"""Inflection of both languages: endings, verb forms, numbers. Pure functions on strings.

Persons are 0 to 5: I, you (du), he or she or it, we, you (ihr), they. Genders are "m", "f", "n",
and "p" for the plural of any; cases are "nom", "acc", "dat".
"""

from dataclasses import dataclass

# The one table behind der, dieser, jeder and the strong adjective: case -> gender -> ending.
STRONG = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
}
ARTICLE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
}
RELATIVE = ARTICLE | {
    "dat": ARTICLE["dat"] | {"p": "denen"},
    "gen": {"m": "dessen", "f": "deren", "n": "dessen", "p": "deren"},
}
CONTRACTIONS = {"in dem": "im", "in das": "ins", "an dem": "am", "von dem": "vom"}
SHORTENED = {"euer": "eur", "teuer": "teur", "dunkel": "dunkl", "müde": "müd"}  # before an ending


def ein_ending(case: str, gender: str) -> str:
    """The ending of ein, kein, mein: the strong one, but none in Ein Hund, Ein Kind, ein Kind."""
    bare = (case == "nom" and gender in "mn") or (case == "acc" and gender == "n")
    return "" if bare else STRONG[case][gender]


def inflect(stem: str, ending: str) -> str:
    """A determiner or adjective with its ending: teuer + e = teure."""
    return SHORTENED.get(stem, stem) + ending if ending else stem


def adjective_ending(case: str, gender: str, *, marked: bool) -> str:
    """The ending of an attributive adjective.

    One principle makes the strong, the weak and the mixed declension: the adjective takes the
    strong ending unless the determiner has it already (`marked`); then it takes -e in the
    nominative singular and the accusatives that look like it, and -en everywhere else.
    """
    if not marked:
        return STRONG[case][gender]
    weak = gender in "fn" or (gender == "m" and case == "nom")
    return "e" if weak and case != "dat" else "en"


@dataclass(frozen=True)
class GermanNoun:
    """Gender, singular, plural, and what weak masculines add in the singular (den Junge-n)."""

    gender: str
    singular: str
    plural: str
    oblique: str = ""

    def form(self, case: str, plural: bool) -> str:
        """The noun in a case and number; the dative plural takes -n where it can."""
        if plural:
            return self.plural + ("n" if case == "dat" and self.plural[-1] not in "ns" else "")
        return self.singular + (self.oblique if case != "nom" else "")


PRESENT = {
    "sein": ("bin", "bist", "ist", "sind", "seid", "sind"),
    "haben": ("habe", "hast", "hat", "haben", "habt", "haben"),
    "werden": ("werde", "wirst", "wird", "werden", "werdet", "werden"),
    "können": ("kann", "kannst", "kann", "können", "könnt", "können"),
    "müssen": ("muss", "musst", "muss", "müssen", "müsst", "müssen"),
    "wollen": ("will", "willst", "will", "wollen", "wollt", "wollen"),
    "sollen": ("sollte", "solltest", "sollte", "sollten", "solltet", "sollten"),  # should
    "dürfen": ("darf", "darfst", "darf", "dürfen", "dürft", "dürfen"),
    "wissen": ("weiß", "weißt", "weiß", "wissen", "wisst", "wissen"),
}
INSEPARABLE = ("be", "ge", "er", "ver")


@dataclass(frozen=True)
class GermanVerb:
    """One German verb by its principal parts; `prefix` is the separable one (auf + stehen)."""

    infinitive: str
    third: str
    preterite: str
    participle: str
    prefix: str = ""
    auxiliary: str = "haben"

    @classmethod
    def parse(cls, text: str) -> "GermanVerb":
        """Reads `auf+stehen steht stand gestanden sein`; an infinitive alone is a weak verb."""
        words = text.split()
        auxiliary = "sein" if words[-1] == "sein" and len(words) > 1 else "haben"
        prefix, _, infinitive = words[0].rpartition("+")
        if len(words) >= 4:
            return cls(infinitive, words[1], words[2], words[3], prefix, auxiliary)
        stem = infinitive[:-2]
        e = linking(stem)
        ge = "" if stem.startswith(INSEPARABLE) or stem.endswith("ier") else "ge"
        return cls(infinitive, f"{stem}{e}t", f"{stem}{e}te", f"{ge}{stem}{e}t", prefix, auxiliary)

    def finite(self, past: bool, person: int) -> str:
        """The present or preterite of a person, without the separable prefix."""
        if past:
            return _preterite(self.preterite, person)
        if self.infinitive in PRESENT:
            return PRESENT[self.infinitive][person]
        stem = self.infinitive[:-2]
        if self.third.endswith(f"{stem}et"):
            second = f"{stem}est"
        else:  # the vowel of the third person: du siehst, du isst
            second = self.third[:-1] + ("t" if self.third[-2] in "sßzx" else "st")
        plural = self.infinitive
        return (f"{stem}e", second, self.third, plural, f"{stem}{linking(stem)}t", plural)[person]

    def joined(self, word: str) -> str:
        """A form with the prefix in front: aufsteht, aufgestanden."""
        return self.prefix + word

    @property
    def zu(self) -> str:
        """The infinitive with zu: zu sehen, aufzustehen."""
        return f"{self.prefix}zu{self.infinitive}" if self.prefix else f"zu {self.infinitive}"


def linking(stem: str) -> str:
    """The e between stem and ending that German needs to speak: arbeit-e-t, öffn-e-t."""
    hard = stem[-1] in "td" or (stem[-1] in "mn" and stem[-2] not in "aeiouäöüylrmnh")
    return "e" if hard or stem.endswith("chn") else ""


def _preterite(third: str, person: int) -> str:
    if third.endswith("e"):
        return third + ("", "st", "", "n", "t", "n")[person]
    hard, hissing = third[-1] in "td", third[-1] in "sßz"
    second, plural_second = "est" if hard or hissing else "st", "et" if hard else "t"
    return third + ("", second, "", "en", plural_second, "en")[person]


# English ---------------------------------------------------------------------------------------

ENGLISH_BE = (
    ("am", "are", "is", "are", "are", "are"),
    ("was", "were", "was", "were", "were", "were"),
)


def english_third(verb: str) -> str:
    """The third person singular of the present: sees, watches, carries, has."""
    if verb == "have":
        return "has"
    if verb.endswith(("s", "x", "ch", "sh", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{verb}s"


def english_past(verb: str) -> str:
    """The regular past: opened, loved, carried."""
    if verb.endswith("e"):
        return f"{verb}d"
    return f"{verb[:-1]}ied" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{verb}ed"


def english_plural(noun: str) -> str:
    """The regular plural: dogs, boxes, babies."""
    return english_third(noun) if not noun.endswith("o") else f"{noun}s"


# Numbers ---------------------------------------------------------------------------------------

_ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_GERMAN = (
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn",
    "elf", "zwölf", "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn",
    "neunzehn",
)  # fmt: skip
_TENS = (
    ("", ""), ("", ""), ("twenty", "zwanzig"), ("thirty", "dreißig"), ("forty", "vierzig"),
    ("fifty", "fünfzig"), ("sixty", "sechzig"), ("seventy", "siebzig"), ("eighty", "achtzig"),
    ("ninety", "neunzig"),
)  # fmt: skip
_ENGLISH_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
_GERMAN_ORDINALS = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}


def _check(number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise ValueError(f"number must be from {least} to {most}, not {number}")


def english_number(number: int) -> str:
    """The cardinal in words, 0 to 999: two hundred and thirty-five."""
    _check(number, 0, 999)
    hundreds, rest = divmod(number, 100)
    if hundreds:
        return f"{_ENGLISH[hundreds]} hundred" + (f" and {english_number(rest)}" if rest else "")
    tens, ones = divmod(number, 10)
    if number < 20:
        return _ENGLISH[number]
    return _TENS[tens][0] + (f"-{_ENGLISH[ones]}" if ones else "")


def german_number(number: int, one_hundred: bool = False) -> str:
    """The cardinal in words, 0 to 999: zweihundertfünfunddreißig.

    Args:
      number: 0 to 999.
      one_hundred: says einhundert rather than hundert, for 100 to 199.

    Raises:
      ValueError: the number is outside of 0 to 999.
    """
    _check(number, 0, 999)
    hundreds, rest = divmod(number, 100)
    if hundreds:
        several = "ein" if hundreds == 1 else _GERMAN[hundreds]
        prefix = several if hundreds > 1 or one_hundred else ""
        return f"{prefix}hundert" + (german_number(rest) if rest else "")
    tens, ones = divmod(number, 10)
    if number < 20:
        return _GERMAN[number]
    before = "" if not ones else f"{'ein' if ones == 1 else _GERMAN[ones]}und"
    return before + _TENS[tens][1]


def english_ordinal(number: int) -> str:
    """The ordinal in words, 1 to 31: first, twentieth, thirty-first."""
    _check(number, 1, 31)
    before, dash, last = english_number(number).rpartition("-")
    if last.endswith("y"):
        return f"{last[:-1]}ieth"
    return before + dash + _ENGLISH_ORDINALS.get(last, f"{last}th")


def german_ordinal(number: int) -> str:
    """The ordinal in words without its ending, 1 to 31: erst, dritt, siebt, zwanzigst."""
    _check(number, 1, 31)
    return _GERMAN_ORDINALS.get(number, german_number(number) + ("t" if number < 20 else "st"))

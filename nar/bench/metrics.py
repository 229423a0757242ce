"""Corpus scores of texts, and the tokenizers by which BLEU counts languages without spaces."""

import re
import textwrap
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Int

from nar.errors import NarError

MetricName = Literal["bleu", "token_error"]

BY_SPACES = "13a"
"""SacreBLEU's tokenizer of languages that put spaces between words."""

CHARACTERS = "char"

TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue", "wuu", "lzh"), "zh"),
    **dict.fromkeys(("ja", "jpn"), "ja-mecab"),
    **dict.fromkeys(("ko", "kor"), "ko-mecab"),
    **dict.fromkeys(
        (
            "th",
            "tha",
            "lo",
            "lao",
            "km",
            "khm",
            "my",
            "mya",
            "bur",
            "bo",
            "bod",
            "tib",
            "dz",
            "dzo",
        ),
        CHARACTERS,
    ),
}
"""SacreBLEU's tokenizer of the languages that spaces do not divide into words, or not finely."""


class Metric(Protocol):
    """A corpus score that is a function of sums over sentences, so that it can be resampled."""

    signature: str
    higher_is_better: bool

    def words(self, text: str) -> Sequence[str]:
        """What lengths and repetitions are counted in."""
        ...

    def statistics(
        self, outputs: Sequence[str], references: Sequence[str]
    ) -> Int[np.ndarray, "sentences sums"]:
        """What each sentence adds."""
        ...

    def score(self, sums: Int[np.ndarray, " sums"]) -> float:
        """The score, in percent."""
        ...


class Bleu:
    """SacreBLEU (Post 2018): detokenised, cased text, tokenised by the metric itself.

    Args:
        tokenizer: sacreBLEU's name of a tokenizer; the signature says it.

    Raises:
        NarError: there is no such tokenizer, or what it needs is not installed.
    """

    higher_is_better = True

    def __init__(self, tokenizer: str = BY_SPACES):
        import sacrebleu

        if tokenizer not in (known := sacrebleu.BLEU.TOKENIZERS):
            raise NarError(f"BLEU's tokenizer={tokenizer!r}: it must be one of {', '.join(known)}")
        try:
            self._metric = sacrebleu.BLEU(tokenize=tokenizer)
            # Counts do not depend on the effective order; without it, sentences make it warn.
            self._sentence = sacrebleu.BLEU(tokenize=tokenizer, effective_order=True)
            self._metric.corpus_score(["a"], [["a"]])  # the signature needs a score
        except Exception as error:  # packages, files and downloads fail each in their own way
            why = textwrap.shorten(str(error), 200)
            raise NarError(f"BLEU's tokenizer={tokenizer!r} cannot be used here: {why}") from error
        self.signature = str(self._metric.get_signature())
        self._by_spaces = tokenizer in (BY_SPACES, "intl", "none")

    @classmethod
    def of(cls, language: str | None) -> "Bleu":
        """That of a target language: of Japanese and Korean by MeCab, or else by characters.

        Args:
            language: its code, also with a script or a region: "zh-Hans", "zh_CN"; None: any that
                puts spaces between words.
        """
        tokenizer = TOKENIZERS.get(code(language), BY_SPACES)
        try:
            return cls(tokenizer)
        except NarError:  # MeCab and its dictionaries are packages of their own
            return cls(CHARACTERS)

    def words(self, text):
        """Words between spaces, or the tokens."""
        return (text if self._by_spaces else self._metric.tokenizer(text)).split()

    def statistics(self, outputs, references):
        """Lengths of output and reference, matching n-grams, n-grams; n = 1..4."""
        pairs = zip(outputs, references, strict=True)
        scores = [self._sentence.sentence_score(o, [r]) for o, r in pairs]
        return np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores])

    def score(self, sums):
        """BLEU as sacreBLEU computes it from the corpus' sums."""
        output, reference, *grams = (int(n) for n in sums)
        return self._metric.compute_bleu(
            correct=grams[:4],
            total=grams[4:],
            sys_len=output,
            ref_len=reference,
            smooth_method=self._metric.smooth_method,
            smooth_value=self._metric.smooth_value,
        ).score


class TokenError:
    """Edit distance over the references' length, in tokens separated by spaces.

    Of phones, this is the phone error rate of spelling to sound.
    """

    higher_is_better = False
    signature = "edit distance / reference length, tokens by spaces"

    def words(self, text):
        """The tokens."""
        return text.split()

    def statistics(self, outputs, references):
        """Errors, and tokens of the reference."""
        pairs = [(o.split(), r.split()) for o, r in zip(outputs, references, strict=True)]
        return np.array([[edit_distance(o, r), len(r)] for o, r in pairs])

    def score(self, sums):
        """Errors a hundred tokens."""
        return 100 * float(sums[0]) / max(float(sums[1]), 1)


METRICS: dict[str, type[Bleu] | type[TokenError]] = {"bleu": Bleu, "token_error": TokenError}


def make_metric(
    name: MetricName, *, language: str | None = None, tokenizer: str | None = None
) -> Metric:
    """A metric by name.

    Args:
        name: "bleu" or "token_error".
        language: of the texts, by which BLEU chooses its tokenizer; None: one that has spaces.
        tokenizer: BLEU's, instead.

    Raises:
        NarError: the metric is unknown, it has no tokenizer, or the tokenizer cannot be used.
    """
    if name not in METRICS:
        raise NarError(f"metric={name!r}: it must be one of {', '.join(METRICS)}")
    if name == "bleu":
        return Bleu.of(language) if tokenizer is None else Bleu(tokenizer)
    if tokenizer is not None:
        raise NarError(f"tokenizer={tokenizer!r} is BLEU's, and the metric is {name}")
    return TokenError()


def code(language: str | None) -> str:
    """A language without its script and its region."""
    return re.split("[-_.]", language or "")[0].lower()


def has_spaces(language: str) -> bool:
    """Whether spaces divide what is written in a language into words; Korean's are long."""
    return TOKENIZERS.get(code(language), BY_SPACES) in (BY_SPACES, "ko-mecab")


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements that make one of the other."""
    row = np.arange(len(b) + 1)
    for token in a:
        replaced = row[:-1] + np.array([token != other for other in b], int)
        best = np.minimum(row[1:] + 1, replaced)
        # An insertion costs one a place: the best is a running minimum of cost minus place.
        place = np.arange(len(b) + 1)
        row = np.minimum.accumulate(np.concatenate([[row[0] + 1], best]) - place) + place
    return int(row[-1])

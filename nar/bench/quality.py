"""How good outputs are: scores of texts, and whether a difference between systems is one."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from nar.errors import NarError

MetricName = Literal["bleu", "token_error"]
Interval = tuple[float, float]

SAMPLES = 1000
"""Resampled test sets of a bootstrap."""

LENGTHS = (10, 20, 30)
"""Where the lengths of references, in words, are divided for BLEU by length."""


# --------------------------------------------------------------------------------------- metrics
class Metric(Protocol):
    """A corpus score that is a function of sums over sentences, so that it can be resampled."""

    signature: str
    higher_is_better: bool

    def statistics(
        self, outputs: Sequence[str], references: Sequence[str]
    ) -> Int[np.ndarray, "sentences sums"]:
        """What each sentence adds."""
        ...

    def score(self, sums: Int[np.ndarray, " sums"]) -> float:
        """The score, in percent."""
        ...


class Bleu:
    """SacreBLEU (Post 2018): detokenised, cased text, tokenised as 13a by the metric itself."""

    higher_is_better = True

    def __init__(self, tokenize: str = "13a"):
        import sacrebleu

        self._metric = sacrebleu.BLEU(tokenize=tokenize)
        # Counts do not depend on the effective order; without it, sentences make sacreBLEU warn.
        self._sentence = sacrebleu.BLEU(tokenize=tokenize, effective_order=True)
        self._metric.corpus_score(["a"], [["a"]])  # the signature needs a score
        self.signature = str(self._metric.get_signature())

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

    def statistics(self, outputs, references):
        """Errors, and tokens of the reference."""
        pairs = [(o.split(), r.split()) for o, r in zip(outputs, references, strict=True)]
        return np.array([[edit_distance(o, r), len(r)] for o, r in pairs])

    def score(self, sums):
        """Errors a hundred tokens."""
        return 100 * float(sums[0]) / max(float(sums[1]), 1)


METRICS: dict[str, type[Bleu] | type[TokenError]] = {"bleu": Bleu, "token_error": TokenError}


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


# ----------------------------------------------------------------------------------- significance
@functools.lru_cache(maxsize=1)
def _resampled(sentences: int, samples: int) -> Int[np.ndarray, "samples sentences"]:
    """The same sentences for every system: this is what pairs them. Seeded as sacreBLEU does."""
    return np.random.default_rng(12345).choice(sentences, (samples, sentences), replace=True)


def bootstrap(
    metric: Metric, statistics: Int[np.ndarray, "sentences sums"], samples: int = SAMPLES
) -> Float[np.ndarray, " samples"]:
    """Scores of resampled test sets (Koehn 2004)."""
    drawn = _resampled(len(statistics), samples)
    return np.array([metric.score(statistics[rows].sum(0)) for rows in drawn])


def interval(values: Float[np.ndarray, " samples"]) -> Interval:
    """Where the middle 95 % lie."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def p_value(
    difference: float,
    ours: Float[np.ndarray, " samples"],
    baseline: Float[np.ndarray, " samples"],
) -> float:
    """How often chance alone makes a difference as large as the one found; two-sided.

    The resampled differences, moved to have mean 0, stand for chance (Riezler and Maxwell 2005).
    """
    differences = ours - baseline
    as_large = np.abs(differences - differences.mean()) >= abs(difference)
    return float((as_large.sum() + 1) / (len(differences) + 1))


# -------------------------------------------------------------------------------------- a system
@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """What is said of the outputs of one decoder. None: not measured, or without meaning here.

    Attributes:
        bleu, bleu_ci, bleu_signature: sacreBLEU, and the middle 95 % of resampled test sets.
        chrf, chrf_signature: character F-score (Popović 2015).
        token_error, token_error_ci: in percent.
        p_value: of the difference to the baseline in the main metric; None for the baseline.
        difference, difference_ci: to the baseline in the main metric; the middle 95 % over test
            sets that are resampled for both. Not inferior by a margin: all of them are within it.
        tokenized_bleu, tokenized_bleu_signature: the scale of papers on WMT14 En-De: Moses tokens,
            words split at hyphens. It flatters; it stands only beside a paper's number.
        repetition: share of words that repeat the word before (the mark of parallel prediction).
        length_ratio: words written over the references' words.
        bleu_by_length: per range of reference lengths in words: its highest (None: no end), the
            number of sentences, and their BLEU.
    """

    bleu: float | None = None
    bleu_ci: Interval | None = None
    bleu_signature: str | None = None
    chrf: float | None = None
    chrf_signature: str | None = None
    token_error: float | None = None
    token_error_ci: Interval | None = None
    p_value: float | None = None
    difference: float | None = None
    difference_ci: Interval | None = None
    tokenized_bleu: float | None = None
    tokenized_bleu_signature: str | None = None
    repetition: float | None = None
    length_ratio: float | None = None
    bleu_by_length: list[dict[str, Any]] = dataclasses.field(default_factory=list)


class Judge:
    """Scores outputs against one reference each, and against the outputs it is shown first.

    Args:
        metric: "bleu" or "token_error".
        references: one text a sentence.
        tokenized: the target language in which to give papers' tokenised BLEU too; None: do not.

    Raises:
        NarError: the metric is unknown, or there are no references.
    """

    def __init__(
        self, metric: MetricName, references: Sequence[str], *, tokenized: str | None = None
    ):
        if metric not in METRICS:
            raise NarError(f"metric={metric!r}: it must be one of {', '.join(METRICS)}")
        if not references:
            raise NarError("there are no references: at least one sentence is needed")
        self._name, self._metric = metric, METRICS[metric]()
        self._references, self._tokenized = list(references), tokenized
        self._baseline: tuple[float, np.ndarray] | None = None

    def quality(self, outputs: Sequence[str]) -> Quality:
        """The scores of outputs; the first ones become the baseline of the others' p-values.

        Raises:
            NarError: there are not as many outputs as references.
        """
        if len(outputs) != len(self._references):
            raise NarError(
                f"{len(outputs)} outputs for {len(self._references)} references: their numbers "
                "must be equal"
            )
        statistics = self._metric.statistics(outputs, self._references)
        value = self._metric.score(statistics.sum(0))
        resampled = bootstrap(self._metric, statistics)
        compared: dict[str, Any] = {}
        if self._baseline is None:
            self._baseline = value, resampled
        else:
            base, of_base = self._baseline
            compared = {
                "p_value": p_value(value - base, resampled, of_base),
                "difference": value - base,
                "difference_ci": interval(resampled - of_base),
            }
        words = [(o.split(), r.split()) for o, r in zip(outputs, self._references, strict=True)]
        written = sum(len(o) for o, _ in words)
        common = {
            **compared,
            "repetition": sum(map(_repeated, (o for o, _ in words))) / max(written, 1),
            "length_ratio": written / max(sum(len(r) for _, r in words), 1),
        }
        if self._name == "token_error":
            return Quality(token_error=value, token_error_ci=interval(resampled), **common)
        chrf, chrf_signature = _chrf(outputs, self._references)
        tokenized = _tokenized_bleu(outputs, self._references, self._tokenized)
        return Quality(
            bleu=value,
            bleu_ci=interval(resampled),
            bleu_signature=self._metric.signature,
            chrf=chrf,
            chrf_signature=chrf_signature,
            tokenized_bleu=tokenized and tokenized[0],
            tokenized_bleu_signature=tokenized and tokenized[1],
            bleu_by_length=self._by_length(statistics),
            **common,
        )

    def _by_length(self, statistics: Int[np.ndarray, "sentences sums"]) -> list[dict[str, Any]]:
        lengths = np.array([len(reference.split()) for reference in self._references])
        bucket = np.searchsorted(LENGTHS, lengths)
        return [
            {
                "to": (*LENGTHS, None)[i],
                "sentences": int((bucket == i).sum()),
                "bleu": self._metric.score(statistics[bucket == i].sum(0)),
            }
            for i in np.unique(bucket)
        ]


def _repeated(words: Sequence[str]) -> int:
    return sum(a == b for a, b in itertools.pairwise(words))


def _chrf(outputs: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    import sacrebleu

    metric = sacrebleu.CHRF()
    return metric.corpus_score(list(outputs), [list(references)]).score, str(metric.get_signature())


def _tokenized_bleu(
    outputs: Sequence[str], references: Sequence[str], language: str | None
) -> tuple[float, str] | None:
    """BLEU of Moses tokens, words split at hyphens, as most papers on WMT14 En-De print it."""
    if language is None:
        return None
    import sacrebleu
    import sacremoses

    moses = sacremoses.MosesTokenizer(lang=language)

    def split(text: str) -> str:
        tokens = moses.tokenize(text, return_str=True, escape=False)
        return re.sub(r"(\S)-(?=\S)", r"\1 ##AT##-##AT## ", str(tokens))

    metric = sacrebleu.BLEU(tokenize="none", force=True)
    score = metric.corpus_score([*map(split, outputs)], [[*map(split, references)]]).score
    return score, f"{metric.get_signature()}|moses:{language}|hyphens:split"

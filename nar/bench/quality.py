"""How good outputs are: scores of texts, and whether a difference between systems is one."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nar.bench.metrics import Metric, MetricName, has_spaces, make_metric
from nar.errors import NarError

Interval = tuple[float, float]

SAMPLES = 1000
"""Resampled test sets of a bootstrap."""

LENGTHS = (10, 20, 30)
"""Where the lengths of references, in words, are divided for BLEU by length."""


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
        repetition: share of words that repeat the word before (the mark of parallel prediction);
            words are what the metric counts where spaces do not divide them.
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
        language: theirs, by which BLEU chooses its tokenizer; None: one with spaces between words.
        tokenizer: BLEU's, by sacreBLEU's name, instead.
        tokenized: the target language in which to give papers' tokenised BLEU too; None: do not.

    Raises:
        NarError: the metric is unknown, or its tokenizer; the language of the tokenised BLEU has no
            spaces; or there are no references.
    """

    def __init__(
        self,
        metric: MetricName,
        references: Sequence[str],
        *,
        language: str | None = None,
        tokenizer: str | None = None,
        tokenized: str | None = None,
    ):
        if not references:
            raise NarError("there are no references: at least one sentence is needed")
        if tokenized is not None and not has_spaces(tokenized):
            raise NarError(
                f"tokenized={tokenized!r}: papers' tokenised BLEU counts words between spaces, and "
                "this language has none"
            )
        self._metric = make_metric(metric, language=language, tokenizer=tokenizer)
        self._name = metric
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
        split = self._metric.words
        words = [(split(o), split(r)) for o, r in zip(outputs, self._references, strict=True)]
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
        lengths = np.array([len(self._metric.words(reference)) for reference in self._references])
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

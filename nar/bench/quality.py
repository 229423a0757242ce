"""How good outputs are: BLEU, chrF and the rate of wrong tokens."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from nar.core import NarError

Metric = Literal["bleu", "token_error"]
METRICS = ("bleu", "token_error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """A score of a whole test set.

    Attributes:
        metric: what was measured.
        value: in percent; more is better for BLEU, less for errors.
        signature: how it was computed, for the report.
    """

    metric: Metric
    value: float
    signature: str


def quality(metric: Metric, outputs: Sequence[str], references: Sequence[str]) -> Quality:
    """Scores outputs against one reference each.

    Args:
        metric: "bleu": sacreBLEU (Post 2018) of detokenised, cased text; "token_error": edit
            distance over the references' length, in tokens separated by spaces (the phone error
            rate of spelling to sound).
        outputs: texts.
        references: as many texts.

    Raises:
        NarError: the numbers of texts differ or are zero, or the metric is unknown.
    """
    if len(outputs) != len(references) or not outputs:
        raise NarError(
            f"{len(outputs)} outputs for {len(references)} references: their numbers must be equal"
        )
    if metric == "bleu":
        import sacrebleu

        bleu = sacrebleu.BLEU()
        value = bleu.corpus_score(list(outputs), [list(references)]).score
        return Quality(metric=metric, value=value, signature=str(bleu.get_signature()))
    if metric == "token_error":
        pairs = [(o.split(), r.split()) for o, r in zip(outputs, references, strict=True)]
        errors = sum(edit_distance(output, reference) for output, reference in pairs)
        total = sum(len(reference) for _, reference in pairs)
        return Quality(metric=metric, value=100 * errors / total, signature="edit distance, spaces")
    raise NarError(f"metric={metric!r}: it must be one of {', '.join(METRICS)}")


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

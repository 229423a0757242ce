"""What becomes of a text: what was written, its score, an n-best list, and how it ended."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import jax
import numpy as np

from nar.core import Candidates, Decoder, Output, Source, failed_rows, role, room
from nar.errors import NarError, at_least
from nar.ops import NEG
from nar.streaming import stop_place

if TYPE_CHECKING:
    from nar.translator import Translator

DIGITS = 6  # of scores, which are float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a decoder made of one text.

    Attributes:
        text: what was written, line breaks and all, up to a stop string.
        score: of all that was written, as the decoder defines it (`Output.scores`); None where it
            gives none.
        nbest: texts and their scores, the best first; empty unless it was asked for.
        finish_reason: "stop": EOS, another token that ends outputs, or a stop string; "length": it
            was cut at the most tokens that may be written; "nan": it broke off where the model's
            logits were NaN.
    """

    text: str
    score: float | None = None
    nbest: tuple[tuple[str, float], ...] = ()
    finish_reason: Literal["stop", "length", "nan"] = "stop"

    def record(self) -> str | dict[str, Any]:
        """As JSON, shortly: the text alone, where nothing else is to be said."""
        found = {name: x for name, x in vars(self).items() if x != getattr(Result, name, None)}
        return self.text if found.keys() <= {"text"} else found

    @classmethod
    def of_record(cls, record: str | dict[str, Any]) -> Self:
        """Reads what `record` gave.

        Raises:
            TypeError: it is something else.
        """
        if isinstance(record, str):
            return cls(text=record)
        nbest = tuple((str(text), float(score)) for text, score in record.get("nbest", ()))
        return cls(**{**record, "nbest": nbest})


EMPTY = Result(text="")
"""Of a blank text."""


def asking(decoder: Decoder, model: Any, *, scores: bool, nbest: int) -> Decoder:
    """The decoder, asked for scores and for several outputs a text.

    Args:
        decoder: how to decode.
        model: that it decodes.
        scores: whether outputs are to have one.
        nbest: how many outputs a text; 0: its output alone.

    Raises:
        IncompatibleModel: the model lacks what it needs.
        NarError: it cannot give them.
    """
    at_least("nbest", nbest, 0)
    if not scores and not nbest:
        return decoder
    room(decoder, model)  # what is wrong with both is said before anything is traced
    fields = {field.name for field in dataclasses.fields(decoder)}
    asked = {"scores": True} if "scores" in fields else {}
    if nbest and "nbest" in fields:
        asked["nbest"] = max(nbest, getattr(decoder, "nbest"))  # noqa: B009
    decoder = dataclasses.replace(decoder, **asked)

    def shape(model: Any) -> Output:
        return decoder.finish(model, decoder.init(model, Source.of([[0]]), key=jax.random.key(0)))

    gives, name = jax.eval_shape(shape, model), type(decoder).__name__
    if gives.scores is None:
        raise NarError(f"a {name} gives no scores of its outputs")
    if nbest and gives.nbest is None:
        raise NarError(f"nbest={nbest}: a {name} keeps one output a text; beam keeps several")
    return decoder


def read_results(
    translator: "Translator",
    sources: Sequence[Sequence[int]],
    output: Output,
    *,
    stop: Sequence[str] = (),
    nbest: int = 0,
) -> list[Result]:
    """What an output says of its first rows.

    Args:
        translator: model and tokenizer.
        sources: of these rows.
        output: of the batch.
        stop: strings that end an output before them.
        nbest: how many outputs a row to keep beside.
    """
    eos, tokens = role(translator.model).spec.eos, np.asarray(output.tokens)
    length = np.asarray(output.length)
    rows = [tokens[row, : length[row]] for row in range(len(sources))]
    scores = [None] * len(rows) if output.scores is None else np.asarray(output.scores).tolist()
    lists = [()] * len(rows)
    if nbest and output.nbest is not None:
        lists = _lists(translator, sources, output.nbest, stop, nbest)
    found, failed = [], failed_rows(output)
    for row, text in enumerate(translator.texts(sources, rows)):
        place = stop_place(text, stop)
        cut = place is None and eos not in rows[row][-1:]
        found.append(
            Result(
                text=text[:place],
                score=_number(scores[row]),
                nbest=tuple(lists[row]),
                finish_reason="nan" if failed[row] else "length" if cut else "stop",
            )
        )
    return found


def _lists(
    translator: "Translator",
    sources: Sequence[Sequence[int]],
    candidates: Candidates,
    stop: Sequence[str],
    most: int,
) -> list[list[tuple[str, float]]]:
    """The n-best list of each row; of fewer candidates all there are."""
    tokens, length, scores = map(
        np.asarray, (candidates.tokens, candidates.length, candidates.scores)
    )
    there = [
        (row, i)
        for row in range(len(sources))
        for i in range(min(most, scores.shape[1]))
        if scores[row, i] > NEG / 2
    ]
    texts = translator.texts(
        [sources[row] for row, _ in there], [tokens[row, i, : length[row, i]] for row, i in there]
    )
    found: list[list[tuple[str, float]]] = [[] for _ in sources]
    for (row, i), text in zip(there, texts, strict=True):
        score = round(float(scores[row, i]), DIGITS)
        found[row].append((text[: stop_place(text, stop)], score))
    return found


def _number(score: float | None) -> float | None:
    return round(score, DIGITS) if score is not None and math.isfinite(score) else None

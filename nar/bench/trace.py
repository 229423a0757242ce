"""The decoding dependency graph of one text, as plain data, for every decoder.

A row is a step of the decoder, a column a place of the output, as DDGviz shows them (Santilli et
al. 2023, https://arxiv.org/abs/2305.10427): what was guessed where, which guesses already equalled
the final output, and when they were accepted.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import jax
import numpy as np

from nar.core import Decoder, Source, View, failed_rows
from nar.decoders import DECODERS
from nar.drivers import decode, trace
from nar.errors import NarError, warn_of_nan
from nar.translator import Translator

VERSION = 1
"""Of the data: rises when a field changes its meaning."""

State = Literal["kept", "written", "confirmed", "early", "wrong"]

STATES: dict[State, str] = {
    "written": "written now, not guessed",
    "confirmed": "written now, as guessed",
    "kept": "written before",
    "early": "guessed right, not yet accepted",
    "wrong": "not what the final output has",
}
"""What can be said of a cell; each in words."""


class Prediction(NamedTuple):
    """What the model found likeliest after a token, or at a place of a canvas.

    Attributes:
        after: the token; None on a canvas, whose places all see each other.
        choices: the best pieces and their probabilities, likeliest first.
    """

    after: str | None
    choices: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One place of the output in one step.

    Attributes:
        token: what stands there after the step, or else was guessed there in vain.
        state: what became of it.
        others: other tokens for the same place: refused guesses, or those of other beams.
        predictions: what the model said of this place in this step, after each token that may
            stand before it: one, but for trees and beams.
    """

    token: str
    state: State
    others: tuple[str, ...]
    predictions: tuple[Prediction, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the decoder.

    Attributes:
        before, after: tokens written before and after it.
        text: the output so far; of a canvas, what stands on it.
        cells: one a place; None where nothing was looked at.
    """

    before: int
    after: int
    text: str
    cells: tuple[Cell | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
    """A traced decode; `dataclasses.asdict` makes JSON of it.

    Attributes:
        version: `VERSION`.
        decoder: as `nar.make` reads it.
        weights: the translator's.
        source, output: the texts.
        source_pieces, output_pieces: and their tokens, EOS included.
        calls: by role, sequential calls of that model.
        positions: by role, positions scored.
        steps: until the output was done.
    """

    version: int
    decoder: str
    weights: str
    source: str
    source_pieces: tuple[str, ...]
    output: str
    output_pieces: tuple[str, ...]
    calls: dict[str, int]
    positions: dict[str, int]
    steps: tuple[Step, ...]


def trace_text(translator: Translator, decoder: Decoder, text: str) -> Graph:
    """Decodes a text and keeps what every step looked at.

    Guesses beyond the end of the final output are left out: nothing could come of them.

    Args:
        translator: a model with its tokenizer.
        decoder: how; a random decoder takes its fixed key.
        text: to translate, or to continue where the model is decoder-only.

    Raises:
        IncompatibleModel: the model lacks what the decoder needs.
        NarError: the text is empty, or has more tokens than the model reads; or the model's logits
            are NaN at once.
    """
    if not text.strip():
        raise NarError(f"the text is {text!r}: there must be something to decode")
    (sources,) = translator.encode([text])
    source = Source.of([sources])
    # A trace has a fixed number of steps: a decode says how many are needed.
    needed = int(decode(decoder, translator.model, source).stats.live[0])
    found, kept = trace(decoder, translator.model, source, steps=needed)
    failed = np.flatnonzero(failed_rows(found)).tolist()
    if failed and not found.length[0]:
        raise NarError(
            "the model's logits are NaN before anything is written: nothing can be drawn"
        )
    warn_of_nan(failed)
    found, kept = jax.tree.map(np.asarray, (found, kept))

    def pieces(tokens: Sequence[int]) -> tuple[str, ...]:
        return tuple(translator.tokenizer.pieces(tokens))

    def looks(step: int) -> list[_Look]:
        if kept.view is None or step == needed:
            return []
        return _looks(jax.tree.map(lambda x: x[step, 0], kept.view), translator)

    rows = [kept.tokens[i, 0, : kept.length[i, 0]] for i in range(needed)]
    output = pieces(found.tokens[0, : found.length[0]])
    width = max(len(output), *map(len, rows))
    standing = [(), *map(pieces, rows)]
    canvases = _canvases(kept.view)
    shown = [*canvases[:-1], rows[-1]] if canvases else rows
    steps = []
    for i, text_now in enumerate(translator.tokenizer.decode(shown)):
        before, now = standing[i : i + 2]
        if canvases:
            scene = _CanvasScene.of(now, looks(i), looks(i - 1) if i else [], output)
        else:
            scene = _Scene(before, now, looks(i), looks(i + 1), output)
        cells = tuple(scene.cell(place) for place in range(width))
        steps.append(Step(before=len(before), after=len(now), text=text_now, cells=cells))
    return Graph(
        version=VERSION,
        decoder=describe(decoder),
        weights=translator.weights,
        source=text,
        source_pieces=pieces(sources),
        output=translator.tokenizer.decode([found.tokens[0, : found.length[0]]])[0],
        output_pieces=output,
        calls={role: int(count) for role, count in found.stats.calls.items()},
        positions={role: int(count[0]) for role, count in found.stats.positions.items()},
        steps=tuple(steps),
    )


def describe(decoder: Decoder) -> str:
    """The decoder as `nar.make` reads it: its name, and what is not as by default."""
    names = {cls: name for name, cls in DECODERS.items()}
    options = []
    for field in dataclasses.fields(decoder):
        value = getattr(decoder, field.name)
        if value != field.default:
            text = f"({describe(value)})" if isinstance(value, Decoder) else value
            options.append(f"{field.name}={text}")
    name = names.get(type(decoder), type(decoder).__name__)
    return ":".join(filter(None, [name, ",".join(options)]))


def summary(graph: Graph) -> str:
    """What the decode cost, in a line: the calls and the positions scored, of each role."""
    tokens, lines = len(graph.output_pieces), []
    for role, calls in graph.calls.items():
        name = f"{role}: " if len(graph.calls) > 1 else ""
        rate = f"{tokens / max(calls, 1):.2f} tokens a call"
        scored = f"{graph.positions[role]} positions scored"
        lines.append(f"{name}{tokens} tokens in {calls} calls, {rate}, {scored}")
    return " · ".join(lines)


class _Look(NamedTuple):
    """A node of a `View`: a token at a place (-1: the last one written), and what may follow."""

    place: int
    token: str
    accepted: bool
    prediction: Prediction


def _looks(view: View, translator: Translator) -> list[_Look]:
    """Each node once (beams begin alike); no node where nothing was guessed."""
    found: dict[_Look, None] = {}
    for node in np.flatnonzero(np.asarray(view.tokens) >= 0):
        best = np.asarray(view.choices[node]).tolist()
        token, *choices = translator.tokenizer.pieces([int(view.tokens[node]), *best])
        probabilities = [round(float(p), 4) for p in np.exp(view.logprobs[node])]
        after = None if view.own else token
        prediction = Prediction(after, tuple(zip(choices, probabilities, strict=True)))
        found[_Look(int(view.position[node]), token, bool(view.accepted[node]), prediction)] = None
    return list(found)


def _canvases(view: View | None) -> list[np.ndarray]:
    """The tokens on the first row's canvas, step by step; none where there is no canvas."""
    if view is None or not view.own:
        return []
    return [tokens[tokens >= 0] for tokens in np.asarray(view.tokens)[:, 0]]


class _Scene(NamedTuple):
    """All that the cells of a step depend on: tokens before and after it, its nodes, the next."""

    before: tuple[str, ...]
    now: tuple[str, ...]
    looks: list[_Look]
    following: list[_Look]
    output: tuple[str, ...]

    def cell(self, place: int) -> Cell | None:
        guesses = [x for x in self.looks if x.place == place and place >= len(self.before)]
        # A beam's nodes stand where the step before wrote: they are hypotheses that it left.
        rivals = [x for x in self.following if x.place == place and place < len(self.now)]
        tokens = [look.token for look in (*guesses, *rivals)]
        if place < len(self.now):
            token, state = self.now[place], self._standing(place, guesses)
        elif guesses:
            early = self.output[place : place + 1]
            token, state = (early[0], "early") if {*early} & {*tokens} else (tokens[0], "wrong")
        else:
            return None
        others = tuple(other for other in dict.fromkeys(tokens) if other != token)
        return Cell(token=token, state=state, others=others, predictions=self._predictions(place))

    def _standing(self, place: int, guesses: list[_Look]) -> State:
        token = self.now[place : place + 1]
        if token != self.output[place : place + 1]:
            return "wrong"
        if token == self.before[place : place + 1]:
            return "kept"
        return "confirmed" if token[0] in [guess.token for guess in guesses] else "written"

    def _predictions(self, place: int) -> tuple[Prediction, ...]:
        written = len(self.before)
        parents = [x for x in self.looks if place == (written if x.place < 0 else x.place + 1)]
        likely = [parent for parent in parents if parent.accepted] or parents
        return tuple(parent.prediction for parent in likely)


class _CanvasScene(NamedTuple):
    """The same where a canvas is predicted: what is written, and its places, now and before."""

    now: tuple[str, ...]
    looks: dict[int, _Look]
    earlier: dict[int, _Look]
    output: tuple[str, ...]

    @classmethod
    def of(cls, now, looks: list[_Look], earlier: list[_Look], output) -> Self:
        return cls(now, {x.place: x for x in looks}, {x.place: x for x in earlier}, output)

    def cell(self, place: int) -> Cell | None:
        look, earlier = self.looks.get(place), self.earlier.get(place)
        if look is None:  # EOS, which stands on no canvas
            ends = self.now[place : place + 1]
            return Cell(token=ends[0], state="written", others=(), predictions=()) if ends else None
        again = earlier is not None and earlier.token == look.token
        stood = earlier is not None and again and earlier.accepted
        if self.output[place : place + 1] != (look.token,):
            state = "wrong"
        elif not look.accepted:
            state = "early"
        else:
            state = "kept" if stood else "confirmed" if again else "written"
        said = () if stood else (look.prediction,)
        return Cell(token=look.token, state=state, others=(), predictions=said)

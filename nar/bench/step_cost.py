"""The step-cost curve: what a call costs by the positions it scores, and what that predicts.

A parallel decoder trades calls for positions. How much a position costs is the device's business:
with this curve, a decoder's calls and positions predict its latency before it is measured.
"""

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nar.bench.measure import Progress, silent
from nar.core import TARGET, Decoder, Source, role
from nar.drafters.draft_model import DRAFT, ModelDrafter
from nar.drivers import Program, compile_all
from nar.errors import NarError
from nar.model import Transformer
from nar.ops import argmax, likeliest

POSITIONS = (1, 2, 4, 8, 16, 32)
STEPS = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a model's calls cost on a device; milliseconds are medians of repeats made in turn.

    Attributes:
        positions: scored by one call, ascending.
        ms: of one call at so many positions: of `extend` and `logits`, and the commit of a token;
            or of `fill`, `logits`, and the log-probability of what is written.
        over_one, over_one_spread: cost over that of the fewest positions, which is one but for
            canvases that are upsampled; median, and 90 % of repeats.
        over_floor: cost over `floor_ms`; empty where the floor is not known.
        floor_ms: to read once the weights that a call multiplies; None for models not ours.
        begin_ms: of `begin`, the encoder's pass.
        dispatch_ms: of one call of the fewest positions that the host sends and waits for; the
            others are made in a loop on the device. None: not asked for.
    """

    positions: tuple[int, ...]
    ms: tuple[float, ...]
    over_one: tuple[float, ...]
    over_one_spread: tuple[tuple[float, float], ...]
    over_floor: tuple[float, ...]
    floor_ms: float | None
    begin_ms: float
    dispatch_ms: float | None = None

    def at(self, positions: float) -> float:
        """Milliseconds of a call at any number of positions; linear between measured ones.

        Raises:
            NarError: beyond the last measured point; a guess is not a prediction.
        """
        fewest, most = self.positions[0], self.positions[-1]
        if not fewest <= positions <= most:
            raise NarError(f"{positions} positions: measured were {fewest} to {most}")
        return float(np.interp(positions, self.positions, self.ms))

    def predict(self, calls: float, positions: float) -> float:
        """Milliseconds for a sentence: `begin`, and `calls` calls that score `positions` in all."""
        return self.begin_ms + (calls * self.at(positions / calls) if calls else 0.0)


Rounds = Generator[tuple[int, int], None, StepCost]
"""One repeat of a curve's measurements at each `next`: how many are done, of how many."""

Place = tuple[str, int | None, bool]
"""What a curve is of: a role, its first layers alone where it exits early, whether of `fill`."""


class StepCosts:
    """The curves of all models of a bundle; each is measured when it is needed, or before.

    Canvases have a curve of their own: what a call of `fill` costs.

    Args:
        model: any of the Protocol, or a bundle.
        progress: told what is going on.
        **options: of `rounds`.
    """

    def __init__(self, model: Any, *, progress: Progress = silent, **options: Any):
        self._model, self._progress, self._options = model, progress, options
        self._curves: dict[Place, StepCost] = {}

    @property
    def target(self) -> StepCost:
        """Of the calls that the target is for; where it is for both, of `extend`."""
        return self._curve((TARGET, None, not role(self._model).spec.causal))

    def places(self, decoder: Decoder, work: Mapping[str, Any]) -> dict[str, Place]:
        """The curve that a decoder's calls of each role are on."""
        drafter, needs = getattr(decoder, "drafter", None), decoder.needs
        exits = {DRAFT: drafter.layers} if isinstance(drafter, ModelDrafter) else {}
        return {
            name: (name, exits.get(name), name in needs and needs[name].bidirectional)
            for name in work
        }

    def measuring(self, places: Iterable[Place]) -> list[Rounds]:
        """The measurements of those curves that are not known yet, to be made in turn."""
        return [self._rounds(place) for place in dict.fromkeys(places) if place not in self._curves]

    def predict(self, decoder: Decoder, work: Mapping[str, tuple[float, float]]) -> float:
        """Milliseconds for a sentence.

        Args:
            decoder: who decodes.
            work: its calls and positions for the sentence, by role.

        Raises:
            NarError: a call scores more positions than were measured.
        """
        places = self.places(decoder, work)
        return sum(self._curve(places[name]).predict(*counted) for name, counted in work.items())

    def _curve(self, place: Place) -> StepCost:
        in_turn(self.measuring([place]), self._progress)
        return self._curves[place]

    def _rounds(self, place: Place) -> Rounds:
        name, layers, fill = place
        own = layers is None
        model = role(self._model, name) if own else role(self._model).exit(layers)
        curve = yield from rounds(model, fill=fill, **self._options)
        # What an early exit begins with, the target has begun with already.
        self._curves[place] = curve if own else replace(curve, begin_ms=0.0)
        return self._curves[place]


def in_turn(curves: Sequence[Rounds], progress: Progress = silent) -> list[StepCost]:
    """Measures curves, a repeat of each in turn: a ratio of two is one of the same minutes.

    Args:
        curves: from `rounds`.
        progress: told after each repeat.
    """
    found: dict[int, StepCost] = {}
    while len(found) < len(curves):
        for i in [i for i in range(len(curves)) if i not in found]:
            try:
                progress("step costs", *next(curves[i]))
            except StopIteration as end:
                found[i] = end.value
    return [found[i] for i in range(len(curves))]


def up_to(widest: float) -> tuple[int, ...]:
    """Where to measure a curve that must reach `widest`: powers of two, and the end."""
    positions = [*POSITIONS]
    while positions[-1] < widest:
        positions.append(min(2 * positions[-1], math.ceil(widest)))
    return tuple(positions)


def _steps(
    model: Any, context: Any, pending: Any, *, steps: int, positions: int
) -> Int[Array, "rows positions"]:
    """Calls, each fed with what the last one found, each committing one token a row."""
    rows = pending.shape[0]

    def step(_, carry):
        tokens, context = carry
        hidden, fresh = model.extend(tokens, context)
        best = argmax(model.logits(hidden))
        return best, context.commit(fresh, jnp.ones((rows,), jnp.int32))

    tokens = jnp.broadcast_to(pending[:, None], (rows, positions))
    return jax.lax.fori_loop(0, steps, step, (tokens, context))[0]


def _fills(
    model: Any, context: Any, canvas: Array, *, steps: int
) -> tuple[Int[Array, "rows places"], Float[Array, "rows places"]]:
    """Calls, each fed with the canvas that the last one found, each scoring its tokens."""
    valid = jnp.ones_like(canvas, bool)

    def step(_, carry):
        canvas, score = carry
        best, logprob = likeliest(model.logits(model.fill(canvas, context, valid)))
        return best, score + logprob

    return jax.lax.fori_loop(0, steps, step, (canvas, jnp.zeros(canvas.shape)))


def _reads(weights: list[Array], most: Float[Array, ""]) -> Float[Array, ""]:
    """`STEPS` readings of all weights: each begins with the maximum that the last one found."""

    def read(_, most):
        peaks = [
            jax.lax.reduce(w, most.astype(w.dtype), jax.lax.max, tuple(range(w.ndim)))
            for w in weights
        ]
        return functools.reduce(jnp.maximum, peaks).astype(most.dtype)

    return jax.lax.fori_loop(0, STEPS, read, most)


def _blank_canvas(model: Any, source: Source, positions: int) -> tuple[Any, Array]:
    """A context, and canvases of so many places in all: as few as the model's positions allow.

    Of a model that upsamples the source is made as long as that takes.
    """
    spec, unit = model.spec, max(model.spec.upsample, 1)
    rows = -(-positions // ((spec.max_target or positions) // unit * unit))
    places = -(-positions // (rows * unit)) * unit
    if spec.upsample:
        tokens = jnp.resize(source.tokens, (1, places // unit))
        source = Source(tokens, jnp.array([tokens.size]))
    context, _ = _begin(model, source, 0)
    return context.repeat(rows), jnp.full((rows, places), spec.mask)


@functools.partial(jax.jit, static_argnames="slots")
def _begin(model: Any, source: Source, slots: int) -> Any:
    return model.begin(source, slots)


def step_weights(model: Transformer) -> list[Array]:
    """The matrices that a call reads: not the encoder's, nor those for the encoder's states."""
    products = [(model.output or model.embedding).table[...]]
    for layer in model.decoder.layers:
        mine = [layer.attention.qkv, layer.attention.out]
        if layer.cross is not None:
            mine += [layer.cross.query, layer.cross.out]
        mine += [layer.feed_forward.up, layer.feed_forward.down]
        products += [product.weight[...] for product in mine]
    return products


def seconds(work: Callable[[], Any]) -> float:
    """Seconds until the result of `work` is there."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def step_cost(
    model: Any, source: Source, *, progress: Progress = silent, **options: Any
) -> StepCost:
    """Measures one curve.

    Args:
        model: as in `rounds`.
        source: as in `rounds`.
        progress: told after each repeat.
        **options: of `rounds`.
    """
    return in_turn([rounds(model, source, **options)], progress)[0]


def rounds(
    model: Any,
    source: Source,
    *,
    max_length: int,
    positions: Sequence[int] = POSITIONS,
    fill: bool = False,
    repeats: int = 15,
    dispatch: bool = False,
) -> Rounds:
    """Measures a curve, a repeat at each `next`, to be made `in_turn` with others.

    The first one compiles.

    Args:
        model: any of the Protocol.
        source: one typical sentence, or a batch of them; `begin` is timed on it. Only the curve of
            one sentence predicts.
        max_length: room in the context, as the decoders have it; at least `STEPS`.
        positions: where to measure, ascending from 1; of upsampled canvases, as many as the next
            whole ones have.
        fill: measure calls of `fill`, not of `extend`; of one sentence.
        repeats: measurements of each, in turn.
        dispatch: measure one call alone too.

    Raises:
        NarError: the positions do not ascend from 1, or the room is too small; at the first `next`.
    """
    positions = tuple(positions)
    if positions[:1] != (1,) or list(positions) != sorted(set(positions)):
        raise NarError(f"positions={positions}: they must ascend from 1")
    works = _works(model, source, max(max_length, STEPS), positions, fill, dispatch)
    positions = tuple(sorted(name for name in works if isinstance(name, int)))
    for work in works.values():
        seconds(work)  # warms up
    found: dict[Any, list[float]] = {name: [] for name in works}
    for repeat in range(repeats):
        for name, work in works.items():
            # Short work is repeated, or the clock and other programs are what is measured.
            times = 5 if name in ("begin", "dispatch") else 1
            found[name].append(1e3 * statistics.median(seconds(work) for _ in range(times)))
        yield repeat + 1, repeats
    ms = {t: np.array(found[t]) / STEPS for t in positions}
    over_one = {t: ms[t] / ms[positions[0]] for t in positions}
    floor = float(np.median(found["floor"])) / STEPS if "floor" in found else None
    middle = {t: float(np.median(ms[t])) for t in positions}
    return StepCost(
        positions=positions,
        ms=tuple(middle.values()),
        over_one=tuple(float(np.median(r)) for r in over_one.values()),
        over_one_spread=tuple(
            (float(np.percentile(r, 5)), float(np.percentile(r, 95))) for r in over_one.values()
        ),
        over_floor=tuple(m / floor for m in middle.values()) if floor else (),
        floor_ms=floor,
        begin_ms=float(np.median(found["begin"])),
        dispatch_ms=float(np.median(found["dispatch"])) if dispatch else None,
    )


def _works(
    model: Any, source: Source, slots: int, positions: Sequence[int], fill: bool, dispatch: bool
) -> dict[Any, Callable[[], Any]]:
    """What is timed, compiled: by positions `STEPS` calls; "begin", "floor" and "dispatch"."""
    reading = Program(functools.partial(_begin, slots=slots), model, source).compile()
    calls: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]]
    if fill:
        unit = max(model.spec.upsample, 1)
        made = [_blank_canvas(model, source, -(-t // unit) * unit) for t in positions]
        calls = {canvas.size: (_fills, (context, canvas)) for context, canvas in made}
    else:
        begun = reading(source)
        calls = {t: (functools.partial(_steps, positions=t), begun) for t in positions}
    works: dict[Any, tuple[Callable[..., Any], Any, tuple[Any, ...]]] = {
        t: (functools.partial(call, steps=STEPS), model, given)
        for t, (call, given) in calls.items()
    }
    if isinstance(model, Transformer):
        works["floor"] = _reads, step_weights(model), (jnp.array(-jnp.inf),)
    if dispatch:
        call, given = calls[min(calls)]
        works["dispatch"] = functools.partial(call, steps=1), model, given
    programs = compile_all(Program(call, whose, *given) for call, whose, given in works.values())
    timed = {
        name: functools.partial(program, *given)
        for program, (name, (_, _, given)) in zip(programs, works.items(), strict=True)
    }
    return {"begin": functools.partial(reading, source), **timed}

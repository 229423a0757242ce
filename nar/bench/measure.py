"""Times decoders in turn, counts their work, and keeps what they wrote.

S1 is the latency of single sentences, Smax the throughput at the best batch. Both include the
encoder and leave compilation out. Decoders take turns sentence by sentence, or chunk by chunk, so
that a noisy machine is noisy for all of them, and every ratio is one of neighbours in time.
"""

import collections
import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from nar.core import TARGET, Decoder, Output, Source, failed_rows, role, room
from nar.data.batching import evaluation_batches
from nar.drivers import Program, compile_all, trace_decode
from nar.ops import numbered_keys
from nar.testing.oracles import teacher_forced

Progress = Callable[[str, int, int], None]
"""Told the stage, what of it is done, and how much there is."""


def silent(stage: str, done: int, total: int) -> None:
    """No progress is shown."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Contender:
    """A decoder on a model.

    Attributes:
        decoder: with its options.
        model: any that it runs on.
        sources: the test set's token ids.
        baseline: greedy on the same model, whose lengths an oracle is told; None: this is it.
        width_multiple: sources are padded to multiples of it.
    """

    decoder: Decoder
    model: Any
    sources: Sequence[Sequence[int]]
    baseline: "Contender | None" = None
    width_multiple: int = 8

    @functools.cached_property
    def room(self) -> int | None:
        """The widest source, padding included."""
        return room(self.decoder, self.model)

    def batches(
        self, rows: Sequence[int] | Int[np.ndarray, " rows"], size: int
    ) -> Iterator[tuple[Int[np.ndarray, " rows"], Source]]:
        """Some sentences of the test set, by number, in batches of similar lengths."""
        numbers, sources = np.asarray(rows), [self.sources[i] for i in rows]
        for indices, source in evaluation_batches(
            sources, size, max_length=self.room, width_multiple=self.width_multiple
        ):
            yield numbers[indices], source

    def alone(self, number: int) -> Source:
        """A sentence of the test set as a batch."""
        return next(self.batches([number], 1))[1]

    @property
    def oracle(self) -> bool:
        """Whether it is told the length of greedy's output."""
        return bool(getattr(self.decoder, "oracle_length", False))


class Programs:
    """What was compiled, by contender and shape.

    Args:
        seed: of decoders that draw random numbers.
        threads: that compile. With one, a program is compiled when it is first run; more compile
            what is to come side by side, and `compile_s` then counts what they wait for each other.
    """

    def __init__(self, seed: int, threads: int = 1):
        self._key, self._threads = jax.random.key(seed), threads
        self._programs: dict[tuple[Contender, tuple[int, ...]], Program] = {}
        self.compile_s: dict[Contender, list[float]] = collections.defaultdict(list)
        self.peak_bytes: collections.Counter[tuple[Contender, int]] = collections.Counter()

    def prepare(self, coming: Iterable[tuple[Contender, Source]]) -> None:
        """Compiles for batches to come, where there are threads to do so side by side."""
        if self._threads > 1:
            self._compile(coming)

    def run(
        self, contender: Contender, source: Source, rows: Int[np.ndarray, " rows"], lengths: Any
    ) -> tuple[Output, float]:
        """Decodes a batch: what was found, and the seconds; a new shape is compiled first.

        Args:
            contender: who.
            source: the batch; rows beyond `rows` only fill the shape.
            rows: the sentences' numbers; a sentence's random key depends on its number alone.
            lengths: of the baseline's outputs, for an oracle.
        """
        self._compile([(contender, source)])
        most = lengths if contender.oracle else contender.decoder.max_length
        given, key = jax.block_until_ready(self._given(source, rows, most))
        program = self._programs[contender, source.tokens.shape]
        start = time.perf_counter()
        output = jax.block_until_ready(program(given, key))
        return output, time.perf_counter() - start

    def _given(
        self, source: Source, rows: Int[np.ndarray, " rows"], lengths: Any
    ) -> tuple[Source, Any]:
        """A program's arguments: the batch with the most tokens to write, and a key a row."""
        limit = np.ones(source.tokens.shape[0], np.int32)
        limit[: len(rows)] = lengths
        numbers = np.zeros(len(limit), np.int32)
        numbers[: len(rows)] = rows
        return source.replace(limit=jnp.asarray(limit)), numbered_keys(self._key, numbers)

    def _compile(self, coming: Iterable[tuple[Contender, Source]]) -> None:
        """Compiles what is not there yet, and runs each program once, for a token a row."""
        shapes = {(c, source.tokens.shape): source for c, source in coming}
        new = {
            place: self._given(source, np.arange(0), 1)
            for place, source in shapes.items()
            if place not in self._programs
        }
        traced = (
            trace_decode(c.decoder, c.model, given, key=key) for (c, _), (given, key) in new.items()
        )
        for place, program in zip(new, compile_all(traced, self._threads), strict=True):
            contender, (rows, _) = place
            self.compile_s[contender].append(program.compile_s)
            size = contender, rows
            self.peak_bytes[size] = max(self.peak_bytes[size], held(program))
            jax.block_until_ready(program(*new[place]))  # warms up
            self._programs[place] = program


def held(program: Program) -> int:
    """Bytes that a program holds at once: what it is given, makes and needs meanwhile."""
    memory = program.compiled.memory_analysis()
    if memory is None:
        return 0
    sizes = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return sizes + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def turns(contenders: Sequence[Contender], first: int) -> Iterator[Contender]:
    """All contenders, in an order that begins with another one every time."""
    first %= len(contenders)
    return iter([*contenders[first:], *contenders[:first]])


# --------------------------------------------------------------------------------------------- S1
@dataclasses.dataclass
class Latency:
    """Of a contender, for each sentence of the sample: milliseconds; calls, positions by role."""

    ms: list[float] = dataclasses.field(default_factory=list)
    work: list[dict[str, tuple[float, float]]] = dataclasses.field(default_factory=list)

    @property
    def mean_work(self) -> dict[str, tuple[float, float]]:
        """Calls and positions of a sentence, by role; means."""
        return mean_work(self.work)


def mean_work(work: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Calls and positions by role; means over sentences."""
    by_role = {name: np.mean([one[name] for one in work], axis=0) for name in work[0]}
    return {name: (float(calls), float(scored)) for name, (calls, scored) in by_role.items()}


def work_by_row(output: Output) -> list[dict[str, tuple[float, float]]]:
    """Of every row: the calls that it needed, and the positions scored for it, by role."""
    stats, live = output.stats, np.asarray(output.stats.live)
    # Every step makes as many calls of another model for one of the target.
    each = {name: int(n) / max(int(stats.calls[TARGET]), 1) for name, n in stats.calls.items()}
    scored = {name: np.asarray(positions) for name, positions in stats.positions.items()}
    return [
        {name: (each[name] * live[row], float(scored[name][row])) for name in each}
        for row in range(len(live))
    ]


def latency(
    contenders: Sequence[Contender],
    sample: Sequence[int],
    programs: Programs,
    *,
    repeats: int,
    progress: Progress = silent,
) -> dict[Contender, Latency]:
    """S1: each sentence of a sample alone, the median of some repeats.

    Args:
        contenders: who takes turns.
        sample: numbers of sentences.
        programs: where compiled programs are kept.
        repeats: of every sentence, in turn.
        progress: told after each sentence.
    """
    found = {contender: Latency() for contender in contenders}
    singles = [{c: c.alone(i) for c in contenders} for i in sample]
    programs.prepare(pair for single in singles for pair in single.items())
    for number, (i, single) in enumerate(zip(sample, singles, strict=True)):
        rows = np.array([i])
        lengths = {
            c: programs.run(c, single[c], rows, None)[0].length
            for c in dict.fromkeys(c.baseline or c for c in contenders)
        }
        seconds: dict[Contender, list[float]] = collections.defaultdict(list)
        outputs: dict[Contender, Output] = {}
        for repeat in range(repeats):
            for c in turns(contenders, number + repeat):
                outputs[c], spent = programs.run(c, single[c], rows, lengths[c.baseline or c])
                seconds[c].append(spent)
        for c, output in outputs.items():
            found[c].ms.append(1e3 * statistics.median(seconds[c]))
            found[c].work.append(work_by_row(output)[0])
        progress("S1: single sentences", number + 1, len(sample))
    return found


# ------------------------------------------------------------------------------------------- Smax
def best_batch(
    contenders: Sequence[Contender],
    sizes: Sequence[int],
    programs: Programs,
    *,
    repeats: int,
    progress: Progress = silent,
) -> dict[Contender, int]:
    """The batch size with the highest throughput, on the sentences of median length.

    Sizes are tried in ascending order, for as long as they get better.

    Args:
        contenders: who takes turns.
        sizes: what to try.
        programs: where compiled programs are kept.
        repeats: of every batch; the quickest counts.
        progress: told after each size.
    """
    best: dict[Contender, tuple[float, int]] = {}
    climbing = list(contenders)
    for number, size in enumerate(sorted(sizes)):
        speed: dict[Contender, float] = collections.defaultdict(float)
        typical = {c: _middle_batch(c, size) for c in climbing}
        programs.prepare((c, source) for c, (_, source) in typical.items())
        for _ in range(repeats):
            for c, (rows, source) in typical.items():
                lengths = np.full(len(rows), c.decoder.max_length)
                if c.oracle and c.baseline:
                    lengths = programs.run(c.baseline, source, rows, None)[0].length[: len(rows)]
                speed[c] = max(speed[c], len(rows) / programs.run(c, source, rows, lengths)[1])
        for c in climbing:
            if c not in best or speed[c] > best[c][0]:
                best[c] = speed[c], size
        # A batch that the test set does not fill is the last one worth trying.
        climbing = [c for c in climbing if best[c][1] == size and size < len(c.sources)]
        progress("Smax: the best batch", number + 1, len(sizes))
    return {c: size for c, (_, size) in best.items()}


def _middle_batch(contender: Contender, size: int) -> tuple[Int[np.ndarray, " rows"], Source]:
    """The sentences of median length."""
    order = np.argsort([-len(source) for source in contender.sources], kind="stable")
    middle = max((len(order) - size) // 2, 0)
    return next(contender.batches(order[middle : middle + size], size))


@dataclasses.dataclass
class Work:
    """What a contender did with a whole test set.

    Attributes:
        outputs: by sentence, token ids with EOS.
        calls: by sentence, sequential calls of the target.
        positions: by sentence, positions that the target scored.
        accepted: how many calls accepted 0, 1, 2, ... tokens.
        failed: sentences for which the model's logits were NaN.
        seconds: of each chunk.
    """

    outputs: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    calls: dict[int, int] = dataclasses.field(default_factory=dict)
    positions: dict[int, int] = dataclasses.field(default_factory=dict)
    accepted: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    failed: list[int] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)

    def add(self, rows: Iterable[int], output: Output) -> None:
        """Notes a batch."""
        tokens, length = np.asarray(output.tokens), np.asarray(output.length)
        work, row = work_by_row(output), -1
        failed = failed_rows(output)
        for row, i in enumerate(rows):
            self.outputs[int(i)] = tokens[row, : length[row]]
            self.failed += [int(i)] if failed[row] else []
            calls, positions = work[row][TARGET]
            self.calls[int(i)], self.positions[int(i)] = int(calls), int(positions)
        self.accepted.update(dict(enumerate(np.asarray(output.stats.accepted).tolist())))
        # A row that only fills the shape may write one token, and does so with one call.
        self.accepted[1] -= int(sum(one[TARGET][0] for one in work[row + 1 :]))


def throughput(
    contenders: Sequence[Contender],
    sizes: dict[Contender, int],
    programs: Programs,
    *,
    progress: Progress = silent,
) -> dict[Contender, Work]:
    """Smax: the whole test set, sorted by length, each contender in its best batch.

    Args:
        contenders: who takes turns, a baseline before those that it is told to.
        sizes: rows of a batch.
        programs: where compiled programs are kept.
        progress: told after each chunk.
    """
    found = {c: Work() for c in contenders}
    # What is compared is timed on the same sentences, in as many of them as the largest batch has.
    chunk, number = max(sizes.values()), len(contenders[0].sources)
    order = np.argsort([-len(source) for source in contenders[0].sources], kind="stable")
    chunks = [order[start : start + chunk] for start in range(0, number, chunk)]
    coming = itertools.product(contenders, chunks)
    programs.prepare((c, source) for c, rows in coming for _, source in c.batches(rows, sizes[c]))
    for turn, rows in enumerate(chunks):
        ordered = [*turns([c for c in contenders if not c.oracle], turn)]
        for c in (*ordered, *(c for c in contenders if c.oracle)):
            spent = 0.0
            for part, source in c.batches(rows, sizes[c]):
                known = None
                if c.oracle and c.baseline:
                    known = [len(found[c.baseline].outputs[i]) for i in part]
                output, seconds = programs.run(c, source, part, known)
                found[c].add(part, output)
                spent += seconds
            found[c].seconds.append(spent)
        progress("Smax: the test set", min((turn + 1) * chunk, number), number)
    return found


# -------------------------------------------------------------------------------------- exactness
def first_difference(ours: np.ndarray, theirs: np.ndarray) -> int | None:
    """The first place where two outputs differ; None where they do not."""
    if np.array_equal(ours, theirs):
        return None
    shared = min(len(ours), len(theirs))
    differing = np.flatnonzero(ours[:shared] != theirs[:shared])
    return int(differing[0]) if len(differing) else shared


@jax.jit
def _gap(model: Any, source: Source, tokens: Any, place: Any) -> Any:
    best, second = jax.lax.top_k(teacher_forced(model, source, tokens)[0, place], 2)[0]
    return best - second


def largest_gap(contender: Contender, ours: Work, theirs: Work) -> float | None:
    """Where outputs leave greedy's, how far apart its two best logits were; the largest such gap.

    A gap near 0 is a tie that floating-point noise decides either way. None: nothing differs.
    """
    gaps = []
    for i, reference in theirs.outputs.items():
        place = first_difference(ours.outputs[i], reference)
        if place is None:
            continue
        tokens = np.zeros((1, contender.decoder.max_length), np.int32)
        tokens[0, : len(reference)] = reference
        gaps.append(
            float(_gap(role(contender.model), contender.alone(i), jnp.asarray(tokens), place))
        )
    return max(gaps, default=None)

"""Decodes a whole test set with several decoders, in batches and in turn, and counts the work."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nar.core import TARGET, Decoder, NarError, Output, Source
from nar.data.batching import evaluation_batches
from nar.drivers import decode

BASELINE = "greedy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one decoder did on a test set.

    Attributes:
        decoder: its name and options.
        outputs: token ids of each output, EOS included, in the order of the sources.
        calls: mean number of sequential calls of the target that a sentence needed.
        tokens_per_call: tokens written over these calls.
        positions: mean number of positions that the target scored for a sentence.
        equal_to_baseline: the share of outputs that are the baseline's, token for token.
        seconds: for all batches, after compilation.
        compile_seconds: of the first run of every shape, which writes one token.
    """

    decoder: str
    outputs: Sequence[Sequence[int]]
    calls: float
    tokens_per_call: float
    positions: float
    equal_to_baseline: float
    seconds: float
    compile_seconds: float


@dataclasses.dataclass
class _Tally:
    outputs: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    live: int = 0
    positions: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    shapes: set[tuple[int, ...]] = dataclasses.field(default_factory=set)


def measure(
    decoders: Mapping[str, Decoder],
    model: Any,
    sources: Sequence[Sequence[int]],
    *,
    batch_size: int = 64,
    key: Any = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Measurement]:
    """Runs every decoder over all sources, batch by batch in turn, so that a noisy machine is fair.

    A decoder with an oracle length is given the baseline's lengths.

    Args:
        decoders: by name; the one called "greedy" is the baseline and must be there.
        model: any that they all run on.
        sources: token ids.
        batch_size: rows a batch.
        key: for decoders that sample.
        progress: told how many sources are done.

    Raises:
        NarError: no baseline, or a source or model that does not fit a decoder.
    """
    if BASELINE not in decoders:
        raise NarError(f"the decoder {BASELINE!r} is missing: it is what the others are held to")
    ordered = {BASELINE: decoders[BASELINE], **decoders}
    tallies = {name: _Tally() for name in ordered}
    done = 0
    for indices, source in evaluation_batches(sources, batch_size):
        lengths = None
        for name, decoder in ordered.items():
            known = lengths if getattr(decoder, "oracle_length", False) else None
            limit = jnp.full_like(source.length, decoder.max_length) if known is None else known
            given = source.replace(limit=limit)
            output = _timed(decoder, model, given, key, tallies[name], indices)
            if name == BASELINE:
                lengths = output.length
        done += len(indices)
        progress(done)
    baseline = tallies[BASELINE].outputs
    return [_measurement(name, tallies[name], baseline) for name in decoders]


def _timed(
    decoder: Decoder, model: Any, source: Source, key: Any, tally: _Tally, indices: np.ndarray
) -> Output:
    """Decodes one batch and notes the result; a new shape is compiled first, on one token."""

    def run(given: Source) -> tuple[Output, float]:
        start = time.perf_counter()
        output = jax.block_until_ready(decode(decoder, model, given, key=key))
        return output, time.perf_counter() - start

    if source.tokens.shape not in tally.shapes:
        tally.shapes.add(source.tokens.shape)
        tally.compile_seconds += run(source.replace(limit=jnp.ones_like(source.length)))[1]
    output, seconds = run(source)
    tally.seconds += seconds
    tokens, length = np.asarray(output.tokens), np.asarray(output.length)
    rows = slice(0, len(indices))  # what follows only fills the shape
    for row, index in enumerate(indices):
        tally.outputs[int(index)] = tokens[row, : length[row]]
    tally.live += int(output.stats.live[rows].sum())
    tally.positions += int(output.stats.positions[TARGET][rows].sum())
    return output


def _measurement(name: str, tally: _Tally, baseline: Mapping[int, np.ndarray]) -> Measurement:
    count = len(tally.outputs)
    outputs = [tally.outputs[i].tolist() for i in range(count)]
    equal = sum(np.array_equal(tally.outputs[i], baseline[i]) for i in range(count))
    return Measurement(
        decoder=name,
        outputs=outputs,
        calls=tally.live / count,
        tokens_per_call=sum(map(len, outputs)) / tally.live,
        positions=tally.positions / count,
        equal_to_baseline=equal / count,
        seconds=tally.seconds,
        compile_seconds=tally.compile_seconds,
    )

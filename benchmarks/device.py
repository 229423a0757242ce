"""What is measured of a device: its bandwidth, a model's step costs, decoders, kernels."""

import collections
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nar.bench.protocol import Protocol, System, speeds
from nar.bench.report import Row
from nar.bench.step_cost import StepCost, seconds, step_cost, step_weights
from nar.bench.table import Table
from nar.core import Source
from nar.decoders import Greedy
from nar.drivers import compile_decode
from nar.errors import NarError
from nar.model import Transformer, TransformerConfig
from nar.translator import Translator

TIMES = 20
"""How often a buffer is streamed while the host waits once."""
KERNELS = 20
"""How many kernels of a profile are kept."""


# ------------------------------------------------------------------------------------- bandwidth
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """Gigabytes a second of the device's memory; a copy reads and writes.

    Attributes:
        read: by the maximum of a buffer.
        copy: by adding one to it, in place.
        buffer: its bytes.
    """

    read: float
    copy: float
    buffer: int

    @property
    def best(self) -> float:
        """The faster of both."""
        return max(self.read, self.copy)


def measure_bandwidth(size: int, repeats: int) -> Bandwidth:
    """Streams a buffer, some times for one wait of the host.

    Args:
        size: bytes of the buffer.
        repeats: measurements of each kind, in turn; their median counts.
    """
    buffer = jnp.arange(size // 4, dtype=jnp.float32)
    read, copy = jax.jit(jnp.max), jax.jit(lambda x: x + 1, donate_argnums=0)
    rates: dict[str, list[float]] = {"read": [], "copy": []}

    def reads() -> Any:
        return [read(buffer) for _ in range(TIMES)]

    def copies() -> Any:
        nonlocal buffer
        for _ in range(TIMES):
            buffer = copy(buffer)
        return buffer

    for repeat in range(repeats + 1):
        for name, work, passes in (("read", reads, 1), ("copy", copies, 2)):
            spent = seconds(work)
            if repeat:  # the first one compiles
                rates[name].append(passes * TIMES * buffer.nbytes / spent / 1e9)
    medians = {name: float(np.median(rate)) for name, rate in rates.items()}
    return Bandwidth(**medians, buffer=buffer.nbytes)


def bandwidth_table(bandwidth: Bandwidth) -> Table:
    """A line a kind."""
    return Table(
        title=f"Bandwidth, by a buffer of {bandwidth.buffer / 1e6:.0f} MB",
        headings=("", "GB/s"),
        lines=(("read", f"{bandwidth.read:.0f}"), ("copy", f"{bandwidth.copy:.0f}")),
        notes=(),
    )


# ------------------------------------------------------------------------------------ step costs
@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A model of random weights, and what its calls come after.

    Attributes:
        name: what people call it.
        config: its shape.
        seconds: that its curve takes on an accelerator, about, compilation included.
        source: tokens of the source, or of the prompt.
        batch: rows of a call.
    """

    name: str
    config: TransformerConfig
    seconds: float
    source: int = 20
    batch: int = 1

    def sources(self) -> Source:
        """Random tokens."""
        shape = self.batch, self.source
        tokens = np.random.default_rng(0).integers(7, self.config.vocab_size, shape)
        return Source.of(tokens.tolist())

    def model(self, dtype: str) -> Transformer:
        """Random weights, made on the device in that type; EOS is never written."""
        config = dataclasses.replace(self.config, dtype=dtype, banned=(self.config.eos,))

        def weights(key: jax.Array) -> Transformer:
            return jax.tree.map(lambda x: x.astype(dtype), Transformer(config, key=key))

        return jax.jit(weights)(jax.random.key(0, impl="rbg"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """The step costs of a shape.

    Attributes:
        shape: its name.
        dtype: of weights, activations, keys and values.
        batch: rows of a call.
        source: tokens before it.
        config: of the model.
        parameters: how many numbers it has.
        weight_bytes: that a call reads: not the encoder's.
        cost: what was measured.
        share: of the bandwidth, by positions: the weights' bytes over time and the faster of
            reading and copying; above 1 where the device's cache holds them. None: the bandwidth
            is not known.
    """

    shape: str
    dtype: str
    batch: int
    source: int
    config: TransformerConfig
    parameters: int
    weight_bytes: int
    cost: StepCost
    share: tuple[float, ...] | None


def measure_curve(
    shape: Shape,
    dtype: str,
    *,
    positions: Sequence[int],
    repeats: int,
    bandwidth: Bandwidth | None,
) -> Curve:
    """The step costs of a shape.

    Args:
        shape: of random weights.
        dtype: of everything.
        positions: of the curve.
        repeats: of its measurements, in turn.
        bandwidth: of the device, where it is known.
    """
    model = shape.model(dtype)
    cost = step_cost(
        model, shape.sources(), max_length=64, positions=positions, repeats=repeats, dispatch=True
    )
    size = sum(weight.nbytes for weight in step_weights(model))
    return Curve(
        shape=shape.name,
        dtype=dtype,
        batch=shape.batch,
        source=shape.source,
        config=model.config,
        parameters=sum(x.size for x in jax.tree.leaves(model)),
        weight_bytes=size,
        cost=cost,
        share=bandwidth and tuple(size / ms / 1e6 / bandwidth.best for ms in cost.ms),
    )


def curve_table(curves: Sequence[Curve]) -> Table:
    """A line a curve."""

    def line(curve: Curve) -> tuple[str, ...]:
        cost = curve.cost
        return (
            f"{curve.shape}, {curve.dtype}",
            f"{curve.parameters / 1e6:.0f}",
            f"{cost.begin_ms:.2f}",
            f"{cost.dispatch_ms:.3f}",
            f"{cost.ms[0]:.3f}",
            *(f"{ratio:.2f}" for ratio in cost.over_one[1:]),
            f"{curve.share[0]:.0%}" if curve.share else "",
        )

    return Table(
        title="A call at T positions, over one at T=1",
        headings=(
            "model", "million parameters", "begin, ms", "T=1 from the host, ms", "T=1, ms",
            *(f"T={t}" for t in curves[0].cost.positions[1:]), "share of the bandwidth",
        ),
        lines=tuple(map(line, curves)),
        notes=(),
    )  # fmt: skip


# -------------------------------------------------------------------------------------- decoders
@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """Decoders on trained models, without scores of quality.

    Attributes:
        texts: how many were decoded.
        rows: a decoder each.
        step_cost: of each model, by name.
    """

    texts: int
    rows: tuple[Row, ...]
    step_cost: dict[str, dict[str, Any]]


def measure_decoding(
    folders: Mapping[pathlib.Path, Sequence[str]],
    texts: Sequence[str],
    *,
    most: int,
    protocol: Protocol,
) -> Decoding:
    """S1 and Smax of decoders on models; the first model's greedy is the baseline.

    Args:
        folders: of models, with the decoders to run on each.
        texts: to decode; of those, texts of one padded width.
        most: how many of them.
        protocol: how much to measure.
    """
    systems = [
        dataclasses.replace(System.load(folder, decoders), name=label(folder))
        for folder, decoders in folders.items()
    ]
    picked = alike(systems[0].translator, texts)[:most]
    took = speeds(systems, picked, protocol=protocol, threads=os.cpu_count() or 1)
    rows = tuple(row for row, _ in took.rows)
    return Decoding(texts=len(picked), rows=rows, step_cost=took.step_cost)


def label(folder: pathlib.Path) -> str:
    """What results call a folder: the end of its path, `NAME/model` where experiments leave it."""
    return "/".join(folder.resolve().parts[-2:])


def alike(translator: Translator, texts: Sequence[str]) -> list[str]:
    """Texts of one padded width, the commonest: each decoder then has one program a batch size."""
    widths = [-(-len(source) // 8) for source in translator.encode(texts)]
    ((common, _),) = collections.Counter(widths).most_common(1)
    return [text for text, width in zip(texts, widths, strict=True) if width == common]


def decoding_table(decoding: Decoding) -> Table:
    """A line a decoder."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    def line(row: Row) -> tuple[str, ...]:
        return (
            f"`{row.decoder}` on {row.model}",
            number(row.exact_match, ".1%"),
            number(row.tokens_per_call, ".2f"),
            number(row.s1_ms_median, ".2f"),
            number(row.s1_speedup, ".2f"),
            number(row.predicted_speedup, ".2f"),
            f"{number(row.smax_sentences_per_s, '.0f')} ({row.smax_batch})",
            number(row.smax_speedup, ".2f"),
        )

    rows = decoding.rows
    return Table(
        title=f"{decoding.texts} texts on {rows[-1].model}",
        headings=(
            "decoder", "= greedy", "tokens a call", "S1, ms", "S1 speed-up", "predicted",
            "Smax, sentences/s (batch)", "Smax speed-up",
        ),
        lines=tuple(line(row) for row in rows if not row.skipped),
        notes=tuple(f"`{row.decoder}` did not run: {row.skipped}" for row in rows if row.skipped),
    )  # fmt: skip


# --------------------------------------------------------------------------------------- kernels
@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of a short decode goes.

    Attributes:
        shape: the model's.
        calls: that the decode makes, in bfloat16.
        span_ms: from the first kernel's begin to the last one's end.
        busy_ms: the sum of all kernels.
        kernels: those that take longest: name, milliseconds in all, how often.
    """

    shape: str
    calls: int
    span_ms: float
    busy_ms: float
    kernels: tuple[tuple[str, float, int], ...]


def measure_profile(shape: Shape, folder: pathlib.Path) -> Profile:
    """Traces one decode that has run before.

    Args:
        shape: of the model.
        folder: where the trace is left.
    """
    model, source, key = shape.model("bfloat16"), shape.sources(), jax.random.key(0)
    decoder = Greedy(max_length=16)
    program = compile_decode(decoder, model, source, key=key)
    jax.block_until_ready(program(source, key))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's own calls would be most of the trace
    with jax.profiler.trace(folder, profiler_options=options):
        jax.block_until_ready(program(source, key))
    newest = max(folder.rglob("*.xplane.pb"), key=os.path.getmtime)
    return Profile(shape=shape.name, calls=decoder.max_length, **read_trace(newest))


def read_trace(path: pathlib.Path) -> dict[str, Any]:
    """The fields of a profile that a trace holds.

    Raises:
        NarError: it holds no kernels.
    """
    planes = [*jax.profiler.ProfileData.from_file(str(path)).planes]
    # A device's kernels are on its streams; of a CPU there are the threads of XLA.
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [line for plane in devices or planes for line in plane.lines]
    kernels = (
        innermost(line.events)
        for line in lines
        if line.name.startswith(("Stream", "XLA Ops", "tf_XLA"))
    )
    events = [*itertools.chain.from_iterable(kernels)]
    if not events:
        raise NarError(f"the trace holds no kernels: {[plane.name for plane in planes]}")
    total, times = collections.Counter[str](), collections.Counter[str]()
    for event in events:
        total[event.name] += event.duration_ns / 1e6
        times[event.name] += 1
    begin = min(event.start_ns for event in events)
    end = max(event.start_ns + event.duration_ns for event in events)
    return {
        "span_ms": (end - begin) / 1e6,
        "busy_ms": total.total(),
        "kernels": tuple((name, ms, times[name]) for name, ms in total.most_common(KERNELS)),
    }


def innermost(events: Iterable[Any]) -> Iterator[Any]:
    """The events that no other is within, such as a loop's steps, but for XLA's own marks."""
    marks = ("ThunkExecutor", "end: ")
    found = [event for event in events if not event.name.startswith(marks)]
    found.sort(key=lambda event: (event.start_ns, -event.duration_ns))
    for event, following in itertools.zip_longest(found, found[1:]):
        end = event.start_ns + event.duration_ns
        if following is None or following.start_ns + following.duration_ns > end:
            yield event


def profile_table(profile: Profile) -> Table:
    """A line a kernel."""
    return Table(
        title=f"{profile.calls} calls of {profile.shape}: kernels run in {profile.busy_ms:.2f} of "
        f"{profile.span_ms:.2f} ms",
        headings=("kernel", "ms", "times"),
        lines=tuple((name, f"{ms:.3f}", str(times)) for name, ms, times in profile.kernels[:10]),
        notes=(),
    )

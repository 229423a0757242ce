"""One protocol of speed for every decoder: same text, same machine, one run, honest labels."""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from nar.bench.measure import (
    Contender,
    Latency,
    Programs,
    Progress,
    Work,
    best_batch,
    largest_gap,
    latency,
    silent,
    throughput,
)
from nar.bench.quality import Interval, interval
from nar.bench.report import Row
from nar.bench.step_cost import StepCosts, in_turn, up_to
from nar.bench.tuned import described
from nar.core import TARGET, Decoder, Source, role
from nar.decoders import Greedy, make
from nar.drivers import flops
from nar.errors import IncompatibleModel, NarError, at_least
from nar.lines import one_line
from nar.model import TransformerConfig
from nar.translator import Translator, load

BASELINE = "greedy"
ABOUT = "about.json"
"""Beside a model's weights: the name, the training ("raw" or "distilled") and its seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How much to measure.

    Attributes:
        latency_sentences: sentences of the S1 sample, spread evenly over the test set.
        latency_repeats: timings of each; their median counts.
        batch_sizes: what Smax tries, in ascending order while it gets better.
        batch_repeats: timings of each; the quickest counts.
        cost_repeats: timings of the step-cost curve; 0: no curve, no prediction.
        width_multiple: sources are padded to multiples of it, for every decoder. Large ones make
            few shapes, each of which every decoder compiles.
        examples: sentences shown with all outputs.
        seed: of decoders that draw random numbers.
    """

    latency_sentences: int = 100
    latency_repeats: int = 3
    batch_sizes: tuple[int, ...] = (16, 64, 256)
    batch_repeats: int = 2
    cost_repeats: int = 15
    width_multiple: int = 8
    examples: int = 5
    seed: int = 0

    def __post_init__(self):
        for name in ("latency_sentences", "latency_repeats", "batch_repeats", "width_multiple"):
            at_least(name, getattr(self, name), 1)
        for name in ("cost_repeats", "examples", "seed"):
            at_least(name, getattr(self, name), 0)
        if not self.batch_sizes:
            raise NarError("batch_sizes=(): at least one is needed")
        for size in self.batch_sizes:
            at_least("batch_sizes", size, 1)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class System:
    """A model, and the decoders to run on it.

    Attributes:
        name: what the report calls the model.
        translator: the model and its tokenizer.
        decoders: as `nar.make` reads them; greedy runs in any case, where the model is causal.
        max_length: the most tokens to write.
        training: "raw", "distilled" or "unknown".
        seed: of its training, where it is known.
    """

    name: str
    translator: Translator
    decoders: tuple[str, ...]
    max_length: int = 128
    training: str = "unknown"
    seed: int | None = None

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        decoders: Sequence[str],
        *,
        max_length: int | None = None,
        **helpers: str | os.PathLike[str] | None,
    ) -> Self:
        """A model's directory, with what `about.json` says of its training.

        Args:
            directory: as `nar.load` reads it.
            decoders: to run on it; also a `tuned.json` that `nar tune` wrote.
            max_length: the most tokens to write; by default as in its training, or the
                translator's own.
            **helpers: draft, reranker, corpus, language: as in `nar.load`.

        Raises:
            NarError: there is no such model, or an unknown decoder.
        """
        directory = pathlib.Path(directory)
        translator = load(directory, **helpers)
        path = directory / ABOUT
        about = json.loads(path.read_text()) if path.is_file() else {}
        most: int = about.get("max_length", translator.max_length)
        return cls(
            name=about.get("name", directory.resolve().name),
            translator=translator,
            decoders=tuple(described(name, translator.weights) for name in decoders),
            max_length=most if max_length is None else max_length,
            training=about.get("training", "unknown"),
            seed=about.get("seed"),
        )

    def make_decoders(self) -> dict[str, Decoder]:
        """The decoders by what describes them, the baseline first, where the model has one."""
        first = (BASELINE,) if role(self.translator.model).spec.causal else ()
        names = dict.fromkeys((*first, *self.decoders))
        return {name: make(name, max_length=self.max_length) for name in names}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Speeds:
    """What the decoders of some systems take.

    Attributes:
        rows: a row each, without scores of quality, and what it wrote; None: it did not run.
        step_cost: of each model, by name: the fields of `StepCost`.
    """

    rows: list[tuple[Row, list[str] | None]]
    step_cost: dict[str, dict[str, Any]]


def speeds(
    systems: Sequence[System],
    texts: Sequence[str],
    *,
    protocol: Protocol | None = None,
    progress: Progress = silent,
    threads: int = 1,
) -> Speeds:
    """Runs all decoders of all systems over some texts; speed-ups are over the first.

    Args:
        systems: models and decoders.
        texts: sources.
        protocol: how much to measure.
        progress: told what is going on.
        threads: that compile; with more than one, their compile times are not those of one alone.

    Raises:
        NarError: an unknown decoder, models of one name, a model that cannot read the texts, or a
            first decoder that does not run; before anything runs. Another that needs what a model
            lacks is a row that says so.
    """
    if not systems:
        raise NarError("no systems: at least one model is needed")
    names = [system.name for system in systems]
    if again := {name for name in names if names.count(name) > 1}:
        raise NarError(f"several models are called {', '.join(again)}: a report needs other names")
    protocol = protocol or Protocol()
    entries = [entry for system in systems for entry in _entries(system, texts, protocol)]
    if not entries:
        raise NarError(f"{', '.join(names)}: there is no decoder to run")
    if entries[0].skipped:
        raise NarError(f"the baseline does not run: {entries[0].skipped}")
    found = _measure(systems, entries, protocol, progress, threads)
    rows: list[tuple[Row, list[str] | None]] = []
    for number, entry in enumerate(entries):
        if entry.contender:
            written = found.work[entry.contender].outputs
            tokens = [written[i] for i in range(len(texts))]
            outputs = entry.system.translator.texts(entry.contender.sources, tokens)
            row = entry.row(**found.numbers(entry.contender))
            rows.append((row, [one_line(text) for text in outputs]))
        else:
            rows.append((entry.row(skipped=entry.skipped), None))
        progress("work of a sentence", number + 1, len(entries))
    curves = {s.name: dataclasses.asdict(c.target) for s, c in found.curves.items()}
    return Speeds(rows=rows, step_cost=curves)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
    system: System
    name: str
    decoder: Decoder
    contender: Contender | None = None
    skipped: str | None = None

    def row(self, **found: Any) -> Row:
        """A row of this decoder on this model, with what was found."""
        translator, decoder = self.system.translator, self.decoder
        ids = [translator.ids[name] for name in decoder.reads if name in translator.ids]
        needed = (TARGET,) if self.skipped else tuple(decoder.needs)
        models = [role(translator.model, name) for name in needed]
        return Row(
            decoder=self.name,
            family=decoder.family,
            lossless=decoder.lossless,
            model=self.system.name,
            weights="+".join(ids) or translator.weights,
            architecture=architecture(translator.model),
            parameters=sum(x.size for x in jax.tree.leaves(models)),
            training=self.system.training,
            seed=self.system.seed,
            oracle_length=bool(getattr(decoder, "oracle_length", False)),
            **found,
        )


def _entries(system: System, texts: Sequence[str], protocol: Protocol) -> list[_Entry]:
    """The decoders of a system: those that its model can run, and why the others cannot."""
    decoders, translator = system.make_decoders(), system.translator
    sources, baseline, found = translator.encode(texts), None, []
    for name, decoder in decoders.items():
        if decoder.max_length != system.max_length:
            raise NarError(
                f"{name}: it writes at most {decoder.max_length} tokens and {system.name}'s others "
                f"{system.max_length}, which is no comparison"
            )
        common = {"system": system, "name": name, "decoder": decoder}
        contender = Contender(
            decoder=decoder,
            model=translator.model,
            sources=sources,
            baseline=baseline,
            width_multiple=protocol.width_multiple,
        )
        try:
            _ = contender.room
        except IncompatibleModel as error:
            found.append(_Entry(**common, skipped=str(error)))
            continue
        _, widest = next(contender.batches(range(len(sources)), 1))
        told = widest.replace(limit=jnp.ones_like(widest.length))  # as an oracle has been
        decoder.check(translator.model, told)
        if contender.oracle and baseline is None:
            untold = "an oracle is told the lengths of greedy's outputs: the model is not causal"
            found.append(_Entry(**common, skipped=untold))
            continue
        if name == BASELINE:
            baseline = contender
        found.append(_Entry(**common, contender=contender))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Findings:
    """What was measured, by contender; `base` is the one that the others are compared with."""

    base: Contender
    s1: dict[Contender, Latency]
    sizes: dict[Contender, int]
    work: dict[Contender, Work]
    compile_s: dict[Contender, float]
    peak_bytes: Mapping[tuple[Contender, int], int]
    curves: dict[System, StepCosts]
    system: dict[Contender, System]

    def numbers(self, c: Contender) -> dict[str, Any]:
        """The fields of a row that do not look at texts."""
        base, mine = self.base, self.work[c]
        greedy = c if isinstance(c.decoder, Greedy) else c.baseline
        theirs = self.work[greedy] if greedy else None
        equal = theirs and [
            np.array_equal(mine.outputs[i], theirs.outputs[i]) for i in mine.outputs
        ]
        lossless = c.decoder.lossless == "greedy"
        total, chunks = sum(mine.seconds), np.divide(self.work[base].seconds, mine.seconds)
        calls = float(np.mean([*mine.calls.values()]))
        inner = getattr(c.decoder, "base", None)  # how often its loop runs is not in the program
        loops = isinstance(inner, Decoder) and inner.max_steps > 1
        first, then = flops(c.decoder, c.model, typical(c))
        return {
            "exact_match": float(np.mean(equal)) if equal else None,
            "first_difference_gap": largest_gap(c, mine, theirs) if theirs and lossless else None,
            "s1_ms_median": float(np.median(self.s1[c].ms)),
            "s1_ms_p95": float(np.percentile(self.s1[c].ms, 95)),
            "s1_speedup": sum(self.s1[base].ms) / sum(self.s1[c].ms),
            "s1_speedup_ci": ratio_interval(self.s1[base].ms, self.s1[c].ms),
            "predicted_speedup": self._predicted(c),
            "smax_sentences_per_s": len(mine.outputs) / total,
            "smax_batch": self.sizes[c],
            "smax_speedup": sum(self.work[base].seconds) / total,
            "smax_speedup_spread": (float(chunks.min()), float(chunks.max())),
            "calls": calls,
            "tokens_per_call": sum(map(len, mine.outputs.values())) / sum(mine.calls.values()),
            "positions": float(np.mean([*mine.positions.values()])),
            "accepted": [mine.accepted[n] for n in range(max(mine.accepted) + 1)],
            "flops_per_sentence": None if loops or not then else first + then * calls,
            "peak_memory_mb": self.peak_bytes[c, self.sizes[c]] / 1e6,
            "compile_s": self.compile_s[c],
            "failed": len(mine.failed),
        }

    def _predicted(self, c: Contender) -> float | None:
        """The baseline's predicted time over this one's."""
        if self.system[c] not in self.curves:
            return None
        ours, base = (
            self.curves[self.system[who]].predict(who.decoder, self.s1[who].mean_work)
            for who in (c, self.base)
        )
        return base / ours


def _measure(
    systems: Sequence[System],
    entries: Sequence[_Entry],
    protocol: Protocol,
    progress: Progress,
    threads: int,
) -> _Findings:
    """S1, Smax and the step costs of all that can run."""
    owner = {entry.contender: entry.system for entry in entries if entry.contender}
    running = list(owner)
    sentences = len(running[0].sources)
    sample = np.linspace(0, sentences - 1, min(protocol.latency_sentences, sentences), dtype=int)
    programs = Programs(protocol.seed, threads)
    s1 = latency(
        running, sample.tolist(), programs, repeats=protocol.latency_repeats, progress=progress
    )
    compile_s = {c: float(np.median(programs.compile_s[c])) for c in running}
    programs = Programs(protocol.seed, threads)  # gives the programs for single sentences back
    sizes = best_batch(
        running, protocol.batch_sizes, programs, repeats=protocol.batch_repeats, progress=progress
    )
    work = throughput(running, sizes, programs, progress=progress)
    curves, measuring = {}, []
    for system in systems if protocol.cost_repeats else ():
        mine = [c for c in running if owner[c] is system]
        if not mine:
            continue
        counted = [one for c in mine for one in s1[c].mean_work.values()]
        costs = curves[system] = StepCosts(
            system.translator.model,
            source=typical(mine[0]),
            max_length=system.max_length,
            positions=up_to(max(positions / calls for calls, positions in counted)),
            repeats=protocol.cost_repeats,
        )
        places = [costs.places(c.decoder, s1[c].mean_work).values() for c in mine]
        measuring += costs.measuring(itertools.chain(*places))
    in_turn(measuring, progress)
    return _Findings(
        base=running[0],
        s1=s1,
        sizes=sizes,
        work=work,
        compile_s=compile_s,
        peak_bytes=programs.peak_bytes,
        curves=curves,
        system=owner,
    )


def architecture(model: Any) -> str:
    """The shape of a model's target in short: "6-6 d=512", or the name of its class."""
    config = getattr(role(model), "config", None)
    if not isinstance(config, TransformerConfig):
        return type(role(model)).__name__
    layers = f"{config.encoder_layers}-{config.decoder_layers}"
    return f"{layers} d={config.d_model}"


def typical(contender: Contender) -> Source:
    """The sentence of median length."""
    order = np.argsort([len(source) for source in contender.sources], kind="stable")
    source = contender.alone(int(order[len(order) // 2]))
    return source.replace(limit=jnp.full_like(source.length, contender.decoder.max_length))


def ratio_interval(baseline: Sequence[float], ours: Sequence[float]) -> Interval:
    """Of the ratio of total times, over resampled sentences."""
    drawn = np.random.default_rng(0).choice(len(ours), (1000, len(ours)))
    return interval(np.array(baseline)[drawn].sum(1) / np.array(ours)[drawn].sum(1))

"""What a benchmark found: rows of numbers, and what they were measured with."""

import dataclasses
import json
import os
import pathlib
import platform
import re
from collections.abc import Iterable
from typing import Any, Self

import jax

from nar.bench.quality import Interval, Quality
from nar.errors import NarError
from nar.files import write

VERSION = 1
FILE = "report.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row(Quality):
    """One decoder on one model. None: not measured, or without meaning here.

    Attributes:
        decoder: as `nar.make` reads it.
        family: of its algorithm.
        lossless: "greedy", "distribution" or "no".
        model: what the model is called in this report.
        weights: an id of the model's files.
        architecture: its shape, in short.
        parameters: how many numbers it has.
        training: "raw" or "distilled" text; "unknown" for models that do not say.
        seed: of the training.
        skipped: why the decoder did not run; all that is measured is None then.
        exact_match: share of outputs that equal greedy's on the same weights, token for token.
        first_difference_gap: for decoders lossless in greedy: where an output first differs from
            greedy's, the distance of greedy's two best logits; the largest of all; None: no output
            differs.
        s1_ms_median, s1_ms_p95: latency of single sentences.
        s1_speedup, s1_speedup_ci: the baseline's time over this one's; the middle 95 % over
            resampled sentences.
        predicted_speedup: what calls and positions lead to expect, by the step-cost curve.
        smax_sentences_per_s, smax_batch: throughput at the batch that is best for this decoder.
        smax_speedup, smax_speedup_spread: over the baseline's; the lowest and the highest chunk.
        calls: sequential calls of the model that a sentence needs; mean.
        tokens_per_call: tokens written over calls.
        positions: positions scored for a sentence; mean.
        accepted: how many calls accepted 0, 1, 2, ... tokens.
        flops_per_sentence: of the program as XLA is given it, at the mean number of calls.
        peak_memory_mb: what the program holds at the best batch, weights included.
        compile_s: to trace and compile the program for one shape; median.
        oracle_length: whether the decoder was told the length of greedy's output.
        failed: sentences whose output broke off because the model's logits were NaN.
    """

    decoder: str
    family: str
    lossless: str
    model: str
    weights: str
    architecture: str
    parameters: int
    training: str = "unknown"
    seed: int | None = None
    skipped: str | None = None
    exact_match: float | None = None
    first_difference_gap: float | None = None
    s1_ms_median: float | None = None
    s1_ms_p95: float | None = None
    s1_speedup: float | None = None
    s1_speedup_ci: Interval | None = None
    predicted_speedup: float | None = None
    smax_sentences_per_s: float | None = None
    smax_batch: int | None = None
    smax_speedup: float | None = None
    smax_speedup_spread: Interval | None = None
    calls: float | None = None
    tokens_per_call: float | None = None
    positions: float | None = None
    accepted: list[int] | None = None
    flops_per_sentence: float | None = None
    peak_memory_mb: float | None = None
    compile_s: float | None = None
    oracle_length: bool = False
    failed: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A benchmark's result; the first row is the baseline of all speed-ups and p-values.

    Attributes:
        title: what was benchmarked.
        metric: "bleu" or "token_error", what p-values are about.
        machine: what it ran on.
        data: the test set's name, fingerprint and size.
        protocol: how it was measured.
        step_cost: of each model, by name: the fields of `StepCost`.
        rows: decoders on models.
        examples: some sentences: source, reference, and the output of each row.
        version: of this format.
    """

    title: str
    metric: str
    machine: dict[str, Any]
    data: dict[str, Any]
    protocol: dict[str, Any]
    step_cost: dict[str, dict[str, Any]]
    rows: list[Row]
    examples: list[dict[str, Any]]
    version: int = VERSION

    @property
    def measured(self) -> list[Row]:
        """The rows that were not skipped."""
        return [row for row in self.rows if not row.skipped]

    @property
    def tokenizer(self) -> str | None:
        """The tokenizer by which BLEU was counted, as its signature names it."""
        found = re.search(r"tok:([^|]+)", self.rows[0].bleu_signature or "")
        return found and found[1]

    def save(self, directory: str | os.PathLike[str]) -> pathlib.Path:
        """Writes `report.json`, whole or not at all; returns its path."""
        path = pathlib.Path(directory) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(rounded(dataclasses.asdict(self)), indent=1) + "\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a `report.json`, or the one in a directory.

        Raises:
            NarError: there is none, it is damaged, or of another version.
        """
        path = pathlib.Path(path)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise NarError(f"{path} is missing: it must be a run's directory or its {FILE}")
        try:
            found = json.loads(path.read_text())
            version = found["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise NarError(f"{path} is no report: {error!r}") from error
        if version != VERSION:
            raise NarError(f"{path} is of version {version}: this nar reads version {VERSION}")
        try:
            return cls(**{**found, "rows": [Row(**row) for row in found["rows"]]})
        except TypeError as error:
            raise NarError(f"{path} is damaged: {error}") from error


def rounded(value: Any) -> Any:
    """Numbers with five significant digits: what was measured has no more, and files stay small."""
    match value:
        case float():
            return float(f"{value:.5g}")
        case dict():
            return {key: rounded(inner) for key, inner in value.items()}
        case list() | tuple():
            return [rounded(inner) for inner in value]
    return value


def machine() -> dict[str, Any]:
    """The hardware, and the versions of what computes on it."""
    device = jax.devices()[0]
    return {
        "device": _processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _processor() -> str:
    lines: Iterable[str] = ()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if not all(name in getattr(os, "sysconf_names", ()) for name in names):
        return None
    return os.sysconf(names[0]) * os.sysconf(names[1]) / 2**30

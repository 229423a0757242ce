"""What calls and decoders take on an accelerator: one command, unattended, within some minutes.

    pip install "jax[cuda12]" flax jaxtyping              # for random weights; Python 3.11 or later
    pip install safetensors sentencepiece tokenizers      # for the folders of trained models
    python -m benchmarks.accelerator --minutes 8 --causal DIR --ctc DIR --texts FILE

Nothing else is imported and nothing is fetched. The parts stand in the order of their worth:

- the memory's bandwidth, by reading and by copying a large buffer;
- step costs: a call at T positions, in a loop on the device and alone from the host, of 6+6 layers,
  d=512, and of a Llama of one billion random weights, in bfloat16 and in float32;
- S1 and Smax of decoders on trained models: those of `--causal` folders, and CTC of `--ctc` folders
  beside greedy of the first causal one;
- step costs of further shapes;
- with `--profile DIR`, a profile of one short decode, its trace in DIR.

A part's programs are compiled in parallel threads, and never while anything is timed. The results
are written, whole, after each part. A part that fails is named with its error, one that does not
fit in the time that is left is skipped, and the next goes on; a run that is killed loses only the
part in progress. Where JAX_COMPILATION_CACHE_DIR names a folder, a second run compiles less.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import jax

from benchmarks.device import (
    Bandwidth,
    Curve,
    Decoding,
    Profile,
    Shape,
    bandwidth_table,
    curve_table,
    decoding_table,
    label,
    measure_bandwidth,
    measure_curve,
    measure_decoding,
    measure_profile,
    profile_table,
)
from benchmarks.parts import Outcome, Part, Stopped, run_parts
from nar.bench.protocol import Protocol
from nar.bench.report import machine, rounded
from nar.bench.table import Table
from nar.decoders import make
from nar.errors import NarError
from nar.files import write
from nar.lines import read_texts
from nar.model import TransformerConfig
from nar.translator import check_directory

DECODERS = ("greedy", "jacobi:block=5", "prompt-lookup:guesses=3", "lookahead")
BANDWIDTH = "bandwidth"
RESULTS = pathlib.Path(__file__).parent / "results"


# ----------------------------------------------------------------------------------------- shapes
DEEP = TransformerConfig(
    vocab_size=8000, d_model=512, d_ff=2048, encoder_layers=6, decoder_layers=6
)
LLAMA = TransformerConfig(
    vocab_size=32_000, d_model=2048, d_ff=8192, heads=32, kv_heads=8, encoder_layers=0,
    decoder_layers=16, norm="rms", norm_eps=1e-5, activation="swish", gated=True, qkv_bias=False,
    out_bias=False, ff_bias=False, positions="rotary", rope_theta=500_000.0, max_positions=8192,
    scale_embedding=False,
)  # fmt: skip
"""The layers of Llama 3.2 1B over a smaller vocabulary: 1.04 billion parameters."""

SMALL = {"vocab_size": 32, "d_model": 16, "d_ff": 32, "heads": 2, "decoder_layers": 1}
TINY = dataclasses.replace(DEEP, **SMALL, encoder_layers=1)
TINY_LLAMA = dataclasses.replace(LLAMA, **SMALL, kv_heads=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        shapes: of the step costs, in each type.
        further: of those at the end, in bfloat16.
        positions: of the curves.
        buffer: bytes that the bandwidth is measured with.
        repeats: of a curve's measurements.
        protocol: of trained models.
        texts: that those decode.
    """

    shapes: tuple[Shape, ...]
    further: tuple[Shape, ...]
    positions: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    buffer: int = 2**31
    repeats: int = 10
    protocol: Protocol
    texts: int = 512


SIZES = {
    "full": Size(
        shapes=(
            Shape(name="6+6 d=512", config=DEEP, seconds=40),
            Shape(name="Llama 1B", config=LLAMA, seconds=60, source=128),
        ),
        further=(
            Shape(name="12+1 d=512", seconds=25,
                  config=dataclasses.replace(DEEP, encoder_layers=12, decoder_layers=1)),
            Shape(name="6+6 d=512, 8 rows", config=DEEP, seconds=40, batch=8),
            Shape(name="Llama 1B after 4,096 tokens", config=LLAMA, seconds=60, source=4096),
            Shape(name="Llama 1B, 8 rows", config=LLAMA, seconds=60, source=128, batch=8),
        ),
        protocol=Protocol(latency_sentences=40, batch_sizes=(64, 256), cost_repeats=5),
    ),
    "tiny": Size(
        shapes=(Shape(name="1+1 d=16", config=TINY, seconds=2),),
        further=(Shape(name="Llama d=16, 2 rows", config=TINY_LLAMA, seconds=2, batch=2),),
        positions=(1, 2), buffer=2**20, repeats=2, texts=4,
        protocol=Protocol(latency_sentences=2, latency_repeats=1, batch_sizes=(2,),
                          batch_repeats=1, cost_repeats=0),
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------ parts
@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command is given, checked; the fields are its options.

    Raises:
        NarError: there is no time, no such folder or file, or no such decoder.
    """

    minutes: float = 8
    size: str = "full"
    causal: tuple[pathlib.Path, ...] = ()
    ctc: tuple[pathlib.Path, ...] = ()
    texts: pathlib.Path | None = None
    decoders: tuple[str, ...] = DECODERS
    output: pathlib.Path | None = None
    profile: pathlib.Path | None = None
    parts: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.minutes > 0:
            raise NarError(f"--minutes {self.minutes:g}: it must be above 0")
        for flag, folders in (("--causal", self.causal), ("--ctc", self.ctc)):
            names = [label(check_directory(folder)) for folder in folders]
            if again := {name for name in names if names.count(name) > 1}:
                raise NarError(f"{flag}: several folders are called {', '.join(again)}")
        if self.texts is not None and not self.texts.is_file():
            raise NarError(f"--texts {self.texts}: there is no such file")
        if (self.causal or self.ctc) and not self.lines():
            raise NarError("trained models need --texts, a file of lines to decode")
        for description in self.decoders:
            make(description)

    def lines(self) -> list[str]:
        """The texts."""
        return read_texts(self.texts) if self.texts else []


def plan(options: Options) -> list[Part]:
    """The parts, in order."""
    size = SIZES[options.size]
    parts = [
        Part(
            name=BANDWIDTH,
            seconds=10,
            run=lambda found: measure_bandwidth(size.buffer, size.repeats),
        ),
        *(costs(size, shape, "bfloat16") for shape in size.shapes),
        *(costs(size, shape, "float32") for shape in size.shapes),
        *trained(size, options),
        *(costs(size, shape, "bfloat16") for shape in size.further),
        profiling(size, options.profile),
    ]
    asked = lambda part: any(name in part.name for name in options.parts or ("",))  # noqa: E731
    if options.parts and not any(map(asked, parts)):
        names = "; ".join(part.name for part in parts)
        raise NarError(f"--parts {' '.join(options.parts)}: none is called so; there are {names}")
    left_out = "it is not among --parts"
    return [part if asked(part) else dataclasses.replace(part, missing=left_out) for part in parts]


def costs(size: Size, shape: Shape, dtype: str) -> Part:
    """The step costs of a shape."""

    def run(found: Mapping[str, Any]) -> Curve:
        return measure_curve(
            shape,
            dtype,
            positions=size.positions,
            repeats=size.repeats,
            bandwidth=found.get(BANDWIDTH),
        )

    return Part(name=f"step costs: {shape.name}, {dtype}", seconds=shape.seconds, run=run)


def trained(size: Size, options: Options) -> Iterator[Part]:
    """A part a folder; where there is none, the part that is left out."""
    lines = options.lines()

    def decoding(kind: str, folders: Mapping[pathlib.Path, Sequence[str]]) -> Part:
        return Part(
            name=f"{kind}: {label([*folders][-1])}",
            seconds=90,
            run=lambda found: measure_decoding(
                folders, lines, most=size.texts, protocol=size.protocol
            ),
        )

    for folder in options.causal:
        yield decoding("decoders", {folder: options.decoders})
    for folder in options.ctc:
        yield decoding("ctc", {**dict.fromkeys(options.causal[:1], ()), folder: ("ctc",)})
    for kind, folders, flag in (
        ("decoders", options.causal, "--causal"),
        ("ctc", options.ctc, "--ctc"),
    ):
        if not folders:
            missing = f"no {flag} folder was given"
            yield Part(name=f"{kind}: a trained model", seconds=0, run=dict, missing=missing)


def profiling(size: Size, folder: pathlib.Path | None) -> Part:
    """The profile of a short decode, where there is a folder for its trace."""
    if folder is None:
        missing = "no --profile folder was given"
        return Part(name="profile", seconds=0, run=dict, missing=missing)
    shape = size.shapes[0]
    return Part(name="profile", seconds=20, run=lambda found: measure_profile(shape, folder))


# ------------------------------------------------------------------------------------ the command
def run(options: Options) -> None:
    """Measures, writes the results after each part, and prints the tables, whatever happens.

    Raises:
        NarError: there is something wrong with the options; nothing has been done then.
        Stopped: SIGTERM came.
    """
    parts, config = plan(options), cast(Any, jax.config)
    about = {
        "machine": machine(),
        "matmul_precision": config.jax_default_matmul_precision or "default",
        "size": options.size,
        "minutes": options.minutes,
    }
    device = re.sub(r"[^a-z0-9]+", "-", about["machine"]["device"].lower()).strip("-")
    output = options.output or RESULTS / f"accelerator-{device}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    latest: list[Outcome] = []

    def save(outcomes: list[Outcome]) -> None:
        latest[:] = outcomes
        found = [dataclasses.asdict(outcome) for outcome in outcomes]
        write(output, json.dumps(rounded({**about, "parts": found}), indent=1) + "\n")

    try:
        run_parts(parts, 60 * options.minutes, save)
    finally:
        for table in tables(latest):
            print(f"{table.markdown()}\n", flush=True)
        print(f"The results: {output}")


def tables(outcomes: Sequence[Outcome]) -> Iterator[Table]:
    """What became of every part, and what was measured."""
    yield Table(
        title="Parts",
        headings=("part", "seconds", "status", "why"),
        lines=tuple(
            (
                outcome.name,
                "" if outcome.seconds is None else f"{outcome.seconds:.1f}",
                outcome.status,
                outcome.why or "",
            )
            for outcome in outcomes
        ),
        notes=(),
    )
    found = [outcome.found for outcome in outcomes]
    for one in found:
        if isinstance(one, Bandwidth):
            yield bandwidth_table(one)
    if curves := [one for one in found if isinstance(one, Curve)]:
        yield curve_table(curves)
    for one in found:
        if isinstance(one, Decoding):
            yield decoding_table(one)
        if isinstance(one, Profile):
            yield profile_table(one)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add, path = parser.add_argument, pathlib.Path
    add("--minutes", type=float, help="for everything, compilation included; by default 8")
    add("--size", choices=[*SIZES], help="tiny: to try the command on a CPU")
    add("--causal", type=path, nargs="*", help="folders of models for --decoders")
    add("--ctc", type=path, nargs="*", help="folders of models trained with CTC")
    add("--texts", type=path, help="a file of lines that trained models decode")
    add("--decoders", nargs="*", help=f"as nar.make reads them; by default {' '.join(DECODERS)}")
    add("--output", type=path, help=f"by default {RESULTS.name}/accelerator-DEVICE.json here")
    add("--profile", type=path, help="a folder for the trace of one decode")
    add("--parts", nargs="*", help="those alone whose names hold one of these; by default all")
    given: dict[str, Any] = vars(parser.parse_args(arguments))
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    try:
        run(Options(**given))
    except (NarError, OSError) as error:
        sys.exit(f"error: {error}")
    except Stopped:
        sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()

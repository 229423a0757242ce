"""python -m experiments list | run NAME | table RUNS...: trains and compares decoders."""

import dataclasses
import pathlib
import sys
from typing import Annotated

import tyro

from experiments.registry import EXPERIMENTS, Experiment, find
from experiments.table import markdown, read
from nar.core import NarError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where to read and write, and how much to do.

    Attributes:
        data_dir: the folder that holds the corpora.
        run_dir: what is trained and measured goes here; by default runs/NAME.
        full: run all decoders, not only one of every family.
    """

    data_dir: pathlib.Path | None = None
    run_dir: pathlib.Path | None = None
    full: bool = False


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    match arguments:
        case ["list"]:
            for experiment in EXPERIMENTS.values():
                print(f"{experiment.name:20} {experiment.about}")
        case ["run", name, *rest]:
            run_named(name, rest)
        case ["table", *runs] if runs:
            print("\n\n".join(map(markdown, read(runs))))
        case _:
            print(f"{__doc__}\n\n    run NAME --help says what can be changed", file=sys.stderr)
            return 2
    return 0


def run_named(name: str, arguments: list[str]) -> None:
    """Runs an experiment, its fields changed as the command line says."""
    import jax

    from experiments.run import run

    default = find(name)

    def command(
        options: Annotated[Options, tyro.conf.arg(name="")] = Options(),
        experiment: Annotated[
            Experiment, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
        ] = default,
    ) -> None:
        directory = options.run_dir or pathlib.Path("runs") / experiment.name
        run(experiment, directory, options.data_dir, full=options.full)

    # Compiled programs are kept between runs.
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "nar"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    tyro.cli(command, args=arguments, prog=f"python -m experiments run {name}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NarError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"{stop or 'interrupted'}")

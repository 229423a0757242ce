"""python -m experiments list | train NAME | distill NAME | bench NAME | run NAME | ...

    list       the experiments there are
    train      trains an experiment's model; goes on where it was stopped
    distill    translates its training text with its model, for students; goes on, too
    bench      runs its decoders over the test set, and writes the report anew
    run        trains and benchmarks; what is finished is not done again
    table      prints reports as tables; --write FILES... puts them into documents that quote them
    ambiguity  trains tiny models of all kinds on the grammar, and draws quality against entropy

train, distill, bench and run take the experiment's fields as options: see run NAME --help.
"""

import dataclasses
import functools
import pathlib
import sys
from typing import Annotated

import tyro

from experiments.data import DISTILLED
from experiments.registry import EXPERIMENTS, Experiment, find
from nar.ending import one_line_errors
from nar.errors import NarError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where to read and write.

    Attributes:
        data_dir: the folder that holds the corpora.
        run_dir: what is trained and measured goes here; by default runs/NAME.
    """

    data_dir: pathlib.Path | None = None
    run_dir: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(Places):
    """Where to read and write, and how much to do.

    Attributes:
        models_dir: the folder that holds pretrained models.
        beside: other finished runs on the same text, whose models join the report.
        full: run all decoders, not only one of every family.
    """

    models_dir: pathlib.Path | None = None
    beside: tuple[pathlib.Path, ...] = ()
    full: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teaching(Places):
    """Where to read and write, and how to translate.

    Attributes:
        decoder: its name, and options.
        batch_size: sentences translated together.
        shard: I/N: do the part I, from 0, of N parts. Other processes can do the other ones.
    """

    decoder: str = "beam"
    batch_size: int = 64
    shard: str = "0/1"


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    match arguments:
        case ["list"]:
            width = max(map(len, EXPERIMENTS))
            for experiment in EXPERIMENTS.values():
                print(f"{experiment.name:{width}}  {experiment.about}")
        case ["train" | "bench" | "run" as task, name, *rest]:
            work(task, name, rest)
        case ["distill", name, *rest]:
            teach(name, rest)
        case ["ambiguity", *rest]:
            draw(rest)
        case ["table", *paths] if paths and not paths[0].startswith("-"):
            quoting = paths.index("--write") if "--write" in paths else len(paths)
            write_tables(paths[:quoting], paths[quoting + 1 :])
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def work(task: str, name: str, arguments: list[str]) -> None:
    """Does one of the tasks for an experiment, its fields changed as the command line says."""
    default = find(name)

    def command(
        options: Annotated[Options, tyro.conf.arg(name="")] = Options(),
        experiment: Annotated[
            Experiment, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
        ] = default,
    ) -> None:
        import jax

        from experiments.run import bench, run, train
        from nar.bench.publish import show

        directory = options.run_dir or pathlib.Path("runs") / experiment.name
        if task == "train":
            train(experiment, directory, options.data_dir, options.models_dir)
            return
        jax.config.update("jax_compilation_cache_dir", None)  # compiled for real, to be measured
        do = functools.partial(run, models_dir=options.models_dir) if task == "run" else bench
        report = do(
            experiment, directory, options.data_dir, beside=options.beside, full=options.full
        )
        show(report, directory)

    tyro.cli(command, args=arguments, prog=f"python -m experiments {task} {name}")


def teach(name: str, arguments: list[str]) -> None:
    """Has an experiment's model translate its training text."""
    default = find(name)

    def command(
        options: Annotated[Teaching, tyro.conf.arg(name="")] = Teaching(),
        experiment: Annotated[
            Experiment, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands
        ] = default,
    ) -> None:
        from experiments.run import distill

        directory = options.run_dir or pathlib.Path("runs") / experiment.name
        whole = distill(
            experiment,
            directory,
            options.data_dir,
            decoder=options.decoder,
            batch_size=options.batch_size,
            shard=shard_of(options.shard),
        )
        print(directory / DISTILLED if whole else "This part is done; others are not yet.")

    tyro.cli(command, args=arguments, prog=f"python -m experiments distill {name}")


def draw(arguments: list[str]) -> None:
    """Trains small models on the grammar at several ambiguities, and draws their quality."""
    from experiments.ambiguity import PICTURE, Ambiguity, run

    def command(
        config: Annotated[Ambiguity, tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands] = (
            Ambiguity()  # noqa: B008
        ),
        run_dir: pathlib.Path = pathlib.Path("runs/ambiguity"),
    ) -> None:
        run(config, run_dir)
        print(run_dir / PICTURE)

    tyro.cli(command, args=arguments, prog="python -m experiments ambiguity")


def shard_of(text: str) -> tuple[int, int]:
    """The part and the number of parts that "I/N" stands for."""
    try:
        index, count = map(int, text.split("/"))
    except ValueError:
        raise NarError(f"shard={text!r}: it must be I/N, such as 0/2 and 1/2") from None
    return index, count


def write_tables(runs: list[str], documents: list[str]) -> None:
    """Prints the tables of reports, or writes them into documents that quote them."""
    from nar.bench.quote import quote
    from nar.bench.report import Report
    from nar.bench.table import tables

    reports = [Report.load(path) for path in runs]
    for document in documents:
        quote(pathlib.Path(document), {report.title: report for report in reports})
    if not documents:
        print("\n\n".join(table.markdown() for table in tables(reports)))


if __name__ == "__main__":
    try:
        with one_line_errors():
            status = main(sys.argv[1:])
        sys.exit(status)
    except KeyboardInterrupt as stop:
        print(stop or "interrupted", file=sys.stderr)
        sys.exit(130)

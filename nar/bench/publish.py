"""A benchmark for people: it shows how far it is, and leaves a directory with all there is to see.

report.json   report.html   outputs/MODEL/DECODER.txt
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from nar.bench.benchmark import bench
from nar.bench.page import write_page
from nar.bench.protocol import System
from nar.bench.report import Report, Row
from nar.bench.table import tables
from nar.data.text import Corpus
from nar.files import write
from nar.progress import Progress


def publish(
    systems: Sequence[System],
    corpus: Corpus,
    directory: str | os.PathLike[str],
    **options: Any,
) -> Report:
    """Benchmarks, and writes the report, its page and all outputs.

    Args:
        systems: as in `bench`.
        corpus: as in `bench`.
        directory: where to; a report that is there is replaced when the new one is whole.
        **options: those of `bench`.

    Raises:
        NarError: as in `bench`; nothing has been written then.
    """
    directory = pathlib.Path(directory)

    def keep(row: Row, outputs: list[str]) -> None:
        name = row.decoder.replace(":", "_").replace(",", "_").replace("=", "-")
        path = directory / "outputs" / row.model / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, "".join(f"{text}\n" for text in outputs))

    with Progress() as progress:
        report = bench(systems, corpus, progress=progress, keep=keep, **options)
    report.save(directory)
    write_page(report, directory)
    return report


def show(report: Report, directory: str | os.PathLike[str]) -> None:
    """Prints the tables, and where the page is."""
    for table in tables([report]):
        table.show()
    print(f"The report with its pictures: {pathlib.Path(directory) / 'report.html'}")

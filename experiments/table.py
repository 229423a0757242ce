"""The table of a run: on the terminal, and in Markdown for the README."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from nar.core import NarError

QUALITY = {"bleu": "BLEU", "token_error": "wrong tokens, %"}


def columns(row: Mapping[str, Any], greedy: Mapping[str, Any]) -> dict[str, str]:
    """A decoder's line, by heading."""
    return {
        "decoder": row["decoder"],
        QUALITY[row["metric"]]: f"{row['value']:.2f}",
        "calls": f"{row['calls']:.2f}",
        "tokens a call": f"{row['tokens_per_call']:.2f}",
        "positions": f"{row['positions']:.1f}",
        "equal to greedy": f"{row['equal_to_baseline']:.1%}",
        "seconds": f"{row['seconds']:.1f}",
        "speed-up": f"{greedy['seconds'] / row['seconds']:.2f}",
    }


def lines(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """All lines of a run's results."""
    rows = results["rows"]
    (greedy,) = (row for row in rows if row["decoder"] == "greedy")
    return [columns(row, greedy) for row in rows]


def title(results: Mapping[str, Any]) -> str:
    """What the table is about."""
    return (
        f"{results['experiment']}: {results['sentences']} sentences, batches of "
        f"{results['batch_size']}, {results['machine']}"
    )


def show(results: Mapping[str, Any]) -> None:
    """Prints the table."""
    rows = lines(results)
    table = Table(title=title(results))
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "decoder" else "right")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)


def markdown(results: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    rows = lines(results)
    head = [
        "| " + " | ".join(rows[0]) + " |",
        "|" + "|".join("---" if h == "decoder" else "---:" for h in rows[0]) + "|",
    ]
    body = ["| " + " | ".join([f"`{d}`", *rest]) + " |" for d, *rest in (r.values() for r in rows)]
    return "\n".join([f"**{title(results)}**", "", *head, *body])


def read(paths: Iterable[str]) -> list[dict[str, Any]]:
    """Results of run directories, or of `results.json` files.

    Raises:
        NarError: there are none at a path.
    """
    found = []
    for name in paths:
        path = pathlib.Path(name)
        path = path / "results.json" if path.is_dir() else path
        if not path.is_file():
            raise NarError(f"{path} is missing: it must be a run's directory or its results.json")
        found.append(json.loads(path.read_text()))
    return found

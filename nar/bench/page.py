"""A report as a page: pictures first, then the numbers, and how they came about."""

import difflib
import html
import importlib.resources
import os
import pathlib
import re
import string
from collections.abc import Mapping
from typing import Any

from nar.bench.figures import figures, label
from nar.bench.report import Report
from nar.bench.table import Table, tables
from nar.files import write


def write_page(report: Report, directory: str | os.PathLike[str]) -> pathlib.Path:
    """Writes `report.html`, one file that needs nothing else; returns its path."""
    path = pathlib.Path(directory) / "report.html"
    write(path, page(report))
    return path


def asset(name: str) -> str:
    """A file that pages are made of."""
    return (importlib.resources.files("nar.bench") / "pages" / name).read_text("utf-8")


def page(report: Report) -> str:
    """The page's text."""
    template = asset("report.html")
    drawn = {name: inline(name, svg) for name, svg in figures(report).items()}
    places = string.Template(template).get_identifiers()
    return string.Template(template).substitute(
        dict.fromkeys(places, "")  # a picture of what was not measured is not there
        | drawn
        | {
            "title": html.escape(report.title),
            "style": asset("base.css") + asset("report.css"),
            "about": html.escape(
                f"{len(report.measured)} rows on {report.data['sentences']} sentences of "
                f"{report.data['name']}, {report.machine['cores']} cores of "
                f"{report.machine['device']}."
            ),
            "tables": "".join(map(html_table, tables([report], details=True))),
            "examples": "".join(_example(report, example) for example in report.examples),
            "provenance": _provenance(report),
        }
    )


def inline(name: str, svg: str) -> str:
    """An SVG inside of a page: named, without prolog, its ids apart from other pictures'."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{name.replace("_", " ")}"', 1)


def html_table(table: Table) -> str:
    """A table in HTML."""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in table.headings)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell.replace('`', ''))}</td>" for cell in line)
        for line in table.lines
    )
    notes = "".join(f'<p class="soft">{html.escape(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll"><table><caption>{html.escape(table.title)}</caption>'
        f"<thead><tr>{head}</thead><tbody>{lines}</tbody></table></div>{notes}"
    )


def _example(report: Report, example: Mapping[str, Any]) -> str:
    """A sentence with all outputs; equal ones share a line, and what differs is marked."""
    lines: dict[str, list[str]] = {}
    for row, output in zip(report.rows, example["outputs"], strict=True):
        if output is not None:
            lines.setdefault(output, []).append(label(row, report))
    first = next(iter(lines), "")
    cells = [("source", html.escape(example["source"]))]
    cells += [("reference", html.escape(example["reference"]))]
    cells += [(", ".join(names), marked(first, output)) for output, names in lines.items()]
    body = "".join(f"<tr><td>{_short(name)}</td><td>{text}</td></tr>" for name, text in cells)
    return f'<div class="scroll"><table class="example"><tbody>{body}</tbody></table></div>'


def _short(names: str) -> str:
    shown = names.split(", ")
    rest = f" and {len(shown) - 2} more" if len(shown) > 2 else ""
    return f'<span title="{html.escape(names)}">{html.escape(", ".join(shown[:2]))}{rest}</span>'


def marked(first: str, other: str) -> str:
    """HTML of a text, the words marked that are not the first text's."""
    ours, theirs = other.split(), first.split()
    matcher = difflib.SequenceMatcher(None, theirs, ours, autojunk=False)
    parts = []
    for kind, _, _, start, end in matcher.get_opcodes():
        if words := html.escape(" ".join(ours[start:end])):
            parts.append(words if kind == "equal" else f"<mark>{words}</mark>")
    return " ".join(parts)


def _provenance(report: Report) -> str:
    signatures = {row.bleu_signature: None for row in report.measured if row.bleu_signature} | {
        row.chrf_signature: None for row in report.measured if row.chrf_signature
    }
    models = {
        row.model: f"{row.architecture}, {row.parameters:,} parameters, weights {row.weights}, "
        f"trained on {row.training} text"
        + (f" with seed {row.seed}" if row.seed is not None else "")
        for row in report.rows
    }
    entries = {
        "data": ", ".join(f"{k} {v}" for k, v in report.data.items()),
        "machine": ", ".join(f"{k} {v}" for k, v in report.machine.items()),
        "protocol": ", ".join(f"{k} {v}" for k, v in report.protocol.items()),
        "signatures": "; ".join(map(str, signatures)),
        **{f"model {name}": about for name, about in models.items()},
    }
    return "<dl>" + "".join(
        f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in entries.items() if v
    ) + "</dl>"  # fmt: skip

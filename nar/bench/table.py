"""Reports as tables: on the terminal and in Markdown."""

import dataclasses
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from nar.bench.metrics import BY_SPACES
from nar.bench.quality import Interval
from nar.bench.report import Report, Row
from nar.errors import NarError

Group = Sequence[Row]
"""Rows that differ in the seed of the training only: one line of a table."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and how a line's rows are written in it."""

    heading: str
    cell: Callable[[Group], str]


def number(
    name: str, format: str, spread: str | None = None, scale: float = 1
) -> Callable[[Group], str]:
    """Writes a field: its mean over seeds, ± their deviation; of one seed, its own interval."""

    def cell(group: Group) -> str:
        values = [scale * value for row in group if (value := getattr(row, name)) is not None]
        if not values:
            return ""
        text = format.format(statistics.fmean(values))
        if len(values) > 1:
            return f"{text} ± {format.format(statistics.stdev(values))}"
        around: Interval | None = getattr(group[0], spread) if spread else None
        return f"{text} [{format.format(around[0])}–{format.format(around[1])}]" if around else text

    return cell


def throughput(group: Group) -> str:
    """Sentences a second, and the batch."""
    text = number("smax_sentences_per_s", "{:.0f}")(group)
    sizes = sorted({row.smax_batch for row in group if row.smax_batch})
    return f"{text} ({', '.join(map(str, sizes))})" if text else ""


QUALITY = {
    "bleu": [
        Column("BLEU", number("bleu", "{:.2f}", "bleu_ci")),
        Column("chrF", number("chrf", "{:.1f}")),
    ],
    "token_error": [Column("wrong tokens, %", number("token_error", "{:.2f}", "token_error_ci"))],
}
SPEED = [
    Column("difference", number("difference", "{:+.2f}", "difference_ci")),
    Column("p", lambda group: number("p_value", "{:.3f}")(group[:1]) if len(group) == 1 else ""),
    Column("= greedy", number("exact_match", "{:.1%}")),
    Column("calls", number("calls", "{:.2f}")),
    Column("tokens a call", number("tokens_per_call", "{:.2f}")),
    Column("S1, ms", number("s1_ms_median", "{:.1f}")),
    Column("S1 speed-up", number("s1_speedup", "{:.2f}", "s1_speedup_ci")),
    Column("predicted", number("predicted_speedup", "{:.2f}")),
    Column("Smax, sentences/s (batch)", throughput),
    Column("Smax speed-up", number("smax_speedup", "{:.2f}")),
]


DETAILS = [
    Column("S1 95 %, ms", number("s1_ms_p95", "{:.1f}")),
    Column("positions", number("positions", "{:.1f}")),
    Column("Gflop", number("flops_per_sentence", "{:.3f}", scale=1e-9)),
    Column("memory, MB", number("peak_memory_mb", "{:.0f}")),
    Column("compilation, s", number("compile_s", "{:.1f}")),
    Column("repeated words", number("repetition", "{:.2%}")),
    Column("length ratio", number("length_ratio", "{:.3f}")),
    Column("largest gap", number("first_difference_gap", "{:.1g}")),
]


@dataclasses.dataclass(frozen=True)
class Table:
    """Lines of text under headings.

    Attributes:
        title: what it is about.
        headings: of the columns; the first one is text, the others are numbers.
        lines: as many cells each.
        notes: why decoders are missing, and what is compared with a line that is elsewhere.
    """

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """For a document."""
        rule = ["---", *("---:" for _ in self.headings[1:])]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.headings, *self.lines)]
        lines.insert(1, f"|{'|'.join(rule)}|")
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", *lines, *notes])

    def show(self) -> None:
        """On the terminal: without intervals, which would make it too wide."""
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, caption="\n".join(self.notes))
        for i, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if i else "left", no_wrap=not i)
        for line in self.lines:
            table.add_row(*(re.sub(r" \[.*\]|`", "", cell) for cell in line))
        console = Console()
        console.width = max(console.width, 160)
        console.print(table)


def tables(reports: Iterable[Report], *, details: bool = False) -> Iterator[Table]:
    """A table a test set, metric, machine and kind of training text: these never mix.

    Reports of one test set that differ in nothing but the seed of their training share lines.

    Args:
        reports: of any test sets.
        details: all columns, and not only those that people compare first.

    Raises:
        NarError: a decoder is there twice, on the same weights.
    """
    entries = [(report, row) for report in reports for row in report.rows]

    def place(entry: tuple[Report, Row]) -> tuple[str, ...]:
        report, row = entry
        of_report = report.data["fingerprint"], report.title, report.metric, str(report.tokenizer)
        return *of_report, str(sorted(report.machine.items())), row.training

    grouped: dict[tuple[str, ...], list[tuple[Report, Row]]] = {}
    for entry in entries:
        grouped.setdefault(place(entry), []).append(entry)
    for found in grouped.values():
        yield _table(found[0][0], [row for _, row in found], details)


def _table(report: Report, rows: Sequence[Row], details: bool) -> Table:
    main = report.rows[0].model

    def name(row: Row) -> str:
        return f"`{row.decoder}`" + (f" on {row.model}" if row.model != main else "")

    columns = [*QUALITY[report.metric], *SPEED, *(DETAILS if details else ())]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if not row.skipped:
            lines.setdefault(name(row), []).append(row)
    for line, group in lines.items():
        same = {(row.weights, row.seed) for row in group}
        if len(same) < len(group) or len({row.seed for row in group}) < len(group):
            raise NarError(
                f"{report.title}: {line} is there {len(group)} times: rows of one line must be of "
                "trainings with different seeds"
            )
    columns = [c for c in columns if any(c.cell(group) for group in lines.values())]
    seeds = {len(group) for group in lines.values()}
    about = [f"{report.data['sentences']} sentences", f"trained on {rows[0].training} text"]
    if seeds != {1}:
        about.append(f"{max(seeds)} seeds, mean ± standard deviation")
    if report.tokenizer not in (None, BY_SPACES):
        about.append(f"BLEU of tokens by {report.tokenizer}")
    about.append(f"{report.machine['cores']} cores, {report.machine['device']}")
    notes = [f"{name(row)} did not run: {row.skipped}" for row in rows if row.skipped]
    notes += [
        f"{name(row)} broke off at logits that were NaN: {row.failed} sentences"
        for row in rows
        if row.failed
    ]
    base = report.rows[0]
    if base.training != rows[0].training:
        notes.append(
            f"Differences and speed-ups compare with `{base.decoder}` on {base.model}, trained on "
            f"{base.training} text"
        )
    return Table(
        title=f"{report.title}: {', '.join(about)}",
        headings=("decoder", *(column.heading for column in columns)),
        lines=tuple((n, *(c.cell(group) for c in columns)) for n, group in lines.items()),
        notes=tuple(notes),
    )

"""The pictures of a report."""

import io
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nar.bench.metrics import METRICS
from nar.bench.report import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart by everybody; a family keeps its colour in every picture.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*"
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7eb",
    "grid.linewidth": 0.8,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "nar",
}
HEADINGS = {"bleu": "BLEU", "token_error": "wrong tokens, %"}


def label(row: Row, report: Report) -> str:
    """What a row is called in pictures: its model too, where it is not the first row's."""
    main, ours = (name.split("_") for name in (report.rows[0].model, row.model))
    other = "_".join(word for i, word in enumerate(ours) if ours[: i + 1] != main[: i + 1])
    return row.decoder if ours == main else f"{row.decoder} · {other or row.model}"


def trainings(report: Report) -> list[str]:
    """The kinds of training text, whose qualities share no picture."""
    return list(dict.fromkeys(row.training for row in report.measured))


def headed(title: str, training: str, report: Report) -> str:
    """A title that says what was trained on, where that is not the same everywhere."""
    return f"{title} ({training} text)" if len(trainings(report)) > 1 else title


def paint(rows: Sequence[Row]) -> Callable[[Row], dict[str, Any]]:
    """Gives every family a colour and every model a marker."""
    families = list(dict.fromkeys(row.family for row in rows))
    models = list(dict.fromkeys(row.model for row in rows))
    return lambda row: {
        "color": COLOURS[families.index(row.family) % len(COLOURS)],
        "marker": MARKERS[models.index(row.model) % len(MARKERS)],
    }


def _quality(row: Row, metric: str) -> tuple[float, tuple[float, float]]:
    return getattr(row, metric), getattr(row, f"{metric}_ci")


def _error(value: float, around: Sequence[float]) -> np.ndarray:
    return np.array([[max(value - around[0], 0)], [max(around[1] - value, 0)]])


def quality_against_speed(report: Report, axes: Any) -> None:
    """Quality over speed-up, at batch 1 and at the best batch; samples are not meant to score.

    Points are numbered: many of them lie close together, and names are long.
    """
    style = paint(report.measured)
    panels = (("s1_speedup", "Batch 1: latency"), ("smax_speedup", "Best batch: throughput"))
    for axis, (training, (name, title)) in zip(
        np.ravel(axes), itertools.product(trainings(report), panels), strict=True
    ):
        rows = [
            row
            for row in report.measured
            if row.training == training and row.lossless != "distribution"
        ]
        for row in rows:
            value, around = _quality(row, report.metric)
            axis.errorbar(
                getattr(row, name), value, yerr=_error(value, around), markersize=7, capsize=0,
                elinewidth=0.8, alpha=0.9, **style(row),
            )  # fmt: skip
        for place, group in enumerate(together(rows, name, report.metric)):
            axis.annotate(
                ", ".join(str(number) for number in sorted(1 + rows.index(row) for row in group)),
                (getattr(group[0], name), _quality(group[0], report.metric)[0]),
                xytext=(4, -4 if place % 2 else 4), textcoords="offset points", fontsize=8,
                rotation=-50 if place % 2 else 50, rotation_mode="anchor",
                va="top" if place % 2 else "bottom",  # neighbours above and below in turn
            )  # fmt: skip
        if name == "smax_speedup":  # what the numbers of both pictures stand for
            names = (f"{number}  {label(row, report)}" for number, row in enumerate(rows, start=1))
            axis.annotate(
                "\n".join(names), (1.03, 1), xycoords="axes fraction", fontsize=8, va="top"
            )
        axis.axvline(1, color="#555", linewidth=1, linestyle=":")
        axis.set_xscale("log")
        axis.margins(x=0.15, y=0.2)
        axis.set_title(headed(title, training, report))
        axis.set_xlabel(f"speed-up over {label(report.rows[0], report)}")
        plain(axis.xaxis)
    for axis in np.ravel(axes)[::2]:
        axis.set_ylabel(HEADINGS[report.metric])
    if not METRICS[report.metric].higher_is_better:
        np.ravel(axes)[0].invert_yaxis()


def together(rows: Sequence[Row], name: str, metric: str) -> list[list[Row]]:
    """Rows whose points lie on each other, to be named once: by speed-up, within 15 %."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: getattr(row, name)):
        x, y = getattr(row, name), _quality(row, metric)[0]
        near = (
            group
            for group in groups
            if x < 1.15 * getattr(group[0], name)
            and abs(y - _quality(group[0], metric)[0]) < 0.005 * abs(y)
        )
        home = next(near, None)
        if home is None:
            groups.append([row])
        else:
            home.append(row)
    return groups


def plain(axis: Any) -> None:
    """Ticks of a logarithmic axis as people write numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def speedups(report: Report, axis: "Axes") -> None:
    """Both speed-ups of every row, with their spread."""
    rows = report.measured
    style, place = paint(rows), np.arange(len(rows))
    bars = (("s1_speedup", "s1_speedup_ci", 0.2, 1.0),
            ("smax_speedup", "smax_speedup_spread", -0.2, 0.45))  # fmt: skip
    for name, spread, shift, alpha in bars:
        values = [getattr(row, name) for row in rows]
        errors = np.hstack([_error(getattr(r, name), getattr(r, spread)) for r in rows])
        axis.barh(
            place - shift, values, 0.38, xerr=errors, alpha=alpha,
            color=[style(row)["color"] for row in rows], ecolor="#333", error_kw={"linewidth": 1},
        )  # fmt: skip
        for y, value, error in zip(place - shift, values, errors[1], strict=True):
            axis.annotate(
                f"{value:.2f}", (value + error, y), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
    axis.axvline(1, color="#555", linewidth=1, linestyle=":")
    axis.set_yticks(place, [label(row, report) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(f"speed-up over {label(report.rows[0], report)}")
    axis.set_title("Speed-up: batch 1 (dark) and best batch (light)")


def predicted_against_realised(report: Report, axis: "Axes") -> None:
    """What the step-cost curve leads to expect, and what was measured, at batch 1."""
    style, values = paint(report.measured), [1.0]
    for row in report.measured:
        if row.predicted_speedup and row.s1_speedup and row.s1_speedup_ci:
            spread = _error(row.s1_speedup, row.s1_speedup_ci)
            axis.errorbar(
                row.predicted_speedup, row.s1_speedup, yerr=spread, markersize=6, elinewidth=0.8,
                **style(row),
            )  # fmt: skip
            values += [row.predicted_speedup, row.s1_speedup]
    ends = np.array([min(values) / 1.3, max(values) * 1.3])
    axis.plot(ends, ends, color="#555", linewidth=1, linestyle=":")
    axis.fill_between(ends, ends / 1.15, ends * 1.15, color="#555", alpha=0.08, linewidth=0)
    axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axis.set_xlabel("predicted speed-up")
    axis.set_ylabel("measured speed-up")
    axis.set_title("Prediction and measurement (band: 15 %)")
    plain(axis.xaxis)
    plain(axis.yaxis)


def accepted_tokens(report: Report, axis: "Axes") -> None:
    """How many tokens a call accepted, as shares of all calls."""
    rows = [row for row in report.measured if row.accepted]
    most = max((len(row.accepted or []) for row in rows), default=1)
    shares = np.zeros((len(rows), max(most - 1, 1)))
    for line, row in enumerate(rows):
        counts = np.array(row.accepted or [0], float)
        shares[line, : len(counts) - 1] = counts[1:] / max(counts.sum(), 1)
    left, shades = np.zeros(len(rows)), ("#d6e4f0", "#8db8dd", "#3b86c4", "#0b5a9c", "#063a68")
    groups = ((1, 2, "1"), (2, 3, "2"), (3, 4, "3"), (4, 6, "4–5"), (6, most + 1, "6 or more"))
    for (first, end, name), shade in zip(groups, shades, strict=True):
        width = shares[:, first - 1 : end - 1].sum(1)
        axis.barh(np.arange(len(rows)), width, 0.7, left=left, color=shade, label=name)
        left += width
    axis.set_yticks(np.arange(len(rows)), [label(row, report) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 1)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("share of calls")
    axis.set_title("Tokens accepted a call")
    axis.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8)


def step_costs(report: Report, axis: "Axes") -> None:
    """What a call costs by the positions it scores."""
    for i, (name, cost) in enumerate(report.step_cost.items()):
        colour, positions = COLOURS[i % len(COLOURS)], cost["positions"]
        low, high = np.transpose(cost["over_one_spread"])
        axis.fill_between(positions, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(positions, cost["over_one"], marker="o", color=colour, label=name)
    axis.axhline(1, color="#555", linewidth=1, linestyle=":")
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("positions scored by a call")
    axis.set_ylabel("cost over the narrowest call")
    axis.set_title("Step-cost curve (band: 90 % of repeats)")
    plain(axis.xaxis)
    plain(axis.yaxis)
    axis.legend(fontsize=8)


def bleu_by_length(report: Report, axes: Any) -> None:
    """BLEU by the reference's length: where parallel decoders lose first."""
    style = paint(report.measured)
    for axis, training in zip(np.ravel(axes), trainings(report), strict=True):
        for row in (row for row in report.measured if row.training == training):
            ends = [part["to"] for part in row.bleu_by_length]
            names = [f"up to {end}" if end else "longer" for end in ends]
            values = [part["bleu"] for part in row.bleu_by_length]
            axis.plot(names, values, alpha=0.8, linewidth=1.2, markersize=5, **style(row))
        axis.set_xlabel("words of the reference")
        axis.set_title(headed("Quality by length", training, report))
    np.ravel(axes)[0].set_ylabel("BLEU")


def figures(report: Report) -> dict[str, str]:
    """All pictures of a report by name, as SVG."""
    tall, kinds = 1.4 + 0.34 * len(report.measured), len(trainings(report))
    drawn = {
        "quality_against_speed": svg((12.5, 4 * kinds), (kinds, 2), quality_against_speed, report),
        "speedups": svg((9.5, tall * 1.25), (1, 1), speedups, report),
        "accepted_tokens": svg((9.5, tall), (1, 1), accepted_tokens, report),
        "predicted_against_realised": svg((4.7, 4), (1, 1), predicted_against_realised, report),
    }
    if report.step_cost:
        drawn["step_costs"] = svg((4.7, 4), (1, 1), step_costs, report)
    if report.metric == "bleu":
        drawn["bleu_by_length"] = svg((4.7 * kinds, 4), (1, kinds), bleu_by_length, report)
    return drawn


def svg(
    size: tuple[float, float], grid: tuple[int, int], draw: Callable[..., None], subject: Any
) -> str:
    """A picture of some inches, drawn by `draw(subject, axes)`, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(size, layout="constrained")
        axes = figure.subplots(*grid, sharey=True)
        draw(subject, axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "nar"})
    return file.getvalue()

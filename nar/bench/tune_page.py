"""What tuning found, for people: an answer, the picture behind it, and all that was tried."""

import html
import os
import pathlib
import string
from typing import TYPE_CHECKING

from nar.bench.figures import COLOURS, plain, svg
from nar.bench.page import asset, html_table, inline
from nar.bench.step_cost import StepCost
from nar.bench.table import Table
from nar.bench.tuned import FILE, Trial, Tuned
from nar.files import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = "tuned.html"


def write_tuned(
    tuned: Tuned, directory: str | os.PathLike[str]
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes `tuned.json`, which decoders are made from, and the page; returns their paths."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tuned.save(directory / FILE)
    write(directory / PAGE, page(tuned))
    return directory / FILE, directory / PAGE


def answer(tuned: Tuned) -> list[str]:
    """Whether to decode in parallel, and why; sentences for one page."""
    best, cost = tuned.best, StepCost(**tuned.step_cost)
    price = cost.at(best.positions_per_call) / cost.at(1)
    speed = f"{best.s1_speedup:.2f} times as fast as greedy"
    spread = best.s1_speedup_ci and "[{:.2f}-{:.2f}]".format(*best.s1_speedup_ci)
    why = (
        f"It writes {best.tokens_per_call:.2f} tokens a call, and its calls of "
        f"{best.positions_per_call:.0f} positions cost {price:.2f} times as much here as calls of "
        f"one: by the model's work alone that makes {best.predicted:.2f}."
    )
    same = f"{best.exact_match:.0%} of its outputs are greedy's, token for token."
    scope = (
        f"This is about single texts on {tuned.machine['device']}: greedy takes "
        f"{tuned.greedy_ms:.1f} ms for one. In batches the positions of all texts share the "
        "device, and parallel decoding gains less: `nar bench` measures that too."
    )
    if tuned.decoder == best.decoder:
        return [f"Yes: {best.decoder} is {speed} {spread}.", same, why, scope]
    first = f"No: use greedy. The best parallel decoder, {best.decoder}, is {speed} {spread}."
    if best.tokens_per_call <= price:
        why += f" It would have to write more than {price:.2f} tokens a call."
    elif best.predicted > 1:
        why += " What it gains there, its own bookkeeping takes."
    return [first, why, scope]


def page(tuned: Tuned) -> str:
    """The page's text; one file that needs nothing else."""
    first, *rest = (html.escape(sentence) for sentence in answer(tuned))
    drawn = svg((9.5, 4.6), (1, 1), break_even, tuned)
    return string.Template(asset("tune.html")).substitute(
        title=html.escape(tuned.model),
        style=asset("base.css") + asset("report.css"),
        about=html.escape(
            f"{tuned.architecture}, weights {tuned.weights}; {len(tuned.trials)} decoders tried on "
            f"{tuned.texts} texts, {len(tuned.measured)} of them timed."
        ),
        answer=f"<p><strong>{first}</strong></p><p>{' '.join(rest)}</p>",
        break_even=inline("break_even", drawn),
        table=html_table(table(tuned)),
    )


def table(tuned: Tuned) -> Table:
    """All that was tried: what was measured first, the fastest at the top."""

    def line(trial: Trial) -> tuple[str, ...]:
        measured = ""
        if trial.s1_speedup is not None and trial.s1_speedup_ci is not None:
            low, high = trial.s1_speedup_ci
            measured = f"{trial.s1_speedup:.2f} [{low:.2f}–{high:.2f}]"
        return (
            f"`{trial.decoder}`",
            f"{trial.calls:.1f}",
            f"{trial.tokens_per_call:.2f}",
            f"{trial.positions_per_call:.1f}",
            f"{trial.exact_match:.0%}",
            f"{trial.predicted:.2f}",
            measured,
        )

    ordered = sorted(tuned.trials, key=lambda t: (-(t.s1_speedup or 0), -t.predicted))
    headings = ("decoder", "calls", "tokens a call", "positions a call", "= greedy", "predicted")
    return Table(
        title=f"{tuned.model}: speed-up over greedy, single texts",
        headings=(*headings, "measured"),
        lines=tuple(map(line, ordered)),
        notes=(),
    )


def break_even(tuned: Tuned, axis: "Axes") -> None:
    """Tokens that a call brings over the positions that it scores, against what it costs."""
    cost = StepCost(**tuned.step_cost)
    families = list(dict.fromkeys(_family(trial) for trial in tuned.trials))
    top = 1.15 * max(*(trial.tokens_per_call for trial in tuned.trials), 1.5)
    axis.plot(cost.positions, cost.over_one, color="#555", linewidth=1.2)
    axis.fill_between(cost.positions, cost.over_one, top, color="#009E73", alpha=0.07, linewidth=0)
    for trial in tuned.trials:
        colour = COLOURS[families.index(_family(trial)) % len(COLOURS)]
        face = colour if trial in tuned.measured else "none"
        axis.scatter(trial.positions_per_call, trial.tokens_per_call, s=34, marker="o",
                     edgecolors=colour, facecolors=face, zorder=3)  # fmt: skip
    for i, family in enumerate(families):
        axis.scatter([], [], color=COLOURS[i % len(COLOURS)], label=family)
    widest = max(trial.positions_per_call for trial in tuned.trials)
    axis.set(xscale="log", xlim=(1, 1.2 * widest), ylim=(0.9, top))
    best = tuned.best
    axis.annotate(best.decoder, (best.positions_per_call, best.tokens_per_call), fontsize=8,
                  xytext=(6, 6), textcoords="offset points")  # fmt: skip
    axis.set_xlabel("positions that a call scores")
    axis.set_ylabel("tokens that a call writes")
    axis.set_title("Break-even: the line is what a call costs, in calls of one position")
    axis.legend(fontsize=8, loc="upper left")
    plain(axis.xaxis)


def _family(trial: Trial) -> str:
    return trial.decoder.partition(":")[0]

"""A decoding dependency graph as a page and as a picture."""

import contextlib
import dataclasses
import html
import io
import json
import pathlib
import string

from nar.bench.page import asset
from nar.bench.trace import STATES, Graph, State, summary, trace_text
from nar.core import Decoder
from nar.errors import NarError
from nar.files import replacing
from nar.translator import Translator

# Blue and amber stay apart for every kind of colour vision; what is only about to be accepted is a
# pale amber. Fill and ink on light paper, then on dark.
PALETTE: dict[State, tuple[tuple[str, str], tuple[str, str]]] = {
    "written": (("#1f5fa8", "#ffffff"), ("#2f6fbf", "#ffffff")),
    "confirmed": (("#f2a900", "#1b1300"), ("#f2a900", "#1b1300")),
    "kept": (("#e6e9ec", "#2f353b"), ("#2b3137", "#cdd4da")),
    "early": (("#fdf0cf", "#5c4300"), ("#3b300f", "#f5d27a")),
    "wrong": (("#f1e0eb", "#6e2a56"), ("#3a2536", "#e3abcf")),
}


def write_trace(
    translator: Translator, decoder: Decoder, text: str, path: pathlib.Path
) -> tuple[pathlib.Path, pathlib.Path]:
    """Decodes a text and writes the graph: a page, and a PNG beside it; both or neither.

    Args:
        translator: a model with its tokenizer.
        decoder: how.
        text: to translate, or to continue where the model is decoder-only.
        path: of the page, `*.html`.

    Returns:
        The paths of the page and of the PNG.

    Raises:
        IncompatibleModel: the model lacks what the decoder needs.
        NarError: the text is empty, or has more tokens than the model reads; or the page cannot be
            written there.
    """
    if path.suffix != ".html":
        raise NarError(f"{path} is no name for a page: it must end in .html")
    if not path.parent.is_dir():
        raise NarError(f"{path.parent} is no directory: the page {path.name} must go into one")
    if path.is_dir():
        raise NarError(f"{path} is a directory: it must be the name of a page")
    graph = trace_text(translator, decoder, text)
    files = {path: page(graph).encode(), path.with_suffix(".png"): picture(graph)}
    with contextlib.ExitStack() as stack:
        for file, content in files.items():
            stack.enter_context(replacing(file)).write(content)
    return path, path.with_suffix(".png")


# -------------------------------------------------------------------------------------- the page
def page(graph: Graph) -> str:
    """One file of HTML that needs nothing else, from the net or from a disk."""
    template, script = asset("trace.html"), asset("trace.js")
    words = {"states": STATES, "summary": summary(graph)}
    data = json.dumps({**dataclasses.asdict(graph), **words}, ensure_ascii=False)
    return string.Template(template).substitute(
        title=html.escape(f"{graph.decoder}: {graph.output}"),
        style=asset("base.css") + _colours() + asset("trace.css"),
        graph=data.replace("<", r"\u003c"),  # no text can end the script that holds it
        script=script,
    )


def _colours() -> str:
    lines = [
        f"  --{state}: light-dark({light[0]}, {dark[0]});\n"
        f"  --{state}-ink: light-dark({light[1]}, {dark[1]});\n"
        for state, (light, dark) in PALETTE.items()
    ]
    return f":root {{\n{''.join(lines)}}}\n"


# ----------------------------------------------------------------------------------- the picture
CELL, LINE, NAMES, HEAD, WIDEST_HEAD = 0.66, 0.22, 0.62, 1.12, 9.0
"""Inches: a cell's width, a line of tokens, the rows' names, what is above the rows, its width."""

POINTS, SMALLEST = 7.5, 4.0
"""Sizes of type: as set, and as small as a token may become to fit its cell."""


def picture(graph: Graph, dots_per_inch: int = 200) -> bytes:
    """The grid as a PNG: tokens where they fit, colours as on the page."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    lines = [max(len(cell.others) if cell else 0 for cell in step.cells) for step in graph.steps]
    heights = [LINE * (1.2 + 0.75 * count) for count in lines]
    width = 0.1 + max(NAMES + CELL * len(graph.steps[0].cells), WIDEST_HEAD)
    height = 0.1 + HEAD + sum(heights)
    figure = Figure(figsize=(width, height), dpi=dots_per_inch)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")

    def write(x: float, y: float, words: str, size: float = POINTS, **style) -> None:
        axes.text(x, y, words, size=size, va="center", parse_math=False, **style)

    def fit(x: float, y: float, words: str, size: float = POINTS, **style) -> None:
        size = min(size, 72 * 0.94 * CELL / (0.68 * len(words)))
        if size >= SMALLEST:
            write(x, y, words, size, ha="center", **style)

    def box(x: float, y: float, wide: float, high: float, state: State) -> str:
        (fill, ink), _ = PALETTE[state]
        edge = {"edgecolor": PALETTE["confirmed"][0][0], "linestyle": (0, (2, 1.2))}
        axes.add_artist(
            FancyBboxPatch(
                (x + 0.025, y + 0.025),
                wide - 0.05,
                high - 0.05,
                boxstyle="round,pad=0,rounding_size=0.04",
                facecolor=fill,
                linewidth=0.9 if state == "early" else 0,
                **(edge if state == "early" else {}),
            )
        )
        return ink

    write(0.1, 0.18, graph.decoder, 10, weight="bold")
    write(width - 0.1, 0.18, summary(graph), ha="right", color="#5b646d")
    x = 0.1
    for state, meaning in STATES.items():
        box(x, 0.36, 0.26, 0.2, state)
        write(x + 0.3, 0.46, meaning, 6.5)
        x += 0.5 + 0.05 * len(meaning)
    for place, token in enumerate(graph.output_pieces):
        x = NAMES + CELL * (place + 0.5)
        write(x, HEAD - 0.32, str(place + 1), 5.5, ha="center", color="#5b646d")
        fit(x, HEAD - 0.15, token, weight="bold")
    y = HEAD
    for number, (step, high) in enumerate(zip(graph.steps, heights, strict=True), start=1):
        write(NAMES - 0.32, y + 0.6 * LINE, str(number), ha="right", weight="bold")
        write(NAMES - 0.05, y + 0.6 * LINE, f"+{step.after - step.before}", 6, ha="right")
        for place, cell in enumerate(step.cells):
            if cell is None:
                continue
            x = NAMES + CELL * place
            ink = box(x, y, CELL, high, cell.state)
            fit(x + CELL / 2, y + 0.6 * LINE, cell.token, color=ink)
            for line, other in enumerate(cell.others, start=1):
                fit(x + CELL / 2, y + LINE * (0.6 + 0.75 * line), other, 5.5, color=ink, alpha=0.8)
        y += high
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()

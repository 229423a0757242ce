"""The data of a traced decode, against plain prefixes in NumPy and graphs worked out by hand."""

import dataclasses
import json

import numpy as np
import pytest

import nar
from nar.bench.trace import (
    VERSION,
    Prediction,
    _CanvasScene,
    _Look,
    _looks,
    _Scene,
    describe,
    summary,
    trace_text,
)
from nar.bench.trace_page import write_trace
from nar.core import Needs, Source, View
from nar.data.tokenizer import Tokenizer
from nar.decoders import DECODERS
from nar.errors import IncompatibleModel, NarError
from nar.testing import Scripted, oracles, random_model
from tests.cases import each, equipped

WORDS = ["ein", "Hund", "sieht", "den", "kleinen", "Mann", "vor", "dem", "Haus"]
TEXT = "Mann sieht den Hund"
LONGEST = 12


@pytest.fixture(scope="module")
def tokenizer():
    texts = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
    return Tokenizer.train(texts, pieces="words")


def random_translator(tokenizer, encoder):
    model = random_model(encoder=encoder, seed=1, vocab_size=tokenizer.vocab_size)
    return nar.Translator(model=model, tokenizer=tokenizer, weights="random")


@pytest.fixture(scope="module")
def translator(tokenizer):
    return random_translator(tokenizer, encoder=True)


def states(step):
    return [cell and cell.state for cell in step.cells]


def stretch(cells, width):
    return cells + [None] * (width - len(cells))


def test_greedy_writes_one_token_of_its_own_a_step(tokenizer, encoder):
    translator = random_translator(tokenizer, encoder)
    graph = trace_text(translator, nar.Greedy(max_length=LONGEST), TEXT)
    (row,) = translator.encode([TEXT])
    expected = oracles.greedy(translator.model, Source.of([row]), LONGEST)
    length = int(expected.length[0])
    pieces = translator.tokenizer.pieces(expected.tokens[0, :length])
    assert list(graph.output_pieces) == pieces
    assert length == len(graph.steps) == graph.calls["target"] == graph.positions["target"]
    for i, step in enumerate(graph.steps):
        assert (step.before, step.after) == (i, i + 1)
        assert states(step) == stretch(["kept"] * i + ["written"], length)
        assert [cell.token for cell in step.cells if cell] == pieces[: i + 1]
        assert step.text == translator.tokenizer.decode(expected.tokens[:, : i + 1])[0]


def test_probabilities_are_the_model_s(translator):
    graph = trace_text(translator, nar.Greedy(max_length=LONGEST), TEXT)
    (row,) = translator.encode([TEXT])
    tokens = oracles.greedy(translator.model, Source.of([row]), LONGEST).tokens
    logits = oracles.teacher_forced(translator.model, Source.of([row]), tokens)
    probs = np.exp(oracles.log_softmax(np.asarray(logits, np.float64)))[0]
    before = "<s>"
    for i, step in enumerate(graph.steps):
        ((after, choices),) = step.cells[i].predictions
        assert after == before
        order = np.argsort(-probs[i])[:5]
        assert [piece for piece, _ in choices] == translator.tokenizer.pieces(order)
        np.testing.assert_allclose([p for _, p in choices], probs[i, order], atol=1e-4)
        before = graph.output_pieces[i]


def iterates(translator, block):
    """Jacobi by whole passes: each step's length before, the guesses it tried, and length after."""
    (row,) = translator.encode([TEXT])
    source, y = Source.of([row]), np.zeros((1, LONGEST + block), np.int32)
    goal = oracles.greedy(translator.model, source, LONGEST)
    at, end = 0, int(goal.length[0])
    while at < end:
        logits = np.asarray(oracles.teacher_forced(translator.model, source, y))[0]
        best, guesses = logits.argmax(-1), y[0, at : at + block - 1].copy()
        right = 0
        while right < block - 1 and guesses[right] == best[at + right]:
            right += 1
        after = min(at + right + 1, end)
        yield at, guesses, after
        y[0, at : at + block] = best[at : at + block]
        at = after


def test_jacobi_tries_its_iterates(translator):
    block = 4
    graph = trace_text(translator, nar.Jacobi(max_length=LONGEST, block=block), TEXT)
    goal, width = list(graph.output_pieces), len(graph.output_pieces)
    expected = list(iterates(translator, block))
    assert len(graph.steps) == len(expected) < width  # something is written in parallel
    seen = set()
    for step, (before, guesses, after) in zip(graph.steps, expected, strict=True):
        tried = dict(enumerate(translator.tokenizer.pieces(guesses), start=before))
        cells = [(token, "kept") for token in goal[:before]]
        for place in range(before, after):
            accepted = place < after - 1 or tried.get(place) == goal[place]
            cells.append((goal[place], "confirmed" if accepted else "written"))
        for place in range(after, min(before + block - 1, width)):
            state = "early" if tried[place] == goal[place] else "wrong"
            cells.append((tried[place], state))
        assert [cell and (cell.token, cell.state) for cell in step.cells] == stretch(cells, width)
        for place in range(before, min(before + block - 1, width)):
            other = () if tried[place] == step.cells[place].token else (tried[place],)
            assert step.cells[place].others == other
        assert (step.before, step.after) == (before, after)
        seen |= {state for _, state in cells}
    assert seen >= {"kept", "written", "confirmed", "wrong"}


def test_a_confirmed_guess_that_ends_the_output(tokenizer):
    """EOS guessed and accepted: the last token is no token of the model's own."""
    script = np.array([[7, 7, 3, 3, 3]])
    model = Scripted(random_model(vocab_size=tokenizer.vocab_size), script)
    translator = nar.Translator(model=model, tokenizer=tokenizer, weights="scripted")
    graph = trace_text(translator, nar.Jacobi(max_length=LONGEST, block=4), TEXT)
    assert [states(step) for step in graph.steps] == [
        ["written", "wrong", "wrong"],
        ["kept", "confirmed", "confirmed"],
    ]


def test_beams_stand_where_they_ended(translator):
    decoder = nar.Beam(max_length=LONGEST, beams=3)
    graph = trace_text(translator, decoder, TEXT)
    (row,) = translator.encode([TEXT])
    source = Source.of([row])
    (best, *_), *_ = oracles.beam(
        translator.model, source, LONGEST, beams=3, length_penalty=1.0, stop="estimate"
    )
    assert list(graph.output_pieces) == translator.tokenizer.pieces(best.tokens)
    first, second = graph.steps[:2]
    ranked = [piece for piece, _ in first.cells[0].predictions[0].choices if piece != "</s>"]
    assert [first.cells[0].token, *first.cells[0].others] == ranked[:3]
    assert [after for after, _ in second.cells[1].predictions] == ranked[:3]
    assert len(first.cells[0].predictions) == 1  # all beams begin as one
    for i, step in enumerate(graph.steps):
        assert step.after == i + 1
        for place, cell in enumerate(step.cells[: step.after]):
            right = graph.output_pieces[place : place + 1] == (cell.token,)
            assert right == (cell.state != "wrong")


OPTIONS = {"jacobi": "block=4", "beam": "beams=3"}


@pytest.mark.parametrize("name", each(DECODERS))
def test_every_decoder_ends_in_its_output(translator, name):
    decoder = nar.make(f"{name}:{OPTIONS.get(name, '')}", max_length=LONGEST)
    translator = dataclasses.replace(translator, model=equipped(decoder, translator.model))
    graph = trace_text(translator, decoder, TEXT)
    (row,) = translator.encode([TEXT])
    output = nar.decode(decoder, translator.model, Source.of([row]))
    length = int(output.length[0])
    assert list(graph.output_pieces) == translator.tokenizer.pieces(output.tokens[0, :length])
    assert graph.output == translator.tokenizer.decode(output.tokens[:, :length])[0]
    assert len(graph.steps) == int(output.stats.live[0])
    assert graph.steps[-1].after > graph.steps[-1].before
    assert json.loads(json.dumps(dataclasses.asdict(graph)))["version"] == VERSION
    assert nar.make(describe(decoder)) == decoder


def test_a_decoder_in_a_decoder_is_described_as_it_is_read():
    for text in ("parallel-draft:base=(mask-predict:lengths=2,calls=4),guesses=5",
                 "noisy-parallel:base=(ctc-beam:nbest=5)"):  # fmt: skip
        assert describe(nar.make(text)) == text


def test_a_tree_shows_the_branch_that_was_taken(tokenizer):
    """Two guesses for a place, one accepted: what follows is what was said after that one."""
    ein, hund, sieht = tokenizer.encode(["ein Hund sieht"])[0][:3]
    view = View(
        tokens=np.array([2, ein, hund, -1]),
        position=np.array([-1, 0, 0, 1]),
        accepted=np.array([False, False, True, False]),
        choices=np.array([[hund, ein], [ein, ein], [sieht, 3], [3, 3]]),
        logprobs=np.log([[0.5, 0.25], [1, 1], [0.75, 0.125], [1, 1]]),
    )
    translator = nar.Translator(model=None, tokenizer=tokenizer, weights="")
    looks = _looks(view, translator)
    assert len(looks) == 3
    output = ("▁Hund", "▁sieht")
    first, second = (_Scene((), output, looks, [], output).cell(place) for place in range(2))
    assert (first.token, first.state, first.others) == ("▁Hund", "confirmed", ("▁ein",))
    assert (second.state, second.predictions) == (
        "written",
        (("▁Hund", (("▁sieht", 0.75), ("</s>", 0.125))),),
    )
    rejected = _Scene((), (), looks, [], output).cell(0)
    assert (rejected.token, rejected.state, rejected.others) == ("▁Hund", "early", ("▁ein",))


def test_a_canvas_shows_what_is_kept_call_by_call(tokenizer):
    """Of equal scores the first places are masked again; EOS is written with the last call."""
    script = np.array([[7, 8, 9, 10, 11, 3]])
    decoder = nar.QuotaUnmasking(max_length=LONGEST, calls=2)
    canvas = equipped(decoder, random_model(vocab_size=tokenizer.vocab_size))
    model = Scripted(canvas, script)
    translator = nar.Translator(model=model, tokenizer=tokenizer, weights="scripted")
    graph = trace_text(translator, decoder, TEXT)
    pieces = tokenizer.pieces(script[0])
    assert list(graph.output_pieces) == pieces
    assert [states(step) for step in graph.steps] == [
        ["early"] * 2 + ["written"] * 3 + [None],
        ["confirmed"] * 2 + ["kept"] * 3 + ["written"],
    ]
    assert [step.after for step in graph.steps] == [0, 6]
    assert [step.text for step in graph.steps] == [graph.output] * 2
    for step, said in zip(graph.steps, ([0, 1, 2, 3, 4], [0, 1]), strict=True):
        cells = dict(enumerate(filter(None, step.cells)))
        assert [cell.token for cell in cells.values()] == pieces[: len(cells)]
        assert [place for place, cell in cells.items() if cell.predictions] == said
        for place in said:
            ((after, choices),) = cells[place].predictions
            assert (after, choices[0]) == (None, (pieces[place], 1.0))


def test_what_a_canvas_masks_again_is_not_accepted():
    def look(place, token, accepted=True):
        return _Look(place, token, accepted, Prediction(None, ((token, 1.0),)))

    before = [look(0, "a"), look(1, "x", accepted=False), look(2, "c")]
    after = [look(0, "a", accepted=False), look(1, "b"), look(2, "c")]
    scene = _CanvasScene.of((), after, before, ("a", "b", "c", "</s>"))
    cells = [scene.cell(place) for place in range(4)]
    assert [cell and cell.state for cell in cells] == ["early", "written", "kept", None]
    assert [len(cell.predictions) for cell in cells[:3]] == [0, 1, 0]
    first = _CanvasScene.of((), before, [], ("a", "b", "c", "</s>"))
    assert [first.cell(place).state for place in range(3)] == ["written", "wrong", "written"]


def test_what_is_revised_is_wrong_until_it_is_right():
    output = ("a", "b")
    scene = _Scene(("a", "x"), ("y", "b"), [], [], output)
    assert [scene.cell(place).state for place in range(2)] == ["wrong", "written"]
    assert scene.cell(2) is None


def test_the_summary_counts_each_role(translator):
    graph = trace_text(translator, nar.Greedy(max_length=LONGEST), TEXT)
    tokens = len(graph.output_pieces)
    assert summary(graph) == (
        f"{tokens} tokens in {tokens} calls, 1.00 tokens a call, {tokens} positions scored"
    )
    two = dataclasses.replace(
        graph, calls={"target": 2, "draft": 0}, positions={"target": 8, "draft": 0}
    )
    assert summary(two).startswith(f"target: {tokens} tokens in 2 calls, {tokens / 2:.2f} tokens")


class Headless(nar.Greedy):
    @property
    def needs(self):
        return {"target": Needs(causal=True, length_head=True)}


@pytest.mark.parametrize(
    ("decoder", "text", "error", "message"),
    [
        (nar.Greedy(max_length=4), "  ", NarError, "the text is '  '"),
        (nar.Greedy(max_length=4), "ein " * 70, NarError, r"71 positions"),
        (nar.Greedy(max_length=99), TEXT, NarError, "max_length=99.*64 positions"),
        (Headless(max_length=4), TEXT, IncompatibleModel, "a length head"),
        (nar.Jacobi(max_length=4, oracle_length=True), TEXT, NarError, "source.limit"),
    ],
)
def test_bad_input_comes_before_tracing(monkeypatch, translator, decoder, text, error, message):
    def never(*_):
        raise AssertionError("traced before the error")

    monkeypatch.setattr(nar.Greedy, "init", never)
    with pytest.raises(error, match=message):
        trace_text(translator, decoder, text)


def test_a_page_and_a_picture_from_text(translator, tmp_path):
    decoder = nar.Jacobi(block=3, max_length=LONGEST)
    page, picture = write_trace(translator, decoder, TEXT, tmp_path / "trace.html")
    text = trace_text(translator, decoder, TEXT).output
    assert text in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")

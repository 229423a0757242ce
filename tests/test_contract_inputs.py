"""Whatever the model and the source, decoders write what plain implementations write."""

from hypothesis import given
from hypothesis import strategies as st

from nar import Source
from nar.testing import random_model
from tests.cases import CANVASES, CASES, LOSSLESS, check, of_a_loop, on, random_canvas_model

rows = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=8, max_size=8)


@on(quick=of_a_loop, among=LOSSLESS)
@given(seed=st.integers(0, 10_000), rows=rows)
def test_any_model_and_source(name, encoder, seed, rows):
    """Shapes stay as they are, so that nothing is compiled again."""
    sources = [Source.of(rows, width=6)]
    check(name, random_model(encoder=encoder, seed=seed), sources=sources, points=(1,))


@on(quick=of_a_loop, among=CANVASES)
@given(seed=st.integers(0, 10_000), rows=rows)
def test_any_canvas_and_source(name, encoder, seed, rows):
    sources = [Source.of(rows, width=6)]
    model = random_canvas_model(CASES[name], seed=seed)
    check(name, model, sources=sources, points=(1,))

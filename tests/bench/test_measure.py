import jax
import numpy as np
import pytest

import nar
from nar.bench.measure import measure
from nar.core import NarError

CONFIG = nar.TransformerConfig(
    vocab_size=17, d_model=16, d_ff=32, heads=2, encoder_layers=1, decoder_layers=1
)
SOURCES = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16, 5], [7, 7], [16, 3]]


@pytest.fixture(scope="module")
def model():
    return nar.Transformer(CONFIG, key=jax.random.key(0))


@pytest.fixture(scope="module")
def rows(model):
    decoders = {
        "greedy": nar.Greedy(max_length=6),
        "jacobi": nar.Jacobi(max_length=6, block=3),
        "oracle": nar.Jacobi(max_length=6, oracle_length=True),
        "beam": nar.Beam(max_length=6, beams=2),
    }
    return measure(decoders, model, SOURCES, batch_size=2)


def test_outputs_are_in_the_order_of_the_sources(model, rows):
    for i, source in enumerate(SOURCES):
        alone = nar.decode(nar.Greedy(max_length=6), model, nar.Source.of([source]))
        assert rows[0].outputs[i] == np.asarray(alone.tokens)[0, : int(alone.length[0])].tolist()


def test_lossless_decoders_equal_the_baseline(rows):
    for row in rows[:3]:
        assert row.equal_to_baseline == 1
        assert list(map(list, row.outputs)) == list(map(list, rows[0].outputs))


def test_the_work_is_counted_a_sentence(rows):
    greedy = rows[0]
    assert greedy.calls == pytest.approx(np.mean([len(o) for o in greedy.outputs]))
    assert greedy.tokens_per_call == 1
    assert greedy.positions == greedy.calls
    assert rows[1].positions == pytest.approx(3 * rows[1].calls)
    assert rows[3].positions == pytest.approx(2 * rows[3].calls)
    assert all(row.seconds > 0 for row in rows)


def test_a_baseline_is_needed(model):
    with pytest.raises(NarError, match="greedy"):
        measure({"jacobi": nar.Jacobi(max_length=6)}, model, SOURCES)

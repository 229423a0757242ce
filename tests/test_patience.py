"""Long outputs are cut early, and written again; no output changes by it."""

import jax.numpy as jnp
import numpy as np
import pytest

import nar
from nar.patience import FEW, SPARE, Patience
from nar.testing import Scripted, random_model
from tests.test_translator import random_translator

GREEDY = nar.Greedy(max_length=40)
SOURCE = nar.Source.of([[5] * n for n in range(1, 13)], width=16)


def test_limits_by_hand():
    spec = random_model().spec
    patience = Patience(GREEDY, spec)
    most = int(1.5 * 10) + SPARE  # the tenth row has ten tokens
    assert patience.limit(SOURCE, 10).tolist() == [most] * 10 + [1] * 2
    assert patience.limit(SOURCE, FEW).tolist() == [40] * FEW + [1] * 4
    shorter = nar.Greedy(max_length=9)
    assert set(Patience(shorter, spec).limit(SOURCE, 12)) == {9}
    assert set(Patience(nar.Beam(max_length=40), spec).limit(SOURCE, 12)) == {40}
    assert set(Patience(GREEDY, random_model(encoder=False).spec).limit(SOURCE, 12)) == {40}


def outputs(*rows, failed=()):
    """Rows of at most four tokens."""
    tokens = np.array([[*row, *[0] * (4 - len(row))] for row in rows])
    failed = np.isin(np.arange(len(rows)), failed)
    return nar.Output(tokens, np.array([*map(len, rows)]), None, None, failed=failed)


def test_what_was_cut_by_hand():
    patience = Patience(GREEDY, random_model().spec)
    limit = np.array([4] * 9 + [1])  # the last row only fills the shape
    ends, long, short = [7, 7, 7, 3], [7] * 4, [7, 3]
    found = patience.cut(outputs(ends, long, *[short] * 7, [7]), limit)
    assert found.tolist() == [False, True] + [False] * 8
    assert patience.ratio == 1.5
    assert patience.cut(outputs(long, long, *[short] * 7, [7]), limit).sum() == 2
    assert patience.ratio == 3
    assert not patience.cut(outputs(long, *[short] * 8, [7], failed=[0]), limit).any()
    whole = Patience(nar.Greedy(max_length=4), random_model().spec)
    assert not whole.cut(outputs(long), np.array([4])).any()  # has had all its room


@pytest.mark.parametrize("endless", [{7}, {7, 8, 9, 10, 11}], ids=["few", "all"])
def test_outputs_are_those_without_limits(endless, monkeypatch):
    """Rows that never end are decoded last; no row is lost, and none is cut in the end."""
    translator, run, shapes = random_translator(), nar.translator.decode, []
    sources = [[7 + i % 5] * (1 + i % 6) + [3] for i in range(40)]

    def decode(decoder, model, source, **options):
        """Says three tokens and ends, or says one for ever, as the source's first token asks."""
        shapes.append(source.tokens.shape)
        goes_on = np.isin(np.asarray(source.tokens)[:, :1], [*endless])
        script = np.where(goes_on, 9, model.spec.eos) * np.ones((1, 60), int)
        script[:, :3] = 8
        return run(decoder, Scripted(model, jnp.asarray(script)), source, **options)

    monkeypatch.setattr(nar.translator, "decode", decode)
    found = {}
    for places, results in translator.outputs(sources, GREEDY, batch_size=16):
        assert not found.keys() & {*places}
        found |= dict(zip(places, results, strict=True))
    lengths = [len(found[i].text.split()) for i in range(40)]
    assert [found[i].finish_reason for i in range(40)] == [
        "length" if source[0] in endless else "stop" for source in sources
    ]
    assert lengths == [40 if source[0] in endless else 3 for source in sources]
    assert len(shapes) > 3, "some are decoded again"
    assert len({*shapes}) == 1

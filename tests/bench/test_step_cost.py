import dataclasses

import numpy as np
import pytest

import nar
from nar.bench import step_cost as costing
from nar.bench.step_cost import StepCost, step_cost
from nar.errors import NarError
from nar.testing import random_model

CURVE = StepCost(
    positions=(1, 2, 4), ms=(1.0, 1.5, 2.0), over_one=(1.0, 1.5, 2.0),
    over_one_spread=((1, 1),) * 3, over_floor=(), floor_ms=None, begin_ms=3.0,
)  # fmt: skip


def test_costs_are_linear_between_measurements():
    assert CURVE.at(3) == pytest.approx(1.75)
    assert CURVE.predict(10, 20) == pytest.approx(3 + 15)
    with pytest.raises(NarError, match="measured were 1 to 4"):
        CURVE.at(5)


def test_a_curve_begins_at_one_position():
    with pytest.raises(NarError, match="ascend from 1"):
        step_cost(random_model(), nar.Source.of([[5]]), max_length=8, positions=(2, 4))


def test_the_work_of_who_drafts_is_part_of_a_prediction(monkeypatch):
    target, draft = random_model(), random_model(seed=1, decoder_layers=1)
    curves = []

    def cost(model, **options):
        """Dearer by as much as the model has layers."""
        curves.append(model.config.decoder_layers)
        depth = model.config.decoder_layers
        yield 1, 1
        return dataclasses.replace(CURVE, ms=tuple(depth * ms for ms in CURVE.ms))

    monkeypatch.setattr(costing, "rounds", cost)
    costs = costing.StepCosts(nar.Bundle.of(target=target, draft=draft))
    work = {"target": (4.0, 12.0), "draft": (12.0, 12.0)}
    verified, drafted = 3 + 4 * 2 * 1.75, 12 * 1.0
    with_own_encoder = costs.predict(nar.SpeculativeDecoding(guesses=3), work)
    assert with_own_encoder == pytest.approx(verified + 3 + drafted)
    assert costs.predict(nar.SelfSpeculative(guesses=3), work) == pytest.approx(verified + drafted)
    alone = {"target": work["target"]}
    assert costs.predict(nar.PromptLookup(), alone) == pytest.approx(verified)
    costs.predict(nar.SelfSpeculative(guesses=2), work)
    assert curves == [2, 1, 1]  # each is measured once
    drafts_itself = costing.StepCosts(target)
    assert drafts_itself.predict(nar.SelfSpeculative(guesses=3), work) == pytest.approx(
        verified + drafted
    )


def test_a_canvas_has_a_curve_of_its_own(monkeypatch):
    """`extend` is asked about by who extends, `fill` by who fills, each once."""
    asked = []

    def cost(model, *, fill):
        asked.append(fill)
        yield 1, 1
        return dataclasses.replace(CURVE, ms=(4.0, 5.0, 6.0)) if fill else CURVE

    monkeypatch.setattr(costing, "rounds", cost)
    both = costing.StepCosts(random_model(bidirectional=True))
    for _ in range(2):
        assert both.predict(nar.Greedy(), {"target": (4.0, 4.0)}) == pytest.approx(3 + 4 * 1.0)
        assert both.predict(nar.MaskPredict(), {"target": (2.0, 6.0)}) == pytest.approx(3 + 2 * 5.5)
    assert asked == [False, True]
    canvas = costing.StepCosts(random_model(causal=False, bidirectional=True))
    assert canvas.target.ms[0] == 4
    assert asked == [False, True, True]


def test_curves_are_measured_in_turn(monkeypatch):
    """What one model's calls cost is compared with another's: both see the same minutes."""
    told, done = [], []

    def cost(model, *, fill):
        for repeat in range(3):
            told.append((model.config.decoder_layers, fill))
            yield repeat + 1, 3
        return CURVE

    monkeypatch.setattr(costing, "rounds", cost)
    small = costing.StepCosts(random_model(decoder_layers=1, bidirectional=True))
    large = costing.StepCosts(random_model(decoder_layers=2))
    greedy, canvas = nar.Greedy(), nar.MaskPredict()
    work = {"target": (4.0, 4.0)}
    first = [small.places(decoder, work)["target"] for decoder in (greedy, canvas, greedy)]
    measuring = [*small.measuring(first), *large.measuring(large.places(greedy, work).values())]
    costing.in_turn(measuring, lambda *progress: done.append(progress))
    assert told == [(1, False), (1, True), (2, False)] * 3
    assert done == [("step costs", n, 3) for n in (1, 1, 1, 2, 2, 2, 3, 3, 3)]
    assert small.predict(greedy, work) == large.predict(greedy, work)
    assert len(told) == 9  # nothing is measured again
    assert not small.measuring(first)


def test_every_model_of_a_bundle_is_part_of_a_prediction(monkeypatch):
    """A re-ranker's call is one of `extend`; a draft that is never made costs its encoder."""
    target = random_model(causal=False, bidirectional=True, length_classes=8)
    bundle = nar.Bundle.of(target=target, reranker=random_model(seed=1))

    def cost(model, *, fill):
        yield 1, 1
        return dataclasses.replace(CURVE, begin_ms=1.0 if fill else 10.0)

    monkeypatch.setattr(costing, "rounds", cost)
    costs, decoder = costing.StepCosts(bundle), nar.make("noisy-parallel")
    work = {"target": (2.0, 4.0), "reranker": (1.0, 4.0)}
    assert costs.predict(decoder, work) == pytest.approx((1 + 2 * 1.5) + (10 + 2.0))
    idle = {"target": (2.0, 4.0), "reranker": (0.0, 0.0)}
    assert costs.predict(decoder, idle) == pytest.approx((1 + 2 * 1.5) + 10)


@pytest.mark.parametrize(
    ("shape", "asked", "positions"),
    [
        ({"length_classes": 8}, (1, 70), (1, 70)),
        ({"upsample": 3, "blank": 5}, (1, 2, 31), (3, 33)),
        ({"upsample": 3, "blank": 5}, (1, 64, 200), (3, 66, 204)),
    ],
    ids=str,
)
def test_the_curve_of_canvases(shape, asked, positions):
    """An upsampled canvas is a multiple; one that is wider than the model becomes several."""
    model = random_model(causal=False, bidirectional=True, **shape)
    source = nar.Source.of([[5, 6, 7]])
    cost = step_cost(model, source, max_length=8, positions=asked, fill=True, repeats=2)
    assert cost.positions == positions
    assert min(cost.ms) > 0
    assert cost.over_one[0] == 1
    for t in positions:
        context, canvas = costing._blank_canvas(model, source, t)
        rows, places = canvas.shape
        assert rows * places == t
        assert places <= 64
        assert (np.asarray(canvas) == model.spec.mask).all()
        assert model.fill(canvas, context, np.ones_like(canvas, bool)).shape == (rows, places, 32)

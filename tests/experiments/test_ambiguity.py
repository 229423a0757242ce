import dataclasses
import json
import pathlib

import pytest

from experiments import ambiguity
from experiments import run as runner
from experiments.ambiguity import CAUSAL, MODELS, Ambiguity, Point, accepted, family, judge, picture
from experiments.ambiguity import run as run_all
from experiments.data import DistilledData
from experiments.registry import MULTI30K, PARALLEL
from nar.data.grammar import Grammar, GrammarConfig
from nar.errors import NarError
from tests.experiments.test_run import TINY

SMALL = dataclasses.replace(
    TINY,
    data=dataclasses.replace(TINY.data, sizes=(24, 4, 4), grammar=GrammarConfig(length=1)),
    model=dataclasses.replace(TINY.model, encoder_layers=1),
    train=dataclasses.replace(TINY.train, steps=2),
)
TEST = Grammar("test", 40, GrammarConfig(length=1, ambiguity=0.5))


@pytest.fixture(scope="module")
def free():
    return accepted(dataclasses.replace(TEST, config=GrammarConfig(length=1, ambiguity=1)))


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_the_grammar_accepts_what_a_corpus_of_any_ambiguity_holds(free, chance):
    corpus = Grammar("test", 40, GrammarConfig(length=1, ambiguity=chance))
    assert all(german in texts for (_, german), texts in zip(corpus, free, strict=True))


def test_the_grammar_accepts_nothing_else(free):
    for (english, german), texts in zip(TEST, free, strict=True):
        words = german.split()
        for wrong in (english, "", german[:-1], " ".join([*words[:1], *words]), german.lower()):
            assert wrong not in texts
    assert max(map(len, free)) > 4  # sentences with real choices are among them


def judged(monkeypatch, outputs):
    monkeypatch.setattr(ambiguity, "outputs_of", lambda *_: (outputs, "w0"))
    return judge(SMALL, CAUSAL, TEST, pathlib.Path())


def test_outputs_are_judged_by_the_grammar(monkeypatch, free):
    others = [sorted(texts)[-1] for texts in free]
    assert others != [german for _, german in TEST]
    best = judged(monkeypatch, others)
    assert (best.valid, best.interval) == (1, (1, 1))
    assert best.bits == pytest.approx(sum(TEST.entropy(i) for i in range(40)) / 40)
    assert (best.ambiguity, best.training, best.weights) == (0.5, "raw", "w0")
    half = judged(monkeypatch, [*others[:20], *[english for english, _ in TEST][20:]])
    assert half.valid == 0.5
    assert 0.2 < half.interval[0] < 0.5 < half.interval[1] < 0.8


def test_all_models_of_one_ambiguity():
    found = family(SMALL)
    assert tuple(found) == MODELS == (CAUSAL, *PARALLEL)
    names = [experiment.name for pair in found.values() for experiment in pair]
    assert len(set(names)) == 2 * len(MODELS)
    for raw, taught in found.values():
        assert (raw.training, taught.training) == ("raw", "distilled")
        assert raw.start == taught.start == SMALL.name
        assert raw.train == taught.train
        assert raw.train.steps == SMALL.train.steps * 3 // 2
        assert raw.data == SMALL.data
        assert taught.data == DistilledData(teacher=SMALL.name, original=SMALL.data)


@pytest.mark.rest
def test_a_run_trains_judges_draws_and_is_not_repeated(tmp_path, monkeypatch):
    few = {"ctc": PARALLEL["ctc"]}
    monkeypatch.setattr(ambiguity, "PARALLEL", few)
    monkeypatch.setattr(ambiguity, "MODELS", (CAUSAL, *few))
    config = Ambiguity(values=(1.0,), teacher=SMALL)
    points = run_all(config, tmp_path)
    assert [(point.model, point.training) for point in points] == [
        (CAUSAL, "raw"), (CAUSAL, "distilled"), ("ctc", "raw"), ("ctc", "distilled"),
    ]  # fmt: skip
    assert len({point.weights for point in points}) == 4
    written = json.loads((tmp_path / "ambiguity.json").read_text())
    assert [Point(**{**one, "interval": tuple(one["interval"])}) for one in written] == points
    assert (tmp_path / "ambiguity.png").read_bytes().startswith(b"\x89PNG")
    for name in (f"tiny-1.0_{CAUSAL}", "tiny-1.0_distilled_ctc"):
        assert len(json.loads((tmp_path / name / "outputs.json").read_text())["outputs"]) == 4

    monkeypatch.setattr(runner, "train_model", None)
    monkeypatch.setattr("nar.translator.Translator.outputs", None)
    assert run_all(config, tmp_path) == points


def test_the_picture_is_the_same_every_time():
    points = [
        Point(model=model, training=training, ambiguity=bits / 2, bits=bits,
              valid=0.9 - 0.1 * bits, interval=(0.85 - 0.1 * bits, 0.95 - 0.1 * bits), weights="w")
        for model in MODELS for training in ("raw", "distilled") for bits in (2.0, 0.0, 1.0)
    ]  # fmt: skip
    drawn = picture(points)
    assert drawn.startswith(b"\x89PNG")
    assert picture(points[::-1]) == drawn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": ()}, "different, and from 0 to 1"),
        ({"values": (0.5, 0.5)}, r"values=\(0.5, 0.5\): they must be different"),
        ({"values": (1.5,)}, "from 0 to 1"),
        ({"teacher": MULTI30K}, "only the grammar knows its entropy"),
    ],
)
def test_settings_without_sense(change, message):
    with pytest.raises(NarError, match=message):
        Ambiguity(**change)

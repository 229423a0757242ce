"""The experiments there are: names, what they build on, and decoders that their models can run."""

import dataclasses

import jax
import pytest

import nar
from experiments.data import DistilledData
from experiments.registry import EXPERIMENTS, MULTI30K, PARALLEL, TEACHERS, find, shaped
from nar.errors import NarError
from nar.model import Transformer
from nar.objectives import CTC, CrossEntropy, Masked


@pytest.mark.parametrize("kind", PARALLEL)
def test_parallel_models_differ_from_their_teachers_in_what_they_need_alone(kind):
    for experiment, teacher in TEACHERS:
        raw = find(f"{experiment.name}_{kind}")
        taught = find(f"{experiment.name}_distilled_{kind}")
        assert (raw.training, taught.training) == ("raw", "distilled")
        assert raw.data == experiment.data
        assert taught.data == DistilledData(teacher=teacher.name, original=experiment.data)
        assert raw.train == experiment.train
        same = ("model", "train", "objective", "start", "decoders", "metric", "max_length")
        assert all(getattr(raw, name) == getattr(taught, name) for name in same)
        assert raw.start == teacher.name
        assert raw.model.d_model == teacher.model.d_model
        assert not raw.model.causal
        assert (raw.model.upsample > 0) == isinstance(raw.objective, CTC)
        assert (raw.model.length_classes > 0) == isinstance(raw.objective, Masked)


def test_the_baseline_that_hurts_is_taught_too():
    for experiment, teacher in TEACHERS:
        shallow = find(f"{experiment.name}_distilled_6-1")
        assert shallow.start == teacher.name
        assert shallow.model == shaped(experiment, 6, 1).model
        assert shallow.train == experiment.train
        assert (shallow.objective, shallow.training) == (CrossEntropy(), "distilled")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_names_decoders_that_its_model_can_run(name):
    experiment = EXPERIMENTS[name]
    experiment.check()
    small = dataclasses.replace(
        experiment.model, d_model=8, d_ff=8, heads=1, encoder_layers=1, decoder_layers=1,
        vocab_size=10,
    )  # fmt: skip
    spec = Transformer(small, key=jax.random.key(0)).spec
    for decoder in experiment.names(full=True):
        made = nar.make(decoder, max_length=experiment.max_length)
        assert made.needs["target"].unmet(spec) == []
    with pytest.raises(NarError, match="no decoder 'nonsense'"):
        dataclasses.replace(experiment, decoders=("nonsense",)).check()


def test_what_an_experiment_builds_on_is_an_experiment_too():
    for experiment in EXPERIMENTS.values():
        teacher = getattr(experiment.data, "teacher", None)
        for name in filter(None, (experiment.start, teacher)):
            assert EXPERIMENTS[name].model.causal
            assert EXPERIMENTS[name].training == "raw"


def test_all_parallel_decoders_are_called_for_somewhere():
    called = {name.partition(":")[0] for e in EXPERIMENTS.values() for name in e.names(full=True)}
    assert {"ctc", "mask-predict", "threshold-unmasking", "quota-unmasking"} <= called
    assert {"ctc-beam", "noisy-parallel"} <= called


def test_experiments_are_found_by_name_nearest_first():
    assert find("g2p").metric == "token_error"
    with pytest.raises(NarError, match="there are multi30k_en-de"):
        find("multi30k")


def test_shapes_differ_in_depth_alone():
    deep = find("multi30k_en-de_6-1")
    assert (deep.model.encoder_layers, deep.model.decoder_layers) == (6, 1)
    assert (deep.data, deep.train, deep.objective) == (
        MULTI30K.data,
        MULTI30K.train,
        MULTI30K.objective,
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_compares_with_greedy(name):
    experiment = EXPERIMENTS[name]
    assert (experiment.decoders[0] == "greedy") == experiment.model.causal
    assert experiment.model.causal or find(experiment.start or "").decoders[0] == "greedy"

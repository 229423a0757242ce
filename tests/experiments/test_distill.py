import dataclasses
import json
import shutil

import chex
import jax
import pytest

import nar
from experiments import run as runner
from experiments.__main__ import main
from experiments.data import DistilledData, FolderData
from experiments.registry import (
    distilled,
    parallel,
    shaped,
)
from experiments.run import bench, distill, learn_language, systems, train
from experiments.runs import claim
from experiments.start import adapted, first_tokenizer
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError
from nar.model import Transformer
from nar.objectives import CTC, Masked
from nar.training import OptimizerConfig, load_model, save_model
from nar.training.checkpoint import named_arrays
from tests.experiments.test_run import TINY

pytestmark = pytest.mark.rest  # all begin with a trained teacher

STILL = dataclasses.replace(
    TINY.train, steps=1, optimizer=OptimizerConfig(learning_rate=1e-12, warmup=1)
)


def still(experiment):
    """An experiment whose training changes nothing to speak of."""
    return dataclasses.replace(experiment, train=STILL)


GREEDY = nar.Greedy(max_length=TINY.max_length)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where a teacher is trained, and has translated its text."""
    directory = tmp_path_factory.mktemp("runs")
    train(TINY, directory / "tiny", None)
    assert distill(TINY, directory / "tiny", None, decoder="greedy")
    return directory


@pytest.fixture(scope="module")
def student(runs):
    """A parallel student that has its teacher's weights."""
    experiment = still(distilled(TINY, parallel(TINY, "ctc", teacher=TINY), teacher=TINY))
    train(experiment, runs / experiment.name, None)
    return experiment


def rewrite(path, change):
    """Changes a JSON file."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


# ----------------------------------------------------------------------------------- the teacher
def test_the_teachers_words_are_text_to_train_on(runs):
    data = DistilledData(teacher="tiny", original=TINY.data)
    assert (TINY.training, data.training) == ("raw", "distilled")
    teacher = nar.load(runs / "tiny" / "model")
    for split in ("train", "valid"):
        original, found = (text.open(split, None, runs) for text in (TINY.data, data))
        pairs = [found[i] for i in range(len(found))]
        assert [source for source, _ in pairs] == [original[i][0] for i in range(len(original))]
        sources = [source for source, _ in pairs[:8]]
        assert [target for _, target in pairs[:8]] == teacher.translate(sources, GREEDY)
    tests = [text.open("test", None, runs) for text in (data, TINY.data)]
    assert [tests[0][i] for i in range(12)] == [tests[1][i] for i in range(12)]
    assert data.describe("train") == "the built-in grammar's train set, translated by tiny"
    assert data.describe("test") == TINY.data.describe("test")
    record = json.loads((runs / "tiny" / "distilled" / "provenance.json").read_text())
    assert (record["teacher"], record["weights"]) == ("tiny", teacher.weights)
    assert record["lines"] == {"train": 300, "valid": 20}
    assert record["code"]["nar"]


def test_a_whole_corpus_is_not_made_again_nor_by_another_decoder(runs, monkeypatch):
    assert distill(TINY, runs / "tiny", None, decoder="greedy")
    with pytest.raises(NarError, match=r"decoder is 'Greedy\(.* there and .*Beam\(.* here"):
        distill(TINY, runs / "tiny", None)


def test_what_a_teacher_lacks(runs, tmp_path):
    with pytest.raises(NarError, match="holds no trained model: train it first"):
        distill(TINY, tmp_path / "nothing", None)
    data = DistilledData(teacher="nobody", original=TINY.data)
    with pytest.raises(NarError, match="python -m experiments distill nobody"):
        train(dataclasses.replace(TINY, data=data), tmp_path / "student", None)
    assert not (tmp_path / "student").exists()
    other = dataclasses.replace(TINY, max_length=50)
    with pytest.raises(NarError, match="max_length is 40 there and 50 here"):
        distill(other, runs / "tiny", None)


def test_what_a_teacher_wrote_of_other_text_or_as_another_model_is_refused(runs, tmp_path):
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    data = dataclasses.replace(TINY.data, sizes=(299, 20, 12))
    other = distilled(TINY, TINY, teacher=TINY)
    other = dataclasses.replace(other, data=dataclasses.replace(other.data, original=data))
    with pytest.raises(NarError, match="made of another text than the train text asked for"):
        train(other, tmp_path / "student", None)
    config = tmp_path / "tiny" / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(NarError, match="was written by the model .*move it away, and distill"):
        train(distilled(TINY, TINY, teacher=TINY), tmp_path / "student", None)


def test_the_command_line_distills(runs, capsys):
    with pytest.raises(NarError, match="shard='1': it must be I/N"):
        main(["distill", "grammar", "--run-dir", str(runs / "tiny"), "--shard", "1"])
    with pytest.raises(NarError, match="no trained model"):
        main(["distill", "grammar", "--run-dir", str(runs / "nothing"), "--shard", "0/2"])


def test_given_outputs_of_a_teacher_are_text_to_train_on(tmp_path):
    texts = {"a.en": "dog", "a.ref.de": "Hund", "a.model.de": "hund"}
    texts |= {"b.en": "cat", "b.ref.de": "Katze", "b.model.de": "katze"}
    (tmp_path / "given").mkdir()
    for name, text in texts.items():
        (tmp_path / "given" / name).write_text(f"{text}\n")
    data = FolderData(
        folder="given", source="en", target="ref.de", teacher_target="model.de",
        splits=("a", "a", "b"),
    )  # fmt: skip
    assert data.training == "distilled"
    assert dataclasses.replace(data, teacher_target=None).training == "raw"
    found = [data.open(split, tmp_path, tmp_path)[0] for split in ("train", "valid", "test")]
    assert found == [("dog", "hund"), ("dog", "hund"), ("cat", "Katze")]
    assert data.describe("train") == "given/a (en to model.de)"


# ------------------------------------------------------------------------------------- students
def test_a_parallel_student_begins_with_its_teachers_weights(runs, student):
    directory = runs / student.name
    teacher, model = load_model(runs / "tiny" / "model"), load_model(directory / "model")
    known, found = named_arrays(teacher), named_arrays(model)
    new = found.keys() - known.keys()
    assert {name.partition("/")[0] for name in new} == {"upsample"}
    chex.assert_trees_all_close(known, {name: found[name] for name in known}, atol=1e-8)
    assert (model.config.causal, model.config.upsample) == (False, 2)
    provenance = json.loads((directory / "provenance.json").read_text())
    weights = nar.load(runs / "tiny" / "model").weights
    assert provenance["start"] == {"experiment": "tiny", "weights": weights}
    assert provenance["teacher"] == {**provenance["start"], "decoder": repr(GREEDY)}
    assert json.loads((directory / "model" / "about.json").read_text())["training"] == "distilled"


def test_a_run_says_which_objective_it_has(runs, student):
    directory = runs / student.name
    config = json.loads((directory / "config.json").read_text())
    assert config["objective"] == {"name": "CTC", "glance": None}
    with pytest.raises(NarError, match="objective.name is 'CTC' there and 'Masked' here"):
        claim(directory, dataclasses.replace(student, objective=Masked()))


def test_a_run_from_before_there_were_other_objectives_keeps_its_directory(runs, tmp_path):
    config = json.loads((runs / "tiny" / "config.json").read_text())
    del config["objective"]["name"], config["model"]["upsample"], config["model"]["causal"]
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    claim(tmp_path, TINY)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(NarError, match="objective.name is 'CrossEntropy' there and 'CTC' here"):
        claim(tmp_path, dataclasses.replace(TINY, objective=CTC()))


def test_the_model_that_a_run_began_with_stays_the_same(runs, student, tmp_path):
    for name in ("tiny", student.name):
        shutil.copytree(runs / name, tmp_path / name)
    (tmp_path / student.name / "model" / "about.json").unlink()  # not finished
    config = tmp_path / "tiny" / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    rewrite(  # as if it had written its text again
        tmp_path / "tiny" / "distilled" / "provenance.json",
        lambda about: about | {"weights": nar.load(tmp_path / "tiny" / "model").weights},
    )
    with pytest.raises(NarError, match="teacher.weights is '.*' there and '.*' here"):
        train(student, tmp_path / student.name, None)
    rewrite(
        tmp_path / student.name / "provenance.json",
        lambda about: {name: about[name] for name in about if name != "teacher"},
    )
    with pytest.raises(NarError, match="start.weights is '.*' there and '.*' here"):
        train(student, tmp_path / student.name, None)


def test_a_student_has_its_teachers_vocabulary(runs, tmp_path):
    student = dataclasses.replace(distilled(TINY, TINY, teacher=TINY), start=None)
    corpus = student.data.open("train", None, runs)
    found = first_tokenizer(student, corpus, runs / student.name)
    assert found.fingerprint == Tokenizer.load(runs / "tiny" / "model").fingerprint


def test_a_start_that_does_not_fit_is_refused(runs, tmp_path):
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    train_text = TINY.data.open("train", None, runs)
    texts = [text for i in range(len(train_text)) for text in train_text[i]]
    tokenizer = Tokenizer.train(texts, vocab_size=200)
    tokenizer.save(tmp_path / "other" / "model")
    config = dataclasses.replace(TINY.model, vocab_size=tokenizer.vocab_size)
    model = Transformer(config, key=jax.random.key(0))
    save_model(tmp_path / "other" / "model", model)
    (tmp_path / "other" / "model" / "about.json").write_text("{}")

    student = parallel(TINY, "ctc", teacher=dataclasses.replace(TINY, name="other"))
    stranger = dataclasses.replace(distilled(TINY, student, teacher=TINY), start="other")
    with pytest.raises(NarError, match="start='other' has another vocabulary"):
        train(stranger, tmp_path / "stranger", None)
    wider = dataclasses.replace(stranger.model, d_ff=64)
    with pytest.raises(NarError, match="another shape: d_ff is 32 there and 64 here"):
        train(dataclasses.replace(stranger, model=wider), tmp_path / "wider", None)


# ------------------------------------------------------------------------------------- benchmark
def test_a_parallel_model_is_compared_with_its_teachers_greedy(runs, student, monkeypatch):
    monkeypatch.setattr(runner, "BASELINES", ("greedy",))
    report = bench(student, runs / student.name, None)
    assert [(row.model, row.decoder, row.training) for row in report.rows] == [
        ("tiny", "greedy", "raw"),
        (student.name, "ctc", "distilled"),
    ]
    greedy, ctc = report.rows
    assert (greedy.exact_match, ctc.exact_match) == (1, None)
    assert greedy.s1_speedup == pytest.approx(1)
    assert ctc.calls == 1
    assert ctc.predicted_speedup is not None


def test_decoders_of_runs_beside(runs, student, monkeypatch):
    names = {s.name: s.decoders for s in systems(TINY, runs / "tiny", beside=[runs / student.name],
                                                 full=False)}  # fmt: skip
    assert names == {"tiny": TINY.decoders, student.name: ("ctc",)}
    first, second = systems(student, runs / student.name, beside=[runs / "tiny"], full=False)
    assert (first.name, first.decoders) == ("tiny", ("greedy", "beam"))
    assert second.name == student.name


def test_in_full_a_student_and_its_teacher_help_each_other(runs, student):
    learn_language(student, student.data.open("train", None, runs), runs / student.name)
    for beside in ([], [runs / "tiny"], [runs / student.name / ".." / "tiny"]):
        first, second = systems(student, runs / student.name, beside=beside, full=True)
        assert first.decoders == ("greedy", "beam", "parallel-draft:base=(ctc)")
        assert second.decoders == (*student.decoders, *student.more)
        for system in (first, second):
            source = nar.Source.of([[7, 8, 3]])
            for decoder in system.make_decoders().values():
                decoder.check(system.translator.model, source)


def test_in_full_other_students_of_the_same_text_are_helped_too(runs, student):
    learn_language(student, student.data.open("train", None, runs), runs / student.name)
    other = still(distilled(TINY, parallel(TINY, "mask-predict", teacher=TINY), teacher=TINY))
    train(other, runs / other.name, None)
    *_, found = systems(student, runs / student.name, beside=[runs / other.name], full=True)
    assert (found.name, found.decoders) == (other.name, (*other.decoders, *other.more))
    for decoder in found.make_decoders().values():
        decoder.check(found.translator.model, nar.Source.of([[7, 8, 3]]))
    # A run without a language model has none to lend.
    *_, found = systems(other, runs / other.name, beside=[runs / student.name], full=True)
    assert (found.name, found.decoders) == (student.name, student.decoders)
    # What began with another model is not helped; a run from before there was `more` has none.
    about, config = (runs / other.name / name for name in ("provenance.json", "config.json"))
    before = json.loads(about.read_text())
    about.write_text(json.dumps({**before, "start": {"experiment": "tiny", "weights": "others"}}))
    *_, found = systems(student, runs / student.name, beside=[runs / other.name], full=True)
    assert found.decoders == other.decoders
    about.write_text(json.dumps(before))
    older = json.loads(config.read_text())
    del older["language"], older["more"]
    config.write_text(json.dumps(older))
    *_, found = systems(student, runs / student.name, beside=[runs / other.name], full=True)
    assert found.decoders == other.decoders


def test_a_deeper_student_has_its_teachers_layers_repeated(runs):
    """A deep encoder from a shallower one, each layer so often; of the decoder the first."""
    experiment = still(distilled(TINY, shaped(TINY, 4, 1), teacher=TINY))
    train(experiment, runs / experiment.name, None)
    taught, teacher = (
        named_arrays(load_model(runs / name / "model")) for name in (experiment.name, TINY.name)
    )
    depth = TINY.model.encoder_layers
    pairs = {f"encoder/layers/{i}/": f"encoder/layers/{i * depth // 4}/" for i in range(4)}
    pairs |= {"decoder/layers/0/": "decoder/layers/0/", "embedding/": "embedding/"}
    for ours, theirs in pairs.items():
        names = [name for name in taught if name.startswith(ours)]
        assert names
        for name in names:
            other = teacher[name.replace(ours, theirs)]
            chex.assert_trees_all_close(taught[name], other, atol=1e-6)


def test_what_has_another_shape_is_new(runs):
    """A start with another factor of upsampling, or other lengths, gives what fits alone."""
    factor = dataclasses.replace(TINY.model, upsample=2, bidirectional=True)
    model = Transformer(factor, key=jax.random.key(0))
    tripled = adapted(model, dataclasses.replace(factor, upsample=3), seed=1)
    assert tripled.upsample.weight[...].shape[0] == 3 * factor.d_model
    known, found = named_arrays(model), named_arrays(tripled)
    same = {name for name in found if found[name] is known[name]}
    assert {name for name in found if name not in same} == {"upsample/weight", "upsample/bias"}


def test_sources_whose_canvas_has_no_positions_are_refused_before_training(runs):
    student = still(parallel(TINY, "ctc", teacher=TINY))
    student = dataclasses.replace(student, model=dataclasses.replace(student.model, upsample=9))
    with pytest.raises(NarError, match=r"a source has \d+ tokens, and the model reads at most \d+"):
        train(student, runs / "long", None)


def test_a_language_model_of_another_order_is_another_file(runs):
    for order in (2, 3):
        one = dataclasses.replace(TINY, language=order)
        learn_language(one, TINY.data.open("train", None, runs), runs / TINY.name)
        assert (runs / TINY.name / f"{order}-gram.arpa").exists()

import dataclasses
import json
import pathlib
import shutil

import chex
import pytest

from experiments import run as runner
from experiments.__main__ import main
from experiments.registry import GRAMMAR, find, shaped
from experiments.run import bench, run, train
from experiments.runs import claim
from nar.bench.protocol import Protocol
from nar.bench.report import Report
from nar.errors import NarError, differences
from nar.training import OptimizerConfig, load_model
from nar.training.checkpoint import named_arrays

QUICK = Protocol(
    latency_sentences=2, latency_repeats=1, batch_sizes=(8,), batch_repeats=1, cost_repeats=1,
    width_multiple=64,
)  # fmt: skip
TINY = dataclasses.replace(
    GRAMMAR,
    name="tiny",
    data=dataclasses.replace(GRAMMAR.data, sizes=(300, 20, 12)),
    model=dataclasses.replace(GRAMMAR.model, d_model=16, d_ff=32, heads=2, decoder_layers=1),
    train=dataclasses.replace(GRAMMAR.train, steps=6, validate_every=3, checkpoint_every=3),
    decoders=("greedy", "jacobi:block=3"),
    more=("beam:beams=2",),
    protocol=QUICK,
    tokens_per_batch=1024,
    width_multiple=64,
    max_length=40,
)
SHALLOW = shaped(TINY, 1, 1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def report(directory):
    return run(TINY, directory, None)


def times(directory: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}


def test_a_run_trains_decodes_and_reports(directory, report):
    assert [row.decoder for row in report.rows] == list(TINY.decoders)
    assert report.rows[1].exact_match == 1
    assert (report.rows[0].training, report.rows[0].seed) == ("raw", 0)
    assert report.title == "tiny"
    for name in ("greedy", "jacobi_block-3"):
        assert len((directory / "outputs" / "tiny" / f"{name}.txt").read_text().splitlines()) == 12
    assert "<svg" in (directory / "report.html").read_text()


def test_a_run_says_what_it_was_made_of(directory, report):
    config = json.loads((directory / "config.json").read_text())
    assert config["train"]["optimizer"]["learning_rate"] == TINY.train.optimizer.learning_rate
    assert config["decoders"] == list(TINY.decoders)
    provenance = json.loads((directory / "provenance.json").read_text())
    assert provenance["data"]["test"] == report.data["fingerprint"]
    assert len(set(provenance["data"].values())) == 3
    assert len(provenance["code"]) == 1
    assert provenance["code"][0]["nar"]


def test_a_finished_run_is_not_repeated(directory, report, monkeypatch):
    monkeypatch.setattr(runner, "train_model", None)
    monkeypatch.setattr(runner, "publish", None)
    kept = ("model", "outputs", "checkpoints", "report.json", "report.html")
    before = {
        p: t for p, t in times(directory).items() if p.relative_to(directory).parts[0] in kept
    }
    assert run(TINY, directory, None) == Report.load(directory)
    assert before.items() <= times(directory).items()


def test_another_training_in_the_same_directory_is_refused(directory, report):
    other = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=7))
    for task in (run, train, bench):
        with pytest.raises(NarError, match="train.steps is 6 there and 7 here"):
            task(other, directory, None)


def test_settings_that_an_older_run_does_not_know_have_their_defaults(directory, report, tmp_path):
    config = json.loads((directory / "config.json").read_text())
    del config["start"], config["model"]["rope_theta"], config["train"]["accumulation"]
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    claim(tmp_path, TINY)
    (tmp_path / "config.json").write_text(json.dumps(config))
    other = dataclasses.replace(TINY, model=dataclasses.replace(TINY.model, rope_theta=5.0))
    with pytest.raises(NarError, match=r"model.rope_theta is 10000.0 there and 5.0 here"):
        claim(tmp_path, other)


def test_another_benchmark_is_refused_with_the_difference(directory, report):
    with pytest.raises(NarError, match=r"decoders.tiny is .*beam.*`bench` replaces it"):
        run(TINY, directory, None, full=True)
    other = dataclasses.replace(TINY, protocol=dataclasses.replace(QUICK, latency_sentences=3))
    with pytest.raises(NarError, match="protocol.latency_sentences is 2 there and 3 here"):
        run(other, directory, None)


def test_other_text_is_refused(directory, report, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(directory, copy)
    path = copy / "provenance.json"
    path.write_text(path.read_text().replace(report.data["fingerprint"], "0" * 8))
    with pytest.raises(NarError, match="data.test is '00000000' there"):
        run(TINY, copy, None)


@pytest.mark.rest
def test_models_of_other_runs_join_a_report(directory, report, tmp_path):
    other = tmp_path / "shallow"
    train(SHALLOW, other, None)
    copy = tmp_path / "run"
    shutil.copytree(directory, copy)
    found = bench(TINY, copy, None, beside=[other], full=True)
    assert [(row.model, row.decoder) for row in found.rows] == [
        ("tiny", "greedy"),
        ("tiny", "jacobi:block=3"),
        ("tiny", "beam:beams=2"),
        ("tiny_1-1", "greedy"),
        ("tiny_1-1", "beam"),
    ]
    assert len({row.weights for row in found.rows}) == 2
    assert found.rows[3].exact_match == 1  # with greedy on its own weights
    assert set(found.step_cost) == {"tiny", "tiny_1-1"}
    with pytest.raises(NarError, match="no trained model"):
        bench(TINY, copy, None, beside=[tmp_path / "nowhere"])
    with pytest.raises(NarError, match=r"decoders.tiny_1-1 is \['greedy', 'beam'\] there and None"):
        run(TINY, copy, None, full=True)
    with pytest.raises(NarError, match="several models are called tiny"):
        bench(TINY, copy, None, beside=[directory])


def test_a_training_begins_with_another_experiments_model(directory, report, tmp_path):
    shutil.copytree(directory, tmp_path / "tiny")
    still = dataclasses.replace(
        TINY.train, steps=1, optimizer=OptimizerConfig(learning_rate=1e-12, warmup=1)
    )
    model = dataclasses.replace(TINY.model, dropout=0.3)
    longer = dataclasses.replace(TINY, name="longer", start="tiny", model=model, train=still)
    train(longer, tmp_path / "longer", None)
    first = load_model(tmp_path / "tiny" / "model")
    second = load_model(tmp_path / "longer" / "model")
    assert (first.config.dropout, second.config.dropout) == (0.0, 0.3)
    chex.assert_trees_all_close(named_arrays(first), named_arrays(second), atol=1e-8)
    tokenizers = [tmp_path / name / "model" / "tokenizer.model" for name in ("tiny", "longer")]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()

    with pytest.raises(NarError, match="start='nothing': .* holds no trained model"):
        train(dataclasses.replace(longer, start="nothing"), tmp_path / "other", None)
    wider = dataclasses.replace(longer, model=dataclasses.replace(model, d_ff=64))
    with pytest.raises(NarError, match="another shape: d_ff is 32 there and 64 here"):
        train(wider, tmp_path / "wider", None)


def test_differences_are_named_with_their_path():
    assert list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4})) == [
        "a.c is 2 there and 3 here",
        "d is None there and 4 here",
    ]


def test_data_on_disk_needs_a_data_directory(tmp_path):
    with pytest.raises(NarError, match="--data-dir"):
        run(find("g2p"), tmp_path / "run", None)
    assert not (tmp_path / "run").exists()


def test_missing_files_are_named(tmp_path):
    with pytest.raises(NarError, match="cmudict_g2p"):
        run(find("g2p"), tmp_path / "run", pathlib.Path(tmp_path))


def test_a_benchmark_needs_a_trained_model(tmp_path):
    for path in (tmp_path, tmp_path / "new"):
        with pytest.raises(NarError, match="train it first"):
            bench(TINY, path, None)
    assert not any(tmp_path.iterdir())


def test_settings_that_cannot_be_trained_claim_no_directory(tmp_path):
    for wrong, message in (
        (dataclasses.replace(TINY, tokens_per_batch=8), "tokens_per_batch=8: a batch of 1 rows"),
        (dataclasses.replace(TINY, max_length=97), "max_length=97: the model has 96 positions"),
        (dataclasses.replace(TINY, bleu_tokenizer="mecab"), "BLEU's tokenizer='mecab': it must be"),
    ):
        with pytest.raises(NarError, match=message):
            train(wrong, tmp_path, None)
    train(TINY, tmp_path, None)
    with pytest.raises(NarError, match="max_length is 40 there and 97 here"):
        train(dataclasses.replace(TINY, max_length=97), tmp_path, None)


def test_the_command_line_lists_and_explains(capsys):
    assert main(["list"]) == 0
    assert "multi30k_en-de" in capsys.readouterr().out
    assert main(["trian"]) == 2
    assert "goes on where it was stopped" in capsys.readouterr().err


def test_tables_are_printed_and_written_into_documents(directory, report, tmp_path, capsys):
    assert main(["table", str(directory)]) == 0
    title, _, head, *_, last = capsys.readouterr().out.splitlines()
    assert "12 sentences" in title
    assert head.startswith("| decoder | BLEU |")
    assert last.startswith("| `jacobi:block=3` |")
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- report tiny -->\nold\n<!-- end -->\nafter\n")
    assert main(["table", str(directory), "--write", str(document)]) == 0
    assert f"{head}\n" in document.read_text()
    assert "old" not in document.read_text()
    with pytest.raises(NarError, match="missing"):
        main(["table", str(directory / "nowhere")])

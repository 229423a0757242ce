import dataclasses
import json
import pathlib

import pytest

from experiments.__main__ import main
from experiments.registry import EXPERIMENTS, GRAMMAR, find
from experiments.run import run
from nar.core import NarError

TINY = dataclasses.replace(
    GRAMMAR,
    data=dataclasses.replace(GRAMMAR.data, sizes=(300, 20, 12)),
    model=dataclasses.replace(GRAMMAR.model, d_model=16, d_ff=32, heads=2, decoder_layers=1),
    train=dataclasses.replace(GRAMMAR.train, steps=6, validate_every=3, checkpoint_every=3),
    decoders=("greedy", "beam:beams=2", "jacobi:block=3"),
    more=("jacobi:block=2,guess=source",),
    tokens_per_batch=1024,
    max_length=40,
    batch_size=8,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def rows(directory):
    return run(TINY, directory, None, full=False)


def test_a_run_trains_decodes_and_compares(directory, rows, capsys):
    assert [row.measurement.decoder for row in rows] == list(TINY.decoders)
    assert rows[2].measurement.equal_to_baseline == 1
    results = json.loads((directory / "results.json").read_text())
    assert [row["decoder"] for row in results["rows"]] == list(TINY.decoders)
    for name in ("greedy", "beam_beams-2", "jacobi_block-3"):
        assert len((directory / "outputs" / f"{name}.txt").read_text().splitlines()) == 12


def test_what_is_there_is_not_done_again(directory, rows):
    weights = {p: p.stat().st_mtime_ns for p in (directory / "model").iterdir()}
    again = run(TINY, directory, None, full=True)
    assert {p: p.stat().st_mtime_ns for p in (directory / "model").iterdir()} == weights
    assert [row.measurement.outputs for row in again[:3]] == [r.measurement.outputs for r in rows]
    assert again[3].measurement.decoder == TINY.more[0]


def test_another_run_in_the_same_directory_is_refused(directory, rows):
    other = dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, steps=7))
    with pytest.raises(NarError, match="train.steps is 6 there and 7 here"):
        run(other, directory, None, full=False)


def test_experiments_are_found_by_name_nearest_first():
    assert find("g2p").metric == "token_error"
    with pytest.raises(NarError, match="there are multi30k_en-de"):
        find("multi30k")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_compares_with_greedy(name):
    assert "greedy" in EXPERIMENTS[name].make_decoders(full=False)


def test_data_on_disk_needs_a_data_directory(tmp_path):
    with pytest.raises(NarError, match="--data-dir"):
        run(find("g2p"), tmp_path, None, full=False)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(NarError, match="cmudict_g2p"):
        run(find("g2p"), tmp_path / "run", pathlib.Path(tmp_path), full=False)


def test_the_command_line_lists_and_explains(capsys):
    assert main(["list"]) == 0
    assert "multi30k_en-de" in capsys.readouterr().out
    assert main(["train"]) == 2


def test_tables_in_markdown(directory, rows, capsys):
    assert main(["table", str(directory)]) == 0
    title, _, head, *_, last = capsys.readouterr().out.splitlines()
    assert "12 sentences, batches of 8" in title
    assert head.startswith("| decoder | BLEU |")
    assert last.startswith("| `jacobi:block=")
    with pytest.raises(NarError, match="missing"):
        main(["table", str(directory / "nowhere")])

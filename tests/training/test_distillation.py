import itertools
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

import nar.lines
from nar.decoders import Beam
from nar.errors import NarError
from nar.lines import Journal
from nar.training.distillation import distill, load_distilled
from tests.training.scribe import CORPORA, DECODER, Scribe

ROOT = pathlib.Path(__file__).parents[2]


ASKED = sorted(i for texts in CORPORA.values() for i, (text, _) in enumerate(texts) if text.strip())
SETTINGS = ("weights", "decoder", "batch_size", "sources")
EMPTY = "10 of 40 outputs of train are empty"


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(nar.lines, "WINDOW", 3)


def work(directory, translator=None, **options):
    """Whether the corpus is whole after this process."""
    options = {"corpora": CORPORA, "decoder": DECODER, "batch_size": 4, **options}
    teacher: Any = translator or Scribe()
    return distill(teacher, directory=directory, **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process leaves that was not disturbed."""
    directory = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nar.lines, "WINDOW", 3)
        with pytest.warns(UserWarning, match=EMPTY):
            assert work(directory)
    return contents(directory)


def test_a_corpus_in_a_teachers_words(whole, tmp_path):
    assert set(whole) == {"train.src", "train.tgt", "valid.src", "valid.tgt", "provenance.json"}
    assert whole["valid.src"] == b"z y\nx\nw v u\n"
    assert whole["valid.tgt"] == b"0ZY 0\n1X 0\n2WVU 0\n"
    sources = whole["train.src"].decode().splitlines()
    assert sources == [source for source, _ in CORPORA["train"]]
    for number, (source, target) in enumerate(
        zip(sources, whole["train.tgt"].decode().splitlines(), strict=True)
    ):
        letters = source.replace(" ", "").upper()
        assert target.startswith(f"{number}{letters}") if letters not in ("", "A") else not target
    record = json.loads(whole["provenance.json"])
    assert record["lines"] == {"train": 40, "valid": 3}
    assert record["empty"] == {"train": 10, "valid": 0}
    assert (record["weights"], record["decoder"]) == ("abc", repr(DECODER))
    assert len(set(record["sources"].values())) == 2


@pytest.mark.filterwarnings("ignore:10 of 40")
@pytest.mark.parametrize("patience", range(10))
def test_a_teacher_that_stops_goes_on_to_the_same_bytes(whole, tmp_path, patience):
    first, second = Scribe(patience=patience), Scribe()
    with pytest.raises(InterruptedError):
        work(tmp_path, first)
    with pytest.raises(NarError, match="holds no whole distilled corpus"):
        load_distilled(tmp_path, "train")
    assert work(tmp_path, second)
    assert len(first.done) == patience
    assert sorted(itertools.chain(*first.done, *second.done)) == ASKED
    assert contents(tmp_path) == whole


@pytest.mark.rest
@pytest.mark.filterwarnings("ignore:10 of 40")
def test_a_killed_process_goes_on_to_the_same_bytes(whole, tmp_path):
    command = [sys.executable, "-m", "tests.training.scribe", str(tmp_path)]
    process, journal = subprocess.Popen(command, cwd=ROOT), tmp_path / "train.0-of-1.journal"
    while process.poll() is None and not (
        journal.exists() and journal.read_bytes().count(b"\n") > 3
    ):
        time.sleep(0.01)
    process.kill()
    assert process.wait() < 0, "it ended before it was killed"
    assert not (tmp_path / "train.tgt").exists()
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    assert contents(tmp_path) == whole


def test_a_whole_corpus_is_not_made_again(whole, tmp_path):
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    again = Scribe()
    assert work(tmp_path, again)
    assert not again.done
    assert contents(tmp_path) == whole
    assert load_distilled(tmp_path, "valid")[1] == ("x", "1X 0")


@pytest.mark.filterwarnings("ignore:10 of 40")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_parts_together_are_the_same_bytes(whole, tmp_path, order):
    parts = [Scribe() for _ in order]
    found = [work(tmp_path, parts[i], shard=(i, 3)) for i in order]
    assert found == [False, False, True]
    assert contents(tmp_path) == whole
    assert sorted(itertools.chain(*(batch for part in parts for batch in part.done))) == ASKED


@pytest.mark.filterwarnings("ignore:10 of 40")
def test_a_part_that_still_works_is_waited_for(whole, tmp_path):
    assert not work(tmp_path, shard=(0, 2))
    settings = {k: json.loads(whole["provenance.json"])[k] for k in SETTINGS}
    with pytest.raises(InterruptedError):
        work(tmp_path, Scribe(patience=1), shard=(1, 2))
    with Journal(tmp_path / "train.1-of-2.journal", settings):
        assert not work(tmp_path, shard=(0, 2))
        with pytest.raises(NarError, match="another process is writing"):
            work(tmp_path, shard=(1, 2))
    assert work(tmp_path, shard=(1, 2))
    assert contents(tmp_path) == whole


OTHER = {**CORPORA, "valid": [("other", "?")]}


@pytest.mark.parametrize("interrupted", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"translator": Scribe("xyz")}, "weights is 'abc' there and 'xyz' here. Move it away"),
        ({"decoder": Beam(max_length=9)}, r"decoder is 'Greedy\(.* there and \"Beam\(.* here"),
        ({"batch_size": 5}, "batch_size is 4 there and 5 here"),
        ({"corpora": OTHER}, "sources.valid is '.*' there and '.*' here"),
    ],
)
def test_another_corpus_in_the_same_place_is_refused(whole, tmp_path, change, message, interrupted):
    if interrupted:
        with pytest.raises(InterruptedError):
            work(tmp_path, Scribe(patience=2))
    else:
        for name, content in whole.items():
            (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(NarError, match=message):
        work(tmp_path, **change)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_shards_that_there_are_not(tmp_path, shard):
    with pytest.raises(NarError, match="shard"):
        work(tmp_path, shard=shard)
    assert not contents(tmp_path)

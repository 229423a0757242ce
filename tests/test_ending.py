"""How commands end where something goes wrong: with one line."""

import io
import runpy
import sys

import pytest

from nar.ending import one_line_errors
from nar.errors import NarError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NarError("x=1:\n  it must be 2"), "error: x=1: it must be 2"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (OSError(13, "Permission denied", "a/b"), "error: a/b: Permission denied"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, line):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise error
    assert stop.value.code == line


def test_an_output_that_is_full_is_named(monkeypatch):
    """And Python does not try again when it ends."""
    full = io.TextIOWrapper(io.BufferedWriter(io.FileIO("/dev/full", "w")))
    monkeypatch.setattr(sys, "stdout", full)
    message = "^error: standard output: No space left on device$"
    with pytest.raises(SystemExit, match=message), one_line_errors():
        print("a line")
    full.close()


@pytest.mark.parametrize("command", ["train", "ambiguity"])
def test_a_folder_that_cannot_be_made(monkeypatch, tmp_path, command):
    (tmp_path / "file").write_text("")
    task = ["train", "grammar"] if command == "train" else ["ambiguity"]
    monkeypatch.setattr(sys, "argv", ["experiments", *task, "--run-dir", f"{tmp_path}/file/run"])
    with pytest.raises(SystemExit, match=f"^error: {tmp_path}/file/run.*: Not a directory$"):
        runpy.run_module("experiments", run_name="__main__")

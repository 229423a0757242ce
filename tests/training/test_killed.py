"""A real process that is killed several times ends with the parameters of one that was not."""

import json
import pathlib
import random
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def start(run_dir):
    command = [sys.executable, "-m", "tests.training.toy", str(run_dir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err.decode()
    return out


def checkpoints(run_dir):
    return [int(path.name) for path in (run_dir / "checkpoints").glob("*") if path.name.isdigit()]


def half_written(run_dir):
    return list((run_dir / "checkpoints").glob("*tmp*"))


def metrics(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    timed = ("tokens_per_second", "seconds_per_step")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


@pytest.mark.rest
def test_sigkill_at_any_moment(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    wanted = finish(start(whole))
    delay, caught = random.Random(0), 0
    for kill in range(4):
        process, before = start(killed), set(checkpoints(killed))
        while process.poll() is None and not set(checkpoints(killed)) - before:
            time.sleep(0.001)
        if kill % 2:  # while a checkpoint is being written
            while process.poll() is None and not half_written(killed):
                time.sleep(0.0002)
        else:  # at a random moment
            time.sleep(delay.uniform(0, 0.3))
        process.kill()
        process.communicate()
        caught += bool(half_written(killed))
        assert max(checkpoints(killed)) < 40, "it ended before it was killed"
    assert caught, "no kill fell into the writing of a checkpoint"
    assert finish(start(killed)) == wanted
    assert metrics(killed) == metrics(whole)

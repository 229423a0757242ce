import json
import struct

import pytest

from nar.training.metrics import Log, Metrics


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_writes_each_step_once(tmp_path):
    with Metrics(tmp_path) as metrics:
        for step in (1, 2, 3, 4):
            metrics.write(step, "train", {"loss": 1.0 / step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "split": "tr')  # killed while it wrote
    with Metrics(tmp_path, step=2) as metrics:
        metrics.write(3, "train", {"loss": 7.0})
    assert lines(tmp_path) == [
        {"step": 1, "split": "train", "loss": 1.0},
        {"step": 2, "split": "train", "loss": 0.5},
        {"step": 3, "split": "train", "loss": 7.0},
    ]


def write_some(run_dir, names):
    run_dir.mkdir()
    with Metrics(run_dir) as metrics:
        for step in range(9):
            metrics.write(step, "train", dict.fromkeys(names, 1.0))


def test_a_disk_that_is_full_is_named(tmp_path, small_files):
    """And nobody waits: TensorBoard's files are written here, not in a thread that dies of it."""
    write_some(tmp_path / "a", ["loss"])
    text = (tmp_path / "a" / "metrics.jsonl").stat().st_size
    assert all(path.stat().st_size >= text for path in (tmp_path / "a").iterdir())
    with small_files(text), pytest.raises(OSError, match=f"too large: '{tmp_path}/b'"):
        write_some(tmp_path / "b", ["loss"])
    with small_files(text), pytest.raises(OSError, match=f"large: '{tmp_path}/c/metrics.jsonl'"):
        write_some(tmp_path / "c", [f"name {number}" for number in range(text)])


def test_a_new_run_in_an_old_folder_starts_anew(tmp_path):
    for _ in range(2):
        with Metrics(tmp_path) as metrics:
            metrics.write(1, "train", {"loss": 1.0})
    assert len(lines(tmp_path)) == 1


def test_a_sum_is_reported_over_tokens_or_rows_or_as_the_count_that_it_is(tmp_path):
    sums = {"loss": 6.0, "tokens": 4, "impossible": 5}
    sums |= {"rows": 2, "length_nll": 3.0, "length_impossible": 1}
    with Log(tmp_path, 10, 0, 0, lambda step: 0.1, checkpoints=None) as log:
        for step in (1, 2):
            log.add(step, {**sums, "grad_norm": 2.0})
        assert log.write() == 8
        log.write_validation(2, [sums, sums])
    train, validation = lines(tmp_path)
    wanted = {"loss": 1.5, "impossible": 10, "rows": 4, "length_nll": 1.5, "length_impossible": 2}
    assert validation == {"step": 2, "split": "validation", **wanted}
    assert {name: train[name] for name in wanted} == pytest.approx(wanted)
    assert (train["tokens"], train["grad_norm"]) == (8, 2.0)


def fields(message):
    """The fields of a protocol buffer, decoded by hand: number, then int or bytes."""
    i = 0

    def varint():
        nonlocal i
        value = shift = 0
        while True:
            byte, i = message[i], i + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while i < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            yield number, message[i : i + size]
            i += size


def scalars(run_dir):
    """Step, tag and value in event files, as TensorBoard finds them there."""
    for path in sorted(run_dir.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:  # records: length, its checksum, content, its checksum
            (size,) = struct.unpack("<Q", data[:8])
            event, data = dict(fields(data[12 : 12 + size])), data[16 + size :]
            if 5 in event:  # a summary
                value = dict(fields(dict(fields(event[5]))[1]))
                yield event.get(2, 0), value[1].decode(), struct.unpack("<f", value[2])[0]


def test_tensorboard_finds_scalars(tmp_path):
    with Metrics(tmp_path) as metrics:
        metrics.write(10, "train", {"loss": 2.5, "grad_norm": 0.5})
        metrics.write(300, "validation", {"loss": 1.25})
    assert list(scalars(tmp_path)) == [
        (10, "train/loss", 2.5),
        (10, "train/grad_norm", 0.5),
        (300, "validation/loss", 1.25),
    ]

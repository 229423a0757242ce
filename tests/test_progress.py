import pytest

from nar.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_it_is_a_line_now_and_then(capsys, clock):
    with Progress(every=30) as progress:
        progress("step", 100, 400, "loss 2")
        clock[0] += 20
        progress("step", 150, 400, "loss 1.5")
        clock[0] += 40  # 60 seconds for 100 steps
        progress("step", 200, 400, "loss 1")
        clock[0] += 1
        progress("step", 400, 400)
    expected = "step 200/400, loss 1, 2.0 minutes left\nstep 400/400\n"
    assert capsys.readouterr() == ("", expected)


def test_short_work_says_nothing(capsys, clock):
    with Progress(every=30) as progress:
        for done in (1, 2, 3):
            progress("lines", done, 3)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_every_stage_has_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Progress(every=0) as progress:
        progress("first", 99, 1234, "some text")
        progress("second", 5, 6)
        progress.say("a line")
    out, err = capsys.readouterr()
    assert not out
    for text in ("99/1234", "some text", "5/6", "a line"):
        assert text in err
    assert "99/1234, some text" not in err


def test_hidden_it_shows_only_what_is_said(capsys, monkeypatch, clock):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with Progress(every=0, hidden=True) as progress:
        progress("lines", 1, 3)
        progress.say("a line")
    assert capsys.readouterr() == ("", "a line\n")

import contextlib
import io
import json
import os
import signal
import time
from types import SimpleNamespace

import jax
import pytest

from benchmarks import parts as running
from benchmarks.accelerator import LLAMA, SIZES, Options, main, plan
from benchmarks.device import innermost
from benchmarks.parts import Part, Stopped, run_parts
from nar.data.tokenizer import Tokenizer
from nar.model import Transformer
from nar.testing import random_model
from nar.training import save_model

TEXTS = ["a b c", "d", "e f g h", "b b"]
CTC = {"causal": False, "bidirectional": True, "upsample": 3, "blank": 5}


def folder(path, **config):
    """A model as experiments leave it."""
    tokenizer = Tokenizer.train(TEXTS, vocab_size=20, pieces="words")
    save_model(path, random_model(vocab_size=tokenizer.vocab_size, **config))
    tokenizer.save(path)
    return str(path)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command at its tiny size, with all that it can be given: what it wrote and printed."""
    path = tmp_path_factory.mktemp("accelerator")
    (path / "texts").write_text("\n".join(TEXTS))
    for name in ("causal", "ctc"):
        (path / name).mkdir()
    arguments = {
        "size": ["tiny"], "minutes": ["10"], "texts": [str(path / "texts")],
        "causal": [folder(path / "causal")], "ctc": [folder(path / "ctc", **CTC)],
        "decoders": ["jacobi:block=3", "ctc"], "output": [str(path / "new" / "results.json")],
        "profile": [str(path / "profile")],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main([word for name, values in arguments.items() for word in (f"--{name}", *values)])
    return json.loads((path / "new" / "results.json").read_text()), printed.getvalue()


@pytest.fixture(scope="module")
def found(command):
    """What was found, by part."""
    return {part["name"]: part["found"] for part in command[0]["parts"]}


def test_every_part_is_measured_and_printed(command):
    results, printed = command
    assert [(part["status"], part["why"]) for part in results["parts"]] == [("measured", None)] * 7
    assert results["machine"]["jax"] == jax.__version__
    for part in results["parts"]:
        assert f"| {part['name']} | {part['seconds']:.1f} | measured |" in printed
    for shape in (*SIZES["tiny"].shapes, *SIZES["tiny"].further):
        assert f"| {shape.name}, bfloat16 |" in printed
    assert "/new/results.json" in printed


def test_step_costs_are_over_one_position_and_beside_the_bandwidth(found):
    best = max(found["bandwidth"]["read"], found["bandwidth"]["copy"])
    assert min(found["bandwidth"].values()) > 0
    # Queries and outputs, keys and values, feed-forward, vocabulary.
    crossed = (2 + 2) * 16 * 16 + 2 * 16 * 16 + 2 * 16 * 32 + 32 * 16
    grouped = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32 + 32 * 16
    for name, size, rows in (
        ("1+1 d=16, bfloat16", 2 * crossed, 1),
        ("1+1 d=16, float32", 4 * crossed, 1),
        ("Llama d=16, 2 rows, bfloat16", 2 * grouped, 2),
    ):
        curve = found[f"step costs: {name}"]
        assert curve["weight_bytes"] == size
        assert curve["batch"] == rows
        assert curve["dtype"] == curve["config"]["dtype"] == name.split(", ")[-1]
        cost = curve["cost"]
        assert (cost["positions"], cost["over_one"][0]) == ([1, 2], 1)
        assert min(*cost["ms"], cost["dispatch_ms"], cost["begin_ms"], cost["floor_ms"]) > 0
        expected = size / (cost["ms"][0] / 1e3) / (best * 1e9)
        assert curve["share"][0] == pytest.approx(expected, rel=1e-3)


def test_weights_are_made_in_their_type_and_the_llama_has_a_billion():
    shape = SIZES["tiny"].further[0]
    made = jax.eval_shape(lambda: shape.model("bfloat16"))
    assert {str(x.dtype) for x in jax.tree.leaves(made)} == {"bfloat16"}
    whole = jax.eval_shape(lambda key: Transformer(LLAMA, key=key), jax.random.key(0))
    attention, forward = 2048 * (2048 + 2 * 512) + 2048 * 2048, 3 * 2048 * 8192
    layer = attention + forward + 2 * 2048
    count = 16 * layer + 2048 + 32_000 * 2048
    assert sum(x.size for x in jax.tree.leaves(whole)) == count
    assert 1.0e9 < count < 1.1e9


def test_trained_models_have_their_rows(found):
    greedy, jacobi, ctc = found["decoders: accelerator0/causal"]["rows"]
    assert [row["decoder"] for row in (greedy, jacobi)] == ["greedy", "jacobi:block=3"]
    assert jacobi["exact_match"] == 1
    assert jacobi["s1_speedup"] > 0
    assert jacobi["smax_batch"] == 2
    assert "a model trained to predict a canvas" in ctc["skipped"]
    greedy, ctc = found["ctc: accelerator0/ctc"]["rows"]
    assert (greedy["decoder"], ctc["decoder"]) == ("greedy", "ctc")
    assert ctc["calls"] == 1
    assert ctc["s1_ms_median"] > 0
    # Only texts of one padded width are decoded: here they all are.
    assert found["ctc: accelerator0/ctc"]["texts"] == len(TEXTS)


def test_a_profile_names_kernels(found):
    profile = found["profile"]
    assert profile["calls"] == 16
    assert profile["span_ms"] > 0
    assert profile["busy_ms"] > 0
    assert any(times == 16 for _, _, times in profile["kernels"])  # once a call


def test_what_runs_within_a_loop_is_counted_and_the_loop_is_not():
    events = [
        SimpleNamespace(name=name, start_ns=start, duration_ns=end - start)
        for name, start, end in (
            ("while", 0, 10), ("dot", 1, 4), ("end: dot", 4, 4), ("call", 4, 10), ("add", 5, 10),
            ("ThunkExecutor::Execute", 0, 30), ("dot", 10, 20), ("copy", 20, 30),
        )
    ]  # fmt: skip
    assert [event.name for event in innermost(reversed(events))] == ["dot", "add", "dot", "copy"]


# -------------------------------------------------------------------------------------- its parts
@pytest.fixture
def clock(monkeypatch):
    """A clock that only `after` moves."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def after(clock, name, seconds=0.0, expected=1.0, missing=None):
    """A part that takes so long, and finds what was found before it."""

    def run(known):
        clock.now += seconds
        return sorted(known)

    return Part(name=name, seconds=expected, run=run, missing=missing)


def failing(name, error):
    def run(known):
        raise error

    return Part(name=name, seconds=1, run=run)


def test_what_becomes_of_a_part_is_its_own_affair(clock):
    """A part that fails, lacks something or would take too long is named; the next one goes on."""
    saved = []
    out_of_memory = RuntimeError("RESOURCE_EXHAUSTED: 4 GB\n  were wanted")
    parts = [
        failing("large", out_of_memory),
        after(clock, "small"),
        after(clock, "ctc", missing="no --ctc folder was given"),
        after(clock, "long", expected=90),
        after(clock, "last"),
    ]
    outcomes = run_parts(parts, 60, saved.append)
    assert [(outcome.name, outcome.status, outcome.why) for outcome in outcomes] == [
        ("large", "failed", "RuntimeError: RESOURCE_EXHAUSTED: 4 GB were wanted"),
        ("small", "measured", None),
        ("ctc", "left out", "no --ctc folder was given"),
        ("long", "skipped", "it takes about 89 s, and 60 s are left"),
        ("last", "measured", None),
    ]
    assert outcomes[4].found == ["small"]
    # Saved before the first part and after each.
    reached = [sum(outcome.status != "not reached" for outcome in one) for one in saved]
    assert reached == [0, 1, 2, 3, 4, 5]


def test_estimates_learn_from_what_was_measured(clock):
    """After a minute that was expected to take twenty seconds, all takes half as long again."""
    parts = [after(clock, "first", seconds=60, expected=20)]
    parts += [after(clock, "second", expected=50), after(clock, "third", expected=40)]
    outcomes = run_parts(parts, 130, lambda _: None)
    assert [outcome.status for outcome in outcomes] == ["measured", "skipped", "measured"]
    assert outcomes[1].why == "it takes about 75 s, and 70 s are left"


def test_a_part_that_takes_too_long_is_given_up():
    slow = Part(name="slow", seconds=0, run=lambda _: time.sleep(5))
    outcomes = run_parts([slow, failing("next", AssertionError())], 0.1, lambda _: None)
    assert outcomes[0].why == "the time was over before it was done"
    assert outcomes[0].seconds < 4
    assert (outcomes[1].status, outcomes[1].why) == (
        "skipped", "it takes about 1 s, and 0 s are left",
    )  # fmt: skip


def test_sigterm_loses_the_part_in_progress_only(clock):
    saved = []
    stop = Part(name="stop", seconds=0, run=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        run_parts([after(clock, "first"), stop, after(clock, "last")], 60, saved.append)
    assert [outcome.status for outcome in saved[-1]] == ["measured", "not reached", "not reached"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_has_no_folder_is_left_out_and_named():
    missing = {part.name: part.missing for part in plan(Options(size="full")) if part.missing}
    assert missing == {
        "decoders: a trained model": "no --causal folder was given",
        "ctc: a trained model": "no --ctc folder was given",
        "profile": "no --profile folder was given",
    }


def test_some_parts_are_asked_for():
    asked = plan(Options(parts=("Llama 1B, float32", "profile")))
    kept = [part.name for part in asked if part.missing != "it is not among --parts"]
    assert kept == ["step costs: Llama 1B, float32", "profile"]


def test_without_time_nothing_is_measured_and_all_is_named(tmp_path, capsys):
    main(["--minutes", "0.001", "--output", str(tmp_path / "results.json")])
    results = json.loads((tmp_path / "results.json").read_text())
    assert {part["status"] for part in results["parts"]} == {"skipped", "left out"}
    printed = capsys.readouterr().out
    assert all(f"| {part['name']} |  | {part['status']} |" in printed for part in results["parts"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "--minutes 0: it must be above 0"),
        (["--causal", "nowhere"], "nowhere is no directory"),
        (["--ctc", "."], ". holds no saved model: there is no config.json"),
        (["--causal", "model"], "trained models need --texts"),
        (["--texts", "nowhere"], "--texts nowhere: there is no such file"),
        (["--causal", "model", "model"], "--causal: several folders are called here/model"),
        (["--decoders", "jacoby"], "there is no decoder 'jacoby'"),
        (["--parts", "marian"], "--parts marian: none is called so; there are bandwidth"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_any_work(arguments, message, tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "model").mkdir(parents=True)
    (here / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(here)
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--size", "tiny", "--output", "results.json"])
    assert str(stopped.value).startswith("error: ")
    assert message in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert sorted(path.name for path in here.iterdir()) == ["model"]

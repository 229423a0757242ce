import dataclasses
import json
import re

import jax
import numpy as np
import pytest

import nar
from nar.bench import step_cost as costing
from nar.bench import tune as tuning
from nar.bench.measure import Latency
from nar.bench.step_cost import StepCost
from nar.bench.tune import tune
from nar.bench.tune_page import answer, page, table, write_tuned
from nar.bench.tuned import Tuned, described
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError
from nar.testing import random_model
from nar.translator import Translator

TEXTS = ["a b c", "", "d a", "b", "c c a b"]
SPACE = {"jacobi": {"block": (3, 2, 200)}, "prompt-lookup": {"guesses": (2, 3), "ngram": (1,)}}
POSITIONS = (1, 2, 4, 8, 16, 32, 64, 128)


def curve(slope):
    """A device on which every further position costs `slope` of the first one's time."""
    ms = tuple(1 + slope * (n - 1) for n in POSITIONS)
    return StepCost(
        positions=POSITIONS, ms=ms, over_one=ms, over_one_spread=tuple((m, m) for m in ms),
        over_floor=(), floor_ms=None, begin_ms=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def translator():
    tokenizer = Tokenizer.train(["a b c d"], vocab_size=16, pieces="words")
    model = random_model(vocab_size=tokenizer.vocab_size)
    return Translator(model=model, tokenizer=tokenizer, weights="abc")


@pytest.fixture
def device(monkeypatch):
    """`device(slope)`: from then on, calls cost what that curve says, on a clock without noise."""

    def pretend(slope):
        cost = curve(slope)
        real = tuning.latency

        def latency(contenders, sample, programs, **options):
            found = real(contenders, sample, programs, **options)
            return {
                c: Latency([cost.predict(*one["target"]) for one in f.work], f.work)
                for c, f in found.items()
            }

        def rounds(*_, **__):
            yield 1, 1
            return cost

        monkeypatch.setattr(costing, "rounds", rounds)
        monkeypatch.setattr(tuning, "latency", latency)

    return pretend


def run(translator, **options):
    settings = {"max_length": 10, "finalists": 1, "repeats": 1, "space": SPACE, **options}
    return tune(translator, TEXTS, name="tiny", **settings)


def test_where_positions_are_free_the_fewest_calls_win(translator, device):
    device(0.0)
    tuned = run(translator)
    assert {trial.decoder for trial in tuned.trials} == {
        "jacobi:block=3", "jacobi:block=2", "prompt-lookup:guesses=2,ngram=1",
        "prompt-lookup:guesses=3,ngram=1",
    }  # fmt: skip
    sources = nar.Source.of(translator.encode([text for text in TEXTS if text]))
    for trial in tuned.trials:
        output = nar.decode(nar.make(trial.decoder, max_length=10), translator.model, sources)
        greedy = nar.decode(nar.Greedy(max_length=10), translator.model, sources)
        assert trial.calls == output.stats.live.mean()
        assert trial.exact_match == 1
        assert trial.tokens_per_call == pytest.approx(output.length.sum() / output.stats.live.sum())
        ratio = float(greedy.stats.live.mean() / output.stats.live.mean())
        assert trial.predicted == pytest.approx(ratio)
    best = min(tuned.measured, key=lambda trial: trial.calls)
    assert best.s1_speedup == pytest.approx(best.predicted)
    assert len(tuned.measured) == 2  # the best of every family, whatever `finalists` says
    assert tuned.best == best
    assert tuned.decoder == (best.decoder if best.s1_speedup_ci[0] > 1 else "greedy")
    assert answer(tuned)[0].startswith("Yes" if tuned.decoder != "greedy" else "No")


@pytest.mark.rest
def test_trees_are_grown_from_measured_acceptances(translator, device):
    device(0.0)
    tuned = run(translator, space={"self-speculative": {"layers": (1,), "guesses": (2,)}})
    trees = [t.decoder for t in tuned.trials if "branches" in t.decoder]
    assert len(trees) >= 2
    made = [nar.make(decoder, max_length=10).drafter.parents for decoder in trees]
    assert {len(parents) - 1 for parents in made} <= set(tuning.TREES)
    assert all(trial.exact_match == 1 for trial in tuned.trials)


def test_what_a_model_lacks_is_not_tried(translator, device):
    device(0.0)
    space = {**SPACE, "speculative": {"guesses": (2,)}, "corpus-lookup": {"guesses": (2,)}}
    families = {trial.decoder.partition(":")[0] for trial in run(translator, space=space).trials}
    assert families == set(SPACE)


def test_where_positions_cost_greedy_wins(translator, device):
    device(1.0)
    tuned = run(translator)
    assert tuned.decoder == "greedy"
    assert tuned.best.s1_speedup < 1
    first, why, _ = answer(tuned)
    assert first.startswith(
        f"No: use greedy. The best parallel decoder, {tuned.best.decoder}, is 0."
    )
    price = float(re.search(r"cost (\S+) times", why)[1])
    assert price == pytest.approx(tuned.best.positions_per_call, rel=0.01)
    assert f"more than {price:.2f} tokens a call" in why


@pytest.mark.rest
def test_on_a_real_clock(translator):
    tuned = run(translator, space={"jacobi": {"block": (2,)}})
    assert tuned.greedy_ms > 0
    assert tuned.trials == tuned.measured == [tuned.best]
    assert tuned.step_cost["positions"][-1] == 128


def test_files(translator, device, tmp_path):
    device(0.0)
    tuned = run(translator)
    path, html = write_tuned(tuned, tmp_path / "new")
    back = Tuned.load(path)
    assert [trial.decoder for trial in back.trials] == [trial.decoder for trial in tuned.trials]
    assert back.decoder == tuned.decoder
    assert np.isclose(back.best.predicted, tuned.best.predicted, rtol=1e-4)
    text = html.read_text()
    assert "<svg" in text
    assert "$" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert all(trial.decoder in text for trial in tuned.trials)
    assert len(table(tuned).lines) == len(tuned.trials)
    assert page(back).startswith("<!doctype html>")


def test_decoders_are_made_from_the_file(translator, device, tmp_path):
    device(0.0)
    tuned = dataclasses.replace(run(translator), decoder="jacobi:block=3")
    path, _ = write_tuned(tuned, tmp_path)
    assert translator.make_decoder(str(path), 10) == nar.Jacobi(block=3, max_length=10)
    assert described("greedy", "abc") == "greedy"
    with pytest.raises(NarError, match=r"tuned for tiny \(weights abc\): these weights are other"):
        described(str(path), "other")
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "machine": {**found["machine"], "device": "an abacus"}}))
    with pytest.warns(UserWarning, match="tuned on an abacus"):
        described(str(path), "abc")


def test_the_answer_is_about_the_decoder_of_the_file(translator, device):
    """The fastest in the mean may not be surely faster than greedy."""
    device(0.0)
    tuned = run(translator)
    trial = dataclasses.replace(tuned.best, s1_speedup=1.2, s1_speedup_ci=(1.1, 1.3))
    unsure = dataclasses.replace(trial, decoder="x", s1_speedup=1.3, s1_speedup_ci=(0.9, 1.6))
    sure = dataclasses.replace(tuned, trials=[unsure, trial], decoder=trial.decoder)
    assert sure.best == trial
    assert answer(sure)[0].startswith(f"Yes: {trial.decoder} is 1.20 times")
    none = dataclasses.replace(sure, decoder="greedy")
    assert none.best == unsure
    assert answer(none)[0].startswith("No: use greedy")


@pytest.mark.rest
def test_texts_up_to_the_last_position():
    """Greedy has room for 7 tokens; what drafts has less, and padding must not take more."""
    tokenizer = Tokenizer.train(["a b c d"], vocab_size=16, pieces="words")
    model = random_model(encoder=False, vocab_size=tokenizer.vocab_size, max_positions=18)
    translator = Translator(model=model, tokenizer=tokenizer, weights="abc")
    texts = ["a b c d a b", "a"]
    options = {"max_length": 11, "finalists": 1, "repeats": 1}
    tuned = tune(translator, texts, space={"jacobi": {"block": (2,)}}, **options)
    assert tuned.trials[0].exact_match == 1
    with pytest.raises(NarError, match="text 2 has 8 tokens: at most 7 fit"):
        tune(translator, ["a", "a b c d a b c"], **options)


def test_bad_input(translator, tmp_path):
    with pytest.raises(NarError, match="there are no texts"):
        tune(translator, ["", " "])
    with pytest.raises(NarError, match="sentences=0"):
        tune(translator, TEXTS, sentences=0)
    with pytest.raises(NarError, match="is missing: `nar tune` writes"):
        described(str(tmp_path / "tuned.json"), "abc")
    for text in ("{", "[]", '{"version": 1}', '{"version": 9}'):
        (tmp_path / "tuned.json").write_text(text)
        with pytest.raises(NarError, match="not what `nar tune` writes|of version 9"):
            described(str(tmp_path / "tuned.json"), "abc")


def test_a_model_that_has_no_numbers(translator, device):
    device(0.0)
    lost = jax.tree.map(lambda x: x, translator.model)
    table = lost.source_embedding.table
    table[...] = table[...].at[translator.tokenizer.encode(["d"])[0][0]].set(np.nan)
    with pytest.raises(NarError, match="greedy: the model's logits are NaN for 1 of the texts"):
        tune(dataclasses.replace(translator, model=lost), TEXTS, name="m", max_length=8)

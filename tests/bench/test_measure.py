import dataclasses
import json

import jax
import numpy as np
import pytest

import nar
from nar.bench.benchmark import bench
from nar.bench.measure import Contender, Work, first_difference, largest_gap, work_by_row
from nar.bench.protocol import ABOUT, Protocol, System, _entries
from nar.bench.step_cost import up_to
from nar.data.tokenizer import Tokenizer
from nar.drivers import flops
from nar.errors import NarError
from nar.testing import oracles, random_model
from nar.training import save_model

CORPUS = [
    ("a b c", "x y z"),
    ("d", "y"),
    ("e f g h a b c d e", "z z x y"),
    ("b b", "x"),
    ("g c a", "y z"),
    ("h h h a", "x x"),
    ("c", "z"),
]
DECODERS = (
    "jacobi:block=3",
    "jacobi:oracle_length=true",
    "beam:beams=2",
    "sample",
)
QUICK = Protocol(
    latency_sentences=3, latency_repeats=2, batch_sizes=(2, 4), batch_repeats=1, cost_repeats=2,
    examples=2, width_multiple=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    texts = [text for pair in CORPUS for text in pair]
    return Tokenizer.train(texts, vocab_size=40, pieces="words")


def translator(tokenizer, **config):
    model = random_model(vocab_size=tokenizer.vocab_size, seed=3, **config)
    return nar.Translator(model=model, tokenizer=tokenizer, weights=f"id-{config}")


@pytest.fixture(scope="module")
def systems(tokenizer):
    deep = System(
        name="deep", translator=translator(tokenizer), decoders=DECODERS, max_length=10,
        training="raw", seed=1,
    )  # fmt: skip
    other = translator(tokenizer, encoder_layers=2)
    return [deep, System(name="other", translator=other, decoders=("greedy",), max_length=10)]


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture(scope="module")
def report(systems, kept):
    return bench(
        systems, CORPUS, title="tiny", data="seven lines", protocol=QUICK,
        keep=lambda row, outputs: kept.update({(row.model, row.decoder): outputs}),
    )  # fmt: skip


def alone(system, decoder):
    """What a decoder writes for each sentence by itself, and the calls it makes."""
    model = system.translator.model
    outputs, calls = [], []
    for source in system.translator.encode([text for text, _ in CORPUS]):
        output = nar.decode(decoder, model, nar.Source.of([source], width=16))
        outputs.append(np.asarray(output.tokens)[0, : int(output.length[0])].tolist())
        calls.append(int(output.stats.live[0]))
    return outputs, calls


def test_every_decoder_has_its_row_the_baseline_first(report):
    names = [("deep", "greedy"), *(("deep", name) for name in DECODERS), ("other", "greedy")]
    assert [(row.model, row.decoder) for row in report.rows] == names
    assert all(row.skipped is None for row in report.rows)
    assert (report.rows[0].training, report.rows[0].seed) == ("raw", 1)
    assert report.rows[5].training == "unknown"
    assert report.rows[0].architecture == "1-2 d=32"
    assert report.rows[0].weights != report.rows[5].weights


def test_outputs_that_broke_off_are_counted_by_sentence():
    decoder, model = nar.Greedy(max_length=4), random_model()
    table = model.source_embedding.table[...].at[9].set(np.nan)
    model = jax.tree.map(lambda x: table if x is model.source_embedding.table[...] else x, model)
    output = nar.decode(decoder, model, nar.Source.of([[5], [9], [6, 9], [9]]))
    work = Work()
    work.add([7, 2, 4], output)  # the last row only fills the shape
    assert work.failed == [2, 4]
    assert len(work.outputs[7]) > len(work.outputs[2]) == 0


def test_outputs_are_in_the_order_of_the_sentences(systems, report, kept):
    for system in systems:
        outputs, _ = alone(system, nar.Greedy(max_length=10))
        assert kept[system.name, "greedy"] == system.translator.tokenizer.decode(outputs)


def test_the_work_is_counted_a_sentence(systems, report):
    greedy, block, oracle, beam, sample, _ = report.rows
    outputs, calls = alone(systems[0], nar.Greedy(max_length=10))
    assert greedy.calls == pytest.approx(np.mean(calls))
    assert greedy.tokens_per_call == 1
    assert greedy.positions == greedy.calls
    assert greedy.accepted == [0, sum(map(len, outputs))]
    _, calls = alone(systems[0], nar.Jacobi(block=3, max_length=10))
    assert block.calls == pytest.approx(np.mean(calls))
    assert block.positions == pytest.approx(3 * block.calls)
    tokens = sum(n * count for n, count in enumerate(block.accepted))
    assert tokens == sum(map(len, outputs))
    assert sum(block.accepted) == sum(calls)
    assert beam.positions == pytest.approx(2 * beam.calls)
    assert sample.positions == sample.calls
    assert [row.oracle_length for row in report.rows] == [False, False, True, False, False, False]
    assert oracle.calls <= greedy.calls


def test_lossless_decoders_equal_greedy_on_their_own_weights(report):
    for i in (0, 1, 2, 5):
        assert report.rows[i].exact_match == 1
        assert report.rows[i].first_difference_gap is None
    assert report.rows[3].first_difference_gap is None  # beam does not promise anything
    assert report.rows[4].exact_match < 1


def test_speed_is_over_the_first_row(report):
    first = report.rows[0]
    assert (first.s1_speedup, first.smax_speedup, first.predicted_speedup) == (1, 1, 1)
    assert first.s1_speedup_ci == (1, 1)
    for row in report.rows:
        assert 0 < row.s1_ms_median <= row.s1_ms_p95
        low, high = row.s1_speedup_ci
        assert low <= row.s1_speedup <= high
        assert row.smax_speedup == pytest.approx(
            row.smax_sentences_per_s / first.smax_sentences_per_s
        )
        low, high = row.smax_speedup_spread
        assert low <= row.smax_speedup * (1 + 1e-9)
        assert row.smax_speedup <= high * (1 + 1e-9)
        assert row.smax_batch in QUICK.batch_sizes
        assert row.compile_s > 0
        assert row.predicted_speedup > 0


def test_the_program_is_counted(systems, report):
    """Weights are held; a block of three costs about three times the products of one position."""
    greedy, block, *_ = report.rows
    model = systems[0].translator.model
    size = sum(x.nbytes for x in jax.tree.leaves(model)) / 1e6
    assert size < greedy.peak_memory_mb < 20 * size
    source = nar.Source.of([[5, 6, 7]])
    _, one = flops(nar.Greedy(max_length=10), model, source)
    _, three = flops(nar.Jacobi(block=3, max_length=10), model, source)
    assert 2 < three / one < 4
    assert block.flops_per_sentence > greedy.flops_per_sentence
    # Two flops a weight of every product that a step makes is the least.
    products = [x.size for x in jax.tree.leaves(model.decoder) if x.ndim == 2]
    assert one > 2 * sum(products) / 2


def test_the_step_cost_curve_reaches_every_decoder(systems, report):
    assert set(report.step_cost) == {"deep", "other"}
    assert report.step_cost["deep"]["positions"] == (1, 2, 4, 8, 16, 32)
    assert report.step_cost["deep"]["over_one"][0] == 1
    assert report.step_cost["deep"]["floor_ms"] > 0
    assert up_to(70) == (1, 2, 4, 8, 16, 32, 64, 70)


def test_examples_hold_an_output_of_every_row(report, kept):
    assert [example["source"] for example in report.examples] == ["a b c", "c"]
    for row, output in zip(report.rows, report.examples[1]["outputs"], strict=True):
        assert output == kept[row.model, row.decoder][-1]


def test_what_a_model_lacks_is_said_and_the_rest_goes_on(tokenizer, monkeypatch):
    class Masked(nar.Greedy):
        @property
        def needs(self):
            return {"target": nar.Needs(causal=True, draft_heads=4)}

    monkeypatch.setitem(nar.DECODERS, "masked", Masked)
    monkeypatch.setattr("nar.bench.protocol.flops", lambda *_: (0.0, 0.0))  # as on a GPU
    system = System(
        name="deep", translator=translator(tokenizer), decoders=("masked", "jacobi:block=3"),
        max_length=10,
    )  # fmt: skip
    quick = dataclasses.replace(QUICK, cost_repeats=0)
    found = bench([system], CORPUS, title="t", data="d", protocol=quick, language="zh_CN")
    assert (found.tokenizer, [row.failed for row in found.rows]) == ("zh", [0, None, 0])
    assert [bool(row.skipped) for row in found.rows] == [False, True, False]
    assert "draft_heads" in found.rows[1].skipped or "draft heads" in found.rows[1].skipped
    assert found.rows[1].bleu is None
    assert [example["outputs"][1] for example in found.examples] == [None, None]
    assert found.step_cost == {}
    assert found.rows[2].predicted_speedup is None
    assert found.rows[2].flops_per_sentence is None


def test_unknown_decoders_are_refused_before_anything_runs(tokenizer):
    system = System(name="x", translator=translator(tokenizer), decoders=("jacoby",))
    with pytest.raises(NarError, match="there is no decoder 'jacoby'; there are jacobi"):
        bench([system], CORPUS, title="t", data="d")
    with pytest.raises(NarError, match="no systems"):
        bench([], CORPUS, title="t", data="d")
    with pytest.raises(NarError, match="BLEU's tokenizer='mecab': it must be one of"):
        bench([system], CORPUS, title="t", data="d", tokenizer="mecab")


@pytest.mark.parametrize(
    "bad", [{"batch_sizes": ()}, {"batch_sizes": (0,)}, {"latency_sentences": 0}, {"seed": -1}]
)
def test_a_protocol_must_measure_something(bad):
    with pytest.raises(NarError, match=next(iter(bad))):
        Protocol(**bad)


def test_a_system_is_read_with_what_is_known_of_its_training(tokenizer, tmp_path):
    save_model(tmp_path, random_model(vocab_size=tokenizer.vocab_size))
    tokenizer.save(tmp_path)
    found = System.load(tmp_path, ["beam"])
    assert (found.name, found.training, found.seed) == (tmp_path.name, "unknown", None)
    assert found.max_length == 64  # as many positions as the model has
    about = {"name": "mine", "training": "distilled", "seed": 4, "max_length": 9}
    (tmp_path / ABOUT).write_text(json.dumps(about))
    found = System.load(tmp_path, ["beam"])
    assert (found.name, found.training, found.seed, found.max_length) == tuple(about.values())
    assert list(found.make_decoders()) == ["greedy", "beam"]


# -------------------------------------------------------------------------------------- exactness
@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [([1, 2, 3], [1, 2, 3], None), ([1, 4], [1, 2, 3], 1), ([1], [1, 2], 1), ([1, 2], [1], 1)],
)
def test_the_first_difference(ours, theirs, place):
    assert first_difference(np.array(ours), np.array(theirs)) == place


def test_the_gap_is_that_of_the_two_best_logits_where_outputs_part():
    model = random_model()
    sources = [[5, 6, 7], [8, 9]]
    contender = Contender(decoder=nar.Greedy(max_length=8), model=model, sources=sources)
    greedy = Work(outputs={i: np.array([5, 6, 7, 3]) for i in range(2)})
    ours = Work(outputs={0: np.array([5, 6, 8, 3]), 1: np.array([5, 6, 7, 3])})
    source, tokens = nar.Source.of(sources[:1]), np.array([[5, 6, 7, 3]])
    logits = np.sort(np.asarray(oracles.teacher_forced(model, source, tokens))[0, 2])
    assert largest_gap(contender, ours, greedy) == pytest.approx(logits[-1] - logits[-2], abs=1e-4)
    assert largest_gap(contender, greedy, greedy) is None


# ------------------------------------------------------------------------------- what is measured


def test_a_row_speaks_of_the_models_that_its_decoder_needs(tokenizer):
    target, draft = (translator(tokenizer, decoder_layers=n) for n in (2, 1))
    both = dataclasses.replace(
        target, model=nar.Bundle.of(target=target.model, draft=draft.model), weights="t+d",
        ids={"target": "t", "draft": "d"},
    )  # fmt: skip
    system = System(name="m", translator=both, decoders=("speculative",), max_length=10)
    greedy, speculative = (entry.row() for entry in _entries(system, ["a b", "c"], QUICK))
    sizes = [sum(x.size for x in jax.tree.leaves(one.model)) for one in (target, draft)]
    assert (greedy.weights, greedy.parameters) == ("t", sizes[0])
    assert (speculative.weights, speculative.parameters) == ("t+d", sum(sizes))


def test_another_length_is_no_comparison(tokenizer):
    system = System(
        name="m", translator=translator(tokenizer), decoders=("jacobi:max_length=4",), max_length=10
    )
    with pytest.raises(
        NarError, match=r"max_length=4: it writes at most 4 tokens and m's others 10"
    ):
        _entries(system, ["a b"], QUICK)


def test_prompts_that_just_fit_are_measured(tokenizer):
    model = translator(tokenizer, encoder=False, max_positions=40)
    system = System(name="m", translator=model, decoders=(), max_length=10)
    fits = model.encode(["a " * 29])
    assert len(fits[0]) == 30
    (entry,) = _entries(system, ["a " * 29, "b"], QUICK)
    assert entry.contender
    with pytest.raises(NarError, match="source 1 has 31 tokens: longer than max_length=30"):
        _entries(system, ["b", "a " * 30], QUICK)


@pytest.mark.rest
def test_the_work_of_a_loop_in_a_loop_is_not_in_the_program(tokenizer):
    canvas = random_model(
        vocab_size=tokenizer.vocab_size, causal=False, bidirectional=True, length_classes=8
    )
    both = nar.Bundle.of(target=canvas, reranker=translator(tokenizer).model)
    model = nar.Translator(model=both, tokenizer=tokenizer, weights="")
    names = [f"noisy-parallel:base=(mask-predict:calls={calls})" for calls in (1, 2)]
    reader = System(name="m", translator=translator(tokenizer), decoders=(), max_length=10)
    system = System(name="n", translator=model, decoders=tuple(names), max_length=10)
    found = bench([reader, system], CORPUS, title="t", data="d", protocol=QUICK)
    _, one, two = found.rows
    assert one.flops_per_sentence > 0
    assert two.flops_per_sentence is None


def test_nobody_tells_an_oracle_where_there_is_no_greedy(tokenizer):
    model = translator(tokenizer, causal=False, bidirectional=True, length_classes=8)
    names = ("mask-predict", "mask-predict:oracle_length=true")
    system = System(name="canvas", translator=model, decoders=names, max_length=10)
    entries = _entries(system, ["a b", "c"], QUICK)
    assert [entry.contender is None for entry in entries] == [False, True]
    assert "the model is not causal" in entries[1].skipped


def test_the_work_of_a_row_is_what_it_needed():
    model = random_model()
    source = nar.Source.of([[5, 6, 7], [8]])
    decoder = nar.SelfSpeculative(max_length=8, guesses=2)
    together = work_by_row(nar.decode(decoder, model, source))
    for row in range(2):
        alone = nar.decode(
            decoder, model, jax.tree.map(lambda x, row=row: x[row : row + 1], source)
        )
        stats = alone.stats
        for name, (calls, positions) in together[row].items():
            assert calls == int(stats.calls[name])
            assert positions == int(stats.positions[name][0])
    assert together[0].keys() == {"target", "draft"}

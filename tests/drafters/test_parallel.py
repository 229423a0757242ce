"""A parallel model's draft: how it is followed, moved and refreshed."""

import jax.numpy as jnp
import numpy as np
import pytest

from nar import (
    Bundle,
    CTCBeam,
    Greedy,
    IncompatibleModel,
    NarError,
    NoisyParallel,
    ParallelDraft,
    Source,
    decode,
    make,
)  # fmt: skip
from nar.decoders import CTC, MaskPredict
from nar.testing import check_decoder, oracles, random_model
from nar.testing.toys import Scripted
from tests.cases import random_canvas_model
from tests.language import random_language

MOST = 12


def choices(model, source, tokens):
    """The model's own choice for every place of one row, and for the one after them."""
    padded = np.full((1, MOST + 9), 6)
    padded[0, : len(tokens)] = tokens
    return np.asarray(oracles.teacher_forced(model, source, padded))[0].argmax(-1)


def aligned(draft, written, at, decoder):
    """Where the draft goes on near `at` after the tokens written, or None."""
    best = None
    for place in sorted(
        range(at - decoder.reach, at + decoder.reach + 1), key=lambda p: abs(p - at)
    ):
        same = 0
        while (
            same < min(decoder.suffix, len(written), place)
            and place - 1 - same < len(draft)
            and draft[place - 1 - same] == written[-1 - same]
        ):
            same += 1
        if same and (best is None or same > best[0]):
            best = same, place
    return best and best[1]


def simulate(decoder, model, source, draft):
    """What one row writes, in how many calls, and how often the draft was moved and refreshed."""
    draft, written, at, calls = list(draft), [], 0, 0
    seen = {"moved": 0, "refreshed": 0}
    while True:
        guesses = draft[at : at + decoder.guesses]
        best = choices(model, source, written + guesses)[len(written) :]
        right = 0
        while right < len(guesses) and guesses[right] == best[right]:
            right += 1
        new = [*guesses[:right], int(best[right])]
        new = new[: new.index(model.spec.eos) + 1] if model.spec.eos in new else new
        written, calls = (written + new)[:MOST], calls + 1
        if model.spec.eos in written or len(written) == MOST:
            return written, calls, seen
        at += len(new)
        if at - 1 < len(draft) and draft[at - 1] == written[-1]:
            continue
        place = aligned(draft, written, at, decoder)
        if place is not None:
            seen["moved"] += place != at
            at = place
            continue
        for i in range(right + 1, len(guesses) + 1):
            where = at - len(new) + i
            draft[where : where + 1] = [int(best[i])]
            seen["refreshed"] += 1


@pytest.mark.parametrize("suffix", [1, 3])
def test_a_simulation_makes_as_many_calls(suffix):
    decoder = ParallelDraft(max_length=MOST, guesses=4, suffix=suffix, reach=2)
    random = np.random.default_rng(0)
    rows = [random.integers(6, 13, n).tolist() for n in (6, 5, 4, 6, 3, 6, 2, 6)]
    totals = {"moved": 0, "refreshed": 0}
    for seed in range(3):
        model, draft = random_model(seed=seed), random_canvas_model(CTC(), seed=seed)
        source = Source.of(rows)
        drafts = decode(CTC(max_length=MOST), draft, source)
        output = decode(decoder, Bundle.of(target=model, draft=draft), source)
        for row, sentence in enumerate(rows):
            guesses = drafts.tokens[row, : drafts.length[row]].tolist()
            one = Source.of([sentence], width=6)
            written, calls, seen = simulate(decoder, model, one, guesses)
            assert output.tokens[row, : output.length[row]].tolist() == written
            assert output.stats.live[row] == calls
            totals = {name: totals[name] + n for name, n in seen.items()}
    assert min(totals.values()) > 0  # otherwise nothing was tested


@pytest.mark.parametrize(
    ("edit", "calls"),
    [
        (lambda row: row, 3),  # 12 tokens, 4 guesses and one of the target's own a call
        (lambda row: [*row[:2], 22, *row[3:]], 3),  # 3 tokens, 5, 4
        (lambda row: [*row[:2], 22, *row[2:]], 3),  # the third token moves the draft
        (lambda row: row[:2] + row[3:], 4),  # 3 tokens; 3 with the target's choices; 1 that moves
        (lambda row: [22, 23] * 6, 4),  # 1 token, 5 with the target's choices, and so again
    ],
)
def test_edits_cost_a_call(edit, calls):
    """Drafts with a wrong, a surplus or a missing token, and one with none that is right."""
    text = [*range(6, 17), 3]
    source = Source.of([[5] * 6])
    target = Scripted(random_model(vocab_size=24), jnp.array([text]), jnp.array([11]))
    parallel = random_canvas_model(CTC(), vocab_size=24)
    script = jnp.array([[*edit(text), *[3] * 12]])
    draft = Scripted(parallel, script, jnp.array([11]))
    decoder = ParallelDraft(max_length=MOST, guesses=4)
    output = decode(decoder, Bundle.of(target=target, draft=draft), source)
    assert output.tokens[0].tolist() == text
    assert output.stats.live[0] == calls


def test_the_work_of_the_draft_is_counted_once():
    model, draft = random_model(seed=1), random_canvas_model(MaskPredict(), seed=1)
    base = MaskPredict(calls=3, lengths=2)
    source = Source.of([[5, 9, 7, 8], [6, 6]])
    output = decode(
        ParallelDraft(max_length=MOST, base=base, guesses=3),
        Bundle.of(target=model, draft=draft),
        source,
    )
    alone = decode(MaskPredict(max_length=MOST, calls=3, lengths=2), draft, source)
    assert output.stats.calls["draft"] == alone.stats.calls["target"]
    np.testing.assert_array_equal(output.stats.positions["draft"], alone.stats.positions["target"])


def test_the_work_of_all_its_models_is_counted():
    model, other = random_model(seed=1), random_model(seed=2)
    base = NoisyParallel(base=MaskPredict(calls=2, lengths=2))
    bundle = Bundle.of(target=model, draft=random_canvas_model(base.base), reranker=other)
    source = Source.of([[5, 9, 7, 8], [6, 6]])
    output = decode(ParallelDraft(max_length=MOST, base=base), bundle, source)
    alone = decode(
        NoisyParallel(max_length=MOST, base=base.base),
        Bundle.of(target=bundle.models["draft"], reranker=other),
        source,
    )
    for name, theirs in (("draft", "target"), ("reranker", "reranker")):
        assert output.stats.calls[name] == alone.stats.calls[theirs] > 0
        np.testing.assert_array_equal(output.stats.positions[name], alone.stats.positions[theirs])


def test_the_draft_may_come_from_a_search_with_a_language_model():
    model, draft = random_model(seed=1), random_canvas_model(CTC(), seed=1)
    language = random_language(model.spec.vocab_size)
    source = Source.of([[5, 9, 7, 8], [6, 6]])
    base = CTCBeam(beams=3, top_k=3, alpha=2.0)
    bundle = Bundle.of(target=model, draft=draft, language=language)
    output = decode(ParallelDraft(max_length=MOST, base=base), bundle, source)
    greedy = decode(Greedy(max_length=MOST), model, source)
    np.testing.assert_array_equal(output.tokens, greedy.tokens)


@pytest.mark.rest
def test_samples_are_those_of_the_target():
    target = random_model(seed=8, vocab_size=8)
    bundle = Bundle.of(target=target, draft=random_canvas_model(CTC(), vocab_size=8, seed=3))
    sources = [Source.of([[5, 6, 7, 5, 6], [6]], width=5)]
    decoder = ParallelDraft(max_length=4, guesses=2, temperature=0.8)
    warp = lambda logits: oracles.log_softmax(logits / 0.8)  # noqa: E731
    check_decoder(decoder, bundle, sources=sources, points=(1,), warp=warp)


def test_a_draft_of_another_vocabulary():
    """What the target does not have is no guess, and the draft's end is the target's."""
    model, source = random_model(seed=1), Source.of([[5, 9, 7, 8], [6, 6]])
    canvas = random_canvas_model(CTC(), vocab_size=16, eos=14, seed=1)
    script = jnp.array([[6, 7, 15, 8, 14, 9, 9, 9], [9, 15, 5, 6, 7, 7, 7, 7]])
    bundle = Bundle.of(target=model, draft=Scripted(canvas, script))
    decoder = ParallelDraft(max_length=MOST, guesses=4)
    carry = decoder.drafter.init(bundle, source, MOST, None)
    assert carry.tokens[:, :6].tolist() == [[6, 7, -1, 8, 3, -1], [9, -1, 6, 3, -1, -1]]
    output, greedy = decode(decoder, bundle, source), decode(Greedy(max_length=MOST), model, source)
    np.testing.assert_array_equal(output.tokens, greedy.tokens)


def test_what_does_not_fit():
    source = Source.of([[5, 9]])
    causal, canvas = random_model(), random_canvas_model(CTC())
    with pytest.raises(IncompatibleModel, match="draft"):
        decode(ParallelDraft(max_length=MOST), causal, source)
    with pytest.raises(IncompatibleModel, match="canvas"):
        decode(ParallelDraft(max_length=MOST), Bundle.of(target=causal, draft=causal), source)
    with pytest.raises(NarError, match="base='ctc'"):
        make("parallel-draft:base=ctc")
    assert make("parallel-draft:base=(mask-predict:calls=2,lengths=3),guesses=5") == ParallelDraft(
        base=MaskPredict(calls=2, lengths=3), guesses=5
    )
    assert jnp.all(
        decode(
            ParallelDraft(max_length=MOST), Bundle.of(target=causal, draft=canvas), source
        ).length
        > 0
    )

"""Speculative decoding against a plain-Python simulation, and its samples against enumeration."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nar
from nar import Bundle, NarError, Source, SpeculativeDecoding, Transformer
from nar.drafters.trees import read_tree
from nar.testing import check_decoder, random_model
from nar.testing.oracles import greedy, log_softmax, teacher_forced
from nar.training.checkpoint import named_arrays, with_arrays

LENGTH, VOCAB, MOST = 10, 8, 80
SOURCES = [[5, 6, 7, 5, 6], [6], [7, 5, 7], [5, 5, 6, 6]]


def spoilt(model, scale=0.06):
    """A model that often agrees with another one."""
    keys = itertools.count()

    def spoil(x):
        return x + scale * jax.random.normal(jax.random.key(next(keys)), x.shape)

    return jax.tree.map(spoil, model)


def resized(model, vocab_size, eos):
    """The same model with a table of another size, whose first rows come again, or are the last."""
    config = dataclasses.replace(model.config, vocab_size=vocab_size, eos=eos)
    shapes = jax.eval_shape(lambda: Transformer(config, key=jax.random.key(0)))
    arrays = {
        name: jnp.asarray(np.resize(x, named_arrays(shapes)[name].shape))
        for name, x in named_arrays(model).items()
    }
    return with_arrays(shapes, arrays)


@pytest.fixture(scope="module")
def target(encoder):
    return random_model(encoder=encoder, seed=8, vocab_size=VOCAB)


# ---------------------------------------------------------------- one row, one node after another
def logprobs_after(model, source, prefixes):
    """What a model says after each of some outputs, `[prefixes, vocab]`."""
    tokens = np.zeros((MOST, LENGTH + 4), np.int32)
    for row, prefix in enumerate(prefixes):
        tokens[row, : len(prefix)] = prefix
    given = Source.of([source] * MOST, width=5)
    logits = np.asarray(teacher_forced(model, given, jnp.asarray(tokens)))
    return log_softmax(logits[np.arange(len(prefixes)), [len(prefix) for prefix in prefixes]])


def one_tree(parents):
    """The same tree each time, of the draft model's likeliest tokens: its paths."""

    def paths(draft, source, output):
        found = [()]
        for node, parent in enumerate(parents[1:], start=1):
            said = logprobs_after(draft, source, [(*output, *found[parent])])[0]
            rank = parents[:node].count(parent)
            found.append((*found[parent], int(np.argsort(-said, kind="stable")[rank])))
        return found

    return paths


def best_nodes(count, depth):
    """Of all paths there are, those that the draft model finds likeliest."""

    def paths(draft, source, output):
        chance = {(): 0.0}
        for level in range(depth):
            grown = [path for path in chance if len(path) == level]
            said = logprobs_after(draft, source, [(*output, *path) for path in grown])
            for path, row in zip(grown, said, strict=True):
                chance |= {(*path, token): chance[path] + row[token] for token in range(VOCAB)}
        return sorted(chance, key=lambda path: -chance[path])[: count + 1]

    return paths


def simulate(target, draft, source, paths):
    """One row's output, and how many tokens each call of the target accepted."""
    output, accepted = [], []
    while len(output) < LENGTH and target.spec.eos not in output:
        tree, written = paths(draft, source, tuple(output)), ()
        while written in tree:
            said = logprobs_after(target, source, [(*output, *written)])[0]
            written = (*written, int(said.argmax()))
        if target.spec.eos in written:
            written = written[: written.index(target.spec.eos) + 1]
        written = written[: LENGTH - len(output)]
        output += written
        accepted.append(len(written))
    return output, accepted


SHAPES = {
    "chain": ({"guesses": 3}, one_tree(read_tree(1, 3))),
    "trunk": ({"guesses": 3, "branches": "1-2-1"}, one_tree(read_tree("1-2-1", 3))),
    "tree": ({"guesses": 3, "branches": "3-2.0.1-1"}, one_tree(read_tree("3-2.0.1-1", 3))),
    "bush": ({"guesses": 2, "branches": 2}, one_tree(read_tree(2, 2))),
    "best nodes": ({"guesses": 3, "nodes": 5}, best_nodes(5, 3)),
}


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [(True, shape) for shape in SHAPES]
    + [
        pytest.param(False, shape, marks=pytest.mark.rest)
        for shape in ("trunk", "tree", "best nodes")
    ],
    indirect=["encoder"],
)
def test_tokens_and_calls_are_those_of_the_simulation(encoder, shape, target):
    options, paths = SHAPES[shape]
    draft = spoilt(target)
    decoder = SpeculativeDecoding(max_length=LENGTH, **options)
    bundle = Bundle.of(target=target, draft=draft)
    output = jax.device_get(nar.decode(decoder, bundle, Source.of(SOURCES, width=5)))
    histogram = np.zeros(options["guesses"] + 2, int)
    for row, source in enumerate(SOURCES):
        written, accepted = simulate(target, draft, source, paths)
        assert output.tokens[row, : output.length[row]].tolist() == written
        assert output.stats.live[row] == len(accepted)
        histogram += np.bincount(accepted, minlength=len(histogram))
    np.testing.assert_array_equal(output.stats.accepted, histogram)
    assert histogram[1] > 0 < histogram[2:].sum()
    calls = int(output.stats.live.max())
    assert output.stats.calls == {"target": calls, "draft": options["guesses"] * calls}


@pytest.mark.parametrize(
    ("encoder", "size", "options"),
    [
        (True, VOCAB + 3, {}),
        pytest.param(False, VOCAB - 2, {"branches": "2-1-1"}, marks=pytest.mark.rest),
    ],
    ids=str,
    indirect=["encoder"],
)
def test_a_draft_model_of_another_table(encoder, size, options, target):
    """Greedy's output, with fewer calls; rows that the target lacks are never drafted.

    The larger table's rows beyond the target's are as likely as its first ones.
    """
    draft, decoder = resized(target, size, eos=5), SpeculativeDecoding(max_length=LENGTH, **options)
    sources, bundle = Source.of(SOURCES, width=5), Bundle.of(target=target, draft=draft)
    output, steps = jax.device_get(nar.trace(decoder, bundle, sources, steps=LENGTH))
    right = greedy(target, sources, LENGTH)
    np.testing.assert_array_equal(output.tokens, right.tokens)
    guesses = steps.view.tokens[..., 1:]
    assert guesses.max() == min(size, VOCAB) - 1
    assert (output.stats.live < output.length).sum() > 2


# -------------------------------------------------------------------------------------- sampling
@pytest.mark.parametrize(
    ("encoder", "options", "table"),
    [
        (True, {"temperature": 0.7}, (VOCAB + 3, 5)),
        pytest.param(
            False,
            {"temperature": 1.0, "branches": "3-2"},
            (VOCAB - 2, 5),
            marks=pytest.mark.rest,
        ),
        (True, {"temperature": 0.8, "branches": "1-3", "top_k": 4}, (VOCAB, 3)),
        pytest.param(
            True,
            {"temperature": 1.2, "branches": 2, "top_p": 0.8},
            (VOCAB + 3, 9),
            marks=pytest.mark.rest,
        ),
        pytest.param(
            True,
            {"temperature": 1.0, "nodes": 4, "top_k": 5},
            (VOCAB - 1, 3),
            marks=pytest.mark.rest,
        ),
    ],
    ids=str,
    indirect=["encoder"],
)
def test_samples_are_those_of_the_target(encoder, options, table, target, warp):
    """Also where the draft model has a table of another size, and another end."""
    decoder = SpeculativeDecoding(max_length=4, guesses=2, **options)
    bundle = Bundle.of(target=target, draft=resized(spoilt(target, 0.2), *table))
    exact = warp(options["temperature"], options.get("top_k"), options.get("top_p"))
    sources = [Source.of(SOURCES, width=5)]
    check_decoder(decoder, bundle, sources=sources, points=(1,), warp=exact)


def test_a_target_that_drafts_for_itself_is_never_refused():
    """q = p: what is drawn first is accepted, however many siblings there are."""
    target = random_model(seed=8, vocab_size=VOCAB)
    decoder = SpeculativeDecoding(max_length=LENGTH, guesses=3, branches="2-1", temperature=1.0)
    bundle = Bundle.of(target=target, draft=target)
    output = nar.decode(decoder, bundle, Source.of(SOURCES, width=5))
    np.testing.assert_array_equal(output.stats.live, -(-output.length // 4))


# --------------------------------------------------------------------------------- what is refused
SMALL = Source.of([[5, 6]])


def refused(draft, message, **options):
    target = random_model(vocab_size=VOCAB)
    bundle = Bundle.of(target=target, draft=draft)
    with pytest.raises(NarError, match=message):
        nar.decode(SpeculativeDecoding(max_length=8, **options), bundle, SMALL)


def test_a_draft_model_whose_positions_end():
    draft = random_model(vocab_size=VOCAB, max_positions=11)
    message = "max_length=8 and 4 guesses ahead: the draft model has 11 positions, so at most 7 fit"
    refused(draft, message)
    prompt = random_model(encoder=False, vocab_size=VOCAB, max_positions=11)
    message = "max_length=8 after a prompt of 2 positions and 2 guesses ahead: the draft model has"
    refused(prompt, message, guesses=2)
    refused(random_model(vocab_size=VOCAB, max_positions=1), "the draft model reads at")


def test_bad_trees():
    draft = random_model(vocab_size=VOCAB)
    refused(draft, "9 guesses for one place: the vocabulary has 8 tokens", branches="9-1")
    refused(draft, "9 guesses for one place: the vocabulary has 8 tokens", nodes=9)
    for options, message in [
        ({"guesses": 0}, "guesses=0"),
        ({"nodes": 3}, "nodes=3: it must be a whole number of at least 4"),
        ({"nodes": 6, "branches": 2}, "branches=2 and nodes=6 are two trees: set one of them"),
        ({"branches": "2-x"}, "'x' is no level"),
        ({"temperature": -1}, "temperature=-1"),
    ]:
        with pytest.raises(NarError, match=message):
            SpeculativeDecoding(**options)
    assert nar.make("speculative:branches=3-2,guesses=3") == SpeculativeDecoding(
        branches="3-2", guesses=3
    )

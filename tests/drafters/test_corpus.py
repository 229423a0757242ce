"""The suffix array against sorting and searching by hand, and what is copied from a corpus."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nar
from nar import Bundle, CorpusLookup, IncompatibleModel, NarError, Source, SuffixArray
from nar.drafters.corpus import longest_match
from nar.drafters.history import History
from nar.testing import random_model

SIZE, NGRAM = 30, 3


def joined(texts):
    """The texts as one tuple, -1 between them."""
    return tuple(token for text in texts for token in (*text, -1))[:-1]


def split(tokens, cuts):
    """Texts of together as many tokens."""
    cuts = sorted(cuts)
    return [tokens[a:b] for a, b in zip([0, *cuts], [*cuts, SIZE], strict=True)]


corpora = st.builds(
    split,
    st.lists(st.integers(0, 2), min_size=SIZE, max_size=SIZE),
    st.sets(st.integers(0, SIZE), min_size=2, max_size=2),
)


@given(corpora)
def test_suffixes_are_sorted(texts):
    corpus, whole = SuffixArray.of(texts), joined(texts)
    right = sorted(range(len(whole)), key=lambda place: whole[place:])
    assert corpus.tokens.tolist() == list(whole)
    assert corpus.order.tolist() == right
    assert corpus.vocab_size == max(whole) + 1


matched = jax.jit(functools.partial(longest_match, ngram=NGRAM))


@given(corpora, st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=4, max_size=4))
def test_the_longest_match(texts, outputs):
    corpus, whole = SuffixArray.of(texts), joined(texts)
    tokens = np.array([output + [-1] * (8 - len(output)) for output in outputs], np.int32)
    history = History(tokens, np.array([len(output) for output in outputs], np.int32))
    found = jax.device_get(matched(corpus, history))
    for output, first, end, length in zip(outputs, *found, strict=True):
        occurs = {
            k: [i for i in range(len(whole)) if whole[i : i + k] == tuple(output[-k:])]
            for k in range(1, min(len(output), NGRAM) + 1)
        }
        longest = max((k for k, places in occurs.items() if places), default=0)
        assert length == longest
        if longest:
            assert sorted(corpus.order[first:end].tolist()) == occurs[longest]


def proposals(decoder, texts, prompt):
    """What is guessed after a prompt, a candidate after the other."""
    model = random_model(encoder=False)
    bundle, key = (
        Bundle.of(target=model, corpus=SuffixArray.of(texts)),
        jax.random.split(jax.random.key(0), 1),
    )
    drafter = decoder.drafter
    carry = drafter.init(bundle, Source.of([prompt]), 8, key)
    draft, _ = drafter.propose(bundle, carry, np.array(prompt[-1:]), key)
    assert draft.tokens[0, 0] == prompt[-1]
    return draft.tokens[0, 1:].reshape(decoder.candidates, -1).tolist()


def test_what_is_copied():
    texts = [[5, 6, 7, 8], [9, 6, 7, 9, 9, 9], [6, 7, 8, 8, 5], [6]]
    one = CorpusLookup(guesses=3, ngram=3)
    assert proposals(one, texts, [9, 6, 7]) == [[9, 9, 9]]  # the longest match is unique
    assert proposals(one, texts, [11, 6, 7]) == [[8, 8, 5]]  # in the middle: most go on with 8
    assert proposals(one, texts, [6, 7, 5]) == [[6, 7, 8]]
    assert proposals(one, texts, [6, 10]) == [[-1, -1, -1]]
    three = CorpusLookup(guesses=2, ngram=3, candidates=3)
    assert proposals(three, texts, [11, 6, 7]) == [[8, -1], [8, 8], [9, 9]]


def test_a_corpus_of_the_models_own_outputs_saves_calls(encoder):
    model = random_model(encoder=encoder, seed=1)
    source = Source.of([[5, 6, 7, 8, 9, 10], [5], [7, 7], [12, 11, 10]])
    plain = nar.decode(nar.Greedy(max_length=12), model, source)
    texts = [row[:n] for row, n in zip(plain.tokens.tolist(), plain.length, strict=True)]
    bundle = Bundle.of(target=model, corpus=SuffixArray.of(texts))
    output = nar.decode(CorpusLookup(max_length=12, guesses=4, ngram=4), bundle, source)
    np.testing.assert_array_equal(output.tokens, plain.tokens)
    assert output.stats.live.sum() < 0.75 * plain.stats.live.sum()


def test_what_is_no_corpus():
    model, source = random_model(), Source.of([[5, 6]])
    with pytest.raises(IncompatibleModel, match="corpus=..."):
        nar.decode(CorpusLookup(max_length=4), model, source)
    for corpus, message in [
        ([[5, 6]], "the bundle's corpus is a list: it must be a SuffixArray"),
        (SuffixArray.of([[5, 13]]), "the corpus holds token 13: the model has 13 tokens"),
    ]:
        with pytest.raises(NarError, match=message):
            nar.decode(CorpusLookup(max_length=4), Bundle.of(target=model, corpus=corpus), source)
    for texts in ([], [[]]):
        with pytest.raises(NarError, match="an empty corpus"):
            SuffixArray.of(texts)
    with pytest.raises(NarError, match="the corpus holds token -3"):
        SuffixArray.of([[5, -3]])
    for bad in ("guesses=0", "ngram=0", "candidates=0", "top_k=3"):
        with pytest.raises(NarError, match=bad.split("=")[0]):
            nar.make(f"corpus-lookup:{bad}")

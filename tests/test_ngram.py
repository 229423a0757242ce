"""N-gram models against numbers worked by hand, dictionaries, and ARPA files written by hand."""

import functools
import math
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nar import NarError
from nar.ngram import NGram, kneser_ney, learn_arpa, read_arpa, write_arpa
from nar.ngram.kneser_ney import discounts
from tests.language import ByHand, as_dictionary, logprob, parsed, random_language, random_texts

PAD, UNK, BOS, EOS, A, B, C = range(7)
PIECES = ["<pad>", "<unk>", "<s>", "</s>", "a", "b", "c"]

step = jax.jit(NGram.step)
assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-30)


def scores(model, context):
    """The log-probabilities of the vocabulary after `bos` and a context."""
    state = model.start
    for token in context:
        _, state = step(model, state, token)
    return np.asarray(step(model, state, jnp.arange(model.vocab_size))[0], np.float64)


# -------------------------------------------------------------------------------------- training
def test_probabilities_worked_by_hand():
    """Two texts, "a b" and "a c"; counts of counts give no discounts: they are 1/2, 1 and 3/2.

    In how many contexts: a 1, b 1, c 1, </s> 2, together 5. Taken are 3 * 1/2 + 1 = 5/2 of them,
    so half is spread over six tokens, 1/12 each:

        P(a) = P(b) = P(c) = 1/2 / 5 + 1/12 = 11/60    P(</s>) = 1/5 + 1/12 = 17/60

    After <s>, a has count 2, of which 1 is taken: P(a | <s>) = 1/2 + 1/2 * 11/60 = 71/120.
    After a, b and c have count 1: P(b | a) = 1/4 + 1/2 * 11/60 = 41/120; 1/2 is left for others.
    After b, </s> has count 1: P(</s> | b) = 1/2 + 1/2 * 17/60 = 77/120.
    """
    texts = [[A, B, EOS], [A, C, EOS]]
    model = kneser_ney(texts, order=2, vocab_size=7, bos=BOS, eos=EOS)
    rare, letter, end = 1 / 12, 11 / 60, 17 / 60
    after_start = [rare / 2, rare / 2, 0, end / 2, 71 / 120, letter / 2, letter / 2]
    assert_close(np.exp(scores(model, [])), after_start)
    after_a = [rare / 2, rare / 2, 0, end / 2, letter / 2, 41 / 120, 41 / 120]
    assert_close(np.exp(scores(model, [A])), after_a)
    after_b = [rare / 2, rare / 2, 0, 77 / 120, letter / 2, letter / 2, letter / 2]
    assert_close(np.exp(scores(model, [A, B])), after_b)
    after_unk = [rare, rare, 0, end, letter, letter, letter]
    assert_close(np.exp(scores(model, [A, UNK])), after_unk)


def test_discounts_worked_by_hand():
    """n = 6, 3, 2, 1: Y = 1/2, and 1 - 2/2 * 3/6, 2 - 3/2 * 2/3, 3 - 4/2 * 1/2."""
    counts = np.array([1] * 6 + [2] * 3 + [3] * 2 + [4] + [9, 20])
    np.testing.assert_allclose(discounts(counts), [0.5, 1.0, 2.0])
    np.testing.assert_allclose(discounts(counts[:-3]), [0.5, 1.0, 1.5])  # n_4 = 0
    np.testing.assert_allclose(discounts(np.array([1, 2, 3, 3, 3, 3, 4])), [0.5, 1.0, 1.5])  # < 0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_are_those_of_the_definition(order):
    texts = random_texts(order, count=150)
    model = kneser_ney(texts, order=order, vocab_size=13, bos=BOS, eos=EOS)
    right = ByHand(texts, order, 13, BOS)
    assert order < 3 or right.discounts(order) != [0, 0.5, 1.0, 1.5]
    contexts = [
        [],
        *(text[:-1] for text in texts[:12]),
        *(text[:-1] for text in random_texts(9, 8)),
    ]
    for context in contexts:
        wanted = [right.probability(token, [BOS, *context]) for token in range(13)]
        assert_close(np.exp(scores(model, context)), wanted)
        assert sum(wanted) == pytest.approx(1)


@functools.cache
def language(order):
    """A model, and as a dictionary."""
    model = random_language(13, order=order)
    return model, as_dictionary(model)


@given(st.sampled_from([1, 2, 4]), st.lists(st.integers(0, 12).filter(lambda t: t != BOS)))
def test_scores_on_the_device_are_those_of_a_dictionary(order, context):
    model, dictionary = language(order)
    found = scores(model, context)
    wanted = [logprob(dictionary, order, (BOS, *context), token) for token in range(13)]
    assert_close(found, wanted)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)


def test_states_and_tokens_are_broadcast():
    model, _ = language(4)
    tokens = jnp.array([[6, 7, 8], [9, 6, EOS]])
    one, state = model.step(jnp.full(tokens.shape, model.start), tokens)
    chex.assert_trees_all_close(one, model.step(model.start, tokens)[0])
    everything, states = model.step(state[..., None], jnp.arange(13))
    assert everything.shape == states.shape == (2, 3, 13)
    np.testing.assert_allclose(everything[1, 0], scores(model, [9]), rtol=1e-6)
    assert len(np.unique(states)) > 13


def test_an_order_that_no_text_reaches():
    model = kneser_ney([[A, EOS], [EOS]], order=5, vocab_size=7, bos=BOS, eos=EOS)
    right = ByHand([[A, EOS], [EOS]], 5, 7, BOS)
    for context in ([], [A], [B, A]):
        wanted = [right.probability(token, [BOS, *context]) for token in range(7)]
        assert_close(np.exp(scores(model, context)), wanted)


def test_what_cannot_be_learned_from():
    for texts, message in [
        ([], "no texts"),
        ([[A, EOS], []], "text 1 does not end with token 3"),
        ([[A, B]], "text 0 does not end with token 3"),
        ([[7, EOS]], r"hold token 7: tokens are 0\.\.6"),
        ([[-1, EOS]], r"hold token -1: tokens are 0\.\.6"),
        ([[BOS, A, EOS]], r"hold token 2 \(BOS\)"),
    ]:
        with pytest.raises(NarError, match=message):
            kneser_ney(texts, order=2, vocab_size=7, bos=BOS, eos=EOS)
    with pytest.raises(NarError, match="order=0"):
        kneser_ney([[EOS]], order=0, vocab_size=7, bos=BOS, eos=EOS)


# ------------------------------------------------------------------------------------------ ARPA
ARPA = r"""made by hand: what stands before the data is no part of it

\data\
ngram 1=5
ngram 2=3
ngram 3=2

\1-grams:
-99 <s> -0.1
-0.7	</s>
-0.5	a	-0.2
-0.6	b	-0.3
-1.5	<unk>

\2-grams:
-0.25	<s> a	-0.4
-0.35	a b
-0.45	b a	-0.5

\3-grams:
-0.05	<s> a b
-0.15	b a </s>

\end\
"""


@pytest.fixture
def arpa(tmp_path):
    """`arpa(text)` reads a file of that text."""

    def read(text, pieces=PIECES):
        path = tmp_path / "file.arpa"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_arpa(path, pieces)

    return read


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_file_made_by_hand(arpa, ends):
    """The third context is unknown: the longest known end of <s> a b is b, of b a it is b a."""
    model = arpa(ARPA.replace("\n", ends))
    for context, wanted in [
        ([], [-1.6, -1.6, -99.1, -0.8, -0.25, -0.7, -1.6]),
        ([A], [-2.1, -2.1, -99.6, -1.3, -1.1, -0.05, -2.1]),
        ([A, B], [-1.8, -1.8, -99.3, -1.0, -0.45, -0.9, -1.8]),
        ([A, B, A], [-2.2, -2.2, -99.7, -0.15, -1.2, -0.85, -2.2]),
        ([C], [-1.5, -1.5, -99, -0.7, -0.5, -0.6, -1.5]),
    ]:
        assert_close(scores(model, context) / math.log(10), wanted)


def test_an_end_without_an_entry(arpa):
    """Pruning may have taken "a b" and left "<s> a b": after it, the longest known end is b."""
    pruned = ARPA.replace("-0.35\ta b\n", "").replace("2=3", "2=2")
    assert_close(scores(arpa(pruned), [A])[B], -0.05 * math.log(10))
    np.testing.assert_allclose(scores(arpa(pruned), [A, B]), scores(arpa(ARPA), [A, B]))


PRUNED = r"""\data\
ngram 1=6
ngram 2=3
ngram 3=1
ngram 4=3

\1-grams:
-99 <s> -0.1
-0.7 </s>
-0.5 a -0.2
-0.6 b -0.3
-0.8 c -0.4
-1.5 <unk>

\2-grams:
-0.25 <s> a -0.35
-0.45 b a -0.5
-0.2 c b

\3-grams:
-0.15 b a </s> -0.7

\4-grams:
-0.02 <s> a b a
-0.03 a c b c 0
-0.04 b a b c -0.0

\end\
"""
"""Of what the longest begin with <s> a b, a c, a c b and b a b are missing, and a b of two."""


def test_beginnings_that_pruning_took_away(arpa):
    """They come back without changing what the file says; so does the definition, by dictionary."""
    model, dictionary = arpa(PRUNED), parsed(PRUNED, PIECES)
    for context in ([], [A], [A, B], [B, A], [B, A, B], [A, C], [A, C, B], [C, B], [B, A, EOS]):
        wanted = [logprob(dictionary, 4, (BOS, *context), token) for token in (BOS, EOS, A, B, C)]
        assert_close(scores(model, context)[[BOS, EOS, A, B, C]], wanted)
    assert_close(scores(model, [A, C, B])[C], -0.03 * math.log(10))
    inserted = as_dictionary(model)
    # a c: the weight of a, and c; a c b: no weight, and c b; <s> a b: the weight of <s> a, and a b.
    for words, right in (((A, C), -1.0), ((A, C, B), -0.2), ((BOS, A, B), -0.35 - 0.2 - 0.6)):
        assert inserted[words] == (pytest.approx(right * math.log(10), rel=1e-6), 0)


@pytest.mark.parametrize("weight", ["0", "-0", "0.0", "0e3"])
def test_weights_of_the_longest(arpa, weight):
    """Some tools write them, always as 0 (others are refused, below); and some begin with a BOM."""
    written = ARPA.replace("b a </s>", f"b a </s>\t{weight}")
    chex.assert_trees_all_equal(arpa(written), arpa(ARPA))
    chex.assert_trees_all_equal(arpa("\ufeff" + ARPA[ARPA.index("\\data") :]), arpa(ARPA))


def test_written_and_read(tmp_path):
    pieces = [*PIECES, "▁", "\u00a0", "\u3000x", "\u2028", "\\", "-1.0", '"']
    for order in (1, 3):
        model = random_language(14, order=order)
        write_arpa(tmp_path / "file", model, pieces)
        chex.assert_trees_all_equal(read_arpa(tmp_path / "file", pieces), model)
        text = (tmp_path / "file").read_bytes()
        write_arpa(tmp_path / "again", read_arpa(tmp_path / "file", pieces), pieces)
        assert (tmp_path / "again").read_bytes() == text


def test_words_that_are_no_pieces(arpa):
    with pytest.warns(UserWarning, match=r"1 of its 5 words are no pieces of the vocabulary \(b\)"):
        model = arpa(ARPA, ["<unk>", "<s>", "</s>", "a"])
    assert_close(scores(model, [])[3], -0.25 * math.log(10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        without = ARPA.replace("-1.5\t<unk>\n", "").replace("1=5", "1=4")
        assert scores(arpa(without), [])[C] < -200


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", "is no ARPA file: none of its lines is"),
        (ARPA, "", "is no ARPA file"),
        ("ngram 1=5\n", "", "line 4: 'ngram 2=3', where ngram 1=COUNT must stand"),
        ("ngram 2=3\n", "", "line 5: 'ngram 3=2', where ngram 2=COUNT must stand"),
        ("ngram 2=3", "ngram 2=x", "line 5: 'ngram 2=x', where ngram 2=COUNT must stand"),
        ("ngram 3=2", "", "line 16: .*, where log10 of a probability, 2 words must stand"),
        ("ngram 1=5\nngram 2=3\nngram 3=2\n", "", "where ngram 1=COUNT must stand"),
        ("ngram 3=2", "ngram 3=2\nngram 4=0", r"line 25: '\\end\\', where \\4-grams: must"),
        ("\\2-grams:", "\\3-grams:", r"where \\2-grams: must stand"),
        ("ngram 2=3", "ngram 2=4", "3 2-grams end before it, and the header has 4"),
        ("-0.15\tb a </s>\n", "", "1 3-grams end before it, and the header has 2"),
        ("\\end\\\n", "", r"the end of the file, where \\end\\ must stand"),
        ("-0.35\ta b", "-0.35\ta", "line 17: '-0.35\ta', where log10 of a probability, 2 words"),
        ("-0.35\ta b", "-0.35\ta b a b", "line 17: .* and, if any, log10 of a weight must stand"),
        ("-0.35\ta b", "a b", "line 17"),
        ("-0.35\ta b", "0.35\ta b", "line 17"),
        ("-0.35\ta b", "nan\ta b", "line 17"),
        ("-0.35\ta b", "-0.35\ta b\tmuch", "line 17"),
        ("-0.35\ta b", "-0.35\ta b\tinf", "line 17"),
        ("b a </s>", "b a </s> -1", "line 22: .* 3 words must stand"),
        ("-0.35\ta b", "-0.35\tb a", "line 18: these words have an entry already"),
        ("-0.7\t</s>", "-0.7\tc", "</s> is none of its 1-grams"),
        ("-99 <s> -0.1", "-99 c -0.1", "<s> is none of its 1-grams"),
    ],
)
def test_damaged_files(arpa, old, new, message):
    assert ARPA.count(old) == 1
    with pytest.raises(NarError, match=message):
        arpa(ARPA.replace(old, new))


class Ends:
    """A vocabulary of whole words that ends outputs with one of its tokens."""

    vocab_size = len(PIECES)

    def __init__(self, end):
        self.end = end

    def pieces(self, row):
        return [PIECES[i] for i in row]

    def encode_outputs(self, texts):
        return [[*map(PIECES.index, text.split()), self.end] for text in texts]


def test_texts_that_end_otherwise(tmp_path):
    learn_arpa(tmp_path / "file", ["a b", "a c"], Ends(EOS), order=2)
    right = kneser_ney([[A, B, EOS], [A, C, EOS]], order=2, vocab_size=7, bos=BOS, eos=EOS)
    chex.assert_trees_all_close(read_arpa(tmp_path / "file", PIECES), right, rtol=1e-6)
    with pytest.raises(NarError, match="the model ends texts with c, and n-gram models end them w"):
        learn_arpa(tmp_path / "other", ["a b", "a c"], Ends(C), order=2)
    assert not (tmp_path / "other").exists()


def test_pieces_may_hold_blanks(tmp_path):
    pieces = [*PIECES[:5], "b c", "\t"]
    write_arpa(tmp_path / "file", random_language(7), pieces)
    assert "b<0x20>c" in (tmp_path / "file").read_text()
    chex.assert_trees_all_equal(read_arpa(tmp_path / "file", pieces), random_language(7))


def test_what_is_no_text_and_no_vocabulary(arpa, tmp_path):
    with pytest.raises(NarError, match="is no ARPA file: it is not UTF-8"):
        arpa(ARPA.encode() + b"\xff")
    with pytest.raises(NarError, match="the vocabulary has no </s>"):
        arpa(ARPA, ["<s>", "a", "b"])
    for piece in ("", "a"):
        with pytest.raises(NarError, match=f"token {4 if piece == 'a' else 6} is '{piece}'"):
            write_arpa(tmp_path / "never", random_language(7), [*PIECES[:6], piece])
    assert not (tmp_path / "never").exists()

import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nar
from nar import drivers
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError
from nar.streaming import Unfolding
from nar.testing import random_model
from nar.training.checkpoint import named_arrays, with_arrays
from nar.translator import Translator

TEXTS = ["a b c", "", "d a", "b"]
DECODERS = [
    nar.Greedy(max_length=12),
    nar.Jacobi(block=4, max_length=12),
    nar.Sample(max_length=12),
]


pytestmark = pytest.mark.filterwarnings("ignore:.* outputs are cut")


@pytest.fixture(scope="module")
def translator(encoder):
    """It writes words, and ends only where it must."""
    tokenizer = Tokenizer.train(["a b c d e f g"], vocab_size=16, pieces="words")
    size = tokenizer.vocab_size
    model = random_model(encoder=encoder, vocab_size=size, decoder_layers=1, logits_bias=True)
    words = [piece.startswith("▁") for piece in tokenizer.pieces(range(size))]
    bias = {"logits_bias": jnp.where(jnp.asarray(words), 0.0, -50.0)}
    model = with_arrays(model, named_arrays(model) | bias)
    return Translator(model=model, tokenizer=tokenizer, weights="random")


# -------------------------------------------------------------------------------- a growing text
def first_to_end(text, stops):
    """Where the text is cut: letter by letter, until it ends in a stop string."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return end - max(map(len, found))
    return len(text)


@given(
    text=st.text("ab\ufffdc", max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 12), max_size=6),
)
def test_pieces_do_not_depend_on_how_a_text_grows(text, stops, cuts):
    unfolding, pieces = Unfolding(stops), []
    for cut in sorted(cuts):
        pieces.append(unfolding.take(text[:cut], whole=False))
        assert text.startswith("".join(pieces))
    pieces.append(unfolding.take(text, whole=True))
    assert "".join(pieces) == text[: first_to_end(text, stops)]


def test_what_is_uncertain_waits():
    unfolding = Unfolding(["END"])
    grown = ["the ", "the E", "the EN", "the ENt", "the ENt\ufffd", "the ENté", "the ENté.ENDx"]
    pieces = [unfolding.take(text, whole=False) for text in grown]
    assert pieces == ["the ", "", "", "ENt", "", "é", "."]
    assert unfolding.stopped
    assert unfolding.take("the ENté.ENDxyz", whole=True) == ""


# ------------------------------------------------------------------------------------ a decoding
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: type(decoder).__name__)
def test_a_stream_gives_what_translate_gives(translator, decoder):
    whole = translator.translate(TEXTS, decoder)
    steps = list(translator.stream(TEXTS, decoder))
    assert ["".join(pieces) for pieces in zip(*steps, strict=True)] == whole
    assert len(steps) > 1
    stop = whole[0].strip()[2:5]
    assert stop.strip()
    cut = translator.translate(TEXTS, decoder, stop=[stop])
    assert cut == [text[: first_to_end(text, [stop])] for text in whole]
    steps = translator.stream(TEXTS, decoder, stop=[stop])
    assert ["".join(pieces) for pieces in zip(*steps, strict=True)] == cut


def test_hypotheses_that_compete_are_streamed_at_the_end(translator):
    decoder = nar.Beam(max_length=12)
    whole = translator.translate(TEXTS, decoder)
    (pieces,) = translator.stream(TEXTS, decoder)
    assert pieces == whole
    stop = whole[0].split()[1]
    (pieces,) = translator.stream(TEXTS, decoder, stop=[stop])
    assert pieces == translator.translate(TEXTS, decoder, stop=[stop])


def test_stops_and_limits_are_each_rows_own(translator):
    decoder = DECODERS[1]
    whole = translator.translate(TEXTS, decoder)
    stops = [[whole[0].split()[2]], [], [], ["nothing"]]
    steps = translator.stream(TEXTS, decoder, stop=stops, limits=[12, 1, 3, 12])
    found = ["".join(pieces) for pieces in zip(*steps, strict=True)]
    assert found[0] == whole[0][: first_to_end(whole[0], stops[0])]
    assert (found[1], found[3]) == ("", whole[3])
    assert found[2].split() == whole[2].split()[:3]


def test_sources_of_similar_lengths_are_one_program(translator):
    stream = lambda text: list(translator.stream([text], DECODERS[0]))  # noqa: E731
    stream("a b c")
    before = drivers._step._cache_size()
    stream("a")
    stream("a b c d")
    assert drivers._step._cache_size() == before


def test_rows_that_stopped_cost_nothing_more(translator):
    decoder = DECODERS[0]
    whole = translator.translate(["a b c"], decoder)[0]
    steps = list(translator.stream(["a b c"], decoder))
    fewer = list(translator.stream(["a b c"], decoder, stop=[whole.split()[1]]))
    assert len(fewer) < len(steps)


def test_rows_sent_to_the_driver_are_done(translator):
    source = nar.Source.of(translator.encode(["a b c", "d"]))
    steps = nar.stream(DECODERS[0], translator.model, source)
    first = np.array(next(steps).length)
    lengths = [first, *(np.array(steps.send(np.array([True, False])).length) for _ in range(3))]
    assert [length[0] for length in lengths] == [1, 1, 1, 1]
    assert lengths[-1][1] == 4


def test_blank_texts_stream_nothing(translator):
    assert list(translator.stream(["", " "])) == []


def test_a_continuation_goes_on_from_its_prompt():
    tokenizer = Tokenizer.train(["ab cd ef gh"], vocab_size=16, pieces="words")
    model = random_model(encoder=False, vocab_size=tokenizer.vocab_size)
    translator = Translator(model=model, tokenizer=tokenizer, weights="random")
    prompts = translator.encode(["ab cd"])
    word = tokenizer.encode(["ef"])[0][0]
    assert translator.texts(prompts, [[word, word]]) == [" ef ef"]
    eos = model.spec.eos  # where it begins prompts too
    assert translator.texts([[eos, *prompts[0][1:]]], [[word, eos]]) == [" ef"]


class Bytes:
    """One token a byte; a run of bytes that lacks some is all unknown, as in byte fallback."""

    vocab_size, fingerprint = 300, "bytes"

    def encode(self, texts, *, prompt=False):
        return [[byte + 10 for byte in text.encode()] for text in texts]

    def decode(self, rows):
        found = []
        for row in rows:
            ids = bytes(int(token) - 10 for token in row if token >= 10)
            runs = re.findall(rb"[\x80-\xff]+|[\x00-\x7f]+", ids)
            texts = []
            for run in runs:
                try:
                    texts.append(run.decode())
                except UnicodeDecodeError:
                    texts.append("\ufffd" * len(run))
            found.append("".join(texts))
        return found


def test_half_a_character_does_not_take_the_prompts_last_one_back():
    model = random_model(encoder=False, vocab_size=300)
    translator = Translator(model=model, tokenizer=Bytes(), weights="random")
    (prompt,), (output,) = translator.encode(["I like é"]), translator.encode(["😀 and é"])
    grown = [translator.texts([prompt], [output[:n]])[0] for n in range(len(output) + 1)]
    half = "\ufffd"
    assert grown[:6] == ["", half, half, half, "😀", "😀 "]
    assert grown[-2:] == [f"😀 and {half}", "😀 and é"]
    (broken,) = translator.texts([prompt], [[*output[:2], *translator.encode(["ab"])[0] * 3]])
    assert "like" not in broken  # bytes that never make a character: of the prompt nothing is shown
    assert broken.endswith("ababab")


def test_bad_input_comes_first(translator):
    for options, message in [
        ({"stop": "END"}, "stop='END': it must be a sequence"),
        ({"stop": [""]}, "each must be a string that is not empty"),
        ({"stop": [["a"], []]}, "2 sequences for 4 texts"),
        ({"limits": [1, 2]}, "2 limits for 4 texts"),
        ({"limits": [13, 1, 1, 1]}, "limit 13 of text 1: it must be in 1..12"),
    ]:
        with pytest.raises(NarError, match=message):
            translator.stream(TEXTS, DECODERS[0], **options)
    with pytest.raises(NarError, match="text 1 has .* tokens: at most"):
        translator.stream(["a " * 100], DECODERS[0])
    with pytest.raises(NarError, match="not empty"):
        translator.translate(TEXTS, DECODERS[0], stop=("a", ""))

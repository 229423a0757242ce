import dataclasses

import pytest

import nar
from nar.core import Bundle
from nar.ends import ending, with_ends
from nar.errors import NarError
from nar.testing import Scripted, random_model
from tests.test_translator import random_texts, random_translator

HUND, HAUS = "▁Hund", "▁Haus"


@pytest.fixture(scope="module")
def translator():
    return random_translator(blank=5)


def ids(translator, *names):
    return tuple(map(translator.tokenizer.number, names))


def test_special_tokens_end_by_their_ids(translator):
    found, stops = ending(translator, [["Hund", "</s>", "<sep>"]], [HUND])
    assert stops == [("Hund",)]  # the model's own end is no other
    assert found.model.spec.also_eos == ids(translator, HUND, "<sep>")
    same, stops = ending(translator, [["Hund"], []])
    assert same is translator
    assert stops == [("Hund",), ()]
    same, stops = ending(translator, [["</s>"], ["</s>", "x"]])
    assert same.model is translator.model
    assert stops == [(), ("x",)]


def test_all_models_of_a_bundle_stop_there(translator):
    bundle = Bundle.of(target=translator.model, draft=random_model(vocab_size=16), corpus=())
    found = with_ends(bundle, [9, 9, 3]).models
    assert [found[name].spec.also_eos for name in ("target", "draft")] == [(9,), (9,)]
    assert found["corpus"] == ()


@pytest.mark.filterwarnings("ignore:.* outputs are cut")
def test_outputs_are_those_without_up_to_the_token(translator):
    texts, decoder = random_texts(4), nar.Greedy(max_length=10)
    whole = translator.translate(texts, decoder, batch_size=4)
    cut = translator.results(texts, decoder, batch_size=4, stop_tokens=[HUND, HAUS])
    words = [text.split() for text in whole]
    places = [min([*map(row.index, {"Hund", "Haus"} & {*row}), len(row)]) for row in words]
    assert [result.text.split() for result in cut] == [
        row[:place] for row, place in zip(words, places, strict=True)
    ]
    stopped = [place < len(row) for row, place in zip(words, places, strict=True)]
    assert any(stopped)
    assert all(r.finish_reason == "stop" for r, hit in zip(cut, stopped, strict=True) if hit)
    (pieces,) = zip(*translator.stream(texts[:1], decoder, stop_tokens=[HUND, HAUS]), strict=True)
    assert "".join(pieces) == cut[0].text


def test_what_cannot_end_an_output_is_refused_before_anything_runs(translator):
    scripted = dataclasses.replace(translator, model=Scripted(translator.model, [[3]]))
    for who, stops, tokens, message in [
        (translator, [[]], ["Hund"], "no token 'Hund' to stop at; special are <unk>"),
        (translator, [[]], "Hund", "stop_tokens='Hund': it must be a sequence"),
        (translator, [[""]], [], "each must be a string that is not empty"),
        (translator, [[]], ["<mask>"], "'<mask>' stands where no token is"),
        (translator, [["<blank>"]], [], "'<blank>' stands where no token is"),
        (
            translator,
            [["<sep>"], ["a"]],
            [],
            "stop: <sep>: a special token must end the outputs of",
        ),
        (scripted, [["<sep>"]], [], "a Scripted cannot be told where to stop"),
    ]:
        with pytest.raises(NarError, match=message):
            ending(who, stops, tokens)

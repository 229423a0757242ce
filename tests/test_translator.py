import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

import nar
from nar.core import Needs, Source, Spec
from nar.data.tokenizer import Tokenizer
from nar.decoders import DECODERS
from nar.errors import IncompatibleModel, NarError
from nar.testing import Scripted, random_model
from nar.training.checkpoint import save_model
from nar.translator import Translator, load

ROOT = pathlib.Path(__file__).parents[1]
WORDS = ["ein", "Hund", "sieht", "den", "kleinen", "Mann", "vor", "dem", "Haus"]


pytestmark = pytest.mark.filterwarnings("ignore:.* outputs are cut")


def learn_tokenizer(**options):
    texts = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]
    return Tokenizer.train(texts, **{"pieces": "words", **options})


def random_translator(*, encoder=True, seed=0, **config):
    tokenizer = learn_tokenizer()
    config = {"vocab_size": tokenizer.vocab_size, "decoder_layers": 1, **config}
    model = random_model(encoder=encoder, seed=seed, **config)
    return Translator(model=model, tokenizer=tokenizer, weights="random")


def random_texts(count, longest=12, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, longest))) for _ in range(count)]


def alone(translator, text, decoder, key):
    """The translation of one text in a batch of its own."""
    pieces = translator.tokenizer.pieces(range(translator.tokenizer.vocab_size))
    ids = [pieces.index(f"▁{word}") for word in text.split()]
    row = [*ids, 3] if translator.model.spec.encoder else [2, *ids]
    output = nar.decode(decoder, translator.model, Source.of([row], width=13), key=key[None])
    written = output.tokens[:, : int(output.length[0])]
    if translator.model.spec.encoder:
        return translator.tokenizer.decode(written)[0]
    whole = translator.tokenizer.decode([[*row, *written[0].tolist()]])[0]
    return whole.removeprefix(text)


@pytest.fixture(scope="module")
def translator(encoder):
    return random_translator(encoder=encoder)


# ------------------------------------------------------------------------------------- translate
@pytest.mark.parametrize(
    "decoder",
    [nar.Jacobi(block=3, max_length=10), nar.Sample(max_length=10)],
    ids=["jacobi", "sample"],
)
def test_every_text_is_translated_as_if_alone(translator, decoder):
    key = jax.random.key(7)
    texts = ["", *random_texts(6), " \t ", *random_texts(3, seed=1)]
    wanted = [
        alone(translator, text, decoder, jax.random.fold_in(key, i)) if text.strip() else ""
        for i, text in enumerate(texts)
    ]
    assert len(set(wanted)) > 4, "the model says the same to everybody"
    assert translator.translate(texts, decoder, batch_size=4, key=key) == wanted


@pytest.mark.parametrize(("lines", "rows"), [(1, 1), (2, 2), (3, 4), (9, 8)])
def test_few_texts_are_a_small_batch(translator, lines, rows, monkeypatch):
    seen = []

    def spy(decoder, model, source, *, key):
        seen.append(source.tokens.shape[0])
        return nar.decode(decoder, model, source, key=key)

    monkeypatch.setattr("nar.translator.decode", spy)
    translator.translate(["Hund"] * lines, nar.Greedy(max_length=2), batch_size=8)
    assert set(seen) == {rows}


def test_no_texts(translator):
    assert translator.translate([]) == []
    assert translator.translate(["", "\n"]) == ["", ""]


def test_greedy_is_the_default_and_line_breaks_are_spaces_to_an_encoder(translator):
    greedy = nar.Greedy(max_length=translator.max_length)
    wanted = translator.translate(["Hund Haus"], greedy, batch_size=1)
    assert translator.translate(["Hund Haus"], batch_size=1) == wanted
    spaces, breaks = translator.encode(["Hund Haus  ", "Hund\nHaus\r\n"])
    assert (spaces == breaks) == translator.model.spec.encoder


def test_a_line_break_that_the_model_writes_becomes_a_space():
    tokenizer = learn_tokenizer(pieces="unigram", vocab_size=320, byte_fallback=True)
    (hund,), (haus,) = tokenizer.encode(["Hund"], prompt=True), tokenizer.encode(["Haus"])
    (line_break,) = (
        i for i, p in enumerate(tokenizer.pieces(range(tokenizer.vocab_size))) if p == "<0x0A>"
    )
    said = np.array([[*hund[1:], line_break, *haus]])
    assert "\n" in tokenizer.decode(said)[0]
    model = Scripted(random_model(vocab_size=tokenizer.vocab_size), said)
    translator = Translator(model=model, tokenizer=tokenizer, weights="scripted")
    assert translator.translate(["Mann"]) == ["Hund  Haus"]


# --------------------------------------------------------------------------------------- lengths
@pytest.mark.parametrize(
    ("encoder", "positions", "most"), [(True, 40, 40), (True, 500, 128), (False, 40, 20)]
)
def test_default_length(encoder, positions, most):
    translator = random_translator(encoder=encoder, max_positions=positions)
    assert translator.max_length == most
    assert translator.make_decoder("greedy") == nar.Greedy(max_length=most)


def test_default_length_without_limit():
    spec = Spec(vocab_size=9, eos=3, pad=0, encoder=False)
    model = types.SimpleNamespace(spec=spec)
    translator = Translator(model=model, tokenizer=learn_tokenizer(), weights="none")
    assert translator.max_length == 128
    assert translator.room(nar.Greedy()) is None


def test_long_texts_are_named_and_cut_when_asked(encoder):
    translator = random_translator(encoder=encoder, max_positions=16)
    decoder = nar.Greedy(max_length=16 if encoder else 9)
    room = 16 if encoder else 7
    assert translator.room(decoder) == room
    random = np.random.default_rng(3)
    fits, long, longer = (" ".join(random.choice(WORDS, room + n)) for n in (-1, 0, 5))
    texts = [fits, long, "Hund", longer]
    with pytest.raises(NarError, match=f"^lines 2, 4: longer than the {room} tokens that fit"):
        translator.translate(texts, decoder, batch_size=4)
    with pytest.warns(UserWarning, match="^lines 2, 4: .*, and cut$"):
        found = translator.translate(texts, decoder, batch_size=4, truncate=True)
    kept = slice(room - 1) if encoder else slice(-(room - 1), None)
    texts = [" ".join(text.split()[kept]) for text in texts]
    assert found == translator.translate(texts, decoder, batch_size=4)
    assert translator.cut([2, 7, 8, 9, 3], 1) == ([3] if encoder else [2])


def test_many_long_texts_are_counted():
    translator = random_translator(max_positions=4)
    texts = ["Hund", *["Hund " * 9] * 13]
    with pytest.raises(NarError, match="^lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more: longer"):
        translator.translate(texts)


# ------------------------------------------------------------------------------------- decoders
class Needy(nar.Greedy):
    @property
    def needs(self):
        return {"target": Needs(causal=True, draft_heads=2)}


@pytest.mark.parametrize(
    ("description", "max_length", "message"),
    [
        ("jacoby", None, "there is no decoder 'jacoby'; there are jacobi"),
        ("jacobi:blok=5", None, "no option 'blok'; it has block"),
        ("greedy", 0, "max_length=0"),
        ("greedy", 65, "max_length=65"),
        ("greedy:max_length=9", 8, "'greedy:max_length=9' and max_length=8 contradict each other"),
    ],
)
def test_decoders_that_do_not_fit(translator, description, max_length, message):
    with pytest.raises(NarError, match=message):
        translator.make_decoder(description, max_length)


def test_decoders_that_do(translator):
    wanted = nar.Jacobi(block=5, max_length=9)
    assert translator.make_decoder("jacobi:block=5,max_length=9", 9) == wanted
    assert translator.make_decoder("jacobi:block=5", 9) == wanted


def test_a_model_that_lacks_something(translator, monkeypatch):
    monkeypatch.setitem(DECODERS, "needy", Needy)
    with pytest.raises(IncompatibleModel, match="2 draft heads"):
        translator.make_decoder("needy")
    with pytest.raises(IncompatibleModel, match="2 draft heads"):
        translator.translate(["Hund"], Needy(max_length=9))


# ------------------------------------------------------------------------------------------ load
def save(translator, directory):
    save_model(directory, translator.model)
    translator.tokenizer.save(directory)
    return directory


def test_loaded_with_a_draft_model_and_a_corpus(translator, tmp_path):
    encoder = translator.model.spec.encoder
    target = save(translator, tmp_path / "target")
    draft, size = tmp_path / "draft", translator.tokenizer.vocab_size
    save_model(draft, random_model(encoder=encoder, seed=1, vocab_size=size + 7))  # a padded table
    translator.tokenizer.save(draft)
    texts = random_texts(4)
    wanted = translator.translate(texts, nar.Greedy(max_length=10), batch_size=4)
    corpus = tmp_path / "corpus"
    corpus.write_text("".join(f"{text}\n" for text in ["", *wanted]))
    found = nar.load(target, draft=draft, corpus=corpus)
    for decoder in ("speculative", "corpus-lookup", "jacobi:block=3"):
        made = found.make_decoder(decoder, 10)
        assert found.translate(texts, made, batch_size=4) == wanted
    source = Source.of(found.encode(texts))
    output = nar.decode(nar.CorpusLookup(max_length=10, ngram=1), found.model, source)
    assert int(output.stats.live.sum()) < int(output.length.sum())  # it knows these sentences
    assert len({found.weights, load(target).weights, load(target, draft=draft).weights}) == 3
    reranking = nar.load(target, reranker=draft)
    made = nar.NoisyParallel(max_length=10, base=nar.Beam(beams=3, nbest=3))
    liked = reranking.translate(texts, made, batch_size=4)
    assert len(liked) == len(texts)
    assert reranking.weights != load(target).weights

    other = dataclasses.replace(translator, tokenizer=learn_tokenizer(pieces="unigram"))
    size = other.tokenizer.vocab_size
    save_model(tmp_path / "other", random_model(encoder=encoder, vocab_size=size))
    other.tokenizer.save(tmp_path / "other")
    with pytest.raises(NarError, match="have different vocabularies: a draft model must share"):
        load(target, draft=tmp_path / "other")
    corpus.write_text("\n")
    with pytest.raises(NarError, match="have different vocabularies: a reranker model must share"):
        load(target, reranker=tmp_path / "other")
    with pytest.raises(NarError, match="an empty corpus"):
        load(target, corpus=corpus)


def test_loaded(translator, tmp_path):
    found = nar.load(save(translator, tmp_path))
    texts, decoder = random_texts(4), nar.Jacobi(block=3, max_length=10)
    wanted = translator.translate(texts, decoder, batch_size=4)
    assert found.translate(texts, decoder=decoder, batch_size=4) == wanted
    assert found.weights == load(str(tmp_path)).weights
    save_model(tmp_path, random_translator(encoder=translator.model.spec.encoder, seed=1).model)
    assert found.weights != load(tmp_path).weights


def test_directories_that_hold_no_model(translator, tmp_path):
    with pytest.raises(NarError, match=re.escape(f"{tmp_path / 'none'} is no directory")):
        load(tmp_path / "none")
    with pytest.raises(NarError, match="holds no saved model: there is no config.json"):
        load(tmp_path)
    save_model(tmp_path, translator.model)
    with pytest.raises(NarError, match=re.escape("tokenizer.model is missing")):
        load(tmp_path)
    learn_tokenizer(pieces="unigram", vocab_size=40).save(tmp_path)
    with pytest.raises(NarError, match="34 pieces, and the model beside it 16: they do not belong"):
        load(tmp_path)


# --------------------------------------------------------------------------------- eight devices
@pytest.mark.rest
def test_eight_devices():
    """In a process of its own: the number of simulated devices is fixed when JAX starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.test_translator"],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.split() == ["eight"]


def check_eight_devices():
    assert jax.device_count() == 8
    translator, decoder, key = random_translator(), nar.Sample(max_length=8), jax.random.key(7)
    texts = random_texts(11)
    wanted = [
        alone(translator, text, decoder, jax.random.fold_in(key, i)) for i, text in enumerate(texts)
    ]
    assert len(set(wanted)) > 4
    rows = set()

    def watched(decoder, model, source, **options):
        rows.update(shard.data.shape[0] for shard in source.tokens.addressable_shards)
        assert len(source.tokens.sharding.device_set) == 8
        return nar.decode(decoder, model, source, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nar.translator.decode", watched)
        # Ten rows do not split over eight devices: batches are of sixteen.
        assert translator.translate(texts, decoder, batch_size=10, key=key) == wanted
    assert rows == {2}


if __name__ == "__main__":
    check_eight_devices()
    print("eight")

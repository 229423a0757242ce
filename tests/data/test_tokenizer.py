import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nar.data import tokenizer as ids
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError

CHARACTERS = "abcdefghijklmnopqrstuvwxyzäöüßABCE0123456789.,!?-'\"()<>/é "


def sentences(count=400):
    random = np.random.default_rng(0)
    words = ["das", "Haus", "house", "ist", "is", "größer", "Bäume", "trees", "</s>", "<pad>", "42"]
    for _ in range(count):
        yield " ".join(random.choice(words, random.integers(1, 9)))
    yield CHARACTERS


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request):
    return Tokenizer.train(sentences(), vocab_size=150, pieces=request.param)


@pytest.fixture(scope="module")
def symbols():
    return Tokenizer.train(iter(["c a t", "K AE1 T", "a  c t"]), pieces="words")


def test_special_ids_are_where_they_are_said_to_be(tokenizer):
    special = [ids.PAD, ids.UNK, ids.BOS, ids.EOS, ids.MASK, ids.BLANK, ids.SEP]
    assert special == list(range(7))
    names = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "<blank>", "<sep>"]
    assert tokenizer.pieces(special) == names


@settings(deadline=None)
@given(text=st.text(CHARACTERS))
def test_text_of_known_characters_survives(tokenizer, text):
    (row,) = tokenizer.encode([text])
    assert row[-1] == ids.EOS
    assert min(row[:-1], default=7) > ids.SEP  # text never makes a special id, nor an unknown one
    assert tokenizer.decode([row]) == [text]


def test_very_long_texts_are_learnt_from_too():
    texts = [*sentences(), "žluť " * 2000]
    tokenizer = Tokenizer.train(texts, vocab_size=120)
    assert tokenizer.decode(tokenizer.encode(["žluť"])) == ["žluť"]


def test_unknown_characters_are_shown(tokenizer):
    (row,) = tokenizer.encode(["日"])
    assert ids.UNK in row
    assert "⁇" in tokenizer.decode([row])[0]


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="▁\0")))
def test_any_text_survives_in_bytes(text):
    tokenizer = _with_bytes()
    assert tokenizer.decode(tokenizer.encode([text])) == [text]


def _with_bytes(cache=[]):  # noqa: B006  trained once
    if not cache:
        cache.append(Tokenizer.train(sentences(), vocab_size=400, byte_fallback=True))
    return cache[0]


def test_words_are_symbols(symbols):
    assert symbols.vocab_size == 7 + 6
    (row,) = symbols.encode([" c  a t"])
    assert symbols.pieces(row) == ["▁c", "▁a", "▁t", "</s>"]
    assert symbols.decode([row]) == ["c a t"]
    assert symbols.encode(["cat"]) == [[ids.UNK, ids.EOS]]


def test_decoding_stops_at_eos_and_skips_special_ids(symbols):
    c, a, t, _ = symbols.encode(["c a t"])[0]
    rows = np.array(
        [[ids.BOS, c, ids.MASK, a, ids.EOS, t], [c, -1, ids.BLANK, ids.PAD, t, ids.SEP]]
    )
    assert symbols.decode(rows) == symbols.decode(rows.tolist()) == ["c a", "c t"]
    assert symbols.decode(jnp.asarray(rows)) == ["c a", "c t"]
    assert symbols.decode([[], [ids.EOS, c]]) == ["", ""]


def test_empty_text_is_one_token(tokenizer):
    assert tokenizer.encode(["", ""]) == [[ids.EOS]] * 2
    assert tokenizer.encode([]) == []


@pytest.mark.parametrize("pieces", ["unigram", "bpe", "words"])
def test_training_is_deterministic(pieces):
    first, second = (Tokenizer.train(sentences(), vocab_size=120, pieces=pieces) for _ in "ab")
    assert first.model == second.model
    assert first.fingerprint == second.fingerprint


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "model")
    tokenizer.save(tmp_path / "model")  # replaces
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["tokenizer.model"]
    loaded = Tokenizer.load(tmp_path / "model")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(["das Haus"]) == tokenizer.encode(["das Haus"])


def test_missing_and_damaged_files_are_named(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.model"
    with pytest.raises(NarError, match=re.escape(f"{path} is missing")):
        Tokenizer.load(tmp_path)
    for content in (b"", b"not a model", tokenizer.model[: len(tokenizer.model) // 2]):
        path.write_bytes(content)
        with pytest.raises(NarError, match=re.escape(str(path))):
            Tokenizer.load(tmp_path)


def test_models_of_others_are_refused(tmp_path):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(), model_writer=model, vocab_size=60, minloglevel=2
    )
    with pytest.raises(NarError, match="first pieces"):
        Tokenizer(model.getvalue())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": []}, "cannot learn"),
        ({"vocab_size": 20}, "cannot learn 20"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"pieces": "word"}, "pieces='word'.*unigram, bpe, words"),
        ({"character_coverage": 1.5}, "character_coverage=1.5"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(NarError, match=message):
        Tokenizer.train(**{"texts": sentences(), **options})

"""Pretrained models whose pieces are numbered as ours: they write the same, and are saved."""

import dataclasses
import io
import string

import numpy as np
import pytest
import sentencepiece as trainer

import nar
from experiments.data import GrammarData
from experiments.run import train
from experiments.runs import resolve
from experiments.start import take_model
from nar.data.tokenizer import BLANK, EOS, MASK, PAD, SEP, UNK, Tokenizer
from nar.errors import NarError
from nar.pretrained import adopt
from nar.training import save_model
from tests.experiments.test_run import TINY
from tests.pretrained import tiny
from tests.pretrained.test_pretrained import fast_vocabulary

TEXTS = ["the dog", "ein Hund", "a b", "Ω", "", "the dog sleeps a b c d"]
IDS = {
    "t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "llama": {"unk_id": 0, "bos_id": 1, "eos_id": 2},
}


def sentencepiece(**ids):
    """A vocabulary numbered as these models number theirs; all of their 40 ids are pieces."""
    model, letters = io.BytesIO(), " ".join(string.ascii_lowercase + string.digits[:7])
    trainer.SentencePieceTrainer.train(
        sentence_iterator=iter(3 * ["the dog sleeps", "ein Hund", letters]),
        model_writer=model, vocab_size=40, minloglevel=2, **ids,
    )  # fmt: skip
    return model.getvalue()


@pytest.mark.parametrize("name", ["marian", "t5", "llama"])
def test_an_adopted_model_writes_what_it_wrote(tmp_path, name):
    tiny.write(tmp_path / "theirs", name)
    if name != "marian":
        (tmp_path / "theirs" / "spiece.model").write_bytes(sentencepiece(**IDS[name]))
    model, tokenizer = adopt(tmp_path / "theirs")
    save_model(tmp_path / "ours", model)
    tokenizer.save(tmp_path / "ours")
    theirs, ours = nar.load(tmp_path / "theirs"), nar.load(tmp_path / "ours")
    assert ours.model.spec.mask == MASK
    assert ours.model.spec.blank == BLANK
    before, after = theirs.encode(TEXTS), ours.encode(TEXTS)
    pieces = [
        [t.pieces(row)[:-1] for row in rows]
        for t, rows in ((theirs.tokenizer, before), (ours.tokenizer, after))
    ]
    assert pieces[0] == pieces[1]
    decoder = nar.Greedy(max_length=8, scores=True)
    found = {}
    for who, translator, rows in (("theirs", theirs, before), ("ours", ours, after)):
        output = nar.decode(decoder, translator.model, nar.Source.of(rows))
        tokens = [row[:n] for row, n in zip(output.tokens, output.length, strict=True)]
        found[who] = [translator.tokenizer.pieces(row) for row in tokens]
    banned = {*ours.tokenizer.pieces(ours.model.config.banned)}
    known, compared = {*ours.tokenizer.pieces(range(ours.tokenizer.vocab_size))} - banned, 0
    for one, two in zip(found["theirs"], found["ours"], strict=True):
        same = next((i for i, piece in enumerate(one) if piece not in known), len(one))
        assert two[:same] == one[:same]  # up to where it wrote what ours cannot
        compared += same
    assert compared >= 6


def test_the_trained_part_is_moved_and_the_new_part_is_zero(tmp_path):
    tiny.write(tmp_path, "marian")
    theirs, (model, tokenizer) = nar.load(tmp_path), adopt(tmp_path)
    table, old = (np.asarray(m.embedding.table[...]) for m in (model, theirs.model))
    names = tokenizer.pieces(range(tokenizer.vocab_size))
    numbers = {piece: n for n, piece in enumerate(theirs.tokenizer.pieces(range(40)))}
    for piece in names[SEP + 1 :]:
        np.testing.assert_array_equal(table[names.index(piece)], old[numbers[piece]])
    config = theirs.model.config
    for ours, its in ((PAD, config.pad), (UNK, numbers["<unk>"]), (EOS, config.eos)):
        np.testing.assert_array_equal(table[ours], old[its])
    assert not table[[MASK, BLANK, SEP]].any()
    assert {PAD, MASK, BLANK, SEP} <= set(model.config.banned)
    assert EOS not in model.config.banned


def test_texts_are_split_as_before():
    plain = tiny.sentencepiece()
    again = Tokenizer.renumbered(Tokenizer.renumbered(plain).model)
    assert again.encode(TEXTS) == Tokenizer(plain).encode(TEXTS)


def test_what_cannot_be_adopted_is_named(tmp_path):
    tiny.write(tmp_path / "marian", "marian")
    other = Tokenizer.train(["xyz zyx xzy"], vocab_size=20).model
    (tmp_path / "marian" / "target.spm").write_bytes(other)
    with pytest.raises(NarError, match="source and target have different pieces"):
        adopt(tmp_path / "marian")
    tiny.write(tmp_path / "llama", "llama")
    fast_vocabulary(tmp_path / "llama", ["<pad>", "<s>", "</s>", "the", "dog"])
    with pytest.raises(NarError, match=r"tokenizer\.json: only SentencePiece's"):
        adopt(tmp_path / "llama")
    tiny.write(tmp_path / "endless", "llama_endless")
    with pytest.raises(NarError, match="no token that ends an output"):
        adopt(tmp_path / "endless")


# ------------------------------------------------------------------------------------ experiments
def pretrained(tmp_path):
    """An experiment that takes a tiny Marian model."""
    (tmp_path / "models").mkdir()
    tiny.write(tmp_path / "models" / "m", "marian")
    model = adopt(tmp_path / "models" / "m")[0].config
    return dataclasses.replace(
        TINY, name="theirs", data=GrammarData(sizes=(40, 10, 10)), model=model, pretrained="m"
    )


def test_an_experiment_takes_a_pretrained_model(tmp_path):
    experiment = pretrained(tmp_path)
    train(experiment, tmp_path / "runs" / "theirs", None, tmp_path / "models")
    found = nar.load(tmp_path / "runs" / "theirs" / "model")
    assert resolve(found.model.config) == resolve(experiment.model)
    train(experiment, tmp_path / "runs" / "theirs", None)  # it is there: nobody asks where from


def test_a_pretrained_model_that_does_not_fit_is_refused(tmp_path):
    experiment = pretrained(tmp_path)
    with pytest.raises(NarError, match="takes the model m/: say where with --models-dir"):
        train(experiment, tmp_path / "run", None)
    wide = dataclasses.replace(experiment.model, max_positions=64)
    other = dataclasses.replace(experiment, model=wide)
    with pytest.raises(NarError, match="another shape: max_positions is 32 there and 64 here"):
        take_model(other, tmp_path / "run", tmp_path / "models")
    with pytest.raises(NarError, match="a model begins with one"):
        dataclasses.replace(experiment, start="tiny")

"""Models that draft for others, or rank for them, with vocabulary files and tables of their own."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nar
from nar.data.tokenizer import shared
from nar.testing import oracles
from tests.pretrained import tiny
from tests.pretrained.tiny import change, fast_vocabulary

WORDS = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(3, 30))]
ROWS, WIDER, MOST = 40, 48, 8


@pytest.fixture
def directories(tmp_path):
    """A target, and one that is alike: its table is padded, and its `tokenizer.json` spelled so."""
    for name in ("target", "draft"):
        tiny.write(tmp_path / name, "llama")
        fast_vocabulary(tmp_path / name, WORDS)
    widen(tmp_path / "draft")
    path = tmp_path / "draft" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=3, sort_keys=True))
    return tmp_path / "target", tmp_path / "draft"


def widen(directory):
    """Pads the table with its own first rows, which are as likely as they are."""
    change(directory, vocab_size=WIDER)
    tensors = load_file(directory / "model.safetensors")
    for name, x in tensors.items():
        if len(x) == ROWS:
            tensors[name] = np.resize(x, (WIDER, *x.shape[1:]))
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def end_with(directory, token):
    for file in ("config.json", "generation_config.json"):
        change(directory, file, eos_token_id=token)


def test_a_draft_model_with_a_padded_table_and_another_end(directories):
    target, draft = directories
    end_with(draft, 7)
    translator = nar.load(target, draft=draft)
    sources = nar.Source.of([[1, 5, 6], [1], [1, 9]])
    decoder = nar.SpeculativeDecoding(max_length=MOST, guesses=3)
    output, steps = jax.device_get(nar.trace(decoder, translator.model, sources))
    right = oracles.greedy(translator.model.models["target"], sources, MOST)
    np.testing.assert_array_equal(output.tokens, right.tokens)
    assert (output.stats.live < output.length).all()
    assert steps.view.tokens[..., 1:].max() < len(WORDS)
    alone = oracles.teacher_forced(translator.model.models["draft"].model, sources, output.tokens)
    assert alone.argmax(-1).max() >= len(WORDS)  # what it would have guessed


def test_a_causal_model_with_a_padded_table_ranks(directories):
    """Its numbers are the target's, so what it likes best is the first of a beam."""
    target, other = directories
    translator = nar.load(target, reranker=other)
    sources = nar.Source.of([[1, 5, 6], [1], [1, 9]])
    beam = nar.Beam(max_length=MOST, beams=3, nbest=3)
    ranked = nar.decode(nar.NoisyParallel(max_length=MOST, base=beam), translator.model, sources)
    first = nar.decode(beam, nar.load(target).model, sources)
    np.testing.assert_array_equal(ranked.tokens, first.tokens)
    end_with(other, 7)
    with pytest.raises(nar.IncompatibleModel, match="reranker model's eos is 7 and the target's 2"):
        nar.load(target, reranker=other).make_decoder("noisy-parallel:base=(beam:nbest=3)", MOST)


def test_other_pieces_are_named(directories, tmp_path):
    target, draft = directories
    fast_vocabulary(draft, [*WORDS[:9], "other", *WORDS[10:], "more"])
    with pytest.raises(nar.NarError, match="id 9 stands for 'w9' in one and for 'other' in the o"):
        nar.load(target, draft=draft)
    fast_vocabulary(draft, [*WORDS, "more", "and more"])
    nar.load(target, draft=draft)
    for name in ("marian", "marian_separate"):
        tiny.write(tmp_path / name, name)
    numbers = (tmp_path / "marian" / "vocab.json").read_text()
    (tmp_path / "marian_separate" / "target_vocab.json").write_text(numbers)
    nar.load(tmp_path / "marian", draft=tmp_path / "marian_separate")
    turned = {piece: 39 - number for piece, number in json.loads(numbers).items()}
    (tmp_path / "marian_separate" / "vocab.json").write_text(json.dumps(turned))
    with pytest.raises(nar.NarError, match="id 0 stands for '</s>' in one and for '<pad>' in the"):
        nar.load(tmp_path / "marian", draft=tmp_path / "marian_separate")


def test_files_of_several_kinds_hold_one_vocabulary(tmp_path):
    tiny.write(tmp_path, "t5")
    slow = nar.load(tmp_path).tokenizer
    pieces = slow.pieces(range(slow.vocab_size))
    fast_vocabulary(tmp_path, [*pieces, "<extra_id_1>"])
    fast = nar.load(tmp_path).tokenizer
    assert type(fast) is not type(slow)
    assert shared(slow, fast) == shared(fast, slow) == slow.vocab_size == fast.vocab_size - 1


def test_outputs_of_a_decoder_only_model_end(directories):
    """For a corpus and for n-grams: nothing begins them, and EOS ends them."""
    vocabulary = nar.load(directories[0]).tokenizer
    assert vocabulary.encode(["w5 w6"], prompt=True) == [[1, 5, 6]]
    assert vocabulary.encode_outputs(["w5 w6", ""]) == [[5, 6, 2], [2]]


def test_an_n_gram_model_of_a_decoder_only_model(directories, tmp_path, capsys):
    from nar.cli import main

    (tmp_path / "texts").write_text("w5 w6\nw5 w7 w7\n")
    files = {"model": directories[0], "text": tmp_path / "texts", "output": tmp_path / "arpa"}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    main(["ngram", *options, "--order", "2"])
    assert "w7\t" in (tmp_path / "arpa").read_text()
    assert "w7 </s>" in (tmp_path / "arpa").read_text()
    assert "<s> w5" in (tmp_path / "arpa").read_text()
    end_with(directories[0], 7)
    with pytest.raises(SystemExit, match="error: the model ends texts with w7, and n-gram models"):
        main(["ngram", *options])


def test_vocabularies_of_ours_may_be_smaller_than_a_table():
    tokenizer = tiny.Tokenizer(tiny.sentencepiece())
    size = tokenizer.vocab_size
    assert tokenizer.decode([[7, size, 8, size + 5, -1, 3]]) == tokenizer.decode([[7, 8, 3]])
    assert tokenizer.pieces([size - 1, size])[1] == f"<{size}>"

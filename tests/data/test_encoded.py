import numpy as np
import pytest

from nar.data.encoded import Encoded, encode_corpus
from nar.data.tokenizer import EOS
from nar.errors import NarError


class Numbers:
    """A tokenizer of texts that are numbers already."""

    vocab_size = 60_000
    fingerprint = "numbers"

    def encode(self, texts):
        return [[*map(int, text.split()), EOS] for text in texts]


def test_encoded_pairs_are_those_of_the_corpus(tmp_path):
    pairs = [(f"{i} 8", " ".join(["9"] * (i % 7))) for i in range(5000)]
    corpus = encode_corpus(pairs, Numbers(), tmp_path)
    assert len(corpus) == 5000
    for i in (0, 1, 4095, 4096, 4999, -1):
        source, target = corpus[i]
        assert source.tolist() == [*map(int, pairs[i][0].split()), EOS]
        assert target.tolist() == [*map(int, pairs[i][1].split()), EOS]
    lengths = np.concatenate([block for _, block in corpus.lengths()])
    assert lengths.tolist() == [[3, i % 7 + 1] for i in range(5000)]


def test_encoding_is_done_once_and_never_stale(tmp_path):
    class Counting(Numbers):
        calls = 0

        def encode(self, texts):
            self.calls += 1
            return super().encode(texts)

    tokenizer = Counting()
    encode_corpus([("1", "2")], tokenizer, tmp_path)
    encode_corpus([("1", "2")], tokenizer, tmp_path)
    assert tokenizer.calls == 1
    assert encode_corpus([("1", "3")], tokenizer, tmp_path)[0][1].tolist() == [3, EOS]
    tokenizer.fingerprint = "another"
    encode_corpus([("1", "2")], tokenizer, tmp_path)
    assert tokenizer.calls == 3


def test_two_processes_may_encode_at_once(tmp_path):
    class Slow(Numbers):
        def encode(self, texts):
            encode_corpus([("1", "2")], Numbers(), tmp_path)  # the other one is done first
            return super().encode(texts)

    assert encode_corpus([("1", "2")], Slow(), tmp_path)[0][0].tolist() == [1, EOS]
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_of_an_encoding_that_fails(tmp_path):
    with pytest.raises(ValueError, match="invalid literal"):
        encode_corpus([("1", "2")] * 5000 + [("x", "y")], Numbers(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_large_vocabularies_need_wider_integers(tmp_path):
    class Large(Numbers):
        vocab_size = 1 << 17

    assert encode_corpus([("70000", "1")], Large(), tmp_path)[0][0].tolist() == [70000, EOS]


def test_damaged_token_files_are_named(tmp_path):
    pairs = [("1 2", "3 4")] * 10
    encode_corpus(pairs, Numbers(), tmp_path)
    (folder,) = tmp_path.iterdir()
    (tokens,) = folder.glob("tokens.*")
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(NarError, match=f"{folder} is damaged.*59 of 60 tokens"):
        encode_corpus(pairs, Numbers(), tmp_path)
    tokens.unlink()
    with pytest.raises(NarError, match=f"{folder} is damaged"):
        Encoded(folder)


def test_an_empty_corpus_is_an_error(tmp_path):
    with pytest.raises(NarError, match="empty"):
        encode_corpus([], Numbers(), tmp_path)

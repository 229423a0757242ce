"""N-gram language models: trained here or read from ARPA files, and scored inside of jit."""

import os
from collections.abc import Sequence

from nar.data.tokenizer import Vocabulary
from nar.errors import NarError
from nar.ngram.arpa import END, ends, read_arpa, write_arpa
from nar.ngram.kneser_ney import kneser_ney
from nar.ngram.model import LANGUAGE, NGram

__all__ = ["LANGUAGE", "NGram", "ends", "kneser_ney", "learn_arpa", "read_arpa", "write_arpa"]


def learn_arpa(
    path: str | os.PathLike[str], texts: Sequence[str], tokenizer: Vocabulary, *, order: int = 4
) -> None:
    """Learns a language model of a tokenizer's pieces, and writes it as an ARPA file.

    Args:
        path: of the file.
        texts: like those to write.
        tokenizer: whose pieces.
        order: pieces of the longest n-grams.

    Raises:
        NarError: the order is below 1, there are no texts, or the tokenizer does not have the
            beginning and the end of a text that n-gram models have.
    """
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    bos, eos = ends(pieces)
    rows = tokenizer.encode_outputs(texts)
    if other := {row[-1] for row in rows} - {eos}:
        ending = tokenizer.pieces([*other])[0]
        raise NarError(f"the model ends texts with {ending}, and n-gram models end them with {END}")
    learned = kneser_ney(rows, order=order, vocab_size=len(pieces), bos=bos, eos=eos)
    write_arpa(path, learned, pieces)

"""A corpus as token ids: encoded once, into files that are memory-mapped."""

import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from nar.data.text import Corpus, fingerprint
from nar.data.tokenizer import Tokenizer
from nar.errors import NarError
from nar.files import naming

_STARTS = "starts.int64"
_BLOCK = 1 << 16  # pairs whose lengths are looked at together


class Encoded:
    """A corpus as token ids in memory-mapped files; `encoded[i]` is a pair of integer arrays.

    Args:
        folder: what `encode_corpus` wrote.

    Raises:
        NarError: the files are damaged.
    """

    def __init__(self, folder: pathlib.Path):
        try:
            (path,) = folder.glob("tokens.*")
            self._tokens = np.asarray(np.memmap(path, path.suffix[1:], mode="r"))
            self._start = np.asarray(np.memmap(folder / _STARTS, np.int64, mode="r"))
        except (OSError, TypeError, ValueError) as error:
            raise NarError(f"{folder} is damaged: delete it ({error})") from error
        if self._start[-1] != len(self._tokens):
            raise NarError(
                f"{folder} is damaged: delete it ({len(self._tokens)} of {self._start[-1]} tokens)"
            )

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self._start) // 2

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The source and the target ids of a pair."""
        i = 2 * range(len(self))[index]
        first, middle, last = self._start[i : i + 3]
        return self._tokens[first:middle], self._tokens[middle:last]

    def lengths(self) -> Iterator[tuple[int, Int[np.ndarray, "pairs 2"]]]:
        """The source and target lengths, in blocks: the first pair's number, and `[pairs, 2]`."""
        for i in range(0, len(self), _BLOCK):
            starts = self._start[2 * i : 2 * (i + _BLOCK) + 1]
            yield i, np.diff(starts).reshape(-1, 2)


def encode_corpus(
    pairs: Corpus, tokenizer: Tokenizer, directory: str | os.PathLike[str]
) -> Encoded:
    """Encodes a corpus once, into files that later calls find again.

    Their folder is named after the contents of the corpus and of the tokenizer, and appears when it
    is complete: what is found is never stale and never half written.

    Args:
        pairs: source and target texts.
        tokenizer: ends every sequence in EOS.
        directory: where the files go: 2 bytes a token (4 beyond 65,536 pieces) and 16 a pair.

    Raises:
        NarError: the corpus is empty, or the files that are there are damaged.
    """
    if not len(pairs):
        raise NarError("the corpus is empty: it needs at least one pair")
    name = f"{fingerprint(pairs)[:16]}-{tokenizer.fingerprint[:16]}"
    folder = pathlib.Path(directory) / name
    if not folder.is_dir():
        partial = folder.with_name(f"{name}.{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        try:
            with naming(partial):
                _write(pairs, tokenizer, partial)
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process wrote the same in the meantime
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Encoded(folder)


def _write(pairs: Corpus, tokenizer: Tokenizer, folder: pathlib.Path) -> None:
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32)
    position = np.zeros(1, np.int64)
    with open(folder / f"tokens.{dtype}", "wb") as tokens, open(folder / _STARTS, "wb") as starts:
        starts.write(position.tobytes())
        for i in range(0, len(pairs), 4096):
            block = [pairs[j] for j in range(i, min(i + 4096, len(pairs)))]
            rows = tokenizer.encode([text for pair in block for text in pair])
            tokens.write(np.concatenate(rows).astype(dtype).tobytes())
            position = position[-1] + np.cumsum([len(row) for row in rows])
            starts.write(position.tobytes())

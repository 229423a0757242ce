"""Parallel text in a folder of `<split>.<language>` files, one sentence a line, in UTF-8.

A byte order mark before the first line is no text.
"""

import collections
import functools
import hashlib
import mmap
import os
import pathlib
import tempfile
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from nar.errors import NarError, nearest
from nar.files import decode_line, naming


class Corpus(Protocol):
    """Pairs of a source and a target text, by number: a list of tuples will do.

    A corpus that is dear to read may have a `fingerprint`, a string that changes with its content.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[str, str]: ...


class Pairs:
    """Random access to the lines of two files, `<split>.<source>` and `<split>.<target>`.

    Nothing is kept in memory, whatever the size: both the text and the index of line starts (8
    bytes a line, in an unnamed temporary file) are memory-mapped. Making one reads both files once.

    Args:
        folder: where the files are.
        split: for example "train"; neither it nor a language needs to be one of a fixed list.
        source_language: the extension of the source's file, for example "en".
        target_language: the extension of the target's file.

    Raises:
        NarError: a file is missing (what there is is named, nearest first), empty, not UTF-8 (its
            line is named), or the files have different numbers of lines.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str,
        source_language: str,
        target_language: str,
    ):
        paths = [_find(folder, split, name) for name in (source_language, target_language)]
        self._source, self._target = (_Lines(path) for path in paths)
        if len(self._source) != len(self._target):
            raise NarError(
                f"{paths[0]} has {len(self._source)} lines and {paths[1]} has "
                f"{len(self._target)}: line n of the one must translate line n of the other"
            )

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[str, str]:
        """The source and the target of a pair, without their line ends."""
        return self._source[index], self._target[index]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of both files' contents."""
        return hash_files(self._source.path, self._target.path)


def texts(corpus: Corpus) -> Iterator[str]:
    """All sources and targets, one pair after the other, to learn a joint vocabulary from."""
    for i in range(len(corpus)):
        yield from corpus[i]


def fingerprint(corpus: Corpus) -> str:
    """A string that changes with the corpus: its own `fingerprint`, or a hash of every pair."""
    if known := getattr(corpus, "fingerprint", None):
        return known
    digest = hashlib.sha256()
    for i in range(len(corpus)):
        digest.update(repr(corpus[i]).encode())
    return digest.hexdigest()


def hash_files(*paths: str | os.PathLike[str]) -> str:
    """A hash of the contents of files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def overlap(train: Corpus, test: Corpus) -> int:
    """Counts the test pairs that also occur in training, and warns when there are any.

    Pairs are compared without regard to case, spacing and compatibility forms (NFKC). The test set
    is held in memory, the training set is read once.
    """
    seen = collections.Counter(_normal(test[i]) for i in range(len(test)))
    known = {pair for i in range(len(train)) if (pair := _normal(train[i])) in seen}
    count = sum(seen[pair] for pair in known)
    if count:
        warnings.warn(f"{count} of {len(test)} test pairs are also in training", stacklevel=2)
    return count


class _Lines:
    """Random access to the lines of one file, by an index of where they start."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        if not path.stat().st_size:
            raise NarError(f"{path} is empty: it needs at least one line")
        place = tempfile.gettempdir()
        with naming(place), open(path, "rb") as file, tempfile.TemporaryFile() as index:
            position = np.zeros(1, np.int64)
            index.write(position.tobytes())
            count = 0
            while lines := file.readlines(1 << 18):
                _check_utf8(b"".join(lines), path, count)
                position = position[-1] + np.cumsum([len(line) for line in lines])
                index.write(position.tobytes())
                count += len(lines)
            index.flush()
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._start = np.memmap(index, np.int64, mode="r")

    def __len__(self) -> int:
        return len(self._start) - 1

    def __getitem__(self, index: int) -> str:
        i = range(len(self))[index]
        line = self._text[self._start[i] : self._start[i + 1]]
        return decode_line(line, i)


def _check_utf8(text: bytes, path: pathlib.Path, lines_before: int) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line = lines_before + text.count(b"\n", 0, error.start) + 1
        raise NarError(f"{path}, line {line}: not UTF-8 ({error.reason})") from None


def _find(folder: str | os.PathLike[str], split: str, language: str) -> pathlib.Path:
    """The path of `<split>.<language>`; what there is instead, when it is missing."""
    folder = pathlib.Path(folder)
    path = folder / f"{split}.{language}"
    if path.is_file():
        return path
    if not folder.is_dir():
        raise NarError(f"{folder} is not a folder: it must hold files named <split>.<language>")
    found = collections.defaultdict(list)
    for file in folder.iterdir():
        name, dot, extension = file.name.partition(".")
        if name and dot and file.is_file():
            found[name].append(extension)
    if split in found:
        raise NarError(f"{path} is missing; split {split!r} has: {nearest(language, found[split])}")
    raise NarError(f"{path} is missing; the splits there are: {nearest(split, found)}")


def _normal(pair: tuple[str, str]) -> tuple[str, ...]:
    return tuple(" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in pair)

"""Sequence-level distillation (Kim & Rush 2016, https://arxiv.org/abs/1606.07947): the sources of a
corpus, and what a teacher makes of them.

    train.src  train.tgt  ...   a pair of files a split
    provenance.json             which teacher, decoder and sources; at the end, how many lines
    train.0-of-1.journal        while it lasts: what is translated, see `nar.lines.Journal`

Processes share the work by windows of lines, which are batched as one process would batch them: how
many they are, and how often they are killed, does not change a byte.
"""

import contextlib
import itertools
import json
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nar.core import Decoder
from nar.data.text import Corpus, Pairs
from nar.errors import NarError, at_least, differences
from nar.files import read_json, replacing, write
from nar.lines import Journal, Lines, digest, one_line, translations, windows_of

if TYPE_CHECKING:
    from nar.translator import Translator

PROVENANCE, SOURCE, TARGET = "provenance.json", "src", "tgt"


def distill(
    translator: "Translator",
    corpora: Mapping[str, Corpus],
    decoder: Decoder,
    directory: str | os.PathLike[str],
    *,
    about: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> bool:
    """Translates the sources of corpora; the same call goes on where an earlier one was stopped.

    Sources longer than the model reads are cut, with a warning. An empty output stays, so that
    lines belong together; they are counted in a warning.

    Args:
        translator: the teacher.
        corpora: by split; their targets are not looked at.
        decoder: the teacher's.
        directory: where to; a corpus that is whole there is not translated again.
        about: what else to note in `provenance.json`.
        batch_size: sources decoded together.
        shard: `(i, n)`: this process does the i-th of n parts; any order, at once or one by one.
        progress: told how far each split is.

    Returns:
        Whether the corpus is whole. If not, other shards are not done yet.

    Raises:
        NarError: no such shard, the directory holds what another teacher, decoder or batch size
            made, or made of other sources (the differences are named), or another process does
            the same shard.
    """
    _check_shard(*shard)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    sources = {split: _sources(corpus) for split, corpus in corpora.items()}
    settings = {
        "weights": translator.weights,
        "decoder": repr(decoder),
        "batch_size": batch_size,
        "sources": {split: digest(lines) for split, lines in sources.items()},
    }
    with _alone(directory):
        if _claim(directory / PROVENANCE, settings, about or {}):
            return True
    for split, lines in sources.items():
        mine = sum(map(len, windows_of(lines, batch_size)[slice(shard[0], None, shard[1])]))
        with Journal(_journal(directory, split, *shard), settings) as journal:
            for _ in translations(
                translator,
                lines,
                decoder,
                batch_size=batch_size,
                truncate=True,
                journal=journal,
                shard=shard,
                progress=lambda done, split=split, mine=mine: progress(split, done, mine),
            ):
                pass  # the journal keeps them
    with _alone(directory):  # the last process finds what all others have done
        empty = {
            split: _join(directory, split, lines, settings, shard[1])
            for split, lines in sources.items()
        }
        if None in empty.values():
            return "lines" in read_json(directory / PROVENANCE)  # another one was the last
        counts = {split: len(lines) for split, lines in sources.items()}
        _note(directory / PROVENANCE, {"lines": counts, "empty": empty})
        for path in directory.glob("*.journal"):
            path.unlink()
        return True


def load_distilled(
    directory: str | os.PathLike[str], split: str, original: Corpus | None = None
) -> Pairs:
    """A split of what `distill` made.

    Args:
        directory: where it is.
        split: its name.
        original: what it must have been made of; None: that is not checked.

    Raises:
        NarError: there is nothing, it is not whole, or it was made of another text.
    """
    directory = pathlib.Path(directory)
    if not (directory / PROVENANCE).is_file() or "lines" not in read_json(directory / PROVENANCE):
        raise NarError(f"{directory} holds no whole distilled corpus")
    made_of = read_json(directory / PROVENANCE)["sources"]
    if original is not None and made_of.get(split) != digest(_sources(original)):
        raise NarError(f"{directory} was made of another text than the {split} text asked for")
    return Pairs(directory, split, SOURCE, TARGET)


def _sources(corpus: Corpus) -> Lines:
    return Lines(f"{one_line(corpus[i][0])}\n".encode() for i in range(len(corpus)))


def _check_shard(index: int, count: int) -> None:
    at_least("shards", count, 1)
    if index not in range(count):
        raise NarError(f"shard={index}/{count}: it must be one of 0/{count} to {count - 1}/{count}")


@contextlib.contextmanager
def _alone(directory: pathlib.Path) -> Iterator[None]:
    """One process at a time is in here; others wait."""
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _claim(path: pathlib.Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> bool:
    """Notes what the corpus is made of, and says whether it is whole already."""
    if not path.exists():
        _note(path, {**about, **settings})
        return False
    found = read_json(path)
    there = {name: found.get(name) for name in settings}
    if different := list(differences(there, settings)):
        raise NarError(
            f"{path.parent} holds another distilled corpus: {'; '.join(different)}. Move it away "
            "to make a new one"
        )
    return "lines" in found


def _note(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    found = read_json(path) if path.exists() else {}
    write(path, json.dumps({**found, **record}, indent=2) + "\n")


def _journal(directory: pathlib.Path, split: str, index: int, count: int) -> pathlib.Path:
    return directory / f"{split}.{index}-of-{count}.journal"


def _join(
    directory: pathlib.Path, split: str, lines: Lines, settings: Mapping[str, Any], shards: int
) -> int | None:
    """Writes a split when its journals are full; how many outputs are empty, or None: not yet."""
    paths = [_journal(directory, split, index, shards) for index in range(shards)]
    if not all(path.exists() for path in paths):
        return None
    with contextlib.ExitStack() as stack:
        try:
            journals = [stack.enter_context(Journal(path, settings)) for path in paths]
        except NarError:  # another process is still writing it
            return None
        for journal in journals:
            journal.begin(lines)
        windows = windows_of(lines, settings["batch_size"])
        parts = list(zip(windows, itertools.cycle(journals), strict=False))
        if any(lines[i].strip() for window, journal in parts for i in journal.lacks(window)):
            return None
        empty = 0
        source = stack.enter_context(replacing(directory / f"{split}.{SOURCE}"))
        target = stack.enter_context(replacing(directory / f"{split}.{TARGET}"))
        for window, journal in parts:
            results = journal.read(window)
            texts = {i: one_line(result.text) for i, result in results.items()}
            empty += sum(not texts.get(i) for i in window)
            source.write("".join(f"{lines[i]}\n" for i in window).encode())
            target.write("".join(f"{texts.get(i, '')}\n" for i in window).encode())
    if empty:
        warnings.warn(f"{empty} of {len(lines)} outputs of {split} are empty", stacklevel=3)
    return empty

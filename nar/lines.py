"""Lines in, lines out: in order, batched by length, with a journal that outlives its process."""

import array
import hashlib
import json
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Array, Int, Key

from nar.core import Decoder
from nar.ends import check_stops
from nar.errors import NarError, at_least, differences, named_lines
from nar.files import decode_line, naming
from nar.results import EMPTY, Result

if TYPE_CHECKING:
    from nar.translator import Translator

WINDOW = 32
"""So many batches of lines are sorted by length together, and come out together."""

LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")

_BLOCK = 4096  # lines whose tokens are counted together


class Lines:
    """The lines of a stream, kept as bytes: they take little more memory than the text itself.

    Only LF and CRLF end a line, and the last one may have no end. A byte order mark before the
    first one is no text.

    Args:
        stream: the bytes of each line.
        read: makes the text that a line stands for of it, when it is asked for; by default the line
            itself.
    """

    def __init__(self, stream: Iterable[bytes], read: Callable[[str], str] | None = None):
        self._read = read
        self._text, self._starts = bytearray(), array.array("q", [0])
        for line in stream:
            self._text += line.removesuffix(b"\n")
            self._starts.append(len(self._text))

    def __len__(self) -> int:
        """The number of lines."""
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        """A line; a NarError names its number when something is wrong with it."""
        i = range(len(self))[index]
        return text_of(self._text[self._starts[i] : self._starts[i + 1]], i, self._read)


class Sources:
    """The token ids of lines, end to end, encoded once; none of a blank line.

    They take about as much memory as the text itself, and a list of lists ten times that.
    """

    def __init__(self, translator: "Translator", lines: "Lines | Sequence[str]"):
        self._ids, self._ends = array.array("i"), np.zeros(len(lines) + 1, np.int64)
        for start in range(0, len(lines), _BLOCK):
            block = range(start, min(start + _BLOCK, len(lines)))
            texts = {i: text for i in block if (text := lines[i]).strip()}
            for i, ids in zip(texts, translator.encode(list(texts.values())), strict=True):
                self._ids.extend(ids)
                self._ends[i + 1] = len(ids)
        np.cumsum(self._ends, out=self._ends)

    @property
    def lengths(self) -> Int[np.ndarray, " lines"]:
        """The number of tokens of every line."""
        return np.diff(self._ends)

    def __getitem__(self, index: int) -> list[int]:
        """A line's token ids."""
        return self._ids[self._ends[index] : self._ends[index + 1]].tolist()


def read_texts(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a file that are not blank."""
    with open(path, "rb") as file:
        lines = Lines(file)
    return [text for i in range(len(lines)) if (text := lines[i]).strip()]


def one_line(text: str) -> str:
    """A text whose line breaks are blanks; piece by piece it comes to the same."""
    return LINE_BREAK.sub(" ", text)


def text_of(line: bytes | bytearray, number: int, read: Callable[[str], str] | None = None) -> str:
    """A line without its end; the first one, of number 0, without a byte order mark.

    Args:
        line: its bytes.
        number: from 0; errors name it as people count.
        read: makes the text that it stands for of a line that is not blank.

    Raises:
        NarError: it is not UTF-8, or `read` raises one.
    """
    try:
        text = decode_line(line, number)
        if read is None:
            return text
        text = read(text) if text.strip() else ""
        text.encode()
        return text
    except UnicodeDecodeError as error:
        raise NarError(f"line {number + 1} is not UTF-8 ({error.reason})") from None
    except UnicodeEncodeError as error:
        raise NarError(f"line {number + 1} holds half of a character ({error.reason})") from None
    except NarError as error:
        raise NarError(f"line {number + 1}: {error}") from error


# ----------------------------------------------------------------------------------- translation
def translations(
    translator: "Translator",
    lines: Lines | Sequence[str],
    decoder: Decoder,
    *,
    batch_size: int = 64,
    key: Key[Array, ""] | None = None,
    truncate: bool = False,
    stop: Sequence[str] = (),
    journal: "Journal | None" = None,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int], None] = lambda done: None,
    nbest: int = 0,
) -> Iterator[list[Result]]:
    """Translates lines, in windows of `WINDOW` batches whose lines are sorted by length.

    What can be wrong with a line is found before the first one is translated; what went wrong with
    outputs is counted in warnings after the last one.

    Args:
        translator: model and tokenizer.
        lines: blank ones stay empty.
        decoder: how.
        batch_size: the most rows decoded together; for fewer lines the next power of two.
        key: of random decoders; a line's sample depends on it and on the line's number alone.
        truncate: cut lines of more tokens than the model reads, and warn.
        stop: strings that end an output before them.
        journal: what it holds is not translated again; what is translated is added to it.
        shard: `(i, n)`: only the windows i, i + n, i + 2 n, ...: n processes share the work, and
            batch the lines as one would.
        progress: told how many lines are done.
        nbest: how many outputs a line to keep beside.

    Returns:
        What became of the lines, window by window, in order.

    Raises:
        IncompatibleModel: the model lacks what the decoder needs.
        NarError: lines are too long or not UTF-8 (they are named, counted from 1), a stop string
            is empty, or the journal is another run's.
    """
    at_least("batch_size", batch_size, 1)
    batch_size = min(batch_size, 1 << max(len(lines) - 1, 0).bit_length())
    stop = check_stops(stop)
    room, encoded = translator.room(decoder), Sources(translator, lines)
    counts = encoded.lengths
    if room is not None and (counts > room).any():
        numbers = np.flatnonzero(counts > room) + 1
        long = f"{named_lines(numbers)}: longer than the {room} tokens that fit"
        if not truncate:
            raise NarError(f"{long}. Shorten them, or have them cut (truncate)")
        warnings.warn(f"{long}, and cut", stacklevel=2)
    if journal is not None:
        journal.begin(lines)

    def windows() -> Iterator[list[Result]]:
        done, flaws = 0, Flaws(decoder)
        for window in windows_of(lines, batch_size)[slice(shard[0], None, shard[1])]:
            found = {} if journal is None else journal.read(window)
            silent = {i: EMPTY for i in window if not counts[i] and lines[i].strip()}
            if journal is not None and silent.keys() - found.keys():
                journal.add(silent)  # no token stands for these: they are done as well
            rest = [i for i in window if counts[i] and i not in found]
            progress(done := done + len(window) - len(rest))
            sources = [encoded[i] for i in rest]
            if room is not None:
                sources = [s if len(s) <= room else translator.cut(s, room) for s in sources]
            for places, results in translator.outputs(
                sources,
                decoder,
                batch_size=batch_size,
                key=key,
                numbers=rest,
                stop=stop,
                nbest=nbest,
            ):
                new = {rest[place]: result for place, result in zip(places, results, strict=True)}
                if journal is not None:
                    journal.add(new)
                found |= new
                progress(done := done + len(new))
            flaws.count(found)
            yield [found.get(i, EMPTY) for i in window]
        flaws.warn(len(lines))

    return windows()


FLAWS: Mapping[str, Callable[[Result], bool]] = {
    "are cut at max_length={decoder.max_length} tokens": lambda result: (
        result.finish_reason == "length"
    ),
    "broke off where the model's logits were NaN, and keep what was written before": (
        lambda result: result.finish_reason == "nan"
    ),
}
"""What can be wrong with outputs, in words, and how it is seen."""


class Flaws:
    """Counts what is wrong with a decoder's outputs, so that one warning tells all of a kind."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder
        self._found = {flaw: array.array("q") for flaw in FLAWS}

    def count(self, results: Mapping[int, Result]) -> None:
        """Looks at some results, by line number from 0."""
        for flaw, has in FLAWS.items():
            self._found[flaw].extend(i + 1 for i in sorted(results) if has(results[i]))

    def warn(self, lines: int) -> None:
        """Says what was found among so many lines."""
        for flaw, numbers in self._found.items():
            if numbers:
                said = f"{len(numbers)} of {lines} outputs {flaw.format(decoder=self._decoder)}"
                warnings.warn(f"{said}: {named_lines(numbers)}", stacklevel=3)


def windows_of(lines: Lines | Sequence[str], batch_size: int) -> list[range]:
    """The numbers of the lines that are sorted by length together."""
    size = WINDOW * batch_size
    return [range(i, min(i + size, len(lines))) for i in range(0, len(lines), size)]


# --------------------------------------------------------------------------------------- journal
class Journal:
    """What is translated so far, in a file that is only appended to: a JSON object a line.

    The first line says of what run it is; each other one holds what became of a batch, by line
    number from 0: a text, or the fields of a `Result`. So a process that is killed, at any moment,
    leaves whole batches and at most a part of one, which is dropped.

    Args:
        path: the file, made when it is not there; no other process can have it until `close`.
        settings: what the translations depend on beside the lines; JSON-able.

    Raises:
        NarError: the file cannot be opened, or another process has it.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]):
        import fcntl

        self._path, self._settings = pathlib.Path(path), settings
        try:
            self._file = open(path, "a+b")  # noqa: SIM115
        except OSError as error:
            raise NarError(f"{path} cannot be a journal: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise NarError(f"another process is writing the journal {path}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the file up."""
        with naming(self._path):
            self._file.close()

    def begin(self, lines: Lines | Sequence[str]) -> None:
        """Finds what is translated of these lines; a new file becomes their journal.

        Raises:
            NarError: the file is damaged, another run's (the differences are named), or no journal.
        """
        run = {**self._settings, "lines": len(lines), "text": digest(lines)}
        header = json.dumps({_KIND: run}).encode() + b"\n"
        self._record = np.full(len(lines), -1, np.int64)  # where in the file; -1: nowhere
        self._file.seek(0)
        first = self._file.readline()
        if not header.startswith(first):
            raise NarError(f"{self._path} {_difference(first, run)}")
        if first != header:  # a new file, or its process was killed at once
            self._file.truncate(0)
            self._append(header)
            return
        end = len(header)
        for number, line in enumerate(self._file, 2):
            if not line.endswith(b"\n"):
                self._file.truncate(end)
                break
            try:
                self._record[list(_results(line))] = end
            except (ValueError, TypeError, AttributeError, IndexError) as error:
                raise NarError(
                    f"{self._path}, line {number}: damaged. Without this file, all is translated "
                    "again"
                ) from error
            end += len(line)

    def read(self, window: range) -> dict[int, Result]:
        """What `begin` found of some lines, by number."""
        found = {}
        records = np.unique(self._record[window.start : window.stop])
        for place in records[records >= 0]:
            self._file.seek(place)
            found |= _results(self._file.readline())
        return {i: result for i, result in found.items() if i in window}

    def lacks(self, window: range) -> list[int]:
        """The numbers of the lines, of some, that `begin` did not find."""
        return [i for i in window if self._record[i] < 0]

    def add(self, results: Mapping[int, Result]) -> None:
        """Keeps what became of a batch."""
        records = {i: result.record() for i, result in results.items()}
        self._append(json.dumps(records, ensure_ascii=False).encode() + b"\n")

    def _append(self, line: bytes) -> None:
        with naming(self._path):
            self._file.write(line)
            self._file.flush()


_KIND = "nar translate"


def _results(line: bytes) -> dict[int, Result]:
    return {int(i): Result.of_record(record) for i, record in json.loads(line).items()}


def _difference(header: bytes, run: Mapping[str, Any]) -> str:
    """What another journal's first line, or that of any file, has instead of a run's."""
    try:
        found = dict(json.loads(header)[_KIND])
    except (ValueError, TypeError, KeyError):
        return "is no journal of translations; it was left as it is"
    return f"is the journal of another run: {'; '.join(differences(found, run))}"


def digest(lines: Lines | Sequence[str]) -> str:
    """A string that changes with the lines."""
    found = hashlib.sha256()
    for i in range(len(lines)):
        text = repr(lines[i]) if "\n" in lines[i] else lines[i]
        found.update(f"{text}\n".encode())
    return found.hexdigest()[:12]

r"""N-gram models as text, in the ARPA format that n-gram tools share.

    \data\
    ngram 1=4
    ngram 2=3

    \1-grams:
    -0.6	the	-0.3
    ...
    \end\

An entry is log10 of the probability of its last word after those before it, the words, and log10 of
the back-off weight, where there are longer n-grams. The words are pieces of a vocabulary.
"""

import io
import itertools
import math
import os
import pathlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nar.errors import NarError
from nar.files import replacing
from nar.ngram.model import FLOOR, Grams, NGram

LN10 = math.log(10)
START, END, UNKNOWN = "<s>", "</s>", "<unk>"

BLANKS = re.compile("[ \t]+")  # pieces may hold other ones


def word(piece: str) -> str:
    """How a piece is spelled: words of the format hold no blanks; `<0x09>` stands for a tab."""
    return re.sub("[ \t\r\n]", lambda blank: f"<0x{ord(blank[0]):02X}>", piece)


class Reader:
    """The lines that are not blank; `line` is the last that was read, None at the end."""

    def __init__(self, path: pathlib.Path):
        try:
            self._lines = enumerate(io.StringIO(path.read_bytes().decode(), newline="\n"), start=1)
        except UnicodeDecodeError as error:
            raise NarError(f"{path} is no ARPA file: it is not UTF-8 ({error.reason})") from None
        self.path, self.number, self.line = path, 0, ""

    def read(self) -> str | None:
        """The next line."""
        self.line = ""
        while self.line == "":
            self.number, line = next(self._lines, (self.number, None))
            self.line = None if line is None else line.strip(" \t\r\n")
        return self.line

    def entries(self) -> Iterator[str]:
        """The lines before the next that begins with a backslash."""
        while (line := self.read()) is not None and not line.startswith("\\"):
            yield line

    def broken(self, what: str, number: float | None = None) -> NarError:
        """What is wrong at a line, by default the last that was read."""
        return NarError(
            f"{self.path}, line {self.number if number is None else int(number)}: {what}"
        )

    def expect(self, wanted: str) -> None:
        """Raises a NarError unless this is the line that was read last."""
        if self.line != wanted:
            found = "the end of the file" if self.line is None else f"'{self.line}'"
            raise self.broken(f"{found}, where {wanted} must stand")


class Entries(NamedTuple):
    """The n-grams of one order as they stand in a file.

    Attributes:
        tokens: `[count, order]`.
        logprob: `[count]`, natural.
        backoff: `[count]`, natural.
        number: `[count]`, of their lines.
    """

    tokens: np.ndarray
    logprob: np.ndarray
    backoff: np.ndarray
    number: np.ndarray


def ends(pieces: Sequence[str]) -> tuple[int, int]:
    """The tokens before and after a text, `<s>` and `</s>`.

    Raises:
        NarError: the vocabulary does not have them.
    """
    for word in (START, END):
        if word not in pieces:
            raise NarError(f"the vocabulary has no {word}: n-gram models need it")
    return pieces.index(START), pieces.index(END)


def read_arpa(path: str | os.PathLike[str], pieces: Sequence[str]) -> NGram:
    """Reads a model over a vocabulary.

    N-grams of words that are no pieces are left out, with a warning that counts the words. A piece
    that the file lacks has the probability of `<unk>`; if the file lacks that too, it never occurs.

    Args:
        path: of a file in UTF-8.
        pieces: of each token; `<s>` and `</s>` must be among them.

    Raises:
        NarError: the file is damaged, and where; or the vocabulary is another one.
    """
    bos, eos = ends(pieces)
    reader = Reader(pathlib.Path(path))
    ids = {word(piece): token for token, piece in reversed(list(enumerate(pieces)))}
    unknown: set[str] = set()
    orders: list[Grams] = []
    sizes = header(reader)
    for order, size in enumerate(sizes, start=1):
        entries = section(reader, order, size, ids, unknown, longest=order == len(sizes))
        found = sort(reader, entries, orders, len(pieces))
        orders.append(found if orders else complete(reader, found, ids, len(pieces)))
    reader.expect("\\end\\")
    if unknown:
        some = ", ".join(sorted(unknown)[:3] + ["..."] * (len(unknown) > 3))
        warnings.warn(
            f"{path}: {len(unknown)} of its {sizes[0]} words are no pieces of the vocabulary "
            f"({some}); their n-grams are left out",
            stacklevel=2,
        )
    return NGram.of(orders, bos=bos, eos=eos)


def header(reader: Reader) -> list[int]:
    """How many n-grams there are of each order; the line after them has been read then."""
    while reader.read() != "\\data\\":
        if reader.line is None:
            raise NarError(f"{reader.path} is no ARPA file: none of its lines is \\data\\")
    sizes: list[int] = []
    for line in reader.entries():
        match = re.fullmatch(r"ngram\s+(\d+)\s*=\s*(\d+)", line)
        if match is None or int(match[1]) != len(sizes) + 1:
            raise reader.broken(f"'{line}', where ngram {len(sizes) + 1}=COUNT must stand")
        sizes.append(int(match[2]))
    if not sizes:
        reader.expect("ngram 1=COUNT")
    return sizes


def section(
    reader: Reader, order: int, size: int, ids: dict[str, int], unknown: set[str], *, longest: bool
) -> Entries:
    """Reads the n-grams of an order; words that are no pieces are added to `unknown`."""
    reader.expect(f"\\{order}-grams:")
    tokens, scores, count = [], [], 0
    for line in reader.entries():
        count += 1
        score, *words = BLANKS.split(line)
        weight = words.pop() if len(words) == order + 1 and not longest else "0"
        try:
            logprob, backoff = float(score), float(weight)
        except ValueError:
            logprob = backoff = math.nan
        if len(words) != order or not logprob <= 0 or not backoff < math.inf:
            more = "" if longest else " and, if any, log10 of a weight"
            raise reader.broken(
                f"'{line}', where log10 of a probability, {order} words{more} must stand"
            )
        if new := [word for word in words if word not in ids]:
            unknown.update(new)
            continue
        tokens.append([ids[word] for word in words])
        scores.append((logprob, backoff, reader.number))
    if count != size:
        raise reader.broken(f"{count} {order}-grams end before it, and the header has {size}")
    logprob, backoff, number = np.array(scores, np.float64).reshape(-1, 3).T
    logprob, backoff = (np.maximum(x * LN10, FLOOR) for x in (logprob, backoff))
    return Entries(np.array(tokens, np.int64).reshape(-1, order), logprob, backoff, number)


def sort(reader: Reader, entries: Entries, orders: Sequence[Grams], vocab_size: int) -> Grams:
    """The n-grams of an order by context, which is found among those of the orders below."""
    context = np.zeros(len(entries.tokens), np.int64)
    for grams, column in zip(orders, entries.tokens.T, strict=False):
        key, wanted = grams.context * vocab_size + grams.token, context * vocab_size + column
        context = np.searchsorted(key, wanted)
        if (absent := np.append(key, -1)[context] != wanted).any():
            raise reader.broken(
                "the words before the last have no entry", entries.number[absent][0]
            )
    last = entries.tokens[:, -1]
    key = context * vocab_size + last
    rank = np.argsort(key, kind="stable")
    if (again := np.diff(key[rank]) == 0).any():
        raise reader.broken("these words have an entry already", entries.number[rank[1:][again]][0])
    return Grams(*(x[rank] for x in (context, last, entries.logprob, entries.backoff)))


def complete(reader: Reader, found: Grams, ids: dict[str, int], vocab_size: int) -> Grams:
    """The n-grams of order 1, and all other tokens as `<unk>`."""
    for word in (START, END):
        if ids[word] not in found.token:
            raise NarError(f"{reader.path}: {word} is none of its 1-grams, and must be one")
    unk = found.logprob[found.token == ids.get(UNKNOWN)]
    logprob = np.full(vocab_size, unk[0] if unk.size else FLOOR)
    backoff = np.zeros(vocab_size)
    logprob[found.token], backoff[found.token] = found.logprob, found.backoff
    return Grams(np.zeros(vocab_size, np.int64), np.arange(vocab_size), logprob, backoff)


def write_arpa(path: str | os.PathLike[str], model: NGram, pieces: Sequence[str]) -> None:
    """Writes a model; what `read_arpa` makes of it is equal.

    Args:
        path: of the file, whole or not at all.
        model: what to write.
        pieces: of each token; `<s>` and `</s>` of `model.bos` and `model.eos`.

    Raises:
        NarError: a piece is empty, or another token's too.
    """
    pieces = [word(piece) for piece in pieces]
    uses = Counter(pieces)
    for token, piece in enumerate(pieces):
        if not piece or uses[piece] > 1:
            raise NarError(f"token {token} is {piece!r}: words of ARPA are not empty, and differ")
    token, child = np.asarray(model.token), np.asarray(model.child)
    logprob, backoff = (np.asarray(x, np.float64) / LN10 for x in (model.logprob, model.backoff))
    words = [""]  # of each node
    for before in np.repeat(np.arange(len(backoff)), np.diff(child)):
        piece = pieces[int(token[len(words)])]
        words.append(f"{words[before]} {piece}" if before else piece)
    first = [1]  # node of each order
    for _ in range(model.order):
        first.append(int(child[first[-1]]))
    sections = list(itertools.pairwise(first))
    with replacing(path) as file:
        file.write(b"\\data\\\n")
        for order, (start, end) in enumerate(sections, start=1):
            file.write(f"ngram {order}={end - start}\n".encode())
        for order, (start, end) in enumerate(sections, start=1):
            file.write(f"\n\\{order}-grams:\n".encode())
            for node in range(start, end):
                weight = f"\t{backoff[node]:.9g}" if node < len(backoff) else ""
                file.write(f"{logprob[node]:.9g}\t{words[node]}{weight}\n".encode())
        file.write(b"\n\\end\\\n")

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
from jaxtyping import Float, Int

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
            text = path.read_bytes().decode("utf-8-sig")  # some editors put a mark before it
            self._lines = enumerate(io.StringIO(text, newline="\n"), start=1)
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
    An n-gram that others begin with, and that pruning took away, comes back with the probability
    that backing off gives it, which changes no score (so KenLM reads SRILM's files).

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
    sizes = header(reader)
    entries = [
        section(reader, order, size, ids, unknown, longest=order == len(sizes))
        for order, size in enumerate(sizes, start=1)
    ]
    reader.expect("\\end\\")
    orders = trie(reader, entries, ids, len(pieces))
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
        weight = words.pop() if len(words) == order + 1 else "0"
        try:
            logprob, backoff = float(score), float(weight)
        except ValueError:
            logprob = backoff = math.nan
        odd = backoff != 0 if longest else not backoff < math.inf
        if len(words) != order or not logprob <= 0 or odd:
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


def trie(
    reader: Reader, entries: Sequence[Entries], ids: dict[str, int], vocab_size: int
) -> list[Grams]:
    """The n-grams of all orders by context; what longer ones begin with is among the shorter."""
    orders: list[Grams] = []
    # Of each n-gram the place, in the order below, of as many of its tokens as have been found.
    place = [np.zeros(len(found.tokens), np.int64) for found in entries]
    for k, own in enumerate(entries):
        grams = sort(reader, own, place[k], vocab_size)
        longer = [
            place[n] * vocab_size + entries[n].tokens[:, k] for n in range(k + 1, len(entries))
        ]
        if k == 0:
            grams = complete(reader, grams, ids, vocab_size)
        elif longer:
            absent = np.setdiff1d(np.concatenate(longer), keys(grams, vocab_size))
            grams = insert(grams, absent, orders, vocab_size)
        orders.append(grams)
        place[k + 1 :] = [np.searchsorted(keys(grams, vocab_size), key) for key in longer]
    return orders


def keys(grams: Grams, vocab_size: int) -> Int[np.ndarray, " count"]:
    """A number for each n-gram of an order, ascending: its context's place and its last token."""
    return grams.context * vocab_size + grams.token


def sort(
    reader: Reader, entries: Entries, context: Int[np.ndarray, " count"], vocab_size: int
) -> Grams:
    """The n-grams of an order by context, then by token.

    Args:
        reader: names the line of an n-gram that is there twice.
        entries: in the file's order.
        context: of each, its place in the order below.
        vocab_size: tokens.
    """
    grams = Grams(context, entries.tokens[:, -1], entries.logprob, entries.backoff)
    key = keys(grams, vocab_size)
    rank = np.argsort(key, kind="stable")
    if (again := np.diff(key[rank]) == 0).any():
        raise reader.broken("these words have an entry already", entries.number[rank[1:][again]][0])
    return Grams(*(x[rank] for x in grams))


def insert(
    grams: Grams, absent: Int[np.ndarray, " count"], orders: Sequence[Grams], vocab_size: int
) -> Grams:
    """An order with more n-grams: they are as likely as backing off makes them, and weigh nothing.

    Args:
        grams: those that the file has.
        absent: the keys of the others.
        orders: all those below.
        vocab_size: tokens.
    """
    context, token = np.divmod(absent, vocab_size)
    tokens, at = [token], context
    for below in reversed(orders):
        tokens.insert(0, below.token[at])
        at = below.context[at]
    logprob = orders[-1].backoff[context]
    logprob = logprob + backed_off(orders, np.stack(tokens[1:], axis=1), vocab_size)
    logprob = np.maximum(logprob, FLOOR)
    more = Grams(context, token, logprob, np.zeros(len(absent)))
    both = Grams(*(np.concatenate(pair) for pair in zip(grams, more, strict=True)))
    rank = np.argsort(keys(both, vocab_size), kind="stable")
    return Grams(*(x[rank] for x in both))


def backed_off(
    orders: Sequence[Grams], tokens: Int[np.ndarray, "count order"], vocab_size: int
) -> Float[np.ndarray, " count"]:
    """The log-probability of the last token after those before it.

    Args:
        orders: n-grams, up to this order at least.
        tokens: n-grams of one order, known or not.
        vocab_size: tokens.
    """
    place = find(orders, tokens, vocab_size)
    found = np.append(orders[tokens.shape[1] - 1].logprob, 0.0)[place]
    if (place >= 0).all():  # at the latest, a token by itself is there
        return found
    before = find(orders, tokens[:, :-1], vocab_size)
    weight = np.append(orders[tokens.shape[1] - 2].backoff, 0.0)[before]
    shorter = weight + backed_off(orders, tokens[:, 1:], vocab_size)
    return np.where(place >= 0, found, shorter)


def find(
    orders: Sequence[Grams], tokens: Int[np.ndarray, "count order"], vocab_size: int
) -> Int[np.ndarray, " count"]:
    """The places of n-grams in their order, -1 of those that are not there."""
    place = np.zeros(len(tokens), np.int64)
    for grams, column in zip(orders, tokens.T, strict=False):
        key, wanted = np.append(keys(grams, vocab_size), -1), place * vocab_size + column
        at = np.searchsorted(key[:-1], wanted)
        place = np.where((place >= 0) & (key[at] == wanted), at, -1)
    return place


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

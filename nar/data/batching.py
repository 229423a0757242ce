"""From a corpus to batches of few fixed shapes, in memory that does not grow with the corpus.

    pairs -> encode_corpus -> Encoded (files) -> Plan -> training_batches

Texts become token ids once, in files that are memory-mapped. A plan sorts the pairs into buckets
of similar length, and computes the n-th batch of an endless run from n alone: its shuffles are
pseudo-random permutations that are evaluated, never stored. So the whole state is one number.
"""

import bisect
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from flax import struct
from jaxtyping import Array, Int

from nar.core import Source
from nar.data.encoded import Encoded
from nar.data.tokenizer import PAD
from nar.errors import NarError, at_least
from nar.files import naming

if TYPE_CHECKING:
    import grain


@struct.dataclass
class Batch:
    """Pairs to train on; a row that only fills the shape has target length 0 and source length 1.

    Attributes:
        source: the inputs, each ending in EOS.
        target: `[batch, time]`, padded on the right, each row ending in EOS.
        target_length: `[batch]`, EOS included.
    """

    source: Source
    target: Int[Array, "batch time"]
    target_length: Int[Array, " batch"]


# ------------------------------------------------------------------------------- plan of batches
class Plan:
    """Which pairs make which batch: buckets by length, and shuffles that need no memory.

    A pair belongs to the narrowest bucket that its longer side fits. Each bucket has one shape, so
    there are few compilations. The pairs that do not fill a last batch of their bucket move on to
    the next wider one, so only one batch of an epoch has filler rows. Every pair appears once in an
    epoch, shuffled within its bucket, and the batches are shuffled across buckets.

    Args:
        encoded: the corpus.
        tokens_per_batch: the most padded positions of a batch, source and target together, over all
            hosts.
        seed: of the shuffles.
        max_length: the most tokens of a source or a target, EOS included.
        overlong: "drop": longer pairs are left out; "cut": what does not fit before EOS is. Both
            are counted in a warning.
        multiple_of: rows are a multiple of it, and of `process_count`, to be split over devices.
        width_multiple: times are multiples of it. 4 pads less than 8 (on captions by a tenth of all
            positions), for more shapes to compile.
        process_index: this host, which gets rows `process_index::process_count` of every batch.
        process_count: the number of hosts.

    Attributes:
        shapes: (rows over all hosts, source time, target time) of each bucket.
        too_long: the number of pairs that were dropped or cut.

    Raises:
        NarError: an argument is out of its range, no pair is short enough, or the budget is too
            small for one batch.
    """

    def __init__(
        self,
        encoded: Encoded,
        tokens_per_batch: int = 4096,
        *,
        seed: int = 0,
        max_length: int = 256,
        overlong: Literal["drop", "cut"] = "drop",
        multiple_of: int = 1,
        width_multiple: int = 8,
        process_index: int = 0,
        process_count: int = 1,
    ):
        at_least("tokens_per_batch", tokens_per_batch, 1)
        at_least("seed", seed, 0)
        at_least("max_length", max_length, 2)
        at_least("multiple_of", multiple_of, 1)
        at_least("width_multiple", width_multiple, 1)
        at_least("process_count", process_count, 1)
        if process_index not in range(process_count):
            raise NarError(f"process_index={process_index}: it must be in 0..{process_count - 1}")
        if overlong not in ("drop", "cut"):
            raise NarError(f'overlong={overlong!r}: it must be "drop" or "cut"')
        self._encoded, self._seed, self._max_length = encoded, seed, max_length
        self._host = process_index, process_count
        edges = widths(max_length, width_multiple)

        # Two passes over the lengths: count the pairs of each bucket, then write down which they
        # are. After the buckets comes one more, of the pairs that are dropped.
        counts = np.zeros(len(edges) + 1, np.int64)
        longest = np.zeros((len(edges) + 1, 2), np.int64)
        self.too_long = 0
        for _, lengths, bucket in _by_bucket(encoded, edges, overlong):
            counts += np.bincount(bucket, minlength=len(counts))
            np.maximum.at(longest, bucket, lengths)
            self.too_long += int(np.count_nonzero(lengths.max(1) > max_length))
        if not counts[:-1].any():
            raise NarError(f"all {len(encoded)} pairs are longer than {max_length=} tokens")
        if self.too_long:
            warnings.warn(
                f"{self.too_long} of {len(encoded)} pairs are longer than {max_length=} tokens: "
                + ("dropped" if overlong == "drop" else "cut"),
                stacklevel=2,
            )
        with naming(tempfile.gettempdir()), tempfile.TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # else a full disk ends the process, without a word
                os.posix_fallocate(file.fileno(), 0, 8 * len(encoded))
            self._order = np.memmap(file, np.int64, mode="w+", shape=len(encoded))
        free = np.cumsum(counts) - counts
        for start, _, bucket in _by_bucket(encoded, edges, overlong):
            for k in np.unique(bucket):
                pairs = start + np.flatnonzero(bucket == k)
                self._order[free[k] : free[k] + len(pairs)] = pairs
                free[k] += len(pairs)

        times = np.minimum(-(-longest[:-1] // width_multiple) * width_multiple, max_length)
        self._buckets = _fill(
            counts[:-1],
            np.maximum.accumulate(times),
            tokens_per_batch,
            math.lcm(multiple_of, process_count),
        )
        self._first = [bucket.first for bucket in self._buckets]
        self._batches = self._buckets[-1].first + self._buckets[-1].batches
        self.shapes = tuple((b.rows, b.source_time, b.target_time) for b in self._buckets)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self._batches

    def epoch(self, number: int = 0) -> Iterator[Batch]:
        """All batches of one epoch, for example to validate."""
        return map(self.batch, range(number * len(self), (number + 1) * len(self)))

    def batch(self, step: int) -> Batch:
        """This host's rows of batch `step` >= 0, counted over all epochs, as NumPy arrays."""
        epoch, step = divmod(step, len(self))
        number = int(_shuffled(np.array([step]), len(self), (self._seed, epoch, 0))[0])
        k = bisect.bisect_right(self._first, number) - 1
        bucket, (host, hosts) = self._buckets[k], self._host
        begin = (number - bucket.first) * bucket.rows
        places = np.arange(begin + host, min(begin + bucket.rows, bucket.pairs), hosts)
        places = _shuffled(places, bucket.pairs, (self._seed, epoch, 1 + k))
        pairs = [self._encoded[i] for i in self._order[bucket.start + places]]
        rows = bucket.rows // hosts
        source, source_length = self._pad([pair[0] for pair in pairs], rows, bucket.source_time)
        target, target_length = self._pad([pair[1] for pair in pairs], rows, bucket.target_time)
        return Batch(Source(source, np.maximum(source_length, 1)), target, target_length)

    def _pad(self, ids: list[np.ndarray], rows: int, time: int) -> tuple[Any, Any]:
        tokens, length = np.full((rows, time), PAD, np.int32), np.zeros(rows, np.int32)
        for i, row in enumerate(ids):
            length[i] = n = min(len(row), self._max_length)
            tokens[i, :n] = row[:n]
            tokens[i, n - 1] = row[-1]  # EOS, also where the row is cut
        return tokens, length


class _Bucket(NamedTuple):
    """`batches` batches from number `first` on, of the pairs at `start` and after in the order."""

    rows: int
    source_time: int
    target_time: int
    start: int
    pairs: int
    first: int
    batches: int


def _fill(
    counts: np.ndarray, times: np.ndarray, tokens_per_batch: int, multiple_of: int
) -> list[_Bucket]:
    """Makes whole batches, bucket by bucket; what is left over goes on to the next wider one."""
    buckets, start, end, first = [], 0, 0, 0
    for count, (source_time, target_time) in zip(counts, times, strict=True):
        if not count:
            continue
        end += int(count)
        time = int(source_time + target_time)
        rows = tokens_per_batch // time // multiple_of * multiple_of
        if not rows:
            raise NarError(
                f"tokens_per_batch={tokens_per_batch}: a batch of {multiple_of} rows of "
                f"{source_time} + {target_time} positions needs {multiple_of * time}"
            )
        batches, left = divmod(end - start, rows)
        if left and end == counts.sum():
            batches, left = batches + 1, 0
        if batches:
            pairs = end - start - left
            buckets.append(
                _Bucket(rows, int(source_time), int(target_time), start, pairs, first, batches)
            )
            start, first = start + pairs, first + batches
    return buckets


def _by_bucket(
    encoded: Encoded, edges: Sequence[int], overlong: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of pairs: the first one's number, their lengths, and their buckets."""
    for start, lengths in encoded.lengths():
        longer = lengths.max(1)
        if overlong == "cut":
            longer = np.minimum(longer, edges[-1])
        yield start, lengths, np.searchsorted(edges, longer)


def _shuffled(places: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """Where a pseudo-random permutation of `range(count)` sends some places, without storing it.

    A Feistel network permutes the numbers of 2 * half bits; what falls outside of the range is sent
    on until it is inside (Black and Rogaway, 2002, "Ciphers with arbitrary finite domains").
    """
    half = np.uint64(((count - 1).bit_length() + 1) // 2)
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = np.random.SeedSequence(seed).generate_state(6, np.uint64)
    found = places.astype(np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        left, right = found[outside] >> half, found[outside] & low
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & low)
        found[outside] = left << half | right
        outside = found >= count
    return found.astype(np.int64)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a hash of 64 bits."""
    bits = (bits ^ bits >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ bits >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return bits ^ bits >> np.uint64(31)


def widths(longest: int, multiple_of: int = 8) -> list[int]:
    """The few widths to pad to: multiples, growing by a fifth at most, that end at `longest`."""
    found = [min(multiple_of, longest)]
    while found[-1] < longest:
        wider = max(found[-1] + multiple_of, found[-1] * 6 // 5 // multiple_of * multiple_of)
        found.append(min(wider, longest))
    return found


# --------------------------------------------------------------------------------------- streams
def training_batches(
    encoded: Encoded, tokens_per_batch: int = 4096, **options: Any
) -> "grain.DatasetIterator[Batch]":
    """The batches of a `Plan`, epoch after epoch without end, as a Grain iterator.

    Its `get_state()` is a small dict (the number of the next batch), and `set_state` continues with
    the very same batches, also in the middle of an epoch, given the same corpus and options. A
    thread reads a few batches ahead; there are no worker processes.

    Args:
        encoded: the corpus.
        tokens_per_batch: the most padded positions of a batch, source and target together.
        **options: those of `Plan`.

    Returns:
        Batches of NumPy arrays.
    """
    import grain

    plan = Plan(encoded, tokens_per_batch, **options)
    steps = grain.MapDataset.range(sys.maxsize).map(plan.batch)
    return iter(steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))


def evaluation_batches(
    sources: Sequence[Sequence[int]],
    batch_size: int,
    *,
    max_length: int | None = None,
    width_multiple: int = 8,
    padding: int = 0,
) -> Iterator[tuple[Int[np.ndarray, " rows"], Source]]:
    """Batches of sources of similar length, the longest first, in few shapes.

    Every batch has `batch_size` rows; the last one is filled up with rows of one pad token. To
    restore the order: `for indices, source in ...: for i, row in zip(indices, decode(source))`.

    Args:
        sources: token ids, each source at least one long.
        batch_size: rows.
        max_length: the widest that the model reads: what is wider is an error.
        width_multiple: widths are multiples of it, up to `max_length`.
        padding: so many more padded positions are as costly as one more shape, with its program:
            batches are padded to the width of longer ones for as long as that adds fewer.

    Returns:
        Pairs: the number of each row's source, without filler rows, and the batch.

    Raises:
        NarError: there are no sources, one is empty or too long, or `batch_size` is less than 1.
    """
    at_least("batch_size", batch_size, 1)
    lengths = np.array([len(source) for source in sources])
    if not len(lengths):
        raise NarError("there are no sources: at least one is needed")
    if not lengths.min():
        raise NarError(f"source {int(lengths.argmin())} is empty: every source needs one token")
    longest = int(lengths.max())
    if max_length is not None and longest > max_length:
        raise NarError(
            f"source {int(lengths.argmax())} has {longest} tokens: longer than {max_length=}"
        )
    edges = widths(
        longest + -longest % width_multiple if max_length is None else max_length, width_multiple
    )
    order = np.argsort(-lengths, kind="stable")

    def batches():
        width, added = edges[bisect.bisect_left(edges, longest)], 0
        for i in range(0, len(order), batch_size):
            indices = order[i : i + batch_size]
            rows = [sources[j] for j in indices] + [[PAD]] * (batch_size - len(indices))
            narrowest = edges[bisect.bisect_left(edges, len(rows[0]))]
            added += (width - narrowest) * batch_size
            if added >= padding:
                width, added = narrowest, 0
            yield indices, Source.of(rows, width=width)

    return batches()

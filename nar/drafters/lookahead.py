"""Guesses that the model makes for itself: the n-grams of its own Jacobi trajectories.

Lookahead decoding (Fu et al. 2024, https://arxiv.org/abs/2402.02057, algorithm 2). Every call does
two things at once. A window of `ngram - 1` rows by `window` columns holds the last iterates of a
Jacobi iteration over the next positions: row l, column i is a guess for the position l + i after
the last token. Its newest row's predictions complete an n-gram in every column, which goes into a
pool. And the pool's n-grams that begin with the last token are verified, in the same call.
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from nar.drafters.drafter import Draft, Drafter, Layout
from nar.drafters.history import History
from nar.errors import NarError, at_least
from nar.ops import at_rows


class Pool(struct.PyTreeNode):
    """The newest distinct n-grams of each row, newest first; -1 where there is none yet.

    Attributes:
        grams: `[batch, pool, ngram]`.
    """

    grams: Int[Array, "batch pool ngram"]

    def add(
        self, new: Int[Array, "batch count ngram"], valid: Bool[Array, "batch count"]
    ) -> "Pool":
        """With more n-grams, the first one newest; older copies of them are dropped."""
        size = self.grams.shape[1]
        new = jnp.where(valid[..., None], new, -1)
        grams = jnp.concatenate([new, self.grams], axis=1)
        place = np.arange(grams.shape[1])
        copies = (new[:, :, None] == grams[:, None]).all(-1) & (place[: new.shape[1], None] < place)
        kept = ~copies.any(1) & (grams[..., 0] >= 0)
        order = jnp.argsort(~kept, axis=1, stable=True)[:, :size]
        kept = jnp.take_along_axis(kept, order, axis=1)
        return Pool(jnp.where(kept[..., None], at_each(grams, order), -1))

    def after(self, token: Int[Array, " batch"], count: int) -> Int[Array, "batch count rest"]:
        """The rest of the newest n-grams that begin with a token; -1 where there are fewer."""
        hit = self.grams[..., 0] == token[:, None]
        order = jnp.argsort(~hit, axis=1, stable=True)[:, :count]
        found = at_each(self.grams, order)[..., 1:]
        return jnp.where(jnp.take_along_axis(hit, order, axis=1)[..., None], found, -1)


def at_each(x: Int[Array, "batch n k"], index: Int[Array, "batch m"]) -> Int[Array, "batch m k"]:
    """Rows of `x` by number, for every batch row."""
    return jnp.take_along_axis(x, index[..., None], axis=1)


class Carry(struct.PyTreeNode):
    """The window `[batch, ngram - 1, window]`, the pool, and the history that fed it."""

    window: Int[Array, "batch rows columns"]
    pool: Pool
    history: History


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookahead(Drafter):
    """A window of trajectories, and a pool of the n-grams that they left.

    Attributes:
        window: W, columns: positions that are iterated ahead.
        ngram: N, tokens of an n-gram; rows of the window, and one.
        candidates: G, n-grams verified a call.
        pool: n-grams that a row keeps.
        seed: also fill the pool from the source or prompt.
        written: also fill it from what is written.
    """

    window: int
    ngram: int
    candidates: int
    pool: int
    seed: bool = True
    written: bool = True

    def __post_init__(self):
        for name, lowest in (("window", 1), ("ngram", 2), ("candidates", 1), ("pool", 1)):
            at_least(name, getattr(self, name), lowest)
        if self.pool < self.candidates:
            raise NarError(f"pool={self.pool}: it must hold at least candidates={self.candidates}")

    @property
    def depth(self):
        """An n-gram's tokens after the one that is known."""
        return self.ngram - 1

    @functools.cached_property
    def layout(self) -> Layout:
        """Window nodes, row by row, then the candidates, one after the other.

        A token of the window sees row 0 up to its column, and its own column in earlier rows. A
        candidate's token sees the last token and the candidate up to itself.
        """
        rows, columns = np.divmod(np.arange(self.depth * self.window), self.window)
        first = (rows == 0) & (columns <= columns[:, None])
        above = (columns == columns[:, None]) & (rows <= rows[:, None])
        window, chain = len(rows), self.depth
        nodes = window + np.arange(self.candidates * chain).reshape(self.candidates, chain)
        mask = np.zeros((window + nodes.size,) * 2, bool)
        mask[:window, :window] = first | above
        mask[window:, 0] = True
        mask[window:, window:] = np.kron(np.eye(self.candidates), np.tri(chain)).astype(bool)
        offsets = np.concatenate([rows + columns, np.tile(np.arange(chain) + 1, self.candidates)])
        paths = np.pad(nodes, ((0, 0), (1, 0)))
        return Layout(offsets, mask, paths)

    def init(self, model, source, max_length, key):
        """The first trajectories are the source's tokens, over and over."""
        batch, time = source.tokens.shape
        places = jnp.arange(self.depth * self.window) % source.length[:, None]
        window = jnp.take_along_axis(source.tokens, places, axis=1)
        pool = Pool(jnp.full((batch, self.pool, self.ngram), -1, jnp.int32))
        history = History.of(source, max_length, read=True)
        if self.seed and time >= self.ngram:
            starts = jnp.broadcast_to(
                jnp.arange(time - self.ngram, -1, -1), (batch, time - self.depth)
            )
            pool = pool.add(*self._grams(history, starts))
        return Carry(window.reshape(batch, self.depth, self.window), pool, history)

    def propose(self, model, carry, pending, key):
        """The window, its first token the last one written, and what the pool knows about it."""
        batch = pending.shape[0]
        window = carry.window.at[:, 0, 0].set(pending)
        candidates = carry.pool.after(pending, self.candidates)
        nodes = [window.reshape(batch, -1), candidates.reshape(batch, -1)]
        return Draft(jnp.concatenate(nodes, axis=1), self.layout), carry.replace(window=window)

    def observe(self, model, carry, outcome):
        """New n-grams into the pool; the window moves on by what was accepted."""
        batch, rows, columns = carry.window.shape
        newest = outcome.best[:, (rows - 1) * columns : rows * columns]
        rows_now = jnp.concatenate([carry.window, newest[:, None]], axis=1)
        live = (outcome.count > 0)[:, None]
        pool = carry.pool.add(rows_now.swapaxes(1, 2), jnp.broadcast_to(live, (batch, columns)))
        history = carry.history.write(outcome)
        if self.written:
            ends = history.length[:, None] - jnp.arange(self.ngram)
            new = live & (jnp.arange(self.ngram) < outcome.count[:, None])
            grams, whole = self._grams(history, ends - self.ngram)
            pool = pool.add(grams, whole & new)
        # Columns that the output has passed go on at the far end: any trajectory is better there
        # than a second copy of the last one.
        passed = jnp.maximum(outcome.count, 1)[:, None] - 1
        move = ((passed + jnp.arange(columns)) % columns)[:, None]
        window = jnp.take_along_axis(rows_now[:, 1:], jnp.broadcast_to(move, carry.window.shape), 2)
        return Carry(window, pool, history)

    def _grams(
        self, history: History, starts: Int[Array, "batch count"]
    ) -> tuple[Int[Array, "batch count ngram"], Bool[Array, "batch count"]]:
        """The n-grams that begin at some places of the history, and which of them are whole."""
        places = starts[..., None] + jnp.arange(self.ngram)
        tokens = at_rows(history.tokens, jnp.maximum(places, 0).reshape(len(starts), -1))
        whole = (starts >= 0) & (starts + self.ngram <= history.length[:, None])
        return tokens.reshape(*starts.shape, self.ngram), whole

"""Guesses that are copied from a given corpus, through its suffix array.

As in REST (He et al. 2024, https://arxiv.org/abs/2311.08252): the longest end of the output that
occurs in the corpus is found by binary search, and what followed it there is the guess.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from nar.core import role
from nar.drafters.drafter import Draft, Drafter, Layout
from nar.drafters.history import History
from nar.errors import NarError, at_least
from nar.ops import at_rows

CORPUS = "corpus"
"""The corpus' name in a bundle."""


class SuffixArray(struct.PyTreeNode):
    """A corpus, and its places in the lexicographic order of what begins there.

    Attributes:
        tokens: `[size]`, texts one after the other, -1 between them.
        order: `[size]`, places in `tokens`.
        vocab_size: above the largest token.
    """

    tokens: Int[Array, " size"]
    order: Int[Array, " size"]
    vocab_size: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> Self:
        """Sorts a corpus on the host, by prefix doubling (Manber & Myers 1993).

        Args:
            texts: token ids; no match and no guess goes over the end of a text.

        Raises:
            NarError: there is no token, or one is negative.
        """
        joined = [np.append(np.asarray(text, np.int32), -1) for text in texts]
        tokens = np.concatenate([*joined, np.zeros(0, np.int32)])[:-1]
        if not (tokens >= 0).any():
            raise NarError("an empty corpus: a SuffixArray needs at least one token, 0 or above")
        if (tokens < 0).sum() > len(texts) - 1:
            raise NarError(f"the corpus holds token {tokens.min()}: tokens are 0 or above")
        rank, known = tokens.astype(np.int64), 1
        while True:
            # By the first `known` tokens and by as many after them; after the end comes nothing.
            after = np.append(rank, np.full(known, -2))[known:] + 2
            pair = (rank + 1) * (len(tokens) + tokens.max() + 3) + after
            order = np.argsort(pair, kind="stable")
            new = np.append(0, np.cumsum(np.diff(pair[order]) > 0))
            rank = np.empty_like(rank)
            rank[order] = new
            known *= 2
            if new[-1] == len(tokens) - 1:
                return cls(
                    jnp.asarray(tokens),
                    jnp.asarray(order, jnp.int32),
                    vocab_size=int(tokens.max()) + 1,
                )

    def read(self, place: Int[Array, "*batch"], count: int) -> Int[Array, "*batch count"]:
        """The tokens from some places on; -1 after the end."""
        places = place[..., None] + jnp.arange(count)
        return self.tokens.at[places].get(mode="fill", fill_value=-1)

    def find(
        self, pattern: Int[Array, "*batch most"], length: Int[Array, "*batch"]
    ) -> tuple[Int[Array, "*batch"], Int[Array, "*batch"]]:
        """From where to where `order` holds the occurrences of patterns, by binary search.

        Args:
            pattern: tokens, of which the first `length` are to be found.
            length: of each pattern.
        """
        asked = jnp.arange(pattern.shape[-1]) < length[..., None]
        # The first suffix that is not below the pattern, and the first that is above it.
        equal_too = np.array([False, True]).reshape((2,) + (1,) * length.ndim)

        def halve(_, between):
            low, high = between
            middle = (low + high) // 2
            text = self.read(self.order.at[middle].get(mode="clip"), pattern.shape[-1])
            sign = jnp.where(asked, jnp.sign(text - pattern), 0)
            where = jnp.argmax(sign != 0, axis=-1, keepdims=True)
            sign = jnp.take_along_axis(sign, where, axis=-1)[..., 0]
            before = (sign < 0) | (equal_too & (sign == 0))
            low, high = (
                jnp.where(before & (low < high), middle + 1, low),
                jnp.where(before, high, middle),
            )
            return low, high

        low = jnp.zeros((2, *length.shape), jnp.int32)
        high = jnp.full_like(low, len(self.order))
        (first, end), _ = jax.lax.fori_loop(0, len(self.order).bit_length(), halve, (low, high))
        return first, end


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusLookup(Drafter):
    """What followed the longest end of the output in the corpus.

    Of all occurrences, sorted by what follows, those that stand evenly spread are taken: a single
    candidate is the one in the middle, which goes on as most do as long as more than half agree.

    Attributes:
        guesses: the most tokens to copy.
        ngram: the most last tokens to look for.
        candidates: how many occurrences are copied.
    """

    guesses: int
    ngram: int
    candidates: int = 1

    def __post_init__(self):
        for name in ("guesses", "ngram", "candidates"):
            at_least(name, getattr(self, name), 1)

    @property
    def depth(self):
        """Candidates stand side by side."""
        return self.guesses

    @functools.cached_property
    def layout(self) -> Layout:
        """A chain for each candidate."""
        nodes = np.arange(self.candidates * self.guesses).reshape(self.candidates, -1)
        return Layout.tree([-1, *np.where(nodes % self.guesses, nodes, 0).ravel().tolist()])

    def init(self, model, source, max_length, key):
        """A prompt is part of the text that goes on; a source is another text."""
        return History.of(source, max_length, read=not role(model).spec.encoder)

    def propose(self, model, carry, pending, key):
        """The continuations; nothing where not even the last token occurs."""
        corpus: SuffixArray = role(model, CORPUS)
        first, end, matched = longest_match(corpus, carry, self.ngram)
        spread = 2 * np.arange(self.candidates) + 1
        chosen = first[:, None] + (end - first)[:, None] * spread // (2 * self.candidates)
        place = corpus.order.at[chosen].get(mode="clip") + matched[:, None]
        guesses = corpus.read(place, self.guesses)
        # What follows the end of a text belongs to another one.
        whole = jnp.cumprod(guesses >= 0, axis=-1) * (matched > 0)[:, None, None]
        guesses = jnp.where(whole == 1, guesses, -1).reshape(len(pending), -1)
        return Draft(jnp.concatenate([pending[:, None], guesses], axis=1), self.layout), carry

    def observe(self, model, carry, outcome):
        """The history grows."""
        return carry.write(outcome)


def longest_match(
    corpus: SuffixArray, history: History, ngram: int
) -> tuple[Int[Array, " batch"], Int[Array, " batch"], Int[Array, " batch"]]:
    """From where to where `order` holds each row's last tokens, as many as occur, and how many.

    Args:
        corpus: where to look.
        history: the rows' tokens.
        ngram: the most last tokens to look for.
    """
    batch, length = len(history.length), np.arange(1, ngram + 1)
    start = history.length[:, None] - length
    place = start[..., None] + np.arange(ngram)
    pattern = at_rows(history.tokens, place.reshape(batch, -1)).reshape(place.shape)
    first, end = corpus.find(pattern, jnp.broadcast_to(length, start.shape))
    found: Bool[Array, "batch ngram"] = (start >= 0) & (first < end)
    matched = found.sum(1)  # what occurs, occurs without its first token too
    best = jnp.maximum(matched - 1, 0)
    return at_rows(first, best), at_rows(end, best), matched

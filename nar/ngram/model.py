"""A back-off n-gram model as a trie in arrays, which scores tokens inside of jit."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from nar.ops import first

LANGUAGE = "language"
"""The language model's name in a bundle."""

FLOOR = -99 * math.log(10)
"""The log-probability of what never happens, as ARPA files write it."""


class Grams(NamedTuple):
    """All n-grams of one order, sorted by context, then by token; those of order 1 are all tokens.

    Attributes:
        context: `[count]`, the place of the n-gram without its last token in the order below.
        token: `[count]`, the last token.
        logprob: `[count]`, of the token after the context, natural.
        backoff: `[count]`, log-weight of the order below where what follows the n-gram is unknown.
    """

    context: np.ndarray
    token: np.ndarray
    logprob: np.ndarray
    backoff: np.ndarray


class NGram(struct.PyTreeNode):
    """P(token | tokens before), backing off from the longest known context (Katz 1987).

    The nodes of a trie are the n-grams, shorter ones first; node 0 is the empty one. A state, the
    longest end of the text that is a context, is a node, so that a step never looks at tokens.

    Attributes:
        token: `[nodes]`, an n-gram's last token.
        logprob: `[nodes]`, of that token after those before it.
        suffix: `[nodes]`, the longest known n-gram that is an end of this one.
        backoff: `[contexts]`, log-weight of shorter contexts; all but the longest n-grams are
            contexts.
        child: `[contexts + 1]`, the first n-gram of each context; they stand side by side, sorted.
        order: tokens of the longest n-grams.
        vocab_size: tokens.
        bos: the token before a text; it is never written.
        eos: the token after a text.
    """

    token: Int[Array, " nodes"]
    logprob: Float[Array, " nodes"]
    suffix: Int[Array, " nodes"]
    backoff: Float[Array, " contexts"]
    child: Int[Array, " contexts_and_end"]
    order: int = struct.field(pytree_node=False)
    vocab_size: int = struct.field(pytree_node=False)
    bos: int = struct.field(pytree_node=False)
    eos: int = struct.field(pytree_node=False)

    @classmethod
    def of(cls, orders: Sequence[Grams], *, bos: int, eos: int) -> Self:
        """Builds the trie, on the host.

        Args:
            orders: the n-grams of order 1, 2, ...
            bos: the token before a text.
            eos: the token after a text.
        """
        vocab_size = len(orders[0].token)
        ends = np.cumsum([1, *(len(grams.token) for grams in orders)])
        below = np.concatenate([[0], ends[:-2]])  # where the order below begins
        parent = np.concatenate(
            [grams.context + start for grams, start in zip(orders, below, strict=True)]
        )
        token = np.concatenate([grams.token for grams in orders])
        key = parent * vocab_size + token

        suffix = np.zeros(len(key) + 1, np.int64)
        for start, end in itertools.pairwise(ends[1:]):
            last = token[start - 1 : end - 1]
            context, found = suffix[parent[start - 1 : end - 1]], np.zeros(end - start, bool)
            while not found.all():  # at the latest, every token follows the empty context
                wanted = context * vocab_size + last
                node = 1 + np.minimum(np.searchsorted(key, wanted), len(key) - 1)
                here = ~found & (key[node - 1] == wanted)
                suffix[start:end] = np.where(here, node, suffix[start:end])
                context, found = suffix[context], found | here

        backoff = np.concatenate([[0.0], *(grams.backoff for grams in orders[:-1])])
        child = 1 + np.searchsorted(parent, np.arange(len(backoff) + 1))
        logprob = np.concatenate([[0.0], *(grams.logprob for grams in orders)])
        return cls(
            token=jnp.asarray(np.concatenate([[-1], token]), jnp.int32),
            logprob=jnp.asarray(logprob, jnp.float32),
            suffix=jnp.asarray(suffix, jnp.int32),
            backoff=jnp.asarray(backoff, jnp.float32),
            child=jnp.asarray(child, jnp.int32),
            order=len(orders),
            vocab_size=vocab_size,
            bos=bos,
            eos=eos,
        )

    @property
    def start(self) -> int:
        """The state at the beginning of a text."""
        return 1 + self.bos if self.order > 1 else 0

    def step(
        self, state: Int[Array, "*#batch"], token: Int[Array, "*#batch"] | int
    ) -> tuple[Float[Array, "*batch"], Int[Array, "*batch"]]:
        """Scores a token and goes on after it.

        Args:
            state: of the tokens before, `start` or what a step returned.
            token: each in 0..vocab_size - 1; broadcast against the states, so that
                `step(state[:, None], jnp.arange(vocab_size))` scores the vocabulary.

        Returns:
            The token's log-probability, and the state after it.
        """
        ends = [jnp.asarray(state)]
        for _ in range(self.order - 1):
            ends.append(self.suffix[ends[-1]])
        context = jnp.stack(ends, axis=-1)
        node = self.find(context, jnp.asarray(token)[..., None])
        longest = first(node > 0)[..., None]
        passed = jnp.where(jnp.arange(self.order) < longest, self.backoff[context], 0)
        node = jnp.take_along_axis(node, longest, axis=-1)[..., 0]
        after = jnp.where(node < len(self.backoff), node, self.suffix[node])
        return self.logprob[node] + passed.sum(-1), after

    def find(
        self, context: Int[Array, "*#batch"], token: Int[Array, "*#batch"]
    ) -> Int[Array, "*batch"]:
        """The n-gram of a context and a token, by binary search; 0 where there is none.

        Args:
            context: nodes.
            token: what follows them.
        """
        shape = jnp.broadcast_shapes(context.shape, token.shape)
        low = jnp.broadcast_to(self.child[context], shape)
        end = jnp.broadcast_to(self.child[context + 1], shape)

        def halve(_, between):
            low, high = between
            middle = (low + high) // 2
            before = (low < high) & (self.token.at[middle].get(mode="clip") < token)
            return jnp.where(before, middle + 1, low), jnp.where(before, high, middle)

        low, _ = jax.lax.fori_loop(0, self.vocab_size.bit_length(), halve, (low, end))
        hit = (low < end) & (self.token.at[low].get(mode="clip") == token)
        return jnp.where(hit, low, 0)

"""Acceptance rules of draft and verify: what the model's distribution makes of a draft."""

import abc
import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key

from nar.core import Lossless
from nar.drafters.drafter import Draft
from nar.errors import NarError, at_least, is_number
from nar.ops import argmax, at_rows, fold

COLDEST = 1e-9
"""Divided by it, logits that differ in the last bit of float32 are a hundred nats apart: no sample
tells it from greedy's choice, which of equal logits takes the first."""


class Verdict(struct.PyTreeNode):
    """What to write.

    Attributes:
        path: `[batch]`, the chosen row of `layout.paths`.
        count: `[batch]`, how many tokens to write, 1 to depth + 1.
        tokens: `[batch, depth + 1]`, these tokens.
        best: `[batch, nodes]`, the model's own choice after every node.
    """

    path: Int[Array, " batch"]
    count: Int[Array, " batch"]
    tokens: Int[Array, "batch path"]
    best: Int[Array, "batch nodes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(abc.ABC):
    """Judges a draft by the model's logits."""

    lossless: ClassVar[Lossless]

    @abc.abstractmethod
    def __call__(
        self, logits: Float[Array, "batch nodes vocab"], draft: Draft, key: Key[Array, " batch"]
    ) -> Verdict:
        """The verdict. At least one token is written: the model's own."""


def candidates(
    draft: Draft,
) -> tuple[Int[Array, "batch paths path"], Int[Array, "batch paths path"]]:
    """Every candidate's nodes, and the tokens on them."""
    batch = draft.tokens.shape[0]
    paths = jnp.asarray(draft.layout.paths)
    paths = jnp.broadcast_to(paths, (batch, *paths.shape[-2:]))
    return paths, at_rows(draft.tokens, paths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact(Rule):
    """Accepts the longest candidate that greedy decoding would have written (Stern et al. 2018)."""

    lossless = "greedy"

    def __call__(self, logits, draft, key):
        """A guess is accepted if it is the model's choice after its parent."""
        best = argmax(logits)
        if draft.tokens.shape[1] == 1:
            return Verdict(jnp.zeros_like(best[:, 0]), jnp.ones_like(best[:, 0]), best, best)
        paths, said = candidates(draft)
        told = at_rows(best, paths)
        right = (said[..., 1:] == told[..., :-1]) & (paths[..., 1:] >= 0)
        matched = jnp.cumprod(right, axis=-1).sum(-1)
        path = argmax(matched)
        return Verdict(path, at_rows(matched, path) + 1, at_rows(told, path), best)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(Rule):
    """Writes an exact sample of the model's distribution, whatever the draft.

    Speculative sampling (Leviathan et al. 2023, algorithm 1): a guess x drawn from q is accepted
    with probability min(1, p(x) / q(x)); after a rejection p becomes max(0, p - q), normalised, and
    the next sibling is tried against it (SpecInfer; Miao et al. 2024, algorithm 2). Siblings drawn
    without replacement bring each its own q, in which the earlier ones are impossible: recursive
    rejection (Jeon et al. 2024, https://arxiv.org/abs/2402.14160, algorithm 1). A guess that was
    not drawn has q(x) = 1.

    Attributes:
        temperature: divides the logits; from `COLDEST` down, the likeliest token is certain.
        top_k: keep the k likeliest tokens; None: all.
        top_p: keep the likeliest tokens whose probabilities reach p together; None: all.
    """

    lossless = "distribution"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if not (is_number(self.temperature) and 0 < self.temperature < math.inf):
            raise NarError(
                f"temperature={self.temperature!r}: it must be a finite number above 0 (Greedy is "
                "its limit)"
            )
        if self.top_k is not None:
            at_least("top_k", self.top_k, 1)
        if self.top_p is not None and not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise NarError(f"top_p={self.top_p!r}: it must be in (0, 1]")

    def warp(self, logits: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
        """Log-probabilities after temperature, top-k and top-p; -inf for what is cut."""
        if self.temperature <= COLDEST:
            best = argmax(logits)[..., None] == jnp.arange(logits.shape[-1])
            return jnp.where(best, 0.0, -jnp.inf)
        # The best is 0 before it is divided: of large quotients not even their rounding is certain,
        # since XLA may join a product with the difference that follows it.
        logits = (logits - logits.max(-1, keepdims=True)) / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = jax.lax.top_k(logits, self.top_k)[0][..., -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        logprobs = jax.nn.log_softmax(logits)
        if self.top_p is not None and self.top_p < 1:
            ordered = jnp.sort(jnp.exp(logprobs), axis=-1, descending=True)
            before = jnp.cumsum(ordered, axis=-1) - ordered
            least = jnp.min(jnp.where(before < self.top_p, ordered, jnp.inf), -1, keepdims=True)
            logprobs = jax.nn.log_softmax(jnp.where(jnp.exp(logprobs) < least, -jnp.inf, logprobs))
        return logprobs

    def __call__(self, logits, draft, key):
        """One pass over the nodes, which stand in the order in which they are to be tried."""
        probs = jnp.exp(self.warp(logits))
        drawn = None if draft.logits is None else jax.nn.softmax(draft.logits)
        parents = jnp.broadcast_to(draft.layout.parents, draft.tokens.shape)

        def judge(state, node):
            p, at = state
            x = draft.tokens[:, node]
            q = jax.nn.one_hot(x, p.shape[-1]) if drawn is None else drawn[:, node]
            known = (x >= 0) & (x < p.shape[-1])  # a source's tokens may be another vocabulary's
            tried = (parents[:, node] == at) & known
            u = jax.vmap(jax.random.uniform)(fold(key, node))
            accept = tried & (u * at_rows(q, x) < at_rows(p, x))
            rest = jnp.maximum(p - q, 0)
            total = rest.sum(-1, keepdims=True)  # 0 where p and q differ by rounding alone
            refused = (tried & ~accept)[:, None] & (total > 0)
            p = jnp.where(refused, rest / jnp.where(total > 0, total, 1), p)
            p = jnp.where(accept[:, None], probs[:, node], p)
            return (p, jnp.where(accept, node, at)), None

        p, at = probs[:, 0], jnp.zeros_like(draft.tokens[:, 0])
        if draft.layout.candidates.size:  # without jit, a scan of nothing is an error
            (p, at), _ = jax.lax.scan(judge, (p, at), draft.layout.candidates)
        own = jax.vmap(jax.random.categorical)(fold(key, 0), jnp.log(p))

        paths, said = candidates(draft)
        found = paths == at[:, None, None]
        path = argmax(found.any(-1))
        last = argmax(at_rows(found, path))
        following = jnp.roll(at_rows(said, path), -1, axis=1)
        tokens = jnp.where(jnp.arange(paths.shape[-1]) == last[:, None], own[:, None], following)
        return Verdict(path, last + 1, tokens.astype(jnp.int32), argmax(logits))

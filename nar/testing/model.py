"""The contract of a model: what every decoder takes for granted of the verbs."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from nar.core import NO_EOS, Source, Spec
from nar.drafters import Layout
from nar.model import Model
from nar.testing.case import random_sources
from nar.testing.failure import broken, named

LENGTH = 6
"""Tokens that a check feeds after the pending one."""

MOST = LENGTH + 3
"""The longest prefix that is scored as a whole."""


def check_model(
    model: Any,
    *,
    source: Source | None = None,
    tolerance: float = 1e-4,
    key: Key[Array, ""] | None = None,
) -> None:
    """Holds a model to the verbs of `nar.Model`, on a few short inputs.

    What `extend` says after any history of commits, rewinds, selections and repeats is compared
    with one pass over each row's whole prefix, which itself must be causal.

    Args:
        model: any model with the verbs, yours too; a pytree, for jit.
        source: a batch; a random one of eight rows by default.
        tolerance: the rounding allowed, as a share of the largest logit.
        key: for the inputs.

    Raises:
        ContractError: the model, what it breaks, and what was seen.
    """
    key = jax.random.key(0) if key is None else key
    probe = Probe(model, source or random_sources(model, key)[0], tolerance)
    before = jax.tree.map(np.array, model)
    for check in (
        spec,
        *(CAUSAL if model.spec.causal else ()),
        *(CANVAS if model.spec.bidirectional else ()),
        *([lengths] * model.spec.length_head),
    ):
        probe.point = check.__name__
        check(probe)
    probe.hold(
        all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(model))),
        "a parameter was changed",
    )


def spec(p: "Probe") -> None:
    """The spec is what static arguments of jit must be, and names tokens of the vocabulary."""
    s = p.model.spec
    p.hold(isinstance(p.model, Model), "begin, extend, fill, logits and spec are not all there")
    p.hold(isinstance(s, Spec) and hash(s) == hash(p.model.spec), f"{s!r} is no Spec")
    for name in ("eos", "pad", "mask", "blank"):
        token = getattr(s, name)
        known = token is None if name in ("mask", "blank") else (name, token) == ("eos", NO_EOS)
        p.hold(known or 0 <= token < s.vocab_size, f"{name}={token} of {s.vocab_size} tokens")
    p.hold(s.eos != s.pad, f"eos and pad are both {s.eos}: outputs could not be told from padding")
    unlike = s.mask is None or s.mask != s.blank
    p.hold(unlike, f"mask and blank are both {s.mask}: a blank on a canvas is something known")


def shapes(p: "Probe") -> None:
    """Every verb returns what it says it does."""
    context, pending = p.begin()
    for name, x in (("pending", pending), ("context.length", context.length)):
        integer = jnp.issubdtype(x.dtype, jnp.integer)
        p.hold(x.shape == (p.batch,) and integer, f"{name} is {named(x)}")
    hidden = jax.eval_shape(lambda m, t, c: m.extend(t, c)[0], p.model, p.tokens, context)
    p.hold(hidden.shape[:2] == p.tokens.shape, f"hidden is {named(hidden)}")
    logits = jax.eval_shape(lambda m, h: m.logits(h), p.model, hidden)
    right = (*p.tokens.shape, p.model.spec.vocab_size)
    floats = jnp.issubdtype(logits.dtype, jnp.floating)
    p.hold(logits.shape == right and floats, f"logits are {named(logits)}; {right} is right")


def causal(p: "Probe") -> None:
    """A token changes what is predicted from its place on, and nothing before."""
    fed = p.feed(p.tokens)
    base = p.whole(fed)
    for t in range(fed.shape[1]):
        other = fed.copy()
        other[:, t] = p.other(fed[:, t])
        found = p.whole(other)
        p.same(found[:, :t], base[:, :t], f"token {t} is seen by earlier ones")
        p.hold((np.abs(found[:, t] - base[:, t]).max(-1) > 0).all(), f"token {t} is not seen")


def in_parts(p: "Probe") -> None:
    """Tokens fed and committed in parts are scored as at once, and just the slots asked for do."""
    fed, (context, _) = p.feed(p.tokens), p.begin(slots=LENGTH)
    wanted, first = p.whole(fed), np.asarray(context.length)
    for part in (slice(0, 2), slice(2, 3), slice(3, LENGTH), slice(LENGTH, None)):
        found, fresh = p.extend(fed[:, part], context)
        p.same(found, wanted[:, part], f"tokens from {part.start} on, after a commit")
        grown = np.asarray(context.length) - first
        p.hold((grown == part.start).all(), f"length grew by {grown} for {part.start} commits")
        if part.stop is not None:
            context = context.commit(fresh, jnp.full((p.batch,), found.shape[1]))


def ragged(p: "Probe") -> None:
    """Every row commits as many tokens as it likes, none included."""
    fed, counts, (context, _) = p.feed(p.tokens), np.arange(p.batch) % LENGTH, p.begin()
    _, fresh = p.extend(fed, context)
    context = context.commit(fresh, jnp.asarray(counts))
    p.follows(context, [row[:n] for row, n in zip(fed, counts, strict=True)], f"counts {counts}")


def by_index(p: "Probe") -> None:
    """A commit picks tokens by index, in order; -1 past the count is nothing."""
    chain, counts, (context, _) = [0, 3, 5], 1 + np.arange(p.batch) % 3, p.begin()
    fed, mask = p.feed(p.tokens), np.eye(1 + LENGTH, dtype=bool)
    mask[np.ix_(chain, chain)] |= np.tri(3, dtype=bool)
    place = np.zeros(1 + LENGTH, int)
    place[chain] = range(3)
    _, fresh = p.extend(fed, context, context.length[:, None] + place, mask)
    index = np.where(np.arange(4) < counts[:, None], [*chain, -1], -1)
    context = context.commit(fresh, jnp.asarray(counts), jnp.asarray(index))
    kept = [row[chain[:n]] for row, n in zip(fed, counts, strict=True)]
    p.follows(context, kept, f"index {chain}, counts {counts}")


def rewound(p: "Probe") -> None:
    """What is rewound might as well never have been committed."""
    fed, counts, (start, _) = p.feed(p.tokens), np.arange(p.batch) % LENGTH, p.begin()
    _, fresh = p.extend(fed, start)
    context = start.commit(fresh, jnp.full((p.batch,), fed.shape[1]))
    context = context.rewind(start.length + counts)
    p.follows(context, [row[:n] for row, n in zip(fed, counts, strict=True)], f"back to {counts}")


def repeated(p: "Probe") -> None:
    """Copies of a row go their own ways, and `select` hands one's past to the other."""
    fed, (context, _) = np.repeat(p.feed(p.tokens), 2, axis=0), p.begin()
    fed[1::2, 1:] = p.other(fed[1::2, 1:])
    context = context.repeat(2)
    _, fresh = p.extend(fed, context)
    context = context.commit(fresh, jnp.full((2 * p.batch,), 3))
    p.follows(context, list(fed[:, :3]), "repeat(2)", copies=2)
    swapped = np.arange(2 * p.batch).reshape(-1, 2)[:, ::-1].reshape(-1)
    context = context.select(jnp.asarray(swapped))
    p.follows(context, list(fed[swapped, :3]), f"select({swapped})", copies=2)


def branching(p: "Probe") -> None:
    """A node of a tree is scored as if its own path were all there is."""
    layout, (context, _) = Layout.tree([-1, 0, 0, 1, 1, 2, 3]), p.begin()
    fed = p.feed(p.tokens)
    masks = {"[time, time]": layout.mask, "[batch, time, time]": np.stack([layout.mask] * p.batch)}
    for name, mask in masks.items():
        found, _ = p.extend(fed, context, context.length[:, None] + layout.offsets, mask)
        for node, sees in enumerate(layout.mask):
            path = np.flatnonzero(sees)
            wanted = p.whole(fed[:, path])[:, -1]
            p.same(found[:, node], wanted, f"mask {name}, node {node} after nodes {path}")


def absent(p: "Probe") -> None:
    """Token -1 is any token: harmless to those that do not see it, and nothing is NaN."""
    fed, (context, _) = p.feed(p.tokens), p.begin()
    wanted, _ = p.extend(fed, context)
    fed[:, 2:] = -1
    found, _ = p.extend(fed, context)
    p.same(found[:, :2], wanted[:, :2], "tokens before -1")
    p.hold(np.isfinite(found).all(), "logits after -1 are not finite")


def pure(p: "Probe") -> None:
    """Nothing is written but by commits, and these leave the context before them as it was."""
    fed, (context, _) = p.feed(p.tokens), p.begin()
    first, fresh = p.extend(fed, context)
    other, _ = p.extend(fed, context.commit(fresh, jnp.full((p.batch,), 2)))
    again, _ = p.extend(fed, context)
    p.hold(np.array_equal(first, again), "the same call again gives other logits")
    p.hold(not np.array_equal(first, other), "logits do not depend on what was committed")


def alone(p: "Probe") -> None:
    """A row's logits depend neither on its neighbours nor on the padding of its source."""
    fed = p.feed(p.tokens)
    wanted = p.whole(fed)
    for how, source, rows in p.elsewhere():
        p.same(p.whole(fed[rows], source), wanted[rows], how)


def fill(p: "Probe") -> None:
    """Places of a canvas see all valid places and no others."""
    canvas, valid = p.canvas()
    wanted = p.fill(canvas, valid)
    right = (*canvas.shape, p.model.spec.vocab_size)
    p.hold(wanted.shape == right, f"logits are {wanted.shape}; {right} is right")
    for t in range(canvas.shape[1]):
        changed = canvas.copy()
        changed[:, t] = p.other(canvas[:, t])
        apart = np.abs(p.fill(changed, valid) - wanted).max(-1)
        here = valid[:, t]
        p.hold((apart[here][valid[here]] > 0).all(), f"place {t} is not seen by all valid ones")
        p.hold(not apart[~here][valid[~here]].any(), f"place {t} is seen, and it is not valid")


def fill_unknown(p: "Probe") -> None:
    """Where nothing is known, a row's own source says what is predicted, and nothing else does."""
    _, valid = p.canvas()

    def logits(source: Source, rows: Any = slice(None)) -> np.ndarray:
        canvas, within = p.canvas(source)
        if p.model.spec.mask is not None:
            canvas[:] = p.model.spec.mask
        within[:, : valid.shape[1]] = valid[rows]
        found = p.fill(canvas, within, source)[:, : valid.shape[1]]
        return np.where(valid[rows][..., None], found, 0)

    wanted = logits(p.source)
    for how, source, rows in p.elsewhere():
        p.same(logits(source, rows), wanted[rows], how)
    tokens = np.asarray(p.source.tokens)
    changed = p.source.replace(tokens=jnp.asarray(p.other(tokens)))
    apart = np.abs(logits(changed) - wanted).max(-1)
    p.hold((apart[valid] > 0).all(), "the source is not seen by all places")


def lengths(p: "Probe") -> None:
    """The probabilities of 0, 1, 2, ... tokens add up to 1, and are a row's own."""
    wanted, most = p.lengths(p.source), p.model.spec.max_target
    shape = (p.batch, wanted.shape[1] if most is None else most + 1)
    p.hold(wanted.shape == shape, f"lengths are {wanted.shape}; {shape} is right")
    p.same(wanted.sum(1), np.ones(p.batch), "the sum over all lengths", of="probability")
    for how, source, rows in p.elsewhere():
        p.same(p.lengths(source), wanted[rows], how, of="probability")


CAUSAL = (
    shapes,
    causal,
    in_parts,
    ragged,
    by_index,
    rewound,
    repeated,
    branching,
    absent,
    pure,
    alone,
)

CANVAS = (fill, fill_unknown)


@dataclasses.dataclass
class Probe:
    """A model, a batch, and the verbs under jit."""

    model: Any
    source: Source
    tolerance: float
    point: str = ""

    def __post_init__(self):
        s = self.model.spec
        self.batch = self.source.tokens.shape[0]
        self.ordinary = np.array(
            [t for t in range(s.vocab_size) if t not in (*s.ends, s.pad, s.mask)]
        )
        self.tokens = np.random.default_rng(0).choice(self.ordinary, (self.batch, LENGTH))

    def begin(self, source: Source | None = None, slots: int = 2 * LENGTH) -> tuple[Any, Array]:
        """Context and pending token."""
        return _begin(self.model, self.source if source is None else source, slots)

    def extend(self, tokens: Any, context: Any, positions: Any = None, mask: Any = None):
        """Logits after every token, and what can be committed."""
        logits, fresh = _extend(self.model, jnp.asarray(tokens), context, positions, mask)
        return np.asarray(logits, np.float64), fresh

    def whole(self, fed: np.ndarray, source: Source | None = None) -> np.ndarray:
        """Logits after every token, in one pass that commits nothing and has no slots."""
        more = np.zeros((len(fed), MOST - fed.shape[1]), int)
        fixed = np.concatenate(
            [fed, more], axis=1
        )  # one shape, one program; nobody sees what follows
        return self.extend(fixed, self.begin(source, 0)[0])[0][:, : fed.shape[1]]

    def canvas(self, source: Source | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ordinary tokens on a canvas for the source, and which places are valid."""
        source = self.source if source is None else source
        upsample, (batch, time) = self.model.spec.upsample, source.tokens.shape
        width = upsample * time or LENGTH
        length = upsample * np.asarray(source.length) if upsample else 1 + np.arange(batch) % LENGTH
        tokens = np.random.default_rng(1).choice(self.ordinary, (batch, width))
        return tokens, np.arange(width) < length[:, None]

    def fill(self, canvas: np.ndarray, valid: np.ndarray, source: Source | None = None):
        """Logits of a canvas, from a context without slots."""
        context, _ = self.begin(source, 0)
        return np.asarray(_fill(self.model, jnp.asarray(canvas), context, jnp.asarray(valid)))

    def lengths(self, source: Source) -> np.ndarray:
        """The probability of each length."""
        return np.exp(np.asarray(_lengths(self.model, self.begin(source, 0)[0])))

    def elsewhere(self) -> Iterator[tuple[str, Source, Any]]:
        """The same rows with other padding and neighbours: how, the source, and which rows."""
        source, every = self.source, np.arange(self.batch)
        past = np.arange(source.tokens.shape[1]) >= np.asarray(source.length)[:, None]
        noisy = source.replace(tokens=jnp.where(past, 1, source.tokens))
        wide = source.replace(tokens=jnp.pad(source.tokens, ((0, 0), (0, 3))))
        yield "other tokens in the source's padding", noisy, every
        yield "three more places of padding", wide, every
        yield "rows in reverse order", jax.tree.map(lambda x: x[::-1], source), every[::-1]
        for row in every:
            one = slice(row, row + 1)
            yield f"row {row} alone", jax.tree.map(lambda x, one=one: x[one], source), one

    def feed(self, tokens: np.ndarray) -> np.ndarray:
        """The pending token, and tokens after it."""
        return np.concatenate([np.asarray(self.begin()[1])[:, None], tokens], axis=1)

    def other(self, tokens: np.ndarray) -> np.ndarray:
        """An ordinary token in place of each, never the same."""
        return self.ordinary[(np.searchsorted(self.ordinary, tokens) + 1) % len(self.ordinary)]

    def follows(self, context: Any, past: list[np.ndarray], how: str, copies: int = 1) -> None:
        """Breaks unless two more tokens are scored as after each row's `past`."""
        new = np.repeat(self.other(self.tokens[:, :2]), copies, axis=0)
        new[:: copies + 1] = self.other(new[:: copies + 1])
        found, _ = self.extend(new, context)
        rows = [[*old, *after] for old, after in zip(past, new, strict=True)]
        fed = np.array([[*row, *[row[-1]] * (MOST - len(row))] for row in rows])
        source = jax.tree.map(lambda x: jnp.repeat(x, copies, axis=0), self.source)
        wanted = self.whole(fed, source)
        at = np.array([len(old) for old in past])[:, None] + np.arange(2)
        self.same(found, wanted[np.arange(len(rows))[:, None], at], f"tokens after {how}")

    def same(self, found: np.ndarray, wanted: np.ndarray, what: str, of: str = "logits") -> None:
        """Breaks where numbers differ by more than rounding."""
        apart = np.nan_to_num(np.abs(found - wanted), nan=np.inf)
        if apart.size and apart.max() > self.tolerance * max(1.0, np.abs(wanted).max()):
            at = np.unravel_index(apart.argmax(), apart.shape)
            place = [int(i) for i in at]
            self.broken(f"{what}: {of}{place} is {found[at]:.6g}; {wanted[at]:.6g} is right")

    def hold(self, true: Any, otherwise: str) -> None:
        """Breaks unless `true`."""
        if not true:
            self.broken(otherwise)

    def broken(self, what: str) -> NoReturn:
        """Raises a ContractError."""
        broken(f"the contract of models ({self.point})", type(self.model), what)


@functools.partial(jax.jit, static_argnums=2)
def _begin(model, source, slots):
    return model.begin(source, slots)


@jax.jit
def _extend(model, tokens, context, positions, mask):
    hidden, fresh = model.extend(tokens, context, positions, mask)
    return model.logits(hidden), fresh


@jax.jit
def _fill(model, canvas, context, valid):
    return model.logits(model.fill(canvas, context, valid))


@jax.jit
def _lengths(model, context):
    return model.lengths(context)

"""What a decoder is: its state, its output, and what it needs of a model."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from nar.errors import IncompatibleModel, NarError, at_least, check_room, check_source
from nar.ops import NEG

TARGET = "target"
"""The role of the model that a decoder decodes; a model that is not a bundle plays it."""

NO_EOS = -1
"""The `eos` of a model none of whose tokens ends an output: all run to their limits."""


# --------------------------------------------------------------------------------------- sources
class Source(struct.PyTreeNode):
    """A batch of inputs: sentences to translate, or prompts to continue.

    Attributes:
        tokens: `[batch, time]`, padded on the right.
        length: `[batch]`, at least 1.
        limit: `[batch]` or None: the most tokens to write for each row, at most the decoder's
            `max_length`. With greedy's own lengths here, decoding runs with an *oracle length*.
    """

    tokens: Int[Array, "batch time"]
    length: Int[Array, " batch"]
    limit: Int[Array, " batch"] | None = None

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], *, pad: int = 0, width: int | None = None) -> Self:
        """Pads rows of token ids on the right.

        Args:
            rows: token ids, each row at least one long.
            pad: the id to pad with; never read.
            width: padded width; the longest row's length by default.

        Raises:
            NarError: there are no rows, a row is empty, or a row is longer than `width`.
        """
        if not rows:
            raise NarError("a batch of zero rows: a Source needs at least one")
        length = np.array([len(row) for row in rows], np.int32)
        if length.min() < 1:
            raise NarError(f"row {int(length.argmin())} is empty: every source needs one token")
        width = int(length.max()) if width is None else width
        if length.max() > width:
            raise NarError(
                f"row {int(length.argmax())} has {length.max()} tokens: at most width={width} fit"
            )
        tokens = np.full((len(rows), width), pad, np.int32)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = row
        return cls(jnp.asarray(tokens), jnp.asarray(length))


# ---------------------------------------------------------------------------------------- models
@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What a model offers, known before tracing.

    Attributes:
        vocab_size: number of tokens.
        eos: the token that ends an output, or `NO_EOS`.
        also_eos: other tokens that end one; `eos` is written for each of them.
        pad: the token that fills unused places.
        encoder: True: `begin` encodes the source; False: `begin` reads it as a prompt.
        max_source: the longest source in tokens; None: no limit.
        max_target: the longest output in tokens (prompt included, when there is no encoder);
            None: no limit.
        causal: `extend` predicts the next token.
        bidirectional: `fill` was trained, so a canvas can be predicted at once.
        upsample: a canvas has so many places for each source token; 0: as many as one likes.
        draft_heads: number of heads that predict further ahead.
        exits: `exit(n)` is the model of its first n decoder layers, for n below this; 0: none.
        length_head: `lengths(context)` is `[batch, most + 1]`, the log-probabilities of outputs of
            0, 1, 2, ... tokens; EOS is not counted.
        mask: the token of a place on a canvas where nothing is known; None: there is none.
        blank: the token of CTC that stands for no output; None: there is none.
    """

    vocab_size: int
    eos: int
    pad: int
    encoder: bool
    max_source: int | None = None
    max_target: int | None = None
    causal: bool = True
    bidirectional: bool = False
    upsample: int = 0
    draft_heads: int = 0
    exits: int = 0
    length_head: bool = False
    mask: int | None = None
    blank: int | None = None
    also_eos: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end an output."""
        return (self.eos, *self.also_eos)

    def closed(self, tokens: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
        """The tokens, `eos` for all that end an output."""
        if not self.also_eos:
            return tokens
        return jnp.where(jnp.isin(tokens, np.array(self.also_eos)), self.eos, tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """What a decoder or an objective asks of a model; the fields mean what they mean in `Spec`.

    Attributes:
        upsample: True: the canvas is the source, upsampled; False: it is as long as one likes;
            None: either.
        exit: at which decoder layer an early exit is made; 0: none is.
        ahead: tokens beyond `max_length` for which the context must have room.
    """

    causal: bool = False
    bidirectional: bool = False
    upsample: bool | None = None
    draft_heads: int = 0
    exit: int = 0
    length_head: bool = False
    mask: bool = False
    blank: bool = False
    ahead: int = 0

    def unmet(self, spec: Spec) -> list[str]:
        """The needs that `spec` does not meet, in words."""
        lacking = []
        if self.causal and not spec.causal:
            lacking.append("a causal model (extend)")
        if self.bidirectional and not spec.bidirectional:
            lacking.append("a model trained to predict a canvas (fill)")
        if self.upsample is not None and self.upsample != (spec.upsample > 0):
            lacking.append("upsample > 0" if self.upsample else "upsample=0")
        if self.draft_heads > spec.draft_heads:
            lacking.append(f"{self.draft_heads} draft heads (the model has {spec.draft_heads})")
        if self.exit and self.exit >= spec.exits:
            most = f"{spec.exits - 1} at most" if spec.exits > 1 else "the model has none"
            lacking.append(f"an early exit at decoder layer {self.exit} ({most})")
        if self.length_head and not spec.length_head:
            lacking.append("a length head")
        if self.mask and spec.mask is None:
            lacking.append("a mask token")
        if self.blank and spec.blank is None:
            lacking.append("a blank token (CTC)")
        return lacking

    def check(self, spec: Spec, *, who: Any, of: str) -> None:
        """Raises an IncompatibleModel that says what `who` needs `of` a model, unless it has it."""
        if lacking := self.unmet(spec):
            needed = " and ".join(lacking)
            raise IncompatibleModel(f"{who!r} needs {needed} of {of}, which offers {spec}")


class Bundle(struct.PyTreeNode):
    """Several models by role, where a decoder takes one: `Bundle.of(target=..., draft=...)`."""

    models: dict[str, Any]

    @classmethod
    def of(cls, **models: Any) -> Self:
        """A bundle; one model must be the target."""
        if TARGET not in models:
            raise NarError(f"a bundle needs the role {TARGET!r}; it was given {sorted(models)}")
        return cls(models)


def role(model: Any, name: str = TARGET) -> Any:
    """The model that plays `name`: a bundle's member, or the model itself for the target."""
    models = model.models if isinstance(model, Bundle) else {TARGET: model}
    if name not in models:
        raise IncompatibleModel(
            f"the decoder needs a {name!r} model too: --{name} PATH on the command line, "
            f"nar.load(..., {name}=PATH), or Bundle.of(target=..., {name}=...); there are "
            f"{', '.join(sorted(models))}"
        )
    return models[name]


# ----------------------------------------------------------------------------------------- state
class Stats(struct.PyTreeNode):
    """What the field argues about, counted while decoding. `begin` is not counted: all need it.

    Attributes:
        calls: by role, sequential calls of that model (latency).
        live: `[batch]`, calls of the target that a row needed: those made before it was done.
        positions: by role, `[batch]`, positions scored for a row while it was live (compute).
        accepted: `[most + 1]`, how many (call, live row) pairs accepted 0, 1, 2, ... tokens.
    """

    calls: dict[str, Int[Array, ""]]
    live: Int[Array, " batch"]
    positions: dict[str, Int[Array, " batch"]]
    accepted: Int[Array, " most"]

    @classmethod
    def zero(cls, batch: int, most: int, roles: Sequence[str] = (TARGET,)) -> Self:
        """Nothing counted yet; `most` is the largest number of tokens one call can accept."""
        rows = jnp.zeros((batch,), jnp.int32)
        return cls(
            calls={name: jnp.zeros((), jnp.int32) for name in roles},
            live=rows,
            positions={name: rows for name in roles},
            accepted=jnp.zeros((most + 1,), jnp.int32),
        )

    def count(
        self,
        live: Bool[Array, " batch"],
        accepted: Int[Array, " batch"],
        work: Mapping[str, tuple[Any, Any]],
    ) -> Self:
        """Counts one step: `work` is `{role: (sequential calls, positions a row)}`.

        Steps after the last row was done, as `trace` makes them, count nothing.
        """
        on = live.astype(jnp.int32)
        calls, positions = dict(self.calls), dict(self.positions)
        for name, (times, scored) in work.items():
            calls[name] = calls[name] + on.max() * times
            positions[name] = positions[name] + on * scored
        return self.replace(
            calls=calls,
            live=self.live + on,
            positions=positions,
            accepted=self.accepted.at[accepted].add(on),
        )


class View(struct.PyTreeNode):
    """What one step looked at, for pictures. Costs nothing in `decode`: no one reads it there.

    Attributes:
        tokens: `[batch, nodes]`, what was guessed at each node; -1 where nothing was.
        position: `[batch, nodes]`, the place in the output that the node's guess would take;
            -1 for the token that was already accepted.
        accepted: `[batch, nodes]`, whether the step accepted the guess.
        choices: `[batch, nodes, k]`, the model's k best tokens for the place *after* the node
            (draft and verify), or for the node's own place (canvas).
        logprobs: `[batch, nodes, k]`, their log-probabilities.
        own: whether `choices` are for the node's own place.
    """

    tokens: Int[Array, "batch nodes"]
    position: Int[Array, "batch nodes"]
    accepted: Bool[Array, "batch nodes"]
    choices: Int[Array, "batch nodes k"]
    logprobs: Float[Array, "batch nodes k"]
    own: bool = struct.field(pytree_node=False, default=False)


class State(struct.PyTreeNode):
    """The frame that every tool can read, and the decoder's private `carry`.

    Attributes:
        tokens: `[batch, time]`, the output so far; pad from `length` on.
        length: `[batch]`, tokens written, EOS included.
        done: `[batch]`.
        failed: `[batch]`, rows that are done because logits that had to decide were NaN.
        stats: what was counted.
        carry: what the next step needs, any pytree.
        view: what the last step looked at; None in a loop's carry.
    """

    tokens: Int[Array, "batch time"]
    length: Int[Array, " batch"]
    done: Bool[Array, " batch"]
    failed: Bool[Array, " batch"]
    stats: Stats
    carry: Any
    view: View | None = None


class Candidates(struct.PyTreeNode):
    """Some outputs a row, the best first.

    Attributes:
        tokens: `[batch, candidates, time]`, pad after the length.
        length: `[batch, candidates]`, EOS included.
        scores: `[batch, candidates]`, as the decoder defines them; NEG where there is none.
    """

    tokens: Int[Array, "batch candidates time"]
    length: Int[Array, "batch candidates"]
    scores: Float[Array, "batch candidates"]

    def pick(self, index: Int[Array, "batch picks"]) -> Self:
        """Each row's candidates `index[row]`, in that order."""
        return self.replace(
            tokens=jnp.take_along_axis(self.tokens, index[..., None], axis=1),
            length=jnp.take_along_axis(self.length, index, axis=1),
            scores=jnp.take_along_axis(self.scores, index, axis=1),
        )

    def none_of(self, rows: Bool[Array, " batch"], pad: int) -> Self:
        """No candidates in some rows."""
        return self.replace(
            tokens=jnp.where(rows[:, None, None], pad, self.tokens),
            length=jnp.where(rows[:, None], 0, self.length),
            scores=jnp.where(rows[:, None], NEG, self.scores),
        )

    def best(self, n: int) -> Self:
        """The n best of each row; of equal ones the first."""
        return self.pick(jax.lax.top_k(self.scores, n)[1])

    def join(self, other: Self) -> Self:
        """Those of both."""
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), self, other)


class Output(struct.PyTreeNode):
    """What a decoder found.

    Attributes:
        tokens: `[batch, time]`, with EOS where it was reached; pad after the length.
        length: `[batch]`, EOS included.
        scores: `[batch]`, log-probability of the output as the decoder defines it, or None.
        stats: what was counted.
        failed: `[batch]`, rows that broke off because logits that had to decide were NaN; `tokens`
            are what was written before. None: the decoder does not say.
        nbest: for decoders that keep several: these, of which `tokens` is the first; or None.
    """

    tokens: Int[Array, "batch time"]
    length: Int[Array, " batch"]
    scores: Float[Array, " batch"] | None
    stats: Stats
    failed: Bool[Array, " batch"] | None = None
    nbest: Candidates | None = None


def failed_rows(output: Output | State) -> Bool[np.ndarray, " batch"]:
    """Which rows broke off at NaN, read back; none of a decoder that does not say."""
    failed = output.failed
    return np.zeros(output.length.shape, bool) if failed is None else np.asarray(failed)


# --------------------------------------------------------------------------------------- decoders
Lossless = Literal["greedy", "distribution", "no"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder(abc.ABC):
    """A decoding algorithm: its fields are its hyper-parameters; a static argument of jit.

    Attributes:
        max_length: the most tokens to write for a row, EOS included.
    """

    family: ClassVar[str] = ""
    max_length: int = 128

    def __post_init__(self):
        at_least("max_length", self.max_length, 1)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool) and not isinstance(value, bool):
                raise NarError(f"{field.name}={value!r}: it must be True or False")

    @property
    def needs(self) -> Mapping[str, Needs]:
        """What is needed of the model in each role."""
        return {TARGET: Needs(causal=True)}

    @property
    def reads(self) -> tuple[str, ...]:
        """What of a bundle it uses, by role: the models it needs, and what is no model."""
        return tuple(self.needs)

    @property
    @abc.abstractmethod
    def lossless(self) -> Lossless:
        """Whether the output is greedy's, a sample of the model's distribution, or neither."""

    @property
    def max_steps(self) -> int:
        """After so many steps every row is done, whatever the model says."""
        return self.max_length

    @property
    def streams(self) -> bool:
        """Whether what is written stays; not where hypotheses compete until the end."""
        return True

    @abc.abstractmethod
    def init(
        self, model: Any, source: Source, *, key: Key[Array, ""] | Key[Array, " batch"]
    ) -> State:
        """Reads the source and sets up the state."""

    @abc.abstractmethod
    def step(self, model: Any, state: State) -> State:
        """One parallel call of the model; only `view` changes its type, from None to a View."""

    def finish(self, model: Any, state: State) -> Output:
        """The output of a final state."""
        return Output(state.tokens, state.length, None, state.stats, state.failed)

    def check(self, model: Any, source: Source) -> None:
        """Raises, before tracing, when this decoder cannot decode `source` with `model`.

        Raises:
            IncompatibleModel: the model lacks what `needs` names.
            NarError: the source does not fit the model or the decoder.
        """
        for name, needs in self.needs.items():
            spec = role(model, name).spec
            needs.check(spec, who=self, of=f"its {name} model")
            who = "model" if name == TARGET else f"{name} model"
            check_room(source, spec, self.max_length, ahead=needs.ahead, who=who)
        check_source(source, self.max_length)


def room(decoder: Decoder, model: Any) -> int | None:
    """The most tokens of a source that a decoder can be given; None: any number.

    Raises:
        IncompatibleModel: the model lacks what the decoder needs.
        NarError: the decoder's `max_length` does not fit, however short the source.
    """
    probe = Source.of([[0]])
    decoder.check(model, probe.replace(limit=jnp.ones_like(probe.length)))  # an oracle may ask
    asked = [(role(model, name).spec, needs) for name, needs in decoder.needs.items()]
    limits = [spec.max_source for spec, _ in asked if spec.max_source is not None]
    limits += [
        spec.max_target - decoder.max_length - needs.ahead
        for spec, needs in asked
        if not spec.encoder and spec.max_target is not None
    ]
    return min(limits, default=None)


def row_keys(key: Key[Array, "..."], batch: int) -> Key[Array, " batch"]:
    """One random key a row, from one key or from `batch` of them.

    Row i's key depends on `key` and i alone, so that a sample does not change with its neighbours.
    """
    if key.ndim:
        return key
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
